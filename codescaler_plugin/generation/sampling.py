"""How a policy's completions are sampled; apart, so that a command can name the defaults without loading a model."""

from dataclasses import dataclass

from codescaler_plugin.errors import ConfigError


@dataclass(frozen=True)
class Sampling:
    """How completions are sampled. The defaults are those of the reference's evaluation.

    Attributes:
        temperature: 0 takes the most likely token.
        top_p: mass of the most likely tokens that are drawn from; 1: all.
        top_k: number of the most likely tokens that are drawn from; 0: all.
        max_tokens: of a completion; what is cut has an unclosed block and fails.
        instruct: ask for one program in a block, see `prompt_of`; otherwise the prompt is the problem alone.
    """

    temperature: float = 0.6
    top_p: float = 0.95
    top_k: int = 0
    max_tokens: int = 16_384
    instruct: bool = True

    def __post_init__(self) -> None:
        if self.temperature < 0 or not 0 < self.top_p <= 1 or self.top_k < 0 or self.max_tokens < 1:
            raise ConfigError(f"{self}: expected temperature >= 0, top_p in (0, 1], top_k >= 0 and at least one token")
