"""A broker with one model behind it, in a thread, for tests and for work on pages.

Rules:
- It speaks the protocol over real TCP, and to a client it differs from the broker only in how
  it can be told to misbehave. What it promises beyond that nobody may rely on.
- Its answers follow from the bytes of the picture alone.
- A start is confirmed: whoever has the object can connect. A stop is joined, within a limit.
"""

import threading
import time
import zlib
from types import TracebackType
from typing import Final, NamedTuple, Self

import zmq
from msgspec import UNSET, UnsetType

from wire import (
    Cancel,
    Catalogue,
    Contract,
    Describe,
    Distribution,
    Failure,
    FailureCode,
    FromClient,
    Inquire,
    ModelStatus,
    Observe,
    Prediction,
    ReplicaStatus,
    Request,
    Result,
    ScaleAdvice,
    Served,
    Status,
    Timing,
    ToClient,
    Unknown,
    WireError,
    encode,
    from_client,
)
from wire.codec import MAX_PAYLOAD_BYTES

CONTRACT: Final = Contract(
    model="fake",
    version="1",
    digest="fake-contract-1",
    width=32,
    height=32,
    crop=0.875,
    filter="bicubic",
    classes=1000,
)
TICK_MS: Final = 5
STOP_S: Final = 5.0


def predictions(pixels: bytes, contract: Contract = CONTRACT) -> tuple[Prediction, ...]:
    """What a FakeModel sees in ``pixels``: every class once, at most 100, each half as likely
    as the one before, beginning with the one that the checksum of the bytes names.
    """
    first = zlib.crc32(pixels)
    return tuple(
        Prediction(
            label=f"class {index}",
            wnid=f"n{index:08}",
            class_index=index,
            probability=0.5 ** (rank + 1),
        )
        for rank in range(min(contract.classes, 100))
        for index in [(first + rank) % contract.classes]
    )


class _Later(NamedTuple):
    """An answer and when it is given."""

    due: float
    client: bytes
    message: Result | Failure


