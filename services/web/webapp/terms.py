"""What goes along with a picture from the route to the broker, whatever the picture is."""

from typing import NamedTuple

from webapp.presence import Left, nobody_left
from wire.messages import Priority


class Terms(NamedTuple):
    """By when an answer is wanted, what has to be in it, for whom, and what it is called."""

    deadline: float
    """A point of ``time.monotonic()``."""
    top_k: int = 5
    """How many classes, the most probable first; 1 to 100."""
    priority: Priority = "interactive"
    """Whether somebody waits for it; `bulk` waits for whoever does."""
    trace: str = ""
    """The sender's name for it, for the logs of broker and replica."""
    traceparent: str = ""
    """What a distributed trace calls it, if it is part of one."""
    left: Left = nobody_left
    """Whether the one who wants the answer has gone; it is then not waited for."""
