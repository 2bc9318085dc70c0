"""The yardstick: two ROUTERs and nothing in between but the way from one to the other.

``python -m loadtest.bench.scale.forwarder FRONTEND BACKEND``. It understands nothing, checks
nothing and remembers nothing, so no broker in Python can be cheaper. Whoever says anything at its
backend is a replica; requests go to the replicas in turn.
"""

import itertools
import sys

import zmq

BURST = 64


def main(frontend: str, backend: str) -> None:
    """Forward until killed."""
    context = zmq.Context()
    clients, replicas = context.socket(zmq.ROUTER), context.socket(zmq.ROUTER)
    clients.bind(frontend)
    replicas.bind(backend)
    known: set[bytes] = set()
    turns = itertools.cycle([b""])
    poller = zmq.Poller()
    poller.register(clients, zmq.POLLIN)
    poller.register(replicas, zmq.POLLIN)
    while True:
        readable = dict(poller.poll())
        if replicas in readable:
            for _ in range(BURST):
                try:
                    replica, *answer = replicas.recv_multipart(zmq.DONTWAIT, copy=False)
                except zmq.Again:
                    break
                if replica.bytes not in known:
                    known.add(replica.bytes)
                    turns = itertools.cycle(sorted(known))
                else:
                    clients.send_multipart(answer, copy=False)
        if clients in readable and known:
            for _ in range(BURST):
                try:
                    request = clients.recv_multipart(zmq.DONTWAIT, copy=False)
                except zmq.Again:
                    break
                replicas.send_multipart([next(turns), *request], copy=False)


def echo(address: str, replicas: int) -> None:
    """The replicas behind it: they give back the header of what they get."""
    context = zmq.Context()
    poller = zmq.Poller()
    for _ in range(replicas):
        socket = context.socket(zmq.DEALER)
        socket.linger = 0
        socket.connect(address)
        socket.send(b"here I am")
        poller.register(socket, zmq.POLLIN)
    while True:
        for socket, _ in poller.poll():
            while True:
                try:
                    client, header, _ = socket.recv_multipart(zmq.DONTWAIT, copy=False)
                except zmq.Again:
                    break
                socket.send_multipart([client, header], copy=False)


if __name__ == "__main__":
    if sys.argv[1] == "echo":
        echo(sys.argv[2], int(sys.argv[3]))
    else:
        main(sys.argv[1], sys.argv[2])
