"""The benchmark: its load generator sees what goes wrong, its report says what was measured."""

import http.server
import json
import os
import subprocess
import sys
import threading
import time
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from loadtest.bench.generator import Load, Window, post
from loadtest.bench.photographs import photographs
from loadtest.bench.plot import Panel, svg
from loadtest.bench.promises import promises
from loadtest.bench.report import Results, tables
from loadtest.bench.rounds import Sample
from loadtest.bench.usage import cpu_seconds, part, pss_bytes, tree
from tests.conftest import ROOT, eventually, free_port


class Echo(http.server.BaseHTTPRequestHandler):
    """Answers a body of digits with the class of that number, and others as they ask for."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if body == b"hang up":
            self.close_connection = True
            return
        answer = b'{"predictions":[{"class_index":%d}]}' % int(body) if body.isdigit() else b"{}"
        self.send_response(200 if body.isdigit() else 503)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_: object) -> None:
        """Silence."""


@pytest.fixture
def echo() -> Iterator[int]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Echo) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server.server_address[1]
        server.shutdown()
        thread.join()


def load(port: int, bodies: list[bytes], expected: list[int | None], connections: int) -> Window:
    requests = [post("/classify", body) for body in bodies]
    return Load(port, requests, expected, connections).run(0.05, 0.2, lambda: None)


def test_right_answers_are_counted_and_timed(echo: int) -> None:
    window = load(echo, [b"7", b"8", b"9"], [7, 8, 9], 4)
    assert len(window.latencies_ms) > 10
    assert (window.wrong, window.failed) == (0, 0)
    assert 0 < min(window.latencies_ms) < max(window.latencies_ms) < 1000
    assert 0.2 <= window.seconds < 1
    assert 0 < window.cpu_s <= window.seconds


def test_an_answer_that_belongs_to_another_photograph_is_wrong(echo: int) -> None:
    window = load(echo, [b"7", b"8"], [7, 9], 1)
    assert window.failed == 0
    assert abs(window.wrong - len(window.latencies_ms)) <= 1


@pytest.mark.parametrize("body", [b"busy", b"hang up"])
def test_a_refusal_and_a_broken_connection_have_failed(echo: int, body: bytes) -> None:
    window = load(echo, [b"7", body], [7, None], 2)
    assert window.failed > 2
    assert window.wrong == 0
    assert window.latencies_ms


def test_nobody_listens() -> None:
    with pytest.raises(ConnectionRefusedError):
        load(free_port(), [b"7"], [7], 1)


def test_a_tree_of_processes_and_what_it_uses() -> None:
    busy = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'while True: pass'])"
    with subprocess.Popen([sys.executable, "-c", busy]) as process:
        try:
            eventually(lambda: len(tree(process.pid)) == 2)
            child = tree(process.pid)[1]
            eventually(lambda: cpu_seconds([child])[child] > 0.1)
            assert pss_bytes(child) > 1_000_000
            assert part(child).startswith("python")
        finally:
            os.kill(tree(process.pid)[-1], 9)
    assert cpu_seconds([child]) == {}
    assert pss_bytes(child) == 0


def test_the_folder_that_is_asked_for(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), photographs(tmp_path):
        pass
    with photographs(None) as found:
        file = found.files[0]
    for name in ("012_x.jpg", "y.jpeg"):
        (tmp_path / name).write_bytes(file)
    with photographs(tmp_path) as found:
        assert found.classes == [12, None]
        assert [path.name for path in sorted(found.folder.iterdir())] == ["012_x.jpg", "y.jpeg"]
    assert not found.folder.exists()


def sample(contender: str, case: str, req_s: float, number: int = 1) -> Sample:
    return Sample(contender=contender, engine="model", case=case, round=number, req_s=req_s)


def test_ratios_are_taken_within_rounds() -> None:
    """The machine was twice as fast in the second round, and that is nobody's merit."""
    results = Results(
        [
            *(sample("sightline", "32", rate, n) for n, rate in enumerate((110, 220, 120), 1)),
            *(sample("plain", "32", rate, n) for n, rate in enumerate((100, 200, 80), 1)),
        ]
    )
    assert results.of("sightline", "32", "req_s") == 120
    ratio = results.ratio(("sightline", "32"), ("plain", "32"), "req_s")
    assert ratio == pytest.approx(1.1)
    assert results.ratio(("sightline", "32"), ("mosec", "32"), "req_s") is None


