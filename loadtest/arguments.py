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


def seconds(text: str) -> float:
    """How long something is measured: more than 0 and at most 600.

    Raises:
        ValueError, argparse.ArgumentTypeError: It is not that.
    """
    number = float(text)
    if not 0 < number <= 600:
        raise argparse.ArgumentTypeError("must be more than 0 and at most 600")
    return number
