"""Means with confidence intervals that account for rows of the same problem."""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from math import comb, sqrt

from codescaler_plugin.errors import DataError
from codescaler_plugin.extras import require

RESAMPLES = 2000


@dataclass(frozen=True)
class Mean:
    """A mean with the 95% percentile interval of a bootstrap over problems.

    Attributes:
        value: mean over the rows, or over the problems' own means for a macro mean.
        low: lower end of the interval. With one problem the interval is the whole range of the values.
        high: upper end of the interval.
        rows: number of rows.
        problems: number of problems, which are the units of the bootstrap.
    """

    value: float
    low: float
    high: float
    rows: int
    problems: int


def mean_of(
    values: Sequence[float],
    problems: Sequence[Hashable],
    *,
    macro: bool = False,
    seed: int = 0,
    bounds: tuple[float, float] = (0.0, 1.0),
) -> Mean:
    """The mean of n values, with an interval that draws whole problems with replacement.

    Args:
        values: n numbers: wins, or differences of wins.
        problems: n names. Rows of one name are drawn together.
        macro: count each problem once, regardless of its number of rows.
        seed: random seed of the draws.
        bounds: range of the values, which is the interval of a single problem.

    Raises:
        DataError: different lengths, or no values.
        MissingExtraError: scipy is not installed.
    """
    import numpy as np

    require("an interval", "report", "scipy")
    from scipy.stats import bootstrap  # type: ignore[import-untyped]

    if len(values) != len(problems) or not values:
        raise DataError(f"{len(values)} values of {len(problems)} problems: expected as many, and at least one")
    numbers = {problem: number for number, problem in enumerate(dict.fromkeys(problems))}
    units = np.array([numbers[problem] for problem in problems])
    sums = np.bincount(units, weights=np.asarray(values, float))
    counts = np.bincount(units).astype(float)
    if macro:
        sums, counts = sums / counts, np.ones_like(counts)
    value = float(sums.sum() / counts.sum())
    if len(numbers) == 1:
        return Mean(value, *bounds, len(values), 1)
    interval = bootstrap(
        (sums, counts),
        lambda total, count, axis=-1: total.sum(axis=axis) / count.sum(axis=axis),
        n_resamples=RESAMPLES,
        batch=max(1, 4_000_000 // len(numbers)),
        paired=True,
        vectorized=True,
        method="percentile",
        random_state=np.random.default_rng(seed),
    ).confidence_interval
    return Mean(value, float(interval.low), float(interval.high), len(values), len(numbers))


def win(ahead: float, behind: float) -> float:
    """1 if the first number is larger, 0 if it is smaller, one half for a tie."""
    return 0.5 if ahead == behind else float(ahead > behind)


def pass_at_k(passed: Sequence[bool], k: int) -> float:
    """The unbiased chance that one of k of n completions passes: 1 - C(n - right, k) / C(n, k).

    Source: Chen et al. 2021, arXiv 2107.03374, section 2.1.

    Args:
        passed: for each of n completions, whether it passed.
        k: completions drawn without replacement, 1 to n.

    Raises:
        DataError: k is out of range.

    Example:
        >>> pass_at_k([True, False, False, False], 2)
        0.5
    """
    n, right = len(passed), sum(passed)
    if not 1 <= k <= n:
        raise DataError(f"pass@{k} of {n} completions: expected 1 to {n}")
    return 1 - comb(n - right, k) / comb(n, k)


def area(positive: Sequence[float], negative: Sequence[float]) -> float | None:
    """Area under the ROC curve: the share of (positive, negative) pairs in order, a tie half. None without pairs."""
    import numpy as np

    if not len(positive) or not len(negative):
        return None
    ordered = np.sort(np.asarray(negative, float))
    above = np.searchsorted(ordered, positive, side="left") + np.searchsorted(ordered, positive, side="right")
    return float(above.sum() / 2 / (len(positive) * len(negative)))


@dataclass(frozen=True)
class Accuracy:
    """The share in [0, 1] of pairs whose right program a predictor puts first. A tie counts one half.

    `low` and `high` bound the 95% Wilson interval over `pairs`, taken as independent. Pairs of one problem are not, so
    the true interval is wider.
    """

    share: float
    pairs: int
    low: float
    high: float


def accuracy(wins: Sequence[float]) -> Accuracy:
    """The share of wins (1, 0, or 0.5 for a tie) with its interval. Without wins it is 0.5 in [0, 1]."""
    count = len(wins)
    if not count:
        return Accuracy(0.5, 0, 0.0, 1.0)
    share, z = sum(wins) / count, 1.96
    centre = (share + z * z / (2 * count)) / (1 + z * z / count)
    spread = z / (1 + z * z / count) * sqrt(share * (1 - share) / count + z * z / (4 * count * count))
    return Accuracy(round(share, 4), count, round(max(0.0, centre - spread), 4), round(min(1.0, centre + spread), 4))
