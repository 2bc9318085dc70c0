"""The search for the best settings: what it tries, what it calls better, what it writes."""

import json
import os
import re
import signal
import subprocess
import sys
import time
import xml.etree.ElementTree as ET
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from loadtest.bench.photographs import Photographs
from loadtest.bench.plot import Panel, svg
from loadtest.bench.usage import busy_seconds, tree
from loadtest.tune.choose import ALONE, LEAST, Knee, Sample, choose, knee, noise
from loadtest.tune.compose import NAME, override
from loadtest.tune.report import Facts, as_json, doubt, html, table
from loadtest.tune.search import PROOF, Plan, Search
from loadtest.tune.settings import WAYS, Settings, defaults
from modelserver.config import ReplicaConfig
from tests.conftest import ROOT, eventually
from webapp.config import Config

USUAL = Settings(replicas=1, threads=2, decoders=2, max_batch=8)
OTHER = Settings(replicas=2, threads=1, decoders=2, max_batch=8)
THIRD = Settings(replicas=1, threads=1, decoders=2, max_batch=8)


def sample(
    settings: Settings,
    req_s: float,
    p95_ms: float | None = 50.0,
    *,
    number: int = 1,
    level: int = 8,
    failed: int = 0,
    step: str = "s",
) -> Sample:
    return Sample(
        step=step,
        settings=settings,
        round=number,
        level=level,
        req_s=req_s,
        p50_ms=p95_ms,
        p95_ms=p95_ms,
        failed=failed,
    )


def rounds(settings: Settings, *rates: float) -> list[Sample]:
    return [sample(settings, rate, number=n) for n, rate in enumerate(rates, 1)]


def test_the_knee_is_the_most_that_keeps_the_bound() -> None:
    levels = [
        sample(USUAL, 50, 20, level=1),
        sample(USUAL, 100, 100, level=8),
        sample(USUAL, 120, 101, level=32),
    ]
    assert knee(levels, 100) == Knee(8, 100, 100)
    assert knee(levels, 101) == Knee(32, 120, 101)
    assert knee(levels, 19) is None


def test_a_knee_is_made_of_medians() -> None:
    waits = [sample(USUAL, 100, wait, number=n) for n, wait in enumerate((90, 95, 500), 1)]
    assert knee(waits, 100) == Knee(8, 100, 95)


def test_a_level_with_failures_or_without_answers_is_no_knee() -> None:
    good = sample(USUAL, 50, level=1)
    assert knee([good, sample(USUAL, 90, failed=1)], 100) == Knee(1, 50, 50)
    assert knee([good, sample(USUAL, 0, None)], 100) == Knee(1, 50, 50)


def test_better_by_more_than_the_noise_is_chosen() -> None:
    samples = [*rounds(USUAL, 100, 101, 100), *rounds(OTHER, 110, 112, 110)]
    verdict = choose("s", [USUAL, OTHER], samples, 100)
    assert verdict.chosen == OTHER
    assert verdict.gains[OTHER] == pytest.approx(0.1, abs=0.01)
    assert verdict.noise == LEAST


def test_a_gain_within_the_noise_changes_nothing() -> None:
    samples = [*rounds(USUAL, 100, 100, 100), *rounds(OTHER, 80, 110, 130)]
    verdict = choose("s", [USUAL, OTHER], samples, 100)
    assert verdict.noise > verdict.gains[OTHER] > LEAST
    assert verdict.chosen == USUAL


def test_a_small_gain_changes_nothing_however_sure_it_is() -> None:
    samples = [*rounds(USUAL, 100, 100, 100), *rounds(OTHER, 102, 102, 102)]
    assert choose("s", [USUAL, OTHER], samples, 100).chosen == USUAL


def test_rounds_are_compared_with_themselves() -> None:
    """The machine was twice as fast in the second round, and that is nobody's merit."""
    samples = [*rounds(USUAL, 100, 200, 100), *rounds(OTHER, 110, 220, 110)]
    verdict = choose("s", [USUAL, OTHER], samples, 100)
    assert verdict.gains[OTHER] == pytest.approx(0.1)
    assert verdict.chosen == OTHER


