"""`deploy/swarm` on a real swarm of one node: whatever is replaced under load, no request is lost.

Rules:
- The swarm is left at the end if it was made here. Where there was one already it is used.
- The files are those that users deploy. What is laid over them is in swarm.yml, and relay.py is the
  mesh's stand-in: a kernel without IPVS has none.
- Every request is entered in the chaos drill's ledger. The clients keep their connections, and send
  nothing twice.
"""

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from random import randrange
from typing import Final

import pytest

from loadtest.chaos.clients import Connection, Crowd
from loadtest.chaos.ledger import Ledger
from loadtest.chaos.pictures import Picture, learn
from modelserver.keygen import make_keys
from tests.conftest import ROOT, eventually
from tests.containers.conftest import Project

pytestmark = [pytest.mark.containers, pytest.mark.timeout(600)]

HERE: Final = Path(__file__).parent
CLIENTS: Final = 4
PARTS: Final = ("web", "broker", "model")
PATIENCE_S: Final = 120.0
"""For anything that Swarm does; a calm machine takes a tenth of it."""
POLL_S: Final = 0.5
"""Each look is a command, which costs a tenth of a second of CPU."""


def patiently(holds: Callable[[], object]) -> None:
    eventually(holds, within_s=PATIENCE_S, every_s=POLL_S)


class Swarm(Project):
    """The stacks of deploy/swarm, and a relay to web at ``port``."""

    def __init__(self, folder: Path) -> None:
        """``folder`` is empty, and takes the place of the repository's root."""
        super().__init__("-swarm", PORT="0", REPLICAS="2", WEBS="1")
        self.env |= {"NETWORK": self.name, "KEYS_VERSION": "1"}
        self._folder = folder
        shutil.copytree(ROOT / "deploy/swarm", folder / "deploy/swarm")
        self.relay = f"{self.name}-relay"

    @property
    def models(self) -> str:
        """The stack of the broker and the replicas that are meant just now."""
        return f"{self.name}-{self.env['KEYS_VERSION']}"

    def new_keys(self, version: str) -> None:
        make_keys(self._folder / "keys" / version)
        self.env["KEYS_VERSION"] = version

    def deploy_models(self, **env: str) -> None:
        self._deploy(self.models, "models.yml", env)

    def deploy_web(self, **env: str) -> None:
        self._deploy(self.name, "web.yml", env, "host-ports.yml", str(HERE / "swarm.yml"))

    def _deploy(self, stack: str, file: str, env: dict[str, str], *overrides: str) -> None:
        self.env |= env
        folder = self._folder / "deploy/swarm"
        files = [word for name in (file, *overrides) for word in ("-c", str(folder / name))]
        self.docker(
            "stack", "deploy", "--quiet", "--detach", "--resolve-image=never", *files, stack
        )

    def tasks(self, service: str) -> dict[str, str]:
        """The healthy tasks that are to stay, by name, and their images."""
        said = self.docker(
            *("service", "ps", "--filter", "desired-state=running", "--no-trunc"),
            *("--format", "{{.Name}}.{{.ID}} {{.Image}} {{.CurrentState}}", service),
        )
        lines = [line.split() for line in said.splitlines()]
        return {name: image for name, image, state, *_ in lines if state == "Running"}

    def await_tasks(self, service: str, count: int, but: dict[str, str] | None = None) -> None:
        """Wait until there are so many, none of them among those that there were before."""

        def there_are() -> bool:
            now = self.tasks(service)
            return len(now) == count and not now.keys() & (but or {}).keys()

        patiently(there_are)

    def containers_there(self) -> set[str]:
        """The names of all that run, which are those of their tasks."""
        return set(self.docker("ps", "--format", "{{.Names}}").split())

    def story(self) -> str:
        """What became of all tasks, for a test that failed."""
        form = "{{.Name}} {{.CurrentState}} {{.Error}}"
        stacks = {self.name, self.models}
        return "".join(self.docker("stack", "ps", "--format", form, stack) for stack in stacks)

    def tag_images(self) -> None:
        """Another version of each, which differs in nothing but its name."""
        for part in PARTS:
            self.docker("tag", f"sightline-{part}", f"sightline-{part}:{self.name}")

    def broker_address(self) -> str:
        """Where web finds the broker."""
        [task] = self.tasks(f"{self.models}_broker")
        networks = self.inspect(task)["NetworkSettings"]["Networks"]
        return str(networks[self.name]["IPAddress"])

    def start(self) -> None:
        self.docker("network", "create", "--driver=overlay", "--internal", self.name)
        self.new_keys("1")
        self.deploy_models()
        self.deploy_web()
        relay = ("--volume", f"{HERE / 'relay.py'}:/relay.py:ro", "sightline-web")
        self.docker(
            *("run", "--detach", "--name", self.relay, f"--network={self.name}_outer"),
            *("--publish", f"127.0.0.1:{self.port}:8000", *relay),
            *("python", "/relay.py", "web", "8000"),
        )
        self.await_tasks(f"{self.name}_web", 1)
        patiently(lambda: len(self.replicas()) == 2)

    def stop(self) -> None:
        self.tried("docker", "rm", "--force", self.relay)
        stacks = self.docker("stack", "ls", "--format", "{{.Name}}").split()
        for stack in stacks:
            if stack.startswith(self.name):
                self.docker("stack", "rm", stack)
        # A network can be removed when its last container has been.
        patiently(lambda: self.tried("docker", "network", "rm", self.name).returncode == 0)
        for part in PARTS:
            # By force, because the last containers may still be there.
            self.tried("docker", "image", "rm", "--force", f"sightline-{part}:{self.name}")


