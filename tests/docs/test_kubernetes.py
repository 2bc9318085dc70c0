"""deploy/kubernetes fits the code that it runs, and a cluster would take it.

No cluster is here. What can be told without one: what kubectl renders, the schemas of Kubernetes,
what the manifests say about ports, settings, probes, keys and users against the code, and who may
talk to whom. That a slip is noticed is tested too, on manifests in which one was made.
"""

import copy
import itertools
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from modelserver.config import BrokerConfig, ConfigError
from modelserver.keygen import make_keys
from tests.conftest import ROOT
from tests.docs.complaints import complaints
from tests.docs.manifests import Manifest, labels_of, of_kind
from tests.docs.policies import Peer, allowed

FOLDER = Path("deploy/kubernetes")
OLDEST = "1.27"
"""The version that the README asks for."""
OVERLAYS = ["cpu", "gpu"]
ADDED = ["curve", "keda", "podmonitor"]
"""All components."""
CUSTOM = {"ScaledObject", "PodMonitor"}
"""Kinds that are not Kubernetes' own, so that no schema is here."""

_YAML = re.compile(r"^```yaml\n(.*?)^```$", re.DOTALL | re.MULTILINE)


@pytest.fixture(scope="session")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the manifests, with keys as a user would make them."""
    if shutil.which("kubectl") is None:
        pytest.skip("kubectl is not installed; .ci/kubectl gets it")
    root = tmp_path_factory.mktemp("checkout")
    shutil.copytree(ROOT / FOLDER, root / FOLDER, ignore=shutil.ignore_patterns("keys"))
    make_keys(root / FOLDER / "components/curve/keys")
    return root


def render(folder: Path) -> list[Manifest]:
    """What ``kubectl apply -k`` would send."""
    done = subprocess.run(
        ["kubectl", "kustomize", folder], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return list(yaml.load_all(done.stdout, Loader=yaml.CSafeLoader))


@pytest.fixture(scope="session")
def rendered(checkout: Path) -> dict[str, list[Manifest]]:
    """Each overlay alone, and ``all``: that for CPUs with every component."""
    found = {name: render(checkout / FOLDER / "overlays" / name) for name in OVERLAYS}
    whole = {
        "resources": ["../overlays/cpu"],
        "components": [f"../components/{name}" for name in ADDED],
    }
    (checkout / FOLDER / "all").mkdir()
    (checkout / FOLDER / "all/kustomization.yaml").write_text(yaml.safe_dump(whole))
    return {**found, "all": render(checkout / FOLDER / "all")}


each_rendering = pytest.mark.parametrize("name", [*OVERLAYS, "all"])


def test_everything_there_is_gets_rendered() -> None:
    assert sorted(path.name for path in (ROOT / FOLDER / "overlays").iterdir()) == OVERLAYS
    assert sorted(path.name for path in (ROOT / FOLDER / "components").iterdir()) == ADDED


@pytest.mark.parametrize("version", [OLDEST, kubernetes_validate.latest_version()])
def test_the_schemas_of_kubernetes_allow_it(
    rendered: dict[str, list[Manifest]], version: str
) -> None:
    different: list[Manifest] = []
    for manifest in itertools.chain.from_iterable(rendered.values()):
        if manifest not in different:
            different.append(manifest)
    for manifest in different:
        if manifest["kind"] in CUSTOM:
            continue
        kubernetes_validate.validate(manifest, version, strict=True)


@each_rendering
def test_it_fits_the_code(rendered: dict[str, list[Manifest]], name: str) -> None:
    assert complaints(rendered[name]) == []


def named(manifests: list[Manifest], kind: str, name: str) -> Any:
    [found] = [one for one in of_kind(manifests, kind) if one["metadata"]["name"] == name]
    return found


GONE = object()
SHORT = {"pod": "spec.template.spec", "container": "spec.template.spec.containers.0"}


def slip(manifest: Any, path: str, value: object) -> None:
    """Put something else where ``path`` leads: through keys, names or numbers of a list's elements;
    ``+`` is a further element. ``pod`` and ``container`` are those of a Deployment."""
    first, _, rest = path.partition(".")
    *way, last = f"{SHORT.get(first, first)}.{rest}".split(".")
    place = manifest
    for step in way:
        if isinstance(place, dict):
            place = place[step]
        elif step.isdecimal():
            place = place[int(step)]
        else:
            [place] = [one for one in place if one["name"] == step]
    if last == "+":
        place.append(value)
    elif value is GONE:
        del place[last]
    else:
        place[last] = value


WEB, BROKER, MODEL = ("Deployment/web", "Deployment/broker", "Deployment/model")
LATE = {"name": "MODEL_DRAIN_MS", "value": "60000"}
SLIPS: list[tuple[str, str, object, str]] = [
    (WEB, "container.livenessProbe.httpGet.path", "/healtz", "asks for /healtz, which is no route"),
    (WEB, "container.readinessProbe.httpGet.port", "htpp", "readinessProbe asks at port htpp"),
    (MODEL, "container.startupProbe.exec.command.+", "now", "startupProbe runs"),
    (MODEL, "container.readinessProbe", GONE, "no readinessProbe"),
    (WEB, "container.env.+", {"name": "WEB_" + "BROKRE", "value": "x"}, "is no setting"),
    (WEB, "container.env.WEB_CLIENT_CONNECTIONS.value", "many", "cannot be 'many'"),
    (BROKER, "container.ports.clients.containerPort", 5575, "it listens on [5576, 5577"),
    (WEB, "container.env.WEB_BROKER.value", "tcp://broker:5577", "it has to be 5576"),
    (MODEL, "container.env.MODEL_BROKER.value", "tcp://brokre:5577", "which is no Service"),
    (WEB, "container.image", "sightline-wbe", "Compose builds sightline-web"),
    (WEB, "container.command", ["true"], "the image's to say"),
    (BROKER, "pod.securityContext.runAsUser", 1000, "its Dockerfile says 65532:65532"),
    (WEB, "pod.securityContext.runAsNonRoot", GONE, "may run as root"),
    (MODEL, "pod.securityContext.seccompProfile", GONE, "seccomp profile"),
    (WEB, "container.securityContext.allowPrivilegeEscalation", GONE, "may gain privileges"),
    (WEB, "container.securityContext.capabilities", GONE, "has capabilities"),
    (MODEL, "container.securityContext.readOnlyRootFilesystem", GONE, "root can be written to"),
    (MODEL, "pod.volumes.+", {"name": "node", "hostPath": {"path": "/"}}, "a volume of a kind"),
    (MODEL, "container.volumeMounts.tmp.mountPath", "/temp", "HOME is /tmp, which is read-only"),
    (MODEL, "pod.hostNetwork", True, "shares a namespace with its node"),
    (BROKER, "pod.enableServiceLinks", GONE, "enableServiceLinks is not false"),
    (BROKER, "pod.automountServiceAccountToken", GONE, "a key to the cluster's API"),
    (MODEL, "pod.terminationGracePeriodSeconds", 15, "it takes 15 s to stop"),
    (MODEL, "container.env.+", LATE, "it takes 60 s to stop"),
    (WEB, "container.lifecycle.preStop.exec.command", ["sleep", "30"], "it takes 40 s to stop"),
    (BROKER, "container.resources.limits.memory", "64Mi", "Compose has 640m"),
    (MODEL, "container.resources.requests.cpu", GONE, "asks for no CPU"),
    (WEB, "container.resources.limits.cpu", GONE, "as its node has CPUs"),
    (
        MODEL,
        "container.env.+",
        {"name": "MODEL_DEVICE", "value": "gpu"},
        "wants a GPU and is given none",
    ),
    (BROKER, "spec.replicas", 2, "there would be two of them"),
    (BROKER, "spec.strategy", GONE, "there would be two of them"),
    (WEB, "pod.topologySpreadConstraints", [], "spread over []"),
    ("Service/broker", "spec.clusterIP", "None", "has no address that stays"),
    ("Service/broker", "spec.selector", {}, "behind it is not what its name says"),
    ("Service/web", "spec.ports.http.targetPort", "web", "none of its pods'"),
    ("PodDisruptionBudget/model", "spec.selector", {}, "not about what its name says"),
    ("PodDisruptionBudget/model", "spec.minAvailable", 1, "would never let go"),
    ("NetworkPolicy/model", "spec.podSelector.matchLabels.a", "b", "it is about nobody"),
    ("NetworkPolicy/model", "metadata.namespace", "default", "it is in another namespace"),
    ("HorizontalPodAutoscaler/web", "spec.scaleTargetRef.name", "wbe", "nothing that it could"),
    ("ScaledObject/model", "spec.scaleTargetRef.name", "broker", "nothing that it could"),
    ("ScaledObject/model", "spec.triggers.queue-wait.metadata.threshold", 0.5, "no text"),
    (
        *("ScaledObject/model", "spec.triggers.replicas-wanted.metadata.query"),
        *("sightline_broker_wanted", "asks for ['sightline_broker_wanted'], which nobody tells"),
    ),
    (MODEL, "spec.replicas", 2, "would undo what it did"),
    (
        "PodMonitor/sightline",
        "spec.podMetricsEndpoints.0.port",
        "metric",
        "it asks [('web', 8000)]",
    ),
    (MODEL, "container.env.MODEL_METRICS.value", "0.0.0.0:9578", "it listens on [9578]"),
    (WEB, "spec.replicas", 2, "would undo what it did"),
    (WEB, "container.env.WEB_KEYS_FILE.value", "/web.json", "its keys are in ['/run/secrets/"),
    (
        *(BROKER, "container.env.BROKER_KEYS_FILE.value", "/run/secrets/sightline/web.json"),
        "has no such file",
    ),
]


@pytest.mark.parametrize(("where", "path", "value", "said"), SLIPS)
def test_a_slip_is_noticed(
    rendered: dict[str, list[Manifest]], where: str, path: str, value: object, said: str
) -> None:
    manifests = copy.deepcopy(rendered["all"])
    slip(named(manifests, *where.split("/")), path, value)
    told = complaints(manifests)
    assert any(said in one for one in told), told


def test_what_kubernetes_would_set_for_a_service_stops_the_broker() -> None:
    """So `enableServiceLinks` has to be false."""
    with pytest.raises(ConfigError, match="BROKER_SERVICE_HOST is no setting"):
        BrokerConfig.from_env({"BROKER_SERVICE_HOST": "10.96.0.7"})


def test_a_slip_in_a_fields_name_is_noticed(rendered: dict[str, list[Manifest]]) -> None:
    web = copy.deepcopy(named(rendered["cpu"], "Deployment", "web"))
    slip(web, "pod.enableServiceLink", False)
    with pytest.raises(kubernetes_validate.ValidationError, match="enableServiceLink"):
        kubernetes_validate.validate(web, OLDEST, strict=True)


OUTSIDE = [
    Peer("another namespace", namespace="default", labels={"app": "other"}),
    Peer("the internet", address="203.0.113.7"),
    Peer("prometheus", "monitoring", {"app.kubernetes.io/name": "prometheus"}),
    Peer("its neighbour", "monitoring", {"app.kubernetes.io/name": "grafana"}),
]
DNS = [
    Peer("dns", namespace="kube-system", labels={"k8s-app": "kube-dns"}),
    Peer("dns cache", address="169.254.20.10"),
]
PORTS = [
    (53, "UDP"),
    (53, "TCP"),
    (80, "TCP"),
    (443, "TCP"),
    (5576, "TCP"),
    (5577, "TCP"),
    (8000, "TCP"),
    (9576, "TCP"),
    (9577, "TCP"),
]


def lets_through(manifests: list[Manifest]) -> set[tuple[str, str, int, str]]:
    """All connections from or to a pod of the namespace: who, to whom, port, protocol."""
    ours = [
        Peer(one["metadata"]["name"], "sightline", labels_of(one))
        for one in of_kind(manifests, "Deployment")
    ]
    everybody = [*ours, Peer("stranger", "sightline", {"app": "debug"}), *OUTSIDE, *DNS]
    return {
        (source.name, target.name, port, protocol)
        for source in everybody
        for target in everybody
        for port, protocol in PORTS
        if source != target
        and "sightline" in (source.namespace, target.namespace)
        and allowed(manifests, source, target, port, protocol)
    }


MAY_TALK = {
    ("web", "broker", 5576, "TCP"),
    ("model", "broker", 5577, "TCP"),
    ("prometheus", "broker", 9576, "TCP"),
    ("prometheus", "model", 9577, "TCP"),
    *((source.name, "web", 8000, "TCP") for source in [*OUTSIDE, *DNS]),
    *(
        (source, target.name, 53, protocol)
        for source in ("web", "model")
        for target in DNS
        for protocol in ("UDP", "TCP")
    ),
}


@each_rendering
def test_nobody_talks_to_anybody_but_these(rendered: dict[str, list[Manifest]], name: str) -> None:
    assert lets_through(rendered[name]) == MAY_TALK


@pytest.mark.parametrize(
    ("policy", "hole", "opened"),
    [
        (
            "nobody",
            lambda spec: spec.update(policyTypes=["Egress"]),
            ("the internet", "stranger", 443, "TCP"),
        ),
        ("nobody", lambda spec: spec.update(policyTypes=["Ingress"]), ("broker", "dns", 53, "UDP")),
        (
            "broker",
            lambda spec: spec["ingress"][0].pop("from"),
            ("another namespace", "broker", 5576, "TCP"),
        ),
        ("model", lambda spec: spec["egress"][0].pop("to"), ("model", "the internet", 5577, "TCP")),
        ("dns", lambda spec: spec["egress"][0].pop("ports"), ("web", "dns", 443, "TCP")),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_hole_in_a_policy_is_noticed(
    rendered: dict[str, list[Manifest]],
    policy: str,
    hole: Callable[[Any], object],
    opened: tuple[str, str, int, str],
) -> None:
    manifests = copy.deepcopy(rendered["all"])
    hole(named(manifests, "NetworkPolicy", policy)["spec"])
    found = lets_through(manifests)
    assert found > MAY_TALK
    assert opened in found


def test_the_kustomization_of_the_readme_can_be_used(checkout: Path) -> None:
    text = (ROOT / FOLDER / "README.md").read_text()
    [block] = [found for found in _YAML.findall(text) if "kind: Kustomization" in found]
    folder = checkout / "ours"
    folder.mkdir()
    (folder / "kustomization.yaml").write_text(block)
    manifests = render(folder)
    for name in ("web", "broker", "model"):
        one = named(manifests, "Deployment", name)
        [container] = one["spec"]["template"]["spec"]["containers"]
        assert container["image"] == f"registry.example.com/sightline-{name}:1"
        container["image"] = f"sightline-{name}"
    assert complaints(manifests) == []