def test_the_best_of_the_better_ones_is_chosen() -> None:
    samples = [*rounds(USUAL, 100, 100), *rounds(OTHER, 110, 110), *rounds(THIRD, 120, 120)]
    assert choose("s", [USUAL, OTHER, THIRD], samples, 100).chosen == THIRD


def test_who_keeps_the_bound_is_better_than_who_does_not() -> None:
    late = [sample(USUAL, 200, 300.0)]
    assert choose("s", [USUAL, OTHER], [*late, sample(OTHER, 10)], 100).chosen == OTHER
    nobody = choose("s", [USUAL, OTHER], [*late, sample(OTHER, 500, 300.0)], 100)
    assert (nobody.chosen, nobody.knees[OTHER], nobody.gains) == (USUAL, None, {})


def test_other_steps_are_not_looked_at() -> None:
    samples = [sample(USUAL, 100), sample(OTHER, 50), sample(OTHER, 500, step="another")]
    assert choose("s", [USUAL, OTHER], samples, 100).chosen == USUAL


def test_the_noise() -> None:
    assert noise([]) == LEAST
    assert noise([[1.2], [0.9]]) == ALONE
    assert noise([[1.1, 1.1, 1.1]]) == LEAST
    assert noise([[1.0, 1.2], [1.0, 1.0]]) == pytest.approx(2 * 1.2533 * 0.1 / 2**0.5, rel=1e-3)


@pytest.mark.parametrize("cpus", [1, 2, 3, 8, 96])
def test_each_way_varies_one_thing_and_begins_with_the_best(cpus: int) -> None:
    first = defaults(cpus)
    for way, varied in zip(
        WAYS, ({"replicas", "threads"}, {"decoders"}, {"max_batch"}), strict=True
    ):
        candidates = way.candidates(first, cpus)
        assert candidates[0] == first
        assert len(set(candidates)) == len(candidates) <= 4
        assert len({way.label(c) for c in candidates}) == len(candidates)
        for candidate in candidates:
            assert {
                key for key, value in asdict(candidate).items() if value != asdict(first)[key]
            } <= varied
            ReplicaConfig.from_env(candidate.model_environment())
            Config.from_env(candidate.web_environment())


def test_the_defaults_are_those_of_the_code() -> None:
    assert defaults(3) == Settings(1, 3, 3, ReplicaConfig().largest_batch)


def test_the_override_is_for_services_and_settings_that_there_are() -> None:
    tuned = Settings(replicas=3, threads=2, decoders=5, max_batch=16)
    services: dict[str, Any] = yaml.safe_load(override(tuned, "8 CPUs, 2026-01-31"))["services"]
    there = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
    assert services.keys() <= there.keys()
    assert services["model"].pop("deploy") == {"replicas": 3}
    assert "container_name" not in there["model"]
    told = ReplicaConfig.from_env(services["model"].pop("environment"))
    assert (told.threads, told.max_batch) == (2, 16)
    assert Config.from_env(services["web"].pop("environment")).decoders == 5
    assert services == {"model": {}, "web": {}}


def searched(*, model: str = "m") -> Search:
    """A search that has measured one step, and the proof of what that step found."""
    plan = Plan(
        cpus=2, levels=[1, 8], rounds=1, window_s=1, bound_ms=100, engine="model", model=model
    )
    nothing = Photographs(folder=Path(), files=[], classes=[], source="none")
    search = Search(plan, nothing, lambda _: None)
    for step in (WAYS[0].name, PROOF):
        for settings, rate in ((USUAL, 100), (OTHER, 150)):
            for level, wait in ((1, 40.0), (8, None if settings == USUAL else 90.0)):
                search.samples.append(sample(settings, rate, wait, level=level, step=step))
        search.verdicts.append(choose(step, [USUAL, OTHER], search.samples, 100))
    search.best = OTHER
    return search


def test_the_report_needs_nothing_from_anywhere() -> None:
    page = html(searched(model="<m&m>"), Facts(date="2026-01-31", photographs="3 of /home/me"))
    addresses = set(re.findall(r"https?://[^\"'\s<]+", page))
    assert addresses == {"http://www.w3.org/2000/svg"}
    assert not re.search(r"<script|<link|<img|@import|url\(|/home/me", page)
    assert "&lt;m&amp;m&gt;" in page
    assert "2 CPUs" in page
    assert "2026-01-31" in page
    drawings = re.findall(r"<svg.*?</svg>", page, re.DOTALL)
    assert len(drawings) == 2
    for drawing in drawings:
        ET.fromstring(drawing)
    assert "MODEL_THREADS=1 MODEL_MAX_BATCH=8 WEB_DECODERS=2 make run REPLICAS=2" in page
    assert "+50% requests a second; the noise is 15%." in page


