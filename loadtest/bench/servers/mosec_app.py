"""mosec: a front in Rust that batches for Python workers. The strongest peer that was found.

``python -m loadtest.bench.servers.mosec_app --port N``. Rules:
- The model on the CPU: a worker a core that decodes and infers, since a stage of its own for
  either costs a copy between processes and gains nothing where both want the same cores.
- A simulated accelerator: workers that decode, and one that batches for the one device.
"""

import os
from typing import Any

from mosec import Server, Worker

from loadtest.bench.servers.peer import ENGINE, Model, Pixels, decode

CORES = len(os.sched_getaffinity(0))


class RawBody(Worker):
    """Takes the body as it is."""

    def deserialize(self, data: bytes) -> bytes:
        return data


class JsonAnswer(Worker):
    """Gives an answer that is JSON already."""

    def serialize(self, data: bytes) -> bytes:
        return data


class DecodeAndInfer(RawBody, JsonAnswer):
    """Everything for one picture."""

    def __init__(self) -> None:
        super().__init__()
        self._model = Model(threads=1, max_batch=1)

    def forward(self, data: bytes) -> bytes:
        [answer] = self._model.classify(decode(data, self._model.contract)[None])
        return answer


class Decode(RawBody):
    """The first half, for the accelerator."""

    def __init__(self) -> None:
        super().__init__()
        self._contract = Model(threads=1, max_batch=1).contract

    def forward(self, data: bytes) -> Pixels:
        return decode(data, self._contract)


class Infer(JsonAnswer):
    """The second half, in batches."""

    max_batch = 32

    def __init__(self) -> None:
        super().__init__()
        self._model = Model(threads=1, max_batch=self.max_batch)

    def forward(self, data: list[Pixels]) -> Any:
        import numpy as np

        return self._model.classify(np.stack(data))


if __name__ == "__main__":
    server = Server()
    if os.environ.get(ENGINE) == "accelerator":
        server.append_worker(Decode, num=CORES)
        server.append_worker(Infer, num=1, max_batch_size=Infer.max_batch, max_wait_time=1)
    else:
        server.append_worker(DecodeAndInfer, num=CORES)
    server.run()
