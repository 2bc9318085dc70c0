"""A replica's process: a DEALER towards the broker, a batcher, and an engine in its own thread.

Its life: READY with empty hands; work against credit; on SIGTERM, LEAVE, answer what it holds,
and go when the broker says RELEASE. Whatever the engine does, this thread answers every Ping.

Rules:
- READY is said only with empty hands, so credit means the same on both sides. A broker that
  asks for an introduction knows nothing of what is held here: it is forgotten first.
- Nothing heard for SILENCE_S: the broker may be a new one, so READY is said again.
- An engine that hangs cannot be helped from here: the process ends and is started anew. Time in
  which this process was stopped is not the engine's.
"""

import logging
import os
import secrets
import socket as hosts
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
import zmq
from msgspec import UNSET

from imaging import Busy, DecoderPool, ImageError
from modelserver import backend, health, inbox
from modelserver.batcher import Batcher, Item
from modelserver.bundle import Bundle
from modelserver.config import ReplicaConfig
from modelserver.engine_threads import EngineThreads, Outcome
from modelserver.engines import Engine
from modelserver.mailbox import Mailbox
from modelserver.tally import Tally
from wire import (
    MAX_PAYLOAD_BYTES,
    Alive,
    Done,
    Failed,
    FailureCode,
    Introduce,
    Leave,
    Message,
    Ping,
    Prediction,
    Ready,
    Release,
    Timing,
    WireError,
    Work,
    encode,
    log_fields,
    to_replica,
    traces,
)
from wire.keys import PeerKeys
from wire.messages import CREDIT_MAX

if TYPE_CHECKING:
    from telemetry.spans import Tracer

log = logging.getLogger("Replica")

SILENCE_S: Final = 1.5
"""Six pings of the broker."""
POLL_MS: Final = 100
AWAY_S: Final = 1.0
"""Between two turns of the loop, which are POLL_MS apart at most: this process was stopped, or
starved, as in a container that is paused."""
BATCHES_AT_HAND: Final = 1
"""Besides those in the engine, so that it never waits for the network."""
BURST: Final = 64
"""Messages read before the engine is looked after again."""
HANG_STATUS: Final = 70
"""Exit status of a replica whose engine hangs (EX_SOFTWARE)."""


