"""Engines: what runs a model, behind one small interface.

Rules:
- `load_engine` is the way to one, and gives it proved: it has passed its golden check.
- Only an engine's own module imports its runtime, and only when that engine is asked for.
"""

import logging
from typing import Final

from modelserver.bundle import FP32, INT8, SAVED_MODEL, Bundle
from modelserver.engines.engine import Engine, EngineError, GoldenError
from modelserver.engines.golden import FLOAT_TOLERANCE, INT8_TOLERANCE, golden_check
from modelserver.engines.simulated import INSTANT, LatencyCurve, SimulatedEngine

__all__ = ["Engine", "EngineError", "GoldenError", "LatencyCurve", "golden_check", "load_engine"]

log: Final = logging.getLogger(__name__)

KINDS: Final = ("auto", "litert", "tensorflow", "simulated")


def load_engine(
    kind: str,
    bundle: Bundle,
    *,
    threads: int,
    max_batch: int,
    device: str = "cpu",
    xla: bool = False,
    gpu_memory_mib: int | None = None,
    latency: LatencyCurve = INSTANT,
) -> Engine:
    """The engine `kind` for `bundle`: loaded, warm, and golden-checked.

    - `litert` runs the bundle's `int8.tflite`, or its `fp32.tflite` where it has no other, on
      `threads` threads of the CPU.
    - `tensorflow` runs its `saved_model/` on `device`, `cpu` or `gpu`; `xla` and `gpu_memory_mib`
      (MiB, None: as it needs) are its own.
    - `auto` is `litert` on the CPU with a bundle that has something for it, else `tensorflow`.
    - `simulated` takes the time that `latency` declares and classifies nothing, so it has no
      golden check.

    Raises EngineError when there is no such engine, when it cannot compute on `device`, or when
    it does not pass (a GoldenError); BundleError when the bundle lacks its artifact.
    """
    if kind == "auto":
        litert = device == "cpu" and (bundle.has(INT8) or bundle.has(FP32))
        kind = "litert" if litert else "tensorflow"
    match kind:
        case "litert":
            if device != "cpu":
                raise EngineError(
                    f"the engine litert computes on the cpu, not on the {device}; choose tensorflow"
                )
            return _litert(bundle, threads, max_batch)
        case "tensorflow":
            try:
                from modelserver.engines.tensorflow import TensorFlowEngine
            except ImportError as error:
                raise _not_installed(kind, error) from None
            engine = TensorFlowEngine(
                bundle.artifact(SAVED_MODEL),
                bundle.contract,
                device="gpu" if device == "gpu" else "cpu",
                threads=threads,
                max_batch=max_batch,
                xla=xla,
                memory_mib=gpu_memory_mib,
            )
            golden_check(engine, bundle, FLOAT_TOLERANCE)
            return engine
        case "simulated":
            log.warning("the engine is simulated: every answer is made up and nothing is checked")
            return SimulatedEngine(bundle.contract, latency, max_batch=max_batch)
    raise EngineError(f"there is no engine {kind!r}; choose one of {', '.join(KINDS)}")


def _litert(bundle: Bundle, threads: int, max_batch: int) -> Engine:
    try:
        from modelserver.engines.litert import LiteRTEngine
    except ImportError as error:
        raise _not_installed("litert", error) from None
    # int8 where there is one: three times as fast, and its build has compared it with fp32.
    name = INT8 if bundle.has(INT8) or not bundle.has(FP32) else FP32
    artifact = bundle.artifact(name)
    engine = LiteRTEngine(artifact, bundle.contract, threads=threads, max_batch=max_batch)
    golden_check(engine, bundle, INT8_TOLERANCE if name == INT8 else FLOAT_TOLERANCE)
    return engine


def _not_installed(kind: str, error: ImportError) -> EngineError:
    return EngineError(f"the engine {kind} needs the package's extra {kind!r} ({error})")
