"""Settings: all of them come from WEB_ variables, and a wrong one stops the start."""

import pytest

import imaging
from webapp.config import Config, ConfigError, decoders_for


def test_the_defaults_hold_without_any_variable() -> None:
    assert Config.from_env({"PATH": "/bin"}) == Config()
    assert Config().decoders >= 1


def test_values_become_what_the_setting_is() -> None:
    config = Config.from_env({"WEB_PORT": "81", "WEB_MODEL": "m", "WEB_DEADLINE_MS": "500"})
    assert (config.port, config.model, config.deadline_ms) == (81, "m", 500)


@pytest.mark.parametrize(("cpus", "decoders"), [(1, 2), (2, 2), (3, 3), (192, 192), (400, 256)])
def test_there_is_a_decoder_for_each_cpu_and_two_at_least(cpus: int, decoders: int) -> None:
    assert decoders_for(cpus) == decoders
    assert Config.from_env({"WEB_DECODERS": str(decoders)}).decoders == decoders


def test_gunicorns_own_variable_is_left_alone() -> None:
    assert Config.from_env({"WEB_CONCURRENCY": "2"}) == Config()


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("WEB_PROT", "8000"),
        ("WEB_PORT", "eighty"),
        ("WEB_PORT", "0"),
        ("WEB_PORT", ""),
        ("WEB_HOST", "[::1]"),
        ("WEB_DEADLINE_MS", "1.5"),
        ("WEB_DEADLINE_MS", "0"),
        ("WEB_DECODERS", "-1"),
        ("WEB_BROKER", "localhost:5576"),
    ],
)
def test_a_wrong_setting_is_named_in_one_sentence(variable: str, value: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Config.from_env({variable: value})
    message = str(caught.value)
    assert message.startswith(variable)
    assert message.endswith(".")
    assert "\n" not in message


def test_no_more_is_read_than_could_be_decoded() -> None:
    assert Config().max_upload_bytes == imaging.MAX_BYTES
    with pytest.raises(ConfigError):
        Config.from_env({"WEB_MAX_UPLOAD_BYTES": str(imaging.MAX_BYTES + 1)})
