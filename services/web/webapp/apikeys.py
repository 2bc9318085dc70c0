"""Who may use the API, where that is asked for.

Rules:
- The file holds a line a key: its SHA-256 in hex, and a name for people. The keys themselves are
  nowhere but with their owners. They are random and long, so a plain hash cannot be guessed back.
- A key is compared with all of them, and always as slowly: how long it takes tells nothing.
- The API asks, and so do the status page and the metrics, which tell what an operator wants to
  know. The other pages are for people, the API's description is for whoever wants a key, and
  health is for the platform.
- A browser asks its user for a name and a password when the status page does: the key is the
  password, the name is ignored. What a browser then sends along by itself lets it look and change
  nothing, or any page of the web could use it.
"""

import hashlib
import hmac
import re
import secrets
from pathlib import Path
from typing import Final

from flask import Flask, request

from webapp.config import ConfigError
from webapp.errors import Unauthorised
from webapp.metrics import PATH as METRICS

STATUS_PAGE: Final = "/status"
GUARDED: Final = ("/api/v1/", "/v2/", f"{STATUS_PAGE}/", f"{METRICS}/")
FREE: Final = "/v2/health/"
_LINE: Final = re.compile(r"([0-9a-f]{64})\s+(\S.*)")


class ApiKeys:
    """The keys that are known, by their hashes."""

    def __init__(self, hashes: dict[str, str]) -> None:
        """``hashes``: the SHA-256 of each key in hex, and whose it is."""
        self._hashes = hashes

    def owner(self, key: str) -> str | None:
        """Whose key this is; None if it is nobody's."""
        given = hashlib.sha256(key.encode()).hexdigest()
        found = [name for known, name in self._hashes.items() if hmac.compare_digest(known, given)]
        return found[0] if found else None

    def guard(self, app: Flask) -> None:
        """Have ``app`` ask for a key wherever programs use it."""
        app.before_request(self._ask)

    def _ask(self) -> None:
        path = f"{request.path}/"  # The inference protocol has something to tell at /v2 itself.
        if not path.startswith(GUARDED) or path.startswith(FREE):
            return
        given = request.authorization
        key = None
        if given is not None and given.type == "bearer":
            key = given.token
        elif given is not None and given.type == "basic" and request.method in ("GET", "HEAD"):
            key = given.password
        if self.owner(key or "") is None:
            raise Unauthorised(
                "The request has no API key, or one that is not known.",
                challenge="Basic" if request.path == STATUS_PAGE else "Bearer",
            )


def read_api_keys(path: str) -> ApiKeys | None:
    """The keys in the file at ``path``; None for no path: then nobody is asked for one.

    Raises:
        ConfigError: The file cannot be read, has no key, or a line that is none.
    """
    if not path:
        return None
    try:
        lines = Path(path).read_text().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"WEB_API_KEYS_FILE cannot be {path!r}: {error}.") from None
    hashes = {}
    for number, line in enumerate(lines, start=1):
        if not line.strip() or line.startswith("#"):
            continue
        match = _LINE.fullmatch(line.strip())
        if match is None:
            raise ConfigError(f"WEB_API_KEYS_FILE: line {number} is not 'sha256 name'.")
        hashes[match[1]] = match[2]
    if not hashes:
        raise ConfigError(f"WEB_API_KEYS_FILE: there is no key in {path!r}.")
    return ApiKeys(hashes)


def new_api_key(owner: str) -> tuple[str, str]:
    """A new key, and the line of the file that lets it in."""
    key = secrets.token_urlsafe(32)
    return key, f"{hashlib.sha256(key.encode()).hexdigest()} {owner}"
