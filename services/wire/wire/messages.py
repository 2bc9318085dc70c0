"""Everything that a client, the broker and a replica can say to each other.

Rules:
- A message is a frozen, validated value. What cannot be built cannot be sent.
- Times are budgets in milliseconds counted from the moment of sending, never points in
  time: the clocks of two machines do not agree.
- The bytes of a picture travel beside a message, in a frame of their own (see `codec`).
- Who may say what to whom are the four unions at the end of the file.
"""

from enum import StrEnum
from typing import Annotated, Final, Literal

import msgspec

from wire.contract import Contract

RequestId = Annotated[str, msgspec.Meta(min_length=1, max_length=64)]
Budget = Annotated[int, msgspec.Meta(ge=1, le=600_000)]
Millis = Annotated[float, msgspec.Meta(ge=0)]
Count = Annotated[int, msgspec.Meta(ge=0)]
Name = Annotated[str, msgspec.Meta(min_length=1, max_length=64)]
JOB_ID_MAX: Final = 2**63 - 1
CREDIT_MAX: Final = 4096
"""No replica has more requests at a time."""
JobId = Annotated[int, msgspec.Meta(ge=0, le=JOB_ID_MAX)]
Gpu = Annotated[str, msgspec.Meta(min_length=1, max_length=64)]
"""The UUID of a GPU as its driver gives it, such as GPU-5a1b...; no two in the world are alike."""

Encoding = Literal["pixels", "image"]
"""What the payload is: pixels made for the contract, or an image file as it was uploaded."""
Priority = Literal["interactive", "bulk"]
Traceparent = Annotated[str, msgspec.Meta(max_length=55)] | msgspec.UnsetType
"""What a distributed trace calls the request (W3C Trace Context, 3.2). Unset it takes no bytes, so
that a message without one is what it was before there were any."""


class Message(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag=str.lower):
    """The base of all messages; on the wire the field ``type`` tells them apart."""


class FailureCode(StrEnum):
    """Why a request got no result, by what its sender can do about it."""

    OVERLOADED = "overloaded"
    """Too much waits already. Try again after ``retry_after_ms``."""
    UNAVAILABLE = "unavailable"
    """No replica of the model was alive until the deadline. Try again later."""
    DEADLINE = "deadline"
    """Replicas are alive, but none finished in time. Ask with more time."""
    STALE_CONTRACT = "stale_contract"
    """The pixels were made for another version. Ask for the contract and prepare again."""
    UNKNOWN_MODEL = "unknown_model"
    """No replica serves a model of that name."""
    BAD_PAYLOAD = "bad_payload"
    """The payload is not what the request says it is. Trying again will not help."""
    POISONED = "poisoned"
    """Two replicas died of this request. It must not be sent again."""
    ENGINE = "engine"
    """The engine failed on this batch; the replica lives."""


# --- client -> broker -------------------------------------------------------------------------


class Request(Message, frozen=True):
    """Classify the payload. Answered by exactly one Result or Failure with the same id."""

    id: RequestId
    model: Name
    digest: Annotated[str, msgspec.Meta(max_length=64)]
    """The digest of the contract that pixels were made for; empty for ``encoding=image``."""
    deadline_ms: Budget
    top_k: Annotated[int, msgspec.Meta(ge=1, le=100)] = 5
    encoding: Encoding = "pixels"
    priority: Priority = "interactive"
    trace: Annotated[str, msgspec.Meta(max_length=128)] = ""
    """The sender's own name for this request, for the logs of everyone it passes."""
    traceparent: Traceparent = msgspec.UNSET


class Inquire(Message, frozen=True):
    """Do you still have this request? Answered only if not, by Unknown."""

    id: RequestId


class Cancel(Message, frozen=True):
    """Nobody waits for this request any longer. Not answered."""

    id: RequestId


class Describe(Message, frozen=True):
    """What do you serve? Answered by a Catalogue."""

    id: RequestId


class Observe(Message, frozen=True):
    """What is going on? Answered by a Status."""

    id: RequestId


# --- broker -> client -------------------------------------------------------------------------