class FakeModel:
    """Listens on a random loopback port from construction until `stop`.

    All attributes may be set at any time and count for what arrives from then on.
    """

    def __init__(self, contract: Contract = CONTRACT, *, endpoint: str = "") -> None:
        """``endpoint`` is for taking the place of an earlier one at the same address."""
        self.contract: Contract | None = contract
        """Requests made for another digest are stale. None: no replica has come yet."""
        self.replicas: tuple[str, ...] = ("fake-1",)
        """With none, requests fail as unavailable at their deadline."""
        self.silent = False
        """Hears everything and says nothing."""
        self.lose = 0
        """So many requests to come vanish without a trace, as if they had never been sent."""
        self.advice: ScaleAdvice | UnsetType = UNSET
        """What the status says about how many replicas it takes."""
        self.failure: FailureCode | None = None
        """What every request fails with, at once."""
        self.retry_after_ms: int | None = None
        """Goes with ``failure``."""
        self.delay_s = 0.0
        """How long a request takes; past its deadline it fails."""
        self.copies = 1
        """How often each request is answered; the laws say once."""
        self.requests: list[Request] = []
        """Every request that arrived, the lost ones too."""
        self.inquiries: list[str] = []
        """The ids that clients asked after."""
        self.cancelled: list[str] = []
        """The ids that clients do not wait for any longer."""
        self.descriptions = 0
        """How often clients asked what is served."""
        self.observations = 0
        """How often clients asked what is going on."""
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._router = self._context.socket(zmq.ROUTER)
        self._router.linger = 0
        self._router.maxmsgsize = MAX_PAYLOAD_BYTES
        self._router.bind(endpoint or "tcp://127.0.0.1:*")
        self.endpoint = self._router.getsockopt_string(zmq.LAST_ENDPOINT).rstrip("\0")
        """Where a client finds it."""
        self._later: list[_Later] = []
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="FakeModel", daemon=True)
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """Ends the thread and frees the port.

        Raises:
            TimeoutError: The thread did not end within STOP_S.
        """
        self._stopping.set()
        self._thread.join(STOP_S)
        if self._thread.is_alive():
            raise TimeoutError("FakeModel does not stop")

    def _run(self) -> None:
        with self._context, self._router:
            while not self._stopping.is_set():
                if self._router.poll(TICK_MS):
                    client, *frames = self._router.recv_multipart()
                    self._hear(client, frames)
                for answer in [later for later in self._later if later.due <= time.monotonic()]:
                    self._later.remove(answer)
                    self._say(answer.client, answer.message)

    def _hear(self, client: bytes, frames: list[bytes]) -> None:
        try:
            message = from_client.decode(frames)
        except WireError:
            return
        self._note(message)
        if self.silent:
            return
        match message:
            case Request():
                self._consider(client, message, frames[1])
            case Inquire(id=asked):
                if all(later.message.id != asked for later in self._later):
                    self._say(client, Unknown(id=asked))
            case Describe(id=asked):
                self._say(client, Catalogue(id=asked, models=self._models()))
            case Observe(id=asked):
                self._say(client, self._status(asked))
            case Cancel(id=unwanted):
                self._later = [later for later in self._later if later.message.id != unwanted]

    def _note(self, message: FromClient) -> None:
        match message:
            case Request():
                self.requests.append(message)
            case Inquire(id=asked):
                self.inquiries.append(asked)
            case Cancel(id=unwanted):
                self.cancelled.append(unwanted)
            case Describe():
                self.descriptions += 1
            case Observe():
                self.observations += 1

    def _consider(self, client: bytes, request: Request, payload: bytes) -> None:
        if self.lose:
            self.lose -= 1
            return
        delay_s, answer = self._answer(request, payload)
        later = _Later(time.monotonic() + delay_s, client, answer)
        self._later.extend([later] * self.copies)

    def _answer(self, request: Request, payload: bytes) -> tuple[float, Result | Failure]:
        """What ``request`` is told, and after how many seconds."""
        served = [model.contract for model in self._models()]
        if self.failure is not None:
            return 0.0, self._failure(request, self.failure)
        if request.model not in [contract.model for contract in served]:
            return 0.0, self._failure(request, FailureCode.UNKNOWN_MODEL)
        [contract] = served
        if request.encoding == "pixels" and request.digest != contract.digest:
            return 0.0, self._failure(request, FailureCode.STALE_CONTRACT)
        if request.encoding == "pixels" and len(payload) != contract.nbytes:
            return 0.0, self._failure(request, FailureCode.BAD_PAYLOAD)
        patience_s = request.deadline_ms / 1000
        if not self.replicas:
            return patience_s, self._failure(request, FailureCode.UNAVAILABLE)
        if self.delay_s > patience_s:
            return patience_s, self._failure(request, FailureCode.DEADLINE)
        return self.delay_s, Result(
            id=request.id,
            model=contract.model,
            version=contract.version,
            predictions=predictions(payload, contract)[: request.top_k],
            replica=self.replicas[0],
            attempt=1,
            batch_size=1,
            timing=Timing(queue=self.delay_s * 1000),
        )

    def _failure(self, request: Request, code: FailureCode) -> Failure:
        return Failure(
            id=request.id,
            code=code,
            message=f"The fake model says {code}.",
            retry_after_ms=self.retry_after_ms,
        )

    def _models(self) -> tuple[Served, ...]:
        if self.contract is None:
            return ()
        return (Served(contract=self.contract, replicas=self.replicas),)

    def _status(self, request_id: str) -> Status:
        nothing = Distribution(bounds=(), counts=(0,), total=0.0)
        models = tuple(
            ModelStatus(
                name=served.contract.model,
                version=served.contract.version,
                queued=len(self._later),
                queued_bytes=0,
                oldest_ms=0.0,
                per_second=None,
                waited_ms=nothing,
                answered_ms=nothing,
                batch_sizes=nothing,
                scale=self.advice,
            )
            for served in self._models()
        )
        replicas = tuple(
            ReplicaStatus(
                name=name,
                model=served.contract.model,
                version=served.contract.version,
                device="fake",
                parallel=1,
                credit=1,
                held=0,
                leaving=False,
                busy_ms=None,
                done=0,
                batches=0,
                worked_ms=0.0,
            )
            for served in self._models()
            for name in served.replicas
        )
        counts = {"accepted": len(self.requests)}
        return Status(id=request_id, uptime_ms=0.0, counts=counts, models=models, replicas=replicas)

    def _say(self, client: bytes, message: ToClient) -> None:
        self._router.send_multipart((client, encode(message)), zmq.DONTWAIT)
