"""What goes on at the service, again and again.

Rules:
- The broker counts upwards from its start, so what is told of a time is the difference of two
  looks; the first look tells of all the time since then.
- A service that does not answer is told as such and asked again, but for `once`; in JSON as an
  object with ``error``.
"""

import sys
import time
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Final

import msgspec

from sightline.service import Outcome, Service, Status, Trouble
from sightline.terminal import columns, printable
from wire import Distribution, ModelStatus, ReplicaStatus

HOME_AND_CLEAR: Final = "\x1b[H\x1b[2J"


def watch(service: Service, *, interval_s: float, once: bool, as_json: bool) -> Outcome:
    """Tell until interrupted, or once."""
    before: Status | None = None
    while True:
        try:
            now = service.status()
        except Trouble as trouble:
            if once:
                print(f"sightline: {printable(str(trouble))}", file=sys.stderr)
                return trouble.outcome
            if as_json:
                _say({"error": trouble.problem})
            else:
                _show([f"no answer: {printable(str(trouble))}"])
        else:
            if as_json:
                _say(now)
            else:
                _show(lines(now, before))
            before = now
        if once:
            return Outcome.DONE
        time.sleep(interval_s)


def _say(told: object) -> None:
    print(msgspec.json.encode(told).decode(), flush=True)


def _show(told: Sequence[str]) -> None:
    if sys.stdout.isatty():
        print(HOME_AND_CLEAR, end="")
    print("\n".join(told), flush=True)


def lines(now: Status, before: Status | None = None) -> list[str]:
    """``now``, and what happened since ``before`` if that is of the same broker's life."""
    if before is not None and _is_another(before, now):
        before = None
    seconds = (now.uptime_ms - (before.uptime_ms if before else 0)) / 1000
    since = f"in the last {seconds:.1f} s" if before else "since the broker's start"
    counts = ", ".join(f"{name} {count}" for name, count in sorted(now.counts.items()))
    return [
        f"broker up for {_duration(now.uptime_ms)}; rates and times are {since}",
        "",
        *columns([_MODEL, *_models(now, before, seconds)]),
        "",
        *columns([_REPLICA, *map(_replica, now.replicas)]),
        "",
        printable(counts) or "nothing has happened yet",
    ]


def _is_another(before: Status, now: Status) -> bool:
    """The broker began anew since. It may be up for longer by now, but its counts are less."""
    if before.uptime_ms >= now.uptime_ms:
        return True
    return any(now.counts.get(name, 0) < count for name, count in before.counts.items())


_MODEL: Final = ("MODEL", "VERSION", "WAITING", "OLDEST ms", "PER SECOND", "p50 ms", "p95 ms")
_REPLICA: Final = ("REPLICA", "MODEL", "DEVICE", "HELD", "BUSY ms", "DONE", "BATCH", "ms EACH")


def _models(now: Status, before: Status | None, seconds: float) -> Iterator[tuple[str, ...]]:
    known: dict[str, ModelStatus] = {m.name: m for m in before.models} if before else {}
    for model in now.models:
        earlier = known.get(model.name)
        answered = _since(model.answered_ms, earlier.answered_ms if earlier else None)
        yield (
            model.name,
            model.version or "-",
            str(model.queued),
            f"{model.oldest_ms:.0f}",
            f"{sum(answered) / seconds:.1f}" if seconds else "-",
            _quantile(model.answered_ms.bounds, answered, 0.5),
            _quantile(model.answered_ms.bounds, answered, 0.95),
        )


def _replica(replica: ReplicaStatus) -> tuple[str, ...]:
    busy = "-" if replica.busy_ms is None else f"{replica.busy_ms:.0f}"
    return (
        replica.name,
        replica.model,
        replica.device + (" (leaving)" if replica.leaving else ""),
        f"{replica.held}/{replica.credit}",
        busy,
        str(replica.done),
        f"{replica.done / replica.batches:.1f}" if replica.batches else "-",
        f"{replica.worked_ms / replica.done:.1f}" if replica.done else "-",
    )


def _since(now: Distribution, before: Distribution | None) -> list[int]:
    if before is None or len(before.counts) != len(now.counts):
        return list(now.counts)
    return [n - b for n, b in zip(now.counts, before.counts, strict=True)]


def _quantile(bounds: Sequence[float], counts: Sequence[int], share: float) -> str:
    """Where ``share`` of the counts is reached, to a straight line within its part."""
    goal = sum(counts) * share
    if not goal:
        return "-"
    reached = 0
    for (low, high), count in zip(pairwise((0.0, *bounds)), counts, strict=False):
        if count and reached + count >= goal:
            return f"{low + (high - low) * (goal - reached) / count:.1f}"
        reached += count
    return f"> {bounds[-1]:g}" if bounds else "-"


def _duration(ms: float) -> str:
    seconds = int(ms / 1000)
    if seconds < 60:
        return f"{seconds} s"
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {seconds} s"
