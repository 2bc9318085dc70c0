"""Real decoder processes: what they are allowed, how they fail, and that none is left behind."""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

import msgspec
import pytest
from PIL import Image

from imaging import Busy, Damaged, DecoderPool, NotAnImage, TooExpensive, channel, prepare
from imaging.pool import TIMEOUT_S

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")

DEADLINE_S = 20.0
OTHERS = set()
"""Children that were there before the test: those of fixtures that serve other files, too."""


@pytest.fixture(autouse=True)
def _others():
    OTHERS.clear()
    OTHERS.update(children())


def fields(stat: Path) -> list[str]:
    """Of a process, from its state on (proc_pid_stat(5))."""
    return stat.read_text().rsplit(")", 1)[1].split()


def children(pid: int | None = None) -> list[int]:
    """The direct children of a process that a test has started, ended ones that nobody reaped
    included."""
    # Not by the lists of its threads: a child moves to another one's when the thread ends.
    found: set[int] = set()
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(FileNotFoundError, ProcessLookupError):
            if int(fields(stat)[1]) == (pid or os.getpid()):
                found.add(int(stat.parent.name))
    return sorted(found - OTHERS)


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def until(condition):
    """Polls until ``condition()`` holds, and fails at the deadline."""
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline, "did not happen in time"
        os.sched_yield()


def alive(pid: int) -> bool:
    """Whether a process runs; one that has ended and was not reaped does not."""
    try:
        return fields(Path(f"/proc/{pid}/stat"))[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


def kill(pid: int, number: int = signal.SIGKILL) -> None:
    """Ends a child, and returns when it has ended but is not yet reaped."""
    os.kill(pid, number)
    os.kill(pid, signal.SIGCONT)
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)


def stop(pid: int) -> None:
    """Has a child stand still, and returns when it does."""
    os.kill(pid, signal.SIGSTOP)
    os.waitid(os.P_PID, pid, os.WSTOPPED | os.WNOWAIT)


@pytest.fixture
def small(encode, flag):
    return encode(flag, "PNG")


@pytest.fixture(scope="module")
def large(build_png):
    """It takes a while."""
    return build_png(7000, 7000, bytes(7000 * 21_001))


def ticks(pid: int) -> int:
    """CPU time of a process, in hundredths of a second."""
    return sum(map(int, fields(Path(f"/proc/{pid}/stat"))[11:13]))


@contextmanager
def stopped_over(picture, pool, contract, **options):
    """A pool whose only child stands still in the middle of a picture.

    Gives the child's number and the thread's future.
    """
    [child] = children()
    before = ticks(child)
    with ThreadPoolExecutor(1) as threads:
        future = threads.submit(pool.prepare, picture, contract, **options)
        until(lambda: ticks(child) > before + 2)
        stop(child)
        yield child, future


@pytest.fixture
def held(pool, large, contract):
    with stopped_over(large, pool, contract) as both:
        yield both


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "AVIF"])
def test_a_child_gives_what_this_process_would(pool, encode, flag, contract, kind):
    data = encode(flag.resize((15, 10)), kind)
    assert pool.prepare(data, contract) == prepare(data, contract)
    assert pool.prepare(data, contract, preview=True) == prepare(data, contract, preview=True)
    assert pool.prepare(data, contract, facts=True) == prepare(data, contract, facts=True)


def test_a_child_raises_what_this_process_would(pool, small, contract):
    before = children()
    with pytest.raises(Damaged) as refusal:
        pool.prepare(small[:100], contract)
    with pytest.raises(Damaged) as expected:
        prepare(small[:100], contract)
    assert refusal.value.args == expected.value.args
    # It was no accident: the child works on.
    assert pool.prepare(small, contract) == prepare(small, contract)
    assert children() == before


def test_what_is_no_picture_occupies_no_child(contract):
    with pytest.raises(NotAnImage):
        DecoderPool(1).prepare(b"text", contract)
    assert children() == []


