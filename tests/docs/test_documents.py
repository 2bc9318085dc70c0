"""What the documents say is so: links, settings, commands, modules, routes and answers.

Rules:
- Every Markdown file of the tree is read, but for those in hidden folders.
- What a document says in code (`like this`, or in a fence) is held against the thing itself.
"""

import importlib
import json
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import msgspec
import pytest

from modelserver.config import BrokerConfig, ReplicaConfig
from sightline.__main__ import command_line
from tests.conftest import ROOT, Service
from webapp.app import create_app
from webapp.config import GUNICORNS_OWN, Config

DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("[!.]*/**/*.md")])
SERVICES = sorted(ROOT.glob("services/*"))
PACKAGES = {
    "wire": "wire",
    "imaging": "imaging",
    "telemetry": "telemetry",
    "web": "webapp",
    "model": "modelserver",
    "client": "sightline",
}
SETTINGS_OF: dict[str, type[msgspec.Struct]] = {
    "WEB_": Config,
    "BROKER_": BrokerConfig,
    "MODEL_": ReplicaConfig,
}
TABLES = {"web": ["WEB_"], "model": ["BROKER_", "MODEL_"]}
MEDIA = {"application", "image", "multipart", "text"}

_FENCE = re.compile(r"^( *)```.*?\n(.*?)^\1```$", re.DOTALL | re.MULTILINE)
_SPAN = re.compile(r"`([^`\n]+)`")
_LINK = re.compile(r"\]\(([^)\s]+)\)")


def name(document: Path) -> str:
    return str(document.relative_to(ROOT))


each_document = pytest.mark.parametrize("document", DOCUMENTS, ids=name)


def prose(document: Path) -> str:
    """A document without its fences."""
    return _FENCE.sub("", document.read_text())


def spans(document: Path) -> list[str]:
    return _SPAN.findall(prose(document))


def command_lines(document: Path) -> Iterator[list[str]]:
    """Everything in code that may be a command, as words and without its comment."""
    fenced = [
        line for match in _FENCE.finditer(document.read_text()) for line in match[2].split("\n")
    ]
    for line in [*fenced, *spans(document)]:
        try:
            words = shlex.split(line.strip().removeprefix("$ "), comments=True)
        except ValueError:  # An apostrophe: words of some other language.
            continue
        if words:
            yield words


