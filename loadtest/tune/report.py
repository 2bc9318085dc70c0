"""What the search tells: a table for the terminal, a page with plots, and all of it as JSON."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from html import escape
from typing import Any, Final

from loadtest.bench.plot import Panel, svg
from loadtest.tune.choose import Sample, Verdict, typical
from loadtest.tune.compose import NAME
from loadtest.tune.search import DISTURBED, PROOF, Search
from loadtest.tune.settings import WAYS, Settings

STYLE: Final = """
:root{color-scheme:light dark}
body{font:15px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem}
table{border-collapse:collapse;margin:.5rem 0}
th,td{padding:.2rem .8rem;text-align:right;border-bottom:1px solid #8884}
th:first-child,td:first-child{text-align:left}
.chosen td{font-weight:600}
svg{max-width:100%;height:auto}
pre{padding:.6rem;overflow:auto;background:#8882}
"""
BOUND: Final = "bound"


@dataclass(frozen=True, slots=True)
class Facts:
    """What the search itself does not know of its circumstances."""

    date: str
    photographs: str


def command(settings: Settings, model: str) -> str:
    """How `make run` is told these settings."""
    variables = settings.model_environment() | settings.web_environment()
    words = [f"{name}={value}" for name, value in variables.items()]
    return f"{' '.join(words)} make run REPLICAS={settings.replicas} MODEL={model}"


def reason(verdict: Verdict) -> str:
    """Why a step ended as it did, in a sentence."""
    first, chosen = verdict.candidates[0], verdict.chosen
    if verdict.knees[chosen] is None:
        return "Nothing kept the bound, so everything stays as it was."
    if chosen == first:
        return f"Nothing is better than before by more than the noise, {verdict.noise:.0%}."
    if chosen not in verdict.gains:
        return "The first that keeps the bound at all."
    return f"{verdict.gains[chosen]:+.0%} requests a second; the noise is {verdict.noise:.0%}."


def doubt(search: Search) -> str:
    """A warning where other programs were at work; empty where the machine was calm."""
    if not search.disturbed:
        return ""
    return (
        f"In {search.disturbed:.0%} of the measurements other programs took more than "
        f"{DISTURBED:.0%} of the machine: measure again when it is calm."
    )


def table(search: Search) -> str:
    """The knees, and what is best, for a terminal."""
    lines = []
    for verdict in search.verdicts:
        lines.append(f"{verdict.step}: {reason(verdict)}")
        for settings in verdict.candidates:
            point = verdict.knees[settings]
            told = (
                f"{point.req_s:8.1f}/s at {point.level:>3} connections, p95 {point.p95_ms:.0f} ms"
                if point
                else "no level keeps the bound"
            )
            mark = "*" if settings == verdict.chosen else " "
            lines.append(f"  {mark} {settings!s:60} {told}{_gain(verdict, settings)}")
    best = "the defaults" if search.best == search.first else str(search.best)
    lines += ["", f"Best here: {best}", f"  {command(search.best, search.plan.model)}"]
    lines += [warning] if (warning := doubt(search)) else []
    return "\n".join(lines)


def as_json(search: Search, facts: Facts) -> dict[str, Any]:
    """Everything that was measured and what came of it, for a file."""
    return {
        **asdict(facts),
        "cpus": search.plan.cpus,
        "model": search.plan.model,
        "engine": search.plan.engine,
        "rounds": search.plan.rounds,
        "window_s": search.plan.window_s,
        "lone_p50_ms": search.lone_ms,
        "p95_bound_ms": search.bound_ms,
        "defaults": asdict(search.first),
        "best": asdict(search.best),
        "disturbed": search.disturbed,
        "steps": [
            {
                "step": verdict.step,
                "chosen": asdict(verdict.chosen),
                "noise": verdict.noise,
                "candidates": [
                    {
                        "settings": asdict(settings),
                        "knee": asdict(point) if point else None,
                        "gain": verdict.gains.get(settings),
                    }
                    for settings, point in verdict.knees.items()
                ],
            }
            for verdict in search.verdicts
        ],
        "samples": [asdict(sample) for sample in search.samples],
    }


def html(search: Search, facts: Facts) -> str:
    """The page; it needs nothing from anywhere."""
    plan = search.plan
    found = (
        "The defaults are best here: nothing else was better by more than the noise."
        if search.best == search.first
        else f"Best here: {search.best}. The defaults are {search.first}."
    )
    steps = "\n".join(_step(search, verdict) for verdict in search.verdicts)
    return f"""\
<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>Sightline: the best settings</title>
<style>{STYLE}</style>
<h1>The best settings</h1>
<p>{escape(found)} <strong>{doubt(search)}</strong></p>
<pre>{escape(command(search.best, plan.model))}</pre>
<p>The same for Compose is in <code>{NAME}</code>.</p>
<p>{facts.date}; {plan.cpus} CPUs; model {escape(plan.model)}, engine {escape(plan.engine)};
{len(plan.levels)} levels, {plan.rounds} rounds of {plan.window_s:g} s; without remembered answers.
One request alone takes {search.lone_ms:.1f} ms, and p95 may be {search.bound_ms:.0f} ms. A
<em>knee</em> is the level with the most requests a second at which it is no more than that. Numbers
are medians of the rounds, gains medians of the ratios within them.</p>
{steps}
</html>
"""


def _step(search: Search, verdict: Verdict) -> str:
    rows = []
    for settings in verdict.candidates:
        point = verdict.knees[settings]
        cells = (
            [f"{point.level}", f"{point.req_s:.1f}", f"{point.p95_ms:.0f}"]
            if point
            else ["none", "", ""]
        )
        gain = verdict.gains.get(settings)
        cells.append("" if gain is None else f"{gain:+.1%}")
        mark = ' class="chosen"' if settings == verdict.chosen else ""
        told = "".join(f"<td>{cell}</td>" for cell in cells)
        rows.append(f"<tr{mark}><td>{escape(str(settings))}</td>{told}</tr>")
    return f"""\
<h2>{escape(verdict.step)}</h2>
<p>{escape(reason(verdict))}</p>
<table><tr><th>settings</th><th>knee at</th><th>requests/s</th><th>p95, ms</th><th>gain</th></tr>
{"".join(rows)}</table>
{_plot(search, verdict)}"""


def _plot(search: Search, verdict: Verdict) -> str:
    """p95 over throughput, and throughput over connections."""
    levels = search.plan.levels
    rates: dict[str, list[float | None]] = {}
    waits: dict[str, list[float | None]] = {}
    for settings in verdict.candidates:
        name = _label(search, verdict, settings)
        own = [s for s in search.samples if (s.step, s.settings) == (verdict.step, settings)]
        points = [typical(_at(own, level)) for level in levels]
        rates[name] = [point.req_s if point else None for point in points]
        waits[name] = [point.p95_ms if point else None for point in points]
    most = max((rate for row in rates.values() for rate in row if rate), default=1.0)
    return svg(
        [
            Panel(
                "p95, ms",
                (),
                {**waits, BOUND: [search.bound_ms, search.bound_ms]},
                "requests a second",
                dashed=[BOUND],
                logarithmic=True,
                across={**rates, BOUND: [0.0, most]},
            ),
            Panel("requests a second", [str(n) for n in levels], rates, "connections"),
        ]
    )


def _at(samples: Sequence[Sample], level: int) -> list[Sample]:
    return [s for s in samples if s.level == level]


def _label(search: Search, verdict: Verdict, settings: Settings) -> str:
    if verdict.step == PROOF:
        return "defaults" if settings == search.first else "found"
    return next(way.label(settings) for way in WAYS if way.name == verdict.step)


def _gain(verdict: Verdict, settings: Settings) -> str:
    gain = verdict.gains.get(settings)
    return "" if gain is None else f", {gain:+.1%}"
