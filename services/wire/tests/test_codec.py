"""The codec: golden frames stay as they are, and garbage raises WireError and nothing else."""

import json
import os
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

import wire
from wire.codec import MAX_HEADER_BYTES, MAX_PAYLOAD_BYTES, Decoder
from wire.messages import WITH_PAYLOAD

GOLDEN = Path(__file__).parent / "golden_frames.json"

CONTRACT = wire.Contract(
    model="efficientnet-lite0",
    version="1",
    digest="0123456789abcdef",
    width=224,
    height=224,
    crop=0.875,
    filter="bicubic",
    classes=1000,
)
PREDICTION = wire.Prediction("tench", "n01440764", 0, 0.75)
TIMING = wire.Timing(queue=1.5, decode=0.0, batch=0.25, inference=3.0)
DISTRIBUTION = wire.Distribution(bounds=(1.0, 2.5), counts=(1, 0, 2), total=12.5)

TRACEPARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"

EXAMPLES: dict[str, tuple[Decoder, wire.Message]] = {
    "request": (
        wire.from_client,
        wire.Request(
            id="r1",
            model="efficientnet-lite0",
            digest=CONTRACT.digest,
            deadline_ms=5000,
            top_k=3,
            trace="abc",
        ),
    ),
    "request image bulk": (
        wire.from_client,
        wire.Request(
            id="r2", model="m", digest="", deadline_ms=1, encoding="image", priority="bulk"
        ),
    ),
    "request traced": (
        wire.from_client,
        wire.Request(id="r5", model="m", digest="d", deadline_ms=9, traceparent=TRACEPARENT),
    ),
    "inquire": (wire.from_client, wire.Inquire(id="r1")),
    "cancel": (wire.from_client, wire.Cancel(id="r1")),
    "describe": (wire.from_client, wire.Describe(id="r3")),
    "observe": (wire.from_client, wire.Observe(id="r4")),
    "result": (
        wire.to_client,
        wire.Result(
            id="r1",
            model="efficientnet-lite0",
            version="1",
            predictions=(PREDICTION,),
            replica="host:1:ab",
            attempt=2,
            batch_size=4,
            timing=TIMING,
        ),
    ),
    "failure": (
        wire.to_client,
        wire.Failure(
            id="r1", code=wire.FailureCode.OVERLOADED, message="Full.", retry_after_ms=250
        ),
    ),
    "unknown": (wire.to_client, wire.Unknown(id="r1")),
    "catalogue": (
        wire.to_client,
        wire.Catalogue(id="r3", models=(wire.Served(contract=CONTRACT, replicas=("host:1:ab",)),)),
    ),
    "status": (
        wire.to_client,
        wire.Status(
            id="r4",
            uptime_ms=1000.0,
            counts={"accepted": 3},
            models=(
                wire.ModelStatus(
                    name="efficientnet-lite0",
                    version="1",
                    queued=2,
                    queued_bytes=301056,
                    oldest_ms=1.5,
                    per_second=None,
                    waited_ms=DISTRIBUTION,
                    answered_ms=DISTRIBUTION,
                    batch_sizes=DISTRIBUTION,
                ),
            ),
            replicas=(
                wire.ReplicaStatus(
                    name="host:1:ab",
                    model="efficientnet-lite0",
                    version="1",
                    device="cpu",
                    parallel=1,
                    credit=16,
                    held=1,
                    leaving=False,
                    busy_ms=None,
                    done=2,
                    batches=1.0,
                    worked_ms=7.5,
                ),
            ),
        ),
    ),
    "status advised": (
        wire.to_client,
        wire.Status(
            id="r6",
            uptime_ms=1000.0,
            counts={},
            models=(
                wire.ModelStatus(
                    name="m",
                    version="1",
                    queued=0,
                    queued_bytes=0,
                    oldest_ms=0.0,
                    per_second=None,
                    waited_ms=DISTRIBUTION,
                    answered_ms=DISTRIBUTION,
                    batch_sizes=DISTRIBUTION,
                    scale=wire.ScaleAdvice(
                        wanted=3,
                        present=2,
                        offered_per_second=16.0,
                        replica_per_second=8.0,
                        objective_ms=250.0,
                        why="Because.",
                    ),
                ),
            ),
            replicas=(),
        ),
    ),
    "ready": (
        wire.from_replica,
        wire.Ready(replica="host:1:ab", contract=CONTRACT, credit=16, device="cpu"),
    ),
    "alive idle": (wire.from_replica, wire.Alive(busy_ms=None)),
    "alive busy": (wire.from_replica, wire.Alive(busy_ms=12.5)),
    "done": (
        wire.from_replica,
        wire.Done(job=7, predictions=(PREDICTION,), batch_size=4, timing=TIMING),
    ),
    "failed": (
        wire.from_replica,
        wire.Failed(job=7, code=wire.FailureCode.ENGINE, message="NaN."),
    ),
    "leave": (wire.from_replica, wire.Leave()),
    "devices": (wire.from_replica, wire.Devices(replica="host:1:ab", gpus=("GPU-1", "GPU-2"))),
    "devices held": (
        wire.from_replica,
        wire.Devices(replica="host:1:ab", gpus=("GPU-1",), per_gpu=2, held="GPU-1"),
    ),
    "lease": (wire.to_replica, wire.Lease(gpu="GPU-1", replicas=2)),
    "work": (wire.to_replica, wire.Work(job=7, deadline_ms=900, top_k=3, encoding="pixels")),
    "work traced": (
        wire.to_replica,
        wire.Work(
            job=7, deadline_ms=900, top_k=3, encoding="pixels", trace="a", traceparent=TRACEPARENT
        ),
    ),
    "ping": (wire.to_replica, wire.Ping()),
    "introduce": (wire.to_replica, wire.Introduce()),
    "release": (wire.to_replica, wire.Release()),
}
DECODERS = [wire.from_client, wire.to_client, wire.from_replica, wire.to_replica]


