"""Every setting: its default, its unit, the source of the default, and its environment variable."""

import logging
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from difflib import get_close_matches
from typing import Any, Self, get_args, get_type_hints

from codescaler_plugin.errors import ConfigError
from codescaler_plugin.extraction import BLOCK_SELECTIONS
from codescaler_plugin.extraction.languages import checked_language
from codescaler_plugin.extraction.reasoning import checked_marks
from codescaler_plugin.scoring.rendering import wrapper_pattern
from codescaler_plugin.scoring.spec import MODEL_SETTINGS, ModelSpec, model_spec
from codescaler_plugin.shaping import Shaping

logger = logging.getLogger(__name__)

PREFIX = "CODESCALER_"
_NUMBERS: tuple[tuple[type[int] | type[float], str], ...] = ((int, "a whole number"), (float, "a number"))
_OWNERS = {  # settings of one host: the host and its name
    "problem_column": ("trl", "TRL's trainers"),
    "max_unscored": ("trl", "TRL's trainers"),
    "fallback": ("files", "the reward files of `codescaler where`"),
}


@dataclass(frozen=True)
class CodeScalerConfig:
    """All settings of the pipeline. Each has an environment variable `CODESCALER_<NAME>`; a keyword argument wins.

    Attributes:
        model: hub id, directory, `builtin` for the small embedded model, a codescaler server (`http://host:port`), or
            a vLLM server (`vllm+http://host:port`, with `#id` for the model that it must serve); several servers are
            separated by commas. A server has its own `max_length` and similar settings, which raise an error here. The
            default is the paper's 8B model.
        language: language of the code (`extraction.languages.LANGUAGES`, and those of entry points), or `any`. The
            default is the paper's.
        extraction: block selection: `single` (paper §4, as described in the public recipe), `last`, `first` or `bare`;
            see `extract_code`.
        reasoning_marks: marks of reasoning besides those of the known model families, opening and closing in turn,
            divided by spaces: `<plan> </plan>`.
        thinking_prefilled: the prompt opens the policy's reasoning, and the host does not pass the prompt's text. A
            completion that a length limit cut inside its reasoning is then invalid, also with drafts of code in it.
        fence_prefilled: the prompt opens the fence of the program, and the host does not pass the prompt's text.
        prompt_template: the policy's tokenizer (hub id or directory) or chat template (Jinja file), which marks the
            problem in a templated prompt. The default is the templates of public model families.
        shaping: shape of the reward: `softplus` (the paper's log(1 + e^score)), `sigmoid`, `group_center`, `rank` or
            `raw`; see `shaping.Shaping`.
        temperature: divisor of the score before shaping. The paper has 1.
        offset: number subtracted from the score before shaping. The paper has 0.
        floor: reward of the worst valid code. The paper has 0, the reward of invalid code.
        max_length: tokens per rendered sample. A longer sample loses the middle of its problem and never code; see
            `scoring.rendering.Renderer`. The default is the model's own limit.
        max_tokens: tokens per forward pass. The default fits the free memory.
        cache_size: number of scores cached across calls; 0 for none. The default is 16,384.
        cache_dir: folder of a score file that processes of a machine share (extra `cache`). The default is no file.
        offload: move the model to CPU memory after each call, for a policy on the same GPU.
        problem_wrapper: text around the problem in a prompt that is removed before scoring: `livecodebench`, or a
            regular expression with a group `problem`. The default is no removal.
        trust_remote_code: run the code in the model's folder, in this process and with its permissions. Set it only
            for a model whose code you have read.
        device: torch device such as `cuda:1`. The default is the current GPU, else the CPU.
        tokenizer: directory or hub id of the tokenizer of a vLLM server's model. The default is the server's source of
            the model.
        api_key: key of a codescaler or vLLM server.
        patience: seconds in which requests to failing servers are retried. The default is 60.
        problem_column: dataset column with the problem. The default is the last user turn of the prompt.
        max_unscored: share in [0, 1] of a call's valid programs that may lack a score in TRL's trainers. Three calls
            in a row above it end the training with an error; 1 never does.
        fallback: reward of a completion that cannot be scored, in the reward files of `codescaler where`, or `error`
            to raise. The default is the reward of invalid code.

    Raises:
        ConfigError: a value of another type or range, or a setting without an effect on the model.

    Example:
        >>> config = CodeScalerConfig(model="builtin", shaping="sigmoid")
        >>> config.extraction
        'single'
    """

    model: str = "LARK-Lab/CodeScaler-8B"
    language: str = "python"
    extraction: str = "single"
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
    cache_size: int | None = None
    cache_dir: str | None = None
    offload: bool = False
    problem_wrapper: str | None = None
    trust_remote_code: bool = False
    device: str | None = None
    tokenizer: str | None = None
    api_key: str | None = field(default=None, repr=False)
    problem_column: str | None = None
    patience: float | None = None
    max_unscored: float = 0.5
    fallback: float | None = 0.0

    def __post_init__(self) -> None:
        checked_language(self.language)
        if self.problem_wrapper is not None:
            wrapper_pattern(self.problem_wrapper)
        checked_marks(self.reasoning_marks)
        self.shape()
        if self.extraction not in BLOCK_SELECTIONS:
            raise ConfigError(f"extraction is {self.extraction!r}: expected one of {', '.join(BLOCK_SELECTIONS)}")
        for name, least in (("max_length", 1), ("max_tokens", 1), ("cache_size", 0)):
            value = getattr(self, name)
            if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < least):
                raise ConfigError(f"{name} is {value!r}: expected a whole number of at least {least}")
        for setting in fields(self):
            if setting.type is bool and not isinstance(value := getattr(self, setting.name), bool):
                raise ConfigError(f"{setting.name} is {value!r}: expected True or False")
        if not isinstance(self.max_unscored, int | float) or not 0 <= self.max_unscored <= 1:
            raise ConfigError(f"max_unscored is {self.max_unscored!r}: expected a share in [0, 1]")
        for name, expected in (("patience", "seconds, at least 0"), ("fallback", "a finite number")):
            number = getattr(self, name)
            is_number = isinstance(number, int | float) and not isinstance(number, bool) and math.isfinite(number)
            if number is not None and not (is_number and (name == "fallback" or number >= 0)):
                raise ConfigError(f"{name} is {number!r}: expected {expected}")
        self.spec()

    def shape(self) -> Shaping:
        """The `Shaping` of the settings."""
        return Shaping(self.shaping, self.temperature, self.offset, self.floor)

    def spec(self) -> ModelSpec:
        """The specification of `model` with its settings; a `ConfigError` for one without an effect on it."""
        return model_spec(self.model, **{name: getattr(self, name) for name in MODEL_SETTINGS})

    def check_host(self, host: str) -> None:
        """Raise for a setting without an effect in a host.

        Args:
            host: `trl`, `files` for the reward files of `codescaler where`, or `server` for `codescaler serve`. The
                last two see one completion at a time.

        Raises:
            ConfigError: a setting of another host, or a shape that compares the completions of a group.
        """
        for name, (owner, title) in _OWNERS.items():
            if owner != host and getattr(self, name) != getattr(CodeScalerConfig, name):
                raise ConfigError(
                    f"{name} ({PREFIX}{name.upper()}) is a setting of {title} alone and has no effect here: leave it "
                    "out"
                )
        if host != "trl" and self.shape().needs_group:
            raise ConfigError(
                f"shaping {self.shaping!r} compares the completions of a group, and here they come one by one: take "
                "softplus, sigmoid or raw, and let the trainer compare"
            )

    @classmethod
    def from_env(cls, environ: Mapping[str, str] = os.environ, *, has_scorer: bool = False, **overrides: Any) -> Self:
        """The settings of keyword arguments that are not None, then of `CODESCALER_*` variables, then the defaults.

        An empty variable is unset. `CODESCALER_URL` is an older name of `CODESCALER_MODEL` and logs a warning.

        Args:
            environ: environment variables. The default is those of the process.
            has_scorer: ignore the variables of the model.
            **overrides: settings.

        Raises:
            ConfigError: an unknown variable or keyword, a wrong value, or a setting without an effect.

        Example:
            >>> CodeScalerConfig.from_env({"CODESCALER_MODEL": "builtin"}, extraction="last").model
            'builtin'
        """
        hints = get_type_hints(cls)
        values: dict[str, Any] = {}
        for variable, text in _variables(environ).items():
            name = variable.removeprefix(PREFIX).lower()
            _known(variable, name, list(hints), [PREFIX + n.upper() for n in hints])
            if not (has_scorer and name in ("model", *MODEL_SETTINGS)):
                values[name] = _parsed(variable, text, hints[name])
        for name in overrides:
            _known(name, name, list(hints), list(hints))
        overrides = {name: value for name, value in overrides.items() if value is not None}
        model = {name: value for name, value in (values | overrides).items() if name == "model"}
        for name, value in values.items():
            if name not in overrides:
                try:
                    cls(**{**model, name: value})
                except ConfigError as error:
                    raise ConfigError(f"{PREFIX}{name.upper()}: {error}") from error
        return cls(**(values | overrides))


