"""Names for requests."""

from random import getrandbits


def new_id() -> str:
    """32 hexadecimal digits that nobody has used before: a name, and no secret.

    From a generator that the system seeded. uuid4 asks the system each time, and a thread that
    does so hands the interpreter to another one and has to wait for its turn.
    """
    return f"{getrandbits(128):032x}"
