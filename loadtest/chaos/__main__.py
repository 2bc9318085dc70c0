"""The command line: ``python -m loadtest.chaos``, from the root of the repository."""

import argparse
import signal
import sys

from loadtest.arguments import positive
from loadtest.chaos.compose import ComposeProject, NotRunning
from loadtest.chaos.drill import ROOT, Drill, Plan
from loadtest.chaos.processes import judged


def main() -> int:
    """Run one drill. Returns its exit status: 0 if it passed, 1 if not, 2 without a service."""
    parser = argparse.ArgumentParser(prog="loadtest.chaos", description=__doc__)
    parser.add_argument("--target", choices=["own", "compose"], default="own")
    parser.add_argument("--seconds", type=positive, default=60, metavar="N")
    parser.add_argument("--requests", type=positive, default=5000, help="at least so many")
    parser.add_argument("--clients", type=positive, default=32, metavar="N")
    parser.add_argument("--replicas", type=positive, default=3, help="of a service of its own")
    parser.add_argument("--seed", type=int, default=1, help="chooses the victims")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    plan = Plan(
        seconds=arguments.seconds,
        requests=arguments.requests,
        clients=arguments.clients,
        seed=arguments.seed,
    )
    try:
        if arguments.target == "compose":
            with ComposeProject(ROOT) as project:
                return 0 if Drill(project, plan).run() else 1
        return judged("chaos", arguments.replicas, lambda own: Drill(own, plan).run())
    except (NotRunning, OSError, ValueError) as error:
        print(f"chaos: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
