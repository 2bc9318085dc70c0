"""The sockets behind ModelClient: nothing is left over, and a fork starts afresh."""

import os
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from webapp.client import ModelClient
from webapp.terms import Terms
from webapp.testing import CONTRACT, FakeModel

Until = Callable[[Callable[[], object]], None]

PIXELS = bytes(CONTRACT.nbytes)

# Python 3.12 and later warn of every fork next to threads; that it is safe is the test.
WARNINGS = ["-W", "error", "-W", "ignore:This process:DeprecationWarning"]

FORKING = f"""
import os, sys, time
from webapp.client import ModelClient
from webapp.terms import Terms
from webapp.testing import CONTRACT

def ask():
    pixels = bytes({CONTRACT.nbytes})
    return client.classify(pixels, CONTRACT, Terms(deadline=time.monotonic() + 5))

client = ModelClient(sys.argv[1])
ask()
child = os.fork()
if child == 0:
    ask()
    client.close()
    os._exit(0)
ask()
_, status = os.waitpid(child, 0)
client.close()
sys.exit(os.waitstatus_to_exitcode(status))
"""


def leftovers() -> tuple[int, int]:
    """Open descriptors and threads of this process, those of libzmq included."""
    return len(os.listdir("/proc/self/fd")), len(os.listdir("/proc/self/task"))


def no_more_than(before: tuple[int, int]) -> bool:
    """Fewer is fine: a thread that is joined takes the kernel a moment longer to remove."""
    return all(now <= then for now, then in zip(leftovers(), before, strict=True))


def ask(client: ModelClient) -> None:
    client.classify(PIXELS, CONTRACT, Terms(deadline=time.monotonic() + 5))


def start_and_stop() -> None:
    with FakeModel() as fake:
        client = ModelClient(fake.endpoint)
        with ThreadPoolExecutor(4) as threads:
            list(threads.map(ask, [client] * 8))
        client.close()


def test_fifty_starts_and_stops_leave_nothing_behind(until: Until) -> None:
    start_and_stop()
    before = leftovers()
    for _ in range(50):
        start_and_stop()
    until(lambda: no_more_than(before))


def test_threads_that_end_leave_no_sockets_behind(client: ModelClient, until: Until) -> None:
    ask(client)
    before = leftovers()
    for _ in range(20):
        with ThreadPoolExecutor(1) as threads:
            threads.submit(ask, client).result()
    until(lambda: no_more_than(before))


def test_a_forked_child_has_sockets_of_its_own(fake: FakeModel) -> None:
    finished = subprocess.run(
        [sys.executable, *WARNINGS, "-c", FORKING, fake.endpoint],
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )
    assert (finished.returncode, finished.stderr) == (0, "")
    assert len(fake.requests) == 3
