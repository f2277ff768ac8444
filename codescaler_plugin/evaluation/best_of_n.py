"""Best-of-N with a reward model against random choice, length, and the oracle, on candidates with known verdicts."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cache
from itertools import groupby, islice
from math import comb, inf
from pathlib import Path
from statistics import fmean, median_low
from typing import Any, Unpack

from codescaler_plugin.data.columns import Columns, NoColumnError, host_of, shown_columns
from codescaler_plugin.data.matching import problem_key
from codescaler_plugin.data.rollouts import fault_of, problem_id_of, rows_of
from codescaler_plugin.errors import ConfigError, DataError
from codescaler_plugin.evaluation.score_file import Row, ScoreOptions, Scores, score_rows
from codescaler_plugin.extraction import extract_code
from codescaler_plugin.intervals import area, mean_of, pass_at_k
from codescaler_plugin.scoring import Scorer
from codescaler_plugin.text.messages import completion_text, problem_text

MAX_N = 64
SHOWN = (1, 2, 4, 8, 16, 32, 64)
CONTROLS = ("random", "shortest", "longest")  # they need no reward model
CHOICES = ("model", *CONTROLS, "oracle")

Curves = dict[str, list[list[float]]]  # for each choice, a list per problem: the share of passes for N = 1, 2, ...


@dataclass(frozen=True)
class Candidates:
    """The candidates of a problem."""

    problem_id: str
    problem: str
    codes: tuple[str, ...]  # empty for a candidate without valid code
    passed: tuple[bool, ...]
    without_verdict: int = 0  # candidates left out because their tests gave no verdict


def read_candidates(path: str | Path, *, extraction: str = "last", columns: Columns | None = None) -> list[Candidates]:
    """Read candidates with verdicts, as `codescaler verify` writes them, and group them by problem (`problem_key`).

    The columns are `problem`, `passed`, and `code` or `completion`, or lists `completions` and `passed`, by any name
    in `data.columns.NAMES` or by `columns`; `problem_id` and `fault` are optional. A row with a `fault` has no
    verdict: it is left out and counted. `extraction` is for rows without `code`.
    """
    names: dict[str, tuple[str, str]] = {}
    groups: dict[str, list[tuple[str, bool]]] = {}
    without_verdict: Counter[str] = Counter()
    for _, where, row in rows_of(path, columns=columns):
        try:
            host = host_of(row, columns=columns)
            problem = problem_text(host.problem_of(row))
            verdicts: list[Any] = row["passed"] if isinstance(row.get("passed"), list) else [row.get("passed")]
            codes: list[Any]
            if "passed" not in row or isinstance(row.get("code"), str):
                codes = [row.get("code")]
            else:
                texts = [completion_text(completion) for completion in host.completions_of(row)]
                codes = [extract_code(text, extraction=extraction).code for text in texts]
            if list(map(type, verdicts)) != [bool] * len(codes):
                raise NoColumnError(
                    f"expected `passed`, true or false for each program, as `codescaler verify` writes it: it has "
                    f"{shown_columns(row)}"
                )
            fault = fault_of(row)
        except DataError as error:
            raise DataError(f"{where}: {error}") from error
        key = problem_key(problem_id_of(row), problem)
        names.setdefault(key, (problem_id_of(row), problem))
        group = groups.setdefault(key, [])
        if fault is not None:
            without_verdict[key] += len(codes)
        else:
            group += zip(codes, verdicts, strict=True)
    if not any(groups.values()):
        count = without_verdict.total()
        raise DataError(
            f"{path} holds no candidates" + (f" with a verdict: {count:,} rows have a fault instead" if count else "")
        )
    candidates = []
    for key, rows in groups.items():
        programs, passed = tuple(code for code, _ in rows), tuple(right for _, right in rows)
        candidates.append(Candidates(*names[key], programs, passed, without_verdict[key]))
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
        share = sum(passed[index] for index in tied) / len(tied)
        total += share * sum(islice(weights, len(tied)))
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
) -> dict[str, Any]:
    """Share of problems solved by the best of N = 1 to `max_n` candidates, for each choice, as JSON's types.

    `random` is the share of passing candidates, and `oracle` picks a passing one if there is any. `strongest` names
    the one of `CONTROLS` that solves most at the largest N. A candidate without valid code or without a score is
    chosen only if there is no other. `pair_accuracy` is the macro accuracy over pairs of a right and a wrong candidate
    of one problem.

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
        >>> result["curves"]["model"], result["curves"]["random"]
        ([0.5, 1.0], [0.5, 0.5])
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
    means = {choice: [fmean(column) for column in zip(*rows, strict=True)] for choice, rows in curves.items()}
    return {
        "problems": len(scored),
        "left_out": len(groups) - len(scored),
        "candidates": sum(len(group.codes) for group, _ in scored),
        "invalid": missing.count(""),
        "unscored": len(missing) - missing.count(""),
        "without_verdict": sum(group.without_verdict for group in groups),
        "max_n": max_n,
        "curves": means,
        "table": {str(n): _line(curves, n, seed) for n in sorted({n for n in SHOWN if n <= max_n} | {max_n})},
        "strongest": max(CONTROLS, key=lambda control: means[control][-1]),
        "pair_accuracy": _pair_accuracy(scored, seed),
    }


def _curves(scored: Sequence[tuple[Candidates, Scores]], max_n: int) -> Curves:
    curves: Curves = {choice: [] for choice in CHOICES}
    counts = range(1, max_n + 1)
    for group, scores in scored:
        lengths = [len(code) for code in group.codes]
        keys = {
            "model": [-inf if score is None else score for score in scores],
            "random": [0.0] * len(lengths),
            "shortest": [-length if length else -inf for length in lengths],
            "longest": [length if length else -inf for length in lengths],
        }
        for choice, key in keys.items():
            curves[choice].append([best_of(key, group.passed, n) for n in counts])
        curves["oracle"].append([pass_at_k(group.passed, n) for n in counts])
    return curves


def _line(curves: Curves, n: int, seed: int) -> dict[str, Any]:
    """Means with intervals of all choices at one N, and of the model's gain over each control."""
    solved = {choice: [curve[n - 1] for curve in rows] for choice, rows in curves.items()}
    problems = range(len(solved["model"]))
    means = {choice: mean_of(values, problems, seed=seed) for choice, values in solved.items()}
    for control in CONTROLS:
        gains = [own - other for own, other in zip(solved["model"], solved[control], strict=True)]
        means[f"model above {control}"] = mean_of(gains, problems, seed=seed, bounds=(-1, 1))
    return {name: asdict(mean) for name, mean in means.items()}


def _pair_accuracy(scored: Sequence[tuple[Candidates, Scores]], seed: int) -> dict[str, Any] | None:
    shares = []
    for group, scores in scored:
        sides: dict[bool, list[float]] = {True: [], False: []}
        for score, passed in zip(scores, group.passed, strict=True):
            if score is not None:
                sides[passed].append(score)
        if (share := area(sides[True], sides[False])) is not None:
            shares.append(share)
    return asdict(mean_of(shares, range(len(shares)), seed=seed)) if shares else None
