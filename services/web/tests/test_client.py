"""ModelClient: every call ends in time, with the right answer or the right exception."""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
from msgspec import UNSET
from msgspec.structs import replace

from webapp import errors
from webapp.client import INQUIRE_S, USUAL_OF, ModelClient
from webapp.terms import Terms
from webapp.testing import CONTRACT, FakeModel, predictions
from wire import FailureCode

Until = Callable[[Callable[[], object]], None]

PIXELS = bytes(range(256)) * (CONTRACT.nbytes // 256)


def soon(seconds: float = 5.0) -> float:
    return time.monotonic() + seconds


def test_a_picture_gets_its_classes(client: ModelClient) -> None:
    result = client.classify(PIXELS, CONTRACT, Terms(deadline=soon(), top_k=3))
    assert result.predictions == predictions(PIXELS)[:3]
    assert (result.model, result.version, result.replica) == ("fake", "1", "fake-1")


def test_a_request_says_what_it_is_for(client: ModelClient, fake: FakeModel) -> None:
    client.classify(PIXELS, CONTRACT, Terms(deadline=soon(3.0), top_k=7, trace="abc"))
    [request] = fake.requests
    assert (request.priority, request.traceparent) == ("interactive", UNSET)
    assert (request.model, request.digest) == (CONTRACT.model, CONTRACT.digest)
    assert (request.top_k, request.trace, request.encoding) == (7, "abc", "pixels")
    assert 2000 < request.deadline_ms < 3000


def test_threads_get_their_own_answers(client: ModelClient) -> None:
    def ask(n: int) -> bool:
        pixels = bytes([n]) * CONTRACT.nbytes
        result = client.classify(pixels, CONTRACT, Terms(deadline=soon()))
        return result.predictions == predictions(pixels)[:5]

    with ThreadPoolExecutor(16) as threads:
        assert all(threads.map(ask, range(200)))


@pytest.mark.parametrize("patience_s", [0.2, 0.7])
def test_silence_ends_at_the_deadline(
    client: ModelClient, fake: FakeModel, patience_s: float
) -> None:
    fake.silent = True
    began = time.monotonic()
    with pytest.raises(errors.Unavailable) as caught:
        client.classify(PIXELS, CONTRACT, Terms(deadline=began + patience_s))
    assert patience_s <= time.monotonic() - began < patience_s + 0.1
    assert caught.value.retry_after_s


def test_a_broker_that_is_not_there_ends_at_the_deadline(fake: FakeModel) -> None:
    fake.stop()
    client = ModelClient(fake.endpoint)
    began = time.monotonic()
    with pytest.raises(errors.Unavailable):
        client.contract(deadline=began + 0.3)
    assert time.monotonic() - began < 0.4
    client.close()


def test_a_lost_request_is_sent_again_with_its_id_and_what_time_is_left(
    client: ModelClient, fake: FakeModel
) -> None:
    fake.lose = 2
    result = client.classify(PIXELS, CONTRACT, Terms(deadline=soon()))
    assert result.predictions == predictions(PIXELS)[:5]
    assert len(fake.requests) == 3
    assert len({request.id for request in fake.requests}) == 1
    budgets = [request.deadline_ms for request in fake.requests]
    assert budgets[0] - budgets[2] >= 2 * INQUIRE_S * 1000


def test_a_slow_request_is_asked_after_but_sent_once(client: ModelClient, fake: FakeModel) -> None:
    fake.delay_s = 2.5 * INQUIRE_S
    client.classify(PIXELS, CONTRACT, Terms(deadline=soon()))
    assert len(fake.requests) == 1
    assert fake.inquiries == [fake.requests[0].id] * 2


def test_where_answers_take_long_they_are_asked_after_later(
    client: ModelClient, fake: FakeModel
) -> None:
    fake.delay_s = 1.6 * INQUIRE_S
    crowd = 2 * USUAL_OF

    def ask(_: int) -> None:
        client.classify(PIXELS, CONTRACT, Terms(deadline=soon()))

    with ThreadPoolExecutor(crowd) as threads:
        list(threads.map(ask, range(crowd)))
        assert len(fake.inquiries) == crowd
        list(threads.map(ask, range(crowd)))
    assert len(fake.inquiries) == crowd


def test_a_restarted_broker_gets_the_request_again(
    client: ModelClient, fake: FakeModel, until: Until
) -> None:
    fake.silent = True
    with ThreadPoolExecutor(1) as threads:
        waiting = threads.submit(client.classify, PIXELS, CONTRACT, Terms(soon(10)))
        until(lambda: fake.requests)
        fake.stop()
        with FakeModel(endpoint=fake.endpoint) as successor:
            assert waiting.result().predictions == predictions(PIXELS)[:5]
            assert successor.requests[0].id == fake.requests[0].id


def test_a_request_nobody_waits_for_is_cancelled(
    client: ModelClient, fake: FakeModel, until: Until
) -> None:
    fake.silent = True
    with pytest.raises(errors.Unavailable):
        client.classify(PIXELS, CONTRACT, Terms(deadline=soon(0.1)))
    until(lambda: fake.cancelled == [fake.requests[0].id])


def test_an_answer_to_another_question_is_dropped(client: ModelClient, fake: FakeModel) -> None:
    fake.copies = 2
    client.classify(PIXELS, CONTRACT, Terms(deadline=soon()))
    other = bytes(CONTRACT.nbytes)
    result = client.classify(other, CONTRACT, Terms(deadline=soon()))
    assert result.predictions == predictions(other)[:5]
    assert client.dropped == 1


def test_a_late_answer_harms_nothing(client: ModelClient, fake: FakeModel) -> None:
    fake.silent = True
    with pytest.raises(errors.Unavailable):
        client.classify(PIXELS, CONTRACT, Terms(deadline=soon(0.1)))
    fake.silent = False
    other = bytes(CONTRACT.nbytes)
    result = client.classify(other, CONTRACT, Terms(deadline=soon()))
    assert result.predictions == predictions(other)[:5]


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        (FailureCode.OVERLOADED, errors.Overloaded),
        (FailureCode.UNAVAILABLE, errors.Unavailable),
        (FailureCode.DEADLINE, errors.DeadlineExceeded),
        (FailureCode.STALE_CONTRACT, errors.StaleContract),
        (FailureCode.UNKNOWN_MODEL, errors.UnknownModel),
        (FailureCode.BAD_PAYLOAD, errors.ProtocolError),
        (FailureCode.POISONED, errors.Poisoned),
        (FailureCode.ENGINE, errors.EngineFailed),
    ],
)
def test_a_failure_raises_what_it_means(
    client: ModelClient, fake: FakeModel, code: FailureCode, expected: type[errors.ModelError]
) -> None:
    fake.failure = code
    fake.retry_after_ms = 2_300
    with pytest.raises(expected) as caught:
        client.classify(PIXELS, CONTRACT, Terms(deadline=soon()))
    assert type(caught.value) is expected
    assert caught.value.retry_after_s == 3


