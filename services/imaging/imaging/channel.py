"""What `DecoderPool` and its child processes say to each other, over one socket each.

A message in either direction::

    8 bytes    the lengths of head and body, two big-endian numbers of 4 bytes
    head       a msgpack map: `Job` to the child; `Done` or `Refused` back
    body       raw bytes: the file to the child; the pixels, then the preview, back

The first message of a child is an empty one: it is ready.

Rules:
- Large bytes are never packed into the head: packing and unpacking would copy them twice more.
- Each side sends only when it is its turn, so neither can block the other for ever.
"""

import socket
import struct
import time
from typing import Final

import msgspec

from imaging.decode import Facts
from wire import Contract

_LENGTHS: Final = struct.Struct("!II")
_TIMEVAL: Final = struct.Struct("@ll")


class Job(msgspec.Struct, frozen=True):
    """Prepare the file in the body."""

    contract: Contract
    preview: bool
    facts: bool
    limit_s: float
    """The child ends itself a little after this, in case nobody is left to kill it."""


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


def send(sock: socket.socket, head: bytes, *body: bytes, deadline: float | None = None) -> None:
    """Sends one message.

    ``deadline`` is on the clock of time.monotonic, None for no limit.

    Raises:
        TimeoutError: The other side did not take it in time.
        OSError: The other side is gone.
    """
    lengths = _LENGTHS.pack(len(head), sum(map(len, body)))
    parts = [memoryview(part) for part in (lengths + head, *body) if part]
    while parts:
        _limit(sock, socket.SO_SNDTIMEO, deadline)
        try:
            sent = sock.sendmsg(parts)
        except BlockingIOError:
            continue
        while parts and sent >= len(parts[0]):
            sent -= len(parts.pop(0))
        if parts:
            parts[0] = parts[0][sent:]


def receive(sock: socket.socket, deadline: float | None = None) -> tuple[bytes, bytes]:
    """The head and the body of the next message.

    Raises:
        TimeoutError: It was not complete by ``deadline``.
        EOFError: The other side is gone.
    """
    head, body = _LENGTHS.unpack(_read(sock, _LENGTHS.size, deadline))
    return _read(sock, head, deadline), _read(sock, body, deadline)


def _read(sock: socket.socket, size: int, deadline: float | None) -> bytes:
    parts: list[bytes] = []
    while size:
        _limit(sock, socket.SO_RCVTIMEO, deadline)
        try:
            part = sock.recv(size, socket.MSG_WAITALL)
        except BlockingIOError:
            continue
        if not part:
            raise EOFError
        size -= len(part)
        if not (size or parts):
            return part
        parts.append(part)
    return b"".join(parts)


def _limit(sock: socket.socket, which: int, deadline: float | None) -> None:
    """The next call ends at ``deadline``, with what it has done by then.

    The system's own limit, because Python's makes the socket non-blocking: each call becomes two,
    and a message that arrives in pieces wakes its reader for each of them.
    """
    if deadline is None:
        return
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError
    # Zero would mean no limit.
    seconds, fraction = divmod(max(left, 1e-6), 1)
    sock.setsockopt(socket.SOL_SOCKET, which, _TIMEVAL.pack(int(seconds), int(fraction * 1e6)))
