"""Stands in for Swarm's routing mesh on a machine whose kernel has no IPVS.

``python relay.py NAME PORT`` listens at port 8000. As the mesh does, it gives each new connection
to one of the addresses behind NAME, whichever, and tries no other one if nobody answers there.
"""

import random
import socket
import socketserver
import sys
from threading import Thread
from typing import Final

LISTEN: Final = ("0.0.0.0", 8000)
PIECE_BYTES: Final = 65536


class Relay(socketserver.BaseRequestHandler):
    """One connection."""

    def handle(self) -> None:
        _, _, addresses = socket.gethostbyname_ex(sys.argv[1])
        with socket.create_connection((random.choice(addresses), int(sys.argv[2]))) as there:
            answers = Thread(target=carry, args=(there, self.request))
            answers.start()
            carry(self.request, there)
            answers.join()


def carry(source: socket.socket, target: socket.socket) -> None:
    """What comes out of one end goes into the other, its end included."""
    try:
        while piece := source.recv(PIECE_BYTES):
            target.sendall(piece)
        target.shutdown(socket.SHUT_WR)
    except OSError as error:
        print(f"a connection broke: {error}", file=sys.stderr)
        for end in (source, target):
            end.close()


class Server(socketserver.ThreadingTCPServer):
    """All of them."""

    daemon_threads = True
    request_queue_size = 128


if __name__ == "__main__":
    with Server(LISTEN, Relay) as server:
        server.serve_forever()
