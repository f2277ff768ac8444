"""Every knob, once: its default, its unit, where the default comes from, and how the environment sets it."""

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from difflib import get_close_matches
from typing import Any, Self

from codescaler_plugin.errors import ConfigError
from codescaler_plugin.extraction import POLICIES
from codescaler_plugin.extraction.languages import checked_language
from codescaler_plugin.extraction.reasoning import checked_marks
from codescaler_plugin.scoring.cache import CACHE_SIZE
from codescaler_plugin.scoring.rendering import wrapper_pattern
from codescaler_plugin.shaping import Shaping

PREFIX = "CODESCALER_"
_NUMBERS: dict[str, tuple[type[int] | type[float], str]] = {
    "max_length": (int, "a whole number"),
    "max_tokens": (int, "a whole number"),
    "cache_size": (int, "a whole number"),
    "temperature": (float, "a number"),
    "offset": (float, "a number"),
    "floor": (float, "a number"),
    "max_unscored": (float, "a number"),
}


@dataclass(frozen=True)
class CodeScalerConfig:
    """All settings of the pipeline. Each can be given as `CODESCALER_<NAME>`; a keyword argument wins.

    Attributes:
        model: hub id, directory, or `builtin` for the small embedded model. Default: the paper's 8B model.
        language: language the code must be in (`extraction.languages.LANGUAGES`), or `any`. Default: the paper's.
        policy: which fenced block counts: `single` (paper §4, as described in the public recipe), `last`, `first` or
            `bare`; see `extract_code`.
        reasoning_marks: marks of reasoning besides those of the known model families, opening and closing in turn,
            divided by spaces: `<plan> </plan>`.
        thinking_prefilled: the prompt opens the policy's reasoning, and the host does not hand the prompt's text over.
            Then a completion that a length limit cut inside its reasoning is invalid, whatever drafts it holds.
        fence_prefilled: the prompt opens the fence of the program, and the host does not hand the prompt's text over.
        prompt_template: the policy's tokenizer (hub id or directory) or chat template (Jinja file), which tells where
            the problem stands in a templated prompt. None: the templates of public model families.
        shaping: shape of the reward: `softplus` (the paper's log(1 + e^score)), `sigmoid`, `group_center`, `rank` or
            `raw`; see `shaping.Shaping`, also for the next three.
        temperature: divides the score before it is shaped. The paper has 1.
        offset: taken off the score before it is shaped. The paper has 0.
        floor: reward of the worst valid code. The paper has 0, the reward of invalid code.
        max_length: tokens per rendered sample. The middle of a longer one's problem is left out, its code never; see
            `scoring.rendering.Renderer`. None: the model's own limit.
        max_tokens: tokens per forward pass. None: what fits the free memory.
        cache_size: scores remembered across calls; 0: none.
        cache_dir: folder of a score file shared by the processes of a machine (extra `cache`). None: none.
        offload: move the model to CPU memory after each call, for a policy on the same GPU.
        problem_wrapper: `livecodebench`, or a regular expression with a group `problem`: what stands around the
            problem in a prompt and is taken off before scoring. None: nothing.
        trust_remote_code: run code that the model's folder brings, in this process, with all that the process may do.
            Only for a model whose code you have read.
        device: torch device such as `cuda:1`. None: the current GPU, else the CPU.
        tokenizer: of a vLLM server's model, a directory or hub id. None: where the server has the model from.
        api_key: of a codescaler or vLLM server.
        problem_column: dataset column that holds the problem. None: the last user turn of the prompt.
        max_unscored: share of a call's valid programs that may stay without a score in TRL's trainers. Three calls
            in a row above it end the training with an error; 1: never.
    """

    model: str = "LARK-Lab/CodeScaler-8B"
    language: str = "python"
    policy: str = "single"
    reasoning_marks: str | None = None
    thinking_prefilled: bool = False
    fence_prefilled: bool = False
    prompt_template: str | None = None
    shaping: str = "softplus"
    temperature: float = 1.0
    offset: float = 0.0
    floor: float = 0.0
    max_length: int | None = None
    max_tokens: int | None = None
    cache_size: int = CACHE_SIZE
    cache_dir: str | None = None
    offload: bool = False
    problem_wrapper: str | None = None
    trust_remote_code: bool = False
    device: str | None = None
    tokenizer: str | None = None
    api_key: str | None = field(default=None, repr=False)
    problem_column: str | None = None
    max_unscored: float = 0.5

    def __post_init__(self) -> None:
        checked_language(self.language)
        if self.problem_wrapper is not None:
            wrapper_pattern(self.problem_wrapper)
        checked_marks(self.reasoning_marks)
        self.shape()
        _one_of("policy", self.policy, POLICIES)
        for name in ("max_length", "max_tokens"):
            if (value := getattr(self, name)) is not None:
                _whole(name, value, 1)
        _whole("cache_size", self.cache_size, 0)
        for setting in fields(self):
            if setting.type is bool and not isinstance(getattr(self, setting.name), bool):
                raise ConfigError(f"{setting.name} is {getattr(self, setting.name)!r}: expected True or False")
        if not isinstance(self.max_unscored, int | float) or not 0 <= self.max_unscored <= 1:
            raise ConfigError(f"max_unscored is {self.max_unscored!r}: expected a share in [0, 1]")
        if not self.model:
            raise ConfigError("model is empty: give a hub id, a directory, or 'builtin'")

    def shape(self) -> Shaping:
        """The shape of the reward that the settings name."""
        return Shaping(self.shaping, self.temperature, self.offset, self.floor)

    @classmethod
    def from_env(cls, environ: Mapping[str, str] = os.environ, **overrides: Any) -> Self:
        """Defaults, overridden by `CODESCALER_*` variables, overridden by keyword arguments that are not None.

        Raises:
            ConfigError: an unknown `CODESCALER_*` variable or keyword, one of `HookConfig` alone, or a value that does
                not fit.
        """
        names = [setting.name for setting in fields(cls)]
        values: dict[str, Any] = {}
        for variable, text in environ.items():
            if variable.startswith(PREFIX):
                name = variable.removeprefix(PREFIX).lower()
                if variable in HOOK_VARIABLES and name not in names:
                    raise ConfigError(
                        f"{variable} is a setting of the reward files of `codescaler where` alone and has no effect "
                        "here: unset it for this process"
                    )
                _known(variable, name, names, [PREFIX + n.upper() for n in names])
                values[name] = _parsed(variable, text, name)
                try:
                    cls(**{name: values[name]})
                except ConfigError as error:
                    raise ConfigError(f"{variable}: {error}") from error
                _not_empty(variable, text)
        for name, value in overrides.items():
            _known(name, name, names, names)
            if value is not None:
                values[name] = value
        return replace(cls(), **values)


