"""The command line: ``python -m modelserver broker | replica | serve | health | keys``."""

import argparse
import contextlib
import logging
import os
import signal
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from modelserver.config import BrokerConfig, ConfigError, ReplicaConfig, load_keys
from modelserver.supervisor import CONFIG_STATUS
from telemetry import logs, tracing
from wire.keys import BrokerKeys, PeerKeys

if TYPE_CHECKING:
    from modelserver.bundle import Bundle
    from modelserver.engines import Engine
    from modelserver.tally import Refusal


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one line; ``--help`` has the rest."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"sightline: {message}\n")


def main() -> int:
    """Run the program that the command line names. Returns its exit status."""
    parser = _Parser(prog="modelserver", description=__doc__)
    programs = parser.add_subparsers(dest="program", required=True)
    programs.add_parser("broker", help="carry requests between web and replicas (BROKER_*)")
    programs.add_parser("replica", help="classify what the broker hands out (MODEL_*)")
    serve = programs.add_parser("serve", help="broker, replicas and web on this machine")
    serve.add_argument("--replicas", type=_replicas, default=1, metavar="N")
    serve.add_argument("--host", default="127.0.0.1")
    serve.add_argument("--port", type=_port, default=8000)
    serve.add_argument("--model", default="efficientnet-lite0", help="a bundle's name or folder")
    health = programs.add_parser("health", help="exit status 0 if it serves, with its settings")
    health.add_argument("part", choices=["broker", "replica"])
    keys = programs.add_parser("keys", help="make key files for all parts")
    keys.add_argument("folder", type=Path)
    arguments = parser.parse_args()

    _wait_politely()
    try:
        logs.setup(os.environ, text="%(asctime)s %(levelname)s %(name)s: %(message)s")
        match arguments.program:
            case "broker":
                return _broker()
            case "replica":
                return _replica()
            case "health":
                return _health(arguments.part)
            case "keys":
                return _keys(arguments.folder)
            case _:
                return _serve(arguments)
    except (ConfigError, logs.LogError, tracing.TracingError) as error:
        logs.say(f"sightline: {error}", os.environ, alarming=True)
        return CONFIG_STATUS


def _wait_politely() -> None:
    """Has no thread of this process interrupt another's work as soon as something comes for it.

    On busy cores it waits for a moment until its turn comes, finds more to do then, and less of
    what it needs gone from the core's cache: docs/performance.md has what that is worth.
    """
    # Only Linux has such a thing, it may be forbidden, and somebody may have chosen already.
    with contextlib.suppress(AttributeError, OSError):
        if os.sched_getscheduler(0) == os.SCHED_OTHER:
            os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))


def _broker() -> int:
    import zmq

    from modelserver.broker import Broker

    config = BrokerConfig.from_env(os.environ)
    keys = load_keys("BROKER_KEYS_FILE", config.keys_file, BrokerKeys)
    with contextlib.ExitStack() as held:
        tracer = held.enter_context(tracing.tracer("sightline-broker", os.environ))
        broker = Broker(config, keys, tracer)
        _on_stop(broker.stop)
        if config.metrics:
            # What reads them out takes 10 MB that a broker which nobody scrapes can do without.
            from modelserver.broker_metrics import BrokerMetrics
            from modelserver.scrape import served

            held.enter_context(
                served("BROKER_METRICS", config.metrics, BrokerMetrics(broker.observe))
            )
        try:
            broker.run()
        except zmq.ZMQError as error:
            raise ConfigError(
                f"The broker cannot listen at {config.frontend} and {config.backend}: {error}."
            ) from None
    return 0


