"""Calibration of margins: margin -> probability that the program in front is right.

A margin is the score of one program minus that of another of the *same* problem. Scores of different problems have
no common zero (the authors' 8B model puts 0.87 of pairs of one problem in order, 0.69 of those across problems), so
nothing here maps a single score to a probability.
"""

import json
import math
from collections.abc import Hashable, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Literal

from codescaler_plugin.errors import ConfigError, DataError
from codescaler_plugin.extras import require

Method = Literal["isotonic", "platt"]
METHODS: tuple[Method, ...] = ("isotonic", "platt")
FOLDS = 5


@dataclass(frozen=True)
class Calibration:
    """A fitted map from a margin in logits to a probability. It holds only for the model that it was fitted with.

    Attributes:
        method: `isotonic` or `platt`.
        examples: number of examples that it was fitted on.
        right: number of right ones among them; a tie counts one half.
        knots: of an isotonic map, (margin, probability), both rising; linear between them, constant beyond the ends.
        slope: of a Platt map: probability = 1 / (1 + exp(-(slope margin + intercept))).
        intercept: see slope.
        model: name of the model.

    Example:
        >>> calibration = Calibration("platt", examples=100, right=80, slope=1.0)
        >>> [round(probability, 2) for probability in calibration.probability([0.0, 2.0])]
        [0.5, 0.88]
        >>> Calibration.from_json(calibration.to_json()) == calibration
        True
    """

    method: Method
    examples: int
    right: float
    knots: tuple[tuple[float, float], ...] = ()
    slope: float = 0.0
    intercept: float = 0.0
    model: str = ""

    def probability(self, margins: Sequence[float]) -> list[float]:
        """The probability of being right at each margin, strictly between 0 and 1; same length, same order."""
        import numpy as np

        if self.method == "platt":
            logits = np.clip(self.slope * np.asarray(margins, float) + self.intercept, -700, 700)
            probabilities = np.clip(1 / (1 + np.exp(-logits)), 1e-300, math.nextafter(1.0, 0.0))
        else:
            probabilities = np.interp(margins, *np.asarray(self.knots).T)
        return [float(probability) for probability in probabilities]

    def to_json(self) -> str:
        """One line of JSON; `from_json` reads it."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str | bytes) -> "Calibration":
        """The calibration in a line of `to_json`, or in a file of it.

        Raises:
            DataError: the text is no calibration, or its probabilities fall or are outside of (0, 1).
        """
        try:
            row = json.loads(text)
            row.pop("plans", None)  # of `codescaler calibrate`, for selection.planning.read_plans
            knots = tuple((float(margin), float(probability)) for margin, probability in row.pop("knots"))
            calibration = cls(**{**row, "knots": knots})
            method, slope = calibration.method, calibration.slope
            numbers = (slope, calibration.intercept, *(value for knot in knots for value in knot))
            sound = all(map(math.isfinite, numbers)) and method in METHODS and slope >= 0
        except (ValueError, TypeError, KeyError, AttributeError, OverflowError) as error:
            raise DataError(f"no calibration as `fit_calibration` makes it: {error}") from error
        rising = all(before[0] < after[0] and before[1] <= after[1] for before, after in pairwise(knots))
        if not sound or not rising or (method == "isotonic") != bool(knots):
            raise DataError(
                f"no calibration as `fit_calibration` makes it: method {method!r}, {len(knots)} knots, slope {slope:g}"
            )
        if not all(0 < probability < 1 for _, probability in knots):
            raise DataError("no calibration as `fit_calibration` makes it: probabilities outside of (0, 1)")
        return calibration


def fit_calibration(
    margins: Sequence[float], right: Sequence[float], *, method: Method = "isotonic", model: str = ""
) -> Calibration:
    """Fit margin -> probability of being right.

    Use margins of one kind: those of pairs (in absolute value, right if the better program is in front), or those
    between the first two of N candidates (right if the first passes). A fit on one kind does not hold for the other.
    No probability reaches 0 or 1: with n examples it stays within [1 / (n + 2), (n + 1) / (n + 2)].

    `isotonic` is any rising curve, for some hundred examples or more; `platt` is a logistic curve with Platt's
    smoothed targets, for a few dozen or more. A logistic curve that would fall becomes flat. `margins` are finite
    logits. `right` is 1 for right, 0 for wrong, 0.5 for undecided.
    """
    import numpy as np

    if method not in METHODS:
        raise ConfigError(f"method is {method!r}: expected one of {', '.join(METHODS)}")
    if len(margins) != len(right) or not margins:
        raise DataError(f"{len(margins)} margins and {len(right)} outcomes: expected as many, and at least one")
    inputs, outcomes = np.asarray(margins, float), np.asarray(right, float)
    if not np.isfinite(inputs).all() or not ((outcomes >= 0) & (outcomes <= 1)).all():
        raise DataError("a margin is no finite number, or an outcome is not in [0, 1]")
    count, total = len(inputs), float(outcomes.sum())
    require("fitting a calibration", "report", "sklearn")
    from sklearn.isotonic import IsotonicRegression
    from sklearn.linear_model import LogisticRegression

    if method == "isotonic":
        lowest = 1 / (count + 2)
        curve = IsotonicRegression(y_min=lowest, y_max=1 - lowest, out_of_bounds="clip").fit(inputs, outcomes)
        knots = zip(curve.X_thresholds_.tolist(), curve.y_thresholds_.tolist(), strict=True)
        return Calibration("isotonic", count, total, knots=tuple(knots), model=model)
    low, high = 1 / (count - total + 2), (total + 1) / (total + 2)  # Platt 1999, section 2.2
    targets = low + outcomes * (high - low)
    scale = float(np.abs(inputs).max()) or 1.0  # the solver wants numbers near one
    regression = LogisticRegression(C=np.inf, tol=1e-10, max_iter=10_000).fit(
        np.concatenate([inputs, inputs])[:, None] / scale,
        np.repeat([1, 0], count),
        sample_weight=np.concatenate([targets, 1 - targets]),
    )
    slope, intercept = float(regression.coef_[0, 0]) / scale, float(regression.intercept_[0])
    if slope <= 0:
        share = float(targets.mean())
        slope, intercept = 0.0, math.log(share / (1 - share))
    return Calibration("platt", count, total, slope=slope, intercept=intercept, model=model)


def read_calibration(path: Path) -> Calibration:
    """The calibration in a file of `codescaler evaluate calibration` or `codescaler calibrate`."""
    try:
        return Calibration.from_json(path.read_bytes())
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from error
    except DataError as error:
        raise DataError(f"{path}: {error}") from error


def cross_fitted(
    margins: Sequence[float], right: Sequence[float], problems: Sequence[Hashable], *, method: Method = "isotonic"
) -> list[float]:
    """Probabilities from calibrations (`fit_calibration`) on other problems than each example's; in the same order."""
    order = list(dict.fromkeys(problems))
    if len(order) < 2 or len(margins) != len(problems):
        raise DataError(f"{len(order)} problems for {len(margins)} margins: expected one name each, and two or more")
    folds = min(FOLDS, len(order))
    fold_of = {problem: number % folds for number, problem in enumerate(order)}
    probabilities = [0.0] * len(margins)
    for fold in range(folds):
        inside = [index for index, problem in enumerate(problems) if fold_of[problem] == fold]
        outside = [index for index, problem in enumerate(problems) if fold_of[problem] != fold]
        fitted = fit_calibration(
            [margins[index] for index in outside], [right[index] for index in outside], method=method
        )
        for index, probability in zip(inside, fitted.probability([margins[index] for index in inside]), strict=True):
            probabilities[index] = probability
    return probabilities