@dataclass(frozen=True)
class HookConfig:
    """Settings of the files of `codescaler where` alone, each a variable `CODESCALER_<NAME>`.

    With `url`, the servers' settings hold for all that is not named here (the prompt is taken apart here); without,
    those of `CodeScalerConfig` here.

    Attributes:
        url: codescaler servers, `http://host:port`, several divided by commas; None: the model of `CODESCALER_MODEL`
            is loaded into each process that calls.
        fallback: reward of a sample that cannot be scored. Default: that of invalid code.
        patience: seconds in which a sample is tried again at servers that fail. A model of this process gets one more
            try.
        api_key: of the servers.
        prompt_template: see `CodeScalerConfig`.
        reasoning_marks: see `CodeScalerConfig`.
    """

    url: str | None = None
    fallback: float = 0.0
    patience: float = 60.0
    api_key: str | None = None
    prompt_template: str | None = None
    reasoning_marks: str | None = None

    def __post_init__(self) -> None:
        checked_marks(self.reasoning_marks)
        for name in ("fallback", "patience"):
            if not math.isfinite(getattr(self, name)):
                raise ConfigError(f"{name} is {getattr(self, name)}: expected a finite number")
        if self.patience < 0:
            raise ConfigError(f"patience is {self.patience}: expected seconds, at least 0")

    @classmethod
    def from_env(cls, environ: Mapping[str, str] = os.environ) -> Self:
        """Defaults, overridden by variables.

        Raises:
            ConfigError: a value that does not fit.
        """
        values: dict[str, Any] = {}
        for variable, name in HOOK_VARIABLES.items():
            if variable in environ:
                _not_empty(variable, environ[variable])
                try:
                    is_number = name in ("fallback", "patience")
                    values[name] = float(environ[variable]) if is_number else environ[variable]
                except ValueError:
                    raise ConfigError(f"{variable} is {environ[variable]!r}: expected a number") from None
        return cls(**values)


HOOK_VARIABLES = {PREFIX + setting.name.upper(): setting.name for setting in fields(HookConfig)}


def _known(shown: str, name: str, names: list[str], choices: list[str]) -> None:
    if name not in names:
        close = get_close_matches(shown, choices, n=1)
        hint = f"did you mean {close[0]}?" if close else f"known: {', '.join(choices)}"
        raise ConfigError(f"unknown setting {shown!r}: {hint}")


def _not_empty(variable: str, text: str) -> None:
    if not text.strip():
        raise ConfigError(f"{variable} is empty: give it a value, or unset it")


def _one_of(name: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ConfigError(f"{name} is {value!r}: expected one of {', '.join(choices)}")


def _whole(name: str, value: object, least: int) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise ConfigError(f"{name} is {value!r}: expected a whole number of at least {least}")


def _parsed(variable: str, text: str, name: str) -> str | int | float:
    """An environment variable's text as the type of its setting."""
    if name in {setting.name for setting in fields(CodeScalerConfig) if setting.type is bool}:
        if text not in ("0", "1"):
            raise ConfigError(f"{variable} is {text!r}: expected 0 or 1")
        return text == "1"
    kind, expected = _NUMBERS.get(name, (str, "text"))
    try:
        return kind(text)
    except ValueError:
        raise ConfigError(f"{variable} is {text!r}: expected {expected}") from None