def test_threads_get_their_own_answers(encode, contract):
    colours = [(step * 9, 255 - step * 9, step * 5) for step in range(24)]
    files = [
        encode(Image.new("RGB", (50 + 40 * i, 60), rgb), "PNG") for i, rgb in enumerate(colours)
    ]
    with DecoderPool(3) as pool, ThreadPoolExecutor(8) as threads:
        for _ in range(5):
            answers = threads.map(lambda data: pool.prepare(data, contract), files)
            for i, (answer, colour) in enumerate(zip(answers, colours, strict=True)):
                assert answer.pixels[:3] == bytes(colour)
                assert answer.width == 50 + 40 * i
        assert len(children()) == 3


def test_who_waits_is_not_passed_by_who_comes(pool, encode, flag, contract):
    """A thread that asks again as soon as it is through takes turns with one that waits."""
    picture = encode(flag.resize((1500, 1500)), "PNG")
    begun, through = threading.Event(), threading.Event()
    passed = 0

    def greedy():
        nonlocal passed
        while not through.is_set() and passed < 20:
            pool.prepare(picture, contract)
            begun.set()
            passed += 1

    with ThreadPoolExecutor(2) as threads:
        again = threads.submit(greedy)
        begun.wait(DEADLINE_S)
        before = passed
        threads.submit(pool.prepare, picture, contract).result()
        through.set()
        again.result()
    # Its own turn, one that was begun, and one for a late look at what has passed.
    assert passed - before <= 3


def test_without_a_start_the_first_picture_starts_the_children(small, contract):
    pool = DecoderPool(2)
    assert children() == []
    try:
        assert pool.prepare(small, contract) == prepare(small, contract)
        assert len(children()) == 2
    finally:
        pool.close()


def test_a_picture_that_takes_too_long_costs_only_itself(large, small, contract):
    with DecoderPool(1, timeout_s=1.0) as pool:
        with stopped_over(large, pool, contract) as (child, future):
            waiting = pool.prepare(small, contract, timeout_s=DEADLINE_S)
            with pytest.raises(TooExpensive, match="too much time"):
                future.result(DEADLINE_S)
        assert waiting == pool.prepare(small, contract) == prepare(small, contract)
        assert child not in children()
        assert len(children()) == 1


def test_a_caller_without_time_does_not_blame_the_picture(pool, large, small, contract):
    with (
        stopped_over(large, pool, contract, timeout_s=1.0) as (_, future),
        pytest.raises(Busy, match="Too little time"),
    ):
        future.result(DEADLINE_S)
    assert pool.prepare(small, contract) == prepare(small, contract)


def test_a_child_that_stands_still_has_nobodys_picture(encode, flag, contract):
    picture = encode(flag, "PNG")
    with DecoderPool(2) as pool, ThreadPoolExecutor(4) as threads:
        stop(children()[0])
        answers = threads.map(lambda _: pool.prepare(picture, contract), range(8))
        assert set(answers) == {prepare(picture, contract)}


def test_a_picture_that_nobody_waits_for_is_not_decoded(held, pool, large, small, contract):
    child, future = held
    with pytest.raises(Busy):
        pool.prepare(large, contract, timeout_s=0.05)
    os.kill(child, signal.SIGCONT)
    future.result(DEADLINE_S)
    once = ticks(child)
    pool.prepare(small, contract)
    assert ticks(child) < 1.5 * once


def test_a_service_that_was_frozen_does_not_blame_the_picture(large, contract):
    """As `docker pause` does it: for longer than a picture may take."""
    script = """
import sys, time
from imaging import DecoderPool
from wire import Contract
import msgspec
contract = msgspec.json.decode(sys.stdin.buffer.readline(), type=Contract)
large = sys.stdin.buffer.read()
with DecoderPool(1, timeout_s=1.0) as pool:
    print("began", flush=True)
    print(pool.prepare(large, contract).format, flush=True)
"""
    with subprocess.Popen(
        [sys.executable, "-c", script],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={"PYTHONPATH": os.pathsep.join(sys.path)},
    ) as parent:
        parent.stdin.write(msgspec.json.encode(contract) + b"\n" + large)
        parent.stdin.close()
        assert parent.stdout.readline() == b"began\n"
        [child] = children(parent.pid)
        before = ticks(child)
        until(lambda: ticks(child) > before + 2)
        os.kill(parent.pid, signal.SIGSTOP)
        os.kill(child, signal.SIGSTOP)
        thawed = time.monotonic() + 3.0
        until(lambda: time.monotonic() > thawed)
        os.kill(child, signal.SIGCONT)
        # It has answered, and waits for the next.
        until(lambda: not alive(child) or fields(Path(f"/proc/{child}/stat"))[0] == "S")
        os.kill(parent.pid, signal.SIGCONT)
        assert parent.stdout.readline() == b"PNG\n"
        assert parent.wait(DEADLINE_S) == 0


