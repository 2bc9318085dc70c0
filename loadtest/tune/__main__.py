"""The command line: ``python -m loadtest.tune``, which is what `make tune` runs.

Prints each measurement and what is best; writes a compose override, a report and all samples.
"""

import argparse
import json
import signal
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, get_args

from imaging import cpus
from loadtest.arguments import positive, seconds
from loadtest.bench.contenders import ROOT, Engine, NotReady
from loadtest.bench.photographs import photographs
from loadtest.bench.rounds import Disagreement
from loadtest.tune.compose import NAME, override
from loadtest.tune.report import Facts, as_json, html, table
from loadtest.tune.search import NoAnswers, Plan, Search
from loadtest.tune.settings import WAYS

LEVELS: Final = (1, 8, 32, 64)
INTERRUPTED: Final = 128 + signal.SIGINT


def main() -> int:
    """Search. Returns the exit status: 0, 2 if it could not be measured, 130 after Ctrl-C."""
    parser = argparse.ArgumentParser(prog="loadtest.tune", description=__doc__)
    parser.add_argument(
        "--p95-ms", type=_bound, default=None, help="what p95 may be; default: by the machine"
    )
    names = [way.name for way in WAYS]
    parser.add_argument("--vary", nargs="+", choices=names, default=names)
    parser.add_argument("--levels", type=_levels, default=LEVELS, help="connections, as 1,8,32")
    parser.add_argument("--rounds", type=positive, default=3)
    parser.add_argument("--window", type=seconds, default=5, help="seconds of each measurement")
    parser.add_argument("--model", default="efficientnet-lite0", help="a bundle's name or folder")
    parser.add_argument("--engine", choices=get_args(Engine), default="model")
    parser.add_argument("--photos", default="", help="a folder of JPEG files")
    parser.add_argument("--output", type=Path, default=ROOT / "bench-output")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    plan = Plan(
        cpus=cpus(),
        levels=arguments.levels,
        rounds=arguments.rounds,
        window_s=arguments.window,
        bound_ms=arguments.p95_ms,
        engine=arguments.engine,
        model=arguments.model,
        ways=[way for way in WAYS if way.name in arguments.vary],
    )
    try:
        with photographs(Path(arguments.photos) if arguments.photos else None) as files:
            print(f"photographs: {files.source}; {plan.cpus} CPUs", flush=True)
            print(f"at most {plan.minutes:.0f} minutes", flush=True)
            search = Search(plan, files, lambda line: print(line, flush=True))
            search.run()
            facts = Facts(date=datetime.now(UTC).date().isoformat(), photographs=files.source)
    except (NotReady, NoAnswers, Disagreement, OSError) as error:
        print(f"tune: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\ntune: stopped; nothing is written", file=sys.stderr)
        return INTERRUPTED
    _tell(search, facts, arguments.output)
    return 0


def _tell(search: Search, facts: Facts, folder: Path) -> None:
    print(f"\n{table(search)}")
    folder.mkdir(parents=True, exist_ok=True)
    where = f"{search.plan.cpus} CPUs, {facts.date}"
    (folder / NAME).write_text(override(search.best, where))
    (folder / "tune.json").write_text(json.dumps(as_json(search, facts), indent=1) + "\n")
    (folder / "tune.html").write_text(html(search, facts))
    print(f"\n{NAME}, tune.html and tune.json are in {folder}")


def _bound(text: str) -> float | None:
    return float(positive(text)) if text else None


def _levels(text: str) -> list[int]:
    return sorted({positive(word) for word in text.split(",")})


if __name__ == "__main__":
    sys.exit(main())
