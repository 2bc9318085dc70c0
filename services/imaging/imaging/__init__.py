"""Untrusted image bytes to the RGB pixels of a model's contract.

`formats` tells what a file is, `decode` prepares it in this process, `pool` in limited child
processes (`child`, spoken to over `channel`), `errors` says what can be wrong with a file, `cpus`
how many CPUs there are for all this.
"""

from imaging.cpus import cpus
from imaging.decode import MAX_PIXELS, MIN_SIDE, Facts, Prepared, prepare
from imaging.errors import (
    Busy,
    Damaged,
    Empty,
    ImageError,
    NotAnImage,
    TooExpensive,
    TooLarge,
    TooSmall,
)
from imaging.formats import MAX_BYTES, admit, sniff
from imaging.pool import DecoderPool

__all__ = [
    "MAX_BYTES",
    "MAX_PIXELS",
    "MIN_SIDE",
    "Busy",
    "Damaged",
    "DecoderPool",
    "Empty",
    "Facts",
    "ImageError",
    "NotAnImage",
    "Prepared",
    "TooExpensive",
    "TooLarge",
    "TooSmall",
    "admit",
    "cpus",
    "prepare",
    "sniff",
]
