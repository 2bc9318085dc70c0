"""The GPU of this replica: found with NVML, leased from the broker, held as long as it lives.

Rules:
- NVML is asked, not TensorFlow or CUDA: they would take hold of every GPU that they see, and the
  choice has to be made before they are loaded. It is made by CUDA_VISIBLE_DEVICES.
- The broker decides (see `leases`). Until it does, the question is repeated, whether the broker is
  away, or new, or has no room.
- The lease is a connection of its own, with a thread of its own: the engine's thread loads a model
  for minutes. When this process dies, however it dies, the connection does too.
- Nothing heard for SILENCE_S: the broker may be a new one, so it is told what is held here.
"""

import contextlib
import logging
import os
import queue
import secrets
import socket as hosts
import threading
import time
from collections.abc import Iterator, Mapping, MutableMapping, Sequence
from typing import Any, Final

import zmq

from modelserver import backend
from modelserver.config import ReplicaConfig
from wire import Devices, Lease, WireError, encode, to_replica
from wire.keys import PeerKeys

log = logging.getLogger("Gpu")

VISIBLE: Final = "CUDA_VISIBLE_DEVICES"
ASK_S: Final = 0.25
"""Between two questions, as often as the broker pings."""
SILENCE_S: Final = 1.0
"""Four pings of the broker."""
PATIENCE_S: Final = 5.0
"""Between two lines in the log about waiting."""
OVERHEAD_MIB: Final = 512
"""What CUDA and its libraries take of a GPU for every process, besides what the engine allocates.
An estimate: nobody has measured it for this project."""


class GpuError(Exception):
    """There is no GPU to be had; one sentence that says what would help."""


def visible_gpus() -> dict[str, int]:
    """The GPUs that the driver lets this process (its container) see: memory in bytes by UUID, in
    the driver's order.

    Raises:
        GpuError: There is no driver, or no GPU.
    """
    gpus = {uuid: memory.total for uuid, memory in _memory()}
    if not gpus:
        raise GpuError(
            "MODEL_DEVICE is gpu, and an NVIDIA driver answers, but it shows no GPU to this "
            "process; give the container one, or set MODEL_DEVICE=cpu."
        )
    return gpus


def memory_used(env: Mapping[str, str]) -> dict[str, int]:
    """Of each GPU that CUDA_VISIBLE_DEVICES lets this process use, by UUID: the bytes that anybody
    uses. Empty before one was chosen, or while the driver does not answer."""
    chosen = env.get(VISIBLE, "").split(",")
    try:
        gpus = _memory()
    except GpuError as error:
        log.warning("the GPUs' memory is not known: %s", error)
        return {}
    return {
        uuid: memory.used
        for index, (uuid, memory) in enumerate(gpus)
        if any(name and (name == str(index) or uuid.startswith(name)) for name in chosen)
    }


def _memory() -> list[tuple[str, Any]]:
    """Every GPU's UUID and memory (total and used, in bytes), in the driver's order.

    Raises:
        GpuError: There is no driver.
    """
    try:
        import pynvml
    except ImportError as error:
        raise GpuError(
            f"MODEL_DEVICE=gpu needs the package's extra 'gpu' ({error}); "
            "the image for it is the Dockerfile's target gpu."
        ) from None
    try:
        pynvml.nvmlInit()
        try:
            handles = map(pynvml.nvmlDeviceGetHandleByIndex, range(pynvml.nvmlDeviceGetCount()))
            return [
                (pynvml.nvmlDeviceGetUUID(handle), pynvml.nvmlDeviceGetMemoryInfo(handle))
                for handle in handles
            ]
        finally:
            pynvml.nvmlShutdown()
    except pynvml.NVMLError as error:
        raise GpuError(
            f"MODEL_DEVICE is gpu, but no NVIDIA driver answers here ({error}); give the container "
            "GPUs with docker-compose.gpu.yml, or set MODEL_DEVICE=cpu."
        ) from None


def share_mib(memory_bytes: int, replicas: int) -> int | None:
    """How much of a GPU's memory an engine may allocate where so many replicas share it; None for
    what it needs and finds.

    Raises:
        GpuError: It would be nothing.
    """
    if not replicas:
        return None
    share = memory_bytes // 2**20 // replicas - OVERHEAD_MIB
    if share <= 0:
        raise GpuError(
            f"MODEL_REPLICAS_PER_GPU cannot be {replicas}: a GPU of {memory_bytes / 2**30:.1f} GiB "
            "has no room for so many."
        )
    return share