@contextmanager
def a_swarm(project: Project) -> Iterator[None]:
    """The engine is a manager, at least for as long as the block lasts."""
    state = project.docker("info", "--format", "{{.Swarm.LocalNodeState}}").strip()
    if state == "active":
        yield
        return
    address = ("--advertise-addr=127.0.0.1", "--listen-addr=127.0.0.1:2377")
    project.docker("swarm", "init", *address)
    try:
        yield
    finally:
        project.docker("swarm", "leave", "--force")
        # Which it has brought along, and leaves behind.
        project.tried("docker", "network", "rm", "docker_gwbridge")


@pytest.fixture(scope="module")
def swarm(project: Project, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Swarm]:
    """One web, a broker and two replicas. ``project`` has built the images."""
    started = Swarm(tmp_path_factory.mktemp("swarm"))
    with a_swarm(project):
        try:
            started.start()
            yield started
        finally:
            started.stop()


@pytest.fixture(scope="module")
def pictures(swarm: Swarm) -> list[Picture]:
    connection = Connection(swarm.port)
    learned = learn(lambda file: connection.classify(file, "learn"), ROOT)
    connection.close()
    return learned


class Account:
    """What became of the requests of one test."""

    def __init__(self) -> None:
        self.ledger = Ledger()

    def flows(self, requests: int) -> None:
        """Wait until so many more have been answered, or one was not."""
        goal = self.ledger.counts["answered"] + requests
        patiently(lambda: self.ledger.counts["answered"] >= goal or self.ledger.troubles)


@pytest.fixture
def account(swarm: Swarm, pictures: list[Picture]) -> Iterator[Account]:
    """Clients ask for as long as the test takes, and in the end each request has its answer."""
    account = Account()
    with Crowd(swarm.port, CLIENTS, pictures, account.ledger, randrange(1 << 32)):
        account.flows(50)
        yield account
        account.flows(50)
    print(f"\n{account.ledger}, the longest {account.ledger.longest_s:.1f} s")
    assert account.ledger.clean, "\n".join([*account.ledger.troubles, swarm.story()])


