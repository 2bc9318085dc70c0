"""Everything that can be wrong with a picture, split by what its sender can do about it.

Rules:
- Whatever the bytes are, what comes out of this package is an `ImageError` or pixels.
- Each error says what is wrong with the file and what would be accepted, in words for the
  person who sent it. The class says which kind of answer that is; which status code it becomes
  is the caller's business.
- `Busy` is no `ImageError`: nothing is wrong with the file.
"""

from typing import Final, Literal


class ImageError(Exception):
    """This file cannot be turned into pixels.

    Attributes:
        detail: What is wrong with the file, one sentence.
        remedy: What would be accepted instead, one sentence.
    """

    def __init__(self, detail: str, remedy: str) -> None:
        super().__init__(detail, remedy)
        self.detail = detail
        self.remedy = remedy

    def __str__(self) -> str:
        return f"{self.detail} {self.remedy}"


class Empty(ImageError):
    """There are no bytes at all: the request is malformed."""


class NotAnImage(ImageError):
    """A file of a kind that is not taken: an unsupported type."""


class TooLarge(ImageError):
    """More bytes or more pixels than are taken: a payload over the limit."""


class TooSmall(ImageError):
    """A picture with too few pixels to show anything: understood, but of no use."""


class Damaged(ImageError):
    """The right kind of file with broken content: understood, but of no use."""


class TooExpensive(ImageError):
    """Decoding it took more time or memory than one picture may: understood, but of no use."""


class Busy(Exception):
    """No decoder came free in time: nothing is wrong with the file, the service is overloaded."""


SAVE_AGAIN: Final = "Open it in an image editor, save it again and send that."
"""The remedy for broken content."""


def too_expensive(what: Literal["memory", "time"]) -> TooExpensive:
    """The same words wherever the limit was noticed: in the decoder or from outside."""
    return TooExpensive(
        f"Decoding this picture takes too much {what}.",
        "Send a smaller picture, or save it in another format.",
    )


BY_NAME: Final = {
    kind.__name__: kind for kind in (Empty, NotAnImage, TooLarge, TooSmall, Damaged, TooExpensive)
}
"""The kinds of `ImageError`, for an error that crosses from a child process."""
