"""Adaptive sampling: candidates are taken from a generator until one more is not expected to pay."""

import asyncio
import math
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Sequence
from dataclasses import dataclass

from codescaler_plugin.errors import ConfigError, DataError
from codescaler_plugin.pipeline import CodeScaler, raise_for_failures
from codescaler_plugin.records import Judgement
from codescaler_plugin.selection.ranking import chosen, rank
from codescaler_plugin.selection.records import Selection
from codescaler_plugin.text.messages import Text, completion_text

_TOP = 4  # of n scores, the n/4 best tell how the best are spread


@dataclass(frozen=True)
class Stopping:
    """The rule that ends adaptive sampling.

    Attributes:
        cost: cost of one sample, as a share of the value of a right completion over a wrong one. 0 never stops early.
        min_samples: samples taken at least; fewer do not show the spread of the scores.
        max_samples: samples taken at most.
        batch: samples judged at a time.

    Raises:
        ConfigError: a value is out of range.

    Example:
        >>> Stopping(cost=0.02, max_samples=16).min_samples
        4
    """

    cost: float = 0.01
    min_samples: int = 4
    max_samples: int = 64
    batch: int = 4

    def __post_init__(self) -> None:
        if not self.cost >= 0:
            raise ConfigError(f"cost is {self.cost!r}: expected a share of a right completion's value, at least 0")
        if not 1 <= self.min_samples <= self.max_samples or self.batch < 1:
            raise ConfigError(f"{self}: expected 1 <= min_samples <= max_samples, and a batch of at least 1")


@dataclass(frozen=True)
class AdaptiveSelection:
    """The selection among the candidates taken, whose indices are in the order of arrival."""

    selection: Selection
    gain: (
        float | None
    )  # expected of one more sample, in the unit of `Stopping.cost`; None: fewer than two have a score
    stopped: str  # `low_gain`, `max_samples`, or `exhausted`: the generator had no more

    @property
    def samples(self) -> int:
        """Number of candidates taken."""
        return len(self.selection.ranked)


def expected_gain(scores: Sequence[float | None], margin: float = 0.0) -> float | None:
    """The expected gain of one more sample, in [0, 1); None if fewer than two samples have a score.

    Samples of one policy are exchangeable, so the next of n + 1 is the best of them with probability 1 / (n + 1). A
    sample without a score is never the best, but it counts. A new best is better by d logits, and it is the better
    program with probability s(d) = 1 / (1 + e^-d) (Bradley-Terry), so choosing it gains s(d) - s(-d) = tanh(d / 2).
    The estimate of d is the mean excess of the best quarter of the scores over the next score; for tails that fall as
    e^-x, that is what a new best adds. A better program does not help where the first one is right already, so the
    gain is multiplied by s(-margin).

    The estimate relies on the scores. It does not notice a model that cannot tell right from wrong, with which no
    sample is worth its cost. `scores` are raw logits, those of duplicates included.
    """
    best = sorted((score for score in scores if score is not None), reverse=True)
    if len(best) < 2:
        return None
    top = max(1, len(best) // _TOP)
    excess = sum(best[:top]) / top - best[top]
    return math.tanh(excess / 2) / (len(scores) + 1) / (1 + math.exp(min(margin, 700.0)))


async def sample_adaptively(
    scaler: CodeScaler,
    problem: Text,
    candidates: AsyncIterable[str],
    *,
    stopping: Stopping | None = None,
    extraction: str = "last",
    self_consistency: float = 0.0,
) -> AdaptiveSelection:
    r"""Take and judge candidates until the expected gain of one more is below its cost.

    The reward model runs in a thread, so that other problems can be sampled in the meantime. The generator is closed
    at the end if it has `aclose`.

    Args:
        scaler: pipeline with the reward model.
        problem: a string or messages, see `CodeScaler.judge`.
        candidates: any asynchronous iterable of completions: `server_candidates`, `list_candidates`, your own.
        stopping: rule that ends sampling. The default is `Stopping()`.
        extraction: block selection, see `extract_code`.
        self_consistency: weight of duplicates, see `best_of_n`.

    Raises:
        DataError: the candidates are not asynchronous.
        ConfigError, DataError, ScorerError: see `best_of_n`. Errors of the generator pass through.

    Example:
        >>> from codescaler_plugin.testing import FakeScorer
        >>> scaler = CodeScaler(FakeScorer(lambda problem, code: 5.0 * ("x = 2" in code)))
        >>> candidates = list_candidates(f"```python\nx = {number}\n```" for number in range(64))
        >>> result = asyncio.run(sample_adaptively(scaler, "Set x to 2.", candidates))
        >>> result.selection.best.index, result.samples, result.stopped
        (2, 4, 'low_gain')
    """
    if not isinstance(candidates, AsyncIterable):
        raise DataError(
            f"candidates are a {type(candidates).__name__}: expected an asynchronous iterator; list_candidates makes "
            "one of a list or a generator"
        )
    stopping = stopping or Stopping()
    source = aiter(candidates)
    judge = scaler.with_config(extraction=extraction)
    completions: list[str] = []
    judgements: list[Judgement] = []
    stopped, gain, selection = "max_samples", None, chosen(())
    try:
        while (count := len(completions)) < stopping.max_samples:
            size = max(min(stopping.batch, stopping.max_samples - count), stopping.min_samples - count)
            batch = await _take(source, size, count)
            judgements += await asyncio.to_thread(judge.judge, [problem] * len(batch), batch)
            raise_for_failures(judgements)
            completions += batch
            selection = chosen(
                rank(completions, judgements, language=judge.config.language, self_consistency=self_consistency)
            )
            gain = expected_gain([judgement.score for judgement in judgements], selection.margin or 0.0)
            if len(batch) < size:
                stopped = "exhausted"
                break
            if gain is not None and gain < stopping.cost and len(completions) >= stopping.min_samples:
                stopped = "low_gain"
                break
    finally:
        close = getattr(source, "aclose", None)
        if close is not None:
            await close()
    return AdaptiveSelection(selection, gain, stopped)


async def _take(source: AsyncIterator[str], size: int, count: int) -> list[str]:
    """The next `size` completions, or fewer if the source ends; `count` were taken before."""
    batch: list[str] = []
    async for completion in source:
        batch.append(completion_text(completion, f"candidate {count + len(batch)}"))
        if len(batch) == size:
            break
    return batch


async def list_candidates(candidates: Iterable[str]) -> AsyncIterator[str]:
    """An asynchronous iterator over a list or a plain generator, whose next item is awaited in a thread.

    With it, a pipeline of transformers samples only as many completions as needed:
    `list_candidates(pipe(prompt, do_sample=True, return_full_text=False)[0]["generated_text"] for _ in range(64))`.
    """
    end = object()
    iterator = iter(candidates)
    while (completion := await asyncio.to_thread(next, iterator, end)) is not end:
        yield completion  # type: ignore[misc]
