"""The bare limit: decode and infer in a loop over all cores, with no server around it.

``python -m loadtest.bench.servers.bare FOLDER SECONDS`` prints one JSON line: photographs a
second, CPU-milliseconds each, PSS bytes, seconds until it was ready, and the top class of each
photograph in the order of their names. Rules:
- A process a core, one engine thread each, batches of four: the best that was found.
- Sightline's own decoder, so what is left above this limit is the price of serving.
"""

import json
import multiprocessing
import os
import sys
import threading
import time
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any

import numpy as np

from imaging import prepare
from loadtest.bench.servers.peer import Model, Pixels, photographs
from loadtest.bench.usage import cpu_seconds, pss_bytes, tree

BATCH = 4


def main(folder: Path, seconds: float) -> None:
    """Measure and print."""
    cores = len(os.sched_getaffinity(0))
    # Not forked: a process that holds an engine's threads cannot be copied.
    spawn = multiprocessing.get_context("spawn")
    ready, results = spawn.Barrier(cores + 1), spawn.Queue()
    began = time.monotonic()
    workers = [
        spawn.Process(target=_loop, args=(folder, seconds, ready, results)) for _ in range(cores)
    ]
    for worker in workers:
        worker.start()
    ready.wait()
    ready_s = time.monotonic() - began
    pids = [pid for worker in workers for pid in tree(worker.pid or 0)]
    before = sum(cpu_seconds(pids).values())
    loops: list[Any] = [results.get() for _ in workers]
    after = sum(cpu_seconds(pids).values())
    pss = sum(pss_bytes(pid) for pid in pids)
    ready.wait()
    for worker in workers:
        worker.join()
    done = sum(loop["done"] for loop in loops)
    measured = {
        "req_s": sum(loop["done"] / loop["seconds"] for loop in loops),
        "cpu_ms": (after - before) * 1000 / done,
        "pss_bytes": pss,
        "ready_s": ready_s,
        "classes": loops[0]["classes"],
    }
    print(json.dumps(measured))


def _loop(folder: Path, seconds: float, ready: Barrier, results: Any) -> None:
    threading.Thread(target=_end_with_parent, daemon=True).start()
    model = Model(threads=1, max_batch=BATCH)
    files = photographs(folder)
    side = (model.contract.height, model.contract.width, 3)

    def pixels(file: bytes) -> Pixels:
        return np.frombuffer(prepare(file, model.contract).pixels, np.uint8).reshape(side)

    classes = [_top(model.classify(pixels(file)[None])[0]) for file in files]
    ready.wait()
    began = time.monotonic()
    done = 0
    while time.monotonic() - began < seconds:
        batch = [files[n % len(files)] for n in range(done, done + BATCH)]
        model.classify(np.stack([pixels(file) for file in batch]))
        done += BATCH
    results.put({"done": done, "seconds": time.monotonic() - began, "classes": classes})
    # Alive until it has been looked at.
    ready.wait()


def _end_with_parent() -> None:
    """A worker whose parent is killed would wait for it for ever."""
    if parent := multiprocessing.parent_process():
        parent.join()
        os._exit(1)


def _top(answer: bytes) -> int:
    return int(json.loads(answer)["predictions"][0]["class_index"])


if __name__ == "__main__":
    main(Path(sys.argv[1]), float(sys.argv[2]))
