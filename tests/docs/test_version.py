"""What web says of its version is what its package says."""

import tomllib

from tests.conftest import ROOT
from webapp import inference


def test_web_says_the_version_of_its_package() -> None:
    package = tomllib.loads((ROOT / "services/web/pyproject.toml").read_text())
    assert package["project"]["version"] == inference.VERSION
