"""Commands in documents that run on this machine are understood: make, Python's modules, sightline.

A command line is held against the parser of the very program, by running it with `--help` at its
end: what stands before is looked at first, and nothing is done.
"""

import os
import re
import runpy
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.docs.documents import Command, commands, each_document, parsed, text
from tests.docs.test_links import is_module
from tests.docs.test_settings import settings
from tests.fuzz import names as fuzz_targets

WITHOUT_PARSER = {"gunicorn", "loadtest.report", "pip", "pytest", "webapp"}
"""Modules that are run but have no argparse to ask, or none that it would be wise to ask."""
NO_SETTING = {
    "LOG_FORMAT",
    "LOG_LEVEL",
    "MAKEFLAGS",
    "OTEL_EXPORTER_OTLP_ENDPOINT",
    "SIGHTLINE_API_KEY",
    "SIGHTLINE_SHARED",
    "SIGHTLINE_STRICT",
}
"""Variables that a command may be given besides settings."""


@cache
def makefile() -> tuple[frozenset[str], frozenset[str]]:
    """Its verbs and its variables."""
    lines = text(ROOT / "Makefile")
    verbs = re.findall(r"^([a-z-]+):.*##", lines, re.MULTILINE)
    phony = re.findall(r"^\.PHONY: (.*)$", lines, re.MULTILINE)
    assert sorted(verbs) == sorted(phony[0].split())
    return frozenset(verbs), frozenset(re.findall(r"^([A-Z0-9_]+) *\?=", lines, re.MULTILINE))


@each_document
def test_every_verb_and_variable_of_make_exists(document: Path) -> None:
    verbs, variables = makefile()
    for command in commands(document):
        if command.program != "make":
            continue
        for word in command.words[1:]:
            variable, is_set, _ = word.partition("=")
            assert variable in (variables if is_set else verbs), str(command)
        assert set(command.variables) <= variables | set(settings()) | NO_SETTING, str(command)


def module_of(words: tuple[str, ...]) -> str | None:
    """The module that ``python -m`` is to run; None where it is something else."""
    is_python = Path(words[0]).name.startswith("python")
    return words[2] if is_python and words[1:2] == ("-m",) else None


@each_document
def test_every_module_that_is_run_can_be_run(document: Path) -> None:
    for command in commands(document):
        module = module_of(command.words)
        assert module is None or is_module(module), str(command)
        for word in command.words:
            if word.startswith("python:"):
                assert is_module(word.removeprefix("python:")), str(command)


@each_document
@pytest.mark.filterwarnings("ignore:.*found in sys.modules:RuntimeWarning")
def test_every_command_line_is_understood(
    document: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for command in commands(document):
        if command.program == "sightline" and len(command.words) > 1:
            module: str | None = "sightline"
            arguments = command.words[1:]
        else:
            module, arguments = module_of(command.words), command.words[3:]
        if module and module not in WITHOUT_PARSER and not module.startswith("tests."):
            status = asked_for_help(module, arguments, monkeypatch)
            assert status in (0, None), f"{command}\n{capsys.readouterr().err}"


def asked_for_help(
    module: str, arguments: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> str | int | None:
    """The exit status of ``python -m module arguments --help``."""
    monkeypatch.setattr(sys, "argv", [module, *arguments, "--help"])
    with pytest.raises(SystemExit) as ended:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    return ended.value.code


@each_document
@pytest.mark.filterwarnings("ignore:.*found in sys.modules:RuntimeWarning")
def test_every_value_that_make_is_given_is_understood(
    document: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for command, said in recipes(document):
        module = module_of(said.words)
        if module and module not in WITHOUT_PARSER:
            status = asked_for_help(module, said.words[3:], monkeypatch)
            assert status in (0, None), f"{command}\n{capsys.readouterr().err}"


@pytest.mark.drill
@each_document
def test_every_value_that_locust_is_given_is_understood(document: Path) -> None:
    """It changes how Python's sockets work, so not in this process; and that takes seconds."""
    for command, said in recipes(document):
        if said.program == "locust":
            done = subprocess.run(
                [*said.words, "--help"], cwd=ROOT, capture_output=True, text=True, check=False
            )
            assert done.returncode == 0, f"{command}\n{done.stderr}"


def recipes(document: Path) -> Iterator[tuple[Command, Command]]:
    """Each ``make`` that is given values, and what it would do with them."""
    for command in commands(document):
        if command.program == "make" and any("=" in word for word in command.words):
            for said in recipe(command):
                yield command, said


def recipe(command: Command) -> list[Command]:
    """What ``make`` would do with what is installed here, besides installing it."""
    installed = [f"--old-file=.venv/.{what}" for what in ("run", "dev", "fuzz")]
    done = subprocess.run(
        ["make", "--dry-run", *installed, *command.words[1:]],
        cwd=ROOT,
        env={k: v for k, v in os.environ.items() if not k.startswith(("MAKE", "MFLAGS"))},
        capture_output=True,
        text=True,
        check=True,
    )
    lines = done.stdout.replace("\\\n", "").replace("exec ", "").splitlines()
    return [c for line in lines for c in parsed(line) if c.words[0].startswith(".venv/bin/")]


@each_document
def test_tests_that_are_named_for_pytest_or_the_fuzzer_exist(document: Path) -> None:
    options = tomllib.loads(text(ROOT / "pyproject.toml"))["tool"]["pytest"]["ini_options"]
    markers = {marker.partition(":")[0] for marker in options["markers"]}
    for command in commands(document):
        words = command.words
        if module_of(words) == "pytest":
            if "-m" in words[3:]:
                assert words[words.index("-m", 3) + 1] in markers, str(command)
            for word in words[3:]:
                assert "/" not in word or (ROOT / word).exists(), str(command)
        elif module_of(words) == "tests.fuzz":
            assert {word for word in words[3:] if not word.isdigit()} <= set(fuzz_targets())


def test_the_programs_of_the_model_server_are_those_in_its_readme(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    said = {
        command.words[3]
        for command in commands(ROOT / "services/model/README.md")
        if command.words[:3] == ("python", "-m", "modelserver")
    }
    asked_for_help("modelserver", (), monkeypatch)
    programs = re.search(r"\{([a-z,]+)\}", capsys.readouterr().out)
    assert programs is not None
    assert said == set(programs[1].split(","))
