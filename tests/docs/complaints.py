"""What is wrong with Kubernetes manifests, held against the code that they run.

A complaint is one sentence that names the object. Nothing to complain about is an empty list.
"""

import base64
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from modelserver.config import BrokerConfig, ReplicaConfig
from modelserver.config import ConfigError as ModelConfigError
from tests.conftest import ROOT
from tests.docs.manifests import Manifest, Part, labels_of, of_kind, parts, port_of, selects
from webapp.app import create_app
from webapp.config import Config
from webapp.config import ConfigError as WebConfigError
from wire.keys import BrokerKeys, KeyFileError, PeerKeys, read_keys


def complaints(manifests: list[Manifest]) -> list[str]:
    """Everything that is wrong."""
    found = []
    all_parts = parts(manifests)
    for part in all_parts:
        try:
            _ = part.config
        except (WebConfigError, ModelConfigError) as error:
            # Which makes all else hard to tell.
            return [f"{part.name}: {error}"]
    for part in all_parts:
        for check in (_runs, _is_healthy, _stops, _is_restricted, _fits, _is_known):
            found += [f"{part.name}: {text}" for text in check(part)]
        found += [f"{part.name}: {text}" for text in _has_its_keys(part, manifests)]
        found += [f"{part.name}: {text}" for text in _finds_the_broker(part, all_parts, manifests)]
    found += _selectors(manifests, all_parts)
    found += _scaling(manifests, all_parts)
    found += _watching(manifests, all_parts)
    return found


def _runs(part: Part) -> Iterator[str]:
    if part.container["image"] != part.compose["image"]:
        yield f"image {part.container['image']}; Compose builds {part.compose['image']}"
    if {"command", "args"} & part.container.keys():
        yield "what it runs is the image's to say"
    ports = {port["containerPort"] for port in part.container.get("ports", [])}
    if ports != part.listens():
        yield f"ports {sorted(ports)}; it listens on {sorted(part.listens())}"
    [tmp] = [volume for volume in part.pod["volumes"] if volume["name"] == "tmp"]
    if tmp["emptyDir"].get("medium") != "Memory":
        yield "/tmp would be on the node's disk"
    mounted = {one["name"]: one["mountPath"] for one in part.container["volumeMounts"]}
    if mounted.keys() != {volume["name"] for volume in part.pod["volumes"]}:
        yield "volumes and mounts differ"
    written = {mounted["tmp"], *(["/cache"] if "cuda-cache" in mounted else [])}
    for variable in ("HOME", "CUDA_CACHE_PATH", "MODEL_ALIVE_FILE"):
        path = part.image.env.get(variable, "/tmp")
        if not any(Path(path).is_relative_to(place) for place in written):
            yield f"{variable} is {path}, which is read-only"


@cache
def _routes() -> frozenset[str]:
    return frozenset(rule.rule for rule in create_app(Config()).url_map.iter_rules())


def _is_healthy(part: Part) -> Iterator[str]:
    ports = {port["name"] for port in part.container.get("ports", [])}
    for kind in ("startupProbe", "readinessProbe", "livenessProbe"):
        probe = part.container.get(kind)
        if probe is None:
            yield f"no {kind}"
        elif "httpGet" in probe:
            if probe["httpGet"]["path"] not in _routes():
                yield f"{kind} asks for {probe['httpGet']['path']}, which is no route"
            if probe["httpGet"]["port"] not in ports:
                yield f"{kind} asks at port {probe['httpGet']['port']}, which it has not"
        elif ["CMD", *probe["exec"]["command"]] != part.compose["healthcheck"]["test"]:
            yield f"{kind} runs {probe['exec']['command']}; Compose something else"


def _stops(part: Part) -> Iterator[str]:
    command = part.container.get("lifecycle", {}).get("preStop", {}).get("exec", {}).get("command")
    pause_s = float(command[1]) if command else 0.0
    if command and command[0] != "sleep":
        yield f"preStop runs {command}"
    grace_s = part.pod["terminationGracePeriodSeconds"]
    if grace_s < pause_s + part.drain_s() + 5:
        yield f"is killed after {grace_s} s; it takes {pause_s + part.drain_s():g} s to stop"
    if grace_s < pause_s + float(part.compose["stop_grace_period"].removesuffix("s")):
        yield f"is killed after {grace_s} s; Compose waits longer"


