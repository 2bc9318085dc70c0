"""Every fuzz target stands what its search begins with; the search itself is ``make fuzz``."""

import pytest

from tests.fuzz import load, names


def test_there_is_a_target_for_every_part() -> None:
    assert names() == [
        *("archives", "codec", "framing", "http", "prepare", "tensors", "tutorial"),
    ]


@pytest.mark.parametrize("name", names())
def test_a_target_stands_its_seeds_and_pieces_of_them(name: str) -> None:
    target = load(name)
    seeds = list(target.seeds())
    assert len(set(seeds)) > 10
    for number, seed in enumerate(seeds):
        target.check(seed)
        target.check(target.refine(seed, number))
        target.check(seed[: len(seed) // 2])
    target.check(b"")