def anchors(document: Path) -> set[str]:
    """What a link may name after ``#``, as GitHub makes it out of the headings."""
    headings = re.findall(r"^#+ +(.+?) *$", prose(document), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_there_are_documents_to_test() -> None:
    assert {"README.md", "ARCHITECTURE.md", "CONTRIBUTING.md"} <= set(map(name, DOCUMENTS))
    assert {folder.name for folder in SERVICES if (folder / "README.md").exists()} == set(PACKAGES)


@each_document
def test_links_lead_somewhere(document: Path) -> None:
    for target in _LINK.findall(prose(document)):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        file = document.parent / path if path else document
        assert file.exists(), target
        assert file.resolve().is_relative_to(ROOT), target
        if anchor:
            assert anchor in anchors(file), target


def settings() -> dict[str, str | None]:
    """Every variable and its default as a table says it; None where words must say it."""
    found: dict[str, str | None] = {GUNICORNS_OWN: "`1`"}
    for prefix, config in SETTINGS_OF.items():
        for field in msgspec.structs.fields(config):
            default = None
            if field.default is not msgspec.NODEFAULT:
                fraction = isinstance(field.default, float)
                shown = f"{field.default:g}" if fraction else str(field.default)
                default = f"`{shown}`" if shown else ""
            found[prefix + field.name.upper()] = default
    return found


@pytest.mark.parametrize("service", TABLES)
def test_the_tables_of_settings_are_complete_and_right(service: str) -> None:
    text = (ROOT / "services" / service / "README.md").read_text()
    rows = re.findall(r"^\| `([A-Z_]+)` \| *(.*?) *\|.*\|$", text, re.MULTILINE)
    expected = {
        variable: default
        for variable, default in settings().items()
        if variable.startswith(tuple(TABLES[service]))
    }
    assert sorted(variable for variable, _ in rows) == sorted(expected)
    for variable, default in rows:
        if expected[variable] is None:
            assert re.fullmatch(r"[^`]+", default), f"the default of {variable} in words"
        else:
            assert default == expected[variable], variable


DEPLOYED = sorted(
    path
    for pattern in (
        "Makefile",
        ".ci/run",
        "docker-compose*.yml",
        "services/*/Dockerfile",
        "deploy/**/*",
    )
    for path in ROOT.glob(pattern)
    if path.is_file()
)


@pytest.mark.parametrize("file", [*DOCUMENTS, *DEPLOYED], ids=name)
def test_every_variable_that_is_named_is_a_setting(file: Path) -> None:
    named = set(re.findall(r"\b(?:WEB|BROKER|MODEL)_[A-Z0-9_]*[A-Z0-9]\b", file.read_text()))
    assert named - set(settings()) == set()


def makefile() -> tuple[set[str], set[str]]:
    """Its verbs and its variables."""
    text = (ROOT / "Makefile").read_text()
    verbs = re.findall(r"^([a-z-]+):.*##", text, re.MULTILINE)
    phony = re.findall(r"^\.PHONY: (.*)$", text, re.MULTILINE)
    assert sorted(verbs) == sorted(phony[0].split())
    return set(verbs), set(re.findall(r"^([A-Z0-9_]+) *\?=", text, re.MULTILINE))


@each_document
def test_every_verb_of_make_exists(document: Path) -> None:
    verbs, variables = makefile()
    for first, *words in command_lines(document):
        if first == "make":
            for word in words:
                variable, is_set, _ = word.partition("=")
                assert variable in (variables if is_set else verbs), f"make {' '.join(words)}"


@each_document
def test_every_module_that_is_run_can_be_run(document: Path) -> None:
    for words in command_lines(document):
        if Path(words[0]).name.startswith("python") and words[1:2] == ["-m"]:
            assert is_module(words[2]), " ".join(words)
        for module in words:
            if module.startswith("python:"):
                assert is_module(module.removeprefix("python:")), " ".join(words)


@each_document
def test_every_command_of_the_command_line_is_understood(document: Path) -> None:
    for words in command_lines(document):
        if Path(words[0]).name == "sightline" and len(words) > 1 and "--help" not in words:
            command_line().parse_args(words[1:])


def test_the_programs_of_the_model_server_are_those_in_its_readme() -> None:
    said = {
        words[3]
        for words in command_lines(ROOT / "services/model/README.md")
        if words[:3] == ["python", "-m", "modelserver"]
    }
    usage = subprocess.run(
        [sys.executable, "-m", "modelserver", "--help"], capture_output=True, text=True, check=True
    ).stdout
    programs = re.search(r"\{([a-z,]+)\}", usage)
    assert programs is not None
    assert said == set(programs[1].split(","))


@each_document
def test_every_path_exists(document: Path) -> None:
    for span in spans(document):
        if not re.fullmatch(r"\.?\w[\w.-]*(/[\w.-]+)+/?", span) or span.split("/")[0] in MEDIA:
            continue
        places = [document.parent, ROOT, *SERVICES]
        assert any((place / span).exists() for place in places), span


@each_document
def test_every_dotted_name_exists(document: Path) -> None:
    for span in spans(document):
        if re.fullmatch(rf"({'|'.join(PACKAGES.values())})(\.\w+)+", span):
            parent, _, last = span.rpartition(".")
            assert is_module(span) or hasattr(importlib.import_module(parent), last), span


def is_module(dotted: str) -> bool:
    """Whether there is such a module. Its package is imported, itself it is not."""
    try:
        return find_spec(dotted) is not None
    except ModuleNotFoundError:
        return False


@pytest.mark.parametrize("service", PACKAGES)
def test_the_table_of_modules_names_modules(service: str) -> None:
    text = (ROOT / "services" / service / "README.md").read_text()
    table = re.search(
        r"^\| (?:start reading at|module) \|.*\n\|[-|]+\n((?:\|.*\n)+)", text, re.MULTILINE
    )
    assert table is not None
    named = [m for row in table[1].splitlines() for m in _SPAN.findall(row.split("|")[1])]
    folder = ROOT / "services" / service / PACKAGES[service]
    for module in named:
        assert (folder / f"{module}.py").exists() or (folder / module / "__init__.py").exists()


def test_the_routes_of_the_readme_are_the_routes() -> None:
    routes = {
        f"{method} {rule.rule}"
        for rule in create_app(Config()).url_map.iter_rules()
        for method in rule.methods or ()
        if method in ("GET", "POST") and rule.endpoint != "static"
    }
    pattern = re.compile(r"(?:GET|POST) /\S*")
    assert set(filter(pattern.fullmatch, spans(ROOT / "services/web/README.md"))) == routes
    for document in DOCUMENTS:
        assert set(filter(pattern.fullmatch, spans(document))) <= routes


def test_the_readmes_requests_get_the_readmes_answers(service: Service) -> None:
    if shutil.which("curl") is None:
        pytest.skip("no curl")
    blocks = re.findall(
        r"^ *```console\n *\$ (.*?[^\\])\n *(\{.*?)\n *```$",
        (ROOT / "README.md").read_text(),
        re.DOTALL | re.MULTILINE,
    )
    assert len(blocks) >= 2
    service.start(WEB_CACHE_BYTES=str(Config().cache_bytes))
    for command, said in blocks:
        assert "http://127.0.0.1:8000/" in command
        here = command.replace(":8000/", f":{service.port}/").replace("curl ", "curl --silent ")
        done = subprocess.run(
            ["sh", "-c", here], cwd=ROOT, capture_output=True, text=True, check=True
        )
        told, promised = json.loads(done.stdout), json.loads(said)
        assert list(told) == list(promised)
        for key in told.keys() - {"replica", "request_id", "instance", "timing_ms"}:
            if key == "predictions":
                for prediction in promised[key]:
                    prediction["probability"] = pytest.approx(prediction["probability"], abs=0.05)
            assert told[key] == promised[key]


@pytest.mark.drill
def test_the_requests_of_the_web_readme_get_answers(
    service: Service, picture: bytes, tmp_path: Path
) -> None:
    if shutil.which("curl") is None:
        pytest.skip("no curl")
    (tmp_path / "photos").mkdir()
    for name in ("photo.jpg", "a.jpg", "b.png", "photos/c.jpg", "photos/d.jpg"):
        (tmp_path / name).write_bytes(picture)
    shutil.make_archive(str(tmp_path / "photos"), "zip", tmp_path / "photos")
    text = (ROOT / "services/web/README.md").read_text().split("## Asking")[1].split("\n## ")[0]
    blocks = [match[2].replace("\\\n", "") for match in _FENCE.finditer(text)]
    commands = [line for block in blocks for line in block.splitlines()]
    assert len(commands) == sum("curl " in command for command in commands) >= 7
    service.start()
    for command in commands:
        here = command.replace(":8000/", f":{service.port}/")
        here = here.replace("curl ", "curl --silent --show-error --fail-with-body ")
        done = subprocess.run(
            ["sh", "-c", here], cwd=tmp_path, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        told = [json.loads(line) for line in done.stdout.splitlines()]
        assert len(told) == (2 if "--no-buffer" in command else 1), command
        assert all("model" in one for one in told)


def test_every_row_of_the_failure_table_names_a_test_that_there_is() -> None:
    text = (ROOT / "ARCHITECTURE.md").read_text()
    table = text.split("## What happens when something dies")[1].split("## ")[0]
    rows = [row.split("|") for row in table.splitlines() if row.startswith("| ")][1:]
    assert len(rows) >= 10
    tests = {
        name
        for file in ROOT.glob("**/tests/**/test_*.py")
        if ".venv" not in file.parts
        for name in re.findall(r"^def (test_\w+)", file.read_text(), re.MULTILINE)
    }
    for row in rows:
        assert row[-2].strip().strip("`") in tests, row[1]
