"""How a replica's sockets reach the broker's backend.

Rules:
- Without a connection nothing is kept to be sent later: a new broker asks anew.
- A broker whose machine vanished says no goodbye; ZMTP's own heartbeats notice.
"""

import zmq

from wire.keys import PeerKeys


def connect(socket: zmq.Socket[bytes], endpoint: str, identity: str, keys: PeerKeys | None) -> None:
    """Connects a DEALER to ``endpoint`` as ``identity``; ``keys`` are for a broker that lets in
    only whom it knows. Limits and linger are the caller's to set before."""
    socket.routing_id = identity.encode()
    socket.immediate = True
    socket.reconnect_ivl = 50
    socket.reconnect_ivl_max = 500
    socket.heartbeat_ivl = 1000
    socket.heartbeat_timeout = 3000
    if keys is not None:
        socket.curve_publickey = keys.public.encode()
        socket.curve_secretkey = keys.secret.encode()
        socket.curve_serverkey = keys.broker.encode()
    socket.connect(endpoint)
