"""Asks a broker from outside whether it, or a replica of this host, really serves.

The one proof that counts is an answer: a catalogue from the broker's frontend, and for a
replica its own name among those that the broker would give work to.
"""

import secrets
import socket as hosts

import zmq

from wire import Catalogue, Describe, WireError, encode, to_client


def catalogue(frontend: str, timeout_ms: int = 2000) -> Catalogue | None:
    """What the broker at ``frontend`` serves; None when it does not answer in time."""
    context = zmq.Context()
    try:
        with context.socket(zmq.DEALER) as socket:
            socket.linger = 0
            socket.connect(frontend)
            socket.send(encode(Describe(id=secrets.token_hex(8))))
            if not socket.poll(timeout_ms):
                return None
            answer = to_client.decode(socket.recv_multipart())
    except WireError:
        return None
    finally:
        context.term()
    return answer if isinstance(answer, Catalogue) else None


def broker_serves(frontend: str) -> bool:
    """Whether the broker answers."""
    return catalogue(frontend) is not None


def replica_serves(frontend: str) -> bool:
    """Whether the broker counts a replica of this host among the living."""
    answer = catalogue(frontend)
    host = hosts.gethostname()[:32]
    return answer is not None and any(
        name.split(":")[0] == host for served in answer.models for name in served.replicas
    )
