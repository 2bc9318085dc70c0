"""Pictures that can be told apart by their answers, and the right answer to each.

Rules:
- The pictures are pieces of the photographs that ship with the embedded bundle.
- The right answer is what the service says while nothing is wrong with it.
- A picture whose answer resembles another's would hide a mix-up, so it is left out.
"""

import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from PIL import Image

from loadtest.chaos.ledger import Reply

GOLDEN: Final = Path("services/model/modelserver/bundles/efficientnet-lite0/golden")
"""From the root of the repository."""
PIECES: Final = 4
"""A photograph is cut into so many columns and rows of overlapping pieces."""
PIECE_SIDE: Final = 240
EQUAL: Final = 1e-3
"""Two runs of one model on one picture may differ by so much in a probability."""
RESEMBLING: Final = 1e-2


@dataclass(frozen=True, slots=True)
class Verdict:
    """The classes of one picture and their probabilities, best first."""

    classes: tuple[int, ...]
    probabilities: tuple[float, ...]

    @classmethod
    def of(cls, answer: Any) -> "Verdict":
        """The one in a decoded JSON answer."""
        predictions = answer["predictions"]
        return cls(
            tuple(p["class_index"] for p in predictions),
            tuple(p["probability"] for p in predictions),
        )

    def resembles(self, other: "Verdict", tolerance: float = EQUAL) -> bool:
        """Whether both name the same classes with the same probabilities."""
        pairs = zip(self.probabilities, other.probabilities, strict=False)
        return self.classes == other.classes and all(abs(p - q) <= tolerance for p, q in pairs)


@dataclass(frozen=True, slots=True)
class Picture:
    """A file to send and the only right answer to it."""

    file: bytes
    verdict: Verdict


def learn(ask: Callable[[bytes], Reply], root: Path) -> list[Picture]:
    """The pictures under ``root`` that ``ask``, which asks a calm service, tells apart.

    Raises:
        ValueError: An answer is no verdict, or may come from memory instead of a replica.
    """
    learned: list[Picture] = []
    for file in _pieces(root / GOLDEN):
        reply = ask(file)
        if reply.status != 200:
            raise ValueError(f"The calm service answered {reply.status}: {reply.body!r}")
        if reply.json["cache"] != "off":
            raise ValueError(
                "The service remembers answers, which prove nothing of its replicas: it has to be "
                "started with WEB_CACHE_BYTES=0, in Compose CACHE_BYTES=0."
            )
        verdict = Verdict.of(reply.json)
        if not any(verdict.resembles(known.verdict, RESEMBLING) for known in learned):
            learned.append(Picture(file, verdict))
    return learned


def _pieces(folder: Path) -> Iterator[bytes]:
    for path in sorted(folder.glob("*.png")):
        with Image.open(path) as photograph:
            photograph.load()
        side = min(photograph.size) // 2
        for n in range(PIECES**2):
            row, column = divmod(n, PIECES)
            left = (photograph.width - side) * column // (PIECES - 1)
            top = (photograph.height - side) * row // (PIECES - 1)
            piece = photograph.crop((left, top, left + side, top + side))
            file = io.BytesIO()
            piece.resize((PIECE_SIDE, PIECE_SIDE)).save(file, "JPEG", quality=90)
            yield file.getvalue()
