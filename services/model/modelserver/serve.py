"""The whole service on one machine: a broker, some replicas and the web tier, supervised.

What a container platform does for many machines the Supervisor does here. The three tiers are
the same programs with the same settings; only their addresses are chosen for them.
"""

import http.client
import socket
import sys
from collections.abc import Mapping

from imaging import cpus
from modelserver.bundle import BundleError, find_bundle
from modelserver.config import BrokerConfig, ConfigError, ReplicaConfig, from_here
from modelserver.supervisor import Program, Supervisor
from telemetry import logs

WEB_GRACE_S = 20.0
REPLICA_GRACE_S = 20.0
BROKER_GRACE_S = 5.0


def supervisor(
    env: Mapping[str, str], *, replicas: int, host: str, port: int, bundle: str
) -> Supervisor:
    """A supervisor for one broker, ``replicas`` replicas of ``bundle``, and web on ``port``.

    Everything that ``env`` sets for a tier holds; what it leaves open is chosen here.

    Raises:
        ConfigError: A setting does not fit, there is no such bundle, or a port is taken.
    """
    broker = BrokerConfig.from_env(env)
    replica_env = {
        "MODEL_BROKER": from_here(broker.backend),
        "MODEL_BUNDLE": bundle,
        "MODEL_THREADS": str(max(1, cpus() // replicas)),
        **env,
    }
    replica = ReplicaConfig.from_env(replica_env)
    try:
        find_bundle(replica.bundle)
    except BundleError as error:
        raise ConfigError(str(error)) from None
    for address, name in (
        ((host, port), "PORT"),
        (_address(broker.frontend, "BROKER_FRONTEND"), "BROKER_FRONTEND"),
        (_address(broker.backend, "BROKER_BACKEND"), "BROKER_BACKEND"),
    ):
        _check_free(*address, name)
    python = sys.executable
    programs = [
        Program(
            name="broker",
            argv=[python, "-m", "modelserver", "broker"],
            env=env,
            grace_s=BROKER_GRACE_S,
        ),
        *(
            Program(
                name=f"replica {number}",
                argv=[python, "-m", "modelserver", "replica"],
                env={**replica_env, "MODEL_METRICS": _metrics(replica.metrics, number)},
                grace_s=REPLICA_GRACE_S,
                reloads=True,
            )
            for number in range(1, replicas + 1)
        ),
        Program(
            name="web",
            argv=[python, "-m", "gunicorn", "-c", "python:webapp.gunicorn_conf"],
            env={
                "WEB_BROKER": from_here(broker.frontend),
                **env,
                "WEB_HOST": host,
                "WEB_PORT": str(port),
            },
            grace_s=WEB_GRACE_S,
        ),
    ]
    url = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
    return Supervisor(
        programs,
        ready=lambda: _is_ready(host, port),
        announce=lambda: logs.say(f"Sightline serves {url}  (Ctrl-C stops it)", env),
    )


def _metrics(first: str, number: int) -> str:
    """Where replica ``number`` is read: the first, 1, at ``first``, and each other a port higher;
    nowhere if that is empty, and at any free port if its port is 0."""
    host, _, port = first.rpartition(":")
    return f"{host}:{int(port) + number - 1}" if first and int(port) else first


def _address(endpoint: str, name: str) -> tuple[str, int]:
    host, _, port = endpoint.removeprefix("tcp://").rpartition(":")
    if "*" in port:
        raise ConfigError(f"{name} cannot be {endpoint!r}: the others have to know the port.")
    return "" if host == "*" else host, int(port)


def _check_free(host: str, port: int, name: str) -> None:
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise ConfigError(
                f"{host}:{port} cannot be used ({error.strerror}); set {name} to another."
            ) from None


def _is_ready(host: str, port: int) -> bool:
    connection = http.client.HTTPConnection(host, port, timeout=1)
    try:
        connection.request("GET", "/readyz")
        return connection.getresponse().status == http.HTTPStatus.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