def frames_of(message: wire.Message) -> list[bytes]:
    header = [wire.encode(message)]
    return [*header, b"pixels"] if isinstance(message, WITH_PAYLOAD) else header


@pytest.mark.parametrize("name", EXAMPLES)
def test_every_message_survives_its_own_direction(name: str) -> None:
    decoder, message = EXAMPLES[name]
    assert decoder.decode(frames_of(message)) == message


@pytest.mark.parametrize("name", EXAMPLES)
def test_every_message_is_garbage_in_the_other_directions(name: str) -> None:
    right, message = EXAMPLES[name]
    for decoder in DECODERS:
        if decoder is not right:
            with pytest.raises(wire.WireError):
                decoder.decode(frames_of(message))


def test_frames_are_what_they_were() -> None:
    """Peers of another release depend on these bytes. A wanted change raises VERSION, and
    UPDATE_GOLDEN=1 writes the file anew."""
    now = {name: wire.encode(message).hex() for name, (_, message) in EXAMPLES.items()}
    if os.environ.get("UPDATE_GOLDEN"):
        GOLDEN.write_text(json.dumps(now, indent=1) + "\n")
    assert now == json.loads(GOLDEN.read_text())


def test_a_field_of_a_later_release_is_ignored() -> None:
    later = {"type": "inquire", "id": "r1", "colour": "blue"}
    frame = bytes([wire.VERSION]) + msgspec.msgpack.encode(later)
    assert wire.from_client.decode([frame]) == wire.Inquire(id="r1")


def test_what_is_unset_is_not_sent() -> None:
    traced, untraced = EXAMPLES["request traced"][1], EXAMPLES["request"][1]
    assert b"traceparent" in wire.encode(traced)
    assert b"traceparent" not in wire.encode(untraced)


def test_a_log_names_a_request_as_its_sender_does() -> None:
    work = EXAMPLES["work traced"][1]
    assert isinstance(work, wire.Work)
    assert wire.traces(work) == f"trace 'a', traceparent '{TRACEPARENT}'"
    assert wire.log_fields(work.trace, work.traceparent) == {
        "request_id": "a",
        "trace_id": TRACEPARENT.split("-")[1],
    }
    nameless = wire.Work(job=1, deadline_ms=1, top_k=1, encoding="image")
    assert wire.traces(nameless) == "trace ''"
    assert wire.log_fields(nameless.trace, nameless.traceparent) == {"request_id": ""}


REQUEST = wire.encode(EXAMPLES["request"][1])


@pytest.mark.parametrize(
    ("frames", "words"),
    [
        ([], "0 frames"),
        ([b""], "header of 0 bytes"),
        ([bytes([wire.VERSION])], "header of 1 bytes"),
        ([bytes([wire.VERSION + 1]) + REQUEST[1:], b"x"], "version"),
        ([bytes([wire.VERSION]) + b"x" * MAX_HEADER_BYTES], "header of"),
        ([bytes([wire.VERSION]) + b"\x91" * 60_000], "not a message"),
        ([REQUEST], "Request without a payload"),
        ([wire.encode(wire.Inquire(id="r")), b"x"], "Inquire with a payload"),
        ([REQUEST, b"x", b"y"], "3 frames"),
        ([REQUEST, bytes(MAX_PAYLOAD_BYTES + 1)], "a payload of more"),
        ([REQUEST[:-3], b"x"], "not a message"),
    ],
)
def test_garbage_is_named(frames: list[bytes], words: str) -> None:
    with pytest.raises(wire.WireError, match=words):
        wire.from_client.decode(frames)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("id", ""),
        ("id", "x" * 65),
        ("deadline_ms", 0),
        ("deadline_ms", 600_001),
        ("deadline_ms", 2**70),
        ("top_k", 0),
        ("top_k", 101),
        ("encoding", "pickle"),
        ("model", ""),
        ("trace", "x" * 129),
        ("priority", 1),
        ("traceparent", "x" * 56),
        ("traceparent", None),
    ],
)
def test_values_out_of_bounds_are_garbage(field: str, value: object) -> None:
    sound = msgspec.to_builtins(EXAMPLES["request"][1])
    try:
        body = msgspec.msgpack.encode({**sound, field: value})
    except OverflowError:
        body = b"\xcf" + b"\xff" * 8
    with pytest.raises(wire.WireError):
        wire.from_client.decode([bytes([wire.VERSION]) + body, b"x"])


@given(st.lists(st.binary(max_size=200), max_size=3))
def test_any_bytes_give_a_message_or_wire_error(frames: list[bytes]) -> None:
    for decoder in DECODERS:
        try:
            message = decoder.decode(frames)
        except wire.WireError:
            continue
        assert isinstance(message, wire.Message)


@given(st.sampled_from(list(EXAMPLES)), st.data())
def test_damaged_messages_give_a_message_or_wire_error(name: str, data: st.DataObject) -> None:
    decoder, message = EXAMPLES[name]
    header, *payload = frames_of(message)
    damaged = bytearray(header)
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(damaged) - 1))
        damaged[place] = data.draw(st.integers(0, 255))
    try:
        decoder.decode([bytes(damaged[: data.draw(st.integers(0, len(damaged)))]), *payload])
    except wire.WireError:
        return
