"""Best-of-N with a reward model against random choice, length, and the oracle, on candidates with known verdicts."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cache
from itertools import groupby, islice
from math import comb, inf
from pathlib import Path
from statistics import median_low
from typing import Any, Unpack

from codescaler_plugin.data.matching import problem_key
from codescaler_plugin.data.rollouts import fault_of, problem_id_of, rows_of
from codescaler_plugin.errors import ConfigError, DataError
from codescaler_plugin.evaluation.score_file import Kept, Row, Scores, score_rows
from codescaler_plugin.extraction import extract_code
from codescaler_plugin.intervals import area, mean_of, pass_at_k
from codescaler_plugin.scoring import Scorer
from codescaler_plugin.text.messages import completion_text, problem_text

MOST = 64
SHOWN = (1, 2, 4, 8, 16, 32, 64)
CONTROLS = ("random", "shortest", "longest")  # they need no reward model
CHOICES = ("model", *CONTROLS, "oracle")


@dataclass(frozen=True)
class Candidates:
    """The candidates for a problem: their codes (empty: not valid) and whether they pass, in one order.

    `unjudged` counts those that are left out because their tests gave no verdict.
    """

    problem_id: str
    problem: str
    codes: tuple[str, ...]
    passed: tuple[bool, ...]
    unjudged: int = 0


def read_candidates(path: str | Path, *, extraction: str = "last") -> list[Candidates]:
    """Candidates with verdicts, as `codescaler verify` writes them, gathered by problem (`problem_key`).

    Columns: `problem`, `passed`, and `code` or `completion`; `problem_id` and `fault` if there. A completion's code is
    extracted. A row with a `fault` has no verdict: it is left out and counted.

    Args:
        path: file, folder or dataset.
        extraction: which block of a completion is its code, see `extract_code`; not used where there is a `code`.

    Raises:
        ConfigError: nothing is there.
        DataError: a row without these columns; it is named.
    """
    named: dict[str, tuple[str, str]] = {}
    groups: dict[str, list[tuple[str, bool]]] = {}
    unjudged: Counter[str] = Counter()
    for _, place, row in rows_of(path):
        if (
            not isinstance(row.get("passed"), bool)
            or not row.get("problem")
            or not {"code", "completion"} & row.keys()
        ):
            raise DataError(
                f"{place}: expected the columns problem, passed (true or false), and code or completion, as "
                f"`codescaler verify` writes them: it has {', '.join(map(repr, row))}"
            )
        try:
            problem = problem_text(row["problem"])
            code = row.get("code")
            if not isinstance(code, str):
                completion: Any = row.get("completion")
                code = extract_code(completion_text(completion), extraction=extraction).code
            fault = fault_of(row)
        except DataError as error:
            raise DataError(f"{place}: {error}") from error
        key = problem_key(problem_id_of(row), problem)
        named.setdefault(key, (problem_id_of(row), problem))
        group = groups.setdefault(key, [])
        if fault is not None:
            unjudged[key] += 1
        else:
            group.append((code, row["passed"]))
    if not any(groups.values()):
        count = unjudged.total()
        raise DataError(
            f"{path} holds no candidates" + (f" with a verdict: {count:,} rows have a fault instead" if count else "")
        )
    return [
        Candidates(*named[key], tuple(code for code, _ in rows), tuple(passed for _, passed in rows), unjudged[key])
        for key, rows in groups.items()
    ]


def best_of(worth: Sequence[float], passed: Sequence[bool], count: int) -> float:
    """Expected share of passes of the best by `worth` among `count` of the candidates, drawn without replacement.

    The unbiased estimator of best-of-N from M >= N samples, the mean over all N-subsets: the candidate of rank i (from
    1) is the best of C(M - i, N - 1) of the C(M, N) subsets. Ties are broken by chance.

    Raises:
        DataError: more drawn than there are.
    """
    if not 1 <= count <= len(worth):
        raise DataError(f"the best of {count} among {len(worth)} candidates: expected 1 to {len(worth)}")
    order = sorted(range(len(worth)), key=lambda place: -worth[place])
    weights = iter(_weights(len(worth), count))
    total = 0.0
    for _, group in groupby(order, key=lambda place: worth[place]):
        tied = list(group)
        share = sum(passed[place] for place in tied) / len(tied)
        total += share * sum(islice(weights, len(tied)))
    return total


@cache
def _weights(candidates: int, count: int) -> tuple[float, ...]:
    return tuple(comb(candidates - rank, count - 1) / comb(candidates, count) for rank in range(1, candidates + 1))


def score_candidates(
    groups: Sequence[Candidates],
    scorer: Scorer,
    **kept: Unpack[Kept],
) -> list[Scores]:
    """The score of every candidate of every problem; None for one without valid code or without a score.

    For the arguments and errors see `score_rows`; a line of the output is a problem.
    """
    rows, valid = [], []
    for group in groups:
        places = [place for place, code in enumerate(group.codes) if code]
        valid.append(places)
        if places:
            passed = [group.passed[place] for place in places]
            facts = {"problem_id": group.problem_id, "candidates": places, "passed": passed}
            rows.append(Row(facts, tuple((group.problem, group.codes[place]) for place in places)))
    found = iter(score_rows(rows, scorer, **kept))
    scores: list[Scores] = []
    for group, places in zip(groups, valid, strict=True):
        given: Scores = [None] * len(group.codes)
        for place, score in zip(places, next(found) if places else [], strict=True):
            given[place] = score
        scores.append(given)
    return scores


def leading_margins(
    groups: Sequence[Candidates], scores: Sequence[Scores]
) -> tuple[list[float], list[float], list[str]]:
    """For a calibration of choices: score of the best program minus that of the next other one, right or not, problem.

    Problems with fewer than two different scored programs have none.
    """
    margins, right, problems = [], [], []
    for group, given in zip(groups, scores, strict=True):
        best: dict[str, tuple[float, bool]] = {}
        for code, score, passed in zip(group.codes, given, group.passed, strict=True):
            if score is not None:
                best.setdefault(code, (score, passed))
        if len(best) > 1:
            (first, passed), (second, _) = sorted(best.values(), key=lambda one: -one[0])[:2]
            margins.append(first - second)
            right.append(float(passed))
            problems.append(problem_key(group.problem_id, group.problem))
    return margins, right, problems


def evaluate_candidates(
    groups: Sequence[Candidates],
    scorer: Scorer,
    *,
    most: int | None = None,
    seed: int = 0,
    **kept: Unpack[Kept],
) -> dict[str, Any]:
    """Share of problems solved by each way to choose among N = 1 to `most` candidates, as JSON's types.

    `random` is the share of passing candidates, `oracle` picks a passing one if there is any. `strongest` is the one
    of `CONTROLS` that solves most at the largest N. A candidate without valid code, or without a score, is chosen
    only where there is no other. `pair_accuracy` is the macro accuracy over right-against-wrong candidates of the
    problems that have both.

    Args:
        groups: of `read_candidates`.
        scorer: gives raw logits.
        most: largest N; None: 64, or the median number of candidates if that is smaller. Problems with fewer
            candidates are left out and counted, for a curve over changing problems would mislead.
        seed: of the bootstrap.
        **kept: see `score_rows`; a line of the output and a step of progress are a problem.

    Raises:
        ConfigError: no problem has `most` candidates.
        DataError: no candidates.
        ConfigError, ScorerError: see `score_rows`.
    """
    sizes = [len(group.codes) for group in groups if group.codes]
    if not sizes:
        raise DataError("no candidates: there is nothing to evaluate")
    most = min(MOST, median_low(sizes)) if most is None else most
    large = [group for group in groups if len(group.codes) >= most]
    if not large or most < 1:
        raise ConfigError(f"no problem has {most} candidates: the largest number is {max(sizes)}")
    everyone = score_candidates(groups, scorer, **kept)
    scores = [row for group, row in zip(groups, everyone, strict=True) if len(group.codes) >= most]
    counts = range(1, most + 1)
    curves: dict[str, list[list[float]]] = {choice: [] for choice in CHOICES}
    accuracies: dict[str, float] = {}
    unscored = 0
    for number, (group, given) in enumerate(zip(large, scores, strict=True)):
        unscored += sum(score is None for score, code in zip(given, group.codes, strict=True) if code)
        lengths = [len(code) for code in group.codes]
        worths = {
            "model": [-inf if score is None else score for score in given],
            "random": [0.0] * len(lengths),
            "shortest": [-length if length else -inf for length in lengths],
            "longest": [length if length else -inf for length in lengths],
        }
        for choice, worth in worths.items():
            curves[choice].append([best_of(worth, group.passed, count) for count in counts])
        curves["oracle"].append([pass_at_k(group.passed, count) for count in counts])
        scored = [(score, right) for score, right in zip(given, group.passed, strict=True) if score is not None]
        share = area([score for score, right in scored if right], [score for score, right in scored if not right])
        if share is not None:
            accuracies[str(number)] = share
    names = [str(number) for number in range(len(large))]

    def solved(choice: str, count: int) -> list[float]:
        return [row[count - 1] for row in curves[choice]]

    def line(count: int) -> dict[str, Any]:
        means = {choice: mean_of(solved(choice, count), names, seed=seed) for choice in CHOICES}
        for control in CONTROLS:
            gains = [one - two for one, two in zip(solved("model", count), solved(control, count), strict=True)]
            means[f"model above {control}"] = mean_of(gains, names, seed=seed, bounds=(-1, 1))
        return {name: asdict(mean) for name, mean in means.items()}

    return {
        "problems": len(large),
        "left_out": len(groups) - len(large),
        "candidates": sum(len(group.codes) for group in large),
        "invalid": sum(not code for group in large for code in group.codes),
        "unscored": unscored,
        "unjudged": sum(group.unjudged for group in groups),
        "most": most,
        "curves": {choice: [sum(solved(choice, count)) / len(large) for count in counts] for choice in CHOICES},
        "table": {str(count): line(count) for count in sorted({count for count in SHOWN if count <= most} | {most})},
        "strongest": max(CONTROLS, key=lambda control: sum(solved(control, most))),
        "pair_accuracy": (
            asdict(mean_of(list(accuracies.values()), list(accuracies), seed=seed)) if accuracies else None
        ),
    }
