"""(problem, code) -> raw logit. The one seam behind which reward models live."""

from collections.abc import Sequence
from typing import Protocol

from codescaler_plugin.errors import ConfigError


class Scorer(Protocol):
    """Anything that gives raw logits for (problem, code) pairs."""

    def score(self, items: Sequence[tuple[str, str]]) -> list[float | None]:
        """One raw logit per item, same length and order; None for an item that cannot be scored.

        Raises:
            ScorerError: the reward model failed.
        """
        ...


def load_scorer(
    model: str, *, batch_size: int = 8, max_length: int | None = None, device: str | None = None
) -> Scorer:
    """The scorer for a directory, a hub id, or `builtin`. Nothing is loaded before its first call.

    Raises:
        ConfigError: the name is a URL; scoring over HTTP is not part of this version.
    """
    from codescaler_plugin.builtin import REWARD_MODEL
    from codescaler_plugin.scoring.transformers_scorer import TransformersScorer

    if "://" in model:
        raise ConfigError(f"model {model!r} is a URL: expected a hub id, a directory, or 'builtin'")
    name = str(REWARD_MODEL) if model == "builtin" else model
    return TransformersScorer(name, batch_size=batch_size, max_length=max_length, device=device)
