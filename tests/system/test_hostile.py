"""The collection of hostile files, sent to the whole service: each costs its own request only."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from services.imaging.tests import hostile

from imaging.pool import MEMORY_BYTES
from tests.conftest import Processes, Service, request

pytestmark = pytest.mark.drill

STATUSES = {
    hostile.TAKEN: 200,
    "Empty": 400,
    "TooLarge": 413,
    "NotAnImage": 415,
    "TooSmall": 422,
    "Damaged": 422,
    "TooExpensive": 422,
}
START_BYTES = 64 * 2**20
"""More than a decoder has before its first picture."""
MODEST_BYTES = 320 * 2**20
"""What is enough for all but the costly ones."""


@dataclass(frozen=True)
class Running:
    """The service, and the number of its web tier's process."""

    service: Service
    web: int

    def decoders(self) -> list[int]:
        """The processes that decode, which are below gunicorn's worker."""
        return [
            child
            for worker in children(self.web)
            for child in children(worker)
            if b"\0imaging.child\0" in Path(f"/proc/{child}/cmdline").read_bytes()
        ]


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    processes = Processes(tmp_path_factory.mktemp("logs"))
    service = Service(processes)
    try:
        service.start_broker()
        service.start_replica(MODEL_ENGINE="simulated")
        web = service.start_web(WEB_DECODERS="1")
        service.await_replicas(1)
        yield Running(service, web.pid)
    finally:
        processes.close()


def children(pid: int) -> list[int]:
    tasks = Path(f"/proc/{pid}/task").glob("*/children")
    return [int(child) for task in tasks for child in task.read_text().split()]


def peak_bytes(pid: int) -> int:
    """The most memory that a process ever had, 0 where it has ended."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except FileNotFoundError:
        return 0
    [line] = [line for line in status.splitlines() if line.startswith("VmHWM")]
    return int(line.split()[1]) * 1024


def form(file: bytes) -> tuple[bytes, dict[str, str]]:
    """A file as a browser's form sends it."""
    head = b'--b\r\nContent-Disposition: form-data; name="file"; filename="x"\r\n\r\n'
    headers = {"Content-Type": "multipart/form-data; boundary=b"}
    return head + file + b"\r\n--b--\r\n", headers


def wrong(running: Running, route: str, file: hostile.Hostile) -> str:
    """What is wrong with the answer, if anything."""
    body, headers = form(file.data) if route == "/uploader" else (file.data, {})
    answer = request(running.service.port, "POST", route, body, headers)
    expected = {STATUSES[fate] for fate in file.fates}
    if answer.status in expected:
        return ""
    return f"{file.name}: {answer.status} instead of {expected}: {answer.body[:500]!r}"


@pytest.mark.parametrize("route", ["/api/v1/classify", "/uploader"])
@pytest.mark.parametrize("group", hostile.GROUPS, ids=lambda group: group.__name__)
def test_every_file_of_the_collection_gets_its_status(
    running: Running, route: str, group: hostile.Group
) -> None:
    answers = [wrong(running, route, file) for file in group()]
    assert not any(answers), "\n".join(answers)
    [decoder] = running.decoders()
    assert 0 < peak_bytes(decoder) < MODEST_BYTES


@pytest.mark.timeout(240)
def test_the_costliest_files_stay_within_the_bounds(running: Running) -> None:
    for file in hostile.costly():
        [decoder] = running.decoders()
        assert not wrong(running, "/api/v1/classify", file)
        assert peak_bytes(decoder) < START_BYTES + MEMORY_BYTES
    # The last one costs its decoder's life, and nothing else.
    [last] = running.decoders()
    assert last != decoder
