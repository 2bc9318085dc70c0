"""What a replica's process has done, counted without a lock by its I/O thread.

Rules:
- One thread writes, any may read: between two numbers of the same batch a reader sees the one and
  not yet the other, and the next time both.
- Who loads another bundle goes on in the same books, where each version has a page of its own.
"""

from typing import Final, Literal, NamedTuple

from modelserver.batcher import Item
from modelserver.engines import Engine
from modelserver.histogram import BATCH_SIZES, TIMES_MS, Histogram
from wire import Contract, FailureCode

Refusal = Literal["golden", "load"]
"""Why a bundle was not taken: its answers are wrong, or it cannot be read or run at all."""

FAILURES: Final = (FailureCode.BAD_PAYLOAD, FailureCode.DEADLINE, FailureCode.ENGINE)
"""Those that a replica gives."""
FINE_TIMES_MS: Final = (0.25, 0.5, *TIMES_MS)


class Serving(NamedTuple):
    """What the process serves now."""

    model: str
    version: str
    device: str
    engine: str
    parallel: int


class Page:
    """What was done for one version of a model."""

    def __init__(self) -> None:
        self.batch_sizes: Final = Histogram(BATCH_SIZES)
        """Of the batches that were answered."""
        self.decode_ms: Final = Histogram(FINE_TIMES_MS)
        self.wait_ms: Final = Histogram(FINE_TIMES_MS)
        self.inference_ms: Final = Histogram(FINE_TIMES_MS)
        """Of each batch that was answered."""
        self.padding = 0
        """Pictures that are none, computed for the sake of an even batch."""
        self.busy_ms = 0.0
        """The engine, all batches of the same time added up."""
        self.computed_ms = 0.0
        """The same, counted once for each picture that was answered."""
        self.failures: Final = dict.fromkeys(FAILURES, 0)

    def answered(self, items: list[Item], *, began: float, inference_ms: float, pad: int) -> None:
        """A batch is through that the engine ``began`` then, of the clock of the items, and for
        which it computed ``pad`` pictures more."""
        self.batch_sizes.add(len(items))
        self.inference_ms.add(inference_ms)
        self.padding += pad
        self.busy_ms += inference_ms
        self.computed_ms += inference_ms * len(items)
        for item in items:
            self.wait_ms.add(max(0.0, began - item.arrived) * 1000)


class Tally:
    """The books of one process."""

    def __init__(self) -> None:
        self.serving: Serving | None = None
        self.pages: Final[dict[tuple[str, str], Page]] = {}
        """By model and version."""
        self.refused: Final[dict[Refusal, int]] = {"golden": 0, "load": 0}
        """Bundles that were to be loaded while another served, and were not taken."""

    def begin(self, contract: Contract, engine: Engine) -> Page:
        """From now on ``engine`` serves ``contract``. Returns the page for it."""
        model, version = contract.model, contract.version
        self.serving = Serving(model, version, engine.device, engine.kind, engine.parallel)
        return self.pages.setdefault((model, version), Page())
