"""Finds out where an HTTP/1.1 request ends, so that it can be waited for at no cost.

Bytes in, a verdict out: no socket, no clock. What the bytes mean is for gunicorn's parser to say,
later and once; here only their end is looked for.

Rules:
- What cannot be a request is over at once: the parser knows best what is wrong with it.
- What is longer than it may be is over at once, too: it is refused without the rest.
- Hardly anything is looked at twice, however small the pieces are in which it arrives.
"""

import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

MAX_HEAD_BYTES: Final = 32 * 1024
"""Browsers send less than 2 KB; other servers take 8 to 32 KiB."""

_HEAD_END: Final = b"\r\n\r\n"
_TARGET: Final = re.compile(rb"POST ([^ ?\r]*)[ ?]")
_LENGTH: Final = re.compile(rb"\r\ncontent-length:[ \t]*([^\r]*)", re.IGNORECASE)
_NUMBER: Final = re.compile(rb"([0-9]{1,18})[ \t]*")
_CHUNKED: Final = re.compile(rb"\r\ntransfer-encoding:", re.IGNORECASE)
_EXPECT: Final = re.compile(
    rb"[^\r]* HTTP/1\.1\r\n(?:.*\r\n)?expect:[ \t]*100-continue[ \t]*\r\n",
    re.IGNORECASE | re.DOTALL,
)
"""Of a client of HTTP/1.0 it has to be ignored (RFC 9110, 10.1.1)."""
_CHUNK_SIZE: Final = re.compile(rb"([0-9a-f]{1,15})[ \t]*(;[^\r\n]*)?", re.IGNORECASE)
_MAX_CHUNK_LINE: Final = 256
_MAX_TRAILERS: Final = 1024
"""No client in use sends any."""


class Framing:
    """One request as it arrives. Ask `end` after every `feed`."""

    def __init__(
        self, max_body_bytes: int, by_target: Mapping[bytes, int] = MappingProxyType({})
    ) -> None:
        """A body longer than ``max_body_bytes`` is not waited for; ``by_target`` has other limits
        for some paths."""
        self.data = bytearray()
        """What has arrived, the beginning of the next request included."""
        self.end: int | None = None
        """How many of these bytes are this request; None while more have to come."""
        self.whole = False
        """It ended as a request does, so what follows it is the next one."""
        self.head_is_too_long = False
        """It has no end within MAX_HEAD_BYTES, so no parser could make anything of it."""
        self.expects_continue = False
        """The head is here, and its sender waits for a word before it sends the body."""
        self._max_body_bytes = max_body_bytes
        self._by_target = by_target
        self._searched = 0
        self._body: int | None = None
        self._length: int | None = None
        self._decoded = 0

    def take_body(self) -> bytes | None:
        """The body, where it is whole and came in one piece: not in chunks. This request's bytes
        are no longer here then: with many large uploads at once each would be held twice."""
        if not self.whole or self._length is None:
            return None
        body = bytes(memoryview(self.data)[self._body : self.end])
        del self.data[: self.end]
        self.end = 0
        return body

    def feed(self, piece: bytes) -> None:
        """Takes what has arrived next."""
        self.data += piece
        if self._body is None:
            self._find_body()
        if self._body is not None and self.end is None:
            if self._length is None:
                self._walk_chunks()
            elif len(self.data) >= self._body + self._length:
                self._close(self._body + self._length)
        if self.end is not None:
            self.expects_continue = False

    def _find_body(self) -> None:
        found = self.data.find(_HEAD_END, max(0, self._searched - len(_HEAD_END)))
        self._searched = len(self.data)
        if (found if found >= 0 else len(self.data)) > MAX_HEAD_BYTES:
            self.head_is_too_long = True
            self._give_up()
        if found < 0 or self.head_is_too_long:
            return
        self._body = self._searched = found + len(_HEAD_END)
        head = bytes(self.data[: self._body])
        target = _TARGET.match(head)
        if target and (longest := self._by_target.get(target[1])):
            self._max_body_bytes = longest
        self.expects_continue = _EXPECT.match(head) is not None
        if _CHUNKED.search(head):
            return
        lengths: list[bytes] = _LENGTH.findall(head)
        number = _NUMBER.fullmatch(lengths[0]) if len(lengths) == 1 else None
        self._length = int(number[1]) if number else 0
        if (lengths and not number) or self._length > self._max_body_bytes:
            self._give_up()

    def _walk_chunks(self) -> None:
        """From one chunk's size line to the next, as far as they have arrived."""
        # Tiny chunks with long extensions are mostly that, and no body.
        furthest = 2 * self._max_body_bytes + MAX_HEAD_BYTES
        while (line_end := self._find(b"\r\n", self._searched, _MAX_CHUNK_LINE)) >= 0:
            size = _CHUNK_SIZE.fullmatch(self.data, self._searched, line_end)
            if size is None or self._searched > furthest:
                break
            length = int(size[1], 16)
            if length == 0:
                # Trailers end with an empty line, which is mostly the only one.
                ended = self._find(_HEAD_END, line_end, _MAX_TRAILERS)
                if ended >= 0:
                    self._close(ended + len(_HEAD_END))
                elif len(self.data) - line_end > _MAX_TRAILERS:
                    self._give_up()
                return
            arrived = min(length, len(self.data) - line_end - 2)
            if self._decoded + arrived > self._max_body_bytes:
                # Only now: the application has to find more than it may take.
                break
            beyond = line_end + 2 + length + 2
            if beyond > len(self.data):
                return
            self._decoded += length
            self._searched = beyond
        else:
            if len(self.data) - self._searched <= _MAX_CHUNK_LINE:
                return
        self._give_up()

    def _find(self, mark: bytes, start: int, within: int) -> int:
        """Where ``mark`` is, no further than it would be looked for if bytes came one by one: what
        is too long is so in whatever pieces it arrives."""
        return self.data.find(mark, start, start + within + 1)

    def _close(self, end: int) -> None:
        self.end = end
        self.whole = True

    def _give_up(self) -> None:
        self.end = len(self.data)
