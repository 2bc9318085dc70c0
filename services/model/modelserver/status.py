"""What the broker tells whoever observes it: its books in the words of the protocol."""

from collections.abc import Iterable, Mapping

from modelserver.fleet import Model, Replica
from wire import ModelStatus, ReplicaStatus, Status


def status(
    request_id: str,
    *,
    now: float,
    began: float,
    counts: Mapping[str, int],
    models: Iterable[Model],
    replicas: Iterable[Replica],
    objective_s: float,
) -> Status:
    """The state of things at ``now``, in seconds on the clock of ``began``; replicas are
    advised of for queue waits of ``objective_s``."""
    return Status(
        id=request_id,
        uptime_ms=_millis(now - began),
        counts=dict(counts),
        models=tuple(_model(model, now, objective_s) for model in models),
        replicas=tuple(map(_replica, replicas)),
    )


def _model(model: Model, now: float, objective_s: float) -> ModelStatus:
    waiting = model.queue.jobs()
    return ModelStatus(
        name=model.name,
        version=model.contract.version if model.contract else "",
        queued=len(waiting),
        queued_bytes=sum(job.nbytes for job in waiting),
        oldest_ms=_millis(now - min((job.arrived for job in waiting), default=now)),
        per_second=model.rate.per_second,
        waited_ms=model.waited_ms.distribution,
        answered_ms=model.answered_ms.distribution,
        batch_sizes=model.batch_sizes.distribution,
        scale=model.adviser.advice(
            now, replicas=len(model.staff), queued=len(waiting), objective_s=objective_s
        ),
    )


def _replica(replica: Replica) -> ReplicaStatus:
    return ReplicaStatus(
        name=replica.name,
        model=replica.contract.model,
        version=replica.contract.version,
        device=replica.device,
        parallel=replica.parallel,
        credit=replica.credit,
        held=len(replica.held),
        leaving=replica.leaving,
        busy_ms=replica.busy_ms,
        done=replica.done,
        batches=round(replica.batches, 3),
        worked_ms=round(replica.worked_ms, 3),
    )


def _millis(seconds: float) -> float:
    return round(max(0.0, seconds) * 1000, 3)
