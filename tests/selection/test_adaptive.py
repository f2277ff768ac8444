"""Adaptive sampling, against brute force and known scores."""

import asyncio
import itertools
import math
import random
from collections.abc import AsyncIterator, Iterator, Sequence
from statistics import fmean
from typing import Any, cast

import pytest

from codescaler_plugin import CodeScaler, CodeScalerConfig, ConfigError, DataError, ScorerError, load_scorer
from codescaler_plugin.selection.adaptive import (
    AdaptiveSelection,
    Stopping,
    expected_gain,
    list_candidates,
    sample_adaptively,
)
from codescaler_plugin.selection.records import Outcome
from codescaler_plugin.testing import FakeScorer
from tests.samples import fenced
from tests.selection.known import PROBLEM, scaler_of


def test_expected_gain_of_exponential_scores_is_what_one_more_adds() -> None:
    """Brute force: how much better the best of n + 1 is than the best of n, for tails that fall as e^-x."""
    rng = random.Random(0)
    n, estimated, added = 16, [], []
    for _ in range(4000):
        scores = [rng.expovariate(2.0) for _ in range(n + 1)]
        estimated.append(expected_gain(scores[:n]) * 2)  # at margin 0 the first is right with probability 1/2
        added.append(math.tanh(max(0.0, scores[n] - max(scores[:n])) / 2))
    assert fmean(estimated) == pytest.approx(fmean(added), rel=0.15)


def test_expected_gain_falls_with_samples_and_with_the_margin_and_counts_what_has_no_score() -> None:
    few, many = [0.0, 1.0, 2.0, 4.0], [0.0, 1.0, 2.0, 4.0] * 4
    assert expected_gain(many) < expected_gain(few)
    assert expected_gain([*few, None, None]) == pytest.approx(expected_gain(few) * 5 / 7)
    assert expected_gain(few, 3.0) == pytest.approx(expected_gain(few) * 2 / (1 + math.exp(3.0)))
    assert expected_gain([1.0, 1.0, 1.0]) == 0
    assert expected_gain([None, 1.0]) is None
    assert expected_gain(few, 1e6) == pytest.approx(0, abs=1e-12)


class Source:
    """An asynchronous generator that counts what was taken and whether it was closed."""

    def __init__(self, completions: Sequence[str]) -> None:
        self.completions, self.taken, self.closed = completions, 0, False

    async def candidates(self) -> AsyncIterator[str]:
        try:
            for completion in self.completions:
                self.taken += 1
                yield completion
        finally:
            self.closed = True


def sample(scores: Sequence[float], **rule: Any) -> tuple[AdaptiveSelection, Source]:
    codes = [f"x = {number}" for number in range(len(scores))]
    source = Source([fenced(code) for code in codes])
    scaler = scaler_of(dict(zip(codes, scores, strict=True)))
    return asyncio.run(sample_adaptively(scaler, PROBLEM, source.candidates(), stopping=Stopping(**rule))), source


def test_sampling_stops_where_one_more_gains_less_than_it_costs() -> None:
    found, source = sample([0.0, 0.1, 0.2, 6.0, *[0.0] * 60], cost=0.01, min_samples=4, batch=2)
    assert (found.samples, found.stopped, source.taken, source.closed) == (4, "low_gain", 4, True)
    assert found.gain < 0.01
    assert found.selection.best.index == 3


def test_sampling_goes_on_where_scores_are_close_and_spread() -> None:
    rng = random.Random(1)
    scores = [rng.gauss(0, 3) for _ in range(64)]
    dear, _ = sample(scores, cost=0.05)
    cheap, _ = sample(scores, cost=0.001)
    free, source = sample(scores, cost=0.0)
    assert dear.samples < cheap.samples < free.samples == 64
    assert (free.stopped, source.closed) == ("max_samples", True)


def test_generator_that_ends_is_exhausted() -> None:
    found, _ = sample([1.0, 2.0, 3.0], cost=0.0, min_samples=4)
    assert (found.samples, found.stopped, found.selection.best.index) == (3, "exhausted", 2)
    nothing, _ = sample([])
    assert (nothing.samples, nothing.gain, nothing.selection.outcome) == (0, None, Outcome.NONE_VALID)


def test_generator_is_closed_when_judging_fails() -> None:
    source = Source([fenced("x = 1")] * 9)
    scaler = CodeScaler(FakeScorer(fails_after=0), config=CodeScalerConfig())
    with pytest.raises(ScorerError):
        asyncio.run(sample_adaptively(scaler, PROBLEM, source.candidates()))
    assert source.closed


def test_plain_generator_is_taken_as_far_as_needed() -> None:
    taken = []

    def completions() -> Iterator[str]:
        for number in itertools.count():
            taken.append(number)
            yield fenced("x = 1" if number % 2 else "y = 2")

    scaler = scaler_of({"x = 1": 9.0, "y = 2": 0.0})
    found = asyncio.run(
        sample_adaptively(
            scaler, PROBLEM, list_candidates(completions()), stopping=Stopping(cost=0.1, min_samples=3, batch=1)
        )
    )
    assert (found.samples, len(taken)) == (3, 3)


def test_candidates_that_are_not_asynchronous_are_an_error_with_the_next_step() -> None:
    with pytest.raises(DataError, match="are a list: expected an asynchronous iterator; list_candidates"):
        asyncio.run(sample_adaptively(scaler_of({}), PROBLEM, cast(Any, [fenced("x = 1")])))


def test_candidate_that_is_no_text_is_named_by_its_index_among_all() -> None:
    completions: list[Any] = [fenced("x = 1")] * 5 + [7]
    rule = Stopping(cost=0.0, min_samples=4, batch=4)
    with pytest.raises(DataError, match="candidate 5"):
        asyncio.run(sample_adaptively(scaler_of({"x = 1": 1.0}), PROBLEM, list_candidates(completions), stopping=rule))


def test_pipeline_of_transformers_is_a_generator_of_candidates() -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, pipeline

    from codescaler_plugin.builtin import POLICY

    torch.manual_seed(0)
    words = AutoTokenizer.from_pretrained(POLICY)
    model = AutoModelForCausalLM.from_pretrained(POLICY, dtype=torch.float32)
    pipe = pipeline("text-generation", model=model, tokenizer=words, device="cpu")
    problem = "Write solve(xs). From a list xs of integers, return the sum."
    turn = [{"role": "user", "content": problem}]
    completions = (
        pipe(turn, do_sample=True, max_new_tokens=64)[0]["generated_text"][-1]["content"] for _ in itertools.count()
    )
    found = asyncio.run(
        sample_adaptively(
            CodeScaler(load_scorer("builtin")),
            problem,
            list_candidates(completions),
            stopping=Stopping(min_samples=2, max_samples=3),
        )
    )
    assert 2 <= found.samples <= 3
    assert all("solve" in one.completion for one in found.selection.ranked)


@pytest.mark.parametrize(
    "rule", [{"cost": -1.0}, {"cost": math.nan}, {"min_samples": 0}, {"min_samples": 9, "max_samples": 8}]
)
def test_stopping_that_makes_no_sense_is_an_error(rule: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="expected"):
        Stopping(**rule)
