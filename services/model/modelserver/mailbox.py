"""How other threads hand things to the one thread that waits on sockets."""

import contextlib
import queue
import socket
from typing import Generic, TypeVar

T = TypeVar("T")


class Mailbox(Generic[T]):
    """A queue with a file descriptor that is readable while something may lie in it."""

    def __init__(self) -> None:
        self._items: queue.SimpleQueue[T] = queue.SimpleQueue()
        self._reader, self._writer = socket.socketpair()
        self._reader.setblocking(False)
        self._writer.setblocking(False)

    def fileno(self) -> int:
        """For the reader's poller."""
        return self._reader.fileno()

    def put(self, item: T) -> None:
        """Deliver from any thread, without waiting."""
        self._items.put(item)
        # Full: so many calls are unread that one more would wake nobody sooner.
        with contextlib.suppress(BlockingIOError):
            self._writer.send(b"\0")

    def take(self) -> list[T]:
        """Everything that has been delivered, oldest first, without waiting."""
        with contextlib.suppress(BlockingIOError):
            self._reader.recv(4096)
        items = []
        while True:
            try:
                items.append(self._items.get_nowait())
            except queue.Empty:
                return items

    def close(self) -> None:
        """Give the descriptors back."""
        self._reader.close()
        self._writer.close()