def _replica() -> int:
    # Until the replica can leave in order it has nothing to lose by ending at once.
    _on_stop(lambda: os._exit(0))
    config = ReplicaConfig.from_env(os.environ)
    from modelserver.gpu import GpuError, leased, memory_used
    from modelserver.reload import Reload
    from modelserver.replica import Replica
    from modelserver.tally import Refusal, Tally

    keys = load_keys("MODEL_KEYS_FILE", config.keys_file, PeerKeys)
    tally = Tally()
    with contextlib.ExitStack() as held:
        if config.metrics:
            # Before the model is loaded: that may take minutes, or fail again and again.
            from modelserver.replica_metrics import ReplicaMetrics
            from modelserver.scrape import served

            gpus = partial(memory_used, os.environ) if config.device == "gpu" else None
            metrics = ReplicaMetrics(tally, gpus)
            held.enter_context(served("MODEL_METRICS", config.metrics, metrics))
        gpu_memory_mib = None
        if config.device == "gpu":
            try:
                gpu_memory_mib = held.enter_context(leased(config, keys, os.environ))
            except GpuError as error:
                raise ConfigError(str(error)) from None
        tracer = held.enter_context(tracing.tracer("sightline-replica", os.environ))
        load = partial(_model, config, gpu_memory_mib)

        def refused(refusal: Refusal) -> None:
            tally.refused[refusal] += 1

        reload = Reload(load, refused)
        signal.signal(signal.SIGHUP, lambda *_: reload.ask())
        model: tuple[Bundle, Engine] | None = load()
        stopped = False
        while model is not None and not stopped:
            replica = Replica(config, *model, keys, tracer, tally)

            def stop(replica: Replica = replica) -> None:
                nonlocal stopped
                stopped = True
                replica.stop()

            _on_stop(stop)
            reload.serve(replica.stop)
            replica.run()
            model = reload.take()
    return 0


def _model(config: ReplicaConfig, gpu_memory_mib: int | None) -> "tuple[Bundle, Engine]":
    from imaging import cpus
    from modelserver.bundle import BundleError, find_bundle, load_bundle
    from modelserver.engines import EngineError, GoldenError, LatencyCurve, load_engine
    from modelserver.reload import BundleRefused

    threads = config.threads or cpus()
    try:
        bundle = load_bundle(find_bundle(config.bundle))
        with logs.printed_as_lines(os.environ):
            engine = load_engine(
                config.engine,
                bundle,
                threads=threads,
                max_batch=config.largest_batch,
                device=config.device,
                xla=config.xla,
                gpu_memory_mib=gpu_memory_mib,
                latency=LatencyCurve(config.simulated_base_ms, config.simulated_image_ms),
            )
    except (BundleError, EngineError, OSError) as error:
        # An OSError: it was replaced while it was read, or a golden picture is none.
        refusal: Refusal = "golden" if isinstance(error, GoldenError) else "load"
        raise BundleRefused(str(error), refusal) from None
    logging.getLogger("Replica").info(
        "%s version %s on %s: %d engine threads for %d CPUs, %d batches of up to %d at a time",
        bundle.manifest.name,
        bundle.manifest.version,
        engine.device,
        threads,
        cpus(),
        engine.parallel,
        engine.max_batch,
    )
    return bundle, engine


def _serve(arguments: argparse.Namespace) -> int:
    from modelserver.serve import supervisor

    service = supervisor(
        os.environ,
        replicas=arguments.replicas,
        host=arguments.host,
        port=arguments.port,
        bundle=arguments.model,
    )
    _on_stop(service.stop)
    signal.signal(signal.SIGHUP, lambda *_: service.reload())
    return service.run()


def _health(part: str) -> int:
    from modelserver.health import broker_serves, replica_serves

    if part == "broker":
        config = BrokerConfig.from_env(os.environ)
        keys = load_keys("BROKER_KEYS_FILE", config.keys_file, BrokerKeys)
        return 0 if broker_serves(config.frontend, keys) else 1
    alive_file = ReplicaConfig.from_env(os.environ).alive_file
    if not alive_file:
        raise ConfigError("MODEL_ALIVE_FILE is not set, so a replica's health cannot be told.")
    return 0 if replica_serves(Path(alive_file)) else 1


def _keys(folder: Path) -> int:
    from modelserver.keygen import make_keys

    try:
        files = make_keys(folder)
    except OSError as error:
        raise ConfigError(f"No keys were made: {error}.") from None
    print("\n".join(str(file) for file in files))
    return 0


def _on_stop(stop: Callable[[], object]) -> None:
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop())


def _replicas(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of replicas; it must be 1 or more")
    return int(text)


def _port(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is no port; it must be 1 to 65535")
    return int(text)


if __name__ == "__main__":
    sys.exit(main())
