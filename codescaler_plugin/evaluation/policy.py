"""What a policy writes, judged by execution: samples from transformers or a server, Avg@n and pass@k.

Transformers sample small policies on one device; a large one is served, by `vllm serve` or any OpenAI-compatible
server.
"""

import logging
import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean
from typing import Any

from codescaler_plugin.errors import DataError
from codescaler_plugin.execution.jobs import named_faults
from codescaler_plugin.execution.sandbox import run_tests
from codescaler_plugin.extraction import extract_code
from codescaler_plugin.generation.local import sample_completions
from codescaler_plugin.intervals import Mean, mean_of, pass_at_k
from codescaler_plugin.pipeline import CodeScaler, raise_for_failures
from codescaler_plugin.records import Judgement, Problem, Status

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Sampled:
    """n completions per problem with their verdicts, problem by problem: two lists of lists of equal shape.

    `unjudged` counts the completions on which the tests gave no verdict; they are among those that have not passed.
    """

    completions: list[list[str]]
    passed: list[list[bool]]
    unjudged: int = 0

    @property
    def pass_at_1(self) -> float:
        """Mean share of completions that pass all tests (unbiased for k = 1)."""
        return fmean(fmean(row) for row in self.passed)

    @property
    def oracle(self) -> float:
        """Share of problems with at least one passing completion: the ceiling of any selection among the n."""
        return fmean(any(row) for row in self.passed)

    @property
    def invalid_share(self) -> float:
        """Share of completions without exactly one valid program."""
        return fmean(extract_code(text).status is not Status.OK for row in self.completions for text in row)


@dataclass(frozen=True)
class Measurement:
    """A policy's samples with their verdicts, and the reward's judgement of each, in the same shape."""

    sampled: Sampled
    judgements: list[list[Judgement]]

    @property
    def mean_reward(self) -> float:
        """Mean over the samples that have a reward."""
        rewards = [judgement.reward for row in self.judgements for judgement in row]
        return fmean(reward for reward in rewards if reward is not None)

    @property
    def best_of_n(self) -> float:
        """Share of problems whose highest-reward sample passes; the first wins a tie, one without a reward never."""
        best = [_best(row) for row in self.judgements]
        return fmean(passed[index] for passed, index in zip(self.sampled.passed, best, strict=True))


def _best(judgements: list[Judgement]) -> int:
    worth = [-math.inf if judgement.reward is None else judgement.reward for judgement in judgements]
    return worth.index(max(worth))


def measure_policy(
    policy: Any,
    tokenizer: Any,
    scaler: CodeScaler,
    problems: Sequence[Problem],
    *,
    n: int,
    max_new_tokens: int = 96,
    progress: Callable[[int], None] | None = None,
) -> Measurement:
    """Sample n completions per problem at temperature 1, run the tests, and judge; see `sample_completions`."""
    texts = [problem.text for problem in problems]
    completions = sample_completions(policy, tokenizer, texts, n=n, max_new_tokens=max_new_tokens, progress=progress)
    judgements = scaler.judge(
        [text for text in texts for _ in range(n)], [text for row in completions for text in row]
    )
    raise_for_failures(judgements)
    rows = [judgements[first : first + n] for first in range(0, len(judgements), n)]
    return Measurement(verify_completions(completions, problems), rows)


def verify_completions(completions: Sequence[Sequence[str]], problems: Sequence[Problem]) -> Sampled:
    """Run the extracted code of every completion against its problem's tests; invalid code fails unrun."""
    codes = [[extract_code(text).code for text in row] for row in completions]
    verdicts = run_tests(
        [(code, problem) for row, problem in zip(codes, problems, strict=True) for code in row if code]
    )
    unjudged = sum(verdict.fault is not None for verdict in verdicts)
    if unjudged:
        named = named_faults(verdicts)
        logger.warning("the tests gave no verdict on %d completions, which count as not passed: %s", unjudged, named)
    run = iter(verdicts)
    return Sampled(
        completions=[list(row) for row in completions],
        passed=[[next(run).passed if code else False for code in row] for row in codes],
        unjudged=unjudged,
    )


@dataclass(frozen=True)
class Benchmark:
    """What a policy is worth on a benchmark.

    Attributes:
        problems: how many.
        n: completions of each.
        average: Avg@n, the mean share of completions that pass; its interval is of a bootstrap over problems.
        pass_at: pass@k by k.
        invalid: share of completions whose text holds no valid program.
        faults: completions without a verdict, by `Fault`. They are not known to be wrong, yet count as not passed, so
            `average` and `pass_at` are lower bounds where there are any.
    """

    problems: int
    n: int
    average: Mean
    pass_at: dict[int, Mean]
    invalid: float
    faults: dict[str, int] = field(default_factory=dict)


def summarise(verdicts: Iterable[Mapping[str, Any]], *, n: int, ks: Sequence[int]) -> dict[str, Benchmark]:
    """Benchmarks by name, from the rows that `verify_rollouts` writes; the first n completions of a problem count.

    Raises:
        DataError: a problem with fewer than n completions, or a k above n.
    """
    rows: dict[str, dict[str, list[Mapping[str, Any]]]] = {}
    for row in verdicts:
        rows.setdefault(row["source"], {}).setdefault(row["problem_id"], []).append(row)
    found = {}
    for name, problems in rows.items():
        kept = {key: taken[:n] for key, taken in problems.items()}
        short = next((key for key, taken in kept.items() if len(taken) < n), None)
        if short is not None:
            raise DataError(f"problem {short!r} has {len(kept[short])} completions: expected {n}")
        passed = {key: [bool(row["passed"]) for row in taken] for key, taken in kept.items()}
        ids = list(passed)
        found[name] = Benchmark(
            problems=len(ids),
            n=n,
            average=mean_of([fmean(passed[key]) for key in ids], ids),
            pass_at={k: mean_of([pass_at_k(passed[key], k) for key in ids], ids) for k in ks},
            invalid=fmean(row["status"] != Status.OK for taken in kept.values() for row in taken),
            faults=dict(Counter(row["fault"] for taken in kept.values() for row in taken if row.get("fault"))),
        )
    return found
