"""One service of a compose project, made larger and smaller through the Docker API.

Rules:
- A new container is what Compose would have made: the configuration, labels, networks and limits
  of one that is there, with the next number. So `docker compose ps`, `up` and `down` take it for
  their own, and whoever wants another configuration changes it there and says `up`.
- The newest goes first. It is asked to stop as Compose asks: SIGTERM, in which it answers what it
  has, and its own grace. Only then it is removed.
- Containers that stopped on their own, or that somebody else stopped, are left alone.
"""

import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final

import docker
from docker.errors import DockerException, NotFound

PREFIX: Final = "com.docker.compose."
NUMBER: Final = f"{PREFIX}container-number"
RUNNING: Final = ("created", "restarting", "running", "paused")
SHORT_ID: Final = 12
"""So many letters of its id a container has for a name of its own, unless it is given one."""


class NotThere(RuntimeError):
    """There is no such project, or nobody who could tell."""


class ComposeService:
    """The containers of one service."""

    def __init__(self, project: str, service: str, say: Callable[[str], None]) -> None:
        """``say`` is told what went wrong while a container was stopped.

        Raises:
            NotThere: No Docker engine answers, or it has no container of that service.
        """
        self._project = project
        self._service = service
        self._say = say
        self._api = _engine()
        self._stopping: dict[str, threading.Thread] = {}
        if not self._containers():
            raise NotThere(
                f"The compose project {project!r} has no container of {service!r}: start it with "
                "docker compose up --detach --wait."
            )

    def count(self) -> int:
        """How many run or are about to; those that were asked to stop do not.

        Raises:
            NotThere: The engine does not answer.
        """
        try:
            return len(self._running())
        except DockerException as error:
            raise NotThere(f"Docker: {error}") from None

    def add(self) -> str:
        """Starts one more. Returns its name.

        Raises:
            NotThere: There is none that it could be like, or the engine refuses.
        """
        try:
            known = self._containers()
            running = self._running(known)
            if not running:
                raise NotThere(f"No container of {self._service!r} runs that others could be like.")
            number = max(map(_number, known)) + 1
            name = f"{self._project}-{self._service}-{number}"
            self._start_another(self._api.inspect_container(running[0]["Id"]), name, number)
            return name
        except DockerException as error:
            raise NotThere(f"Docker: {error}") from None

    def remove_newest(self) -> str:
        """Asks the newest to stop, and has it removed when it has. Returns its name at once.

        Raises:
            NotThere: None runs, or the engine does not answer.
        """
        try:
            running = self._running()
        except DockerException as error:
            raise NotThere(f"Docker: {error}") from None
        if not running:
            raise NotThere(f"No container of {self._service!r} runs.")
        newest = running[-1]
        container, name = newest["Id"], newest["Names"][0].removeprefix("/")
        thread = threading.Thread(target=self._remove, args=(container, name), name=f"stop {name}")
        self._stopping[container] = thread
        thread.start()
        return str(name)

    def close(self) -> None:
        """Returns when those that were asked to stop are gone, within their grace."""
        for thread in list(self._stopping.values()):
            thread.join()
        self._api.close()

    def _containers(self) -> list[dict[str, Any]]:
        """All of the service, in the order of their numbers."""
        labels = {"project": self._project, "service": self._service, "oneoff": "False"}
        filters = {"label": [f"{PREFIX}{key}={value}" for key, value in labels.items()]}
        return sorted(self._api.containers(all=True, filters=filters), key=_number)

    def _running(self, known: list[dict[str, Any]] | None = None) -> list[dict[str, Any]]:
        return [
            container
            for container in (self._containers() if known is None else known)
            if container["State"] in RUNNING and container["Id"] not in self._stopping
        ]

    def _start_another(self, like: dict[str, Any], name: str, number: int) -> None:
        first, *others = like["NetworkSettings"]["Networks"]
        aliases = {
            network: _aliases(like, network, name)
            for network in like["NetworkSettings"]["Networks"]
        }
        config = dict(like["Config"])
        config["Labels"] = {**config["Labels"], NUMBER: str(number)}
        config["HostConfig"] = like["HostConfig"]
        config["NetworkingConfig"] = {"EndpointsConfig": {first: {"Aliases": aliases[first]}}}
        if config.get("Hostname") == like["Id"][:SHORT_ID]:
            del config["Hostname"]
        # By its name, as Compose does; unless that is another image's by now.
        with suppress(NotFound):
            if self._api.inspect_image(config["Image"])["Id"] == like["Image"]:
                like = {**like, "Image": config["Image"]}
        config["Image"] = like["Image"]
        container = self._api.create_container_from_config(config, name)["Id"]
        try:
            for network in others:
                self._api.connect_container_to_network(container, network, aliases=aliases[network])
            self._api.start(container)
        except DockerException:
            # What never ran must not count among those that do.
            with suppress(DockerException):
                self._api.remove_container(container, force=True)
            raise

    def _remove(self, container: str, name: str) -> None:
        try:
            # A connection of its own: one is for one thread.
            api = _engine()
            try:
                with suppress(NotFound):
                    api.stop(container)
                    api.remove_container(container, v=True)
            finally:
                api.close()
        except (DockerException, NotThere) as error:
            self._say(f"{name} could not be removed: {error}")
        finally:
            self._stopping.pop(container, None)


def _engine() -> docker.APIClient:
    """The engine that the environment names (DOCKER_HOST), by default this machine's."""
    try:
        return docker.from_env().api
    except DockerException as error:
        raise NotThere(f"No Docker engine answers: {error}") from None


def _number(container: dict[str, Any]) -> int:
    return int(container["Labels"][NUMBER])


def _aliases(like: dict[str, Any], network: str, name: str) -> list[str]:
    """The names that a container ``like`` that one has in a network, if it is called ``name``."""
    own = (like["Name"].removeprefix("/"), like["Id"][:SHORT_ID])
    given = like["NetworkSettings"]["Networks"][network]["Aliases"] or []
    return [name, *(alias for alias in given if alias not in own)]
