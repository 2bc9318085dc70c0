"""The key files that let parts recognise each other: what stands in them, not how they are used.

One JSON file a part, so that one Docker or Kubernetes secret carries it. Keys are CURVE keys in
Z85, 40 characters, as ZeroMQ writes them. Each connecting part has its own pair and knows the
broker's public key; the broker knows which of them may come to which of its sockets.
"""

from typing import Annotated, TypeVar

import msgspec

Z85 = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-zA-Z.\-:+=^!/*?&<>()\[\]{}@%$#]{40}$")]


class KeyFileError(ValueError):
    """A key file cannot be used; one sentence that says why."""


class PeerKeys(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a client or a replica holds."""

    public: Z85
    secret: Z85
    broker: Z85
    """The broker's public key: nobody else is spoken to."""


class BrokerKeys(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the broker holds."""

    public: Z85
    secret: Z85
    clients: tuple[Z85, ...]
    """Public keys that are let in at the frontend."""
    replicas: tuple[Z85, ...]
    """Public keys that are let in at the backend."""


Keys = TypeVar("Keys", PeerKeys, BrokerKeys)


def read_keys(content: bytes, kind: type[Keys]) -> Keys:
    """The keys in a file for a part of this kind.

    Raises:
        KeyFileError: The content is anything else.
    """
    try:
        return msgspec.json.decode(content, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        # Never the content itself: it is secret.
        raise KeyFileError(f"not a key file ({error}); `make keys` makes them") from None
