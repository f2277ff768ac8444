"""Sampling settings. They import no model library, so a command can show the defaults quickly."""

from collections.abc import Callable
from dataclasses import dataclass

from codescaler_plugin.errors import ConfigError

Completer = Callable[[str, int], list[str]]  # returns n completions of a prompt, the user turn


@dataclass(frozen=True)
class Sampling:
    """Sampling settings. The defaults are those of the reference's evaluation."""

    temperature: float = 0.6  # 0 takes the most likely token
    top_p: float = 0.95  # probability mass of the most likely tokens to draw from; 1 is all
    top_k: int = 0  # number of the most likely tokens to draw from; 0 is all
    max_tokens: int = 16_384  # a completion that is cut off has an unclosed block and fails
    instruct: bool = True  # ask for one program in a block, see `prompt_of`; else the prompt is the problem alone

    def __post_init__(self) -> None:
        if self.temperature < 0 or not 0 < self.top_p <= 1 or self.top_k < 0 or self.max_tokens < 1:
            raise ConfigError(f"{self}: expected temperature >= 0, top_p in (0, 1], top_k >= 0 and at least one token")
