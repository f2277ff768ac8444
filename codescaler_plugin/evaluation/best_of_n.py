"""Best-of-N with a reward model against random choice, length, and the oracle, on candidates with known verdicts."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from itertools import groupby, islice
from math import comb, inf
from pathlib import Path
from statistics import fmean, median_low
from typing import Any, Literal, Self, Unpack, get_args

from codescaler_plugin.data.matching import problem_key
from codescaler_plugin.data.rollouts import fault_of, problem_id_of, rows_of
from codescaler_plugin.errors import ConfigError, DataError
from codescaler_plugin.evaluation.cells import (
    Line,
    Models,
    count,
    decimals,
    doubt,
    gain,
    known,
    names_of,
    share,
    side_by_side,
)
from codescaler_plugin.evaluation.result import Colours, Result
from codescaler_plugin.evaluation.score_file import Row, ScoreOptions, Scores, score_rows
from codescaler_plugin.extraction import extract_code
from codescaler_plugin.intervals import Mean, area, mean_of, pass_at_k
from codescaler_plugin.report.plots import SHADE, short
from codescaler_plugin.report.sections import Plot, Section, Table
from codescaler_plugin.scoring import Scorer
from codescaler_plugin.text.messages import completion_text, problem_text

MAX_N = 64
SHOWN = (1, 2, 4, 8, 16, 32, 64)
ControlChoice = Literal["random", "shortest", "longest"]  # they need no reward model
Choice = Literal["model", ControlChoice, "oracle"]
CONTROLS: tuple[ControlChoice, ...] = get_args(ControlChoice)
CHOICES: tuple[Choice, ...] = get_args(Choice)

Curves = dict[Choice, list[list[float]]]  # for each choice, a list per problem: the share of passes for N = 1, 2, ...


@dataclass(frozen=True)
class Solved:
    """Shares of problems solved by each choice among N candidates, and the model's gain over each control."""

    choices: dict[Choice, Mean]
    gains: dict[ControlChoice, Mean]


@dataclass(frozen=True)
class BestOfNResult(Result):
    """Share of problems solved by the best of N candidates, for each choice.

    Attributes:
        problems: problems with at least `max_n` candidates.
        left_out: problems with fewer.
        candidates: candidates of the problems.
        invalid: candidates without valid code.
        unscored: candidates with valid code and without a score.
        without_verdict: candidates left out because their tests gave no verdict.
        max_n: largest N.
        curves: share of problems solved for N = 1 to `max_n`, by choice. `random` is the share of passing candidates;
            `oracle` picks a passing one if there is any.
        table: the same with 95% intervals, for some N.
        pair_accuracy: share of pairs of a right and a wrong candidate in order, each problem once. None without pairs.

    Example:
        >>> from codescaler_plugin.testing import FakeScorer
        >>> groups = [Candidates("1", "Set x to 2.", ("x = 1", "x = 2"), (False, True))]
        >>> result = evaluate_candidates(groups, FakeScorer({"x = 1": 0.5, "x = 2": 2.0}))
        >>> result.strongest, BestOfNResult.from_json(result.to_json()) == result
        ('random', True)
    """

    evaluation = "candidates"
    heading = "Best of N"

    problems: int
    left_out: int
    candidates: int
    invalid: int
    unscored: int
    without_verdict: int
    max_n: int
    curves: dict[Choice, tuple[float, ...]]
    table: dict[int, Solved]
    pair_accuracy: Mean | None

    @property
    def strongest(self) -> ControlChoice:
        """The control that solves most at the largest N."""
        return max(CONTROLS, key=lambda control: self.curves[control][-1])

    def finding(self, model: str) -> str:
        """A sentence that compares the model with the strongest control."""
        solved, strongest = self.table[self.max_n], self.strongest
        above, room = solved.gains[strongest], solved.choices["oracle"].value - solved.choices[strongest].value
        control = "a random choice" if strongest == "random" else f"the {strongest} program, which is the best control"
        of_room = f", {above.value / room:.0%} of what a perfect choice would gain" if room > 0 < above.value else ""
        return (
            f"{model}: best of {self.max_n} solves {solved.choices['model'].value:.3f}, {gain(above)} above {control}"
            f"{of_room}{doubt(above)}"
        )

    @classmethod
    def compare(cls, title: str, models: Mapping[str, Self], colours: Colours) -> Section:
        """Best-of-N beside its controls and the oracle."""
        first = next(iter(models.values()))
        lines: list[Line[Self]] = [
            ("problems", lambda result: count(result.problems)),
            ("left out, too few candidates", lambda result: count(result.left_out)),
            ("candidates", lambda result: count(result.candidates)),
            ("without valid code", lambda result: count(result.invalid)),
            ("without a score", lambda result: count(result.unscored)),
            ("left out, no verdict of the tests", lambda result: count(result.without_verdict)),
            ("pairs of a problem in order", lambda result: known(share, result.pair_accuracy)),
        ]
        text = (
            "The share of problems whose chosen candidate passes, among N drawn without replacement: the unbiased "
            "mean over all draws. The oracle picks a passing candidate if there is one."
        )
        others: tuple[Choice, ...] = (*CONTROLS, "oracle")

        def value(n: int, choice: Choice) -> str:
            return known(lambda solved: decimals(solved.choices[choice].value), first.table.get(n))

        rows = [
            [
                f"N = {n}",
                *(
                    known(lambda solved: share(solved.choices["model"]), result.table.get(n))
                    for result in models.values()
                ),
                *(value(n, choice) for choice in others),
            ]
            for n in sorted(names_of(result.table for result in models.values()))
        ]
        solved = Table(["", *models, *others], rows, "Problems solved")
        plots = [Plot("Problems solved by N", partial(_plot_curves, models=models, colours=colours))]
        findings = [result.finding(model) for model, result in models.items()]
        return Section(title, text, findings, [solved, side_by_side(models, lines)], plots)


