"""The settings of the web tier, read once from the environment by whoever starts it.

Rules:
- Every variable that starts with WEB_ is a setting; one that is unknown or out of bounds stops
  the start. Only WEB_CONCURRENCY is left alone: gunicorn itself reads its worker count there.
- Units are in the names.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Final, Self

import msgspec

from imaging import MAX_BYTES, cpus
from wire.keys import KeyFileError, PeerKeys, read_keys

PREFIX: Final = "WEB_"
GUNICORNS_OWN: Final = "WEB_CONCURRENCY"
MOST_DECODERS: Final = 256


class ConfigError(ValueError):
    """A setting cannot be used; the message is one sentence that names its variable."""


def decoders_for(cpus: int) -> int:
    """How many are started where there are so many CPUs.

    One each, since a decoder that is through has its next picture at once: on two cores an
    accelerator got through with 0.97 to 1.02 of what it did with three. But two at least, so that
    one slow picture does not stop all others. Each takes 20 MB.
    """
    return max(2, min(MOST_DECODERS, cpus))


class Config(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Everything about the web tier that an operator can choose."""

    host: Annotated[str, msgspec.Meta(pattern=r"^[^\[\]]+$")] = "127.0.0.1"
    """Address to listen on, of IPv6 without brackets. A container wants 0.0.0.0, or :: for both."""
    port: Annotated[int, msgspec.Meta(ge=1, le=65535)] = 8000
    broker: Annotated[str, msgspec.Meta(pattern=r"^(tcp|ipc)://\S+$")] = "tcp://127.0.0.1:5576"
    """The broker's frontend. One name: libzmq uses only the first address behind it."""
    keys_file: str = ""
    """The web tier's key file, for a broker that asks for keys."""
    api_keys_file: str = ""
    """Whose API keys are let in, a line each; empty: nobody is asked for one."""
    model: Annotated[str, msgspec.Meta(max_length=64)] = ""
    """The model for requests that name none; empty means the first that has a replica."""
    deadline_ms: Annotated[int, msgspec.Meta(ge=100, le=600_000)] = 10_000
    """From the last byte of an upload to the answer, decoding and every retry included."""
    max_upload_bytes: Annotated[int, msgspec.Meta(ge=1024, le=MAX_BYTES)] = MAX_BYTES
    """Of a picture, and of a whole request wherever only one is taken."""
    max_batch_bytes: Annotated[int, msgspec.Meta(ge=1024, le=1024 * 1024 * 1024)] = 64 * 1024 * 1024
    """Of a whole request with many pictures, as they are sent: in a form or an archive."""
    cache_bytes: Annotated[int, msgspec.Meta(ge=0)] = 8 * 1024 * 1024
    """For remembered answers, in each web process: about 7,000 of five classes. 0: every request is
    asked of a replica, even while the same pixels are asked about already."""
    decoders: Annotated[int, msgspec.Meta(ge=1, le=MOST_DECODERS)] = msgspec.field(
        default_factory=lambda: decoders_for(cpus())
    )
    """Child processes that decode pictures; one a CPU, two at least, unless set."""
    threads: Annotated[int, msgspec.Meta(ge=1, le=1024)] = 64
    """Requests in progress at once; nearly all of them wait for the broker. Further ones wait for
    their turn, at no cost but their upload, which stays in memory until the answer."""
    buffer_bytes: Annotated[int, msgspec.Meta(ge=2 * MAX_BYTES)] = 256 * 1024 * 1024
    """Uploads in memory, complete or not. One client may take half of it."""
    client_connections: Annotated[int, msgspec.Meta(ge=1)] = 1024
    """Open connections of one client, which is an address. Behind a proxy all the world is one."""

    @property
    def address(self) -> str:
        """Host and port, as a URL has them."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @classmethod
    def from_env(cls, env: Mapping[str, str]) -> Self:
        """The settings in ``env``, such as ``os.environ``, and the defaults for the rest.

        Raises:
            ConfigError: A WEB_ variable is no setting, or its value is not allowed.
        """
        fields = {PREFIX + field.name.upper(): field for field in msgspec.structs.fields(cls)}
        settings = {}
        for variable, text in env.items():
            if not variable.startswith(PREFIX) or variable == GUNICORNS_OWN:
                continue
            if variable not in fields:
                raise ConfigError(f"{variable} is no setting; there are {', '.join(fields)}.")
            field = fields[variable]
            try:
                settings[field.name] = msgspec.convert(text, field.type, strict=False)
            except msgspec.ValidationError as error:
                raise ConfigError(f"{variable} cannot be {text!r}: {error}.") from None
        return cls(**settings)

    def keys(self) -> PeerKeys | None:
        """What the key file holds; None where none is set.

        Raises:
            ConfigError: It cannot be read, or holds something else.
        """
        if not self.keys_file:
            return None
        try:
            return read_keys(Path(self.keys_file).read_bytes(), PeerKeys)
        except (OSError, KeyFileError) as error:
            raise ConfigError(f"WEB_KEYS_FILE cannot be {self.keys_file!r}: {error}.") from None
