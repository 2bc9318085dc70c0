"""A photograph in, its class out: web, broker and replicas as real processes."""

import base64
import os
import time
from pathlib import Path

import numpy as np
import pytest
import zmq

from imaging import prepare
from modelserver.bundle import find_bundle, load_bundle
from modelserver.engines import load_engine
from tests.conftest import Service, classify, eventually, request
from tests.system.processes import descendants, policies


def test_a_hundred_photographs_as_right_as_the_engine_itself(
    service: Service, photographs: dict[Path, int]
) -> None:
    service.start()
    bundle = load_bundle(find_bundle("efficientnet-lite0"))
    engine = load_engine("litert", bundle, threads=1, max_batch=1)
    contract = bundle.contract
    first = among_three = 0
    for path, expected in photographs.items():
        answer = classify(service.port, path.read_bytes(), "?top_k=3")
        assert answer.status == 200, answer.body
        predictions = answer.json["predictions"]
        first += predictions[0]["class_index"] == expected
        among_three += expected in [p["class_index"] for p in predictions]

        pixels = np.frombuffer(prepare(path.read_bytes(), contract).pixels, np.uint8)
        direct = engine.predict(pixels.reshape(1, contract.height, contract.width, 3))[0]
        assert predictions[0]["class_index"] == int(direct.argmax())
        assert predictions[0]["probability"] == pytest.approx(float(direct.max()), abs=1e-5)
    print(f"top-1 {first}, top-3 {among_three} of {len(photographs)}")
    assert first >= 0.85 * len(photographs)
    assert among_three >= 0.94 * len(photographs)


def test_work_spreads_over_three_replicas(service: Service, picture: bytes) -> None:
    service.start(replicas=3)
    names = {classify(service.port, picture).json["replica"] for _ in range(12)}
    assert names == set(service.replicas())
    assert len(names) == 3


def test_no_thread_of_any_part_interrupts_what_a_core_is_doing(
    service: Service, picture: bytes
) -> None:
    broker = service.start_broker()
    _, replica = service.start_replica()
    web = service.start_web()
    service.await_replicas(1)
    assert classify(service.port, picture).status == 200
    workers_and_decoders = descendants(web.pid)
    assert len(workers_and_decoders) >= 2
    for pid in (broker.pid, replica.pid, web.pid, *workers_and_decoders):
        assert policies(pid) == {os.SCHED_BATCH}, Path(f"/proc/{pid}/cmdline").read_bytes()


def test_a_replica_is_ready_within_two_seconds(service: Service) -> None:
    """Alone on the machine and measured from the start of its process."""
    service.start(replicas=1)
    seconds = []
    for _ in range(3):
        started = time.monotonic()
        name, _process = service.start_replica()
        eventually(lambda: len(service.replicas()) == 2)
        seconds.append(time.monotonic() - started)
        service.processes.stop(name)
        eventually(lambda: len(service.replicas()) == 1)
    print(f"ready after {min(seconds):.2f} s at best, {max(seconds):.2f} s at worst")
    assert min(seconds) < 2.0


def test_without_a_replica_nothing_is_made_up(service: Service, picture: bytes) -> None:
    service.start_broker()
    service.start_web(WEB_DEADLINE_MS="700")
    eventually(service.is_up, within_s=20)
    ready = request(service.port, "GET", "/readyz")
    assert (ready.status, "Retry-After" in ready.headers) == (503, True)
    began = time.monotonic()
    answer = classify(service.port, picture)
    assert (answer.status, "Retry-After" in answer.headers) == (503, True)
    assert time.monotonic() - began < 1.5
    assert "predictions" not in answer.json


def test_when_the_last_replica_goes_requests_fail_at_their_deadline(
    service: Service, picture: bytes
) -> None:
    service.start_broker()
    name, _process = service.start_replica()
    service.start_web(WEB_DEADLINE_MS="700")
    service.await_replicas(1)
    assert classify(service.port, picture).status == 200
    assert service.processes.stop(name) == 0
    answer = classify(service.port, picture)
    assert (answer.status, "Retry-After" in answer.headers) == (503, True)
    service.start_replica()
    service.await_replicas(1)
    assert classify(service.port, picture).status == 200


def test_the_tutorials_client_gets_its_reply(
    service: Service, photographs: dict[Path, int]
) -> None:
    """Its dialogue as it was: a DEALER, one JSON frame out, one JSON frame back."""
    service.start()
    zebra = next(path for path in photographs if "zebra" in path.name)
    context = zmq.Context()
    with context, context.socket(zmq.DEALER) as socket:
        socket.linger = 0
        socket.rcvtimeo = 10_000
        socket.connect(service.frontend)
        socket.send_json({"payload": base64.b64encode(zebra.read_bytes()).decode(), "_rid": "1"})
        reply = socket.recv_json()
    assert isinstance(reply, dict)
    assert list(reply) == ["preds"]
    best, *rest = reply["preds"].split(", ")
    label, probability = best.split(" : ")
    assert label == "zebra"
    assert 0.5 < float(probability) <= 1
    assert len(rest) == 2


def test_noise_on_both_ports_does_not_disturb_a_request(service: Service, picture: bytes) -> None:
    service.start()
    context = zmq.Context()
    with context:
        for endpoint in (service.frontend, service.backend):
            with context.socket(zmq.DEALER) as socket:
                socket.linger = 200
                socket.connect(endpoint)
                for frames in ([b""], [b"\x01\xc1"], [b"\xff" * 1000, b"x"], [b"a"] * 9, [b"{"]):
                    socket.send_multipart(frames)
                assert classify(service.port, picture).status == 200
