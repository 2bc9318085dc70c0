"""What an operator can set, read once from the environment at the entry point.

Rules:
- ``BROKER_*`` sets the broker, ``MODEL_*`` a replica. A variable of that prefix that is not
  listed here, or has a value that does not fit, stops the start with one sentence.
- Units stand in the names. An endpoint is ZeroMQ's: ``tcp://host:port``.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Final, Literal, Self

import msgspec

from wire.keys import KeyFileError, Keys, read_keys

Endpoint = Annotated[str, msgspec.Meta(pattern=r"^tcp://.+:[0-9*]+$")]
Address = Annotated[str, msgspec.Meta(pattern=r"^(.+:[0-9]{1,5})?$")]
Positive = Annotated[int, msgspec.Meta(ge=1)]

BATCH_ON_CPU: Final = 4
"""Measured with EfficientNet-Lite0 on two cores, 8, 32 and 128 clients: as many requests a second
as with batches of 8, and p99 is 0.87 to 0.96 of it, since who comes too late for a batch waits for
a shorter one. With 2 it is no better."""
BATCH_ON_GPU: Final = 32
"""There a batch costs little more than one picture: at 8 ms and 0.15 ms a picture that is nearly
three times as many a second as with 8."""


class ConfigError(ValueError):
    """A setting is unknown or does not fit."""


class _Config(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    @classmethod
    def _read(cls, prefix: str, env: Mapping[str, str]) -> Self:
        fields = {prefix + field.name.upper(): field for field in msgspec.structs.fields(cls)}
        settings = {}
        for variable in sorted(name for name in env if name.startswith(prefix)):
            if variable not in fields:
                raise ConfigError(f"{variable} is no setting; there are {', '.join(fields)}.")
            field, text = fields[variable], env[variable]
            try:
                settings[field.name] = msgspec.convert(text, field.type, strict=False)
            except msgspec.ValidationError as error:
                raise ConfigError(f"{variable} cannot be {text!r}: {error}.") from None
        return cls(**settings)


def load_keys(variable: str, path: str, kind: type[Keys]) -> Keys | None:
    """The keys in the file that ``variable`` names; None where it names none.

    Raises:
        ConfigError: The file cannot be read, or holds something else.
    """
    if not path:
        return None
    try:
        return read_keys(Path(path).read_bytes(), kind)
    except (OSError, KeyFileError) as error:
        raise ConfigError(f"{variable} cannot be {path!r}: {error}.") from None


def from_here(endpoint: str) -> str:
    """How a program on this machine reaches what listens at ``endpoint``."""
    return endpoint.replace("//0.0.0.0:", "//127.0.0.1:").replace("//*:", "//127.0.0.1:")


class BrokerConfig(_Config, frozen=True):
    """Where the broker listens and what it holds."""

    frontend: Endpoint = "tcp://127.0.0.1:5576"
    """Clients connect here."""
    backend: Endpoint = "tcp://127.0.0.1:5577"
    """Replicas connect here."""
    max_queue_requests: Positive = 1024
    max_queue_bytes: Positive = 256 * 1024 * 1024
    liveness_ms: Annotated[int, msgspec.Meta(ge=1000)] = 2000
    """A replica not heard of for so long is dead."""
    execution_ms: Positive = 5_000
    """An engine that works on one batch for longer hangs. Half of web's
    deadline, so that the requests it holds can still be tried elsewhere."""
    poison_ms: Positive = 600_000
    """How long a picture that two replicas died of is refused."""
    objective_ms: Positive = 250
    """The wait in the queue that 95 % of all requests should stay below: how many replicas that
    takes is told as the scale advice."""
    journal_file: str = ""
    """Where to record all that happens, without pictures, so that it can be replayed."""
    keys_file: str = ""
    """The broker's key file; empty: whoever reaches the sockets is let in."""
    metrics: Address = ""
    """Where Prometheus may read, as host:port; empty: nowhere."""

    @classmethod
    def from_env(cls, env: Mapping[str, str]) -> Self:
        """The settings in ``env``. Raises ConfigError."""
        return cls._read("BROKER_", env)


class ReplicaConfig(_Config, frozen=True):
    """What a replica serves, with what, and for whom."""

    broker: Endpoint = "tcp://127.0.0.1:5577"
    """The broker's backend, by the one name that stays when the broker is replaced."""
    bundle: str = "efficientnet-lite0"
    """The name of an embedded bundle, or the path of a bundle's folder."""
    engine: Literal["auto", "litert", "tensorflow", "simulated"] = "auto"
    """``auto`` goes by the bundle and the device. ``simulated`` classifies nothing, at a declared
    speed: for scale tests and development."""
    device: Literal["cpu", "gpu"] = "cpu"
    """What the engine has to compute on. With ``gpu`` the broker leases this replica one."""
    replicas_per_gpu: Annotated[int, msgspec.Meta(ge=0, le=64)] = 0
    """How many replicas may share a GPU, each with an equal part of its memory, while any more
    wait; 0: any number, each with what it needs."""
    xla: bool = False
    """Whether TensorFlow compiles the graph. On a CPU that makes it ten times slower."""
    threads: Annotated[int, msgspec.Meta(ge=0)] = 0
    """Cores of the engine; 0: as many as there are CPUs."""
    max_batch: Annotated[int, msgspec.Meta(ge=0, le=256)] = 0
    """Pictures in a batch at most; 0: BATCH_ON_CPU or BATCH_ON_GPU. See `largest_batch`."""
    execution_ms: Positive = 5_000
    """A replica whose engine works on one batch for longer ends itself, to be started anew."""
    drain_ms: Positive = 15_000
    """How long a stopping replica waits for its last answers to be fetched."""
    keys_file: str = ""
    """This replica's key file, for a broker that asks for keys."""
    alive_file: str = ""
    """A file to touch whenever the broker pings this replica, for its health check."""
    metrics: Address = ""
    """Where Prometheus may read, as host:port; empty: nowhere."""
    simulated_base_ms: Annotated[float, msgspec.Meta(ge=0)] = 8.0
    """What a batch costs the simulated engine; the default is a small accelerator's."""
    simulated_image_ms: Annotated[float, msgspec.Meta(ge=0)] = 0.15
    """What each picture in the batch costs on top."""

    @property
    def largest_batch(self) -> int:
        """Pictures in a batch at most. What is simulated counts as a GPU."""
        on_gpu = self.device == "gpu" or self.engine == "simulated"
        return self.max_batch or (BATCH_ON_GPU if on_gpu else BATCH_ON_CPU)

    @classmethod
    def from_env(cls, env: Mapping[str, str]) -> Self:
        """The settings in ``env``. Raises ConfigError."""
        return cls._read("MODEL_", env)
