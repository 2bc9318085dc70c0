"""Whether whoever sent a request still waits for its answer.

A person who closes the page, or a program that gives up, leaves a connection that has ended. So
has one whose sender shut down only its sending half; hardly any HTTP client does, and those are
taken for gone as well, as common proxies do.
"""

import socket
from collections.abc import Callable
from typing import Any

from flask import request

Left = Callable[[], bool]


def nobody_left() -> bool:
    """The answer where nothing can be known."""
    return False


def sender_left() -> Left:
    """A question about the sender of the request that is being handled, for any thread to ask.

    Only gunicorn gives its applications the connection; elsewhere everybody stays.
    """
    connection: Any = request.environ.get("gunicorn.socket")
    if connection is None:
        return nobody_left

    def left() -> bool:
        try:
            ended: bool = connection.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT) == b""
        except BlockingIOError:
            return False
        except OSError:
            return True
        return ended

    return left
