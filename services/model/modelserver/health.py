"""Answers a container platform's question: does this part really serve?

The broker is asked for its catalogue, as any client would. A replica is healthy while the broker
counts it among the living: the broker pings only those, and the replica touches its alive file at
every ping. The file's time of change is that of the monotonic clock, which all processes of a
machine share: a wall clock that jumps would make the living look dead, and the dead alive until
it has caught up.
"""

import os
import secrets
import time
from pathlib import Path
from typing import Final

import zmq

from modelserver.config import from_here
from wire import Catalogue, Describe, WireError, encode, to_client
from wire.keys import BrokerKeys

FRESH_S: Final = 3.0
"""Twelve pings."""


def catalogue(
    frontend: str, keys: BrokerKeys | None = None, timeout_ms: int = 2000
) -> Catalogue | None:
    """What the broker at ``frontend`` serves; None when it does not answer in time."""
    context = zmq.Context()
    try:
        with context.socket(zmq.DEALER) as socket:
            socket.linger = 0
            # Whom the broker has turned away by then has nobody to send to.
            socket.sndtimeo = timeout_ms
            if keys is not None:
                socket.curve_publickey = socket.curve_serverkey = keys.public.encode()
                socket.curve_secretkey = keys.secret.encode()
            socket.connect(frontend)
            socket.send(encode(Describe(id=secrets.token_hex(8))))
            if not socket.poll(timeout_ms):
                return None
            answer = to_client.decode(socket.recv_multipart())
    except (WireError, zmq.Again):
        return None
    finally:
        context.term()
    return answer if isinstance(answer, Catalogue) else None


def broker_serves(frontend: str, keys: BrokerKeys | None) -> bool:
    """Whether the broker that listens at ``frontend`` answers."""
    return catalogue(from_here(frontend), keys) is not None


def touch(alive_file: Path) -> None:
    """What a replica does when its broker pings it."""
    now = time.monotonic()
    try:
        os.utime(alive_file, (now, now))
    except FileNotFoundError:
        alive_file.touch()
        os.utime(alive_file, (now, now))


def replica_serves(alive_file: Path) -> bool:
    """Whether the replica that touches ``alive_file`` was pinged by its broker just now."""
    try:
        age_s = time.monotonic() - alive_file.stat().st_mtime
    except FileNotFoundError:
        return False
    # A file of before the machine's last start is younger than now: that clock began anew.
    return 0 <= age_s < FRESH_S