def test_the_report_says_when_others_were_at_work() -> None:
    search = searched()
    assert doubt(search) == ""
    search.samples[0] = replace(search.samples[0], others=0.5)
    assert search.disturbed == 1 / 8
    assert doubt(search).startswith("In 12% of the measurements other programs took more than 10%")
    assert doubt(search) in html(search, Facts("2026-01-31", "3"))
    assert doubt(search) in table(search)


def test_the_machine_is_as_busy_as_its_programs() -> None:
    before, own = busy_seconds(), time.process_time()
    while time.process_time() < own + 0.2:
        pass
    assert busy_seconds() - before >= 0.15


def test_the_table_marks_what_was_chosen() -> None:
    lines = table(searched()).splitlines()
    assert [line for line in lines if line.startswith("  * 2 replicas of 1 thread")]
    assert "+50.0%" in lines[2]


def test_the_file_has_it_all() -> None:
    told = json.loads(json.dumps(as_json(searched(), Facts("2026-01-31", "3"))))
    assert told["best"] == {"replicas": 2, "threads": 1, "decoders": 2, "max_batch": 8}
    assert [step["step"] for step in told["steps"]] == ["replicas", "proof"]
    assert len(told["samples"]) == 8


def test_lines_over_numbers() -> None:
    panel = Panel("t", (), {"a": [1, 2, None]}, across={"a": [10.0, 100.0, 50.0]})
    root = ET.fromstring(svg([panel]))
    [line] = [e for e in root.iter() if e.tag.endswith("polyline")]
    (x1, y1), (x2, y2) = [map(float, p.split(",")) for p in line.attrib["points"].split()]
    assert x2 > x1
    assert y2 < y1
    assert "100" in {e.text for e in root.iter()}


SMALL = [
    *("--vary", "decoders", "--engine", "accelerator"),
    *("--rounds", "1", "--levels", "1,4", "--window", "0.2"),
]


@pytest.mark.drill
@pytest.mark.timeout(300)
def test_it_searches_and_leaves_nothing_behind(tmp_path: Path) -> None:
    before = set(tree(os.getpid()))
    done = subprocess.run(
        [sys.executable, "-m", "loadtest.tune", *SMALL, "--output", str(tmp_path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    told = json.loads((tmp_path / "tune.json").read_text())
    assert told["steps"][0]["step"] == "decoders"
    assert len(told["steps"][0]["candidates"]) > 1
    assert all(not s["failed"] for s in told["samples"])
    assert all(0 <= s["others"] <= 1 for s in told["samples"])
    assert any(s["req_s"] > 0 for s in told["samples"])
    best = Settings(**told["best"])
    written = yaml.safe_load((tmp_path / NAME).read_text())["services"]
    assert written["model"]["environment"] == best.model_environment()
    assert str(best) in done.stdout
    assert "<svg" in (tmp_path / "tune.html").read_text()
    eventually(lambda: set(tree(os.getpid())) <= before)


@pytest.mark.drill
@pytest.mark.timeout(120)
def test_ctrl_c_ends_it_and_the_service_it_measures(tmp_path: Path) -> None:
    before = set(tree(os.getpid()))
    with subprocess.Popen(
        [sys.executable, "-m", "loadtest.tune", *SMALL, "--output", str(tmp_path / "o")],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # A shell has what it starts in the background ignore it, and that is inherited.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    ) as process:
        assert process.stdout is not None
        assert any("round 1" in line for line in process.stdout)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert said.splitlines()[-1] == "tune: stopped; nothing is written"
    assert "Traceback" not in said
    assert not (tmp_path / "o").exists()
    eventually(lambda: set(tree(os.getpid())) <= before)


def test_a_bound_that_is_none_is_named() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "loadtest.tune", "--p95-ms", "-3"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "--p95-ms: must be 1 or more" in done.stderr
