"""What the scale benchmark tells: tables, promises and a plot out of medians."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Final

from loadtest.bench.plot import Panel, svg
from loadtest.bench.promises import Promise
from loadtest.bench.scale.stage import Middle
from loadtest.bench.scale.theory import waiting_ms

PIXELS: Final = 150_528
"""Bytes of one picture of 224 x 224."""
WANTED_S: Final = 3_000
FLEET: Final = 64
LINEAR: Final = 0.95


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One measurement."""

    experiment: str
    """`limit`, `replicas`, `fleet` or `queue`."""
    round: int
    middle: Middle = "broker"
    payload_bytes: int = PIXELS
    replicas: int
    load: float | None = None
    """The share of all replicas' time that was asked for."""
    req_s: float
    cpu_us: float
    """CPU time of the middle for one request."""
    others_us: float
    """CPU time of clients and replicas for one request."""
    core: float
    """The share of one core that the middle used."""
    wait_ms: float | None = None
    """The mean of a request's wait in the broker and in the replica."""
    way_ms: float | None = None
    """The mean of the rest of its time, but for the engine's."""
    failed: int = 0


class Results:
    """Medians of what was measured."""

    def __init__(self, samples: Sequence[Sample], *, service_ms: float, queue_ms: float) -> None:
        """``service_ms``: a request in an engine; ``queue_ms``: the same where queues form."""
        self.samples = samples
        self._service_ms = service_ms
        self._queue_ms = queue_ms

    def of(self, what: str, **wanted: object) -> float | None:
        """The median of a field over the samples whose fields are as ``wanted``."""
        values = [
            getattr(s, what)
            for s in self.samples
            if all(getattr(s, name) == value for name, value in wanted.items())
        ]
        return median(values) if values else None

    @property
    def limit(self) -> float:
        """Requests a second that the broker carried for replicas that take no time; 0 when not
        measured."""
        return self._at_limit("req_s") or 0.0

    @property
    def whole_core(self) -> float:
        """Requests a second for which its CPU time would be that of one core."""
        cpu_us = self._at_limit("cpu_us")
        return 1e6 / cpu_us if cpu_us else 0.0

    def _at_limit(self, what: str) -> float | None:
        return self.of(what, experiment="limit", middle="broker", payload_bytes=PIXELS)

    def linear(self, replicas: int) -> float:
        """What so many replicas could do if nothing were in their way."""
        return replicas * 1000 / self._service_ms

    def share(self, replicas: int) -> float | None:
        """What is done, of what the replicas could do or the broker carried."""
        done = self.of("req_s", experiment="replicas", replicas=replicas)
        return None if done is None else done / min(self.linear(replicas), self.limit)

    @property
    def fleet(self) -> float | None:
        """What FLEET replicas do that stay below the broker's limit, of what so many would if each
        did what one alone does."""
        alone = self.of("req_s", experiment="fleet", replicas=1)
        done = self.of("req_s", experiment="fleet", replicas=FLEET)
        return None if alone is None or done is None else done / (FLEET * alone)

    def numbers(self, experiment: str, what: str) -> list[float]:
        """The different values of a field in an experiment, in order."""
        return sorted({getattr(s, what) for s in self.samples if s.experiment == experiment})

    def predicted_ms(self, replicas: int, load: float) -> float:
        """What M/M/n makes of that load in the queue experiment."""
        return waiting_ms(load, replicas, self._queue_ms)

    def promises(self) -> list[Promise]:
        """What the broker alone has to show."""
        failed = sum(s.failed for s in self.samples)
        return [
            Promise("requests/s of 150 KB that the broker carried", WANTED_S, self.limit),
            Promise("what one core of it would carry, by its CPU time", WANTED_S, self.whole_core),
            Promise(f"{FLEET} replicas do, of {FLEET} times what one does", LINEAR, self.fleet),
            Promise("failures", 0, float(failed), at_least=False),
        ]

    def tables(self) -> str:
        """All tables, in Markdown."""
        lines = [
            "| middle | payload | req/s | MB/s | CPU-us a request | of its core | others' CPU-us |"
        ]
        lines.append("|---|---|---|---|---|---|---|")
        middles: tuple[Middle, ...] = ("broker", "forwarder")
        for size in map(int, self.numbers("limit", "payload_bytes")):
            for middle in middles:
                key = {"experiment": "limit", "middle": middle, "payload_bytes": size}
                done = self.of("req_s", **key) or 0.0
                cells = f"{done:.0f} | {done * size / 1e6:.0f} | {self.of('cpu_us', **key):.0f}"
                lines.append(
                    f"| {middle} | {size / 1000:.0f} KB | {cells} "
                    f"| {self.of('core', **key):.0%} | {self.of('others_us', **key):.0f} |"
                )
        lines += ["", "| replicas | req/s | they could | share | CPU-us a request |"]
        lines.append("|---|---|---|---|---|")
        for n in map(int, self.numbers("replicas", "replicas")):
            key = {"experiment": "replicas", "replicas": n}
            done = self.of("req_s", **key) or 0.0
            cost = self.of("cpu_us", **key)
            could = self.linear(n)
            lines.append(f"| {n} | {done:.0f} | {could:.0f} | {self.share(n):.2f} | {cost:.0f} |")
        lines += ["", "| slower replicas | req/s | CPU-us a request |", "|---|---|---|"]
        for n in map(int, self.numbers("fleet", "replicas")):
            key = {"experiment": "fleet", "replicas": n}
            lines.append(
                f"| {n} | {self.of('req_s', **key):.0f} | {self.of('cpu_us', **key):.0f} |"
            )
        lines += ["", "| load | replicas | mean wait, ms | M/M/n says | under way, ms |"]
        lines.append("|---|---|---|---|---|")
        for n in map(int, self.numbers("queue", "replicas")):
            for load in self.numbers("queue", "load"):
                at: dict[str, object] = {"experiment": "queue", "replicas": n, "load": load}
                wait, way = self.of("wait_ms", **at), self.of("way_ms", **at)
                said = self.predicted_ms(n, load)
                lines.append(f"| {load:.2f} | {n} | {wait:.1f} | {said:.1f} | {way:.1f} |")
        return "\n".join(lines)

    def plot(self) -> str:
        """Throughput against replicas, and waiting against load."""
        replicas = [int(n) for n in self.numbers("replicas", "replicas")]
        throughput: dict[str, list[float | None]] = {
            "done": [self.of("req_s", experiment="replicas", replicas=n) for n in replicas],
            "they could": [self.linear(n) for n in replicas],
            "the broker's limit": [self.limit for _ in replicas],
        }
        loads = self.numbers("queue", "load")
        waits: dict[str, list[float | None]] = {}
        for n in map(int, self.numbers("queue", "replicas")):
            waits["measured"] = [
                self.of("wait_ms", experiment="queue", replicas=n, load=load) for load in loads
            ]
            waits["M/M/n"] = [self.predicted_ms(n, load) for load in loads]
        limits = ["they could", "the broker's limit"]
        return svg(
            [
                Panel(
                    "requests a second",
                    [str(n) for n in replicas],
                    throughput,
                    "replicas",
                    dashed=limits,
                    logarithmic=True,
                ),
                Panel("mean wait, ms", [f"{x:g}" for x in loads], waits, "load", dashed=["M/M/n"]),
            ]
        )
