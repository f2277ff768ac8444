"""Means with confidence intervals that account for rows of the same problem."""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from math import comb, sqrt

from codescaler_plugin.errors import DataError
from codescaler_plugin.extras import require

RESAMPLES = 2000


@dataclass(frozen=True)
class Mean:
    """A mean with the 95% percentile interval of a bootstrap over problems."""

    value: float  # over the rows, or over the problems' own means for a macro mean
    low: float  # with one problem the interval is the whole range of the values
    high: float
    rows: int
    problems: int  # the units of the bootstrap


def mean_of(
    values: Sequence[float],
    problems: Sequence[Hashable],
    *,
    macro: bool = False,
    seed: int = 0,
    bounds: tuple[float, float] = (0.0, 1.0),
) -> Mean:
    """The mean of n wins, or differences of wins, with an interval that draws whole problems with replacement.

    A macro mean counts each problem once. `bounds` is the range of the values, and the interval of a single problem.

    Raises:
        DataError: different lengths, or no values.
        MissingExtraError: scipy is not installed.
    """
    import numpy as np

    require("an interval", "report", "scipy")
    from scipy.stats import bootstrap

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
    """The unbiased chance that one of k of n completions passes: 1 - C(n - right, k) / C(n, k), with k from 1 to n.

    Source: Chen et al. 2021, arXiv 2107.03374, section 2.1.
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
    """The share in [0, 1] of pairs whose right program a predictor puts first, a tie half, with a 95% Wilson interval.

    Pairs count as independent. Those of one problem are not, so the true interval is wider.
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
