"""``python -m webapp health``: is the server of this environment's settings alive?

Exits with 0 if GET /healthz says so, else with one sentence. For container health checks.
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
        return f"{config.host}:{config.port} does not answer: {error}"
    finally:
        connection.close()
    return None if status == http.HTTPStatus.OK else f"/healthz answered {status}"


if __name__ == "__main__":
    if sys.argv[1:] != ["health"]:
        sys.exit("usage: python -m webapp health")
    try:
        sys.exit(health(Config.from_env(os.environ)))
    except ConfigError as error:
        sys.exit(str(error))
