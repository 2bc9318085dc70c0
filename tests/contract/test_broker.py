"""What `ModelClient` relies on, asked of the real broker and of the FakeModel in its place.

A stand-in that differed from the real thing would make every test of the web tier worthless, so
both have to pass the same tests.
"""

import time
import zlib
from collections.abc import Callable, Iterator

import msgspec
import pytest

import wire
from tests.conftest import Processes, Service, eventually
from webapp.client import ModelClient
from webapp.errors import DeadlineExceeded, StaleContract, Unavailable, UnknownModel
from webapp.terms import Terms
from webapp.testing import FakeModel


class Subject:
    """A broker with one model behind it, and a client of it."""

    def __init__(
        self, client: ModelClient, slow: Callable[[], None], bereave: Callable[[], None]
    ) -> None:
        self.client = client
        self.slow = slow
        """From now on an answer takes longer than half a second."""
        self.bereave = bereave
        """From now on no replica is alive."""
        self.contract = client.contract(deadline=soon(20))

    def ask(self, pixels: bytes, *, within_s: float = 5.0, top_k: int = 5) -> wire.Result:
        return self.client.classify(
            pixels, self.contract, Terms(deadline=soon(within_s), top_k=top_k)
        )


def soon(seconds: float) -> float:
    return time.monotonic() + seconds


def real(processes: Processes) -> Iterator[Subject]:
    service = Service(processes, MODEL_ENGINE="simulated", MODEL_SIMULATED_BASE_MS="0")
    service.start_broker()
    name, _process = service.start_replica()
    client = ModelClient(service.frontend)
    running = [name]

    def slow() -> None:
        new, _process = service.start_replica(MODEL_SIMULATED_BASE_MS="700")
        eventually(lambda: len(replicas()) == 2)
        bereave()
        running.append(new)

    def bereave() -> None:
        processes.stop(running.pop())

    def replicas() -> tuple[str, ...]:
        models = client.catalogue(deadline=soon(2)).models
        return models[0].replicas if models else ()

    yield Subject(client, slow, bereave)
    client.close()


def fake() -> Iterator[Subject]:
    with FakeModel() as model:
        client = ModelClient(model.endpoint)
        yield Subject(
            client,
            slow=lambda: setattr(model, "delay_s", 0.7),
            bereave=lambda: setattr(model, "replicas", ()),
        )
        client.close()


@pytest.fixture(params=["real", "fake"])
def subject(request: pytest.FixtureRequest, processes: Processes) -> Iterator[Subject]:
    yield from real(processes) if request.param == "real" else fake()


def pixels(subject: Subject, colour: int) -> bytes:
    return bytes([colour]) * subject.contract.nbytes


def test_every_picture_gets_the_answer_that_is_its_own(subject: Subject) -> None:
    for colour in range(10):
        picture = pixels(subject, colour)
        result = subject.ask(picture)
        assert result.predictions[0].class_index == zlib.crc32(picture) % 1000


def test_as_many_classes_as_asked_for_the_most_probable_first(subject: Subject) -> None:
    for top_k in (1, 3, 100):
        result = subject.ask(pixels(subject, 1), top_k=top_k)
        probabilities = [p.probability for p in result.predictions]
        assert len(probabilities) == top_k
        assert probabilities == sorted(probabilities, reverse=True)


def test_a_result_says_who_made_it_and_how(subject: Subject) -> None:
    result = subject.ask(pixels(subject, 2))
    assert (result.model, result.version) == (subject.contract.model, subject.contract.version)
    assert (result.attempt, result.batch_size) == (1, 1)
    [served] = subject.client.catalogue(deadline=soon(2)).models
    assert served.contract == subject.contract
    assert result.replica in served.replicas


def test_pixels_for_another_contract_are_stale(subject: Subject) -> None:
    subject.contract = msgspec.structs.replace(subject.contract, digest="another-digest")
    with pytest.raises(StaleContract):
        subject.ask(pixels(subject, 3))


def test_a_deadline_is_kept(subject: Subject) -> None:
    subject.slow()
    began = time.monotonic()
    with pytest.raises(DeadlineExceeded):
        subject.ask(pixels(subject, 4), within_s=0.4)
    assert time.monotonic() - began < 0.6


def test_a_slow_answer_arrives_and_its_request_is_not_sent_twice(subject: Subject) -> None:
    subject.slow()
    dropped = subject.client.dropped
    result = subject.ask(pixels(subject, 5), within_s=5)
    assert result.attempt == 1
    assert subject.client.dropped == dropped


def test_without_a_replica_a_request_fails_at_its_deadline_as_unavailable(
    subject: Subject,
) -> None:
    subject.bereave()
    [served] = subject.client.catalogue(deadline=soon(2)).models
    assert (served.contract, served.replicas) == (subject.contract, ())
    began = time.monotonic()
    with pytest.raises(Unavailable):
        subject.ask(pixels(subject, 6), within_s=0.5)
    assert 0.3 < time.monotonic() - began < 0.8


def test_an_unknown_model_is_named(subject: Subject) -> None:
    with pytest.raises(UnknownModel, match="cats"):
        subject.client.contract("cats", deadline=soon(2))


def test_a_status_names_the_model_and_who_serves_it(subject: Subject) -> None:
    before = subject.client.status(deadline=soon(2)).counts.get("accepted", 0)
    result = subject.ask(pixels(subject, 7))
    status = subject.client.status(deadline=soon(2))
    [model], [replica] = status.models, status.replicas
    assert (model.name, model.version) == (result.model, result.version)
    assert (replica.name, replica.model, replica.held) == (result.replica, result.model, 0)
    assert status.counts["accepted"] == before + 1
