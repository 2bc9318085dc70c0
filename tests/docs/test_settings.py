"""Settings are what the tables of the READMEs say, and no other is named anywhere."""

import re
from pathlib import Path

import msgspec
import pytest

from modelserver.config import BrokerConfig, ReplicaConfig
from tests.conftest import ROOT
from tests.docs.documents import DEPLOYED, DOCUMENTS, name, text
from webapp.config import GUNICORNS_OWN, Config

SETTINGS_OF: dict[str, type[msgspec.Struct]] = {
    "WEB_": Config,
    "BROKER_": BrokerConfig,
    "MODEL_": ReplicaConfig,
}
TABLES = {"web": ["WEB_"], "model": ["BROKER_", "MODEL_"]}


def settings() -> dict[str, str | None]:
    """Every variable and its default as a table says it; None where words must say it."""
    found: dict[str, str | None] = {GUNICORNS_OWN: "`1`"}
    for prefix, config in SETTINGS_OF.items():
        for field in msgspec.structs.fields(config):
            default = None
            if field.default is not msgspec.NODEFAULT:
                fraction = isinstance(field.default, float)
                shown = f"{field.default:g}" if fraction else str(field.default)
                default = f"`{shown}`" if shown else ""
            found[prefix + field.name.upper()] = default
    return found


@pytest.mark.parametrize("service", TABLES)
def test_the_tables_of_settings_are_complete_and_right(service: str) -> None:
    readme = text(ROOT / "services" / service / "README.md")
    rows = re.findall(r"^\| `([A-Z_]+)` \| *(.*?) *\|.*\|$", readme, re.MULTILINE)
    expected = {
        variable: default
        for variable, default in settings().items()
        if variable.startswith(tuple(TABLES[service]))
    }
    assert sorted(variable for variable, _ in rows) == sorted(expected)
    for variable, default in rows:
        if expected[variable] is None:
            assert re.fullmatch(r"[^`]+", default), f"the default of {variable} in words"
        else:
            assert default == expected[variable], variable


@pytest.mark.parametrize("file", [*DOCUMENTS, *DEPLOYED], ids=name)
def test_every_variable_that_is_named_is_a_setting(file: Path) -> None:
    named = set(re.findall(r"\b(?:WEB|BROKER|MODEL)_[A-Z0-9_]*[A-Z0-9]\b", text(file)))
    assert named - set(settings()) == set()
