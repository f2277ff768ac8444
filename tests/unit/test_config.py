import dataclasses
import re
from typing import Any

import pytest

from codescaler_plugin import CodeScalerConfig, ConfigError
from codescaler_plugin.config import HookConfig


def test_defaults_are_the_papers() -> None:
    config = CodeScalerConfig.from_env({})
    assert config == CodeScalerConfig()
    assert (config.model, config.policy, config.shaping) == ("LARK-Lab/CodeScaler-8B", "single", "softplus")


@pytest.mark.parametrize(
    ("variable", "text", "value"),
    [
        ("MODEL", "builtin", "builtin"),
        ("SHAPING", "raw", "raw"),
        ("MAX_TOKENS", "3", 3),
        ("CACHE_SIZE", "0", 0),
        ("OFFLOAD", "1", True),
        ("TRUST_REMOTE_CODE", "1", True),
        ("MAX_LENGTH", "4096", 4096),
        ("DEVICE", "cuda:1", "cuda:1"),
        ("PROBLEM_COLUMN", "problem", "problem"),
    ],
)
def test_variable_sets_its_field(variable: str, text: str, value: Any) -> None:
    config = CodeScalerConfig.from_env({f"CODESCALER_{variable}": text})
    assert dataclasses.asdict(config) == {**dataclasses.asdict(CodeScalerConfig()), variable.lower(): value}


def test_keyword_wins_over_variable() -> None:
    config = CodeScalerConfig.from_env({"CODESCALER_MODEL": "a", "CODESCALER_MAX_TOKENS": "2"}, model="b")
    assert (config.model, config.max_tokens) == ("b", 2)


def test_keyword_of_none_leaves_the_variable_in_place() -> None:
    config = CodeScalerConfig.from_env({"CODESCALER_MODEL": "a"}, model=None, max_tokens=None)
    assert (config.model, config.max_tokens) == ("a", None)


def test_process_environment_is_read_by_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CODESCALER_MODEL", "from-the-environment")
    assert CodeScalerConfig.from_env().model == "from-the-environment"


def test_other_variables_are_left_alone() -> None:
    assert CodeScalerConfig.from_env({"PATH": "/bin", "XCODESCALER_MODEL": "a"}) == CodeScalerConfig()


def test_unknown_variable_names_the_near_miss() -> None:
    with pytest.raises(ConfigError, match=r"CODESCALER_MAXTOKENS.*did you mean CODESCALER_MAX_TOKENS\?"):
        CodeScalerConfig.from_env({"CODESCALER_MAXTOKENS": "2"})


@pytest.mark.parametrize("variable", ["CODESCALER_URL", "CODESCALER_FALLBACK", "CODESCALER_PATIENCE"])
def test_variable_of_the_hooks_is_named_as_theirs(variable: str) -> None:
    with pytest.raises(ConfigError, match=rf"^{variable} is a setting of .*`codescaler where`.*unset it"):
        CodeScalerConfig.from_env({variable: "1"})


def test_unknown_keyword_names_the_near_miss() -> None:
    with pytest.raises(ConfigError, match=r"'shapping'.*did you mean shaping\?"):
        CodeScalerConfig.from_env({}, shapping="raw")


def test_unknown_setting_without_a_near_miss_lists_what_is_known() -> None:
    with pytest.raises(ConfigError, match=r"'zzz'.*known: model, language"):
        CodeScalerConfig.from_env({}, zzz=1)


@pytest.mark.parametrize("text", ["", "eight", "1.5", "0", "-3"])
@pytest.mark.parametrize("variable", ["CODESCALER_MAX_TOKENS", "CODESCALER_MAX_LENGTH"])
def test_number_that_does_not_fit_is_named_with_its_setting(variable: str, text: str) -> None:
    name = variable.removeprefix("CODESCALER_")
    with pytest.raises(ConfigError, match=rf"(?i){name}.*{re.escape(text)}.*whole number"):
        CodeScalerConfig.from_env({variable: text})


SWITCHES = [field.name for field in dataclasses.fields(CodeScalerConfig) if isinstance(field.default, bool)]


@pytest.mark.parametrize("name", SWITCHES)
def test_switch_is_0_or_1_in_a_variable_and_a_bool_in_python(name: str) -> None:
    variable = f"CODESCALER_{name.upper()}"
    assert [getattr(CodeScalerConfig.from_env({variable: text}), name) for text in "01"] == [False, True]
    with pytest.raises(ConfigError, match=f"^{variable} is 'true': expected 0 or 1"):
        CodeScalerConfig.from_env({variable: "true"})
    with pytest.raises(ConfigError, match=f"^{name} is 1: expected True or False"):
        CodeScalerConfig(**{name: 1})


@pytest.mark.parametrize("value", [0, -1, 1.5, "8", True], ids=repr)
def test_max_tokens_must_be_a_positive_whole_number(value: Any) -> None:
    with pytest.raises(ConfigError, match="max_tokens"):
        CodeScalerConfig(max_tokens=value)


@pytest.mark.parametrize("name", ["language", "policy", "shaping"])
def test_choice_that_does_not_exist_is_named(name: str) -> None:
    with pytest.raises(ConfigError, match=rf"{name} is 'other'"):
        CodeScalerConfig(**{name: "other"})


def test_empty_model_is_refused() -> None:
    with pytest.raises(ConfigError, match="builtin"):
        CodeScalerConfig.from_env({"CODESCALER_MODEL": ""})


def test_config_cannot_be_changed() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        CodeScalerConfig().model = "other"  # type: ignore[misc]


@pytest.mark.parametrize(
    "variable", [f"CODESCALER_{field.name.upper()}" for field in dataclasses.fields(CodeScalerConfig)]
)
def test_an_empty_variable_is_named(variable: str) -> None:
    with pytest.raises(ConfigError, match=variable):
        CodeScalerConfig.from_env({variable: ""})


@pytest.mark.parametrize("name", ["URL", "FALLBACK", "PATIENCE", "API_KEY"])
def test_an_empty_variable_of_a_reward_file_is_named(name: str) -> None:
    with pytest.raises(ConfigError, match=f"CODESCALER_{name} is empty"):
        HookConfig.from_env({f"CODESCALER_{name}": " "})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("LANGUAGE", "cobol"),
        ("POLICY", "any"),
        ("SHAPING", "soft"),
        ("FLOOR", "-1"),
        ("MAX_UNSCORED", "2"),
        ("PROBLEM_WRAPPER", "("),
    ],
)
def test_a_value_that_does_not_fit_names_its_variable(name: str, value: str) -> None:
    with pytest.raises(ConfigError, match=f"^CODESCALER_{name}"):
        CodeScalerConfig.from_env({f"CODESCALER_{name}": value})


def test_settings_that_fit_only_together_are_taken_together() -> None:
    found = CodeScalerConfig.from_env({"CODESCALER_SHAPING": "rank", "CODESCALER_FLOOR": "0.5"})
    assert (found.shaping, found.floor) == ("rank", 0.5)
