"""What `DecoderPool` and its child processes say to each other.

All children read from one socket, the line of jobs. A message there is one byte, and with it the
far end of a socket that belongs to one job. Whoever is free takes the next, and over that socket::

    to the child   8 bytes    the lengths of head and body, two big-endian numbers of 4 bytes
                   head       a msgpack map, `Job`
                   body       raw bytes: the file
    and back       12 bytes   who has taken it, and when, as `Taken`
                   8 bytes    the lengths
                   head       `Done` or `Refused`
                   body       raw bytes: the pixels, then the preview

Rules:
- The line is the kernel's: it keeps the order, it wakes one child and no more, and a child that is
  through has its next job without a thread of the pool that would have to wake for it first.
- Large bytes are never packed into the head: packing and unpacking would copy them twice more.
- The child sends its answer only when it has all of the file, so neither can block the other.
- Who waits may have limited its socket's time. It looks around whenever that has passed.
"""

import socket
import struct
from collections.abc import Callable
from typing import Final, NamedTuple

import msgspec

from imaging.decode import Facts
from wire import Contract

_LENGTHS: Final = struct.Struct("!II")
_TAKEN: Final = struct.Struct("=Id")
_TIMEVAL: Final = struct.Struct("@ll")
BEGINNING: Final = _TAKEN.size + _LENGTHS.size
"""Bytes of an answer that come before its head."""

Look = Callable[[], None]
"""Called where nothing has moved for as long as the socket waits; it raises to give up."""


class Job(msgspec.Struct, frozen=True):
    """Prepare the file in the body."""

    contract: Contract
    preview: bool
    facts: bool
    limit_s: float
    """The child ends itself when it has computed a little longer, in case nobody is left to kill
    it."""


class Taken(NamedTuple):
    """A child has begun with a job."""

    pid: int
    """0: nobody has."""
    at: float
    """On the clock of time.monotonic, which all processes of a machine share."""


class Done(msgspec.Struct, frozen=True, tag=True):
    """The fields of a `Prepared`; its bytes are in the body, the pixels as long as agreed."""

    format: str
    width: int
    height: int
    warnings: tuple[str, ...]
    facts: Facts | None


class Refused(msgspec.Struct, frozen=True, tag=True):
    """An `ImageError`."""

    kind: str
    detail: str
    remedy: str


def line(wait_s: float) -> tuple[socket.socket, socket.socket]:
    """A new one: where jobs are put, which waits no longer than that, and where they are taken."""
    # Of packets, because of them the kernel wakes one reader only.
    near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    limit(near, wait_s)
    return near, far


def limit(sock: socket.socket, wait_s: float) -> None:
    """No call to the system waits longer than that, which must not be 0.

    The system's own limit, because Python's makes the socket non-blocking: each call becomes two,
    and a message that arrives in pieces wakes its reader for each of them.
    """
    seconds, fraction = divmod(wait_s, 1)
    value = _TIMEVAL.pack(int(seconds), int(fraction * 1e6))
    for which in (socket.SO_SNDTIMEO, socket.SO_RCVTIMEO):
        sock.setsockopt(socket.SOL_SOCKET, which, value)


def put_in_line(jobs: socket.socket, end: socket.socket, look: Look) -> None:
    """Has a child take the job of which ``end`` is the far end.

    Raises:
        OSError: There is no line any more.
    """
    while True:
        try:
            socket.send_fds(jobs, [b"\0"], [end.fileno()])
            return
        except BlockingIOError:  # It is full.
            look()


def take_from_line(jobs: socket.socket) -> socket.socket | None:
    """The far end of the next job; None when the pool is gone."""
    message, ends, _, _ = socket.recv_fds(jobs, 1, 1)
    return socket.socket(socket.AF_UNIX, socket.SOCK_STREAM, 0, ends[0]) if message else None


def take(sock: socket.socket, taken: Taken) -> None:
    """Tells who waits that its job has begun.

    Raises:
        OSError: Nobody waits any more.
    """
    sock.sendall(_TAKEN.pack(*taken))


def glance(sock: socket.socket, beginning: bytearray) -> tuple[Taken, bool]:
    """Who has begun with a job, and whether more of the answer has come than was read.

    ``beginning`` is what was read of its beginning, over zeros. While the file is still on its way
    to the child nobody reads, so what has come is looked at where it lies.
    """
    told = Taken(*_TAKEN.unpack_from(beginning))
    try:
        unread = sock.recv(_TAKEN.size + 1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
    except BlockingIOError:
        return told, False
    if told.pid or len(unread) < _TAKEN.size:
        return told, bool(unread)
    return Taken(*_TAKEN.unpack_from(unread)), len(unread) > _TAKEN.size


def send(sock: socket.socket, head: bytes, *body: bytes, look: Look | None = None) -> None:
    """Sends a head and a body.

    Raises:
        OSError: The other side is gone.
    """
    lengths = _LENGTHS.pack(len(head), sum(map(len, body)))
    parts = [memoryview(part) for part in (lengths + head, *body) if part]
    while True:
        try:
            sent = sock.sendmsg(parts)
        except BlockingIOError:
            if look is not None:
                look()
            continue
        while parts and sent >= len(parts[0]):
            sent -= len(parts.pop(0))
        if not parts:
            return
        parts[0] = parts[0][sent:]


def receive(sock: socket.socket) -> tuple[bytes, bytes]:
    """A head and a body.

    Raises:
        EOFError: The other side is gone.
        OSError: The same.
    """
    head, body = _LENGTHS.unpack(_read(sock, _LENGTHS.size))
    return _read(sock, head), _read(sock, body)


def receive_answer(sock: socket.socket, beginning: bytearray, look: Look) -> tuple[bytes, bytes]:
    """The head and the body of an answer. Its ``beginning`` (BEGINNING zeros) is filled as it
    comes, for ``look`` to see.

    Raises:
        EOFError: The other side is gone.
        OSError: The same.
    """
    rest = memoryview(beginning)
    # In one call, so that the note of who has begun wakes nobody.
    while rest:
        try:
            count = sock.recv_into(rest, 0, socket.MSG_WAITALL)
        except BlockingIOError:
            look()
            continue
        if not count:
            raise EOFError
        rest = rest[count:]
    head, body = _LENGTHS.unpack_from(beginning, _TAKEN.size)
    return _read(sock, head, look), _read(sock, body, look)


def _read(sock: socket.socket, size: int, look: Look | None = None) -> bytes:
    parts: list[bytes] = []
    while size:
        try:
            part = sock.recv(size, socket.MSG_WAITALL)
        except BlockingIOError:
            if look is not None:
                look()
            continue
        if not part:
            raise EOFError
        size -= len(part)
        if not (size or parts):
            return part
        parts.append(part)
    return b"".join(parts)
