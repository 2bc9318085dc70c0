"""A running compose project, whose containers are broken and started again.

Rules:
- The project is the one that `docker compose` means here: COMPOSE_PROJECT_NAME chooses another.
- Nothing is created or taken down; at the end every container runs that did so before.
"""

import subprocess
from pathlib import Path
from typing import Final

LEAST_REPLICAS: Final = 2
"""With a single one, each kill would leave nobody."""


class NotRunning(RuntimeError):
    """There is no project to try, or it is too small."""


class ComposeProject:
    """Finds the containers and breaks them. A context."""

    def __init__(self, root: Path) -> None:
        """``root`` is where docker-compose.yml lies. Raises NotRunning."""
        self._root = root
        self._models = self._containers("model")
        brokers = self._containers("broker")
        if not brokers or not self._containers("web") or len(self._models) < LEAST_REPLICAS:
            raise NotRunning(
                f"The compose project has to run with {LEAST_REPLICAS} replicas or more, and has "
                f"{len(self._models)}: "
                "CACHE_BYTES=0 docker compose up --detach --wait --scale model=3"
            )
        self._broker = brokers[0]
        self._suspended: set[int] = set()
        self.replicas = len(self._models)
        self.port = int(self._docker("compose", "port", "web", "8000").rpartition(":")[2])

    def __enter__(self) -> "ComposeProject":
        return self

    def __exit__(self, *_: object) -> None:
        for replica in list(self._suspended):
            self.resume(replica)

    def kill(self, replica: int) -> None:
        """SIGKILL to the container, and its start."""
        # Docker cannot kill what it has frozen.
        self.resume(replica)
        self._replace(self._models[replica])

    def kill_broker(self) -> None:
        """SIGKILL to the container, and its start."""
        self._replace(self._broker)

    def suspend(self, replica: int) -> None:
        """Freeze the container: its connections stand, and nobody is behind them."""
        self._docker("pause", self._models[replica])
        self._suspended.add(replica)

    def resume(self, replica: int) -> None:
        """Thaw the container, if it is frozen."""
        if replica in self._suspended:
            self._docker("unpause", self._models[replica])
            self._suspended.remove(replica)

    def _replace(self, container: str) -> None:
        # No restart policy applies to what an operator killed.
        self._docker("kill", container)
        self._docker("start", container)

    def _containers(self, service: str) -> list[str]:
        return self._docker("compose", "ps", "--quiet", "--status", "running", service).split()

    def _docker(self, *arguments: str) -> str:
        try:
            done = subprocess.run(
                ["docker", *arguments], cwd=self._root, capture_output=True, text=True, check=False
            )
        except FileNotFoundError:
            raise NotRunning("docker is not installed.") from None
        if done.returncode != 0:
            said = done.stderr.strip().splitlines() or ["it said nothing"]
            raise NotRunning(f"docker {' '.join(arguments)} failed: {said[0]}")
        return done.stdout
