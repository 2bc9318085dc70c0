"""What the engine's thread does about an engine that gives up."""

import subprocess
import sys

from modelserver.engine_threads import NO_MEMORY_STATUS

OUT_OF_MEMORY = """
import numpy as np
from modelserver.batcher import Item
from modelserver.engine_threads import EngineThreads
from modelserver.mailbox import Mailbox
from wire import Work

class Poor:
    device, max_batch, parallel = "cpu", 1, 1

    def predict(self, pixels):
        return np.empty((1 << 60,), np.uint8)

thread = EngineThreads(Poor(), Mailbox())
thread.start()
work = Work(job=1, deadline_ms=1000, top_k=1, encoding="pixels")
thread.start_batch([Item(work, np.zeros((2, 2, 3), np.uint8), 0.0, 1.0)], 0.0)
thread.close()
"""


def test_a_replica_that_is_refused_memory_ends_so_that_another_has_its_requests() -> None:
    done = subprocess.run(
        [sys.executable, "-c", OUT_OF_MEMORY], capture_output=True, text=True, check=False
    )
    assert done.returncode == NO_MEMORY_STATUS, done.stderr
    assert "no memory for a batch" in done.stderr
