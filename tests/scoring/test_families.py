from types import SimpleNamespace
from typing import Any

import pytest
from transformers import AutoConfig, Gemma2Config, LlamaConfig, Qwen3Config

from codescaler_plugin.scoring import families
from tests.scoring.decoders import CASES, SIZES, config_of


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        (Gemma2Config(**SIZES, head_dim=16), "it caps its attention scores"),
        (AutoConfig.for_model("gpt2"), "the family gpt2 is not known to be able to"),
        (
            Qwen3Config(**SIZES, layer_types=["full_attention", "chunked_attention", "full_attention"]),
            "layers of chun",
        ),
        (
            LlamaConfig(**SIZES, rope_parameters={"rope_type": "dynamic", "factor": 2.0, "rope_theta": 10_000.0}),
            "its positions depend on the length of the sequence",
        ),
    ],
    ids=["caps", "another family", "chunks", "positions that depend on the length"],
)
def test_models_of_another_attention_are_recognised_with_the_reason(config, reason: str) -> None:
    assert reason in str(families.unsupported_reason(config))


def test_positions_of_one_kind_of_layer_count_too() -> None:
    config = replace_rope(AutoConfig.for_model("gemma3_text"), "sliding_attention", "longrope")
    assert families.unsupported_reason(config) == "its positions depend on the length of the sequence"


def replace_rope(config: Any, layers: str, kind: str) -> Any:
    config.rope_parameters = {layers: {"rope_type": kind}, "full_attention": {"rope_type": "default"}}
    return config


@pytest.mark.parametrize(("family", "window"), CASES)
def test_models_that_see_all_or_a_window_can_share(family: str, window: str | None) -> None:
    assert families.unsupported_reason(config_of(family, window)) is None


@pytest.mark.parametrize("family", families.SHARED)
@pytest.mark.parametrize(
    ("setting", "value", "reason"),
    [
        ("is_causal", False, "its tokens see those after them"),
        ("use_bidirectional_attention", True, "its tokens see those after them"),
        ("sliding_window", 0, "its window is empty"),
        ("layer_types", ["full_attention", "linear_attention"], "it has layers of linear_attention"),
        ("rope_scaling", {"type": "longrope"}, "its positions depend on the length of the sequence"),
        ("rope_parameters", {"rope_type": "dynamic"}, "its positions depend on the length of the sequence"),
    ],
)
def test_settings_that_no_family_can_have(family: str, setting: str, value: Any, reason: str) -> None:
    plain = dict.fromkeys(("rope_parameters", "rope_scaling", "layer_types"))
    config = SimpleNamespace(model_type=family, **{**plain, setting: value})
    assert families.unsupported_reason(config) == reason


def test_decoder_that_hands_no_settings_on_is_refused() -> None:
    class Decoder:
        def forward(self, input_ids: Any, position_ids: Any = None) -> None: ...

    config = SimpleNamespace(model_type="qwen2_moe")
    assert families.unsupported_reason(config) is None
    assert "does not hand the tree on" in str(families.unsupported_reason(config, decoder=Decoder()))


def test_dropout_of_the_attention_counts_in_training_alone() -> None:
    config = SimpleNamespace(model_type="qwen3", attention_dropout=0.1)
    assert families.unsupported_reason(config) is None
    assert families.unsupported_reason(config, training=True) == "its attention has dropout"


def test_no_family_is_in_both_tables() -> None:
    assert not set(families.SHARED) & set(families.NOT_SHARED)
