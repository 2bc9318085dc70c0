"""The life of one picture in the web tier: its file in, its classes out, by one deadline.

Rules:
- What is no picture at all is refused before anyone else is asked.
- The contract comes first, then the pixels that fit it, then the broker's answer; all of it,
  repetitions included, within the same deadline.
- A contract that turns out to be outdated costs a second preparation and no error.
- Pixels that were asked about before, or are being asked about, are not asked about again.
- The bytes are decoded in the child processes only, never here.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final, TypeVar

import msgspec

from imaging import DecoderPool, Facts, Prepared
from imaging.formats import admit
from webapp.client import ModelClient
from webapp.config import Config
from webapp.errors import (
    BadRequest,
    Overloaded,
    StaleContract,
    Unavailable,
    UnknownModel,
    WebError,
)
from webapp.metrics import Metrics
from webapp.sharing import Cache, Sharing
from webapp.terms import Terms
from wire import Contract, Result, Served
from wire.codec import Buffer

if TYPE_CHECKING:
    from telemetry.spans import Tracer

Done = TypeVar("Done")

PREPARATIONS: Final = 3
"""Models are replaced one at a time: a contract that is outdated three times in a row means
replicas of two versions that take turns, which no repeating will mend."""


class TimingMs(msgspec.Struct, frozen=True, kw_only=True):
    """Where the time went, in milliseconds; what is not named is the way between the parts. Of a
    shared answer nothing but `decode` was spent on this request; its `total` has the waiting."""

    decode: float
    """In the web tier, waiting for a decoder included."""
    queue: float
    """In the broker."""
    batch: float
    """In the replica, until the batch began."""
    inference: float
    """In the engine."""
    total: float
    """From the last byte of the upload to the broker's answer."""


class Classified(msgspec.Struct, frozen=True, kw_only=True):
    """A result together with what became of the picture on the way there."""

    result: Result
    picture: Prepared
    cache: Cache
    timing_ms: TimingMs


class Inspection(msgspec.Struct, frozen=True, kw_only=True):
    """A picture, and what it becomes for a model that does not see it."""

    picture: Prepared
    facts: Facts
    contract: Contract


class WrongSize(BadRequest):
    """Pixels of another size than the model wants, unless it is another model by now."""