@dataclass(frozen=True)
class Candidates:
    """The candidates of a problem."""

    problem_id: str
    problem: str
    codes: tuple[str, ...]  # empty for a candidate without valid code
    passed: tuple[bool, ...]
    without_verdict: int = 0  # candidates left out because their tests gave no verdict


def read_candidates(path: str | Path, *, extraction: str = "last") -> list[Candidates]:
    """Read candidates with verdicts, as `codescaler verify` writes them, and group them by problem (`problem_key`).

    The columns are `problem`, `passed`, and `code` or `completion`; `problem_id` and `fault` are optional. A row with
    a `fault` has no verdict: it is left out and counted. `extraction` is for rows without `code`.
    """
    names: dict[str, tuple[str, str]] = {}
    groups: dict[str, list[tuple[str, bool]]] = {}
    without_verdict: Counter[str] = Counter()
    for _, where, row in rows_of(path):
        has_code = "code" in row or "completion" in row
        if not isinstance(row.get("passed"), bool) or not row.get("problem") or not has_code:
            raise DataError(
                f"{where}: expected the columns problem, passed (true or false), and code or completion, as "
                f"`codescaler verify` writes them: it has {', '.join(map(repr, row))}"
            )
        try:
            problem = problem_text(row["problem"])
            code = row.get("code")
            if not isinstance(code, str):
                code = extract_code(completion_text(row.get("completion")), extraction=extraction).code
            fault = fault_of(row)
        except DataError as error:
            raise DataError(f"{where}: {error}") from error
        key = problem_key(problem_id_of(row), problem)
        names.setdefault(key, (problem_id_of(row), problem))
        group = groups.setdefault(key, [])
        if fault is not None:
            without_verdict[key] += 1
        else:
            group.append((code, row["passed"]))
    if not any(groups.values()):
        count = without_verdict.total()
        raise DataError(
            f"{path} holds no candidates" + (f" with a verdict: {count:,} rows have a fault instead" if count else "")
        )
    candidates = []
    for key, rows in groups.items():
        codes, passed = tuple(code for code, _ in rows), tuple(right for _, right in rows)
        candidates.append(Candidates(*names[key], codes, passed, without_verdict[key]))
    return candidates


