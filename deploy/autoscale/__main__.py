"""Follows the scale advice: ``python -m deploy.autoscale``, from the root of the repository.

Once a second it asks `GET /api/v1/scale` how many replicas it takes, and has the compose project
run so many. One line a change. However it ends, the containers stay as they are.
"""

import argparse
import os
import signal
import sys
import threading
import time
from typing import Final

from deploy.autoscale.patience import Patience
from deploy.autoscale.project import ComposeService, NotThere
from sightline.over_http import HttpService
from sightline.service import ModelScale, Trouble

EVERY_S: Final = 1.0
ANSWER_S: Final = 5.0
SERVICE: Final = "model"
NO_PROJECT: Final = 2


def main() -> int:
    """Follow until told to stop. Returns the exit status: 0, or 2 where there is no project."""
    arguments = _arguments()
    ending = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: ending.set())
    try:
        patience = Patience(arguments.min, arguments.max, down_after_s=arguments.down_after)
        key = os.environ.get("SIGHTLINE_API_KEY", "")
        source = HttpService(arguments.url, api_key=key, timeout_s=ANSWER_S)
        service = ComposeService(arguments.project, SERVICE, _say)
    except (NotThere, ValueError) as error:
        print(f"autoscale: {error}", file=sys.stderr)
        return NO_PROJECT
    running = service.count()
    _say(f"{running} of {arguments.min} to {arguments.max} replicas; {arguments.url} advises")
    told = ""
    while not ending.wait(EVERY_S):
        trouble = ""
        try:
            _step(source, service, patience)
        except (Trouble, NotThere) as error:
            trouble = str(error)
        if trouble != told:
            _say(f"{trouble} Trying again." if trouble else "All answer again.")
            told = trouble
    _say("stopped; the replicas stay")
    service.close()
    return 0


def _step(source: HttpService, service: ComposeService, patience: Patience) -> None:
    now = time.monotonic()
    try:
        advice = _first(source.scale().models)
    except Trouble:
        patience.goal(None, 0, now)
        raise
    running = service.count()
    # Whoever stopped them all, as `docker compose down` does, does not want one more.
    if advice is None or not running:
        return
    goal = patience.goal(advice.wanted, running, now)
    if goal == running:
        return
    if goal > running:
        names = [service.add() for _ in range(goal - running)]
        _say(f"{running} -> {goal} replicas, {', '.join(names)} started. {advice.why}")
    else:
        name = service.remove_newest()
        _say(f"{running} -> {goal} replicas, {name} stops. {advice.why}")


def _first(models: tuple[ModelScale, ...]) -> ModelScale | None:
    """The advice for the service's default model; None while there is none."""
    return models[0] if models else None


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="deploy.autoscale", description=__doc__)
    parser.add_argument("--project", default="sightline", metavar="NAME", help="of Compose")
    parser.add_argument("--url", default="http://127.0.0.1:8000", help="of the web tier")
    parser.add_argument("--min", type=int, default=1, metavar="N")
    parser.add_argument("--max", type=int, default=4, metavar="N")
    parser.add_argument(
        "--down-after",
        type=float,
        default=60,
        metavar="SECONDS",
        help="the advice has to be lower for so long before one replica is taken away",
    )
    return parser.parse_args()


def _say(text: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {text}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
