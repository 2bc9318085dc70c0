"""``sightline``: what its command line says, done. `--help` is its documentation."""

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from typing import Final

from sightline.classify import classify
from sightline.over_http import HttpService
from sightline.service import Outcome, Service
from sightline.watch import watch

URL: Final = "http://127.0.0.1:8000"
INTERRUPTED: Final = 130
"""As shells say it: 128 and SIGINT."""

STATUSES: Final = """\
exit status:
  0    all is done
  1    some files could not be classified; the others are
  2    the command cannot work as it is: an option, the API key, the model's name, or its output
  3    the service cannot be reached or could not answer; try again later
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Do what the command line says. Returns the exit status."""
    parser = command_line()
    given = parser.parse_args(arguments)
    try:
        service = _service(given)
    except ValueError as error:
        parser.error(str(error))
    try:
        return int(given.run(service, given))
    except KeyboardInterrupt:
        # At once: the exit would wait for the threads, and these for their answers.
        os._exit(INTERRUPTED)
    except OSError as error:
        # Nothing is left to be said at the exit either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if isinstance(error, BrokenPipeError):  # Whoever read our output has had enough.
            return Outcome.FAILED
        print(f"sightline: the output cannot be written: {error.strerror}.", file=sys.stderr)
        return Outcome.USAGE
    finally:
        service.close()


def _service(given: argparse.Namespace) -> Service:
    if not given.broker:
        if given.keys:
            raise ValueError("--keys are for --broker; a web tier takes --api-key")
        key = given.api_key or os.environ.get("SIGHTLINE_API_KEY", "")
        return HttpService(given.url, api_key=key, timeout_s=given.timeout)
    try:
        # It brings libraries that over HTTP nobody needs.
        from sightline.over_broker import BrokerService
    except ImportError as error:
        raise ValueError(f"--broker needs what is not installed here: {error}") from None
    return BrokerService(given.broker, keys_file=given.keys, timeout_s=given.timeout)


def command_line() -> argparse.ArgumentParser:
    """What may be said, and how it is understood."""
    parser = argparse.ArgumentParser(
        prog="sightline",
        description="Ask a running Sightline what is in pictures, or how it is doing.",
        epilog=STATUSES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _classify_parser(commands)
    _watch_parser(commands)
    return parser


def _classify_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = commands.add_parser(
        "classify",
        help="the classes of image files",
        description="Tell what is in image files, in the order in which they are named.",
        epilog=STATUSES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("files", nargs="+", metavar="FILE", help="JPEG, PNG, WebP, AVIF, GIF, BMP")
    _where(parser)
    parser.add_argument("--top-k", type=_number(1, 100), default=3, metavar="N", help="classes (3)")
    parser.add_argument("--model", default="", metavar="NAME", help="instead of the first one")
    parser.add_argument(
        "--jobs", type=_number(1, 64), default=4, metavar="N", help="files at a time (4)"
    )
    parser.add_argument(
        "--json", action="store_true", help="one JSON object a line; a failure is one, too"
    )
    parser.set_defaults(run=_classify)


def _watch_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = commands.add_parser(
        "watch",
        help="what goes on at the service",
        description="Show queues, speed and replicas until interrupted.",
        epilog=STATUSES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    _where(parser)
    parser.add_argument("--once", action="store_true", help="show it once")
    parser.add_argument(
        "--interval", type=_number(1, 3600), default=1, metavar="S", help="seconds between (1)"
    )
    parser.add_argument("--json", action="store_true", help="one JSON object a line")
    parser.set_defaults(run=_watch)


def _where(parser: argparse.ArgumentParser) -> None:
    place = parser.add_mutually_exclusive_group()
    place.add_argument("--url", default=URL, metavar="URL", help=f"of the web tier ({URL})")
    place.add_argument(
        "--broker",
        default="",
        metavar="ENDPOINT",
        help="past the web tier, such as tcp://127.0.0.1:5576",
    )
    parser.add_argument(
        "--api-key",
        default="",
        metavar="KEY",
        help="for --url; better in SIGHTLINE_API_KEY, which no list of processes shows",
    )
    parser.add_argument(
        "--keys", default="", metavar="FILE", help="for --broker: a client's file of `make keys`"
    )
    parser.add_argument(
        "--timeout", type=_number(1, 600), default=30, metavar="S", help="seconds for one (30)"
    )


def _number(least: int, most: int) -> Callable[[str], int]:
    def number(text: str) -> int:
        value = int(text) if text.isascii() and text.isdigit() else 0
        if not least <= value <= most:
            raise argparse.ArgumentTypeError(f"{text!r} is no number from {least} to {most}")
        return value

    return number


def _classify(service: Service, given: argparse.Namespace) -> Outcome:
    return classify(
        service,
        given.files,
        model=given.model,
        top_k=given.top_k,
        jobs=given.jobs,
        as_json=given.json,
    )


def _watch(service: Service, given: argparse.Namespace) -> Outcome:
    return watch(service, interval_s=given.interval, once=given.once, as_json=given.json)


if __name__ == "__main__":
    sys.exit(main())