def best_of(scores: Sequence[float], passed: Sequence[bool], count: int) -> float:
    """Expected share of passes of the best by score among `count` of the candidates, drawn without replacement.

    This is the unbiased estimator of best-of-N from M >= N samples, the mean over all N-subsets: the candidate of rank
    i (from 1) is the best of C(M - i, N - 1) of the C(M, N) subsets. Ties are broken by chance.
    """
    if not 1 <= count <= len(scores):
        raise DataError(f"the best of {count} among {len(scores)} candidates: expected 1 to {len(scores)}")
    order = sorted(range(len(scores)), key=lambda index: -scores[index])
    weights = iter(_weights(len(scores), count))
    total = 0.0
    for _, group in groupby(order, key=lambda index: scores[index]):
        tied = list(group)
        total += sum(passed[index] for index in tied) / len(tied) * sum(islice(weights, len(tied)))
    return total


@cache
def _weights(candidates: int, count: int) -> tuple[float, ...]:
    return tuple(comb(candidates - rank, count - 1) / comb(candidates, count) for rank in range(1, candidates + 1))


def score_candidates(groups: Sequence[Candidates], scorer: Scorer, **options: Unpack[ScoreOptions]) -> list[Scores]:
    """The score of every candidate of every problem; None without valid code or without a score.

    For the options and errors see `score_rows`; a line of the output is a problem.
    """
    valid = [[index for index, code in enumerate(group.codes) if code] for group in groups]
    rows = []
    for group, indices in zip(groups, valid, strict=True):
        if indices:
            passed = [group.passed[index] for index in indices]
            facts = {"problem_id": group.problem_id, "candidates": indices, "passed": passed}
            rows.append(Row(facts, tuple((group.problem, group.codes[index]) for index in indices)))
    of_rows = iter(score_rows(rows, scorer, **options))
    results: list[Scores] = []
    for group, indices in zip(groups, valid, strict=True):
        scores: Scores = [None] * len(group.codes)
        for index, score in zip(indices, next(of_rows) if indices else [], strict=True):
            scores[index] = score
        results.append(scores)
    return results


def leading_margins(
    groups: Sequence[Candidates], scores: Sequence[Scores]
) -> tuple[list[float], list[float], list[str]]:
    """The examples of a calibration of choices: margins of the first two programs, 1 for right or 0, and problems.

    Problems with fewer than two different scored programs are left out.
    """
    margins, right, problems = [], [], []
    for group, of_group in zip(groups, scores, strict=True):
        programs: dict[str, tuple[float, bool]] = {}
        for code, score, passed in zip(group.codes, of_group, group.passed, strict=True):
            if score is not None:
                programs.setdefault(code, (score, passed))
        if len(programs) > 1:
            (first, passed), (second, _) = sorted(programs.values(), key=lambda program: -program[0])[:2]
            margins.append(first - second)
            right.append(float(passed))
            problems.append(problem_key(group.problem_id, group.problem))
    return margins, right, problems


def evaluate_candidates(
    groups: Sequence[Candidates],
    scorer: Scorer,
    *,
    max_n: int | None = None,
    seed: int = 0,
    **options: Unpack[ScoreOptions],
) -> BestOfNResult:
    """Share of problems solved by the best of N = 1 to `max_n` candidates, for each choice; see `BestOfNResult`.

    A candidate without valid code or without a score is chosen only if there is no other.

    Args:
        groups: candidates of `read_candidates`.
        scorer: scorer that returns raw logits.
        max_n: largest N. The default is 64, or the median number of candidates if that is smaller. Problems with fewer
            candidates are left out and counted, because a curve over changing problems would mislead.
        seed: seed of the bootstrap.
        **options: see `score_rows`; a line of the output and a step of progress are a problem.

    Raises:
        ConfigError: no problem has `max_n` candidates.
        DataError: there are no candidates.
        ConfigError, ScorerError: see `score_rows`.

    Example:
        >>> from codescaler_plugin.testing import FakeScorer
        >>> groups = [Candidates("1", "Set x to 2.", ("x = 1", "x = 2"), (False, True))]
        >>> result = evaluate_candidates(groups, FakeScorer({"x = 1": 0.5, "x = 2": 2.0}))
        >>> result.curves["model"], result.curves["random"]
        ((0.5, 1.0), (0.5, 0.5))
    """
    sizes = [len(group.codes) for group in groups if group.codes]
    if not sizes:
        raise DataError("no candidates: there is nothing to evaluate")
    max_n = min(MAX_N, median_low(sizes)) if max_n is None else max_n
    if not 1 <= max_n <= max(sizes):
        raise ConfigError(f"no problem has {max_n} candidates: the largest number is {max(sizes)}")
    scored = [
        (group, scores)
        for group, scores in zip(groups, score_candidates(groups, scorer, **options), strict=True)
        if len(group.codes) >= max_n
    ]
    curves = _curves(scored, max_n)
    missing = [
        code for group, scores in scored for code, score in zip(group.codes, scores, strict=True) if score is None
    ]
    return BestOfNResult(
        problems=len(scored),
        left_out=len(groups) - len(scored),
        candidates=sum(len(group.codes) for group, _ in scored),
        invalid=missing.count(""),
        unscored=len(missing) - missing.count(""),
        without_verdict=sum(group.without_verdict for group in groups),
        max_n=max_n,
        curves={choice: tuple(fmean(column) for column in zip(*rows, strict=True)) for choice, rows in curves.items()},
        table={n: _solved(curves, n, seed) for n in sorted({n for n in SHOWN if n <= max_n} | {max_n})},
        pair_accuracy=_pair_accuracy(scored, seed),
    )


