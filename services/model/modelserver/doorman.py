"""Who may come in: CURVE with a list of keys at each of the broker's two sockets.

Rules:
- Without keys both sockets are open to whoever reaches them, and the network has to keep
  strangers out. With keys a peer needs the broker's public key and has to be on the list of the
  very socket that it comes to: a client is no replica.
- Whoever is turned away, or says what is no message, is counted, and the log says so, but never
  a line for each: a stranger who knocks a thousand times a second must not fill the disk.
"""

import contextlib
import logging
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Final

import zmq
from zmq.auth.thread import ThreadAuthenticator
from zmq.utils.monitor import parse_monitor_message

from wire import WireError
from wire.keys import BrokerKeys

log = logging.getLogger("Doorman")

CLIENTS: Final = "clients"
REPLICAS: Final = "replicas"
"""The doors: the frontend, and the backend."""
REFUSED: Final = (
    zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL
    | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL
    | zmq.EVENT_HANDSHAKE_FAILED_AUTH
)
QUIET_S: Final = 10.0
"""Between two lines in the log about the same thing at the same door."""
REASON_CHARS: Final = 200


class _GuestList:
    """What pyzmq's authenticator asks about a key."""

    def __init__(self, keys: Iterable[str]) -> None:
        self._keys = {key.encode() for key in keys}

    def callback(self, _domain: str, key: bytes) -> bool:
        return key in self._keys


class Doorman:
    """Stands at the frontend and the backend of one broker."""

    def __init__(self, keys: BrokerKeys | None, counts: Counter[str]) -> None:
        """``counts`` is told how many were turned away, as ``refused_peers``, and how many messages
        were none, as ``garbage``."""
        self._keys = keys
        self._counts = counts
        self._untold: Counter[str] = Counter()
        self._told: dict[str, float] = {}

    @contextlib.contextmanager
    def on_duty(
        self, context: zmq.Context[zmq.Socket[bytes]], doors: dict[str, zmq.Socket[bytes]]
    ) -> Iterator[dict[zmq.Socket[bytes], str]]:
        """Guard sockets that are not bound yet, for as long as the block lasts.

        ``doors`` are the sockets called CLIENTS and REPLICAS. Gives a socket for each on
        which `hear` has to be called when it is readable.
        """
        with contextlib.ExitStack() as stack:
            if self._keys is not None:
                stack.enter_context(self._locked(context, self._keys, doors))
            monitors = {}
            for name, door in doors.items():
                monitor = stack.enter_context(door.get_monitor_socket(REFUSED))
                stack.callback(door.disable_monitor)
                monitors[monitor] = name
            yield monitors

    @staticmethod
    @contextlib.contextmanager
    def _locked(
        context: zmq.Context[zmq.Socket[bytes]],
        keys: BrokerKeys,
        doors: dict[str, zmq.Socket[bytes]],
    ) -> Iterator[None]:
        # The broker's own key opens the frontend too: for its health check.
        lists = {CLIENTS: (*keys.clients, keys.public), REPLICAS: keys.replicas}
        authenticator = ThreadAuthenticator(context)
        authenticator.start()
        try:
            for name, door in doors.items():
                authenticator.configure_curve_callback(name, _GuestList(lists[name]))
                door.curve_server = True
                door.curve_publickey = keys.public.encode()
                door.curve_secretkey = keys.secret.encode()
                door.zap_domain = name.encode()
            yield
        finally:
            authenticator.stop()

    def hear(self, monitor: zmq.Socket[bytes], name: str) -> None:
        """Take in what happened at the door called ``name``."""
        refused = 0
        with contextlib.suppress(zmq.Again):
            while True:
                parse_monitor_message(monitor.recv_multipart(zmq.DONTWAIT))
                refused += 1
        self._counts["refused_peers"] += refused
        self._tell(refused, f"peers turned away at the door for {name}")

    def garbage(self, name: str, error: WireError) -> None:
        """What came in at the door called ``name`` is no message; ``error`` says why."""
        self._counts["garbage"] += 1
        # Quoted, as it may quote whoever sent it.
        self._tell(1, f"times garbage from {name}", f"; the last: {str(error)[:REASON_CHARS]!r}")

    def _tell(self, count: int, what: str, more: str = "") -> None:
        self._untold[what] += count
        now = time.monotonic()
        if now - self._told.get(what, -QUIET_S) >= QUIET_S:
            self._told[what] = now
            log.warning("%d %s%s", self._untold.pop(what), what, more)
