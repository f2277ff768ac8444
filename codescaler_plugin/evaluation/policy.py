"""A policy's completions with the verdicts of tests: Avg@n, pass@k, and the reward's choice among them."""

import logging
import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from statistics import fmean
from typing import Any, Self

from codescaler_plugin.errors import DataError
from codescaler_plugin.evaluation.cells import Cell, Line, Models, count, known, names_of, percent, side_by_side
from codescaler_plugin.evaluation.result import Colours, Result
from codescaler_plugin.execution.jobs import named_faults
from codescaler_plugin.execution.sandbox import run_tests
from codescaler_plugin.extraction import extract_code
from codescaler_plugin.generation.local import sample_completions
from codescaler_plugin.intervals import Mean, mean_of, pass_at_k
from codescaler_plugin.pipeline import CodeScaler, raise_for_failures
from codescaler_plugin.records import Judgement, Problem, Status
from codescaler_plugin.report.plots import short
from codescaler_plugin.report.sections import Plot, Section

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
class PolicyResult(Result):
    """A policy's results on a benchmark, with intervals from a bootstrap over problems.

    Attributes:
        problems: number of problems.
        n: completions of each.
        average: Avg@n, the mean share of completions that pass.
        pass_at: pass@k by k.
        invalid: share of completions without a valid program.
        faults: completions without a verdict, by `Fault`. They may be right but count as not passed, so `average` and
            `pass_at` are lower bounds if there are any.
        settings: how the completions were sampled and read.

    Example:
        >>> rows = [{"source": "b", "problem_id": "1", "passed": right, "status": "ok"} for right in (True, False)]
        >>> result = summarise(rows, n=2, ks=[1, 2])["b"]
        >>> result.pass_at[2].value, PolicyResult.from_json(result.to_json()) == result
        (1.0, True)
    """

    evaluation = "generation"
    heading = "Policies"

    problems: int
    n: int
    average: Mean
    pass_at: dict[int, Mean]
    invalid: float
    faults: dict[str, int] = field(default_factory=dict)
    settings: dict[str, bool | int | float | str | None] = field(default_factory=dict)

    @property
    def without_verdict(self) -> float:
        """Share of completions without a verdict."""
        return sum(self.faults.values()) / (self.problems * self.n)

    @classmethod
    def compare(cls, title: str, models: Mapping[str, Self], colours: Colours) -> Section:
        """Avg@n and pass@k of one or more policies."""
        findings = [
            f"{model}: {_percents(result.average)} of the completions pass, {result.n} for each problem"
            + (f", a lower bound: {percent(result.without_verdict)} have no verdict." if result.faults else ".")
            for model, result in models.items()
        ]
        text = (
            "Avg@n is the share of all n completions that pass the tests, and pass@k the chance that one of k does. "
            "In brackets the 95% interval of a bootstrap over problems. A completion without a verdict counts as not "
            "passed."
        )
        plots = [Plot("pass@k", partial(_plot_pass_at, models=models, colours=colours))]
        return Section(title, text, findings, [side_by_side(models, _lines(models))], plots)


def _lines(models: Models[PolicyResult]) -> list[Line[PolicyResult]]:
    def pass_at(k: int) -> Cell[PolicyResult]:
        return lambda result: known(_percents, result.pass_at.get(k))

    def fault(name: str) -> Cell[PolicyResult]:
        return lambda result: count(result.faults.get(name, 0))

    def setting(name: str) -> Cell[PolicyResult]:
        return lambda result: known(str, result.settings.get(name))

    results = models.values()
    return [
        ("problems", lambda result: count(result.problems)),
        ("completions of each", lambda result: count(result.n)),
        "Completions that pass",
        ("Avg@n", lambda result: _percents(result.average)),
        *((f"pass@{k}", pass_at(k)) for k in sorted(names_of(result.pass_at for result in results))),
        "Completions that cannot pass",
        ("no valid program", lambda result: percent(result.invalid)),
        ("no verdict", lambda result: percent(result.without_verdict)),
        *((name.replace("_", " "), fault(name)) for name in names_of(result.faults for result in results)),
        "Settings",
        *((name.replace("_", " "), setting(name)) for name in names_of(result.settings for result in results)),
    ]


def _percents(mean: Mean) -> str:
    return f"{percent(mean.value)} ({100 * mean.low:.1f} to {100 * mean.high:.1f})"


def _plot_pass_at(axes: Any, models: Models[PolicyResult], colours: Colours) -> None:
    for model, result in models.items():
        ks = sorted(result.pass_at)
        means = [result.pass_at[k] for k in ks]
        axes.plot(ks, [mean.value for mean in means], "o-", color=colours[model], label=short(model))
        axes.fill_between(
            ks, [mean.low for mean in means], [mean.high for mean in means], color=colours[model], alpha=0.15
        )
    ks = sorted(names_of(result.pass_at for result in models.values()))
    axes.set_xscale("log", base=2)
    axes.set_xticks(ks, [str(k) for k in ks])
    axes.set(xlabel="k, completions drawn", ylabel="problems solved", title="pass@k", ylim=(0, 1))
    axes.legend(loc="lower right")


def summarise(
    verdicts: Iterable[Mapping[str, Any]],
    *,
    n: int,
    ks: Sequence[int],
    settings: Mapping[str, bool | int | float | str | None] | None = None,
) -> dict[str, PolicyResult]:
    """Results by benchmark, from the rows that `verify_rollouts` writes.

    The first n completions of a problem count.
    """
    rows: dict[str, dict[str, list[Mapping[str, Any]]]] = {}
    for row in verdicts:
        rows.setdefault(row["source"], {}).setdefault(row["problem_id"], []).append(row)
    results = {}
    for name, problems in rows.items():
        for problem_id, of_problem in problems.items():
            if len(of_problem) < n:
                raise DataError(f"problem {problem_id!r} has {len(of_problem)} completions: expected {n}")
        first = [row for of_problem in problems.values() for row in of_problem[:n]]
        passed = [[bool(row["passed"]) for row in of_problem[:n]] for of_problem in problems.values()]
        results[name] = PolicyResult(
            problems=len(problems),
            n=n,
            average=mean_of([fmean(of_problem) for of_problem in passed], list(problems)),
            pass_at={k: mean_of([pass_at_k(of_problem, k) for of_problem in passed], list(problems)) for k in ks},
            invalid=fmean(row["status"] != Status.OK for row in first),
            faults=dict(Counter(str(row["fault"]) for row in first if row.get("fault"))),
            settings=dict(settings or {}),
        )
    return results
