"""(problem, code) -> raw logit. The one seam behind which reward models live."""

from collections.abc import Sequence
from typing import Any, Protocol


class Scorer(Protocol):
    """Anything that gives raw logits for (problem, code) pairs.

    One that loads or connects on its first call may have a method `ensure_loaded()` besides, which does that alone and
    raises what the call would. `CodeScalerReward` calls it if its first call holds no valid program.
    """

    def score(self, items: Sequence[tuple[str, str]]) -> list[float | None]:
        """One raw logit per item, same length and order; None for an item that cannot be scored.

        Raises:
            ScorerError: the reward model failed.
        """
        ...


class Unscored:
    """A scorer without a model: None for every program. For tests alone, which need the code and no score."""

    def score(self, items: Sequence[tuple[str, str]]) -> list[float | None]:
        """None for each item."""
        return [None] * len(items)


def load_scorer(model: str, **settings: Any) -> Scorer:
    """The scorer for a model's name. Nothing is loaded or asked over the network before its first call.

    Args:
        model: a directory or a hub id: in this process (`TransformersScorer`). `builtin`: the embedded model, with a
            warning on problems that are none of the quickstart's.
            `vllm+http://host:8000`: a vLLM server, several divided by commas (`VllmScorer`); `#id` at the end
            holds them to a model.
            `http://host:9000`: a codescaler server, several divided by commas (`RemoteScorer`).
        **settings: those of what the name stands for: `scoring.spec.Classifier`, `EngineServer` or
            `CodescalerServer`. None: its default.

    Raises:
        ConfigError: a URL of another kind, or a setting that has no effect on this kind of model.

    Example:
        >>> scorer = load_scorer("builtin", cache_size=0)
    """
    from codescaler_plugin.scoring.spec import model_spec

    return model_spec(model, **settings).scorer()
