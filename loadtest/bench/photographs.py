"""What is sent: a folder of photographs as JPEG files, and one of twelve megapixels.

Rules:
- The folder that is asked for, else the test photographs beside the repository, else the embedded
  bundle's golden pictures saved as JPEG, which a report has to say: they are few and small.
- A file name that begins with a class index and `_` says what is to be seen.
"""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from PIL import Image

ROOT: Final = Path(__file__).parents[2]
TEST_PHOTOGRAPHS: Final = ROOT.parent / "shared" / "photos"
GOLDEN: Final = ROOT / "services/model/modelserver/bundles/efficientnet-lite0/golden"
LARGE: Final = (4000, 3000)
"""Twelve megapixels, as phones make them."""


@dataclass(frozen=True)
class Photographs:
    """The files to send."""

    folder: Path
    """Holds them and nothing else; for whoever reads them himself."""
    files: list[bytes]
    """In the order of their names."""
    classes: list[int | None]
    """What each shows, as far as its name tells."""
    source: str
    """Where they come from, in words."""

    @cached_property
    def large(self) -> bytes:
        """One of LARGE: the largest file's photograph, enlarged."""
        with Image.open(io.BytesIO(max(self.files, key=len))) as picture:
            return _jpeg(picture.convert("RGB").resize(LARGE, Image.Resampling.BICUBIC))


@contextmanager
def photographs(asked: Path | None) -> Iterator[Photographs]:
    """Those in ``asked``, or the best there are. Their folder lasts as long as the context.

    Raises:
        FileNotFoundError: There is no JPEG file in ``asked``.
    """
    with TemporaryDirectory(prefix="sightline-bench-") as made:
        folder = Path(made)
        source = asked or TEST_PHOTOGRAPHS
        found = sorted(
            path for path in source.glob("*.*") if path.suffix.lower() in (".jpg", ".jpeg")
        )
        if asked and not found:
            raise FileNotFoundError(f"there is no JPEG file in {asked}")
        for path in found:
            (folder / path.name).symlink_to(path.resolve())
        if not found:
            source = GOLDEN
            for path in sorted(GOLDEN.glob("*.png")):
                with Image.open(path) as picture:
                    (folder / path.with_suffix(".jpg").name).write_bytes(_jpeg(picture))
        paths = sorted(folder.iterdir())
        yield Photographs(
            folder=folder,
            files=[path.read_bytes() for path in paths],
            classes=[_class(path.name) for path in paths],
            source=f"{len(paths)} of {source}",
        )


def _class(name: str) -> int | None:
    index, _, rest = name.partition("_")
    return int(index) if rest and index.isdecimal() else None


def _jpeg(picture: Image.Image) -> bytes:
    file = io.BytesIO()
    picture.convert("RGB").save(file, "JPEG", quality=90)
    return file.getvalue()
