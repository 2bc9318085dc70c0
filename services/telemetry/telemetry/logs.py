"""The lines of a log: text for a person, or one JSON object each for a program.

Rules:
- LOG_FORMAT and LOG_LEVEL mean the same to every program of the service.
- What a line says as text it says as JSON; the names of the request that it is about, given as
  ``extra``, are fields of their own there.
- In JSON everything goes through the log: warnings, exceptions that nobody caught, last words.
"""

import logging
import os
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import TracebackType
from typing import Final

FORMATS: Final = ("text", "json")
STDERR: Final = 2
LEVELS: Final = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")

log = logging.getLogger("Sightline")


class LogError(ValueError):
    """A setting of the log does not fit; the message is one sentence."""


def level(env: Mapping[str, str]) -> str:
    """The least that is told, one of LEVELS. Raises LogError."""
    return _chosen(env, "LOG_LEVEL", LEVELS, "INFO")


def is_json(env: Mapping[str, str]) -> bool:
    """Whether lines are JSON. Raises LogError."""
    return _chosen(env, "LOG_FORMAT", FORMATS, "text") == "json"


def _chosen(env: Mapping[str, str], name: str, choices: tuple[str, ...], default: str) -> str:
    value = env.get(name) or default
    if value not in choices:
        raise LogError(f"{name} cannot be {value!r}; it is one of {', '.join(choices)}.")
    return value


def setup(env: Mapping[str, str], *, text: str) -> None:
    """Has this process log to the standard error as ``env`` says; ``text`` is the format of a line
    that is not JSON.

    Raises:
        LogError: A setting does not fit.
    """
    if not is_json(env):
        logging.basicConfig(level=level(env), format=text)
    else:
        # A descriptor of its own, which `printed_as_lines` leaves where it is.
        handler = logging.StreamHandler(os.fdopen(os.dup(STDERR), "w"))
        handler.setFormatter(json_lines())
        logging.basicConfig(level=level(env), handlers=[handler])
        logging.captureWarnings(True)
        sys.excepthook = _uncaught
        threading.excepthook = _uncaught_in_thread


def json_lines() -> logging.Formatter:
    """Makes a JSON object of a record: `time` (RFC 3339, in UTC), `level`, `logger`, `message`,
    `exception` where there is one, and whatever was given as ``extra``."""
    from pythonjsonlogger.msgspec import MsgspecFormatter

    return MsgspecFormatter(
        ("levelname", "name", "process", "message"),
        rename_fields={"levelname": "level", "name": "logger", "exc_info": "exception"},
        timestamp="time",
    )


@contextmanager
def printed_as_lines(env: Mapping[str, str]) -> Iterator[None]:
    """What a library prints to the standard error meanwhile is a line of the log where that is
    JSON. Not for longer than such a library takes to load: if the process crashes, what it has
    just printed is lost."""
    if not is_json(env):
        yield
        return
    kept = os.dup(STDERR)
    reading, writing = os.pipe()
    os.dup2(writing, STDERR)
    os.close(writing)
    thread = threading.Thread(target=_log_lines, args=(reading,), name="stderr", daemon=True)
    thread.start()
    try:
        yield
    finally:
        os.dup2(kept, STDERR)
        os.close(kept)
        # Nobody else has the other end, unless a process was started that lives on.
        thread.join(1.0)


def _log_lines(reading: int) -> None:
    with os.fdopen(reading, errors="replace") as lines:
        for line in lines:
            if line.strip():
                log.info("%s", line.strip())


def say(sentence: str, env: Mapping[str, str], *, alarming: bool = False) -> None:
    """Tell whoever started this program something: as it is, or as a line of the JSON log."""
    if _is_surely_json(env):
        log.log(logging.CRITICAL if alarming else logging.INFO, "%s", sentence)
    else:
        print(sentence, file=sys.stderr if alarming else sys.stdout, flush=True)


def _is_surely_json(env: Mapping[str, str]) -> bool:
    try:
        return is_json(env)
    except LogError:
        return False


def _uncaught(
    kind: type[BaseException], error: BaseException, traceback: TracebackType | None
) -> None:
    log.critical("ended by an exception that nobody caught", exc_info=(kind, error, traceback))


def _uncaught_in_thread(args: threading.ExceptHookArgs) -> None:
    if args.exc_value is not None:
        log.critical(
            "a thread was ended by an exception that nobody caught",
            exc_info=(args.exc_type, args.exc_value, args.exc_traceback),
        )
