"""Users of the service for Locust: people with a browser, programs, and programs with many files.

Rules:
- The load is offered, not answered: a user has its turn TURNS_S times a second however long the
  answers take, as a crowd of strangers would. What was offered is told beside what was achieved.
- An answer without classes is a failure, and so is a refusal.
- A run ends with exit status 1 when its p95 or its share of failures passes the limit that was
  set, so that a pipeline can be stopped by it.
"""

import itertools
import time
from argparse import Namespace
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import gevent
from gevent.pool import Pool
from locust import FastHttpUser, HttpUser, LoadTestShape, constant_throughput, events, task
from locust.argument_parser import LocustArgumentParser
from locust.env import Environment

GOLDEN: Final = (
    Path(__file__).parents[1] / "services/model/modelserver/bundles/efficientnet-lite0/golden"
)
TURNS_S: Final = 1.0
"""Turns a second of every user."""
FILES: Final = 8
"""That the batch client has for one turn, and how many it sends at a time."""
AT_A_TIME: Final = 4
TELL_S: Final = 5.0
RUN_S: Final = 60.0
USERS: Final = 10
CLASSIFY: Final = "/api/v1/classify"


class Meter:
    """Counts the turns that users should have had, and those that they have had."""

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        """A run begins."""
        self.offered = 0.0
        self.done = 0
        self.shared = 0
        self._began = self._at = time.monotonic()
        self._users = 0

    @property
    def seconds(self) -> float:
        """Between the beginning and the last look."""
        return self._at - self._began

    def look(self, users: int, now: float) -> None:
        """There are ``users`` from ``now`` on, in seconds on the monotonic clock."""
        self.offered += self._users * TURNS_S * (now - self._at)
        self._at, self._users = now, users


meter = Meter()
chosen: Any = Namespace()
"""The options of the command line, which the web page may change between runs."""
_pictures: list[tuple[str, bytes]] = []
_turn: Final = itertools.count()


def picture() -> tuple[str, bytes]:
    """The next one: its name and its bytes."""
    return _pictures[next(_turn) % len(_pictures)]


class BrowserUser(HttpUser):
    """A person: the page with the form, and one picture through it."""

    weight = 2
    wait_time = constant_throughput(TURNS_S)

    @task
    def upload(self) -> None:
        """One turn."""
        self.client.get("/")
        with self.client.post(
            "/uploader", files={"file": picture()}, catch_response=True
        ) as answer:
            if answer.status_code == 200 and "%" not in answer.text:
                answer.failure("a page without classes")
        meter.done += 1


class ApiUser(FastHttpUser):
    """A program: one picture as the body of a request."""

    weight = 7
    wait_time = constant_throughput(TURNS_S)

    @task
    def classify(self) -> None:
        """One turn."""
        _classify(self.client, CLASSIFY)
        meter.done += 1


class BatchUser(FastHttpUser):
    """A program with a folder of pictures, some of them under way at the same time."""

    weight = 1
    wait_time = constant_throughput(TURNS_S / FILES)

    @task
    def classify_all(self) -> None:
        """FILES turns at once."""
        pool = Pool(AT_A_TIME)
        for _ in range(FILES):
            pool.spawn(_classify, self.client, f"{CLASSIFY} (batch)")
        pool.join()
        meter.done += FILES


def _classify(client: Any, name: str) -> None:
    _, body = picture()
    with client.post(CLASSIFY, data=body, name=name, catch_response=True) as answer:
        if answer.status_code == 200:
            told = answer.json()
            meter.shared += told.get("cache") in ("hit", "joined")
            if not told.get("predictions"):
                answer.failure("an answer without classes")


# --- shapes: how many users there are when -------------------------------------------------------


SHAPES: Final[dict[str, Callable[[float], float]]] = {
    # All users for the whole time: does anything grow?
    "soak": lambda _: 1.0,
    # From a tenth of the users to all of them, in ten steps: where is the knee?
    "ramp": lambda elapsed: (int(elapsed * 10) + 1) / 10,
    # A quarter of the users, all of them for a third of the time, and a quarter again.
    "spike": lambda elapsed: 1.0 if 1 / 3 <= elapsed < 2 / 3 else 0.25,
}
"""The share of the users at each share of the time."""


