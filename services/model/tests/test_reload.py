"""A bundle that is loaded again while the old one serves."""

import threading

from modelserver.reload import BundleRefused, Reload
from modelserver.tally import Refusal


def test_what_goes_wrong_is_counted_and_the_next_one_is_loaded() -> None:
    outcomes: list[Exception | str] = [
        BundleRefused("no such class", "golden"),
        FileNotFoundError("replaced while it was read"),
        RuntimeError("nobody thought of it"),
        "the new one",
    ]
    refusals: list[Refusal] = []
    ready = threading.Event()

    def load() -> str:
        outcome = outcomes.pop(0)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    reload = Reload(load, refusals.append)
    reload.serve(ready.set)
    for _ in range(4):
        reload.ask()
    assert ready.wait(5)
    assert reload.take() == "the new one"
    assert refusals == ["golden", "load", "load"]
