"""The batcher: what is there is a batch, in order, and nothing that is too late."""

import numpy as np

import wire
from modelserver.batcher import Batcher, Item

PIXELS = np.zeros((2, 2, 3), np.uint8)


def item(job: int, deadline: float = 100.0) -> Item:
    work = wire.Work(job=job, deadline_ms=1, top_k=1, encoding="pixels")
    return Item(work, PIXELS, arrived=0.0, deadline=deadline)


def jobs(items: list[Item]) -> list[int]:
    return [item.work.job for item in items]


def test_one_alone_does_not_wait_for_company() -> None:
    batcher = Batcher(max_batch=4)
    batcher.add(item(1))
    assert jobs(batcher.take(now=0.0).items) == [1]
    assert len(batcher) == 0


def test_a_crowd_is_split_in_order() -> None:
    batcher = Batcher(max_batch=4)
    for n in range(6):
        batcher.add(item(n))
    assert jobs(batcher.take(now=0.0).items) == [0, 1, 2, 3]
    assert jobs(batcher.take(now=0.0).items) == [4, 5]
    assert batcher.take(now=0.0).items == []


def test_what_is_too_late_takes_no_place_in_the_batch() -> None:
    batcher = Batcher(max_batch=2)
    for n in range(4):
        batcher.add(item(n, deadline=10.0 if n % 2 else 1.0))
    batch = batcher.take(now=1.0)
    assert (jobs(batch.items), jobs(batch.expired)) == ([1, 3], [0, 2])


def test_what_is_forgotten_is_not_computed() -> None:
    batcher = Batcher(max_batch=2)
    batcher.add(item(1))
    batcher.clear()
    assert batcher.take(now=0.0).items == []
