"""The command line: ``python -m loadtest.bench.scale``, which is what `make bench-scale` runs.

Four experiments, interleaved in rounds: what the broker carries when replicas take no time,
beside a bare forwarder; what 1 to 256 replicas do that take 8 ms and 0.15 ms a picture; what 64 do
that are slow enough not to reach its limit, beside what one of them does; and how long requests
wait at growing load, beside what M/M/n says.
"""

import argparse
import json
import signal
import sys
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Final

from loadtest.arguments import positive, seconds
from loadtest.bench.contenders import ROOT
from loadtest.bench.scale.clients import Clients, Tally
from loadtest.bench.scale.peers import Curve
from loadtest.bench.scale.report import FLEET, PIXELS, Results, Sample
from loadtest.bench.scale.stage import Middle, elsewhere, stage

SIZES: Final = (1_000, PIXELS)
INSTANT: Final = Curve(base_ms=0, image_ms=0, max_batch=8)
INSTANT_REPLICAS: Final = 16
UNDER_WAY: Final = 192
"""Enough that none of the three ever waits for another: with 48, which go round in one burst, the
broker and its replicas took turns, and a third of both cores was idle."""
REPLICAS: Final = (1, 2, 4, 8, 16, 32, 64, 256)
FOR_EACH: Final = 3
"""Requests under way for each of them: one in its engine, one at hand, one on its way."""
ACCELERATOR: Final = Curve(base_ms=8, image_ms=0.15, max_batch=1)
"""One picture at a time, so that it takes many replicas to reach the broker's limit."""
SERVICE_MS: Final = ACCELERATOR.base_ms + ACCELERATOR.image_ms
SLOWER: Final = Curve(base_ms=32, image_ms=0.15, max_batch=1)
"""So slow that FLEET of them stay below the broker's limit, at two thirds of it."""
QUEUE: Final = Curve(base_ms=40, image_ms=0, max_batch=1, exponential=True)
"""Long enough that what the way costs, about a millisecond, does not count."""
QUEUE_REPLICAS: Final = 8
LOADS: Final = (0.5, 0.7, 0.8, 0.9, 0.95)
LONGER: Final = 4
"""Queues need to be watched for longer than throughput."""

Run = Callable[[Clients, Callable[[], None]], Tally]


class Scale:
    """Carries the experiments out; `samples` is what came of it."""

    def __init__(self, rounds: int, window_s: float, say: Callable[[str], None]) -> None:
        self._rounds = rounds
        self._window_s = window_s
        self._say = say
        self.samples: list[Sample] = []

    def run(self) -> None:
        """All rounds."""
        for number in range(1, self._rounds + 1):
            self._limit(number)
            for replicas in REPLICAS:
                crowd = partial(self._crowd, FOR_EACH * replicas)
                self._measure("replicas", number, "broker", PIXELS, replicas, ACCELERATOR, crowd)
            for replicas in (1, FLEET):
                crowd = partial(self._crowd, FOR_EACH * replicas)
                self._measure("fleet", number, "broker", PIXELS, replicas, SLOWER, crowd)
            for load in LOADS:
                rate = load * QUEUE_REPLICAS * 1000 / QUEUE.base_ms
                strangers = partial(self._strangers, rate)
                self._measure(
                    "queue", number, "broker", PIXELS, QUEUE_REPLICAS, QUEUE, strangers, load
                )

    def _limit(self, number: int) -> None:
        middles: tuple[Middle, ...] = ("broker", "forwarder")
        for size in SIZES:
            for middle in middles:
                crowd = partial(self._crowd, UNDER_WAY)
                self._measure("limit", number, middle, size, INSTANT_REPLICAS, INSTANT, crowd)

    def _crowd(self, under_way: int, clients: Clients, look: Callable[[], None]) -> Tally:
        return clients.crowd(under_way, self._window_s, look)

    def _strangers(self, rate: float, clients: Clients, look: Callable[[], None]) -> Tally:
        return clients.strangers(rate, LONGER * self._window_s, look)

    def _measure(
        self,
        experiment: str,
        number: int,
        middle: Middle,
        payload_bytes: int,
        replicas: int,
        curve: Curve,
        run: Run,
        load: float | None = None,
    ) -> None:
        with stage(middle, replicas, curve) as running:
            tally, cpu_s, others_s = running.measure(payload_bytes, run)
        sample = Sample(
            experiment=experiment,
            round=number,
            middle=middle,
            payload_bytes=payload_bytes,
            replicas=replicas,
            load=load,
            req_s=tally.done / tally.seconds,
            cpu_us=cpu_s * 1e6 / max(1, tally.done),
            others_us=others_s * 1e6 / max(1, tally.done),
            core=cpu_s / tally.seconds,
            wait_ms=_mean(tally.queued_ms),
            way_ms=_mean(tally.ways_ms),
            failed=tally.failed,
        )
        self.samples.append(sample)
        self._say(
            f"round {number}  {experiment:8} {middle:9} {payload_bytes / 1000:4.0f} KB "
            f"{replicas:3} replicas: {sample.req_s:6.0f}/s, {sample.cpu_us:4.0f} us a request, "
            f"{sample.core:.0%} of a core; waited {sample.wait_ms or 0:.1f} ms, "
            f"{sample.way_ms or 0:.1f} ms under way, "
            f"{tally.failed} failed"
        )


def _mean(values: list[float]) -> float | None:
    return sum(values) / len(values) if values else None


def main() -> int:
    """Measure and tell. Returns the exit status: 0, or 2 if it could not be measured."""
    parser = argparse.ArgumentParser(prog="loadtest.bench.scale", description=__doc__)
    parser.add_argument("--rounds", type=positive, default=3)
    parser.add_argument("--window", type=seconds, default=5, help="seconds of each measurement")
    parser.add_argument("--output", type=Path, default=ROOT / "bench-output")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    scale = Scale(arguments.rounds, arguments.window, lambda line: print(line, flush=True))
    try:
        with elsewhere():
            scale.run()
    except TimeoutError as error:
        print(f"bench-scale: {error}", file=sys.stderr)
        return 2
    results = Results(scale.samples, service_ms=SERVICE_MS, queue_ms=QUEUE.base_ms)
    text = results.tables() + "\n\n" + "\n".join(map(str, results.promises()))
    print(f"\n{text}")
    folder: Path = arguments.output
    folder.mkdir(parents=True, exist_ok=True)
    samples = [asdict(sample) for sample in scale.samples]
    (folder / "scale.md").write_text(text + "\n")
    (folder / "scale.json").write_text(json.dumps(samples, indent=1) + "\n")
    (folder / "scale.svg").write_text(results.plot())
    print(f"\nAll of it is in {folder}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