class Shape(LoadTestShape):
    """Lasts for --run-time and has --users at its highest."""

    use_common_options = True

    def tick(self) -> tuple[int, float] | None:
        """What Locust asks for every second: how many users, and how fast to get there."""
        elapsed = self.get_run_time() / (chosen.run_time or RUN_S)
        if elapsed >= 1:
            return None
        users = chosen.num_users or USERS
        return max(1, round(users * SHAPES[chosen.shape](elapsed))), users


# --- options, the account, and the verdict -------------------------------------------------------


@events.init_command_line_parser.add_listener
def _options(parser: LocustArgumentParser) -> None:
    own = parser.add_argument_group("Sightline")
    own.add_argument("--shape", choices=list(SHAPES), default="soak")
    own.add_argument("--pictures", default=str(GOLDEN), help="a folder of pictures to send")
    own.add_argument("--max-p95-ms", type=float, default=1000.0, help="more fails the run")
    own.add_argument("--max-failures", type=float, default=0.01, help="a larger share fails it")


@events.init.add_listener
def _prepare(environment: Environment, **_: Any) -> None:
    global chosen
    chosen = environment.parsed_options
    _pictures[:] = _read(Path(chosen.pictures))


def _read(folder: Path) -> list[tuple[str, bytes]]:
    kinds = {".jpg", ".jpeg", ".png", ".webp", ".avif", ".gif", ".bmp"}
    paths = sorted(path for path in folder.iterdir() if path.suffix.lower() in kinds)
    if not paths:
        raise SystemExit(f"there are no pictures in {folder}")
    return [(path.name, path.read_bytes()) for path in paths]


@events.test_start.add_listener
def _begin(environment: Environment, **_: Any) -> None:
    meter.clear()
    gevent.spawn(_watch, environment)


def _watch(environment: Environment) -> None:
    """Follows the number of users and says now and then how it goes."""
    told = time.monotonic()
    for now in _ticks(environment):
        meter.look(environment.runner.user_count if environment.runner else 0, now)
        if now - told >= TELL_S:
            told = now
            print(_account(environment), flush=True)


def _ticks(environment: Environment) -> Iterator[float]:
    while environment.runner is not None and environment.runner.state != "stopped":
        yield time.monotonic()
        gevent.sleep(0.1)


def _account(environment: Environment) -> str:
    total = environment.stats.total
    p95 = total.get_response_time_percentile(0.95) or 0
    seconds = meter.seconds or 1
    return (
        f"{meter.seconds:4.0f} s  offered {meter.offered / seconds:.1f} turns/s, "
        f"achieved {meter.done / seconds:.1f}; "
        f"{total.num_requests} requests, {total.num_failures} failed, p95 {p95:.0f} ms"
    )


@events.quitting.add_listener
def _judge(environment: Environment, **_: Any) -> None:
    """Says what was offered and achieved, and decides on the exit status."""
    total = environment.stats.total
    print(_account(environment))
    if meter.shared:
        print(
            f"load: no replica was asked for {meter.shared} answers; "
            "to measure them, start the service with WEB_CACHE_BYTES=0"
        )
    troubles = []
    p95 = total.get_response_time_percentile(0.95) or 0
    if not total.num_requests:
        troubles.append("nothing was asked")
    if p95 > chosen.max_p95_ms:
        troubles.append(f"p95 is {p95:.0f} ms, more than {chosen.max_p95_ms:.0f}")
    if total.fail_ratio > chosen.max_failures:
        troubles.append(f"{total.fail_ratio:.1%} failed, more than {chosen.max_failures:.1%}")
    for trouble in troubles:
        print(f"load: {trouble}")
    environment.process_exit_code = 1 if troubles else 0
