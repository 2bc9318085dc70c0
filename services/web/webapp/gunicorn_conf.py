"""How gunicorn runs the web tier: ``gunicorn -c python:webapp.gunicorn_conf``.

Rules:
- A module of the package, so that it is found wherever the package is.
- One process with many threads unless WEB_CONCURRENCY says otherwise: the work is done by the
  decoders and the replicas, a thread only waits for them, and a second process would have
  decoders of its own that stand idle while the first one's are busy.
- A setting that cannot be used stops the start here, with one sentence.
- A stopping worker answers what it has begun: nothing takes longer than the deadline.
"""

import ctypes
import logging
import os
import resource
import shutil
import sys
import tempfile
from contextlib import suppress
from itertools import count
from typing import Any, Final

from gunicorn.glogging import Logger

from imaging import cpus
from telemetry import logs, tracing
from webapp.apikeys import read_api_keys
from webapp.app import CLASSIFIER, TRACER
from webapp.config import Config, ConfigError
from webapp.framing import MAX_HEAD_BYTES
from webapp.metrics import FOLDER, share, vacate
from webapp.worker import Worker

CONFIG_STATUS: Final = 78
"""Exit status for a bad setting (EX_CONFIG), which tells a supervisor not to try again."""

MAX_CONNECTIONS: Final = 4096
"""Idle ones and those of slow senders included: each costs a descriptor and a few kilobytes."""
DESCRIPTORS_ASIDE: Final = 256
"""For everything but connections and threads: decoders, libzmq's own. A thread has four, two for
the broker and two for a decoder."""
M_ARENA_MAX: Final = -8
"""mallopt(3)"""
ARENAS: Final = 1
"""Measured with 128 connections: 20 MB less than with one for each of 64 threads, as fast."""


def _connections() -> int:
    """As many as the system lets a process have, after asking it for more."""
    aside = DESCRIPTORS_ASIDE + 4 * _config.threads
    wanted = MAX_CONNECTIONS + aside
    allowed, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    if 0 <= allowed < wanted:  # Below zero is RLIM_INFINITY.
        allowed = wanted if most < 0 else min(wanted, most)
        resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, most))
    return MAX_CONNECTIONS if allowed < 0 else min(MAX_CONNECTIONS, allowed - aside)


try:
    _text: Final = "[%(asctime)s] [%(process)d] [%(levelname)s] %(name)s: %(message)s"
    logs.setup(os.environ, text=_text)
    _config: Final = Config.from_env(os.environ)
    _config.keys()
    read_api_keys(_config.api_keys_file)
    tracing.collector(os.environ)
except (ConfigError, logs.LogError, tracing.TracingError) as error:
    logs.say(f"sightline: {error}", os.environ, alarming=True)
    sys.exit(CONFIG_STATUS)

# Nobody interrupts another's work as soon as something comes for him: modelserver does the same.
with suppress(AttributeError, OSError):
    if os.sched_getscheduler(0) == os.SCHED_OTHER:
        os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))

# The allocator gives every thread a part of its own, each of which keeps what an upload once took.
with suppress(AttributeError, OSError):  # Another C library than glibc has no such thing.
    ctypes.CDLL(None).mallopt(M_ARENA_MAX, ARENAS)


class _ConfiguredWorker(Worker):
    config = _config


class _JsonLogger(Logger):  # type: ignore[misc]
    """gunicorn's own lines, in the form of ours."""

    def setup(self, cfg: Any) -> None:
        super().setup(cfg)
        for handler in (*self.error_log.handlers, *self.access_log.handlers):
            handler.setFormatter(logs.json_lines())


wsgi_app = "webapp.wsgi:app"
bind = _config.address
worker_class = _ConfiguredWorker
logger_class = _JsonLogger if logs.is_json(os.environ) else Logger
loglevel = logs.level(os.environ).lower()
worker_connections = _connections()
threads = _config.threads
graceful_timeout = _config.deadline_ms // 1000 + 5
# Longer than the idle time of the usual proxies is not needed, and shorter than a person's
# pause between two pictures makes no difference.
keepalive = 5
# The whole head is bounded before gunicorn sees it, and what is too long gets our kind of answer.
limit_request_line = 0
limit_request_field_size = MAX_HEAD_BYTES
limit_request_fields = 32768
# Nothing here asks who forwards a request or how, and such headers can spoil it.
forwarded_allow_ips = ""
# Heartbeats touch a file; on a disk that is busy or read-only they would stop.
worker_tmp_dir = "/dev/shm" if os.path.isdir("/dev/shm") else None
# It would send past what looks after slow readers.
sendfile = False
# The control socket wants a writable home, which a container with a read-only root lacks.
control_socket_disable = True


def on_starting(server: Any) -> None:
    """Where several workers count together; a killed server leaves it behind, some 100 KB each."""
    if server.cfg.workers > 1:
        os.environ[FOLDER] = tempfile.mkdtemp(prefix="sightline-web-", dir=worker_tmp_dir)


def pre_fork(server: Any, worker: Any) -> None:
    """Gives a worker the first place that nobody has."""
    taken = {other.place for other in server.WORKERS.values()}
    worker.place = next(place for place in count() if place not in taken)


def post_fork(_server: Any, worker: Any) -> None:
    """Called in the worker, before it makes anything that counts."""
    if FOLDER in os.environ:
        share(worker.place)


def child_exit(_server: Any, worker: Any) -> None:
    """Called in the server, whichever way a worker ended."""
    if FOLDER in os.environ:
        vacate(worker.place)


def on_exit(server: Any) -> None:
    """The last thing that the server does."""
    if server.cfg.workers > 1:
        shutil.rmtree(os.environ[FOLDER], ignore_errors=True)


def post_worker_init(worker: Any) -> None:
    """Starts the decoders before the first request instead of within it."""
    worker.wsgi.extensions[CLASSIFIER].start()
    logging.getLogger("webapp").info(
        "%d threads, %d decoders for %d CPUs, %d connections; the broker is %s",
        _config.threads,
        _config.decoders,
        cpus(),
        worker_connections,
        _config.broker,
    )


def worker_exit(_server: Any, worker: Any) -> None:
    """Ends the decoders and sockets of a worker that got far enough to have any, and sends its last
    spans."""
    if app := getattr(worker, "wsgi", None):
        app.extensions[CLASSIFIER].close()
        if tracer := app.extensions[TRACER]:
            tracer.close()
