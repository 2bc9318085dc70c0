"""Fast and slow replicas of one model behind one queue."""

import pytest

from modelserver.fleet import COMPARED_EVERY, MEASURED_AFTER
from tests.conftest import Service, classify, eventually
from tests.system.load import Load

FAST_MS, SLOW_MS = 10, 40
FAST_BATCH = 8


@pytest.mark.drill
def test_the_slow_help_in_a_crowd_and_are_in_nobodys_way(service: Service, picture: bytes) -> None:
    pids = {}
    service.start_broker()
    for kind, milliseconds, batch in (("fast", FAST_MS, FAST_BATCH), ("slow", SLOW_MS, 1)):
        _, process = service.start_replica(
            MODEL_ENGINE="simulated",
            MODEL_SIMULATED_BASE_MS=str(milliseconds),
            MODEL_MAX_BATCH=str(batch),
        )
        pids[kind] = str(process.pid)
    service.start_web()
    service.await_replicas(2)

    def shares(load: Load) -> dict[str, int]:
        by_pid = {replica.split(":")[1]: count for replica, count in load.replicas.items()}
        return {kind: by_pid.get(pid, 0) for kind, pid in pids.items()}

    def crowd(clients: int) -> Load:
        return Load(lambda: classify(service.port, picture), clients=clients)

    with crowd(4) as measuring:
        eventually(lambda: shares(measuring)["slow"] >= MEASURED_AFTER, within_s=30)
        measuring.flows(2 * COMPARED_EVERY)
    with crowd(1) as alone:
        alone.flows(40)
    with crowd(48) as many:
        many.flows(800, within_s=60)
    print(f"alone {shares(alone)}, in a crowd {shares(many)}")
    assert measuring.trouble == alone.trouble == many.trouble == []
    assert shares(alone)["slow"] == 0
    assert 0 < shares(many)["slow"] < shares(many)["fast"] / 5
