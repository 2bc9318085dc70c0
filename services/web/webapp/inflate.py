"""Undoes the compression of a request's body, which may be a thousand times what arrived.

Rules:
- A body is inflated no further than it may have come plain.
- One at a time; and what is inflated is counted until its request is answered, since uploads are
  counted as they came.
"""

import threading
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from webapp.errors import BadRequest, NoRoom, UnknownCoding, UploadTooLarge

_WINDOWS: Final = {"gzip": 16 + zlib.MAX_WBITS, "deflate": zlib.MAX_WBITS}
"""As zlib is told which format it is; HTTP's deflate is the zlib format (RFC 9110, 8.4.1.2)."""


class Inflater:
    """Keeps count of what is inflated in one process."""

    def __init__(self, *, max_bytes: int, room_bytes: int) -> None:
        """
        Args:
            max_bytes: What one body may have in the end.
            room_bytes: What all of them may take at once.
        """
        self._max_bytes = max_bytes
        self._room_bytes = room_bytes
        self._held = 0
        self._turn = threading.Lock()

    @contextmanager
    def plain(self, body: bytes, coding: str) -> Iterator[bytes]:
        """``body`` as it was before ``coding``, a Content-Encoding that may be empty.

        Raises:
            UnknownCoding: We cannot undo it.
            BadRequest: It is not in that coding, or not all of it.
            UploadTooLarge: There is too much in it.
            NoRoom: Too much is inflated at the moment.
        """
        coding = coding.strip().lower()
        if coding in ("", "identity"):
            yield body
            return
        if coding not in _WINDOWS:
            raise UnknownCoding(coding, tuple(_WINDOWS))
        with self._turn:
            plain = self._inflated(body, coding)
            if self._held + len(plain) > self._room_bytes:
                raise NoRoom("More is compressed at the moment than there is room for.")
            self._held += len(plain)
        try:
            yield plain
        finally:
            with self._turn:
                self._held -= len(plain)

    def _inflated(self, body: bytes, coding: str) -> bytes:
        inflater = zlib.decompressobj(_WINDOWS[coding])
        try:
            plain = inflater.decompress(body, self._max_bytes + 1)
        except zlib.error:
            raise BadRequest(
                f"The body is not in the coding {coding} that its header names.",
                "Send it plain, without Content-Encoding.",
            ) from None
        if len(plain) > self._max_bytes:
            raise UploadTooLarge(
                f"The body has more than {self._max_bytes / 2**20:.3g} MiB when it is inflated.",
                "Send fewer pictures at a time.",
            )
        if not inflater.eof or inflater.unused_data:
            raise BadRequest(
                f"The body ends before its {coding} does, or after.",
                "Send it again, or plain, without Content-Encoding.",
            )
        return plain
