"""Engines: what runs a model, behind one small interface.

Rules:
- `load_engine` is the way to one, and gives it proved: it has passed its golden check.
- Only an engine's own module imports its runtime, and only when that engine is asked for.
"""

import logging
from typing import Final

from modelserver.bundle import Bundle
from modelserver.engines.engine import Engine, EngineError
from modelserver.engines.golden import golden_check
from modelserver.engines.simulated import INSTANT, LatencyCurve, SimulatedEngine

__all__ = ["Engine", "EngineError", "LatencyCurve", "golden_check", "load_engine"]

log: Final = logging.getLogger(__name__)


def load_engine(
    kind: str,
    bundle: Bundle,
    *,
    threads: int,
    max_batch: int,
    latency: LatencyCurve = INSTANT,
) -> Engine:
    """The engine `kind` for `bundle`: loaded, warm, and golden-checked.

    `litert` runs the bundle's `int8.tflite` on `threads` threads of the CPU. `simulated` takes
    the time that `latency` declares and classifies nothing, so it has no golden check.
    Raises EngineError when there is no such engine or it does not pass, BundleError when the
    bundle lacks its artifact.
    """
    match kind:
        case "litert":
            try:
                from modelserver.engines.litert import LiteRTEngine
            except ImportError as error:
                raise EngineError(
                    f"the engine litert needs the package's extra 'litert' ({error})"
                ) from None
            artifact = bundle.artifact("int8.tflite")
            engine = LiteRTEngine(artifact, bundle.contract, threads=threads, max_batch=max_batch)
            golden_check(engine, bundle)
            return engine
        case "simulated":
            log.warning("the engine is simulated: every answer is made up and nothing is checked")
            return SimulatedEngine(bundle.contract, latency, max_batch=max_batch)
    raise EngineError(f"there is no engine {kind!r}; choose litert or simulated")