def test_promises_are_kept_broken_or_not_measured() -> None:
    samples = [
        sample("bare", "loop", 100),
        replace(sample("sightline", "32", 83), cpu_ms=9.0, ready_s=2.0, p99_ms=5.0),
        replace(sample("sightline", "128", 81), ready_s=2.0),
        replace(sample("sightline", "hold", 80), failed=1, growth_mb=0.5, pss_mb=300.0),
    ]
    told = {str(p).split(": ")[0][8:]: p.kept for p in promises(Results(samples), (89, 100))}
    assert told["requests/s at 32, of the bare limit"] is True
    assert told["requests/s at 128, of the bare limit"] is False
    assert told["requests/s at 32, of mosec's"] is None
    assert told["errors while 128 connections were held"] is False
    assert told["memory grew by"] is True
    assert told["photographs classified rightly"] is False
    assert told["ready after"] is True


def test_the_table_has_a_line_for_each_contender() -> None:
    results = Results([sample("bare", "loop", 100), sample("sightline", "32", 80)])
    lines = tables(results).splitlines()
    assert [line.split(" | ")[0] for line in lines[4:]] == ["| bare", "| sightline"]
    assert "0.80x" in lines[4]


@pytest.mark.parametrize("logarithmic", [False, True])
@pytest.mark.parametrize("lines", [False, True])
def test_a_plot_is_a_picture(lines: bool, logarithmic: bool) -> None:
    series: dict[str, list[float | None]] = {"<a>": [1.0, None, 30.0], "b": [2.0, 4.0, 0.5]}
    panel = Panel("t & t", ["1", "8", "32"], series, lines=lines, logarithmic=logarithmic)
    root = ET.fromstring(svg([panel, panel]))
    assert root.tag.endswith("svg")
    texts = [element.text for element in root.iter() if element.tag.endswith("}text")]
    assert {"<a>", "t & t", "32"} <= set(texts)
    shape = "polyline" if lines else "rect"
    assert len([e for e in root.iter() if e.tag.endswith(shape)]) >= 4


@pytest.mark.drill
@pytest.mark.timeout(600)
def test_it_measures_and_leaves_nothing_behind(tmp_path: Path) -> None:
    before = set(tree(os.getpid()))
    arguments = ["--skip", "tutorial monolith", "--rounds", "1", "--window", "1", "--hold", "1"]
    done = subprocess.run(
        [sys.executable, "-m", "loadtest.bench", *arguments, "--output", str(tmp_path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    told = json.loads((tmp_path / "bench.json").read_text())
    measured = {(s["engine"], s["contender"], s["case"]) for s in told["samples"]}
    for engine in ("model", "accelerator", "nothing"):
        assert {(engine, name, "32") for name in ("plain", "sightline")} < measured
    assert all(s["req_s"] > 0 and not s["wrong"] for s in told["samples"])
    assert "requests/s at 32, of plain's: " in done.stdout
    assert ET.fromstring((tmp_path / "bench.svg").read_text()).tag.endswith("svg")
    began = time.monotonic()
    while set(tree(os.getpid())) - before and time.monotonic() - began < 5:
        time.sleep(0.05)
    assert set(tree(os.getpid())) <= before


def test_a_contender_that_there_is_not_is_named() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "loadtest.bench", "--peers", "nonsense"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "'nonsense' is none of mosec" in done.stderr