def test_a_picture_that_takes_too_much_memory_costs_only_itself(large, small, contract):
    with DecoderPool(1, memory_bytes=48 * 2**20) as pool:
        before = children()
        with pytest.raises(TooExpensive, match="too much memory"):
            pool.prepare(large, contract)
        assert pool.prepare(small, contract) == prepare(small, contract)
        assert children() == before


def test_a_photo_of_12_megapixels_is_never_unpacked_in_full(encode, contract):
    photo = encode(Image.effect_noise((4000, 3000), 50).convert("RGB"), "JPEG")
    # In full it is 46 MiB.
    with DecoderPool(1, memory_bytes=20 * 2**20) as pool:
        assert pool.prepare(photo, contract).width == 4000


@pytest.mark.parametrize(
    ("number", "error"), [(signal.SIGSEGV, Damaged), (signal.SIGKILL, TooExpensive)]
)
def test_a_child_that_dies_over_a_picture_is_replaced(held, pool, small, contract, number, error):
    child, future = held
    with ThreadPoolExecutor(3) as threads:
        waiting = [threads.submit(pool.prepare, small, contract) for _ in range(3)]
        kill(child, number)
        with pytest.raises(error):
            future.result(DEADLINE_S)
        for other in waiting:
            assert other.result(DEADLINE_S) == prepare(small, contract)
    assert child not in children()


@pytest.fixture
def noise(encode):
    """More than fits between a thread and a child that does not read."""
    return encode(Image.effect_noise((2000, 2000), 100), "PNG")


def test_a_child_that_dies_while_it_gets_a_file_is_noticed(pool, noise, small, contract):
    [child] = children()
    stop(child)
    with ThreadPoolExecutor(1) as threads:
        future = threads.submit(pool.prepare, noise, contract)
        # In its place, up to the moment when it has begun to read.
        _, line = pool._line
        with channel.take_from_line(line) as job:
            channel.take(job, channel.Taken(child, time.monotonic()))
            began = time.monotonic()
            kill(child)
            with pytest.raises(TooExpensive, match="too much memory"):
                future.result(DEADLINE_S)
    assert time.monotonic() - began < TIMEOUT_S / 2
    assert pool.prepare(small, contract) == prepare(small, contract)


def test_a_child_that_dies_between_pictures_is_replaced(pool, small, contract):
    [child] = children()
    kill(child)
    assert pool.prepare(small, contract) == prepare(small, contract)
    assert child not in children()


def test_who_waits_for_a_child_in_vain_hears_that_all_are_busy(held, pool, large, small, contract):
    child, future = held
    with pytest.raises(Busy, match="None of 1 decoders came free"):
        pool.prepare(small, contract, timeout_s=0.05)
    os.kill(child, signal.SIGCONT)
    assert future.result(DEADLINE_S) == prepare(large, contract)
    assert children() == [child]


def test_an_interrupted_thread_leaves_no_answer_to_the_next(pool, large, small, contract):
    class Interrupt(BaseException):
        pass

    def interrupt(*_):
        raise Interrupt

    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.05)
        with pytest.raises(Interrupt):
            pool.prepare(large, contract)
    finally:
        signal.signal(signal.SIGALRM, before)
    assert pool.prepare(small, contract) == prepare(small, contract)


def test_closing_ends_who_works_and_who_waits(held, pool, small, contract):
    _, working = held
    with ThreadPoolExecutor(3) as threads:
        waiting = [threads.submit(pool.prepare, small, contract) for _ in range(3)]
        pool.close()
        for future in (working, *waiting):
            with pytest.raises(Busy, match="shut down"):
                future.result(TIMEOUT_S / 2)
    assert children() == []
    with pytest.raises(Busy, match="shut down"):
        pool.prepare(small, contract)


