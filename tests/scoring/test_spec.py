"""A model name stands for one kind of scorer, with the settings of that kind and no others."""

import pytest

from codescaler_plugin import CodeScalerConfig, ConfigError, load_scorer
from codescaler_plugin.builtin import REWARD_MODEL
from codescaler_plugin.scoring.transformers_scorer import TransformersScorer


@pytest.mark.parametrize("model", ["http://x:SECRET@rm:9", "vllm+http://SECRET@rm:9"])
def test_a_key_in_an_address_is_refused_and_not_shown(model: str) -> None:
    with pytest.raises(ConfigError, match="give the key as api_key") as caught:
        CodeScalerConfig(model=model)
    assert "SECRET" not in str(caught.value)


@pytest.mark.parametrize("model", ["http://rm:9#m", "http://rm:9?x=1", "vllm+http://a:9#m,vllm+http://b:9#m"])
def test_an_address_with_more_than_an_address_is_refused(model: str) -> None:
    with pytest.raises(ConfigError, match="expected"):
        load_scorer(model)


@pytest.mark.parametrize("model", ["ftp://host", "http://", "vllm+ftp://host", "vllm+http://"])
def test_address_that_is_none_is_a_config_error(model: str) -> None:
    with pytest.raises(ConfigError, match="address"):
        load_scorer(model)


def test_settings_that_a_server_cannot_have_are_refused() -> None:
    with pytest.raises(ConfigError, match="cache_dir"):
        load_scorer("http://host:9000", cache_dir="x")
    with pytest.raises(ConfigError, match="tokenizer"):
        load_scorer("builtin", tokenizer="x")


@pytest.mark.parametrize("url", ["http://host:9000", "vllm+http://host:8000"])
def test_trust_of_code_is_refused_for_a_server(url: str) -> None:
    with pytest.raises(ConfigError, match=r"trust_remote_code has no effect on .* server"):
        load_scorer(url, trust_remote_code=True)


def test_url_of_another_kind_is_refused_at_once() -> None:
    with pytest.raises(ConfigError, match="ftp://host:9000"):
        load_scorer("ftp://host:9000")


def test_builtin_names_the_embedded_reward_model() -> None:
    scorer = load_scorer("builtin", max_tokens=3, max_length=9, device="cpu")
    assert isinstance(scorer, TransformersScorer)
    assert (scorer.model, scorer.max_tokens, scorer.max_length, scorer.device) == (str(REWARD_MODEL), 3, 9, "cpu")
