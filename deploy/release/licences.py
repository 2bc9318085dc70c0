"""Says under which licence a package is, and whether images may be passed on with it inside.

Rules:
- What a package says of itself counts, in this order: the SPDX expression of its metadata, its
  field License, its classifiers. Of several classifiers all have to be on the list.
- On the list are licences that ask for no more than notices, and for the sources of the package
  itself where that was changed (weak copyleft). What is unknown is not on it.
"""

from typing import Any

from license_expression import ExpressionError, get_spdx_licensing

PERMISSIVE = frozenset(
    {
        "0BSD",
        "Apache-2.0",
        "BSD License",
        "BSD-2-Clause",
        "BSD-3-Clause",
        "CC0-1.0",
        "ISC",
        "MIT",
        "MIT-CMU",
        "MPL-2.0",
        "PSF-2.0",
        "Python-2.0",
        "ZPL-2.1",
        "Zlib",
    }
)
"""Names of SPDX, and one of a classifier that does not say which of the BSD licences it means."""

NVIDIA = frozenset({"LicenseRef-NVIDIA-Proprietary"})
"""The CUDA libraries: https://docs.nvidia.com/cuda/eula lets them be passed on with a program that
uses them, on its conditions. Whoever passes on the image for GPUs has to read them."""

_SPDX = {
    "3-Clause BSD License": "BSD-3-Clause",
    "Apache 2.0": "Apache-2.0",
    "Apache License 2.0": "Apache-2.0",
    "Apache Software License": "Apache-2.0",
    "BSD": "BSD License",
    "BSD 3-Clause": "BSD-3-Clause",
    "MIT License": "MIT",
    "Mozilla Public License 2.0 (MPL 2.0)": "MPL-2.0",
    "NVIDIA Proprietary Software": "LicenseRef-NVIDIA-Proprietary",
}
"""What packages write, and mean."""

_READ = {"namex": "Apache-2.0"}
"""Packages whose metadata say nothing, and whose licence somebody looked up at the project."""

_parser = get_spdx_licensing()


def licences(package: dict[str, Any]) -> list[str]:
    """The licences of a package of the inventory, as SPDX names and expressions where that is known
    and else in its own words. All of them apply."""
    text = package["expression"] or package["license"] or ""
    if text and "\n" not in text:
        return [_SPDX.get(text, text)]
    words = [classifier.split(" :: ")[-1] for classifier in package["classifiers"]]
    if not words and package["name"] in _READ:
        return [_READ[package["name"]]]
    return sorted(_SPDX.get(word, word) for word in words)


def is_expression(licence: str) -> bool:
    """Whether it is one of SPDX: `MIT`, `MPL-2.0 AND MIT`, `LicenseRef-...`."""
    try:
        unknown = _parser.unknown_license_keys(licence)
    except ExpressionError:
        return False
    return all(key.startswith("LicenseRef-") for key in unknown)


def is_allowed(licence: str, allowed: frozenset[str]) -> bool:
    """Whether a licence is on a list; of an expression, a choice of it that is."""
    if licence in allowed:
        return True
    try:
        return _allows(_parser.parse(licence), allowed)
    except ExpressionError:
        return False


def _allows(expression: Any, allowed: frozenset[str]) -> bool:
    if isinstance(expression, _parser.OR):
        return any(_allows(part, allowed) for part in expression.args)
    if isinstance(expression, _parser.AND):
        return all(_allows(part, allowed) for part in expression.args)
    return str(expression) in allowed
