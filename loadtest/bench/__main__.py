"""The command line: ``python -m loadtest.bench``, which is what `make bench` runs.

Prints the tables and what they have to show; writes the same, all samples and a plot to a folder.
"""

import argparse
import json
import platform
import signal
import sys
from pathlib import Path
from typing import Final

from loadtest.arguments import positive
from loadtest.bench.contenders import ALWAYS, CORES, PEERS, ROOT, TUTORIAL, NotReady
from loadtest.bench.photographs import photographs
from loadtest.bench.plot import Panel, svg
from loadtest.bench.promises import promises
from loadtest.bench.report import HEADINGS, Results, parts, tables
from loadtest.bench.rounds import LEVELS, Bench, Disagreement, Plan

OLD: Final = ("tutorial", "monolith")


def main() -> int:
    """Measure. Returns the exit status: 0, or 2 if it could not be measured."""
    parser = argparse.ArgumentParser(prog="loadtest.bench", description=__doc__)
    parser.add_argument("--photos", default="", help="a folder of JPEG files")
    parser.add_argument("--peers", default="", help=f"further contenders: {', '.join(PEERS)}")
    parser.add_argument("--skip", default="", help=f"leave out: {', '.join(OLD)}")
    parser.add_argument("--engines", default="model accelerator nothing")
    parser.add_argument("--rounds", type=positive, default=3)
    parser.add_argument("--window", type=positive, default=5, help="seconds of each measurement")
    parser.add_argument(
        "--hold", type=int, default=60, help="seconds of 128 connections at the end, after as many"
    )
    parser.add_argument("--output", type=Path, default=ROOT / "bench-output")
    arguments = parser.parse_args()
    peers, skip = arguments.peers.split(), arguments.skip.split()
    engines = arguments.engines.split()
    _check(parser, "--peers", peers, PEERS)
    _check(parser, "--skip", skip, OLD)
    _check(parser, "--engines", engines, HEADINGS)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))

    tutorial = [] if "tutorial" in skip else [TUTORIAL]
    plan = Plan(
        contenders=[*ALWAYS, *(PEERS[name] for name in peers), *tutorial],
        # The first thing that is measured says which answers are right.
        engines=sorted(engines, key=list(HEADINGS).index),
        monolith="monolith" not in skip and "model" in engines,
        rounds=arguments.rounds,
        window_s=arguments.window,
        hold_s=arguments.hold if "model" in engines else 0,
    )
    try:
        with photographs(Path(arguments.photos) if arguments.photos else None) as files:
            print(f"photographs: {files.source}", flush=True)
            bench = Bench(plan, files, lambda line: print(line, flush=True))
            bench.run()
    except (NotReady, Disagreement, FileNotFoundError) as error:
        print(f"bench: {error}", file=sys.stderr)
        return 2
    _tell(bench, arguments.output)
    return 2 if bench.troubles else 0


def _tell(bench: Bench, folder: Path) -> None:
    results = Results(bench.samples)
    shown = promises(results, bench.right.get("sightline"))
    shares = [s.generator_share for s in bench.samples if s.generator_share is not None]
    costs = [s.generator_cpu_ms for s in bench.samples if s.generator_cpu_ms and s.case != "large"]
    told = [
        f"{CORES} cores; Python {platform.python_version()}, {platform.python_compiler()}.",
        tables(results),
        f"Sightline's CPU-ms a request at 32, by part\n{parts(results)}",
        f"The load generator used {max(shares):.0%} of a core at the most, "
        f"{min(costs):.2f} ms a request at the least. Answers that were wrong: "
        f"{results.total('wrong')}, that failed: {results.total('failed')}; "
        f"agreement with the bare loop: {_shares(bench.agree)}.",
        "\n".join(map(str, shown)),
    ]
    text = "\n\n".join(told)
    print(f"\n{text}")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "bench.md").write_text(text + "\n")
    (folder / "bench.json").write_text(json.dumps(bench.as_json(), indent=1) + "\n")
    (folder / "bench.svg").write_text(_plot(results))
    print(f"\nAll of it is in {folder}")


def _shares(agree: dict[str, float]) -> str:
    return ", ".join(f"{name} {share:.2f}" for name, share in agree.items())


def _plot(results: Results) -> str:
    levels = [str(level) for level in LEVELS]
    names = [n for n in results.contenders("model") if n not in ("bare", "monolith")]
    bare = results.of("bare", "loop", "req_s")
    rates = {n: [results.of(n, level, "req_s") for level in levels] for n in names}
    if bare is not None:
        rates["bare limit"] = [bare] * len(levels)
    waits = {n: [results.of(n, level, "p99_ms") for level in levels] for n in names}
    costs = {n: [results.of(n, level, "cpu_ms") for level in levels] for n in names}
    x = "connections"
    return svg(
        [
            Panel("requests a second", levels, rates, x, dashed=["bare limit"]),
            Panel("p99, ms", levels, waits, x, logarithmic=True),
            Panel("CPU-ms a request", levels, costs, x, logarithmic=True),
        ]
    )


def _check(parser: argparse.ArgumentParser, option: str, given: list[str], known: object) -> None:
    names = list(known) if isinstance(known, tuple | dict) else []
    for name in given:
        if name not in names:
            parser.error(f"{option}: {name!r} is none of {', '.join(names)}")


if __name__ == "__main__":
    sys.exit(main())
