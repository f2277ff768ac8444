import dataclasses
import re
from typing import Any, cast

import pytest

from codescaler_plugin import CodeScalerConfig, ConfigError


def test_defaults_are_the_papers() -> None:
    config = CodeScalerConfig.from_env({})
    assert config == CodeScalerConfig()
    assert (config.model, config.extraction, config.shaping) == ("LARK-Lab/CodeScaler-8B", "single", "softplus")


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


@pytest.mark.parametrize(
    ("host", "name", "value"),
    [
        ("trl", "fallback", "1"),
        ("server", "fallback", "error"),
        ("server", "problem_column", "p"),
        ("files", "max_unscored", "1"),
    ],
)
def test_setting_of_another_host_is_named_as_its(host: str, name: str, value: str) -> None:
    config = CodeScalerConfig.from_env({f"CODESCALER_{name.upper()}": value})
    with pytest.raises(ConfigError, match=rf"^{name} \(CODESCALER_{name.upper()}\) is a setting of .*leave it out"):
        config.check_host(host)


@pytest.mark.parametrize("host", ["server", "files"])
@pytest.mark.parametrize("shaping", ["rank", "group_center"])
def test_shape_of_a_group_is_refused_where_completions_come_one_by_one(host: str, shaping: str) -> None:
    config = CodeScalerConfig(shaping=shaping)
    config.check_host("trl")
    with pytest.raises(ConfigError, match="compares the completions of a group"):
        config.check_host(host)


def test_a_server_is_named_as_a_model_and_its_older_variable_warns(caplog: pytest.LogCaptureFixture) -> None:
    assert CodeScalerConfig.from_env({"CODESCALER_MODEL": "http://a:9"}).model == "http://a:9"
    assert not caplog.records
    assert CodeScalerConfig.from_env({"CODESCALER_URL": "http://a:9"}).model == "http://a:9"
    assert "give the server as CODESCALER_MODEL" in caplog.text
    with pytest.raises(ConfigError, match="leave CODESCALER_URL out"):
        CodeScalerConfig.from_env({"CODESCALER_URL": "http://a:9", "CODESCALER_MODEL": "builtin"})


@pytest.mark.parametrize(
    ("model", "name", "value"),
    [
        ("http://a:9", "max_length", 4096),
        ("http://a:9", "max_tokens", 4096),
        ("http://a:9", "cache_size", 0),
        ("http://a:9", "cache_dir", "scores"),
        ("http://a:9", "device", "cuda:1"),
        ("http://a:9", "offload", True),
        ("http://a:9", "tokenizer", "x"),
        ("http://a:9", "trust_remote_code", True),
        ("vllm+http://a:9", "max_tokens", 4096),
        ("vllm+http://a:9", "device", "cuda:1"),
        ("builtin", "tokenizer", "x"),
        ("org/model", "api_key", "secret"),
        ("org/model", "patience", 5.0),
    ],
)
def test_setting_without_effect_on_the_model_is_refused_and_named(model: str, name: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=f"^{name} has no effect on '{re.escape(model)}'"):
        CodeScalerConfig(model=model, **{name: value})
    text = str(int(value)) if isinstance(value, bool) else str(value)
    with pytest.raises(ConfigError, match=f"^CODESCALER_{name.upper()}: {name} has no effect"):
        CodeScalerConfig.from_env({"CODESCALER_MODEL": model, f"CODESCALER_{name.upper()}": text})
    with pytest.raises(ConfigError, match="has no effect"):
        CodeScalerConfig.from_env({f"CODESCALER_{name.upper()}": text}, model=model)


@pytest.mark.parametrize(("text", "value"), [("0.5", 0.5), ("-1", -1.0), ("error", None)])
def test_fallback_is_a_number_or_an_error(text: str, value: float | None) -> None:
    assert CodeScalerConfig.from_env({"CODESCALER_FALLBACK": text}).fallback == value


def test_unknown_keyword_names_the_near_miss() -> None:
    with pytest.raises(ConfigError, match=r"'shapping'.*did you mean shaping\?"):
        CodeScalerConfig.from_env({}, shapping="raw")


def test_unknown_setting_without_a_near_miss_lists_what_is_known() -> None:
    with pytest.raises(ConfigError, match=r"'zzz'.*known: model, language"):
        CodeScalerConfig.from_env({}, zzz=1)


@pytest.mark.parametrize("text", ["eight", "1.5", "0", "-3"])
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
        CodeScalerConfig(**{name: cast(Any, 1)})


@pytest.mark.parametrize("value", [0, -1, 1.5, "8", True], ids=repr)
def test_max_tokens_must_be_a_positive_whole_number(value: Any) -> None:
    with pytest.raises(ConfigError, match="max_tokens"):
        CodeScalerConfig(max_tokens=value)


@pytest.mark.parametrize("name", ["language", "extraction", "shaping"])
def test_choice_that_does_not_exist_is_named(name: str) -> None:
    with pytest.raises(ConfigError, match=rf"{name} is 'other'"):
        CodeScalerConfig(**{name: cast(Any, "other")})


def test_empty_model_is_refused() -> None:
    with pytest.raises(ConfigError, match="builtin"):
        CodeScalerConfig(model="")


def test_config_cannot_be_changed() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        CodeScalerConfig().model = "other"  # type: ignore[misc]


@pytest.mark.parametrize(
    "variable", [f"CODESCALER_{field.name.upper()}" for field in dataclasses.fields(CodeScalerConfig)]
)
def test_an_empty_variable_counts_as_unset(variable: str) -> None:
    assert CodeScalerConfig.from_env({variable: "", "CODESCALER_URL": " "}) == CodeScalerConfig()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("LANGUAGE", "cobol"),
        ("EXTRACTION", "any"),
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
