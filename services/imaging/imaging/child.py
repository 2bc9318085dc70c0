"""A decoder process: takes files from its pool's line one by one and gives pixels back.

Run by `DecoderPool` as ``python -m imaging.child MEMORY_BYTES`` with the line (see `channel`) as
standard input. It says on its standard output that it is ready.

Rules:
- It takes its limits upon itself before the first file and cannot lift them.
- It ends when the line does, so it outlives no parent, however that ends.
- It keeps nothing from one file to the next, and has nothing to give away: no environment, no
  open file but the line, the output and a job's socket.
- A job for which nobody waits any more is not begun.
"""

import os
import resource
import signal
import socket
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Final

import msgspec
from PIL import AvifImagePlugin

from imaging import channel
from imaging.decode import prepare
from imaging.errors import ImageError

_MAX_FILES: Final = 16
"""Pillow imports a module late now and then; nothing else opens a file."""
_GRACE_S: Final = 1.0

_pack: Final = msgspec.msgpack.Encoder().encode
_unpack: Final = msgspec.msgpack.Decoder(channel.Job).decode


def limit(memory_bytes: int) -> None:
    """Bounds this process: ``memory_bytes`` above what it has now, no file written, one core."""
    if sys.platform == "linux":  # Elsewhere there is no /proc, and the limit is not kept anyway.
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        most = pages * resource.getpagesize() + memory_bytes
        resource.setrlimit(resource.RLIMIT_AS, (most, most))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_NOFILE, (_MAX_FILES, _MAX_FILES))
    # The pool decides how many cores are used; each thread would cost address space, too.
    AvifImagePlugin.DEFAULT_MAX_THREADS = 1


def serve(jobs: socket.socket) -> None:
    """Answers job after job until the pool is gone."""
    pid = os.getpid()
    while (job := channel.take_from_line(jobs)) is not None:
        with job, suppress(EOFError, ConnectionError):
            channel.take(job, channel.Taken(pid, time.monotonic()))
            channel.send(job, *answer(*channel.receive(job)))


def answer(head: bytes, data: bytes) -> tuple[bytes, ...]:
    """The head and the body of the answer to a `channel.Job`."""
    job = _unpack(head)
    # The pool kills a child that is late. This is for the case that the pool is gone itself. Of CPU
    # time, since a service that is frozen for a while is no fault of the picture.
    signal.setitimer(signal.ITIMER_PROF, job.limit_s + _GRACE_S)
    try:
        done = prepare(data, job.contract, preview=job.preview, facts=job.facts)
    except ImageError as error:
        return (_pack(channel.Refused(type(error).__name__, error.detail, error.remedy)),)
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
    told = channel.Done(done.format, done.width, done.height, done.warnings, done.facts)
    return _pack(told), done.pixels, done.preview


if __name__ == "__main__":
    limit(int(sys.argv[1]))
    with socket.socket(fileno=sys.stdin.fileno()) as line:
        os.write(sys.stdout.fileno(), b"\n")
        serve(line)
