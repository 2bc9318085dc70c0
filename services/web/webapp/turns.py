"""Whose turn it is: a fair share of the threads and of the memory for every client.

A client is an address; of IPv6 the 64 bits that a network is given. Behind a proxy or a load
balancer all of the world is one client: raise the limits there.

Rules:
- A client with too many connections, or too many bytes under way, gets no more of either.
- Whoever waits for a thread gets it in rotation with the other clients, so that one who
  sends a thousand pictures delays another's only by one of them.
"""

from collections import Counter, OrderedDict, deque
from ipaddress import IPv6Address
from typing import Generic, TypeVar

Connection = TypeVar("Connection")


class Turns(Generic[Connection]):
    """Counts what every client has under way, and keeps who waits for a thread in line."""

    def __init__(self, *, connections_each: int, bytes_each: int, bytes_all: int) -> None:
        """
        Args:
            connections_each: What one client may have open.
            bytes_each: What one client's requests may take until they are answered.
            bytes_all: The same for all clients together.
        """
        self._connections_each = connections_each
        self._bytes_each = bytes_each
        self._bytes_all = bytes_all
        self._connections: Counter[str] = Counter()
        self._bytes: Counter[str] = Counter()
        self._held = 0
        self._lines: OrderedDict[str, deque[Connection]] = OrderedDict()

    def enter(self, client: str) -> bool:
        """A connection of ``client``; False, and nothing counted, if it is one too many."""
        if self._connections[client] >= self._connections_each:
            return False
        self._connections[client] += 1
        return True

    def leave(self, client: str) -> None:
        """A connection that entered is gone."""
        _subtract(self._connections, client, 1)

    def hold(self, client: str, nbytes: int) -> bool:
        """So much has arrived; False, and nothing counted, if there is no room for it."""
        fits = (
            self._bytes[client] + nbytes <= self._bytes_each
            and self._held + nbytes <= self._bytes_all
        )
        if fits:
            self._bytes[client] += nbytes
            self._held += nbytes
        return fits

    def release(self, client: str, nbytes: int) -> None:
        """So much of what was held is no longer needed."""
        _subtract(self._bytes, client, nbytes)
        self._held -= nbytes

    def line_up(self, client: str, connection: Connection) -> None:
        """A request is complete and waits for a thread."""
        self._lines.setdefault(client, deque()).append(connection)

    def next(self) -> Connection | None:
        """Whoever gets the thread that is free; None if nobody waits."""
        if not self._lines:
            return None
        client, line = self._lines.popitem(last=False)
        connection = line.popleft()
        if line:
            self._lines[client] = line
        return connection


def _subtract(counts: Counter[str], client: str, number: int) -> None:
    counts[client] -= number
    if not counts[client]:
        del counts[client]  # Or the memory would fill with everyone who was ever here.


def client_of(address: object) -> str:
    """The client behind a peer's ``address``, as a socket names it."""
    if not isinstance(address, tuple):
        return ""
    host = str(address[0])
    if ":" not in host:
        return host
    ip = IPv6Address(host.partition("%")[0])
    return str(ip.ipv4_mapped or ip.packed[:8].hex(":", 2))