def _is_restricted(part: Part) -> Iterator[str]:
    """The profile *restricted* of the Pod Security Standards, and a read-only root on top."""
    pod, own = part.pod, part.container.get("securityContext", {})
    context = pod.get("securityContext", {})
    user = f"{context.get('runAsUser')}:{context.get('runAsGroup')}"
    if user != part.image.user:
        yield f"runs as {user}; its Dockerfile says {part.image.user}"
    if context.get("runAsNonRoot") is not True or own.get("runAsNonRoot") is False:
        yield "may run as root"
    if context.get("seccompProfile") != {"type": "RuntimeDefault"} or "seccompProfile" in own:
        yield "has not the runtime's seccomp profile"
    if own.get("allowPrivilegeEscalation") is not False or own.get("privileged"):
        yield "may gain privileges"
    if own.get("capabilities") != {"drop": ["ALL"]}:
        yield "has capabilities"
    if own.get("readOnlyRootFilesystem") is not True:
        yield "its root can be written to"
    if any(pod.get(key) for key in ("hostNetwork", "hostPID", "hostIPC")):
        yield "shares a namespace with its node"
    if any("hostPort" in port for port in part.container.get("ports", [])):
        yield "takes a port of its node"
    if set().union(*pod["volumes"]) - {"name", "emptyDir", "secret"}:
        yield "has a volume of a kind that it needs not"
    if pod.get("enableServiceLinks") is not False:
        yield "would be given settings by Kubernetes: enableServiceLinks is not false"
    if pod.get("automountServiceAccountToken") is not False:
        yield "has a key to the cluster's API"
    if pod.get("shareProcessNamespace") is not True:
        yield "its process is number 1"


def _fits(part: Part) -> Iterator[str]:
    requests, limits = (
        part.container["resources"].get(kind, {}) for kind in ("requests", "limits")
    )
    if not {"cpu", "memory"} <= requests.keys():
        yield "asks for no CPU or no memory"
    if _bytes(limits.get("memory", "0")) != _bytes(part.compose["mem_limit"]):
        yield f"limit of memory {limits.get('memory')}; Compose has {part.compose['mem_limit']}"
    [tmp] = [volume["emptyDir"] for volume in part.pod["volumes"] if volume["name"] == "tmp"]
    [in_compose] = part.compose["tmpfs"]
    if _bytes(tmp.get("sizeLimit", "0")) != _bytes(in_compose.rpartition("=")[2]):
        yield f"/tmp holds {tmp.get('sizeLimit')}; Compose has {in_compose}"
    wants_gpu = isinstance(part.config, ReplicaConfig) and part.config.device == "gpu"
    if wants_gpu != ("nvidia.com/gpu" in limits):
        yield "wants a GPU and is given none, or the other way round"
    if part.name != "broker" and "cpu" not in limits:
        yield "would have as many threads or decoders as its node has CPUs"


def _bytes(quantity: str) -> int:
    """Of Kubernetes (16Mi) as of Compose (16m)."""
    match = re.fullmatch(r"(\d+)([KMG])?", quantity.upper().removesuffix("I"))
    if match is None:
        raise ValueError(quantity)
    return int(match[1]) << {None: 0, "K": 10, "M": 20, "G": 30}[match[2]]


def _is_known(part: Part) -> Iterator[str]:
    labels = labels_of(part.workload)
    wanted = {"name": "sightline", "component": part.name, "part-of": "sightline"}
    if labels != {f"app.kubernetes.io/{key}": text for key, text in wanted.items()}:
        yield f"labels {labels}"
    spec = part.workload["spec"]
    if not selects(spec["selector"], labels):
        yield "its selector does not take its own pods"
    if part.name == "broker":
        if (spec.get("replicas"), spec.get("strategy")) != (1, {"type": "Recreate"}):
            yield "there would be two of them"
    else:
        spread = part.pod.get("topologySpreadConstraints", [])
        keys = {one["topologyKey"] for one in spread if selects(one["labelSelector"], labels)}
        if keys != {"kubernetes.io/hostname", "topology.kubernetes.io/zone"}:
            yield f"spread over {sorted(keys)}"


def _has_its_keys(part: Part, manifests: list[Manifest]) -> Iterator[str]:
    keys_file = part.config.keys_file
    secrets = [volume["secret"] for volume in part.pod["volumes"] if "secret" in volume]
    if not keys_file:
        if secrets:
            yield "has a secret that it does not read"
        return
    mounts = [one["mountPath"] for one in part.container["volumeMounts"] if one["name"] == "keys"]
    if mounts != [str(Path(keys_file).parent)]:
        yield f"reads {keys_file}; its keys are in {mounts}"
        return
    [name] = [secret["secretName"] for secret in secrets]
    data = [one["data"] for one in of_kind(manifests, "Secret") if one["metadata"]["name"] == name]
    if len(data) != 1 or Path(keys_file).name not in data[0]:
        yield f"reads {keys_file}; the secret {name} has no such file"
        return
    content = base64.b64decode(data[0][Path(keys_file).name])
    try:
        if part.name == "broker":
            read_keys(content, BrokerKeys)
        else:
            read_keys(content, PeerKeys)
    except KeyFileError as error:
        yield f"{keys_file}: {error}"


def _finds_the_broker(
    part: Part, all_parts: list[Part], manifests: list[Manifest]
) -> Iterator[str]:
    """By a Service of that name and port, behind which the right one of its sockets listens."""
    config = part.config
    if isinstance(config, BrokerConfig):
        return
    host, _, port = config.broker.removeprefix("tcp://").partition(":")
    services = [one for one in of_kind(manifests, "Service") if one["metadata"]["name"] == host]
    if len(services) != 1:
        yield f"asks for {host}, which is no Service"
        return
    spec = services[0]["spec"]
    if spec.get("type", "ClusterIP") != "ClusterIP" or spec.get("clusterIP") == "None":
        yield f"the Service {host} has no address that stays"
    targets = [one["targetPort"] for one in spec["ports"] if one["port"] == int(port)]
    [broker] = [one for one in all_parts if isinstance(one.config, BrokerConfig)]
    behind = [one["containerPort"] for one in broker.container["ports"] if one["name"] in targets]
    if not isinstance(broker.config, BrokerConfig):
        raise TypeError
    side = broker.config.frontend if isinstance(config, Config) else broker.config.backend
    if behind != [port_of(side)]:
        yield f"{config.broker} leads to {behind}; it has to be {port_of(side)}"


