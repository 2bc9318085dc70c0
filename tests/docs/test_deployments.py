"""Commands for Docker and Kubernetes name what there is: files, services, profiles, variables.

They are held against the files that they would read; no engine is needed. What Compose itself
understands is written down here, and held against Compose's own help where there is one.
"""

import re
import shutil
import subprocess
from collections.abc import Iterator
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ROOT
from tests.docs.documents import MADE, Command, commands, each_document, manifests, parsed, text

GLOBAL = {"-f": True, "--file": True, "-p": True, "--project-name": True, "--profile": True}
"""Options of Compose before the verb, and whether a value follows."""
VERBS: dict[str, dict[str, bool]] = {
    "build": {"--no-cache": False, "--pull": False},
    "config": {"--images": False, "--quiet": False, "--services": False},
    "down": {"--timeout": True, "--volumes": False},
    "exec": {"--user": True, "-T": False},
    "kill": {"-s": True, "--signal": True},
    "logs": {"--follow": False, "--since": True, "--tail": True, "--timestamps": False},
    "ps": {"--all": False, "--format": True, "--quiet": False},
    "pull": {},
    "restart": {"--timeout": True},
    "run": {"--build": False, "--no-deps": False, "--rm": False, "--user": True, "--volume": True},
    "stop": {"--timeout": True},
    "top": {},
    "up": {
        "--build": False,
        "--detach": False,
        "-d": False,
        "--force-recreate": False,
        "--no-build": False,
        "--no-deps": False,
        "--no-recreate": False,
        "--scale": True,
        "--wait": False,
        "--wait-timeout": True,
    },
}
"""What documents may ask Compose for, and whether a value follows an option."""
COMPOSES_OWN = {"COMPOSE_PROJECT_NAME", "COMPOSE_PROFILES", "COMPOSE_FILE"}


class Compose:
    """What the Compose files of one command say together."""

    def __init__(self, files: list[str]) -> None:
        self.services: set[str] = set()
        self.profiles: set[str] = set()
        self.variables: set[str] = set(COMPOSES_OWN)
        for file in files:
            if Path(file).parts[0] in MADE:
                continue
            [tree] = manifests(ROOT / file)
            self.services |= set(tree["services"])
            for service in tree["services"].values():
                self.profiles |= set(service.get("profiles", ()))
            self.variables |= set(re.findall(r"\$\{(\w+)", text(ROOT / file)))


def check_compose(command: Command) -> None:
    """Raises AssertionError for a ``docker compose`` that could not be meant."""
    words = iter(command.words[2:])
    files, profiles = [], []
    verb = ""
    for word in words:
        option, value = _option(word, words, GLOBAL)
        if option in ("-f", "--file"):
            files.append(value)
        elif option == "--profile":
            profiles.append(value)
        elif not option:
            verb = word
            break
    compose = Compose(files or ["docker-compose.yml"])
    assert set(profiles) <= compose.profiles
    assert set(command.variables) <= compose.variables, "a variable that these files do not read"
    if not verb:
        return
    assert verb in VERBS, f"is there a `docker compose {verb}`? Then list it here."
    for word in words:
        option, value = _option(word, words, VERBS[verb])
        if option == "--scale":
            assert re.fullmatch(r"\w+=\d+", value), value
            assert value.partition("=")[0] in compose.services, value
        elif not option:
            assert word in compose.services, f"no service is called {word!r}"
            if verb in ("exec", "run"):
                return  # The rest is said to the container.


def _option(word: str, words: Iterator[str], known: dict[str, bool]) -> tuple[str, str]:
    """An option and its value; two empty strings for a word that is none."""
    if not word.startswith("-"):
        return "", ""
    option, is_set, value = word.partition("=")
    assert option in known, f"is there an option {option}? Then list it here."
    if known[option] and not is_set:
        value = next(words)
    return option, value


@each_document
def test_every_command_for_compose_could_be_meant(document: Path) -> None:
    for command in commands(document):
        if command.words[:2] == ("docker", "compose"):
            try:
                check_compose(command)
            except AssertionError as error:
                pytest.fail(f"{command}\n{error}")


@pytest.mark.parametrize(
    "slip",
    [
        "docker compose -f docker-compose.gup.yml up",
        "docker compose --profile loadtests up",
        "docker compose up --scale models=3",
        "docker compose up --scael model=3",
        "docker compose restart modle",
        "docker compose exec frontend sh",
        "docker compose upp",
        "WEB_THREADS=8 docker compose up",
    ],
)
def test_a_slip_in_a_command_for_compose_is_noticed(slip: str) -> None:
    [command, *_] = parsed(slip)
    with pytest.raises((AssertionError, FileNotFoundError)):
        check_compose(command)