class Prediction(msgspec.Struct, frozen=True):
    """One class with its probability."""

    label: str
    wnid: str
    """WordNet id of the class, such as n01440764; empty where the labels have none."""
    class_index: Count
    probability: Annotated[float, msgspec.Meta(ge=0, le=1)]


class Timing(msgspec.Struct, frozen=True, kw_only=True):
    """Where the time of one request went, in milliseconds."""

    queue: Millis = 0.0
    """In the broker: from the request's arrival until it was handed to the last replica."""
    decode: Millis = 0.0
    """In the replica, for ``encoding=image`` only."""
    batch: Millis = 0.0
    """In the replica: from arrival until its batch began."""
    inference: Millis = 0.0
    """In the engine: the whole batch."""


class Result(Message, frozen=True):
    """The answer to a Request."""

    id: RequestId
    model: Name
    version: Name
    predictions: tuple[Prediction, ...]
    """Most probable first."""
    replica: str
    attempt: Annotated[int, msgspec.Meta(ge=1)]
    batch_size: Annotated[int, msgspec.Meta(ge=1)]
    timing: Timing


class Failure(Message, frozen=True):
    """The other answer to a Request."""

    id: RequestId
    code: FailureCode
    message: str
    """One sentence for a person: what happened and what would help."""
    retry_after_ms: Count | None = None


class Unknown(Message, frozen=True):
    """The answer to Inquire: that request is not here. Send it again."""

    id: RequestId


class Served(msgspec.Struct, frozen=True, kw_only=True):
    """One model that the broker knows, with the replicas now alive."""

    contract: Contract
    replicas: tuple[str, ...]


class Catalogue(Message, frozen=True):
    """The answer to Describe: every model seen since the broker began, the first one first."""

    id: RequestId
    models: tuple[Served, ...]


class Distribution(msgspec.Struct, frozen=True, kw_only=True):
    """How large something was, since the broker began. Two of them, one after the other, tell
    what happened between."""

    bounds: tuple[float, ...]
    """Ascending; each belongs to the part that it ends."""
    counts: tuple[Count, ...]
    """How many there were in each part; one part more than bounds, for what is above them all."""
    total: float
    """The sum of all."""


class ScaleAdvice(msgspec.Struct, frozen=True, kw_only=True):
    """How many replicas the present load of a model needs, and what that was concluded from."""

    wanted: Count | None
    """So many; None before anything was measured."""
    present: Count
    """How many take work now."""
    offered_per_second: float | None
    """Requests that came lately, those refused as overloaded among them; None before that was
    watched for long enough."""
    replica_per_second: float | None
    """What one replica gets through with when it has all it can take; None before any was seen
    to work."""
    objective_ms: Millis
    """The wait in the queue that 95 % of all requests should stay below."""
    why: str
    """One sentence for a person."""


class ModelStatus(msgspec.Struct, frozen=True, kw_only=True):
    """What waits for one model, and how it was served since the broker began."""

    name: str
    version: str
    """The one that is in use; empty while no replica of it has been seen."""
    queued: Count
    """Requests that wait for a replica."""
    queued_bytes: Count
    oldest_ms: Millis
    """How long the first of them has waited; 0 while none does."""
    per_second: float | None
    """How many requests it gets through when there are enough; None before that was seen."""
    waited_ms: Distribution
    """In the broker's queue."""
    answered_ms: Distribution
    """From a request's arrival at the broker to its result."""
    batch_sizes: Distribution
    """Of the batch that a request was in, for each request."""
    scale: ScaleAdvice | msgspec.UnsetType = msgspec.UNSET
    """Not told by a broker that does not know of it."""


class ReplicaStatus(msgspec.Struct, frozen=True, kw_only=True):
    """One replica that is alive."""

    name: str
    model: str
    version: str
    device: str
    parallel: Annotated[int, msgspec.Meta(ge=1)]
    """How many batches it computes at the same time."""
    credit: Count
    """How many requests it may hold."""
    held: Count
    leaving: bool
    busy_ms: Millis | None
    """How long its engine had been at its batch when it last spoke; None for an idle one."""
    done: Count
    """Requests that it has finished."""
    batches: Millis
    """In how many batches; a part of one while not all of it has been answered."""
    worked_ms: Millis
    """What its engine spent on them, all batches of the same time added up."""


