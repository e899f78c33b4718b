import pytest

from dolmen.embedding import Capacity
from dolmen.errors import ConfigError
from dolmen.features import Eviction
from dolmen.settings import read_settings, write_settings
from dolmen.training import TrainConfig


def test_config_survives_being_written() -> None:
    config = TrainConfig(
        learning_rate=0.01, expire_every="2h", seed=7, table_capacity=9, table_eviction="score", table_half_life="7d"
    )
    assert config.capacity == Capacity(9, Eviction.SCORE, 7 * 86_400 * 1_000_000)
    assert read_settings(TrainConfig, write_settings(config), "train") == config


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("learning_rate", 0.0, r"train\.learning_rate must be above 0, got 0"),
        ("full_batch", 0, r"train\.full_batch must be at least 1, got 0"),
        ("weight_decay", -1.0, r"train\.weight_decay must be at least 0, got -1"),
        ("gradient_norm_max", 0.0, r"train\.gradient_norm_max must be above 0"),
        ("embedding_rate_scale", 0.0, r"train\.embedding_rate_scale must be above 0"),
        ("table_capacity", 0, r"train\.table_capacity must be at least 1 or left out, got 0"),
        ("table_eviction", "fifo", r"train\.table_eviction must be one of lru, lfu, score, got 'fifo'"),
        ("table_half_life", "7d", r"need train\.table_capacity"),
        ("warmup_steps", -1, r"train\.warmup_steps must be at least 0, got -1"),
        ("decay_steps", 0, r"train\.decay_steps must be at least 1 or left out, got 0"),
        ("final_rate", 0.0, r"train\.final_rate must be above 0 and at most 1, got 0"),
        ("evaluate_every", -1, r"train\.evaluate_every must be at least 0"),
        ("expire_every", "soon", r"train\.expire_every: .*'soon'"),
        ("seed", -5, r"train\.seed must be between 0 and 18446744073709551615, got -5"),
        ("seed", 10**23, r"train\.seed must be between 0 and 18446744073709551615, got 1000000000000"),
        ("future_max", "0s", r"train\.future_max must be above 0, got '0s'"),
    ],
)
def test_a_value_out_of_range_is_named(name: str, value: object, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        TrainConfig(**{name: value})
