"""Decodes untrusted pictures in child processes that are limited in memory and time.

Rules:
- A hostile file costs at the worst its own request: a child that takes too long is killed, one
  that dies is replaced, and the next request finds a fresh one.
- A child is a new interpreter and no fork, so that a pool may live in a process with threads.
- One child works for one thread at a time. Who finds none free waits, but not for ever.
- A child that comes free goes to whoever has waited longest, and not to a thread that comes just
  before that one wakes: with 32 threads and two children such threads made the slowest hundredth
  take more than twice as long as most.
- The pool belongs to the process that first used it: construct it before a fork if you like,
  but start it after.
"""

import logging
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import deque
from contextlib import suppress
from typing import Final, Self

import msgspec

from imaging import channel, errors
from imaging.decode import Prepared
from imaging.errors import Busy, Damaged, ImageError, too_expensive
from imaging.formats import admit
from wire import Contract

MEMORY_BYTES: Final = 1024 * 1024 * 1024
"""Measured with the largest pictures allowed, on top of the 22 MiB at the start, in MiB: WebP 850,
PNG 575 (grey with alpha; RGBA 435, 16-bit 240), AVIF 550, GIF 430, progressive JPEG 390 (CMYK;
RGB 300), baseline JPEG 20."""
TIMEOUT_S: Final = 10.0
"""The slowest of those pictures takes 3 s on one slow core."""
START_TIMEOUT_S: Final = 30.0
"""Ample: a child takes about 0.1 s to start, more where all cores are busy."""

_SHUT_DOWN: Final = "The decoders are shut down."
_TOO_LATE: Final = "Too little time was left to decode the picture."

_pack: Final = msgspec.msgpack.Encoder().encode
_unpack: Final = msgspec.msgpack.Decoder(channel.Done | channel.Refused).decode


class DecoderPool:
    """``size`` decoder processes, shared by all threads of one process.

    A context manager: entering starts the children, leaving ends them.
    """

    def __init__(
        self, size: int, *, memory_bytes: int = MEMORY_BYTES, timeout_s: float = TIMEOUT_S
    ) -> None:
        """Nothing is started yet.

        Args:
            size: How many pictures are decoded at a time. More than cores gain as much as it takes
                until a child that is through gets another picture.
            memory_bytes: What a child may take on top of what it starts with.
            timeout_s: How long the decoding of one picture may take.
        """
        self._size = size
        self._memory_bytes = memory_bytes
        self._timeout_s = timeout_s
        self._log = logging.getLogger(type(self).__name__)
        self._lock = threading.Lock()
        self._line: deque[_Turn] = deque()  # Empty while a child is idle.
        self._children: set[_Child] = set()
        self._idle: list[_Child] = []  # A stack: the child used last has the warmest memory.
        self._owner: int | None = None
        self._closed = False

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def start(self) -> None:
        """Starts all children and returns when they are ready. Without it, `prepare` does so.

        Raises:
            Busy: They do not start. The pool is closed then.
        """
        deadline = time.monotonic() + START_TIMEOUT_S
        ready: list[_Child] = []
        try:
            while len(ready) < self._size:
                ready.append(self._take(deadline))
        except Busy:
            self.close()
            raise
        finally:
            for child in ready:
                self._put_back(child)

    def prepare(
        self,
        data: bytes,
        contract: Contract,
        *,
        preview: bool = False,
        facts: bool = False,
        timeout_s: float | None = None,
    ) -> Prepared:
        """Does what `imaging.prepare` does, in one of the children, for any number of threads.

        Args:
            data: The image file.
            contract: What the model wants.
            preview: Whether a small JPEG of the pixels is wanted too.
            facts: Whether it is wanted too what the picture was before.
            timeout_s: How long to wait in all. Without it, a free child is awaited for as long
                as one picture may take, and then the picture may take as long.

        Raises:
            ImageError: The bytes cannot be turned into pixels.
            Busy: No child came free in time, or too late to decode the picture.
        """
        admit(data)
        deadline = time.monotonic() + (self._timeout_s if timeout_s is None else timeout_s)
        child = self._take(deadline)
        limit_s = self._timeout_s
        if timeout_s is not None:
            limit_s = min(limit_s, deadline - time.monotonic())
        if limit_s <= 0:
            self._put_back(child)
            raise Busy(_TOO_LATE)
        try:
            answer, body = child.ask(channel.Job(contract, preview, facts, limit_s), data)
        except Lost:
            self._discard(child)
            left_s = None if timeout_s is None else deadline - time.monotonic()
            return self.prepare(data, contract, preview=preview, facts=facts, timeout_s=left_s)
        except TimeoutError:
            self._discard(child)
            if limit_s < self._timeout_s:
                raise Busy(_TOO_LATE) from None
            raise too_expensive("time") from None
        except (EOFError, OSError):
            raise self._blame(self._discard(child)) from None
        except BaseException:
            # The thread itself was interrupted, and the answer is still to come.
            self._discard(child)
            raise
        self._put_back(child)
        if isinstance(answer, channel.Refused):
            raise errors.BY_NAME[answer.kind](answer.detail, answer.remedy)
        return Prepared(
            pixels=body[: contract.nbytes],
            format=answer.format,
            width=answer.width,
            height=answer.height,
            warnings=answer.warnings,
            preview=body[contract.nbytes :],
            facts=answer.facts,
        )

    def close(self) -> None:
        """Ends and reaps all children; threads that wait for one get `Busy`. May be repeated."""
        with self._lock:
            self._closed = True
            children = list(self._children) if self._owner == os.getpid() else []
            idle = list(self._idle)
            while self._line:
                self._line.popleft().give(None)
        for child in children:
            child.kill()
        # The others are in the hands of threads, which notice and close them.
        for child in idle:
            child.close()

    def _take(self, deadline: float) -> "_Child":
        """A child for the calling thread alone, alive and ready for a job."""
        child = self._next(deadline)
        try:
            child.wait_ready(deadline)
        except TimeoutError:
            self._put_back(child)
            raise Busy("No decoder process started in time.") from None
        except (EOFError, OSError):
            self._discard(child)
            raise Busy("A decoder process does not start; its error output says why.") from None
        return child

    def _next(self, deadline: float) -> "_Child":
        with self._lock:
            if self._closed:
                raise Busy(_SHUT_DOWN)
            try:
                self._fill()
            except OSError as error:
                raise Busy("No decoder process can be started.") from error
            if self._idle:
                return self._idle.pop()
            turn = _Turn()
            self._line.append(turn)
        try:
            turn.wait(deadline - time.monotonic())
        finally:
            with self._lock:
                if not turn.has_come:
                    self._line.remove(turn)
        if not turn.has_come:
            raise Busy(f"None of {self._size} decoders came free in time.")
        if turn.child is None:
            raise Busy(_SHUT_DOWN)
        return turn.child

    def _put_back(self, child: "_Child") -> None:
        with self._lock:
            if not self._closed:
                self._give(child)
                return
        child.close()

    def _give(self, child: "_Child") -> None:
        """Under the lock: ``child`` is free."""
        if self._line:
            self._line.popleft().give(child)
        else:
            self._idle.append(child)

    def _discard(self, child: "_Child") -> int:
        """Replaces a child that is of no more use; the exit status of its process."""
        status = child.close()
        with self._lock:
            self._children.discard(child)
            # Where this fails, the next request tries again.
            with suppress(OSError):
                self._fill()
        self._log.info("decoder process %d ended with status %d", child.pid, status)
        return status

    def _fill(self) -> None:
        """Starts as many children as are missing; they get ready by themselves."""
        if self._owner is None:
            self._owner = os.getpid()
        elif self._owner != os.getpid():
            raise RuntimeError("start a DecoderPool after the fork, not before")
        while len(self._children) < self._size and not self._closed:
            child = _spawn(self._memory_bytes)
            self._children.add(child)
            self._give(child)

    def _blame(self, status: int) -> ImageError | Busy:
        """Why a child died with ``status`` in the middle of a picture."""
        if self._closed:
            return Busy(_SHUT_DOWN)
        if status == -signal.SIGKILL:  # Not from here: the kernel, short of memory.
            return too_expensive("memory")
        return Damaged("This picture makes its decoder crash.", errors.SAVE_AGAIN)


