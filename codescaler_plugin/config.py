"""Every knob, once: its default, its unit, where the default comes from, and how the environment sets it."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from difflib import get_close_matches
from typing import Any, Self

from codescaler_plugin.errors import ConfigError

PREFIX = "CODESCALER_"
LANGUAGES = ("python",)
POLICIES = ("single",)
SHAPINGS = ("softplus", "raw")


@dataclass(frozen=True)
class CodeScalerConfig:
    """All settings of the pipeline. Each can be given as `CODESCALER_<NAME>`; a keyword argument wins.

    Attributes:
        model: hub id, directory, or `builtin` for the small embedded model. Default: the paper's 8B model.
        language: language the code must be in. Only `python` so far.
        policy: which fenced block counts. `single` (paper §4, as described in the public recipe): exactly one.
        shaping: `softplus` (the paper's log(1 + e^score)) or `raw` (the logit itself).
        batch_size: sequences per forward pass.
        max_length: tokens per rendered sample; a longer one is not scored, never cut. None: the model's own limit.
        device: torch device such as `cuda:1`. None: the current accelerator, else the CPU.
        problem_column: dataset column that holds the problem. None: the last user turn of the prompt.
    """

    model: str = "LARK-Lab/CodeScaler-8B"
    language: str = "python"
    policy: str = "single"
    shaping: str = "softplus"
    batch_size: int = 8
    max_length: int | None = None
    device: str | None = None
    problem_column: str | None = None

    def __post_init__(self) -> None:
        _one_of("language", self.language, LANGUAGES)
        _one_of("policy", self.policy, POLICIES)
        _one_of("shaping", self.shaping, SHAPINGS)
        _positive("batch_size", self.batch_size)
        if self.max_length is not None:
            _positive("max_length", self.max_length)
        if not self.model:
            raise ConfigError("model is empty: give a hub id, a directory, or 'builtin'")

    @classmethod
    def from_env(cls, environ: Mapping[str, str] = os.environ, **overrides: Any) -> Self:
        """Defaults, overridden by `CODESCALER_*` variables, overridden by keyword arguments that are not None.

        Raises:
            ConfigError: an unknown `CODESCALER_*` variable or keyword, or a value that does not fit.
        """
        names = [field.name for field in fields(cls)]
        values: dict[str, Any] = {}
        for variable, text in environ.items():
            if variable.startswith(PREFIX):
                name = variable.removeprefix(PREFIX).lower()
                _known(variable, name, names, [PREFIX + n.upper() for n in names])
                values[name] = _integer(variable, text) if name in ("batch_size", "max_length") else text
        for name, value in overrides.items():
            _known(name, name, names, names)
            if value is not None:
                values[name] = value
        return replace(cls(), **values)


def _known(shown: str, name: str, names: list[str], choices: list[str]) -> None:
    if name not in names:
        close = get_close_matches(shown, choices, n=1)
        hint = f"did you mean {close[0]}?" if close else f"known: {', '.join(choices)}"
        raise ConfigError(f"unknown setting {shown!r}: {hint}")


def _one_of(name: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ConfigError(f"{name} is {value!r}: expected one of {', '.join(choices)}")


def _positive(name: str, value: object) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ConfigError(f"{name} is {value!r}: expected a whole number of at least 1")


def _integer(variable: str, text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise ConfigError(f"{variable} is {text!r}: expected a whole number") from None
