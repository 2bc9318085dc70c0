"""The command line of the build: `python -m modelserver.build NAME [--output DIR]`."""

import argparse
import os
import sys
from importlib import import_module
from pathlib import Path
from typing import Final

from modelserver.build.recipe import BuildError
from modelserver.bundle import BUNDLES, BundleError
from modelserver.engines import EngineError

RECIPES: Final = {"efficientnet-lite0": "modelserver.build.efficientnet_lite"}
"""The module with the RECIPE of each model. Not imported before it is wanted: it takes seconds."""


def main() -> None:
    """Builds the model named on the command line; a failure is one line and exit status 1."""
    parser = argparse.ArgumentParser(prog="python -m modelserver.build", description=__doc__)
    parser.add_argument("name", choices=sorted(RECIPES), help="the model to build")
    parser.add_argument("--output", type=Path, help="folder of the bundle (default: the package's)")
    arguments = parser.parse_args()
    output: Path = arguments.output or BUNDLES / arguments.name

    # Read by TensorFlow as it is imported: no chatter, and no sums in an order that oneDNN
    # chooses for the CPU at hand.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")
    try:
        from modelserver.build.assemble import assemble

        recipe = import_module(RECIPES[arguments.name]).RECIPE
        assemble(recipe, output.resolve(), lambda step: print(step, flush=True))
    except ImportError as error:
        sys.exit(f"not built: the package's extra 'build' is not installed ({error})")
    except (BuildError, BundleError, EngineError) as error:
        sys.exit(f"not built: {error}")


if __name__ == "__main__":
    main()