def _curves(scored: Sequence[tuple[Candidates, Scores]], max_n: int) -> Curves:
    curves: Curves = {choice: [] for choice in CHOICES}
    counts = range(1, max_n + 1)
    for group, scores in scored:
        lengths = [len(code) for code in group.codes]
        keys: dict[Choice, list[float]] = {
            "model": [-inf if score is None else score for score in scores],
            "random": [0.0] * len(lengths),
            "shortest": [-length if length else -inf for length in lengths],
            "longest": [length if length else -inf for length in lengths],
        }
        for choice, key in keys.items():
            curves[choice].append([best_of(key, group.passed, n) for n in counts])
        curves["oracle"].append([pass_at_k(group.passed, n) for n in counts])
    return curves


def _solved(curves: Curves, n: int, seed: int) -> Solved:
    """Means with intervals of all choices at one N, and of the model's gain over each control."""
    solved = {choice: [curve[n - 1] for curve in rows] for choice, rows in curves.items()}
    problems = range(len(solved["model"]))
    gains = {
        control: [own - other for own, other in zip(solved["model"], solved[control], strict=True)]
        for control in CONTROLS
    }
    return Solved(
        {choice: mean_of(values, problems, seed=seed) for choice, values in solved.items()},
        {control: mean_of(values, problems, seed=seed, bounds=(-1, 1)) for control, values in gains.items()},
    )


def _pair_accuracy(scored: Sequence[tuple[Candidates, Scores]], seed: int) -> Mean | None:
    shares = []
    for group, scores in scored:
        sides: dict[bool, list[float]] = {True: [], False: []}
        for score, passed in zip(scores, group.passed, strict=True):
            if score is not None:
                sides[passed].append(score)
        if (in_order := area(sides[True], sides[False])) is not None:
            shares.append(in_order)
    return mean_of(shares, range(len(shares)), seed=seed) if shares else None


def _plot_curves(axes: Any, models: Models[BestOfNResult], colours: Colours) -> None:
    first = next(iter(models.values()))
    others: tuple[Choice, ...] = (*CONTROLS, "oracle")
    for choice, dash in zip(others, (":", "-.", "--", "-"), strict=True):
        curve = first.curves[choice]
        axes.plot(range(1, len(curve) + 1), curve, dash, color=SHADE, label=choice, linewidth=1.8)
    for model, result in models.items():
        curve = result.curves["model"]
        axes.plot(range(1, len(curve) + 1), curve, color=colours[model], label=short(model), linewidth=2.4)
        means = [solved.choices["model"] for solved in result.table.values()]
        below = [max(0.0, mean.value - mean.low) for mean in means]
        above = [max(0.0, mean.high - mean.value) for mean in means]
        values = [mean.value for mean in means]
        axes.errorbar(
            list(result.table), values, [below, above], fmt="none", color=colours[model], alpha=0.5, capsize=3
        )
    counts = sorted(names_of(result.table for result in models.values()))
    axes.set_xscale("log", base=2)
    axes.set_xticks(counts, [str(n) for n in counts])
    axes.set(xlabel="N, candidates to choose from", ylabel="problems solved", title="Best of N", ylim=(0, 1))
    axes.legend(ncols=2)
