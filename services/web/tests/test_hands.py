"""Parts of a request: done in their order, several at a time, and ended by the first that fails."""

import threading

import pytest

from webapp.errors import BadRequest, SenderLeft
from webapp.hands import AT_ONCE, Hands, PartFailed
from webapp.presence import Left, nobody_left


def test_the_answers_are_in_order() -> None:
    assert Hands().each(lambda at, _: at * at, 50, nobody_left) == [at * at for at in range(50)]


def test_several_are_under_way_at_once() -> None:
    together = threading.Barrier(AT_ONCE, timeout=5)
    Hands().each(lambda _at, _left: together.wait(), AT_ONCE, nobody_left)


def test_without_spare_threads_it_takes_longer_and_is_done() -> None:
    names = set()

    def work(at: int, _left: Left) -> int:
        names.add(threading.current_thread().name)
        return at

    assert Hands(0).each(work, 5, nobody_left) == [0, 1, 2, 3, 4]
    assert len(names) == 1


def test_threads_are_given_back() -> None:
    hands = Hands(3)
    for fails in (False, True, False):
        together = threading.Barrier(4, timeout=5)

        def work(at: int, _left: Left) -> None:
            together.wait()  # noqa: B023 - not used after this round
            if fails and at == 2:  # noqa: B023
                raise BadRequest("No.")

        if fails:
            with pytest.raises(PartFailed):
                hands.each(work, 4, nobody_left)
        else:
            hands.each(work, 4, nobody_left)


def test_one_that_fails_ends_the_others() -> None:
    begun = []
    both = threading.Barrier(2, timeout=5)

    def work(at: int, left: Left) -> None:
        begun.append(at)
        if at < 2:
            both.wait()
        if at == 1:
            raise BadRequest("No.")
        while not left():
            threading.Event().wait(0.001)
        raise SenderLeft("The others have failed.")

    with pytest.raises(PartFailed) as failed:
        Hands(1).each(work, 50, nobody_left)
    assert failed.value.at == 1
    assert isinstance(failed.value.error, BadRequest)
    assert len(begun) <= 3


def test_who_leaves_is_not_worked_for() -> None:
    def work(_at: int, left: Left) -> None:
        assert left()
        raise SenderLeft("Gone.")

    with pytest.raises(PartFailed) as failed:
        Hands().each(work, 3, lambda: True)
    assert isinstance(failed.value.error, SenderLeft)
