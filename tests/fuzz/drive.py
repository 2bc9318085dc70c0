"""One target, driven by libFuzzer: ``python -m tests.fuzz.drive TARGET [OPTION ...]``.

The options are libFuzzer's own; `__main__` gives those of a usual run. Only Python code is
watched for coverage: behind msgspec and Pillow's C libraries the search is blind, and a crash of
theirs is found all the same.
"""

import sys

import atheris

from tests.fuzz import load

WATCHED = ["wire", "imaging", "modelserver", "webapp", "PIL", "werkzeug", "gunicorn"]


def main(program: str, name: str, *options: str) -> None:
    with atheris.instrument_imports(include=WATCHED, enable_loader_override=False):
        target = load(name)

    def mutate(data: bytes, max_size: int, seed: int) -> bytes:
        return target.refine(atheris.Mutate(data, max_size), seed)[:max_size]

    atheris.Setup([program, *options], target.check, custom_mutator=mutate)
    atheris.Fuzz()


if __name__ == "__main__":
    main(*sys.argv)
