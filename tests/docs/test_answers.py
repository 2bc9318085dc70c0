"""What documents show to be answered is what is answered: their commands are run.

A fence ``console`` is a promise: its commands are run, against a service of their own, and what
they print is what stands below them. Ids, times and names of processes are the reader's own.
"""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ROOT, Service
from tests.docs.documents import DOCUMENTS, fences, name, section
from webapp.config import Config

OWN = {"replica", "replicas", "request_id", "instance", "timing_ms"}
"""What is another one each time."""

needs_curl = pytest.mark.skipif(shutil.which("curl") is None, reason="no curl")


def promises() -> list[tuple[str, str, str]]:
    """The document of each command in a console, the command, and what it is to print."""
    found = []
    for document in DOCUMENTS:
        for fence in fences(document):
            if fence.language == "console":
                for said in re.split(r"^ *\$ ", fence.text, flags=re.MULTILINE)[1:]:
                    command, _, printed = re.sub(r" *\\\n *", " ", said).partition("\n")
                    found.append((name(document), command, printed))
    return found


@needs_curl
def test_what_documents_promise_is_printed(service: Service) -> None:
    assert len(promises()) >= 2
    service.start(WEB_CACHE_BYTES=str(Config().cache_bytes))
    for document, command, promised in promises():
        done = subprocess.run(
            ["sh", "-c", here(command, service)],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"{document}: {command}\n{done.stderr}"
        if promised.lstrip().startswith("{"):
            told, said = json.loads(done.stdout), json.loads(promised)
            assert list(told) == list(said), f"{document}: {command}"
            for prediction in said.get("predictions", ()):
                prediction["probability"] = pytest.approx(prediction["probability"], abs=0.05)
            assert comparable(told) == comparable(said), f"{document}: {command}"
        else:
            assert shape(done.stdout) == shape(promised), f"{document}: {command}"


def here(command: str, service: Service) -> str:
    """A command of a document as it is said to the service of this test."""
    command = re.sub(r":8000\b", f":{service.port}", command)
    command = command.replace(":5576", f":{service.frontend.rpartition(':')[2]}")
    command = command.replace(".venv/bin/sightline", f"{sys.executable} -m sightline")
    return command.replace("curl ", "curl --silent ")


def comparable(answer: dict[str, Any]) -> dict[str, Any]:
    """An answer without what is another one each time."""
    return {key: value for key, value in answer.items() if key not in OWN}


def shape(printed: str) -> list[list[str]]:
    """Lines as words, of which those with a number in them are all alike, and so is none."""
    lines = printed.strip().splitlines()
    return [
        ["#" if re.search(r"\d|^-$", word) else word for word in line.split()] for line in lines
    ]


@pytest.mark.drill
@needs_curl
def test_the_requests_of_the_web_readme_get_answers(
    service: Service, picture: bytes, tmp_path: Path
) -> None:
    (tmp_path / "photos").mkdir()
    for file in ("photo.jpg", "a.jpg", "b.png", "photos/c.jpg", "photos/d.jpg"):
        (tmp_path / file).write_bytes(picture)
    shutil.make_archive(str(tmp_path / "photos"), "zip", tmp_path / "photos")
    asking = section(ROOT / "services/web/README.md", "Asking")
    blocks = re.findall(r"^```sh\n(.*?)^```", asking, re.DOTALL | re.MULTILINE)
    lines = [line for block in blocks for line in block.replace("\\\n", "").splitlines()]
    assert len(lines) == sum("curl " in line for line in lines) >= 7
    service.start()
    for line in lines:
        loud = line.replace("curl ", "curl --show-error --fail-with-body ")
        done = subprocess.run(
            ["sh", "-c", here(loud, service)],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        told = [json.loads(answer) for answer in done.stdout.splitlines()]
        assert len(told) == (2 if "--no-buffer" in line else 1), line
        assert all("model" in one for one in told)
