"""What the command lines of this package understand alike."""

import argparse


def positive(text: str) -> int:
    """A whole number from 1.

    Raises:
        ValueError, argparse.ArgumentTypeError: It is none.
    """
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("must be 1 or more")
    return number
