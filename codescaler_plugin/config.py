"""Every knob, once: its default, its unit, where the default comes from, and how the environment sets it."""

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
_OWNERS = {  # settings of one host: which, and what it is called
    "problem_column": ("trl", "TRL's trainers"),
    "max_unscored": ("trl", "TRL's trainers"),
    "fallback": ("files", "the reward files of `codescaler where`"),
}


@dataclass(frozen=True)
class CodeScalerConfig:
    """All settings of the pipeline. Each can be given as `CODESCALER_<NAME>`; a keyword argument wins.

    Attributes:
        model: hub id, directory, `builtin` for the small embedded model, a codescaler server (`http://host:port`), or
            a vLLM server (`vllm+http://host:port`, with `#id` the model that it must serve); several servers are
            divided by commas. A server has its own `max_length` and the like: they are refused beside it. Default: the
            paper's 8B model.
        language: language the code must be in (`extraction.languages.LANGUAGES`), or `any`. Default: the paper's.
        extraction: block selection: `single` (paper §4, as described in the public recipe), `last`, `first` or `bare`;
            see `extract_code`.
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
        cache_size: scores remembered across calls; 0: none. None: 16,384.
        cache_dir: folder of a score file shared by the processes of a machine (extra `cache`). None: none.
        offload: move the model to CPU memory after each call, for a policy on the same GPU.
        problem_wrapper: `livecodebench`, or a regular expression with a group `problem`: what stands around the
            problem in a prompt and is taken off before scoring. None: nothing.
        trust_remote_code: run code that the model's folder brings, in this process, with all that the process may do.
            Only for a model whose code you have read.
        device: torch device such as `cuda:1`. None: the current GPU, else the CPU.
        tokenizer: of a vLLM server's model, a directory or hub id. None: where the server has the model from.
        api_key: of a codescaler or vLLM server.
        patience: seconds in which a request is sent again to servers that fail. None: 60.
        problem_column: dataset column that holds the problem. None: the last user turn of the prompt.
        max_unscored: share of a call's valid programs that may stay without a score in TRL's trainers. Three calls
            in a row above it end the training with an error; 1: never.
        fallback: reward of a completion that cannot be scored, in the reward files of `codescaler where`; `error`:
            raise instead. Default: that of invalid code.
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
            if setting.type is bool and not isinstance(getattr(self, setting.name), bool):
                raise ConfigError(f"{setting.name} is {getattr(self, setting.name)!r}: expected True or False")
        if not isinstance(self.max_unscored, int | float) or not 0 <= self.max_unscored <= 1:
            raise ConfigError(f"max_unscored is {self.max_unscored!r}: expected a share in [0, 1]")
        for name, expected in (("patience", "seconds, at least 0"), ("fallback", "a finite number")):
            number = getattr(self, name)
            is_number = isinstance(number, int | float) and not isinstance(number, bool) and math.isfinite(number)
            if number is not None and not (is_number and (name == "fallback" or number >= 0)):
                raise ConfigError(f"{name} is {number!r}: expected {expected}")
        self.spec()

    def shape(self) -> Shaping:
        """The shape of the reward that the settings name."""
        return Shaping(self.shaping, self.temperature, self.offset, self.floor)

    def spec(self) -> ModelSpec:
        """What `model` stands for, with its settings.

        Raises:
            ConfigError: a setting that would have no effect on it.
        """
        return model_spec(self.model, **{name: getattr(self, name) for name in MODEL_SETTINGS})

    def check_host(self, host: str) -> None:
        """Refuse what has no effect in a host.

        Args:
            host: `trl`; `files` for the reward files of `codescaler where`; `server` for `codescaler serve`. Those two
                are called for one completion at a time.

        Raises:
            ConfigError: a setting of other hosts alone, or a shape that compares the completions of a group.
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
        """Defaults, overridden by `CODESCALER_*` variables, overridden by keyword arguments that are not None.

        With `has_scorer` the variables of the model are left aside. An empty variable counts as unset.
        `CODESCALER_URL` is an older name of `CODESCALER_MODEL`, and warns.

        Raises:
            ConfigError: an unknown `CODESCALER_*` variable or keyword, a value that does not fit, or one that would
                have no effect.
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
        given = {name: value for name, value in overrides.items() if value is not None}
        model = {name: value for name, value in (values | given).items() if name == "model"}
        for name, value in values.items():
            if name not in given:
                try:
                    cls(**{**model, name: value})
                except ConfigError as error:
                    raise ConfigError(f"{PREFIX}{name.upper()}: {error}") from error
        return cls(**(values | given))


def fallback_of(text: str, name: str) -> float | None:
    """A fallback reward as text: a number, or `error` for None.

    Args:
        text: as it was given.
        name: of the setting, for the error.

    Raises:
        ConfigError: it is neither.
    """
    if text == "error":
        return None
    try:
        return float(text)
    except ValueError:
        raise ConfigError(f"{name} is {text!r}: expected a reward or 'error'") from None


def _variables(environ: Mapping[str, str]) -> dict[str, str]:
    """The `CODESCALER_*` variables that are set, under their names of today."""
    found = {name: text.strip() for name, text in environ.items() if name.startswith(PREFIX) and text.strip()}
    url, model = found.pop(PREFIX + "URL", None), found.get(PREFIX + "MODEL")
    if url is not None:
        if model not in (None, url):
            raise ConfigError(
                f"{PREFIX}URL is {url!r} and {PREFIX}MODEL is {model!r}: {PREFIX}MODEL names a server as well as a "
                f"model, so leave {PREFIX}URL out"
            )
        logger.warning("%sURL is an older name: give the server as %sMODEL", PREFIX, PREFIX)
        found[PREFIX + "MODEL"] = url
    return found


def _known(shown: str, name: str, names: list[str], choices: list[str]) -> None:
    if name not in names:
        close = get_close_matches(shown, choices, n=1)
        hint = f"did you mean {close[0]}?" if close else f"known: {', '.join(choices)}"
        raise ConfigError(f"unknown setting {shown!r}: {hint}")


def _parsed(variable: str, text: str, hint: Any) -> str | int | float | None:
    """An environment variable's text as the type of its setting."""
    kinds = get_args(hint) or (hint,)
    if bool in kinds:
        if text not in ("0", "1"):
            raise ConfigError(f"{variable} is {text!r}: expected 0 or 1")
        return text == "1"
    if variable == PREFIX + "FALLBACK":
        return fallback_of(text, variable)
    kind, expected = next((it for it in _NUMBERS if it[0] in kinds), (str, "text"))
    try:
        return kind(text)
    except ValueError:
        raise ConfigError(f"{variable} is {text!r}: expected {expected}") from None
