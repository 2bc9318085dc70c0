"""Who asks and who waits, on a clock of the test's own."""

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, multiple, rule

from webapp.flights import ENTRY_BYTES, Flights, Seat, State

LIMIT = 10 * (ENTRY_BYTES + 10)


def enter(flights: Flights, key: str = "a", *, deadline: float = 10, urgent: bool = True) -> Seat:
    return flights.enter(key, deadline=deadline, urgent=urgent)


def states(*seats: Seat) -> list[State]:
    return [seat.state for seat in seats]


def test_one_asks_and_the_others_get_its_answer() -> None:
    flights = Flights(LIMIT)
    first, second, third = (enter(flights) for _ in range(3))
    assert states(first, second, third) == [State.ASKS, State.WAITS, State.WAITS]
    assert flights.land(first, b"tench") == [second, third]
    assert states(second, third) == [State.ANSWERED] * 2
    assert (second.answer, third.answer) == (b"tench", b"tench")


def test_an_answer_is_remembered() -> None:
    flights = Flights(LIMIT)
    flights.land(enter(flights), b"tench")
    later = enter(flights)
    assert (later.state, later.answer) == (State.ANSWERED, b"tench")
    assert enter(flights, "b").state is State.ASKS


def test_another_takes_the_place_of_one_that_gives_up() -> None:
    flights = Flights(LIMIT)
    first, second, third = (enter(flights) for _ in range(3))
    assert flights.leave(first, now=0) == [second]
    assert states(second, third) == [State.ASKS, State.WAITS]
    assert flights.land(second, b"tench") == [third]
    assert flights.takeovers == 1


def test_whoever_has_most_time_left_takes_over() -> None:
    flights = Flights(LIMIT)
    first = enter(flights, deadline=1)
    waiting = [enter(flights, deadline=deadline) for deadline in (2, 30, 4)]
    assert flights.leave(first, now=0) == [waiting[1]]


def test_whoever_has_no_time_left_does_not_take_over() -> None:
    flights = Flights(LIMIT)
    first, late = enter(flights, deadline=5), enter(flights, deadline=1)
    assert flights.leave(first, now=1) == []
    assert late.state is State.WAITS
    # Nobody asks now, so whoever comes does.
    assert enter(flights, deadline=9).state is State.ASKS


def test_who_waits_may_leave_and_nothing_happens() -> None:
    flights = Flights(LIMIT)
    first, second = enter(flights), enter(flights)
    assert flights.is_awaited(first)
    assert flights.leave(second, now=0) == []
    assert not flights.is_awaited(first)
    assert flights.land(first, b"tench") == []


def test_the_urgent_do_not_wait_for_those_who_are_not() -> None:
    flights = Flights(LIMIT)
    bulk = enter(flights, urgent=False)
    urgent = enter(flights)
    assert states(bulk, urgent) == [State.ASKS, State.ASKS]
    others = [enter(flights, urgent=False), enter(flights)]
    assert states(*others) == [State.WAITS, State.WAITS]
    assert flights.land(urgent, b"tench") == others
    # The other one that asked gets an answer of its own.
    assert bulk.state is State.ASKS
    assert flights.land(bulk, b"tench") == []


def test_bulk_waits_for_the_urgent() -> None:
    flights = Flights(LIMIT)
    urgent, bulk = enter(flights), enter(flights, urgent=False)
    assert bulk.state is State.WAITS
    assert flights.land(urgent, b"tench") == [bulk]


def test_an_urgent_one_takes_over_and_bulk_goes_on_waiting() -> None:
    flights = Flights(LIMIT)
    first = enter(flights)
    bulk, urgent = enter(flights, urgent=False, deadline=99), enter(flights, deadline=2)
    assert flights.leave(first, now=0) == [urgent]
    assert bulk.state is State.WAITS


def test_the_urgent_are_not_left_to_a_bulk_asker() -> None:
    flights = Flights(LIMIT)
    bulk, urgent, waiting = enter(flights, urgent=False), enter(flights), enter(flights)
    assert flights.leave(urgent, now=0) == [waiting]
    assert states(bulk, waiting) == [State.ASKS, State.ASKS]


def test_what_is_wrong_with_the_question_is_told_to_all_and_not_remembered() -> None:
    flights = Flights(LIMIT)
    first, second = enter(flights), enter(flights)
    poisoned = ValueError("poisoned")
    assert flights.refuse(first, poisoned) == [second]
    assert (second.state, second.refusal) == (State.REFUSED, poisoned)
    assert enter(flights).state is State.ASKS


