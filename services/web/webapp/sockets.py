"""Lends DEALER sockets to threads, one borrower at a time.

Rules:
- No two threads ever touch one socket at once; the lock at lending and returning is the memory
  barrier that libzmq asks for when a socket moves to another thread.
- A borrower that ends with an exception loses the socket with all that is queued in it. So a
  broker that comes back is not flooded with what nobody waits for any longer.
- A child process starts with nothing of its parent's: contexts do not survive a fork.
"""

import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final
from uuid import uuid4
from weakref import WeakSet

import zmq

from wire.codec import MAX_HEADER_BYTES
from wire.keys import PeerKeys

Dealer = zmq.Socket[bytes]

OPTIONS: Final = {
    zmq.LINGER: 0,
    # One call sends its request, then a question every half second.
    zmq.SNDHWM: 64,
    zmq.RCVHWM: 64,
    zmq.MAXMSGSIZE: MAX_HEADER_BYTES,
    # A broker whose machine vanished says no goodbye; TCP alone would notice in minutes.
    zmq.HEARTBEAT_IVL: 1000,
    zmq.HEARTBEAT_TIMEOUT: 3000,
    zmq.RECONNECT_IVL: 50,
    zmq.RECONNECT_IVL_MAX: 500,
}
LAST_WORD_MS: Final = 1000
"""How long a socket that is given up may go on trying to send what it was told last."""


class Closed(Exception):
    """The pool is closed, or is being closed."""


class SocketPool:
    """As many sockets to one endpoint as there were borrowers at once."""

    def __init__(self, endpoint: str, keys: PeerKeys | None = None) -> None:
        """``keys`` are for a broker that lets in only whom it knows."""
        self._endpoint = endpoint
        self._keys = keys
        self.closing = threading.Event()
        """Set as soon as `close` is called; borrowers hurry then."""
        self._returned = threading.Condition()
        self._idle: list[Dealer] = []
        self._lent = 0
        self._context: zmq.Context[Dealer] | None = None
        _pools.add(self)

    @contextmanager
    def borrowed(self) -> Iterator[Dealer]:
        """A connected socket for the calling thread alone.

        Raises:
            Closed: After `close`.
        """
        with self._returned:
            if self.closing.is_set():
                raise Closed
            dealer = self._idle.pop() if self._idle else self._connected()
            self._lent += 1
        satisfied = False
        try:
            yield dealer
            satisfied = True
        finally:
            with self._returned:
                if satisfied:
                    self._idle.append(dealer)
                else:
                    dealer.close(linger=LAST_WORD_MS)
                self._lent -= 1
                self._returned.notify_all()

    def close(self) -> None:
        """Waits for the borrowers, then frees every socket, thread and descriptor."""
        self.closing.set()
        with self._returned:
            self._returned.wait_for(lambda: self._lent == 0)
            while self._idle:
                self._idle.pop().close()
            if self._context is not None:
                self._context.term()
                self._context = None

    def _connected(self) -> Dealer:
        if self._context is None:
            self._context = zmq.Context()
        dealer: Dealer = self._context.socket(zmq.DEALER)
        identity = f"{socket.gethostname()}:{os.getpid()}:{uuid4().hex[:12]}"
        dealer.setsockopt(zmq.IDENTITY, identity.encode())
        for option, value in OPTIONS.items():
            dealer.setsockopt(option, value)
        if self._keys is not None:
            dealer.curve_publickey = self._keys.public.encode()
            dealer.curve_secretkey = self._keys.secret.encode()
            dealer.curve_serverkey = self._keys.broker.encode()
        dealer.connect(self._endpoint)
        return dealer

    def _forget(self) -> None:
        # They are the parent's, which still uses them: neither closed nor collected here.
        _inherited.append((self._context, self._idle))
        self._returned = threading.Condition()
        self._idle = []
        self._lent = 0
        self._context = None


_pools: WeakSet[SocketPool] = WeakSet()
_inherited: list[object] = []


def _forget_after_fork() -> None:
    for pool in _pools:
        pool._forget()


os.register_at_fork(after_in_child=_forget_after_fork)
