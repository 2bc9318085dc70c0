"""Sharing: threads with the same picture and one broker between them."""

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import pytest
from flask.testing import FlaskClient
from msgspec.structs import replace

from imaging import DecoderPool
from webapp import errors
from webapp.app import create_app
from webapp.client import ModelClient
from webapp.config import Config
from webapp.sharing import Cache, Sharing
from webapp.terms import Terms
from webapp.testing import CONTRACT, FakeModel, predictions
from wire import FailureCode, Result, Timing
from wire.messages import Priority

Until = Callable[[Callable[[], object]], None]

PIXELS = bytes(range(256)) * (CONTRACT.nbytes // 256)
OTHER = bytes(CONTRACT.nbytes)
LIMIT = 1024 * 1024


class Desk:
    """A `Sharing` in front of the fake, and threads that ask it."""

    def __init__(self, client: ModelClient, limit_bytes: int = LIMIT) -> None:
        self.client = client
        self.answered: Counter[Cache] = Counter()
        self.sharing = Sharing(
            client, limit_bytes, lambda cache, _held: self.answered.update([cache])
        )
        self._threads = ThreadPoolExecutor(64)

    def ask(
        self,
        pixels: bytes = PIXELS,
        *,
        within_s: float = 10,
        priority: Priority = "interactive",
        left: Callable[[], bool] = lambda: False,
        top_k: int = 5,
    ) -> Future[tuple[Result, Cache]]:
        deadline = time.monotonic() + within_s
        terms = Terms(deadline, top_k=top_k, priority=priority, left=left)
        return self._threads.submit(self.sharing.classify, pixels, CONTRACT, terms)

    def close(self) -> None:
        self._threads.shutdown()


@pytest.fixture
def desk(client: ModelClient) -> Iterator[Desk]:
    desk = Desk(client)
    yield desk
    desk.close()


def ways(*asked: Future[tuple[Result, Cache]]) -> list[Cache]:
    return sorted(future.result()[1] for future in asked)


def joined(
    desk: Desk, fake: FakeModel, until: Until, **how: object
) -> Future[tuple[Result, Cache]]:
    """One more who waits for another's answer: he has been told that the model is in use."""
    seats = len(desk.sharing._bells)
    known = fake.descriptions
    asked = desk.ask(**how)  # type: ignore[arg-type]
    until(lambda: len(desk.sharing._bells) > seats and fake.descriptions > known)
    return asked


def test_fifty_at_once_are_one_request(desk: Desk, fake: FakeModel) -> None:
    fake.delay_s = 0.3
    asked = [desk.ask() for _ in range(50)]
    results = [future.result()[0] for future in asked]
    assert len(fake.requests) == 1
    assert all(result.predictions == predictions(PIXELS)[:5] for result in results)
    assert ways(*asked) == ["joined"] * 49 + ["miss"]
    assert desk.answered == {"joined": 49, "miss": 1}


def test_an_answer_is_given_again_from_memory(desk: Desk, fake: FakeModel) -> None:
    first, _ = desk.ask().result()
    again, way = desk.ask().result()
    assert (way, len(fake.requests)) == ("hit", 1)
    assert again == replace(first, timing=Timing())


def test_other_pixels_and_another_number_of_classes_are_other_questions(
    desk: Desk,
) -> None:
    assert ways(desk.ask(), desk.ask(OTHER), desk.ask(top_k=3)) == ["miss"] * 3
    assert len(desk.ask(top_k=3).result()[0].predictions) == 3
    assert desk.ask(OTHER).result()[0].predictions == predictions(OTHER)[:5]


def test_switched_off_everybody_asks(client: ModelClient, fake: FakeModel) -> None:
    desk = Desk(client, 0)
    fake.delay_s = 0.1
    assert ways(*[desk.ask() for _ in range(8)]) == ["off"] * 8
    assert len(fake.requests) == 8
    desk.close()


def test_a_leader_without_time_takes_nobody_along(
    desk: Desk, fake: FakeModel, until: Until
) -> None:
    fake.delay_s = 60
    leader = desk.ask(within_s=1.2)
    until(lambda: fake.requests)
    waiting = [joined(desk, fake, until) for _ in range(3)]
    fake.delay_s = 0
    with pytest.raises(errors.DeadlineExceeded):
        leader.result()
    assert ways(*waiting) == ["joined", "joined", "miss"]
    assert len({request.id for request in fake.requests}) == 2
    assert desk.sharing.takeovers == 1


def test_a_leader_whose_sender_left_works_on_for_those_who_joined(
    desk: Desk, fake: FakeModel, until: Until
) -> None:
    gone = threading.Event()
    fake.delay_s = 0.5
    leader = desk.ask(left=gone.is_set)
    until(lambda: fake.requests)
    waiting = joined(desk, fake, until)
    gone.set()
    assert waiting.result()[1] == "joined"
    assert leader.result()[1] == "miss"
    assert (len(fake.requests), fake.cancelled) == (1, [])


def test_when_the_last_who_waited_has_left_the_request_is_cancelled(
    desk: Desk, fake: FakeModel, until: Until
) -> None:
    gone = threading.Event()
    fake.delay_s = 60
    leader = desk.ask(left=gone.is_set, within_s=120)
    until(lambda: fake.requests)
    waiting = joined(desk, fake, until, left=gone.is_set)
    gone.set()
    for asked in (leader, waiting):
        with pytest.raises(errors.SenderLeft):
            asked.result(timeout=5)
    until(lambda: fake.cancelled == [fake.requests[0].id])


def test_who_joined_has_a_deadline_of_his_own(desk: Desk, fake: FakeModel, until: Until) -> None:
    fake.delay_s = 0.5
    leader = desk.ask()
    until(lambda: fake.requests)
    began = time.monotonic()
    with pytest.raises(errors.DeadlineExceeded):
        desk.ask(within_s=0.2).result()
    assert 0.2 <= time.monotonic() - began < 0.4
    assert leader.result()[1] == "miss"


@pytest.mark.parametrize(
    ("code", "raised"),
    [
        (FailureCode.POISONED, errors.Poisoned),
        (FailureCode.ENGINE, errors.EngineFailed),
        (FailureCode.STALE_CONTRACT, errors.StaleContract),
    ],
)
def test_what_is_wrong_with_the_picture_is_told_to_all_and_forgotten(
    desk: Desk, fake: FakeModel, until: Until, code: FailureCode, raised: type[Exception]
) -> None:
    fake.lose, fake.failure = 1, code  # Told when the lost request is sent again.
    asked = [desk.ask()]
    until(lambda: fake.requests)
    asked += [joined(desk, fake, until) for _ in range(3)]
    for future in asked:
        with pytest.raises(raised):
            future.result()
    assert len({request.id for request in fake.requests}) == 1
    fake.failure = None
    assert desk.ask().result()[1] == "miss"


def test_what_the_leader_adds_to_his_error_is_not_told_to_others(
    desk: Desk, fake: FakeModel, until: Until
) -> None:
    fake.lose, fake.failure = 1, FailureCode.POISONED
    leader = desk.ask()
    until(lambda: fake.requests)
    other = joined(desk, fake, until)
    [seat] = desk.sharing._bells
    error = leader.exception()
    assert isinstance(error, errors.Poisoned)
    error.detail = "Picture 3 of mine."
    with pytest.raises(errors.Poisoned):
        other.result()
    assert isinstance(seat.refusal, errors.Poisoned)
    assert seat.refusal.detail != error.detail


def test_a_failure_of_the_leaders_own_is_not_shared(
    desk: Desk, fake: FakeModel, until: Until
) -> None:
    fake.lose, fake.failure = 1, FailureCode.OVERLOADED
    asked = [desk.ask()]
    until(lambda: fake.requests)
    asked += [joined(desk, fake, until) for _ in range(3)]
    for future in asked:
        with pytest.raises(errors.Overloaded):
            future.result()
    assert len({request.id for request in fake.requests}) == 4


def test_an_interactive_request_does_not_wait_for_bulk(
    desk: Desk, fake: FakeModel, until: Until
) -> None:
    fake.delay_s = 0.5
    bulk = [desk.ask(priority="bulk")]
    until(lambda: fake.requests)
    bulk.append(joined(desk, fake, until, priority="bulk"))
    fake.delay_s = 0
    result, way = desk.ask().result()
    assert (way, [request.priority for request in fake.requests]) == (
        "miss",
        ["bulk", "interactive"],
    )
    # Who waited for bulk got the faster one's answer.
    assert bulk[1].result()[0].predictions == result.predictions
    assert not bulk[0].done()
    assert ways(*bulk) == ["joined", "miss"]


def test_a_thread_that_dies_leaves_nobody_waiting(
    desk: Desk, fake: FakeModel, until: Until
) -> None:
    class Dies(BaseException):
        pass

    def left() -> bool:
        if waiting:
            raise Dies
        return False

    fake.silent = True
    waiting: list[Future[tuple[Result, Cache]]] = []
    leader = desk.ask(left=left)
    until(lambda: fake.requests)
    fake.silent, fake.delay_s = False, 0
    waiting.append(joined(desk, fake, until))
    with pytest.raises(Dies):
        leader.result()
    assert waiting[0].result()[1] == "miss"


def test_without_a_replica_nothing_is_remembered(desk: Desk, fake: FakeModel) -> None:
    assert desk.ask().result()[1] == "miss"
    fake.replicas = ()
    with pytest.raises(errors.Unavailable):
        desk.ask(within_s=0.3).result()
    fake.replicas = ("fake-2",)
    assert desk.ask().result()[1] == "hit"


def test_without_a_broker_nothing_is_remembered(desk: Desk, fake: FakeModel) -> None:
    assert desk.ask().result()[1] == "miss"
    fake.stop()
    with pytest.raises(errors.Unavailable):
        desk.ask(within_s=0.3).result()


def test_an_outdated_contract_gets_no_answer_from_memory(desk: Desk, fake: FakeModel) -> None:
    assert desk.ask().result()[1] == "miss"
    fake.contract = replace(CONTRACT, version="2", digest="fake-contract-2")
    with pytest.raises(errors.StaleContract):
        desk.ask().result()
    fake.contract = CONTRACT  # The way back.
    assert desk.ask().result()[1] == "hit"


def test_who_joins_after_a_replacement_gets_nothing_from_before(
    desk: Desk, fake: FakeModel, until: Until
) -> None:
    fake.delay_s = 0.5
    leader = desk.ask()
    until(lambda: fake.requests)
    fake.contract = replace(CONTRACT, version="2", digest="fake-contract-2")
    with pytest.raises(errors.StaleContract):
        desk.ask().result()
    assert leader.result()[0].version == "1"


def test_closing_ends_those_who_wait(desk: Desk, fake: FakeModel, until: Until) -> None:
    fake.delay_s = 60
    asked = [desk.ask(within_s=120)]
    until(lambda: fake.requests)
    asked += [joined(desk, fake, until, within_s=120) for _ in range(3)]
    desk.client.close()
    for future in asked:
        with pytest.raises(errors.Unavailable):
            future.result(timeout=5)


@pytest.fixture
def http(client: ModelClient, decoders: DecoderPool) -> FlaskClient:
    return create_app(Config(), client, decoders).test_client()


def test_the_answer_says_how_it_was_come_by(http: FlaskClient, photo: bytes) -> None:
    fresh, again = (http.post("/api/v1/classify", data=photo) for _ in range(2))
    assert (fresh.get_json()["cache"], again.get_json()["cache"]) == ("miss", "hit")
    assert fresh.headers["Server-Timing"].endswith(", cache;desc=miss")
    assert again.headers["Server-Timing"].endswith(", cache;desc=hit")
    told = [
        {
            k: v
            for k, v in answer.get_json().items()
            if k not in ("cache", "request_id", "timing_ms")
        }
        for answer in (fresh, again)
    ]
    assert told[0] == told[1]
    assert again.get_json()["timing_ms"]["inference"] == 0
    assert again.get_json()["timing_ms"]["decode"] > 0


def test_another_file_of_the_same_pixels_is_the_same_picture(
    http: FlaskClient, photo: bytes, fake: FakeModel
) -> None:
    http.post("/api/v1/classify", data=photo)
    again = http.post("/api/v1/classify", data=photo + b"\0a comment behind its end")
    assert (again.get_json()["cache"], len(fake.requests)) == ("hit", 1)


def test_a_replaced_model_answers_at_once(http: FlaskClient, photo: bytes, fake: FakeModel) -> None:
    http.post("/api/v1/classify", data=photo)
    fake.contract = replace(CONTRACT, version="2", digest="fake-contract-2")
    answer = http.post("/api/v1/classify", data=photo).get_json()
    assert (answer["model"]["version"], answer["cache"]) == ("2", "miss")
