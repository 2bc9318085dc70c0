"""The service by its broker, past the web tier: image files are sent as they are, and a replica
decodes them."""

import time
from pathlib import Path
from typing import Any

import msgspec

from sightline.service import Status, Trouble, Unreachable
from webapp.client import ModelClient
from webapp.errors import Unavailable, WebError
from webapp.terms import Terms
from wire.keys import KeyFileError, PeerKeys, read_keys


class BrokerService:
    """A broker and its replicas."""

    def __init__(self, endpoint: str, *, keys_file: str, timeout_s: float) -> None:
        """``keys_file`` is for a broker that asks for keys.

        Raises:
            ValueError: The file cannot be read, or holds no keys.
        """
        keys = None
        if keys_file:
            try:
                keys = read_keys(Path(keys_file).read_bytes(), PeerKeys)
            except (OSError, KeyFileError) as error:
                raise ValueError(f"{keys_file!r} cannot be used: {error}") from None
        self._endpoint = endpoint
        self._timeout_s = timeout_s
        self._client = ModelClient(endpoint, keys)

    def classify(self, file: bytes, *, model: str, top_k: int) -> dict[str, Any]:
        """As `Service.classify`."""
        began = time.monotonic()
        try:
            terms = Terms(deadline=began + self._timeout_s, top_k=top_k)
            result = self._client.classify_file(file, terms, model)
        except WebError as error:
            raise self._trouble(error) from None
        total_ms = round((time.monotonic() - began) * 1000, 3)
        return {
            "model": {"name": result.model, "version": result.version},
            "predictions": msgspec.to_builtins(result.predictions),
            "replica": result.replica,
            "attempt": result.attempt,
            "batch_size": result.batch_size,
            "request_id": result.id,
            "timing_ms": {**msgspec.to_builtins(result.timing), "total": total_ms},
        }

    def status(self) -> Status:
        """As `Service.status`."""
        try:
            told = self._client.status(deadline=time.monotonic() + self._timeout_s)
        except WebError as error:
            raise self._trouble(error) from None
        return Status(
            uptime_ms=told.uptime_ms,
            counts=told.counts,
            models=told.models,
            replicas=told.replicas,
        )

    def close(self) -> None:
        """As `Service.close`."""
        self._client.close()

    def _trouble(self, error: WebError) -> Trouble:
        if isinstance(error, Unavailable):
            return Unreachable(f"{self._endpoint}: {error.detail}")
        return Trouble(error.status, error.kind, error.title, error.detail, error.remedy)
