"""What can be known of whoever sent a request: since when, and whether, they wait for its answer.

A person who closes the page, or a program that gives up, leaves a connection that has ended. So
has one whose sender shut down only its sending half; hardly any HTTP client does, and those are
taken for gone as well, as common proxies do.
"""

import socket
import time
from collections.abc import Callable
from contextvars import ContextVar
from threading import Event
from typing import Any, Final

from flask import request

Left = Callable[[], bool]

ARRIVED: Final[ContextVar[float | None]] = ContextVar("arrived", default=None)
"""Set by the server for the thread that answers, of ``time.monotonic()``."""


STOPPING: Final = Event()
"""Set by the server when it has to stop: what is begun is finished, and nothing else is begun."""


def arrived() -> float:
    """When the last byte of the request that is being handled arrived, of ``time.monotonic()``;
    now, where the server did not say."""
    at = ARRIVED.get()
    return time.monotonic() if at is None else at


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