class Status(Message, frozen=True):
    """The answer to Observe. All that counts upwards does so from the broker's start."""

    id: RequestId
    uptime_ms: Millis
    counts: dict[str, int]
    """How often what happened, by the broker's own names for it."""
    models: tuple[ModelStatus, ...]
    replicas: tuple[ReplicaStatus, ...]


# --- replica -> broker ------------------------------------------------------------------------


class Ready(Message, frozen=True):
    """I can work: so many requests at a time, of this contract."""

    replica: Name
    contract: Contract
    credit: Annotated[int, msgspec.Meta(ge=1, le=CREDIT_MAX)]
    device: Annotated[str, msgspec.Meta(max_length=64)]
    parallel: Annotated[int, msgspec.Meta(ge=1, le=4096)] = 1
    """I compute so many batches at the same time."""


class Alive(Message, frozen=True):
    """The answer to Ping, from the replica's I/O thread however busy its engine is."""

    busy_ms: Annotated[float, msgspec.Meta(ge=0)] | None
    """How long the engine has been at its present batch; None when it is idle."""


class Done(Message, frozen=True):
    """One piece of Work is finished."""

    job: JobId
    predictions: tuple[Prediction, ...]
    batch_size: Annotated[int, msgspec.Meta(ge=1)]
    timing: Timing


class Failed(Message, frozen=True):
    """One piece of Work could not be finished, and the replica lives."""

    job: JobId
    code: FailureCode
    message: str


class Leave(Message, frozen=True):
    """I want to go: send me nothing more. Answered by Release when all my work is answered."""


class Devices(Message, frozen=True):
    """I see these GPUs: which is mine? Answered by Lease, or not at all while there is none.

    Said before an engine is loaded, over a connection that is kept for nothing else; a Ping that
    comes over it needs no answer.
    """

    replica: Name
    gpus: Annotated[tuple[Gpu, ...], msgspec.Meta(min_length=1, max_length=64)]
    per_gpu: Count = 0
    """So many replicas may share one of them; 0 for any number."""
    held: Gpu | None = None
    """The one that is mine already. A broker that has just started cannot know."""


# --- broker -> replica ------------------------------------------------------------------------


class Work(Message, frozen=True):
    """Classify the payload and answer with Done or Failed for this job."""

    job: JobId
    deadline_ms: Budget
    top_k: Annotated[int, msgspec.Meta(ge=1, le=100)]
    encoding: Encoding
    trace: str = ""
    traceparent: Traceparent = msgspec.UNSET


class Ping(Message, frozen=True):
    """Are you there? Answered by Alive."""


class Introduce(Message, frozen=True):
    """I do not know you. Say Ready (again)."""


class Release(Message, frozen=True):
    """Nothing of yours is left here: go."""


class Lease(Message, frozen=True):
    """This GPU is yours for as long as the connection lasts over which you asked."""

    gpu: Gpu
    replicas: Annotated[int, msgspec.Meta(ge=1)]
    """How many have it now, you among them."""


FromClient = Request | Inquire | Cancel | Describe | Observe
ToClient = Result | Failure | Unknown | Catalogue | Status
FromReplica = Ready | Alive | Done | Failed | Leave | Devices
ToReplica = Work | Ping | Introduce | Release | Lease

WITH_PAYLOAD: Final = (Request, Work)
"""The messages that a payload frame follows; after any other it is garbage."""


def traces(message: Request | Work) -> str:
    """What its sender calls the request, for a line of a log."""
    named = f"trace {message.trace!r}"
    if message.traceparent is not msgspec.UNSET:
        named += f", traceparent {message.traceparent!r}"
    return named


def log_fields(trace: str, traceparent: Traceparent = msgspec.UNSET) -> dict[str, str]:
    """The same as fields of a line that programs read, in every part."""
    fields = {"request_id": trace}
    if traceparent is not msgspec.UNSET:
        fields["trace_id"] = traceparent[3:35]
    return fields