@pytest.mark.containers
@pytest.mark.parametrize("verb", VERBS)
def test_what_documents_ask_of_compose_it_can_do(verb: str) -> None:
    if shutil.which("docker") is None:
        pytest.skip("docker is not installed")
    done = subprocess.run(
        ["docker", "compose", verb, "--help"], capture_output=True, text=True, check=True
    )
    value = r"(?: (string|stringArray|int|list|scale))?"
    long = re.findall(rf"^ +(?:-\w, +)?(--[\w-]+){value}", done.stdout, re.MULTILINE)
    short = re.findall(rf"^ +(-\w), +--[\w-]+{value}", done.stdout, re.MULTILINE)
    options = dict([*long, *short])
    assert f"docker compose {verb}" in done.stdout
    for option, has_value in VERBS[verb].items():
        assert option in options
        assert bool(options[option]) == has_value, option


# --- Swarm ----------------------------------------------------------------------------------------


@cache
def stack() -> tuple[frozenset[str], frozenset[str]]:
    """The services and the secrets of the stack."""
    files = sorted((ROOT / "deploy/swarm").glob("*.y*ml"))
    trees = [tree for file in files for tree in manifests(file)]
    return (
        frozenset(name for tree in trees for name in tree.get("services", ())),
        frozenset(name for tree in trees for name in tree.get("secrets", ())),
    )


@each_document
def test_every_command_for_swarm_names_what_there_is(document: Path) -> None:
    for command in commands(document):
        match command.words:
            case ("docker", "stack", *words):
                for option, file in pairs(words, "-c", "--compose-file"):
                    assert (ROOT / file).exists(), f"{command}: {option} {file}"
            case ("docker", "service", _, *words):
                named = [w.partition("=")[0] for w in words if re.fullmatch(r"\w+_\w+(=\d+)?", w)]
                for name in named:
                    assert name.partition("_")[2] in stack()[0], str(command)
            case ("docker", "secret", "create", name, *_):
                assert name in stack()[1], str(command)


def pairs(words: list[str], *options: str) -> list[tuple[str, str]]:
    """The options among ``words`` that are asked for, with their values."""
    joined = [
        tuple(word.split("=", 1)) for word in words if word.startswith(options) and "=" in word
    ]
    apart = [(a, b) for a, b in pairwise(words) if a in options]
    return [(option, value) for option, value in [*joined, *apart] if option in options]


# --- Kubernetes -----------------------------------------------------------------------------------

KINDS = {
    "Deployment": {"deploy", "deployment", "deployments"},
    "StatefulSet": {"sts", "statefulset", "statefulsets"},
    "Service": {"svc", "service", "services"},
    "ConfigMap": {"cm", "configmap", "configmaps"},
    "Secret": {"secret", "secrets"},
    "HorizontalPodAutoscaler": {"hpa"},
    "ScaledObject": {"scaledobject", "scaledobjects"},
    "PodDisruptionBudget": {"pdb"},
    "NetworkPolicy": {"netpol", "networkpolicy"},
    "Job": {"job", "jobs"},
    "Namespace": {"ns", "namespace"},
}


@cache
def objects() -> frozenset[tuple[str, str]]:
    """Every kind and name in the manifests."""
    found: set[tuple[str, str]] = set()
    for file in sorted((ROOT / "deploy/kubernetes").rglob("*.y*ml")):
        if "{{" in text(file):
            continue
        for part in manifests(file):
            found |= set(_objects(part))
    return frozenset(found)


def _objects(part: Any) -> Iterator[tuple[str, str]]:
    if not isinstance(part, dict):
        return
    if "metadata" in part and "name" in part["metadata"]:
        yield part.get("kind", ""), part["metadata"]["name"]
    if "namespace" in part:
        yield "Namespace", part["namespace"]
    for kind in ("Secret", "ConfigMap"):
        for made in part.get(f"{kind[0].lower()}{kind[1:]}Generator", ()):
            yield kind, made["name"]


@each_document
def test_every_command_for_kubernetes_names_what_there_is(document: Path) -> None:
    for command in commands(document):
        if command.program != "kubectl":
            continue
        words = list(command.words)
        for option, value in pairs(words, "-f", "--filename", "-k", "--kustomize"):
            # A folder beside `deploy` is the reader's own.
            assert "/" not in value or (ROOT / value).exists(), f"{command}: {option} {value}"
        for option, value in pairs(words, "-n", "--namespace"):
            assert ("Namespace", value) in objects(), f"{command}: {option} {value}"
        # An object is TYPE/NAME, or TYPE NAME after a verb that takes it so.
        named = [tuple(word.split("/")) for word in words if re.fullmatch(r"[a-z]+/[\w.-]+", word)]
        for kind, name in [*named, *pairwise(words)]:
            for known, aliases in KINDS.items():
                if kind in aliases and not name.startswith("-"):
                    assert (known, name) in objects(), f"{command}: {kind} {name}"