def test_the_least_recently_used_answer_is_forgotten_first() -> None:
    flights = Flights(2 * (ENTRY_BYTES + 1))
    for key in ("a", "b"):
        flights.land(enter(flights, key), key.encode())
    assert enter(flights, "a").state is State.ANSWERED
    flights.land(enter(flights, "c"), b"c")
    assert [enter(flights, key).state for key in ("a", "c")] == [State.ANSWERED] * 2
    assert enter(flights, "b").state is State.ASKS
    assert flights.forgotten == 1


def test_an_answer_that_two_got_is_remembered_once() -> None:
    flights = Flights(LIMIT)
    for seat in (enter(flights, urgent=False), enter(flights)):
        flights.land(seat, b"tench")
    assert flights.held_bytes == ENTRY_BYTES + len(b"tench")


def test_an_answer_larger_than_all_the_room_is_not_remembered() -> None:
    flights = Flights(ENTRY_BYTES)
    waiting = [enter(flights), enter(flights)]
    assert flights.land(waiting[0], b"tench") == waiting[1:]
    assert enter(flights).state is State.ASKS
    assert flights.held_bytes == 0


class Machine(RuleBasedStateMachine):
    """Anybody comes, asks, gives up or is late, in any order; the rules hold all the time."""

    seats = Bundle("seats")

    def __init__(self) -> None:
        super().__init__()
        self.flights = Flights(3 * (ENTRY_BYTES + 1))
        self.now = 0.0
        self.present: list[Seat] = []
        """Who asks or waits."""
        self.landed: set[str] = set()

    @rule(
        target=seats,
        key=st.sampled_from("abcdef"),
        patience=st.integers(1, 9),
        urgent=st.booleans(),
    )
    def come(self, key: str, patience: int, urgent: bool) -> Seat:
        seat = self.flights.enter(key, deadline=self.now + patience, urgent=urgent)
        if seat.state is State.ANSWERED:
            self.check(seat)
        else:
            self.present.append(seat)
        return seat

    @rule(seat=seats)
    def land(self, seat: Seat) -> None:
        if self.asks(seat):
            self.landed.add(str(seat.key))
            self.told(self.flights.land(seat, str(seat.key).encode()), State.ANSWERED)
            self.present.remove(seat)

    @rule(seat=seats)
    def refuse(self, seat: Seat) -> None:
        if self.asks(seat):
            self.told(self.flights.refuse(seat, KeyError(seat.key)), State.REFUSED)
            self.present.remove(seat)

    @rule(target=seats, seat=consumes(seats))
    def leave(self, seat: Seat) -> object:
        waiting = [other for other in self.present if other.state is State.WAITS]
        asking = self.flights.leave(seat, self.now)
        assert all(other in waiting and other.state is State.ASKS for other in asking)
        if seat in self.present:
            self.present.remove(seat)
        return multiple()

    @rule(seconds=st.integers(1, 5))
    def time_passes(self, seconds: int) -> None:
        self.now += seconds

    def asks(self, seat: Seat) -> bool:
        return seat in self.present and seat.state is State.ASKS

    def told(self, seats: list[Seat], state: State) -> None:
        """Who waited has been told, once, and is no longer there."""
        for seat in seats:
            assert seat.state is state
            self.check(seat)
            self.present.remove(seat)

    def check(self, seat: Seat) -> None:
        if seat.state is State.ANSWERED:
            assert seat.answer == str(seat.key).encode()
            assert seat.key in self.landed
        else:
            assert isinstance(seat.refusal, KeyError)
            assert seat.refusal.args == (seat.key,)

    @invariant()
    def nobody_waits_for_nothing(self) -> None:
        for seat in self.present:
            if seat.state is State.WAITS and seat.deadline > self.now:
                assert any(
                    other.state is State.ASKS
                    and other.key == seat.key
                    and other.urgent >= seat.urgent
                    for other in self.present
                )

    @invariant()
    def nothing_is_asked_twice(self) -> None:
        asking = [(s.key, s.urgent) for s in self.present if s.state is State.ASKS]
        assert len(asking) == len(set(asking))

    @invariant()
    def memory_is_bounded(self) -> None:
        assert 0 <= self.flights.held_bytes <= 3 * (ENTRY_BYTES + 1)

    def teardown(self) -> None:
        for seat in list(self.present):
            self.flights.leave(seat, self.now)
        assert not self.flights._flying


TestAnything = Machine.TestCase
TestAnything.settings = settings(max_examples=40, stateful_step_count=30, deadline=None)
