"""Replicas on a host with four GPUs, which are made up: NVIDIA's library is a stand-in, the rest is
real. No machine that runs these tests has a GPU, so none of them shows that CUDA obeys."""

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from modelserver.gpu import OVERHEAD_MIB
from modelserver.keygen import make_keys
from modelserver.supervisor import CONFIG_STATUS
from tests.conftest import Processes, Service, eventually, free_port, request

LEASED = re.compile(r"(GPU-\S+) is leased to this replica, \d+ on it now; memory: (.*)$", re.M)


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What a replica's environment needs so that it finds a driver, which has no GPUs yet."""
    if shutil.which("cc") is None:
        pytest.skip("no C compiler for the stand-in of libnvidia-ml")
    folder = tmp_path_factory.mktemp("driver")
    source, library = Path(__file__).parent / "libnvidia_ml.c", folder / "libnvidia-ml.so.1"
    subprocess.run(["cc", "-shared", "-fPIC", "-Wall", "-o", library, source], check=True)
    return {"LD_LIBRARY_PATH": str(folder)}


LOADING_FOR_EVER = """
import os, sys
from modelserver.config import ReplicaConfig
from modelserver.gpu import leased
with leased(ReplicaConfig.from_env(os.environ), None, os.environ) as share:
    print(os.environ["CUDA_VISIBLE_DEVICES"], share, flush=True)
    sys.stdin.read()
"""
"""A replica before it is READY: it has a lease, and says how it would load its engine."""


class Host:
    """A service whose replicas see some GPUs."""

    def __init__(self, processes: Processes, driver: dict[str, str], gpus: int) -> None:
        self.processes = processes
        settings = {"MODEL_DEVICE": "gpu", "MODEL_ENGINE": "simulated", "FAKE_GPUS": str(gpus)}
        self.env = {**driver, **settings}
        self.service = Service(processes, **self.env)

    def start(self, replicas: int, **env: str) -> dict[str, subprocess.Popen[bytes]]:
        return dict(self.service.start_replica(**env) for _ in range(replicas))

    def gpu(self, name: str) -> str | None:
        """The GPU of one replica; None while it has none."""
        told = LEASED.search(self.processes.log(name))
        return told[1] if told else None

    def gpus(self, names: dict[str, subprocess.Popen[bytes]]) -> Counter[str]:
        """How many of these replicas each GPU has, once each of them has one."""
        eventually(lambda: all(self.gpu(name) for name in names), within_s=30)
        return Counter(str(self.gpu(name)) for name in names)


@pytest.mark.drill
def test_replicas_spread_over_the_gpus_and_a_successor_gets_the_place_of_the_dead(
    processes: Processes, driver: dict[str, str], tmp_path: Path
) -> None:
    keys = {file.stem: str(file) for file in make_keys(tmp_path / "keys")}
    known = {"MODEL_KEYS_FILE": keys["model"]}
    host = Host(processes, driver, gpus=4)
    host.service.start_broker(BROKER_KEYS_FILE=keys["broker"])
    host.service.start_web(WEB_KEYS_FILE=keys["web"])
    first = host.start(4, **known)
    assert sorted(host.gpus(first).values()) == [1, 1, 1, 1]

    victim = next(iter(first))
    first[victim].kill()
    port = free_port()
    successor = host.start(1, MODEL_METRICS=f"127.0.0.1:{port}", **known)
    assert set(host.gpus(successor)) == {host.gpu(victim)}
    told = request(port, "GET", "/metrics").body.decode()
    used = re.findall(r'^sightline_replica_gpu_memory_used_bytes{gpu="(.*)"} (.*)$', told, re.M)
    [(uuid, nbytes)] = used
    assert uuid == host.gpu(victim)
    assert float(nbytes) == int(uuid[-12:]) << 30

    more = host.start(4, **known)
    del first[victim]
    assert sorted(host.gpus({**first, **successor, **more}).values()) == [2, 2, 2, 2]
    host.service.await_replicas(8)