def _selectors(manifests: list[Manifest], all_parts: list[Part]) -> Iterator[str]:
    """What is chosen by labels is there."""
    for one in manifests:
        name, spec = f"{one['kind']} {one['metadata']['name']}", one.get("spec", {})
        if one["kind"] == "Service":
            behind = [
                p
                for p in all_parts
                if selects({"matchLabels": spec["selector"]}, labels_of(p.workload))
            ]
            if [part.name for part in behind] != [one["metadata"]["name"]]:
                yield f"{name}: behind it is not what its name says"
                continue
            ports = {port["name"] for port in behind[0].container["ports"]}
            for port in spec["ports"]:
                if port["targetPort"] not in ports:
                    yield f"{name}: port {port['targetPort']} is none of its pods'"
        elif one["kind"] == "PodDisruptionBudget":
            chosen = [p for p in all_parts if selects(spec["selector"], labels_of(p.workload))]
            if [part.name for part in chosen] != [one["metadata"]["name"]]:
                yield f"{name}: it is not about what its name says"
            if spec.get("maxUnavailable") != 1 or "minAvailable" in spec:
                yield f"{name}: of a single pod it would never let go"
        elif one["kind"] == "NetworkPolicy":
            peers = [
                peer["podSelector"]
                for rule in spec.get("ingress", []) + spec.get("egress", [])
                for peer in rule.get("from", []) + rule.get("to", [])
                if "podSelector" in peer and "namespaceSelector" not in peer
            ]
            for selector in [spec["podSelector"], *peers]:
                if not any(selects(selector, labels_of(part.workload)) for part in all_parts):
                    yield f"{name}: it is about nobody"
        if one["kind"] != "Namespace" and one["metadata"].get("namespace") != "sightline":
            yield f"{name}: it is in another namespace"


def _scaling(manifests: list[Manifest], all_parts: list[Part]) -> Iterator[str]:
    """An autoscaler has something to scale, alone, and what it goes by is there."""
    by_name = {part.name: part for part in all_parts}
    for one in of_kind(manifests, "HorizontalPodAutoscaler") + of_kind(manifests, "ScaledObject"):
        name = f"{one['kind']} {one['metadata']['name']}"
        target = by_name.get(one["spec"]["scaleTargetRef"]["name"])
        if target is None or target.name == "broker":
            yield f"{name}: there is nothing that it could scale"
        elif "replicas" in target.workload["spec"]:
            yield f"{name}: every kubectl apply would undo what it did"
        if one["kind"] == "ScaledObject":
            yield from (f"{name}: {text}" for text in _triggers(one["spec"]["triggers"]))


_METRIC = re.compile(r"\bsightline_\w+?(?=_bucket\b|_sum\b|_count\b|\b)")


@cache
def _metrics() -> frozenset[str]:
    return frozenset(re.findall(r"`(sightline_\w+)", (ROOT / "docs/metrics.md").read_text()))


def _triggers(triggers: list[Manifest]) -> Iterator[str]:
    """KEDA's, whose schema is not here (https://keda.sh/docs/2.16/scalers/prometheus/)."""
    for one in triggers:
        if one["type"] != "prometheus" or one["metricType"] not in ("AverageValue", "Value"):
            yield f"{one['name']} is a trigger of another kind"
        settings = one["metadata"]
        if settings.keys() != {"serverAddress", "query", "threshold", "ignoreNullValues"}:
            yield f"{one['name']} is set {sorted(settings)}"
        if not all(isinstance(value, str) for value in settings.values()):
            yield f"{one['name']} has settings that are no text, which KEDA refuses"
        named = set(_METRIC.findall(settings["query"]))
        if not named or named - _metrics():
            yield f"{one['name']} asks for {sorted(named - _metrics())}, which nobody tells"


def _watching(manifests: list[Manifest], all_parts: list[Part]) -> Iterator[str]:
    """Each part is asked for its metrics once, where it tells them."""
    for one in of_kind(manifests, "PodMonitor"):
        asked = {
            (part.name, port["containerPort"])
            for part in all_parts
            for endpoint in one["spec"]["podMetricsEndpoints"]
            for port in part.container["ports"]
            if selects(one["spec"]["selector"], labels_of(part.workload))
            if (endpoint["port"], endpoint["path"]) == (port["name"], "/metrics")
        }
        if asked != {("web", 8000), ("broker", 9576), ("model", 9577)}:
            yield f"PodMonitor {one['metadata']['name']}: it asks {sorted(asked)}"
