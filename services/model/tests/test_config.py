"""A setting that is unknown or does not fit stops the start with one sentence."""

import pytest

from modelserver.config import (
    BATCH_ON_CPU,
    BATCH_ON_GPU,
    BrokerConfig,
    ConfigError,
    ReplicaConfig,
)


def test_without_any_setting_everything_has_a_default() -> None:
    assert BrokerConfig.from_env({"PATH": "/bin"}).frontend == "tcp://127.0.0.1:5576"
    assert ReplicaConfig.from_env({"BROKER_FRONTEND": "x"}).bundle == "efficientnet-lite0"


def test_settings_are_read_with_their_types() -> None:
    config = ReplicaConfig.from_env({"MODEL_BROKER": "tcp://broker:5577", "MODEL_MAX_BATCH": "4"})
    assert (config.broker, config.max_batch) == ("tcp://broker:5577", 4)


@pytest.mark.parametrize(
    ("env", "largest"),
    [
        ({}, BATCH_ON_CPU),
        ({"MODEL_ENGINE": "tensorflow"}, BATCH_ON_CPU),
        ({"MODEL_DEVICE": "gpu"}, BATCH_ON_GPU),
        ({"MODEL_ENGINE": "simulated"}, BATCH_ON_GPU),
        ({"MODEL_DEVICE": "gpu", "MODEL_MAX_BATCH": "5"}, 5),
    ],
)
def test_how_large_a_batch_may_be_follows_the_device(env: dict[str, str], largest: int) -> None:
    assert ReplicaConfig.from_env(env).largest_batch == largest


@pytest.mark.parametrize(
    ("env", "words"),
    [
        ({"BROKER_FRONTND": "tcp://*:1"}, "BROKER_FRONTND is no setting; there are BROKER_FRO"),
        ({"BROKER_FRONTEND": "localhost"}, "BROKER_FRONTEND cannot be 'localhost'"),
        ({"BROKER_MAX_QUEUE_REQUESTS": "many"}, "BROKER_MAX_QUEUE_REQUESTS cannot be 'many'"),
        ({"BROKER_MAX_QUEUE_REQUESTS": "0"}, "BROKER_MAX_QUEUE_REQUESTS cannot be '0'"),
        ({"BROKER_LIVENESS_MS": "999"}, "BROKER_LIVENESS_MS cannot be '999'"),
    ],
)
def test_a_bad_setting_is_named(env: dict[str, str], words: str) -> None:
    with pytest.raises(ConfigError, match=words) as caught:
        BrokerConfig.from_env(env)
    assert "\n" not in str(caught.value)
