"""A policy's completions with the verdicts of tests: Avg@n, pass@k, and the reward's choice among them."""

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
class VerifiedCompletions:
    """n completions per problem with their verdicts, in the same shape."""

    completions: list[list[str]]
    passed: list[list[bool]]
    without_verdict: int = 0  # completions on which the tests gave no verdict; they count as not passed

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
    """A policy's completions with their verdicts, and the reward model's judgements in the same shape."""

    sampled: VerifiedCompletions
    judgements: list[list[Judgement]]

    @property
    def mean_reward(self) -> float:
        """Mean over the completions that have a reward."""
        rewards = [judgement.reward for row in self.judgements for judgement in row]
        return fmean(reward for reward in rewards if reward is not None)

    @property
    def best_of_n(self) -> float:
        """Share of problems whose completion with the highest reward passes; the first wins a tie."""
        best = [_best(row) for row in self.judgements]
        return fmean(passed[index] for passed, index in zip(self.sampled.passed, best, strict=True))


def _best(judgements: list[Judgement]) -> int:
    rewards = [-math.inf if judgement.reward is None else judgement.reward for judgement in judgements]
    return rewards.index(max(rewards))


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
        [text for text in texts for _ in range(n)], [completion for row in completions for completion in row]
    )
    raise_for_failures(judgements)
    rows = [judgements[first : first + n] for first in range(0, len(judgements), n)]
    return Measurement(verify_completions(completions, problems), rows)


def verify_completions(completions: Sequence[Sequence[str]], problems: Sequence[Problem]) -> VerifiedCompletions:
    """Run the extracted code of every completion against its problem's tests; invalid code fails without a run."""
    codes = [[extract_code(completion).code for completion in row] for row in completions]
    verdicts = run_tests(
        [(code, problem) for row, problem in zip(codes, problems, strict=True) for code in row if code]
    )
    without_verdict = sum(verdict.fault is not None for verdict in verdicts)
    if without_verdict:
        message = "the tests gave no verdict on %d completions, which count as not passed: %s"
        logger.warning(message, without_verdict, named_faults(verdicts))
    rest = iter(verdicts)
    return VerifiedCompletions(
        completions=[list(row) for row in completions],
        passed=[[next(rest).passed if code else False for code in row] for row in codes],
        without_verdict=without_verdict,
    )


@dataclass(frozen=True)
class Benchmark:
    """A policy's results on a benchmark, with intervals from a bootstrap over problems.

    `faults` are completions without a verdict. They may be right but count as not passed, so `average` and `pass_at`
    are lower bounds if there are any.
    """

    problems: int
    n: int  # completions of each
    average: Mean  # Avg@n, the mean share of completions that pass
    pass_at: dict[int, Mean]  # by k
    invalid: float  # share of completions without a valid program
    faults: dict[str, int] = field(default_factory=dict)


def summarise(verdicts: Iterable[Mapping[str, Any]], *, n: int, ks: Sequence[int]) -> dict[str, Benchmark]:
    """Benchmarks by name, from the rows that `verify_rollouts` writes; the first n completions of a problem count."""
    rows: dict[str, dict[str, list[Mapping[str, Any]]]] = {}
    for row in verdicts:
        rows.setdefault(row["source"], {}).setdefault(row["problem_id"], []).append(row)
    benchmarks = {}
    for name, problems in rows.items():
        for problem_id, of_problem in problems.items():
            if len(of_problem) < n:
                raise DataError(f"problem {problem_id!r} has {len(of_problem)} completions: expected {n}")
        first = [row for of_problem in problems.values() for row in of_problem[:n]]
        passed = [[bool(row["passed"]) for row in of_problem[:n]] for of_problem in problems.values()]
        benchmarks[name] = Benchmark(
            problems=len(problems),
            n=n,
            average=mean_of([fmean(of_problem) for of_problem in passed], list(problems)),
            pass_at={k: mean_of([pass_at_k(of_problem, k) for of_problem in passed], list(problems)) for k in ks},
            invalid=fmean(row["status"] != Status.OK for row in first),
            faults=dict(Counter(row["fault"] for row in first if row.get("fault"))),
        )
    return benchmarks
