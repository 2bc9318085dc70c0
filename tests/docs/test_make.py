"""A slip at the command line is answered with one line that says what is wrong."""

import os
import shutil
import subprocess

import pytest

from tests.conftest import ROOT, free_port


def make(*words: str) -> subprocess.CompletedProcess[str]:
    """Run ``make``, on free ports and without installing anything."""
    env = {key: text for key, text in os.environ.items() if not key.startswith(("MAKE", "MFLAGS"))}
    env |= {f"BROKER_{side}": f"tcp://127.0.0.1:{free_port()}" for side in ("FRONTEND", "BACKEND")}
    return subprocess.run(
        ["make", "--old-file=.venv/.run", "--old-file=.venv/.fuzz", *words],
        cwd=ROOT,
        env=env | {"PORT": str(free_port())},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


@pytest.fixture(autouse=True)
def _installed() -> None:
    if shutil.which("make") is None or not (ROOT / ".venv/.run").exists():
        pytest.skip("no make, or nothing installed in .venv")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["run", "PORT=abc"], ["port", "'abc'"]),
        (["run", "PORT=99999"], ["port", "99999"]),
        (["run", "REPLICAS=0"], ["replicas", "0"]),
        (["run", "REPLICAS=two"], ["replicas", "'two'"]),
        (["fuzz", "SECONDS=1m"], ["'1m'", "seconds"]),
        (["run", "MODEL=nonsense"], ["no bundle 'nonsense'", "efficientnet-lite0"]),
    ],
    ids=" ".join,
)
def test_a_value_that_does_not_fit_is_named(words: list[str], said: list[str]) -> None:
    done = make(*words)
    assert done.returncode != 0
    told = [line for line in (done.stdout + done.stderr).splitlines() if "make: ***" not in line]
    assert len(told) == 1, "\n".join(told)
    assert all(word in told[0] for word in said), told[0]
    assert "_" not in told[0], f"a name of our code: {told[0]}"


def test_a_peer_that_there_is_not_is_named_and_nothing_installed() -> None:
    done = make("bench", "PEERS=mosec nonsense")
    assert done.returncode != 0
    assert "'nonsense' is none of mosec" in done.stderr
    assert "Installing" not in done.stdout


def test_an_unknown_verb_is_named() -> None:
    done = make("nonsense")
    assert done.returncode != 0
    assert done.stderr.count("\n") == 1
    assert "nonsense" in done.stderr


def test_make_alone_lists_the_verbs() -> None:
    done = make()
    assert done.returncode == 0
    assert {line.split()[1] for line in done.stdout.splitlines()} >= {"run", "test", "check"}