class _Turn:
    """A thread's place in the line for a child."""

    def __init__(self) -> None:
        self.has_come = False
        self.child: _Child | None = None
        """None, when it has come, where there will be no child any more."""
        self._bell = threading.Lock()
        self._bell.acquire()

    def wait(self, limit_s: float) -> None:
        """Until it comes, or for so long."""
        self._bell.acquire(timeout=max(0.0, limit_s))

    def give(self, child: "_Child | None") -> None:
        """It comes."""
        self.child = child
        self.has_come = True
        self._bell.release()


class Lost(Exception):
    """A child is gone, and nobody knows since when."""


class _Child:
    """The pool's end of one decoder process."""

    def __init__(self, process: subprocess.Popen[bytes], sock: socket.socket) -> None:
        self._process = process
        self._sock = sock
        self._ready = False

    @property
    def pid(self) -> int:
        return self._process.pid

    def wait_ready(self, deadline: float) -> None:
        if not self._ready:
            channel.receive(self._sock, deadline)
            self._ready = True

    def ask(self, job: channel.Job, data: bytes) -> tuple[channel.Done | channel.Refused, bytes]:
        """The child's answer, within the job's own limit or TimeoutError.

        Raises:
            Lost: It died between two pictures, for which neither is to blame.
            EOFError, OSError: It died of this one.
        """
        deadline = time.monotonic() + job.limit_s
        try:
            channel.send(self._sock, _pack(job), data, deadline=deadline)
        except ConnectionError:
            raise Lost from None
        head, body = channel.receive(self._sock, deadline)
        return _unpack(head), body

    def kill(self) -> int:
        """The exit status of the process, which is its own where it has ended by itself."""
        self._process.kill()
        return self._process.wait()

    def close(self) -> int:
        self._sock.close()
        return self.kill()


def _spawn(memory_bytes: int) -> _Child:
    ours, theirs = socket.socketpair()
    with theirs:
        try:
            process = subprocess.Popen(
                [sys.executable, "-P", "-m", "imaging.child", str(memory_bytes)],
                stdin=theirs.fileno(),
                stdout=subprocess.DEVNULL,
                env=_environment(),
                # Out of the terminal's reach: Ctrl-C is for the parent to handle.
                process_group=0,
            )
        except BaseException:
            ours.close()
            raise
    return _Child(process, ours)


def _environment() -> dict[str, str]:
    """The same modules as here, and none of this process's secrets."""
    return {
        "PYTHONPATH": os.pathsep.join(path or os.getcwd() for path in sys.path),
        # Memory goes back to the system after a picture; glibc kept 200 MiB of a large one.
        "MALLOC_MMAP_THRESHOLD_": str(8 * 1024 * 1024),
        "MALLOC_TRIM_THRESHOLD_": str(64 * 1024 * 1024),
    }
