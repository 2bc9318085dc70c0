"""The scale benchmark: its replicas keep time, its theory is right, and it really measures."""

import json
import os
import random
import statistics
import subprocess
import sys
import xml.etree.ElementTree as ET
from collections.abc import Callable
from math import inf
from pathlib import Path
from typing import Any

import pytest
import zmq

from loadtest.bench.scale import __main__ as scale
from loadtest.bench.scale.clients import Clients, Tally
from loadtest.bench.scale.peers import CONTRACT, Curve, Peer
from loadtest.bench.scale.report import PIXELS, Results, Sample
from loadtest.bench.scale.stage import Middle, stage
from loadtest.bench.scale.theory import waiting_ms
from loadtest.bench.usage import tree
from tests.conftest import ROOT
from wire import Done, Ready, Work, encode, from_replica


def test_queueing_theory_agrees_with_known_values() -> None:
    assert waiting_ms(0.5, 1, 10) == pytest.approx(10), "M/M/1: rho / (1 - rho) of a service"
    # M/M/2: rho^2 / (1 - rho^2) of a service.
    assert waiting_ms(0.75, 2, 10) == pytest.approx(10 * 0.5625 / 0.4375)
    assert waiting_ms(0.9, 64, 10) < 1.5
    assert waiting_ms(1.0, 4, 10) == inf


def test_a_curve_that_is_drawn_has_the_declared_mean() -> None:
    chance = random.Random(1)
    curve = Curve(base_ms=30, image_ms=10, max_batch=1, exponential=True)
    assert statistics.mean(curve.seconds(1, chance) for _ in range(5000)) == pytest.approx(
        0.04, rel=0.05
    )
    exact = Curve(base_ms=8, image_ms=0.15, max_batch=8)
    assert exact.seconds(4, chance) == pytest.approx(0.0086)


def test_a_simulated_replica_batches_and_keeps_its_calendar() -> None:
    """Driven by a clock of its own: three pictures, batches of two, 10 ms each and 1 ms a batch."""
    context = zmq.Context()
    with context.socket(zmq.PAIR) as broker, context.socket(zmq.PAIR) as mine:
        for socket in (broker, mine):
            socket.linger = 0
        broker.bind("inproc://replica")
        mine.connect("inproc://replica")
        peer = Peer("r", mine, Curve(base_ms=1, image_ms=10, max_batch=2))
        peer.introduce()
        ready = from_replica.decode(broker.recv_multipart())
        assert isinstance(ready, Ready)
        assert (ready.contract, ready.credit) == (CONTRACT, 4)
        for job in (1, 2, 3):
            work = Work(job=job, deadline_ms=1000, top_k=5, encoding="pixels")
            broker.send_multipart([encode(work), bytes(CONTRACT.nbytes)])
            peer.hear(100.0 + job / 1000)
            peer.work(100.0 + job / 1000)
        assert peer.ends == pytest.approx(100.012), "the first came alone"
        peer.work(100.0119)
        assert not broker.poll(0)
        # Told late, yet the second batch began when the first had ended.
        peer.work(100.0125)
        assert peer.ends == pytest.approx(100.012 + 0.021)
        peer.work(100.05)
        assert peer.ends is None
        told = [from_replica.decode(broker.recv_multipart()) for _ in range(3)]
        done = [answer for answer in told if isinstance(answer, Done)]
        assert [(d.job, d.batch_size) for d in done] == [(1, 1), (2, 2), (3, 2)]
        assert [d.timing.batch for d in done] == pytest.approx([0, 10, 9])
        assert [d.timing.inference for d in done] == pytest.approx([11, 21, 21])
    context.term()


@pytest.mark.parametrize("middle", ["broker", "forwarder"])
def test_a_crowd_is_answered_and_nothing_stays_behind(middle: Middle) -> None:
    before = set(tree(os.getpid()))
    with stage(middle, 2, scale.INSTANT) as running:

        def crowd(clients: Clients, look: Callable[[], None]) -> Tally:
            return clients.crowd(8, 0.3, look)

        for size in (1000, PIXELS):
            tally, middle_s, others_s = running.measure(size, crowd)
            assert tally.done > 20
            assert tally.failed == 0
            assert middle_s > 0
            assert others_s > 0
    assert set(tree(os.getpid())) <= before


def sample(experiment: str, replicas: int, **fields: Any) -> Sample:
    known = {"round": 1, "req_s": 1.0, "cpu_us": 1.0, "others_us": 1.0, "core": 1.0}
    return Sample(experiment=experiment, replicas=replicas, **{**known, **fields})


def test_a_share_is_of_what_replicas_could_or_the_broker_carries() -> None:
    samples = [
        sample("limit", 4, req_s=3500, cpu_us=250),
        sample("limit", 4, req_s=9000, cpu_us=50, middle="forwarder"),
        sample("replicas", 2, req_s=180),
        sample("replicas", 64, req_s=3900),
        sample("fleet", 1, req_s=30),
        sample("fleet", 64, req_s=0.96 * 64 * 30),
        sample("queue", 8, load=0.5, wait_ms=1.0, way_ms=0.8),
    ]
    results = Results(samples, service_ms=10, queue_ms=40)
    assert results.limit == 3500
    assert results.whole_core == 4000
    assert results.share(2) == pytest.approx(0.9)
    assert results.share(64) == pytest.approx(3900 / 3500)
    assert results.fleet == pytest.approx(0.96)
    assert [promise.kept for promise in results.promises()] == [True, True, True, True]
    assert "| 0.50 | 8 | 1.0 | 0.6 | 0.8 |" in results.tables()
    assert ET.fromstring(results.plot()).tag.endswith("svg")


@pytest.mark.drill
@pytest.mark.timeout(300)
def test_all_experiments_are_made(tmp_path: Path) -> None:
    arguments = ["--rounds", "1", "--window", "0.5", "--output", str(tmp_path)]
    done = subprocess.run(
        [sys.executable, "-m", "loadtest.bench.scale", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    told = json.loads((tmp_path / "scale.json").read_text())
    assert {s["replicas"] for s in told if s["experiment"] == "replicas"} == set(scale.REPLICAS)
    assert {s["load"] for s in told if s["experiment"] == "queue"} == set(scale.LOADS)
    assert not any(s["failed"] for s in told)
    assert "kept    failures: 0.00" in done.stdout