def test_a_pool_leaves_nothing_behind(small, contract):
    before = descriptors(), threading.active_count()
    for _ in range(5):
        with DecoderPool(2) as pool:
            pool.prepare(small, contract)
            kill(children()[0])
            pool.prepare(small, contract)
        pool.close()
        assert children() == []
    assert (descriptors(), threading.active_count()) == before


@pytest.mark.parametrize("program", ["/nonexistent", "/bin/false"])
def test_children_that_do_not_start_are_reported(monkeypatch, small, contract, program):
    before = descriptors()
    monkeypatch.setattr(sys, "executable", program)
    with pytest.raises(Busy, match="start"):
        DecoderPool(2).start()
    pool = DecoderPool(1)
    with pytest.raises(Busy, match="start"):
        pool.prepare(small, contract)
    pool.close()
    assert children() == []
    assert descriptors() == before


def test_a_child_has_no_secrets_and_tight_limits(monkeypatch):
    monkeypatch.setenv("SECRET", "open sesame")
    with DecoderPool(1, memory_bytes=100 * 2**20):
        [child] = children()
        proc = Path(f"/proc/{child}")
        assert b"sesame" not in (proc / "environ").read_bytes()
        # Ctrl-C in a terminal goes to a whole process group.
        assert os.getpgid(child) != os.getpgid(0)
        limits = {
            line[:25].strip(): line[25:].split()
            for line in (proc / "limits").read_text().splitlines()
        }
        assert limits["Max core file size"][:2] == ["0", "0"]
        assert limits["Max file size"][:2] == ["0", "0"]
        assert limits["Max open files"][:2] == ["16", "16"]
        assert 100 * 2**20 < int(limits["Max address space"][1]) < 400 * 2**20


PARENT = """
import os, sys, time
from imaging import DecoderPool
pool = DecoderPool(2)
pool.start()
print("ready", flush=True)
{then}
"""


def parent(then: str) -> subprocess.Popen[bytes]:
    """Another process with a pool, which has started it and goes on with ``then``."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    process = subprocess.Popen(
        [sys.executable, "-c", PARENT.format(then=then)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    return process


def test_children_end_with_a_parent_that_is_killed():
    with parent("sys.stdin.read(); time.sleep(60)") as process:
        orphans = children(process.pid)
        assert len(orphans) == 2
        process.kill()
        until(lambda: not any(alive(orphan) for orphan in orphans))
        assert process.stderr.read() == b""


def test_a_pool_is_not_used_on_both_sides_of_a_fork():
    then = """
from wire import Contract
if os.fork() == 0:
    try:
        pool.start()
    except RuntimeError as error:
        print(error, flush=True)
    pool.close()
    os._exit(0)
os.wait()
pool.start()
pool.close()
print("fine", flush=True)
"""
    with parent(then) as process:
        output = process.stdout.read()
    assert b"after the fork" in output
    assert output.endswith(b"fine\n")
    assert process.returncode == 0


def test_a_child_ends_itself_when_nobody_is_left_to_stop_it(large, contract):
    near, far = channel.line(wait_s=DEADLINE_S)
    ours, theirs = socket.socketpair()
    command = [sys.executable, "-m", "imaging.child", str(2**30)]
    environment = {"PYTHONPATH": os.pathsep.join(sys.path)}
    with (
        near,
        ours,
        subprocess.Popen(
            command, stdin=far.fileno(), stdout=subprocess.DEVNULL, env=environment
        ) as process,
    ):
        far.close()
        # The second of grace less than nothing at all.
        job = channel.Job(contract, preview=False, facts=False, limit_s=-0.99)
        channel.put_in_line(near, theirs, look=pytest.fail)
        theirs.close()
        channel.send(ours, msgspec.msgpack.encode(job), large)
        with pytest.raises(EOFError):
            channel.receive_answer(ours, bytearray(channel.BEGINNING), look=pytest.fail)
        assert process.wait(DEADLINE_S) == -signal.SIGPROF
