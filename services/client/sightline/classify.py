"""Classes for files: several at a time, told in the order in which they were named.

Rules:
- One bad file costs nothing but its own line.
- When nobody can be reached the files that are left are not tried, and told as failed.
"""

import json
import sys
import threading
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

from sightline.service import SEVERITY, Outcome, Service, Trouble, Unreachable
from sightline.terminal import Progress, printable

NAME: Final = 40
LABEL: Final = 36
"""Characters of a column; what is longer takes more."""

Answer = dict[str, Any]


class Job:
    """Some files, one service."""

    def __init__(self, service: Service, *, model: str, top_k: int) -> None:
        self._service = service
        self._model = model
        self._top_k = top_k
        self._lock = threading.Lock()
        self._unreachable: Unreachable | None = None
        self.done = 0
        self.failed = 0

    def ask(self, path: str) -> Answer:
        """The answer for the file at ``path``. For any thread.

        Raises:
            Trouble: There is none.
        """
        try:
            answer = self._answer(path)
        except Trouble as trouble:
            with self._lock:
                self.failed += 1
                if isinstance(trouble, Unreachable):
                    self._unreachable = trouble
            raise
        finally:
            with self._lock:
                self.done += 1
        return answer

    def _answer(self, path: str) -> Answer:
        if self._unreachable is not None:
            raise self._unreachable
        try:
            file = Path(path).read_bytes()
        except OSError as error:
            reason = f"{error.strerror or error}."
            raise Trouble(400, "unreadable", "The file cannot be read", reason, "") from None
        return self._service.classify(file, model=self._model, top_k=self._top_k)


def classify(
    service: Service,
    paths: Sequence[str],
    *,
    model: str = "",
    top_k: int = 3,
    jobs: int = 4,
    as_json: bool = False,
) -> Outcome:
    """Tell what is in the files at ``paths``, ``jobs`` at a time."""
    job = Job(service, model=model, top_k=top_k)
    tell = _tell_json if as_json else _Table(paths).tell
    progress = Progress(len(paths))
    worst = Outcome.DONE
    threads = ThreadPoolExecutor(jobs)
    try:
        asked = {path: threads.submit(job.ask, path) for path in dict.fromkeys(paths)}
        for path in paths:
            _await(asked[path], job, progress)
            progress.hide()
            worst = max(worst, tell(path, asked[path]), key=SEVERITY.index)
    finally:
        progress.hide()
        # Nobody is left to wait for, unless this is interrupted.
        threads.shutdown(wait=False, cancel_futures=True)
    if job.failed and not as_json:
        print(f"{job.failed} of {job.done} files failed", file=sys.stderr)
    return worst


def _await(asked: Future[Answer], job: Job, progress: Progress) -> None:
    while not asked.done():
        progress.show(job.done, job.failed)
        try:
            asked.exception(timeout=0.1)
        except TimeoutError:
            continue


def _tell_json(path: str, asked: Future[Answer]) -> Outcome:
    outcome = Outcome.DONE
    try:
        told: Answer = {"file": path, **asked.result()}
    except Trouble as trouble:
        outcome = trouble.outcome
        told = {"file": path, "error": trouble.problem}
    print(json.dumps(told, separators=(",", ":")), flush=True)
    return outcome


class _Table:
    """A row for each class; the head comes with the first of them."""

    def __init__(self, paths: Sequence[str]) -> None:
        self._width = min(NAME, max(len(printable(path)) for path in paths))
        self._begun = False

    def tell(self, path: str, asked: Future[Answer]) -> Outcome:
        """What became of the file at ``path``."""
        try:
            answer = asked.result()
        except Trouble as trouble:
            print(f"{printable(path)}: {printable(str(trouble))}", file=sys.stderr, flush=True)
            return trouble.outcome
        if not self._begun:
            self._begun = True
            print(f"{'FILE':{self._width}}  {'CLASS':{LABEL}}  PROBABILITY")
        name = printable(path)
        for prediction in answer["predictions"]:
            label = printable(prediction["label"])
            share = f"{prediction['probability']:.1%}"
            print(f"{name:{self._width}}  {label:{LABEL}}  {share:>11}")
            name = ""
        sys.stdout.flush()
        return Outcome.DONE
