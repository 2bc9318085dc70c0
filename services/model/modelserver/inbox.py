"""What has arrived at a ZeroMQ socket, taken without waiting."""

from collections.abc import Iterator
from contextlib import suppress
from typing import Final

import zmq

EVENTS: Final = int(zmq.EVENTS)
READABLE: Final = int(zmq.POLLIN)


def arrived(socket: zmq.Socket[bytes], most: int) -> Iterator[list[zmq.Frame]]:
    """The frames of each message that is there, of up to ``most``; copied nowhere.

    For a socket that a poll found readable. Whether there is another message is asked, not tried:
    a try in vain is an exception, which takes longer than receiving does.
    """
    with suppress(zmq.Again):
        for _ in range(most):
            yield socket.recv_multipart(zmq.DONTWAIT, copy=False)
            if not int(socket.get(EVENTS)) & READABLE:
                return
