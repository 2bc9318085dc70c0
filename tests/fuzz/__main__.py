"""Runs targets, one a CPU at a time, each for some seconds, and sums up; fails at what one finds.

Rules:
- What was found worth keeping stays in ``.fuzz/TARGET``, so that the next run goes on from there.
- Bytes that a target does not stand stay in ``.fuzz``, with the command that shows what happens.
"""

import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from itertools import repeat
from pathlib import Path
from typing import Final

from imaging import cpus
from tests.fuzz import ROOT, load, names

KEPT: Final = ROOT / ".fuzz"
DRIVE: Final = (sys.executable, "-m", "tests.fuzz.drive")
LIMITS: Final = ("-timeout=10", "-rss_limit_mb=1024", "-max_len=16384")


def run(name: str, seconds: int) -> bool:
    """Whether nothing was found in so many seconds."""
    corpus = KEPT / name
    corpus.mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate(load(name).seeds()):
        (corpus / f"seed-{number}").write_bytes(seed)
    log = KEPT / f"{name}.log"
    with log.open("wb") as output:
        status = subprocess.run(
            [
                *(*DRIVE, name, str(corpus)),
                *LIMITS,
                f"-max_total_time={seconds}",
                f"-artifact_prefix={KEPT}/{name}-",
                "-print_final_stats=1",
            ],
            cwd=ROOT,
            stdout=output,
            stderr=output,
            check=False,
        ).returncode
    said = log.read_text(errors="replace")
    told = [f"{name:>10}: {_summary(said)}"]
    if status != 0:
        told.append(said[-4000:])
        if written := re.search(r"Test unit written to (\S+)", said):
            told.append(f"Again: {Path(sys.executable)} -m tests.fuzz.drive {name} {written[1]}")
    # In one piece, since others tell theirs meanwhile.
    print("\n".join([*told, ""]), end="", flush=True)
    return status == 0


def _summary(said: str) -> str:
    last = re.findall(r"cov: (\d+) ft: \d+ corp: (\d+)/\S+", said)
    runs = re.search(r"stat::number_of_executed_units: +(\d+)", said)
    rate = re.search(r"stat::average_exec_per_sec: +(\d+)", said)
    if not last or not runs or not rate:
        return "did not get anywhere"
    covered, kept = last[-1]
    return f"{runs[1]} inputs, {rate[1]} a second; {covered} branches reached, {kept} inputs kept"


def main(arguments: list[str]) -> int:
    seconds = int(arguments.pop(0)) if arguments and arguments[0].isdigit() else 30
    unknown = [name for name in arguments if name not in names()]
    if unknown or seconds < 1:
        wrong = (
            f"{unknown[0]!r} is neither seconds nor a" if unknown else "1 second is the least for a"
        )
        sys.exit(f"fuzz: {wrong} target of {', '.join(names())}")
    with ThreadPoolExecutor(cpus()) as lanes:
        passed = list(lanes.map(run, arguments or names(), repeat(seconds)))
    return 0 if all(passed) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