def test_the_brokers_word_on_a_missed_deadline_arrives_in_time(
    client: ModelClient, fake: FakeModel
) -> None:
    fake.delay_s = 60
    began = time.monotonic()
    with pytest.raises(errors.DeadlineExceeded):
        client.classify(PIXELS, CONTRACT, Terms(deadline=began + 0.4))
    assert time.monotonic() - began < 0.4


def test_the_contract_is_asked_for_once_and_again_when_forgotten(
    client: ModelClient, fake: FakeModel
) -> None:
    assert client.contract(deadline=soon()) == CONTRACT
    newer = replace(CONTRACT, version="2", digest="fake-contract-2")
    fake.contract = newer
    assert client.contract(deadline=soon()) == CONTRACT
    client.forget(CONTRACT)
    assert client.contract(deadline=soon()) == newer
    assert client.contract("fake", deadline=soon()) == newer


def test_a_model_that_is_not_served_is_unknown(client: ModelClient) -> None:
    with pytest.raises(errors.UnknownModel, match="resnet50"):
        client.contract("resnet50", deadline=soon())


def test_the_first_model_is_waited_for(client: ModelClient, fake: FakeModel, until: Until) -> None:
    fake.contract = None
    with ThreadPoolExecutor(1) as threads:
        waiting = threads.submit(client.contract, deadline=soon())
        until(lambda: fake.descriptions >= 2)
        fake.contract = CONTRACT
        assert waiting.result() == CONTRACT


def test_no_model_at_all_is_unavailable_at_the_deadline(
    client: ModelClient, fake: FakeModel
) -> None:
    fake.contract = None
    began = time.monotonic()
    with pytest.raises(errors.Unavailable):
        client.contract(deadline=began + 0.3)
    assert time.monotonic() - began < 0.4


def test_closing_ends_the_calls_under_way(fake: FakeModel, until: Until) -> None:
    client = ModelClient(fake.endpoint)
    fake.silent = True
    with ThreadPoolExecutor(1) as threads:
        waiting = threads.submit(client.classify, PIXELS, CONTRACT, Terms(soon(60)))
        until(lambda: fake.requests)
        client.close()
        with pytest.raises(errors.Unavailable):
            waiting.result()
    with pytest.raises(errors.Unavailable):
        client.catalogue(deadline=soon())
