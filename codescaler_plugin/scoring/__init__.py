"""(problem, code) -> raw logit. Every reward model is a `Scorer`."""

from collections.abc import Sequence
from typing import Any, Protocol


class Scorer(Protocol):
    r"""The interface of a reward model: raw logits of (problem, code) pairs.

    A scorer that loads a model or connects on its first call may also have a method `ensure_loaded()`, which does only
    that, with the errors of `score`. `CodeScalerReward` calls it if its first call holds no valid program.

    Example:
        >>> from codescaler_plugin import CodeScaler
        >>> class Shortest:
        ...     def score(self, items):
        ...         return [-float(len(code)) for problem, code in items]
        >>> [judgement] = CodeScaler(Shortest()).judge(["Set x."], ["```python\nx = 1\n```"])
        >>> judgement.score
        -6.0
    """

    def score(self, items: Sequence[tuple[str, str]]) -> list[float | None]:
        """Return one raw logit per item, in order; None for an item that cannot be scored.

        Raises:
            ScorerError: the reward model failed.
        """
        ...


class Unscored:
    """A scorer without a model, for callers that need the extracted code and no score."""

    def score(self, items: Sequence[tuple[str, str]]) -> list[float | None]:
        """Return None for each item."""
        return [None] * len(items)


def load_scorer(model: str, **settings: Any) -> Scorer:
    r"""Return the scorer for a model name. It loads or connects on its first call.

    Args:
        model: a directory or hub id for a model in this process (`TransformersScorer`); `builtin` for the embedded
            model, which warns about problems unlike the quickstart's; `vllm+http://host:8000` for a vLLM server
            (`VllmScorer`), with `#id` at the end to require that model; or `http://host:9000` for a codescaler server
            (`RemoteScorer`). Several servers are separated by commas.
        **settings: fields of `scoring.spec.Classifier`, `EngineServer` or `CodescalerServer`. None: their defaults.

    Raises:
        ConfigError: the URL is of another kind, or a setting has no effect on this kind of model.

    Example:
        >>> problem = "Write solve(xs): for a list xs of integers, return the sum."
        >>> right, wrong = (f"def solve(xs):\n    return {name}(xs)\n" for name in ("sum", "len"))
        >>> scores = load_scorer("builtin").score([(problem, right), (problem, wrong)])
        >>> scores[0] > scores[1]
        True
    """
    from codescaler_plugin.scoring.spec import model_spec

    return model_spec(model, **settings).scorer()
