"""A fair share for every client."""

import pytest

from webapp.turns import Turns, client_of


@pytest.fixture
def turns() -> Turns[str]:
    return Turns(connections_each=2, bytes_each=60, bytes_all=100)


def drained(turns: Turns[str]) -> list[str]:
    order = []
    while (connection := turns.next()) is not None:
        order.append(connection)
    return order


def test_clients_take_turns_and_each_keeps_its_order(turns: Turns[str]) -> None:
    for connection in ("a1", "a2", "a3", "b1", "c1", "b2"):
        turns.line_up(connection[0], connection)
    assert drained(turns) == ["a1", "b1", "c1", "a2", "b2", "a3"]


def test_one_client_cannot_take_all_connections(turns: Turns[str]) -> None:
    assert [turns.enter("a") for _ in range(3)] == [True, True, False]
    assert turns.enter("b")
    turns.leave("a")
    assert turns.enter("a")


def test_one_client_cannot_take_all_memory_and_all_cannot_take_more(turns: Turns[str]) -> None:
    assert turns.hold("a", 60)
    assert not turns.hold("a", 1)
    assert turns.hold("b", 40)
    assert not turns.hold("c", 1)
    turns.release("a", 60)
    assert turns.hold("c", 60)


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("192.0.2.1", "192.0.2.1", True),
        ("192.0.2.1", "192.0.2.2", False),
        ("2001:db8::1", "2001:db8:0:0:ff::2", True),
        ("2001:db8::1", "2001:db8:0:1::1", False),
        ("::ffff:192.0.2.1", "192.0.2.1", True),
        ("fe80::1%eth0", "fe80::2%eth0", True),
    ],
)
def test_a_client_is_an_address_or_a_network_of_one(one: str, other: str, same: bool) -> None:
    assert (client_of((one, 1)) == client_of((other, 2))) is same
