"""How far to trust a margin: margin -> probability that the program in front is right.

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
from typing import TYPE_CHECKING, Any, Literal

from codescaler_plugin.errors import ConfigError, DataError
from codescaler_plugin.extras import require
from codescaler_plugin.intervals import accuracy

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

Method = Literal["isotonic", "platt"]
METHODS: tuple[Method, ...] = ("isotonic", "platt")

FOLDS = 5
BINS = 10
WANTED = (0.8, 0.9, 0.95, 0.99)


@dataclass(frozen=True)
class Calibration:
    """A fitted map from a margin in logits to a probability; it needs no library to be read and used.

    Attributes:
        method: `isotonic` or `platt`.
        examples: how many it was fitted on.
        right: how many of them were right; a tie counts one half.
        knots: isotonic: (margin, probability), both rising; linear between them, constant beyond the ends.
        slope: platt: probability = 1 / (1 + exp(-(slope margin + intercept))).
        intercept: see slope.
        model: whose margins; it holds for no other model.
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

        given = np.asarray(margins, float)
        if self.method == "platt":
            return _logistic(self.slope * given + self.intercept)
        at, probabilities = np.asarray(self.knots).T
        found: list[float] = np.interp(given, at, probabilities).tolist()
        return found

    def to_json(self) -> str:
        """One line of JSON, for `from_json`."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str | bytes) -> "Calibration":
        """What `to_json` wrote, also as a file holds it.

        Raises:
            DataError: it is no calibration, or one whose probabilities fall, or are no probabilities.
        """
        try:
            row = json.loads(text)
            row.pop("plans", None)  # of `codescaler select --calibrate`, for selection.planning.read_plans
            knots = tuple((float(margin), float(probability)) for margin, probability in row.pop("knots"))
            found = cls(**{**row, "knots": knots})
            numbers = (found.slope, found.intercept, *(value for knot in knots for value in knot))
            sound = all(map(math.isfinite, numbers)) and found.method in METHODS and found.slope >= 0
        except (ValueError, TypeError, KeyError, AttributeError, OverflowError) as error:
            raise DataError(f"no calibration as `fit_calibration` makes it: {error}") from error
        rising = all(before[0] < after[0] and before[1] <= after[1] for before, after in pairwise(knots))
        if not sound or not rising or (found.method == "isotonic") != bool(knots):
            raise DataError(
                f"no calibration as `fit_calibration` makes it: method {found.method!r}, {len(knots)} knots, "
                f"slope {found.slope:g}"
            )
        if not all(0 < probability < 1 for _, probability in knots):
            raise DataError("no calibration as `fit_calibration` makes it: probabilities outside of (0, 1)")
        return found


def fit_calibration(
    margins: Sequence[float], right: Sequence[float], *, method: Method = "isotonic", model: str = ""
) -> Calibration:
    """Fit margin -> probability of being right.

    The margins may be those of pairs (in absolute value, right if the better program is in front) or those between
    the first two of N candidates (right if the first passes); what is fitted on the one does not hold for the other.
    No probability reaches 0 or 1: with n examples it stays within [1 / (n + 2), (n + 1) / (n + 2)].

    Args:
        margins: n finite numbers in logits.
        right: n numbers in [0, 1]: 1 right, 0 wrong, 0.5 undecided.
        method: `isotonic`: any rising curve, wants some hundred examples; `platt`: a logistic curve with Platt's
            smoothed targets, does with a few dozen, and never falls either: a falling one becomes flat.
        model: noted in the result.

    Raises:
        DataError: lengths differ, nothing to fit, or a value that is no number in its range.
        ConfigError: an unknown method.
        MissingExtraError: scikit-learn is not installed.
    """
    import numpy as np

    if method not in METHODS:
        raise ConfigError(f"method is {method!r}: expected one of {', '.join(METHODS)}")
    if len(margins) != len(right) or not margins:
        raise DataError(f"{len(margins)} margins and {len(right)} outcomes: expected as many, and at least one")
    at, outcome = np.asarray(margins, float), np.asarray(right, float)
    if not np.isfinite(at).all() or not ((outcome >= 0) & (outcome <= 1)).all():
        raise DataError("a margin is no finite number, or an outcome is not in [0, 1]")
    count, total = len(at), float(outcome.sum())
    require("fitting a calibration", "report", "sklearn")
    from sklearn.isotonic import IsotonicRegression  # type: ignore[import-untyped]
    from sklearn.linear_model import LogisticRegression  # type: ignore[import-untyped]

    if method == "isotonic":
        least = 1 / (count + 2)
        fitted = IsotonicRegression(y_min=least, y_max=1 - least, out_of_bounds="clip").fit(at, outcome)
        knots = zip(fitted.X_thresholds_.tolist(), fitted.y_thresholds_.tolist(), strict=True)
        return Calibration("isotonic", count, total, knots=tuple(knots), model=model)
    low, high = 1 / (count - total + 2), (total + 1) / (total + 2)  # Platt 1999, section 2.2
    target = low + outcome * (high - low)
    scale = float(np.abs(at).max()) or 1.0  # the solver wants numbers near one
    regression = LogisticRegression(C=np.inf, tol=1e-10, max_iter=10_000).fit(
        np.concatenate([at, at])[:, None] / scale,
        np.repeat([1, 0], count),
        sample_weight=np.concatenate([target, 1 - target]),
    )
    slope, intercept = float(regression.coef_[0, 0]) / scale, float(regression.intercept_[0])
    if slope <= 0:
        share = float(target.mean())
        slope, intercept = 0.0, math.log(share / (1 - share))
    return Calibration("platt", count, total, slope=slope, intercept=intercept, model=model)


def read_calibration(path: Path) -> Calibration:
    """The calibration in a file, as `codescaler evaluate calibration` writes it.

    Raises:
        ConfigError: the file cannot be read.
        DataError: it holds no calibration.
    """
    try:
        return Calibration.from_json(path.read_bytes())
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from error
    except DataError as error:
        raise DataError(f"{path}: {error}") from error


@dataclass(frozen=True)
class Bin:
    """Examples of like probability.

    Attributes:
        probability: their mean predicted probability.
        right: the share of them that is right.
        count: how many.
    """

    probability: float
    right: float
    count: int


def reliability(probabilities: Sequence[float], right: Sequence[float]) -> list[Bin]:
    """Bins of equal width over [0, 1], the empty ones left out; a probability on a border is in the upper bin.

    Raises:
        DataError: lengths differ.
    """
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
    found = reliability(probabilities, right)
    return math.fsum(one.count * abs(one.probability - one.right) for one in found) / max(1, len(right))


def cross_fitted(
    margins: Sequence[float], right: Sequence[float], problems: Sequence[Hashable], *, method: Method = "isotonic"
) -> list[float]:
    """Probabilities from calibrations that were fitted on other problems; same length, same order.

    Args:
        margins: n numbers, see `fit_calibration`.
        right: n outcomes.
        problems: n names; what has one name is in one fold.
        method: see `fit_calibration`.

    Raises:
        DataError: fewer than two problems, or as `fit_calibration`.
    """
    order = list(dict.fromkeys(problems))
    if len(order) < 2 or len(margins) != len(problems):
        raise DataError(f"{len(order)} problems for {len(margins)} margins: expected one name each, and two or more")
    folds = min(FOLDS, len(order))
    fold_of = {problem: place % folds for place, problem in enumerate(order)}
    found = [0.0] * len(margins)
    for fold in range(folds):
        inside = [row for row, problem in enumerate(problems) if fold_of[problem] == fold]
        outside = [row for row, problem in enumerate(problems) if fold_of[problem] != fold]
        fitted = fit_calibration([margins[row] for row in outside], [right[row] for row in outside], method=method)
        for row, probability in zip(inside, fitted.probability([margins[row] for row in inside]), strict=True):
            found[row] = probability
    return found


def evaluate_calibration(
    margins: Sequence[float], right: Sequence[float], problems: Sequence[Hashable]
) -> dict[str, Any]:
    """How well margins tell, on problems not fitted on, as JSON's types: for each method, error and reliability.

    `margin_for` says from which margin on the isotonic curve over all examples reaches a probability; None: nowhere.
    `reliable` says what that is worth: of the examples for which an isotonic curve over other problems says so, the
    share that is right, each problem once, with Wilson's 95% interval over problems.
    `as trained` takes the margin at its word: the Bradley-Terry model that the reward model was trained as.

    Args:
        margins: n margins, at least 0.
        right: n outcomes, see `fit_calibration`.
        problems: n names.

    Raises:
        DataError: fewer than two problems.
        MissingExtraError: scikit-learn is not installed.
    """
    if (found_problems := len(set(problems))) < 2:
        raise DataError(
            f"margins of {found_problems} problems: expected two or more, each with two different programs that have "
            "a score"
        )
    rising = fit_calibration(margins, right)
    found = {"as trained": _logistic(margins)}
    found |= {method: cross_fitted(margins, right, problems, method=method) for method in METHODS}
    return {
        "examples": len(margins),
        "problems": found_problems,
        "accuracy": math.fsum(right) / len(right),
        "margin_for": {str(wanted): _reached(rising, wanted) for wanted in WANTED},
        "reliable": {str(wanted): _held(found["isotonic"], right, problems, wanted) for wanted in WANTED},
        "methods": {
            name: {
                "error": calibration_error(probabilities, right),
                "brier": math.fsum((p - one) ** 2 for p, one in zip(probabilities, right, strict=True)) / len(right),
                "bins": [asdict(one) for one in reliability(probabilities, right)],
            }
            for name, probabilities in found.items()
        },
    }


def _reached(curve: Calibration, wanted: float) -> float | None:
    """The least margin at which an isotonic calibration gives the wanted probability."""
    before = None
    for knot in curve.knots:
        margin, probability = knot
        if probability >= wanted:
            if before is None or probability == before[1]:
                return margin
            return before[0] + (margin - before[0]) * (wanted - before[1]) / (probability - before[1])
        before = knot
    return None


def _held(
    probabilities: Sequence[float], right: Sequence[float], problems: Sequence[Hashable], wanted: float
) -> dict[str, Any]:
    """How often what is said to be right with the wanted probability is so."""
    outcomes: dict[Hashable, list[float]] = {}
    for probability, outcome, problem in zip(probabilities, right, problems, strict=True):
        if probability >= wanted:
            outcomes.setdefault(problem, []).append(outcome)
    held = accuracy([math.fsum(one) / len(one) for one in outcomes.values()])
    examples = sum(map(len, outcomes.values()))
    return {"examples": examples, "problems": held.pairs, "share": held.share, "low": held.low, "high": held.high}


def _logistic(values: "ArrayLike") -> list[float]:
    import numpy as np

    shares = 1 / (1 + np.exp(-np.clip(values, -700, 700)))
    found: list[float] = np.clip(shares, 1e-300, math.nextafter(1.0, 0.0)).tolist()
    return found
