"""What queues should do: M/M/n, Erlang's second formula."""

from math import inf


def waiting_ms(load: float, servers: int, service_ms: float) -> float:
    """The mean time in the queue when a share ``load`` of all servers' time is asked for.

    Arrivals and services are exponential. L. Kleinrock, Queueing Systems I, section 3.5.
    """
    if load >= 1:
        return inf
    offered = load * servers
    # Erlang B by its recursion, which never overflows; C from B.
    blocked = 1.0
    for n in range(1, servers + 1):
        blocked = offered * blocked / (n + offered * blocked)
    waits = blocked / (1 - load * (1 - blocked))
    return waits * service_ms / (servers * (1 - load))
