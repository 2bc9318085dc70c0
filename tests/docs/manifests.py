"""Kubernetes manifests, and what the code that they run says about them.

Rules:
- Manifests come as a cluster would get them: rendered, a list of objects.
- What is right is asked of the thing itself: settings of the settings' types, users of the
  Dockerfiles, and of docker-compose.yml what its container tests prove.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from modelserver.config import BrokerConfig, ReplicaConfig
from tests.conftest import ROOT
from webapp.config import Config

Manifest = dict[str, Any]

CONFIGS: dict[str, type[Config] | type[BrokerConfig] | type[ReplicaConfig]] = {
    "web": Config,
    "broker": BrokerConfig,
    "model": ReplicaConfig,
}


@dataclass(frozen=True)
class Image:
    """What a stage of a Dockerfile says about the containers that are made of it."""

    env: Mapping[str, str]
    user: str = ""


@cache
def stages(dockerfile: Path) -> Mapping[str, Image]:
    """The stages of a Dockerfile by their names; the last one is also ``""``."""
    found: dict[str, Image] = {}
    name = ""
    for line in dockerfile.read_text().splitlines():
        word, _, rest = line.partition(" ")
        if word == "FROM":
            base, _, name = rest.partition(" AS ")
            found[name] = found.get(base, Image({}))
        elif word == "ENV":
            pairs = dict(pair.split("=", 1) for pair in rest.split())
            found[name] = replace(found[name], env={**found[name].env, **pairs})
        elif word == "USER":
            found[name] = replace(found[name], user=rest)
    return {**found, "": found[name]}


@cache
def compose(part: str, *, gpu: bool) -> Manifest:
    """A service of docker-compose.yml, or that with docker-compose.gpu.yml on top."""
    service: Manifest = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"][part]
    if gpu:
        on_top = yaml.safe_load((ROOT / "docker-compose.gpu.yml").read_text())["services"]
        for key, value in on_top.get(part, {}).items():
            service[key] = {**service.get(key, {}), **value} if isinstance(value, dict) else value
    return service


def of_kind(manifests: list[Manifest], kind: str) -> list[Manifest]:
    return [one for one in manifests if one["kind"] == kind]


def labels_of(workload: Manifest) -> dict[str, str]:
    """The labels that a Deployment gives to its pods."""
    labels: dict[str, str] = workload["spec"]["template"]["metadata"]["labels"]
    return labels


def selects(selector: Manifest, labels: Mapping[str, str]) -> bool:
    """Whether a LabelSelector takes something with these labels."""
    for key, wanted in selector.get("matchLabels", {}).items():
        if labels.get(key) != wanted:
            return False
    for rule in selector.get("matchExpressions", []):
        if rule["operator"] != "In":
            raise NotImplementedError(rule["operator"])
        if labels.get(rule["key"]) not in rule["values"]:
            return False
    return True


@dataclass(frozen=True)
class Part:
    """A Deployment and its only container, with what its image is and its settings come to."""

    name: str
    workload: Manifest
    container: Manifest
    compose: Manifest
    image: Image
    env: Mapping[str, str]

    @property
    def pod(self) -> Manifest:
        spec: Manifest = self.workload["spec"]["template"]["spec"]
        return spec

    @property
    def config(self) -> Config | BrokerConfig | ReplicaConfig:
        return CONFIGS[self.name].from_env({**self.image.env, **self.env})

    def listens(self) -> set[int]:
        """The ports that its settings have it listen on."""
        match self.config:
            case Config() as config:
                return {config.port}
            case BrokerConfig() as config:
                sockets = {port_of(config.frontend), port_of(config.backend)}
                return sockets | ({port_of(config.metrics)} if config.metrics else set())
            case ReplicaConfig() as config:
                return {port_of(config.metrics)} if config.metrics else set()

    def drain_s(self) -> float:
        """How long it may take to stop once it was told to."""
        match self.config:
            case Config() as config:
                return config.deadline_ms / 1000
            case ReplicaConfig() as config:
                return config.drain_ms / 1000
            case _:
                return 0.0


def port_of(endpoint: str) -> int:
    return int(endpoint.rpartition(":")[2])


def parts(manifests: list[Manifest]) -> list[Part]:
    """Every Deployment. Raises StopIteration or KeyError where one is like none of ours."""
    found = []
    for workload in of_kind(manifests, "Deployment"):
        [container] = workload["spec"]["template"]["spec"]["containers"]
        name = workload["metadata"]["name"]
        service = compose(name, gpu=container["image"].endswith("-gpu"))
        build = service["build"]
        found.append(
            Part(
                name=name,
                workload=workload,
                container=container,
                compose=service,
                image=stages(ROOT / build["dockerfile"])[build.get("target", "")],
                env={one["name"]: one["value"] for one in container.get("env", [])},
            )
        )
    return found