class Replica:
    """Serves one engine to one broker until it is told to stop and has been released."""

    def __init__(
        self,
        config: ReplicaConfig,
        bundle: Bundle,
        engine: Engine,
        keys: PeerKeys | None = None,
        tracer: "Tracer | None" = None,
        tally: Tally | None = None,
    ) -> None:
        """``keys`` are for a broker that lets in only whom it knows. ``tracer`` is told what
        becomes of requests that are part of a trace, ``tally`` is where others read what was
        done."""
        self.name = f"{hosts.gethostname()[:32]}:{os.getpid()}:{secrets.token_hex(4)}"
        self._config = config
        self._keys = keys
        self._tracer = tracer
        self._bundle = bundle
        self._device = engine.device
        self._batcher = Batcher(engine.max_batch)
        self._parallel = engine.parallel
        credit = (engine.parallel + BATCHES_AT_HAND) * engine.max_batch
        self._credit = min(credit, CREDIT_MAX)
        self._outcomes: Mailbox[Outcome] = Mailbox()
        self._engine = EngineThreads(engine, self._outcomes)
        self._padding = engine.padding
        self._done = (tally or Tally()).begin(bundle.contract, engine)
        self._decoded: Mailbox[Item | Failed] = Mailbox()
        self._decoders = DecoderPool(1)
        self._decoding = ThreadPoolExecutor(1, thread_name_prefix="decode")
        self._in_decoder = 0
        self._heard = 0.0
        self._next_ready = 0.0
        self._introduce = True
        self._leaving = False
        self._leave_by: float | None = None
        self._released = False

    def stop(self) -> None:
        """Leave: `run` returns once everything held is answered. Safe in a signal handler."""
        self._leaving = True

    def run(self) -> None:
        """Work until released, or until the drain limit after `stop` has passed."""
        context = zmq.Context()
        self._engine.start()
        try:
            with context.socket(zmq.DEALER) as broker:
                self._connect(broker)
                self._serve(broker)
        finally:
            context.term()
            self._engine.close()
            self._decoding.shutdown()
            self._decoders.close()
            self._outcomes.close()
            self._decoded.close()
        log.info("replica %s has left", self.name)

    def _connect(self, broker: zmq.Socket[bytes]) -> None:
        broker.sndhwm = broker.rcvhwm = 2 * self._credit + 16
        broker.maxmsgsize = MAX_PAYLOAD_BYTES
        broker.linger = 1000
        backend.connect(broker, self._config.broker, self.name, self._keys)

    def _serve(self, broker: zmq.Socket[bytes]) -> None:
        poller = zmq.Poller()
        for source in (broker, self._outcomes.fileno(), self._decoded.fileno()):
            poller.register(source, zmq.POLLIN)
        now = time.monotonic()
        while not self._released:
            readable = dict(poller.poll(POLL_MS))
            before, now = now, time.monotonic()
            if now - before > AWAY_S:
                self._engine.returned(now)
            if self._outcomes.fileno() in readable:
                for outcome in self._outcomes.take():
                    self._engine.finished(outcome)
                    self._answer(broker, outcome)
                    if self._tracer is not None:
                        self._trace(self._tracer, outcome)
            if self._decoded.fileno() in readable:
                for decoded in self._decoded.take():
                    self._in_decoder -= 1
                    if isinstance(decoded, Item):
                        self._done.decode_ms.add(decoded.decode_ms)
                        self._batcher.add(decoded)
                    else:
                        self._say(broker, decoded)
            if broker in readable:
                self._hear(broker)
            self._feed_engine(broker, now)
            self._keep_in_touch(broker, now)

    # --- what the broker says -----------------------------------------------------------------

    def _hear(self, broker: zmq.Socket[bytes]) -> None:
        for frames in inbox.arrived(broker, BURST):
            try:
                message = to_replica.decode([frame.buffer for frame in frames])
            except WireError as error:
                log.warning("garbage from the broker: %s", error)
                continue
            self._heard = time.monotonic()
            match message:
                case Work():
                    self._accept(broker, message, frames[1].buffer)
                case Ping():
                    busy_s = self._engine.busy_seconds(self._heard)
                    self._say(broker, Alive(busy_ms=None if busy_s is None else busy_s * 1000))
                    if self._config.alive_file:
                        health.touch(Path(self._config.alive_file))
                case Introduce():
                    self._batcher.clear()
                    self._introduce = True
                case Release():
                    self._released = self._leaving

    def _accept(self, broker: zmq.Socket[bytes], work: Work, payload: memoryview) -> None:
        now = self._heard
        deadline = now + work.deadline_ms / 1000
        if work.encoding == "image":
            self._in_decoder += 1
            self._decoding.submit(self._decode, work, bytes(payload), deadline)
            return
        contract = self._bundle.contract
        if payload.nbytes != contract.nbytes:
            text = f"{payload.nbytes} bytes of pixels; the contract asks for {contract.nbytes}."
            self._say(broker, _failed(work, FailureCode.BAD_PAYLOAD, text))
            return
        self._batcher.add(Item(work, self._picture(payload), now, deadline))

    def _picture(
        self, pixels: bytes | memoryview
    ) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
        contract = self._bundle.contract
        return np.frombuffer(pixels, np.uint8).reshape(contract.height, contract.width, 3)

    def _decode(self, work: Work, image: bytes, deadline: float) -> None:
        """In the decoding thread: an image file to pixels, in a limited child process."""
        began = time.monotonic()
        try:
            prepared = self._decoders.prepare(
                image, self._bundle.contract, timeout_s=max(0.001, deadline - began)
            )
        except ImageError as error:
            text = f"{error.detail} {error.remedy}"
            self._decoded.put(_failed(work, FailureCode.BAD_PAYLOAD, text))
        except Busy as error:
            self._decoded.put(_failed(work, FailureCode.DEADLINE, str(error)))
        else:
            now = time.monotonic()
            pixels = self._picture(prepared.pixels)
            self._decoded.put(Item(work, pixels, now, deadline, (now - began) * 1000))

    # --- what the engine does -----------------------------------------------------------------

    def _feed_engine(self, broker: zmq.Socket[bytes], now: float) -> None:
        while self._batcher and self._engine.free:
            batch = self._batcher.take(now, self._engine.free)
            for item in batch.expired:
                text = "The deadline passed before its turn came."
                self._say(broker, _failed(item.work, FailureCode.DEADLINE, text))
            if batch.items:
                self._engine.start_batch(batch.items, now)
        if (self._engine.busy_seconds(now) or 0) * 1000 > self._config.execution_ms:
            log.critical("the engine hangs; this replica ends to be started anew")
            os._exit(HANG_STATUS)

    def _answer(self, broker: zmq.Socket[bytes], outcome: Outcome) -> None:
        inference_ms = (outcome.ended - outcome.began) * 1000
        if outcome.probabilities is None:
            self._done.busy_ms += inference_ms
            for item in outcome.items:
                self._say(broker, _failed(item.work, FailureCode.ENGINE, outcome.error))
            return
        self._done.answered(
            outcome.items,
            began=outcome.began,
            inference_ms=inference_ms,
            pad=self._padding(len(outcome.items)),
        )
        for item, probabilities in zip(outcome.items, outcome.probabilities, strict=True):
            timing = Timing(
                decode=item.decode_ms,
                batch=max(0.0, outcome.began - item.arrived) * 1000,
                inference=inference_ms,
            )
            done = Done(
                job=item.work.job,
                predictions=self._top(probabilities, item.work.top_k),
                batch_size=len(outcome.items),
                timing=timing,
            )
            if log.isEnabledFor(logging.DEBUG):
                fields = log_fields(item.work.trace, item.work.traceparent)
                log.debug("job %d (%s) is done", item.work.job, traces(item.work), extra=fields)
            self._say(broker, done)

    def _trace(self, tracer: "Tracer", outcome: Outcome) -> None:
        """A batch is through: its spans, for each request in the trace that it is part of."""
        contract = self._bundle.contract
        attributes: dict[str, str | int] = {
            "sightline.model": contract.model,
            "sightline.model.version": contract.version,
            "sightline.batch_size": len(outcome.items),
            "sightline.device": self._device,
            "sightline.replica": self.name,
        }
        failed = outcome.probabilities is None
        failure = (FailureCode.ENGINE.value, outcome.error) if failed else None
        for item in outcome.items:
            if item.work.traceparent is UNSET:
                continue
            steps = {
                "batch wait": (item.arrived, max(item.arrived, outcome.began)),
                "inference": (outcome.began, outcome.ended),
            }
            for name, (since, until) in steps.items():
                tracer.record(
                    name,
                    item.work.traceparent,
                    since=since,
                    until=until,
                    kind="consumer",
                    attributes={"sightline.request_id": item.work.trace, **attributes},
                    failure=failure if name == "inference" else None,
                )

    def _top(
        self, probabilities: np.ndarray[tuple[int, ...], np.dtype[np.float32]], k: int
    ) -> tuple[Prediction, ...]:
        """The ``k`` most probable classes, best first; equal ones in class order."""
        labels = self._bundle.labels
        best = np.argsort(-probabilities, kind="stable")[:k]
        return tuple(
            Prediction(labels[i].name, labels[i].wnid, i, min(1.0, float(probabilities[i])))
            for i in best.tolist()
        )

    # --- the tie to the broker ----------------------------------------------------------------

    def _keep_in_touch(self, broker: zmq.Socket[bytes], now: float) -> None:
        hands_empty = not (self._engine.busy or self._batcher or self._in_decoder)
        silent = now - self._heard > SILENCE_S
        if self._leaving:
            if self._leave_by is None:
                self._leave_by = now + self._config.drain_ms / 1000
                self._say(broker, Leave())
            elif now > self._leave_by or (hands_empty and silent):
                self._released = True
        elif hands_empty and (self._introduce or silent) and now >= self._next_ready:
            self._next_ready = now + SILENCE_S
            self._introduce = False
            ready = Ready(
                replica=self.name,
                contract=self._bundle.contract,
                credit=self._credit,
                device=self._device,
                parallel=self._parallel,
            )
            self._say(broker, ready)

    def _say(self, broker: zmq.Socket[bytes], message: Message) -> None:
        if isinstance(message, Failed):
            self._done.failures[message.code] += 1
        try:
            broker.send(encode(message), zmq.DONTWAIT)
        except zmq.Again:
            # There is no broker. Whoever waits for this answer asks the next one again.
            log.debug("nobody to take %s", type(message).__name__)


def _failed(work: Work, code: FailureCode, message: str) -> Failed:
    fields = log_fields(work.trace, work.traceparent)
    log.info("job %d (%s) failed as %s: %s", work.job, traces(work), code, message, extra=fields)
    return Failed(job=work.job, code=code, message=message)