def fallback_of(text: str, name: str) -> float | None:
    """The fallback reward in a text: a number, or None for `error`; else a `ConfigError` on the setting `name`."""
    if text == "error":
        return None
    try:
        return float(text)
    except ValueError:
        raise ConfigError(f"{name} is {text!r}: expected a reward or 'error'") from None


def _variables(environ: Mapping[str, str]) -> dict[str, str]:
    """The `CODESCALER_*` variables that are set, under their current names."""
    variables = {name: text.strip() for name, text in environ.items() if name.startswith(PREFIX) and text.strip()}
    url, model = variables.pop(PREFIX + "URL", None), variables.get(PREFIX + "MODEL")
    if url is not None:
        if model not in (None, url):
            raise ConfigError(
                f"{PREFIX}URL is {url!r} and {PREFIX}MODEL is {model!r}: {PREFIX}MODEL names a server as well as a "
                f"model, so leave {PREFIX}URL out"
            )
        logger.warning("%sURL is an older name: give the server as %sMODEL", PREFIX, PREFIX)
        variables[PREFIX + "MODEL"] = url
    return variables


def _known(shown: str, name: str, names: list[str], choices: list[str]) -> None:
    if name not in names:
        close = get_close_matches(shown, choices, n=1)
        hint = f"did you mean {close[0]}?" if close else f"known: {', '.join(choices)}"
        raise ConfigError(f"unknown setting {shown!r}: {hint}")


def _parsed(variable: str, text: str, hint: Any) -> str | int | float | None:
    kinds = get_args(hint) or (hint,)
    if bool in kinds:
        if text not in ("0", "1"):
            raise ConfigError(f"{variable} is {text!r}: expected 0 or 1")
        return text == "1"
    if variable == PREFIX + "FALLBACK":
        return fallback_of(text, variable)
    kind, expected = next((number for number in _NUMBERS if number[0] in kinds), (str, "text"))
    try:
        return kind(text)
    except ValueError:
        raise ConfigError(f"{variable} is {text!r}: expected {expected}") from None
