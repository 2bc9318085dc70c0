"""The command line of the build: `python -m modelserver.build NAME`.

NAME is a model that is known here, or, with --from, what a model of your own shall be called.
"""

import argparse
import os
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Final, get_args

from modelserver.build.applications import APPLICATIONS
from modelserver.build.recipe import ARTIFACTS, PREPROCESSINGS, BuildError, Recipe
from modelserver.bundle import BUNDLES, MANIFEST, BundleError
from modelserver.engines import EngineError
from wire.contract import Filter

EMBEDDED: Final = "efficientnet-lite0"
UNKNOWN_LICENCE: Final = "not stated"
MAX_VERSION: Final = 64
"""As a contract allows."""


def main() -> None:
    """Builds the model named on the command line; a failure is one line and exit status 1."""
    parser = _parser()
    arguments = parser.parse_args()
    _check(parser, arguments)
    output: Path = arguments.output or BUNDLES / arguments.name

    # Read by TensorFlow as it is imported: no chatter, and no sums in an order that oneDNN
    # chooses for the CPU at hand.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")
    say: Callable[[str], None] = lambda step: print(step, flush=True)  # noqa: E731
    try:
        from modelserver.build.assemble import assemble, prepare_tensorflow

        prepare_tensorflow()
        recipe = _recipe(arguments)
        if arguments.version is not None:
            recipe = replace(recipe, version=arguments.version)
        assemble(recipe, output.resolve(), arguments.artifacts, say, arguments.pictures)
    except ImportError as error:
        sys.exit(f"not built: the package's extra 'build' is not installed ({error})")
    except (BuildError, BundleError, EngineError) as error:
        sys.exit(f"not built: {error}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m modelserver.build",
        description=__doc__,
        epilog=f"known: {', '.join([EMBEDDED, *APPLICATIONS])}",
    )
    parser.add_argument("name", help="the model to build, or a name for your own")
    parser.add_argument("--output", type=Path, help="folder of the bundle (default: the package's)")
    parser.add_argument(
        "--artifacts",
        type=_artifacts,
        default=[ARTIFACTS["int8"]],
        metavar="A,B",
        help=f"what engines will run, of {', '.join(ARTIFACTS)} (default: int8)",
    )
    parser.add_argument(
        "--weights", type=Path, help="weights to use instead of a download: .npz, .h5 or .keras"
    )
    parser.add_argument(
        "--version", type=_version, help="of the bundle: of several, the newest is in use"
    )
    parser.add_argument(
        "--pictures", type=Path, help="a folder of pictures to calibrate and check with"
    )
    parser.add_argument("--licence", default=UNKNOWN_LICENCE, help="the weights' licence")
    own = parser.add_argument_group("a model of your own")
    own.add_argument(
        "--from", dest="path", type=Path, help="a .keras or .h5 file, or a SavedModel's folder"
    )
    own.add_argument("--labels", type=Path, help="a text file with a class a line")
    own.add_argument(
        "--preprocessing",
        choices=PREPROCESSINGS,
        help="what the network wants of pixels: 0..255 (none), 0..1 (unit), or a mode of Keras",
    )
    own.add_argument("--crop", type=float, default=0.875, help="the share of the short side kept")
    own.add_argument("--filter", choices=get_args(Filter), default="bicubic")
    own.add_argument("--side", type=int, help="width and height, if the model takes any")
    return parser


def _check(parser: argparse.ArgumentParser, arguments: argparse.Namespace) -> None:
    """Ends the program unless the arguments belong together, and no work would be lost."""
    if Path(arguments.name).name != arguments.name:
        parser.error(f"{arguments.name!r} is no name but a path; --output says where to put it")
    if arguments.output and not _may_be_replaced(arguments.output):
        parser.error(f"--output: {arguments.output} is something else than a bundle, and not empty")
    if arguments.path is not None:
        if arguments.labels is None or arguments.preprocessing is None:
            parser.error("--from needs --labels and --preprocessing")
        if arguments.weights is not None:
            parser.error("--from brings its own weights; leave --weights out")
    elif arguments.labels is not None or arguments.preprocessing is not None:
        parser.error("--labels and --preprocessing are for --from")
    elif arguments.name not in (EMBEDDED, *APPLICATIONS):
        parser.error(
            f"no model {arguments.name!r}; known are {', '.join([EMBEDDED, *APPLICATIONS])}; "
            "for your own give --from"
        )
    elif arguments.name == EMBEDDED and arguments.weights is not None:
        parser.error(f"{EMBEDDED} is built with the weights of its package alone")


def _may_be_replaced(output: Path) -> bool:
    """There is nothing, or a bundle."""
    if not output.is_dir():
        return not output.exists()
    return (output / MANIFEST).is_file() or not any(output.iterdir())


def _artifacts(text: str) -> list[str]:
    names = text.split(",")
    if unknown := [name for name in names if name not in ARTIFACTS]:
        raise argparse.ArgumentTypeError(f"{unknown[0]!r} is not one of {', '.join(ARTIFACTS)}")
    return [ARTIFACTS[name] for name in names]


def _version(text: str) -> str:
    if not 1 <= len(text) <= MAX_VERSION:
        raise argparse.ArgumentTypeError(f"it has 1 to {MAX_VERSION} characters")
    return text


def _recipe(arguments: argparse.Namespace) -> Recipe:
    if arguments.path is None and arguments.name == EMBEDDED:
        from modelserver.build.efficientnet_lite import RECIPE

        return RECIPE

    from modelserver.build.keras_models import application_recipe, own_recipe

    if arguments.path is None:
        return application_recipe(arguments.name, arguments.weights, arguments.licence)
    return own_recipe(
        arguments.name,
        arguments.path,
        labels=arguments.labels,
        preprocessing=arguments.preprocessing,
        crop=arguments.crop,
        resampling=arguments.filter,
        side=arguments.side,
        licence=arguments.licence,
    )


if __name__ == "__main__":
    main()
