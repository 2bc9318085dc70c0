"""Many pictures in one request: each an item with its own answer, told as soon as it is there.

Rules:
- A line an item, in the order in which they are done. One bad item fails alone.
- An item's deadline begins when its turn comes, and the last turn comes within so many deadlines
  of the request's beginning. Whoever has to stop begins no further item, but says so of each.
- AT_ONCE items of a request are under way, so that replicas can make batches of them, and files of
  few bytes: that, and how many such requests there may be, bounds the memory and the threads.
- When the sender has left, nothing more is decoded or sent, and what was sent is cancelled.
- Where nothing else is said, these wait for whatever is interactive.
"""

import logging
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from threading import BoundedSemaphore, Event
from typing import Any, Final, NamedTuple

import msgspec
from msgspec.structs import asdict

from imaging import NotAnImage
from webapp.answers import AnswerLine, ProblemLine, answer_of
from webapp.archives import Upload, is_archive
from webapp.classifier import Classified
from webapp.client import PEEK_S
from webapp.envelope import problem_of
from webapp.errors import (
    DeadlineExceeded,
    Overloaded,
    SenderLeft,
    Unavailable,
    WebError,
    from_exception,
)
from webapp.metrics import Metrics
from webapp.presence import STOPPING, Left
from wire import log_fields

MEDIA: Final = "application/x-ndjson"
AT_ONCE: Final = 8
"""Two batches, as a replica on a CPU makes them."""
AHEAD_BYTES: Final = 16 * 1024 * 1024
"""When the files under way have as many, none is taken out of an archive until one is done."""
REQUESTS: Final = 8
"""A process with 64 threads keeps most of them for others, whatever happens."""
DEADLINES: Final = 10
"""The last item begins within so many deadlines, which is 100 s by default: for 256 pictures, twice
what a single slow CPU takes for the model that it can just bear."""

logger = logging.getLogger("Many")

Classify = Callable[[bytes, str, float, Left], Classified]
"""The file, its request's id, when its time began, and whether nobody waits for it any longer."""


class _Item(NamedTuple):
    at: int
    upload: Upload
    nbytes: int


class Many:
    """Answers requests with many pictures, REQUESTS at a time."""

    def __init__(self, deadline_ms: int, metrics: Metrics) -> None:
        """``deadline_ms`` is what one picture may take."""
        self._metrics = metrics
        self._begin_within_s = DEADLINES * deadline_ms / 1000
        self._places = BoundedSemaphore(REQUESTS)

    def enter(self) -> Callable[[], None]:
        """A place for a request; what is returned gives it back, and must be called once.

        Raises:
            Overloaded: They are all taken.
        """
        if not self._places.acquire(blocking=False):
            raise Overloaded(f"{REQUESTS} requests with many pictures are being answered already.")
        return self._places.release

    def lines(
        self,
        uploads: Iterable[Upload],
        classify: Classify,
        *,
        began: float,
        request_id: str,
        left: Left,
    ) -> Iterator[bytes]:
        """A line of JSON for each of ``uploads``, until their sender has ``left``.

        Args:
            uploads: The files; the next is asked for when there is room for it.
            classify: Called in several threads at once.
            began: When the request did, of ``time.monotonic()``.
            request_id: An item's own id is this and its index.
            left: Whether nobody waits for the answers any longer.
        """
        items = (
            _Item(index, upload, len(upload.data) if isinstance(upload.data, bytes) else 0)
            for index, upload in enumerate(uploads)
        )
        begin_by = began + self._begin_within_s
        ended = Event()

        def gone() -> bool:
            return ended.is_set() or left()

        def answered(item: _Item) -> bytes:
            item_id = f"{request_id}.{item.at}"
            named: Any = {"id": item.upload.id or str(item.at), "index": item.at}
            file = None
            try:
                file = _classifiable(item.upload, begin_by, gone)
                classified = classify(file, item_id, time.monotonic(), gone)
            except Exception as error:
                if file is None:  # What `classify` is given, it counts by itself.
                    self._metrics.failed(error)
                refused = from_exception(error)
                if type(refused) is WebError:
                    text = "request %s met an unforeseen error"
                    logger.exception(text, item_id, extra=log_fields(item_id))
                problem = asdict(problem_of(refused, item_id))
                return _line(ProblemLine(**problem, **named, retry_after_s=refused.retry_after_s))
            return _line(AnswerLine(**asdict(answer_of(classified, item_id)), **named))

        with ThreadPoolExecutor(AT_ONCE, "many") as lanes:
            under_way: dict[Future[bytes], int] = {}
            try:
                while not left():
                    while len(under_way) < AT_ONCE and sum(under_way.values()) < AHEAD_BYTES:
                        if (item := next(items, None)) is None:
                            break
                        under_way[lanes.submit(answered, item)] = item.nbytes
                    if not under_way:
                        return
                    done, _ = wait(under_way, PEEK_S, FIRST_COMPLETED)
                    for future in done:
                        del under_way[future]
                        yield future.result()
            finally:
                ended.set()


def _classifiable(upload: Upload, begin_by: float, gone: Left) -> bytes:
    """Its bytes, if they can still be begun with."""
    if isinstance(upload.data, WebError):
        raise upload.data
    if is_archive(upload.data):
        raise NotAnImage(
            "This is an archive, and not a picture.",
            "Send an archive as the body of a request of its own, with only pictures in it.",
        )
    if gone():
        raise SenderLeft("The connection was closed.")
    if STOPPING.is_set():
        raise Unavailable("This server is shutting down.")
    if time.monotonic() >= begin_by:
        raise DeadlineExceeded("Its turn did not come in time.", "Send fewer pictures at once.")
    return upload.data


def _line(line: AnswerLine | ProblemLine) -> bytes:
    # A person who reads along looks for the name first.
    ordered = {"id": line.id, "index": line.index, **asdict(line)}
    return msgspec.json.encode(ordered) + b"\n"