@pytest.mark.drill
def test_leases_outlive_the_broker_and_who_asks_meanwhile_waits(
    processes: Processes, driver: dict[str, str]
) -> None:
    host = Host(processes, driver, gpus=3)
    first = host.start(2)
    eventually(lambda: all("asking" in processes.log(name) for name in first), within_s=30)
    broker = host.service.start_broker()
    assert sorted(host.gpus(first).values()) == [1, 1]

    broker.kill()
    broker.wait()
    newcomer = host.start(1)
    host.service.start_broker()
    assert sorted(host.gpus({**first, **newcomer}).values()) == [1, 1, 1]


@pytest.mark.drill
def test_where_a_gpu_is_for_one_replica_the_next_one_waits_for_its_turn(
    processes: Processes, driver: dict[str, str]
) -> None:
    host = Host(processes, driver, gpus=2)
    host.service.start_broker()
    first = host.start(2, MODEL_REPLICAS_PER_GPU="1")
    assert sorted(host.gpus(first).values()) == [1, 1]
    spare = host.start(1, MODEL_REPLICAS_PER_GPU="1")
    [spares_name] = spare
    eventually(lambda: "still waiting" in processes.log(spares_name), within_s=30)
    assert host.gpu(spares_name) is None
    victim = next(iter(first))
    first[victim].send_signal(signal.SIGSTOP)  # frozen, so that its connection has to be missed
    assert set(host.gpus(spare)) == {host.gpu(victim)}


@pytest.mark.drill
def test_a_replica_that_is_killed_while_it_loads_gives_its_gpu_back(
    processes: Processes, driver: dict[str, str]
) -> None:
    host = Host(processes, driver, gpus=2)
    host.service.start_broker()
    env = {"MODEL_BROKER": host.service.backend, "MODEL_REPLICAS_PER_GPU": "4"}
    with contextlib.ExitStack() as stack:

        def load() -> tuple[subprocess.Popen[str], str]:
            process = subprocess.Popen(
                [sys.executable, "-c", LOADING_FOR_EVER],
                env={**os.environ, **host.env, **env},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            stack.enter_context(process)
            stack.callback(process.kill)
            assert process.stdout is not None
            cuda_is_shown, share = process.stdout.readline().split()
            assert int(share) == 16 * 1024 // 4 - OVERHEAD_MIB
            return process, cuda_is_shown

        (first, gpu), (_, another) = load(), load()
        assert gpu != another
        first.kill()
        assert load()[1] == gpu


def test_a_gpu_that_the_operator_has_chosen_stands(
    processes: Processes, driver: dict[str, str]
) -> None:
    host = Host(processes, driver, gpus=4)
    host.service.start_broker()
    [(name, process)] = host.start(1, CUDA_VISIBLE_DEVICES="2").items()
    eventually(lambda: "joined: efficientnet-lite0" in processes.log("broker"))
    assert "CUDA_VISIBLE_DEVICES=2 is set, so no GPU is leased" in processes.log(name)
    assert process.poll() is None


@pytest.mark.parametrize(
    ("env", "said"),
    [
        ({}, "no NVIDIA driver answers here (Driver Not Loaded)"),
        ({"FAKE_GPUS": "0"}, "it shows no GPU to this process"),
        ({"LD_LIBRARY_PATH": ""}, "no NVIDIA driver answers here (NVML Shared Library Not Found)"),
    ],
    ids=["no driver", "no GPU", "no library"],
)
def test_without_a_gpu_a_replica_that_is_to_have_one_does_not_start(
    processes: Processes, driver: dict[str, str], env: dict[str, str], said: str
) -> None:
    replica = processes.start(
        "replica",
        "modelserver",
        "replica",
        **{"MODEL_DEVICE": "gpu", "MODEL_ENGINE": "simulated", **driver, **env},
    )
    assert replica.wait(30) == CONFIG_STATUS
    [line] = processes.log("replica").splitlines()
    assert line.startswith("sightline: MODEL_DEVICE is gpu")
    assert said in line
    assert "MODEL_DEVICE=cpu" in line
