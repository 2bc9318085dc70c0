"""A socket that nobody waits for to send.

What the system takes at once goes out at once; the rest stays here, and a thread that has written
its answer is through with it, however slowly its reader reads. Whoever looks after the connection
then has the rest `flush`-ed as the reader makes room.

Rules:
- Nothing ever waits, whatever `setblocking` is told: each such word would be a call to the system.
- The head of an answer leaves together with the first of its body: one call, one packet.
- One owner at a time: the thread that writes an answer, then the loop that delivers the rest.
- The rest is bounded: an answer that is longer than anything we say ends its connection.
"""

import socket
from errno import EPIPE
from typing import Any, Final

UNSENT_BYTES: Final = 8 * 1024 * 1024
"""The longest answer, about as many pictures as there may be in one request with 100 classes each,
takes 3 MB."""


class Outlet(socket.socket):
    """Takes the place of ``accepted``, which is of no more use then."""

    def __init__(self, accepted: socket.socket) -> None:
        super().__init__(accepted.family, accepted.type, accepted.proto, fileno=accepted.detach())
        super().setblocking(False)
        self.unsent = bytearray()
        """What the system has had no room for yet."""
        self._head_is_next = False

    def setblocking(self, _flag: bool) -> None:
        """No."""

    def begin(self) -> None:
        """What is sent next is a head, and its body will follow, or a `flush`."""
        self._head_is_next = True

    def sendall(self, data: Any, flags: int = 0) -> None:
        """Sends what can be sent now, and keeps the rest.

        Raises:
            OSError: The reader is gone, or has read nearly nothing of a very long answer.
        """
        if self._head_is_next:
            self._head_is_next = False
            self.unsent += data
        elif self.unsent:
            self.unsent += data
            self.flush()
        else:
            sent = self._send(data, flags)
            self.unsent += memoryview(data)[sent:]
        if len(self.unsent) > UNSENT_BYTES:
            raise BrokenPipeError(EPIPE, "the reader does not read")

    def flush(self) -> None:
        """Sends as much of the rest as there is room for.

        Raises:
            OSError: The reader is gone.
        """
        if self.unsent:
            del self.unsent[: self._send(self.unsent)]

    def _send(self, data: Any, flags: int = 0) -> int:
        try:
            return self.send(data, flags)
        except BlockingIOError:
            return 0
