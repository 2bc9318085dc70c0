"""What the processes of a service take, and whether it grows: the soak's measure and its judgement.

How growth is told from noise:
- Memory is PSS, the proportional set size, without the pages of files: a page that several
  processes share is divided among them, and what is only a copy of a file on disk is nobody's
  growth; it changes with every stranger that runs the same interpreter.
- The first and the last tenth of the samples are compared, by the least of either. Requests under
  way move the most and the middle, and how many those are depends on what else the machine does;
  only a leak moves the least. Of descriptors and threads, whole things, none may be added.
- A process that ended or came meanwhile is trouble too: nothing was killed.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple

FEWEST: Final = 20
"""Samples below which a tenth is no more than one of them."""


class Process(NamedTuple):
    """One process of the service, by the part that it belongs to."""

    name: str
    pid: int


class Use(NamedTuple):
    """What a process takes at one moment, or at the least over some."""

    pss_kib: int
    descriptors: int
    threads: int


Sample = Mapping[Process, Use]


@dataclass(frozen=True, slots=True)
class Finding:
    """What became of one process between the first and the last tenth."""

    process: Process
    first: Use
    last: Use
    troubles: tuple[str, ...]

    @property
    def growth(self) -> float:
        """Of its memory, as a share of what it was."""
        return self.last.pss_kib / self.first.pss_kib - 1

    def __str__(self) -> str:
        memory = f"{self.first.pss_kib / 1024:7.1f} {self.last.pss_kib / 1024:7.1f} MiB"
        descriptors = f"{self.first.descriptors:4} {self.last.descriptors:4}"
        threads = f"{self.first.threads:4} {self.last.threads:4}"
        verdict = "; ".join(self.troubles) or "ok"
        return (
            f"{self.process.name:15} {memory} {self.growth * 100:+6.2f} %   {descriptors}   "
            f"{threads}   {verdict}"
        )


HEADING: Final = f"{'':15} {'memory (PSS)':>19} {'growth':>8}   descriptors   threads"


def judge(samples: Sequence[Sample], *, tolerance: float) -> list[Finding]:
    """Which processes grew over ``samples``, oldest first; ``tolerance`` is for their memory, as
    a share of it.

    Raises:
        ValueError: There are too few samples to tell.
    """
    if len(samples) < FEWEST:
        raise ValueError(f"{len(samples)} samples say nothing about growth; {FEWEST} may.")
    tenth = len(samples) // 10
    first, last = samples[:tenth], samples[-tenth:]
    everybody = dict.fromkeys(process for sample in samples for process in sample)
    return [_finding(process, first, last, tolerance) for process in everybody]


def _finding(
    process: Process, first: Sequence[Sample], last: Sequence[Sample], tolerance: float
) -> Finding:
    before = [sample[process] for sample in first if process in sample]
    after = [sample[process] for sample in last if process in sample]
    if len(before) < len(first):
        return Finding(process, _summary(after), _summary(after), ("came meanwhile",))
    if len(after) < len(last):
        return Finding(process, _summary(before), _summary(before), ("ended meanwhile",))
    finding = Finding(process, _summary(before), _summary(after), ())
    grown = {
        "memory": finding.growth >= tolerance,
        "descriptors": finding.last.descriptors > finding.first.descriptors,
        "threads": finding.last.threads > finding.first.threads,
    }
    troubles = tuple(f"{what} grew" for what, did in grown.items() if did)
    return Finding(process, finding.first, finding.last, troubles)


def _summary(uses: Sequence[Use]) -> Use:
    if not uses:  # It came and went between the tenths.
        return Use(1, 0, 0)
    return Use(
        min(use.pss_kib for use in uses),
        min(use.descriptors for use in uses),
        min(use.threads for use in uses),
    )


def measure(parts: Mapping[str, int]) -> dict[Process, Use]:
    """What every process of some parts takes now; a part is the pid of its first process."""
    found: dict[Process, Use] = {}
    for part, root in parts.items():
        names: dict[str, int] = {}
        for pid in _tree(root):
            try:
                kind = _kind(part, pid, root)
                names[kind] = number = names.get(kind, 0) + 1
                found[Process(kind if number == 1 else f"{kind} {number}", pid)] = _use(pid)
            except (FileNotFoundError, ProcessLookupError):
                continue
    return found


def _tree(pid: int) -> Iterator[int]:
    yield pid
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            children = [int(child) for child in task.read_text().split()]
        except (FileNotFoundError, ProcessLookupError):
            continue
        for child in sorted(children):
            yield from _tree(child)


def _kind(part: str, pid: int, root: int) -> str:
    if pid == root:
        return part
    decodes = b"imaging.child" in Path(f"/proc/{pid}/cmdline").read_bytes()
    return f"{part} decoder" if decodes else f"{part} worker"


def _use(pid: int) -> Use:
    folder = Path(f"/proc/{pid}")
    memory = folder / "smaps_rollup"
    return Use(
        _field(memory, "Pss_Anon:") + _field(memory, "Pss_Shmem:"),
        len(list((folder / "fd").iterdir())),
        _field(folder / "status", "Threads:"),
    )


def _field(file: Path, name: str) -> int:
    line = next(line for line in file.read_text().splitlines() if line.startswith(name))
    return int(line.split()[1])