def test_every_task_is_locked_down(swarm: Swarm) -> None:
    services = {f"{swarm.name}_web": 1, f"{swarm.models}_broker": 1, f"{swarm.models}_model": 2}
    for service, count in services.items():
        swarm.await_tasks(service, count)
        task = next(iter(swarm.tasks(service)))
        facts = swarm.inspect(task)
        host = facts["HostConfig"]
        assert facts["Config"]["User"] == "65532:65532"
        assert host["ReadonlyRootfs"]
        assert host["CapDrop"] == ["ALL"]
        assert host["Memory"] > 0
        assert host["PidsLimit"] > 0
        assert host["Init"]
        write = "open('/tmp/x', 'w'); open('/app/x', 'w')"
        assert "/app/x" in swarm.tried("docker", "exec", task, "python", "-c", write).stderr


def test_swarm_scales_the_replicas(swarm: Swarm, account: Account) -> None:
    swarm.docker("service", "scale", "--detach", f"{swarm.models}_model=3")
    patiently(lambda: len(swarm.replicas()) == 3)
    account.flows(50)
    swarm.docker("service", "scale", "--detach", f"{swarm.models}_model=2")
    patiently(lambda: len(swarm.replicas()) == 2)


def test_a_broker_that_comes_back_at_another_address_costs_nothing(
    swarm: Swarm, account: Account
) -> None:
    others = (f"{swarm.name}_web", f"{swarm.models}_model")
    broker = f"{swarm.models}_broker"
    before, address = swarm.tasks(broker), swarm.broker_address()
    stayed = [swarm.tasks(service) for service in others]
    swarm.docker("service", "update", "--quiet", "--detach", "--force", broker)
    swarm.await_tasks(broker, 1, but=before)
    account.flows(50)
    assert swarm.broker_address() != address
    patiently(lambda: len(swarm.replicas()) == 2)
    assert [swarm.tasks(service) for service in others] == stayed


def test_an_update_of_all_parts_costs_nothing(swarm: Swarm, account: Account) -> None:
    broker, model, web = f"{swarm.models}_broker", f"{swarm.models}_model", f"{swarm.name}_web"
    before = {service: swarm.tasks(service) for service in (broker, model, web)}
    swarm.tag_images()
    swarm.deploy_models(TAG=swarm.name)
    swarm.await_tasks(broker, 1, but=before[broker])
    account.flows(50)
    swarm.deploy_web()
    swarm.await_tasks(model, 2, but=before[model])
    swarm.await_tasks(web, 1, but=before[web])
    for service in before:
        assert all(image.endswith(f":{swarm.name}") for image in swarm.tasks(service).values())


@pytest.mark.usefixtures("account")
def test_an_update_that_fails_is_rolled_back_and_costs_nothing(swarm: Swarm) -> None:
    service = f"{swarm.models}_model"
    state = ("service", "inspect", "--format", "{{.UpdateStatus.State}}", service)
    before = swarm.tasks(service)
    swarm.deploy_models(MODEL="no-such-model")
    del swarm.env["MODEL"]
    patiently(lambda: swarm.docker(*state).startswith("rollback"))
    swarm.await_tasks(service, 2)
    assert swarm.tasks(service) == before


def test_a_change_of_all_keys_costs_nothing(swarm: Swarm, account: Account) -> None:
    old, web = swarm.models, f"{swarm.name}_web"
    before, replicas = swarm.tasks(web), swarm.replicas()
    swarm.new_keys("2")
    swarm.deploy_models()
    swarm.await_tasks(f"{swarm.models}_broker", 1)
    swarm.await_tasks(f"{swarm.models}_model", 2)
    swarm.deploy_web()
    swarm.await_tasks(web, 1, but=before)
    patiently(lambda: not before.keys() & swarm.containers_there())
    swarm.docker("stack", "rm", old)
    swarm.docker("secret", "rm", f"{swarm.name}-web-1")
    account.flows(50)
    assert not set(swarm.replicas()) & set(replicas)
