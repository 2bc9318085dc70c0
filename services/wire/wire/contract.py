"""What a model wants its pictures turned into, agreed by everyone who touches a picture.

A contract comes out of a model's bundle: the replica announces it in READY, the broker
passes it on, and whoever prepares pixels does so by it. Nobody has it configured.
"""

from typing import Annotated, Literal

import msgspec

Side = Annotated[int, msgspec.Meta(ge=1, le=4096)]
Filter = Literal["bilinear", "bicubic", "lanczos"]


class Contract(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The input and output of one version of one model.

    Pixels made for it are ``height x width x 3`` bytes, RGB, uint8, rows first.
    """

    model: Annotated[str, msgspec.Meta(min_length=1, max_length=64)]
    version: Annotated[str, msgspec.Meta(min_length=1, max_length=64)]
    digest: Annotated[str, msgspec.Meta(min_length=8, max_length=64)]
    """Changes whenever anything that a client has to know about the model changes."""
    width: Side
    height: Side
    crop: Annotated[float, msgspec.Meta(gt=0, le=1)]
    """The share of the short side that the central crop keeps."""
    filter: Filter
    classes: Annotated[int, msgspec.Meta(ge=2, le=1_000_000)]

    @property
    def nbytes(self) -> int:
        """The exact size of one picture's pixels, in bytes."""
        return self.width * self.height * 3
