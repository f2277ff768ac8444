"""Evaluation of calibrations, on problems that they were not fitted on."""

import math
from collections.abc import Hashable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from codescaler_plugin.errors import DataError
from codescaler_plugin.intervals import accuracy
from codescaler_plugin.selection.calibration import METHODS, Calibration, cross_fitted, fit_calibration

BINS = 10
TARGETS = (0.8, 0.9, 0.95, 0.99)


@dataclass(frozen=True)
class Bin:
    """Examples of similar probability."""

    probability: float  # mean of the predicted ones
    right: float  # share
    count: int


def evaluate_calibration(
    margins: Sequence[float], right: Sequence[float], problems: Sequence[Hashable]
) -> dict[str, Any]:
    """Calibration error, Brier score and reliability of each method, as JSON's types.

    `as trained` takes the sigmoid of the margin: the Bradley-Terry model that the reward model was trained as.
    `margin_for` holds the margin from which on the isotonic curve over all examples reaches a probability; None if it
    never does. `reliable` holds, of the examples for which an isotonic curve over other problems gives at least that
    probability, the share that is right: each problem once, with Wilson's 95% interval over problems.
    """
    if (distinct := len(set(problems))) < 2:
        raise DataError(
            f"margins of {distinct} problems: expected two or more, each with two different programs that have a score"
        )
    curve = fit_calibration(margins, right)
    methods = {"as trained": Calibration("platt", len(margins), sum(right), slope=1.0).probability(margins)}
    methods |= {method: cross_fitted(margins, right, problems, method=method) for method in METHODS}
    return {
        "examples": len(margins),
        "problems": distinct,
        "accuracy": math.fsum(right) / len(right),
        "margin_for": {str(target): _margin_for(curve, target) for target in TARGETS},
        "reliable": {str(target): _reliable(methods["isotonic"], right, problems, target) for target in TARGETS},
        "methods": {
            name: {
                "error": calibration_error(probabilities, right),
                "brier": math.fsum((p - y) ** 2 for p, y in zip(probabilities, right, strict=True)) / len(right),
                "bins": [asdict(bin_) for bin_ in reliability(probabilities, right)],
            }
            for name, probabilities in methods.items()
        },
    }


def reliability(probabilities: Sequence[float], right: Sequence[float]) -> list[Bin]:
    """Bins of equal width over [0, 1] without the empty ones; a probability on a border is in the upper bin."""
    if len(probabilities) != len(right):
        raise DataError(f"{len(probabilities)} probabilities and {len(right)} outcomes: expected as many")
    members: dict[int, list[tuple[float, float]]] = {}
    for probability, outcome in zip(probabilities, right, strict=True):
        members.setdefault(min(int(probability * BINS), BINS - 1), []).append((probability, outcome))
    return [
        Bin(
            math.fsum(probability for probability, _ in rows) / len(rows),
            math.fsum(outcome for _, outcome in rows) / len(rows),
            len(rows),
        )
        for _, rows in sorted(members.items())
    ]


def calibration_error(probabilities: Sequence[float], right: Sequence[float]) -> float:
    """Expected calibration error: mean distance between predicted and true share over the bins of `reliability`."""
    bins = reliability(probabilities, right)
    return math.fsum(bin_.count * abs(bin_.probability - bin_.right) for bin_ in bins) / max(1, len(right))


def _margin_for(curve: Calibration, target: float) -> float | None:
    """The smallest margin at which an isotonic calibration gives the target probability."""
    before = None
    for knot in curve.knots:
        margin, probability = knot
        if probability >= target:
            if before is None or probability == before[1]:
                return margin
            return before[0] + (margin - before[0]) * (target - before[1]) / (probability - before[1])
        before = knot
    return None


def _reliable(
    probabilities: Sequence[float], right: Sequence[float], problems: Sequence[Hashable], target: float
) -> dict[str, Any]:
    """The share of right ones among the examples with at least the target probability."""
    outcomes: dict[Hashable, list[float]] = {}
    for probability, outcome, problem in zip(probabilities, right, problems, strict=True):
        if probability >= target:
            outcomes.setdefault(problem, []).append(outcome)
    share = accuracy([math.fsum(values) / len(values) for values in outcomes.values()])
    examples = sum(map(len, outcomes.values()))
    return {"examples": examples, "problems": share.pairs, "share": share.share, "low": share.low, "high": share.high}
