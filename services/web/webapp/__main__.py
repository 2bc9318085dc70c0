"""``python -m webapp health``: is the server of this environment's settings alive?

Exits with 0 if GET /healthz says so, else with one sentence. For container health checks.

``python -m webapp key OWNER``: a new API key, and below it the line for WEB_API_KEYS_FILE.
"""

import http.client
import os
import sys

from webapp.config import Config, ConfigError

TIMEOUT_S = 2.0


def health(config: Config) -> str | None:
    """What is wrong with the server, if anything."""
    # Linux takes the wildcard addresses for loopback, so the listening address serves as is.
    connection = http.client.HTTPConnection(config.host, config.port, timeout=TIMEOUT_S)
    try:
        connection.request("GET", "/healthz")
        status = connection.getresponse().status
    except (OSError, http.client.HTTPException) as error:
        return f"{config.address} does not answer: {error}"
    finally:
        connection.close()
    return None if status == http.HTTPStatus.OK else f"/healthz answered {status}"


def main(arguments: list[str]) -> str | None:
    """Do what the command line says. Returns what went wrong, if anything."""
    match arguments:
        case ["health"]:
            try:
                return health(Config.from_env(os.environ))
            except ConfigError as error:
                return str(error)
        case ["key", owner] if owner.strip():
            # It brings Flask, for which a health check every few seconds has no use.
            from webapp.apikeys import new_api_key

            print(*new_api_key(owner.strip()), sep="\n")
            return None
        case _:
            return "usage: python -m webapp health | key OWNER"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