@contextlib.contextmanager
def leased(
    config: ReplicaConfig, keys: PeerKeys | None, env: MutableMapping[str, str]
) -> Iterator[int | None]:
    """A GPU for this process alone to see, for as long as the block lasts; waits until it has one.

    Gives how much of its memory the engine may allocate, as `share_mib`. Where the operator's
    CUDA_VISIBLE_DEVICES has chosen already, that stands and nothing is leased.

    Raises:
        GpuError: There is none to be had.
    """
    gpus = visible_gpus()
    if VISIBLE in env:
        log.info("%s=%s is set, so no GPU is leased", VISIBLE, env[VISIBLE])
        yield None
        return
    keeper = LeaseKeeper(config.broker, keys, tuple(gpus), per_gpu=config.replicas_per_gpu)
    with contextlib.closing(keeper):
        lease = keeper.acquire()
        share = share_mib(gpus[lease.gpu], config.replicas_per_gpu)
        log.info(
            "%s is leased to this replica, %d on it now; memory: %s",
            lease.gpu,
            lease.replicas,
            "as needed" if share is None else f"{share} MiB",
        )
        env[VISIBLE] = lease.gpu
        yield share


class LeaseKeeper:
    """Asks the broker for one of some GPUs, and then keeps the connection that it is leased by."""

    def __init__(
        self, broker: str, keys: PeerKeys | None, gpus: Sequence[str], *, per_gpu: int
    ) -> None:
        """``per_gpu``: how many replicas may share one of ``gpus``; 0 for any number."""
        self._broker = broker
        self._keys = keys
        self._gpus = tuple(gpus)
        self._per_gpu = per_gpu
        self._name = f"{hosts.gethostname()[:32]}:{os.getpid()}:gpu-{secrets.token_hex(4)}"
        self._leased: queue.SimpleQueue[Lease] = queue.SimpleQueue()
        self._closing = threading.Event()
        self._thread: threading.Thread | None = None

    def acquire(self) -> Lease:
        """Wait for the lease, however long that takes. To be called once."""
        context = zmq.Context()
        socket = context.socket(zmq.DEALER)
        self._connect(socket)
        self._thread = threading.Thread(
            target=self._run, args=(context, socket), name="lease", daemon=True
        )
        self._thread.start()
        log.info("asking %s for one of %d GPUs", self._broker, len(self._gpus))
        while True:
            try:
                return self._leased.get(timeout=PATIENCE_S)
            except queue.Empty:
                room = f", {self._per_gpu} replicas on each" if self._per_gpu else ""
                log.warning(
                    "still waiting for %s to lease one of %d GPUs%s",
                    self._broker,
                    len(self._gpus),
                    room,
                )

    def close(self) -> None:
        """Give the lease back."""
        self._closing.set()
        if self._thread is not None:
            self._thread.join()

    def _run(self, context: zmq.Context[zmq.Socket[bytes]], socket: zmq.Socket[bytes]) -> None:
        try:
            with socket:
                self._keep(socket)
        finally:
            context.term()

    def _connect(self, socket: zmq.Socket[bytes]) -> None:
        socket.linger = 0
        backend.connect(socket, self._broker, self._name, self._keys)

    def _keep(self, socket: zmq.Socket[bytes]) -> None:
        held: str | None = None
        heard = 0.0
        while not self._closing.is_set():
            if held is None or time.monotonic() - heard > SILENCE_S:
                self._ask(socket, held)
            if not socket.poll(int(ASK_S * 1000)):
                continue
            try:
                message = to_replica.decode(socket.recv_multipart())
            except WireError as error:
                log.warning("garbage from the broker: %s", error)
                continue
            heard = time.monotonic()
            if isinstance(message, Lease) and held is None and message.gpu in self._gpus:
                held = message.gpu
                self._leased.put(message)

    def _ask(self, socket: zmq.Socket[bytes], held: str | None) -> None:
        devices = Devices(replica=self._name, gpus=self._gpus, per_gpu=self._per_gpu, held=held)
        with contextlib.suppress(zmq.Again):
            socket.send(encode(devices), zmq.DONTWAIT)
