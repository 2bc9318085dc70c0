"""Decodes untrusted pictures in child processes that are limited in memory and time.

Rules:
- A hostile file costs at the worst its own request: a child that takes too long is killed, one
  that dies is replaced, and the others' pictures wait for the next child that is free.
- A child is a new interpreter and no fork, so that a pool may live in a process with threads.
- Children take pictures from one line (`channel`), in the order in which they came. A thread puts
  its picture there and wakes when the pixels are there. Meanwhile it looks around now and then:
  whether its time is over, and whether a child has died.
- The pool belongs to the process that first used it: construct it before a fork if you like,
  but start it after.
"""

import logging
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import suppress
from functools import partial
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
_LOOK_S: Final = 0.5
"""How often a thread that waits looks around. Half a second late to see that a child has died is
soon enough; looking costs the other threads the interpreter."""
_REMEMBERED: Final = 1000
"""Children that have ended, of which it is still known how."""

_SHUT_DOWN: Final = "The decoders are shut down."
_TOO_LATE: Final = "Too little time was left to decode the picture."
_NO_START: Final = "A decoder process does not start; its error output says why."

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
            size: How many pictures are decoded at a time.
            memory_bytes: What a child may take on top of what it starts with.
            timeout_s: How long the decoding of one picture may take.
        """
        self._size = size
        self._memory_bytes = memory_bytes
        self._timeout_s = timeout_s
        self._log = logging.getLogger(type(self).__name__)
        self._lock = threading.Lock()
        self._line: tuple[socket.socket, socket.socket] | None = None
        self._children: dict[int, _Child] = {}
        self._ended: dict[int, int] = {}
        """Exit statuses of children that are gone, by pid, the latest last."""
        self._tickets: list[_Ticket] = []  # A stack: the one used last has the warmest memory.
        self._waiting: set[_Ticket] = set()
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
        try:
            with self._lock:
                self._fill()
                children = list(self._children.values())
            for child in children:
                if not child.is_ready(max(0.0, deadline - time.monotonic())):
                    raise Busy(_NO_START)
        except Busy:
            self.close()
            raise

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
        began = time.monotonic()
        deadline = began + (self._timeout_s if timeout_s is None else timeout_s)
        job = channel.Job(contract, preview, facts, self._timeout_s)
        ticket, line = self._join()
        try:
            ticket.wait_at_most(deadline - began)
            answer, body = ticket.ask(
                line, job, data, look=partial(self._look, ticket, deadline, timeout_s is not None)
            )
        except (EOFError, OSError) as error:
            self._part_with(ticket)
            raise Busy(_SHUT_DOWN if self._closed else f"No decoder hears: {error}.") from error
        except BaseException:
            # Whatever may still come for it is for nobody.
            self._part_with(ticket)
            raise
        self._put_back(ticket)
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
            if self._owner != os.getpid():
                return
            for child in self._children.values():
                child.end()
            self._children.clear()
            for ticket in self._waiting:
                ticket.wake()
            while self._tickets:
                self._tickets.pop().close()
            if self._line is not None:
                for end in self._line:
                    end.close()
                self._line = None

    def _join(self) -> "tuple[_Ticket, socket.socket]":
        """A ticket for the calling thread alone, and the line to put it in."""
        with self._lock:
            # The first time, or after a fork.
            if self._owner != os.getpid():
                self._fill()
            if self._line is None:
                raise Busy(_SHUT_DOWN)
            ticket = self._tickets.pop() if self._tickets else _Ticket()
            self._waiting.add(ticket)
            return ticket, self._line[0]

    def _put_back(self, ticket: "_Ticket") -> None:
        with self._lock:
            self._waiting.discard(ticket)
            if not self._closed:
                self._tickets.append(ticket)
                return
        ticket.close()

    def _part_with(self, ticket: "_Ticket") -> None:
        with self._lock:
            self._waiting.discard(ticket)
        ticket.close()

    def _look(self, ticket: "_Ticket", deadline: float, urgent: bool) -> None:
        """What a thread does whose ``ticket`` has brought nothing for a while: it gives up, or
        goes on waiting. ``urgent`` says that its caller has set the deadline.

        Raises:
            ImageError: The picture has ended its child, or will not be ready in time.
            Busy: Somebody else's fault.
        """
        now = time.monotonic()
        (pid, since), _ = ticket.glance()
        with self._lock:
            try:
                self._fill()
            except Busy:
                # Those that there are may do.
                if not pid or self._closed:
                    raise
            status = self._ended.get(pid)
        if not pid:
            if now >= deadline:
                raise Busy(f"None of {self._size} decoders came free in time.")
            ticket.wait_at_most(deadline - now)
            return
        # Asked after the status: who has answered has not died of it.
        _, more = ticket.glance()
        if more:
            # Then that child may be at somebody else's picture already.
            return
        if status is not None:
            raise _blame(status)
        limit = since + self._timeout_s
        if urgent:
            limit = min(limit, deadline)
        if now >= limit:
            with self._lock, suppress(Busy):
                if pid in self._children:
                    self._bury(self._children[pid])
                self._fill()
            if limit == deadline:
                raise Busy(_TOO_LATE)
            raise too_expensive("time")
        ticket.wait_at_most(limit - now)

    def _fill(self) -> None:
        """Under the lock: replaces children that have ended. They get ready by themselves."""
        if self._closed:
            raise Busy(_SHUT_DOWN)
        if self._line is None:
            self._owner = os.getpid()
            self._line = channel.line(_LOOK_S)
        elif self._owner != os.getpid():
            raise RuntimeError("start a DecoderPool after the fork, not before")
        failed = False
        for child in list(self._children.values()):
            if child.has_ended:
                failed = failed or not child.is_ready()
                self._bury(child)
        try:
            while len(self._children) < self._size:
                child = _Child(self._memory_bytes, self._line[1])
                self._children[child.pid] = child
                self._ended.pop(child.pid, None)
        except OSError as error:
            raise Busy("No decoder process can be started.") from error
        if failed:
            raise Busy(_NO_START)

    def _bury(self, child: "_Child") -> None:
        """Under the lock: ends a child that is of no more use."""
        self._ended[child.pid] = status = child.end()
        del self._children[child.pid]
        if len(self._ended) > _REMEMBERED:
            del self._ended[next(iter(self._ended))]
        self._log.info("decoder process %d ended with status %d", child.pid, status)


class _Ticket:
    """A thread's place in the line, and where its pixels come; for one picture at a time.

    Two connected sockets: the child that takes the job gets a copy of the far one.
    """

    def __init__(self) -> None:
        self._near, self._far = socket.socketpair()
        self._beginning = bytearray(channel.BEGINNING)
        self._wait_s = 0.0

    def glance(self) -> tuple[channel.Taken, bool]:
        """Which child has the job, and whether there is more of its answer that was not read."""
        return channel.glance(self._near, self._beginning)

    def wait_at_most(self, seconds: float) -> None:
        """The next look is to come after that, or _LOOK_S."""
        # Zero would mean no limit.
        wait_s = min(max(seconds, 1e-6), _LOOK_S)
        if wait_s != self._wait_s:
            channel.limit(self._near, wait_s)
            self._wait_s = wait_s

    def ask(
        self, line: socket.socket, job: channel.Job, data: bytes, look: channel.Look
    ) -> tuple[channel.Done | channel.Refused, bytes]:
        """What a child makes of the file in ``data``, and the bytes that belong to it.

        Raises:
            EOFError, OSError: The line is closed.
        """
        self._beginning[:] = bytes(channel.BEGINNING)
        channel.put_in_line(line, self._far, look)
        channel.send(self._near, _pack(job), data, look=look)
        head, body = channel.receive_answer(self._near, self._beginning, look)
        return _unpack(head), body

    def wake(self) -> None:
        """Whoever waits with it gets EOFError."""
        with suppress(OSError):
            self._near.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """No answer is taken any more."""
        self._near.close()
        self._far.close()


class _Child:
    """One decoder process."""

    def __init__(self, memory_bytes: int, line: socket.socket) -> None:
        """Starts it.

        Raises:
            OSError: It cannot be started.
        """
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "imaging.child", str(memory_bytes)],
            stdin=line.fileno(),
            stdout=subprocess.PIPE,
            env=_environment(),
            # Out of the terminal's reach: Ctrl-C is for the parent to handle.
            process_group=0,
        )
        assert self._process.stdout is not None
        self._output = self._process.stdout

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def has_ended(self) -> bool:
        return self._process.poll() is not None

    def is_ready(self, within_s: float = 0.0) -> bool:
        """Whether it has said so; that stays in the pipe, for whoever asks again."""
        poll = select.poll()
        poll.register(self._output, select.POLLIN)
        return any(events & select.POLLIN for _, events in poll.poll(within_s * 1000))

    def end(self) -> int:
        """The exit status of the process, which is its own where it has ended by itself."""
        self._process.kill()
        status = self._process.wait()
        self._output.close()
        return status


def _blame(status: int) -> ImageError:
    """Why a child ended with ``status`` in the middle of a picture."""
    if status == -signal.SIGPROF:
        return too_expensive("time")
    if status == -signal.SIGKILL:  # Not from here: the kernel, short of memory.
        return too_expensive("memory")
    return Damaged("This picture makes its decoder crash.", errors.SAVE_AGAIN)


def _environment() -> dict[str, str]:
    """The same modules as here, and none of this process's secrets."""
    return {
        "PYTHONPATH": os.pathsep.join(path or os.getcwd() for path in sys.path),
        # Memory goes back to the system after a picture; glibc kept 200 MiB of a large one.
        "MALLOC_MMAP_THRESHOLD_": str(8 * 1024 * 1024),
        "MALLOC_TRIM_THRESHOLD_": str(64 * 1024 * 1024),
    }
