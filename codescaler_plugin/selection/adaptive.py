"""Adaptive sampling: take candidates from a generator until one more is not worth its cost."""

import asyncio
import math
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Sequence
from dataclasses import dataclass

from codescaler_plugin.errors import ConfigError, DataError
from codescaler_plugin.pipeline import CodeScaler, raise_for_failures
from codescaler_plugin.records import Judgement, Selection
from codescaler_plugin.selection.ranking import chosen, rank
from codescaler_plugin.text.messages import Text, completion_text

_TOP = 4  # of n scores, the n/4 best tell how the best are spread


@dataclass(frozen=True)
class Stopping:
    """When sampling ends.

    Attributes:
        cost: of one sample, as a share of what a right answer is worth over a wrong one. 0: never stop early.
        min_samples: at least; fewer tell nothing of the spread of scores.
        max_samples: at most.
        batch: samples judged at a time.
    """

    cost: float = 0.01
    min_samples: int = 4
    max_samples: int = 64
    batch: int = 4

    def __post_init__(self) -> None:
        if not self.cost >= 0:
            raise ConfigError(f"cost is {self.cost!r}: expected a share of a right answer's worth, at least 0")
        if not 1 <= self.min_samples <= self.max_samples or self.batch < 1:
            raise ConfigError(f"{self}: expected 1 <= min_samples <= max_samples, and a batch of at least 1")


@dataclass(frozen=True)
class Sampled:
    """What adaptive sampling took.

    Attributes:
        selection: of the candidates taken, in their order.
        gain: expected of one more, in the unit of `Stopping.cost`; None if fewer than two have a score.
        stopped: `not worth it`, `max_samples`, or `exhausted`: the generator had no more.
    """

    selection: Selection
    gain: float | None
    stopped: str

    @property
    def samples(self) -> int:
        """Candidates taken."""
        return len(self.selection.ranked)


def expected_gain(scores: Sequence[float | None], margin: float = 0.0) -> float | None:
    """What one more sample can be expected to add, in [0, 1); None if fewer than two samples have a score.

    Samples of one policy are exchangeable, so the next of n + 1 is the best of them with chance 1 / (n + 1); a sample
    without a score never is, and counts. Then it is better by d logits, and is the better program with probability
    s(d) = 1 / (1 + e^-d) (Bradley-Terry), so that taking it gains s(d) - s(-d) = tanh(d / 2). How far the best go is
    read from the scores so far: d is the mean excess of the best quarter over the next score, which for tails that
    fall as e^-x is what a new best adds. All of that is to no avail where the first program is right already, so it
    counts with probability s(-margin).

    It trusts the scores: with a model that cannot tell right from wrong, no number of samples is worth its cost, and
    this does not know.

    Args:
        scores: raw logits of the samples so far, duplicates included; None where there is none.
        margin: worth of the first program minus that of the next other one, at least 0.
    """
    found = sorted((score for score in scores if score is not None), reverse=True)
    if len(found) < 2:
        return None
    top = max(1, len(found) // _TOP)
    excess = sum(found[:top]) / top - found[top]
    return math.tanh(excess / 2) / (len(scores) + 1) / (1 + math.exp(min(margin, 700.0)))


async def sample_adaptively(
    scaler: CodeScaler,
    problem: Text,
    candidates: AsyncIterable[str],
    *,
    stopping: Stopping | None = None,
    extraction: str = "last",
    self_consistency: float = 0.0,
) -> Sampled:
    """Take and judge candidates until the expected gain of one more is below its cost.

    Judging runs in a thread, so other problems can be sampled meanwhile. The generator is closed at the end if it can
    be closed (has `aclose`).

    Args:
        scaler: see `best_of_n`, also for the next and the last two.
        problem: a string or messages.
        candidates: any asynchronous iterable of completions: `server_candidates`, `list_candidates`, your own.
        stopping: see `Stopping`; None: its defaults.
        extraction: which block is the code.
        self_consistency: weight of duplicates.

    Raises:
        DataError: candidates that are not asynchronous.
        ConfigError, DataError, ScorerError: see `best_of_n`. What the generator raises comes through.
    """
    if not isinstance(candidates, AsyncIterable):
        raise DataError(
            f"candidates are a {type(candidates).__name__}: expected an asynchronous iterator; list_candidates makes "
            "one of a list or a generator"
        )
    rule = stopping or Stopping()
    source = aiter(candidates)
    judge = scaler.with_config(extraction=extraction)
    texts: list[str] = []
    judgements: list[Judgement] = []
    stopped, gain, selection = "max_samples", None, chosen(())
    try:
        while len(texts) < rule.max_samples:
            wanted = max(min(rule.batch, rule.max_samples - len(texts)), rule.min_samples - len(texts))
            batch = await _take(source, wanted, len(texts))
            judgements += await asyncio.to_thread(judge.judge, [problem] * len(batch), batch)
            raise_for_failures(judgements)
            texts += batch
            selection = chosen(
                rank(texts, judgements, language=judge.config.language, self_consistency=self_consistency)
            )
            gain = expected_gain([one.score for one in judgements], selection.margin or 0.0)
            if len(batch) < wanted:
                stopped = "exhausted"
                break
            if gain is not None and gain < rule.cost and len(texts) >= rule.min_samples:
                stopped = "not worth it"
                break
    finally:
        close = getattr(source, "aclose", None)
        if close is not None:
            await close()
    return Sampled(selection, gain, stopped)


async def _take(candidates: AsyncIterator[str], wanted: int, before: int) -> list[str]:
    batch: list[str] = []
    async for one in candidates:
        batch.append(completion_text(one, f"candidate {before + len(batch)}"))
        if len(batch) == wanted:
            break
    return batch


async def list_candidates(candidates: Iterable[str]) -> AsyncIterator[str]:
    """A list or a plain generator as an asynchronous one; its next item is waited for in a thread.

    So a pipeline of transformers is sampled as far as needed and no further:
    `list_candidates(pipe(prompt, do_sample=True, return_full_text=False)[0]["generated_text"] for _ in range(64))`.
    """
    end = object()
    iterator = iter(candidates)
    while (one := await asyncio.to_thread(next, iterator, end)) is not end:
        yield one  # type: ignore[misc]