class Classifier:
    """Puts the decoders and the broker together, for all threads of a process."""

    def __init__(
        self,
        config: Config,
        client: ModelClient,
        decoders: DecoderPool,
        metrics: Metrics,
        tracer: "Tracer | None" = None,
    ) -> None:
        self._config = config
        self._tracer = tracer
        self._client = client
        self._metrics = metrics
        self.sharing = Sharing(client, config.cache_bytes, metrics.shared)
        self._decoders = decoders

    def start(self) -> None:
        """Starts the decoders, which otherwise the first picture would wait for."""
        self._decoders.start()

    def close(self) -> None:
        """Ends what is under way and frees all processes, sockets and threads."""
        self._client.close()
        self._decoders.close()

    def deadline(self, began: float, deadline_ms: int = 600_000) -> float:
        """By when what ``began`` then has to be answered, both of ``time.monotonic()``: within
        ``deadline_ms``, but never more than the setting of that name."""
        return began + min(self._config.deadline_ms, deadline_ms) / 1000

    def classify(
        self, file: bytes, terms: Terms, *, began: float, model: str = "", preview: bool = False
    ) -> Classified:
        """The classes of the picture in ``file``, by ``model`` or the default one.

        The time that is told counts from ``began``, of ``time.monotonic()``.

        Raises:
            ImageError: The file is no picture that can be used.
            Busy: The decoders have too much to do.
            ModelError: There is no result from the model.
            SenderLeft: ``terms.left`` said that nobody waits for it.
        """
        with self._counted():
            return self._classify(file, terms, began, model, preview)

    def _classify(
        self, file: bytes, terms: Terms, began: float, model: str, preview: bool
    ) -> Classified:
        admit(file)
        decode_s = 0.0

        def attempt(contract: Contract) -> Classified:
            nonlocal decode_s
            decoding = time.monotonic()
            picture = self._prepared(file, contract, terms, preview=preview, now=decoding)
            spent_s = time.monotonic() - decoding
            self._metrics.decoded(spent_s)
            decode_s += spent_s
            result, cache = self._asked(picture.pixels, contract, terms)
            return Classified(
                result=result,
                picture=picture,
                cache=cache,
                timing_ms=TimingMs(
                    decode=round(decode_s * 1000, 3),
                    queue=round(result.timing.queue, 3),
                    batch=round(result.timing.batch, 3),
                    inference=round(result.timing.inference, 3),
                    total=round((time.monotonic() - began) * 1000, 3),
                ),
            )

        return self._with_contract(model, terms, attempt)

    def classify_pixels(
        self, pixels: Buffer, terms: Terms, *, height: int, width: int, model: str = ""
    ) -> Result:
        """The same for who has done by itself what the model's contract asks for.

        ``pixels`` are ``height`` x ``width`` x 3 bytes, RGB, rows first.

        Raises:
            BadRequest: The model wants another size.
            ModelError: There is no result from the model.
            SenderLeft: ``terms.left`` said that nobody waits for it.
        """

        def attempt(contract: Contract) -> Result:
            if (contract.height, contract.width) != (height, width):
                raise WrongSize(
                    f"The pictures are {width} x {height} pixels.",
                    f"Version {contract.version} of {contract.model} takes {contract.width} x "
                    f"{contract.height}.",
                )
            result, _ = self._asked(pixels, contract, terms)
            return result

        with self._counted():
            return self._with_contract(model, terms, attempt)

    @contextmanager
    def _counted(self) -> Iterator[None]:
        """The block is what becomes of one picture."""
        try:
            yield
        except Exception as error:
            self._metrics.failed(error)
            raise
        self._metrics.classified()

    def _prepared(
        self, file: bytes, contract: Contract, terms: Terms, *, preview: bool, now: float
    ) -> Prepared:
        timeout_s = max(0.0, terms.deadline - now)
        if self._tracer is None:
            return self._decoders.prepare(file, contract, preview=preview, timeout_s=timeout_s)
        with self._tracer.span("decode", terms.traceparent) as span:
            picture = self._decoders.prepare(file, contract, preview=preview, timeout_s=timeout_s)
            span.tell({"sightline.format": picture.format, "sightline.file_bytes": len(file)})
            return picture

    def _asked(self, pixels: Buffer, contract: Contract, terms: Terms) -> tuple[Result, Cache]:
        if self._tracer is None:
            return self.sharing.classify(pixels, contract, terms)
        attributes = {
            "sightline.model": contract.model,
            "sightline.model.version": contract.version,
            "sightline.priority": terms.priority,
            "sightline.request_id": terms.trace,
        }
        with self._tracer.span(
            "classify", terms.traceparent, kind="client", attributes=attributes
        ) as span:
            terms = terms._replace(traceparent=span.traceparent)
            result, cache = self.sharing.classify(pixels, contract, terms)
            span.tell({"sightline.cache": cache, "sightline.attempt": result.attempt})
            return result, cache

    def _with_contract(self, model: str, terms: Terms, attempt: Callable[[Contract], Done]) -> Done:
        """What ``attempt`` makes of the model's contract; again, if that is of another time."""
        if time.monotonic() >= terms.deadline:
            raise Overloaded("It waited too long for its turn.")
        outdated: WebError
        for _ in range(PREPARATIONS):
            contract = self._client.contract(model or self._config.model, deadline=terms.deadline)
            try:
                return attempt(contract)
            except (StaleContract, UnknownModel, WrongSize) as error:
                self._client.forget(contract)
                outdated = error
            except Unavailable:
                # Perhaps for good: who names no model has another one next time, if there is one.
                self._client.forget(contract)
                raise
        raise outdated

    def inspect(self, file: bytes, *, began: float, model: str = "") -> Inspection:
        """What the picture in ``file`` is, and becomes for a model, without a look at it.

        Raises:
            ImageError: The file is no picture that can be used.
            Busy: The decoders have too much to do.
            ModelError: The broker did not answer, or there is no such model.
        """
        admit(file)
        deadline = self.deadline(began)
        contract = self._client.contract(model or self._config.model, deadline=deadline)
        timeout_s = max(0.0, deadline - time.monotonic())
        picture = self._decoders.prepare(file, contract, facts=True, timeout_s=timeout_s)
        if picture.facts is None:
            raise TypeError("a decoder gave a picture without its facts")
        return Inspection(picture=picture, facts=picture.facts, contract=contract)

    def models(self, *, deadline: float) -> tuple[Served, ...]:
        """What the broker knows, by ``deadline`` of ``time.monotonic()``.

        Raises:
            Unavailable: The broker did not answer.
        """
        return self._client.catalogue(deadline=deadline).models

    def replicas(self, *, deadline: float) -> tuple[str, ...]:
        """The default model's replicas that are alive, by ``deadline`` of ``time.monotonic()``.

        Raises:
            Unavailable: There is none, or the broker did not answer.
        """
        for served in self.models(deadline=deadline):
            if served.replicas and self._config.model in ("", served.contract.model):
                return served.replicas
        raise Unavailable(f"No replica of {self._config.model or 'any model'} is alive.")
