"""Evaluation of calibrations, on problems that they were not fitted on."""

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, Self

from codescaler_plugin.errors import DataError
from codescaler_plugin.evaluation.cells import Line, count, decimals, known, side_by_side
from codescaler_plugin.evaluation.result import Colours, Result
from codescaler_plugin.intervals import accuracy
from codescaler_plugin.report.plots import COLOURS, SHADE, legend_below, short
from codescaler_plugin.report.sections import Plot, Section, Table
from codescaler_plugin.selection.calibration import METHODS, Calibration, cross_fitted, fit_calibration

BINS = 10
TARGETS = (0.8, 0.9, 0.95, 0.99)
MARGIN_NOTE = (
    "A margin compares two programs of one problem. Scores have no common zero across problems, so a fixed threshold "
    "on a single score does not carry from one problem to the next."
)
_SAID = 0.9  # the target of the finding


@dataclass(frozen=True)
class Bin:
    """Examples of similar probability."""

    probability: float  # mean of the predicted ones
    right: float  # share
    count: int


MapName = Literal["as_trained", "isotonic", "platt"]
MAPS: dict[MapName, str] = {"as_trained": "the margin's sigmoid", "isotonic": "isotonic", "platt": "Platt"}


@dataclass(frozen=True)
class MapErrors:
    """How far the probabilities of a map from margins are off, on problems that it was not fitted on.

    Attributes:
        error: expected calibration error, see `calibration_error`.
        brier: mean squared distance of probability and outcome.
        bins: examples by probability.
    """

    error: float
    brier: float
    bins: tuple[Bin, ...]


@dataclass(frozen=True)
class Target:
    """A probability that a user wants, and what came of asking for it.

    Attributes:
        margin: margin from which on the isotonic curve over all examples reaches the probability. None if it never
            does.
        examples: examples for which an isotonic curve over other problems gives at least that probability.
        problems: their problems.
        share: share of them that is right, each problem once.
        low: lower end of Wilson's 95% interval of the share, over problems.
        high: its upper end.
    """

    margin: float | None
    examples: int
    problems: int
    share: float
    low: float
    high: float

    def shown(self) -> str:
        """The share with its interval."""
        return f"{self.share:.3f} ({self.low:.3f} to {self.high:.3f})"


@dataclass(frozen=True)
class CalibrationResult(Result):
    """Calibration error, Brier score and reliability of each map from a margin to a probability.

    Attributes:
        examples: number of margins.
        problems: their problems.
        accuracy: share of examples whose program in front is right.
        maps: errors of each map. `as_trained` takes the sigmoid of the margin: the Bradley-Terry model that the reward
            model was trained as.
        targets: by probability.
        paired: of pairs, the share in order within a problem. None for other examples.
        pooled: of pairs, the share of right and wrong programs in order across problems. None for other examples.

    Example:
        >>> margins, right = [float(n) for n in range(20)], [float(n > 8) for n in range(20)]
        >>> result = evaluate_calibration(margins, right, range(20))
        >>> result.accuracy, CalibrationResult.from_json(result.to_json()) == result
        (0.55, True)
    """

    evaluation = "calibration"
    heading = "Calibration"

    examples: int
    problems: int
    accuracy: float
    maps: dict[MapName, MapErrors]
    targets: dict[float, Target]
    paired: float | None = None
    pooled: float | None = None

    def finding(self, model: str) -> str:
        """A sentence about the margin that is reliable, and about the best map."""
        target, (name, best) = self.targets[_SAID], min(self.maps.items(), key=lambda item: item[1].error)
        right = f"{target.shown()} right on {target.problems} problems"
        if target.margin is not None and target.low >= _SAID:
            said = f"a margin of {target.margin:.2f} or more is {_SAID:.0%} reliable: {right} not fitted on"
        elif target.examples:
            taken = f"of {self.examples} examples {target.examples} would be taken for it"
            said = f"no margin is shown to be {_SAID:.0%} reliable: {taken}, {right}"
        else:
            taken = f"none of {self.examples} examples would be taken for it"
            said = f"no margin is shown to be {_SAID:.0%} reliable: {taken}"
        return f"{model}: {said}; probabilities by {MAPS[name]} are off by {best.error:.3f} on average."

    @classmethod
    def compare(cls, title: str, models: Mapping[str, Self], colours: Colours) -> Section:  # noqa: ARG003
        """The errors of the maps, the margins of the targets, and a reliability diagram for each model."""
        lines: list[Line[Self]] = [
            ("examples", lambda result: count(result.examples)),
            ("problems", lambda result: count(result.problems)),
            ("right", lambda result: decimals(result.accuracy)),
            "Does a threshold carry across problems?",
            ("pairs of one problem in order", lambda result: known(decimals, result.paired)),
            ("pairs across problems in order", lambda result: known(decimals, result.pooled)),
        ]
        text = (
            "From a margin to the probability that the program in front is right. All numbers are of problems that "
            "the map was not fitted on. The share right counts each problem once, with Wilson's 95% interval. "
            + MARGIN_NOTE
        )
        tables = [side_by_side(models, lines)]
        for model, result in models.items():
            tables += [_maps(model, result), _margins(model, result)]
        plots = [
            Plot(f"Reliability: {model}", partial(_plot_reliability, model=model, result=result))
            for model, result in models.items()
        ]
        return Section(title, text, [result.finding(model) for model, result in models.items()], tables, plots)


def evaluate_calibration(
    margins: Sequence[float], right: Sequence[float], problems: Sequence[Hashable]
) -> CalibrationResult:
    """Calibration error, Brier score and reliability of each map, on problems that it was not fitted on.

    Args:
        margins: n margins in logits, each of the program in front over another one of its problem.
        right: n outcomes: 1 if the program in front is right, 0 if not, 0.5 for a tie.
        problems: n keys of the problems.

    Raises:
        DataError: fewer than two problems.
        MissingExtraError: scikit-learn is not installed.
    """
    if (distinct := len(set(problems))) < 2:
        raise DataError(
            f"margins of {distinct} problems: expected two or more, each with two different programs that have a score"
        )
    curve = fit_calibration(margins, right)
    maps: dict[MapName, list[float]] = {
        "as_trained": Calibration("platt", len(margins), sum(right), slope=1.0).probability(margins)
    }
    for method in METHODS:
        maps[method] = cross_fitted(margins, right, problems, method=method)
    return CalibrationResult(
        examples=len(margins),
        problems=distinct,
        accuracy=math.fsum(right) / len(right),
        maps={
            name: MapErrors(
                error=calibration_error(probabilities, right),
                brier=math.fsum((p - y) ** 2 for p, y in zip(probabilities, right, strict=True)) / len(right),
                bins=tuple(reliability(probabilities, right)),
            )
            for name, probabilities in maps.items()
        },
        targets={
            target: _target(_margin_for(curve, target), maps["isotonic"], right, problems, target)
            for target in TARGETS
        },
    )


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


def _target(
    margin: float | None,
    probabilities: Sequence[float],
    right: Sequence[float],
    problems: Sequence[Hashable],
    target: float,
) -> Target:
    """The margin of a target, and the share of right ones among the examples with at least that probability."""
    outcomes: dict[Hashable, list[float]] = {}
    for probability, outcome, problem in zip(probabilities, right, problems, strict=True):
        if probability >= target:
            outcomes.setdefault(problem, []).append(outcome)
    share = accuracy([math.fsum(values) / len(values) for values in outcomes.values()])
    examples = sum(map(len, outcomes.values()))
    return Target(margin, examples, share.pairs, share.share, share.low, share.high)


def _maps(model: str, result: CalibrationResult) -> Table:
    rows = [[MAPS[name], decimals(errors.error), decimals(errors.brier)] for name, errors in result.maps.items()]
    head = ("map to a probability", "calibration error", "Brier score")
    return Table(head, rows, f"{model}: how far the probabilities are off")


def _margins(model: str, result: CalibrationResult) -> Table:
    rows = []
    for probability, target in result.targets.items():
        measured = ["-", "-"]
        if target.examples:
            measured = [decimals(target.share), f"{target.low:.3f} to {target.high:.3f}"]
        needed = known(decimals, target.margin, "never reached")
        rows.append([f"{probability:g}", needed, *measured, count(target.problems)])
    head = ("probability", "needs a margin of", "share right", "95% interval", "problems")
    return Table(head, rows, f"{model}: margins, and what came of them")


def _plot_reliability(axes: Any, model: str, result: CalibrationResult) -> None:
    axes.plot([0, 1], [0, 1], color="black", linestyle=":", linewidth=1)
    for (name, errors), colour in zip(result.maps.items(), (SHADE, *COLOURS), strict=False):
        probabilities, right = [bin_.probability for bin_ in errors.bins], [bin_.right for bin_ in errors.bins]
        axes.plot(probabilities, right, color=colour, label=f"{MAPS[name]} ({errors.error:.3f})")
        sizes = [8 + 150 * bin_.count / result.examples for bin_ in errors.bins]  # few examples, small dot
        axes.scatter(probabilities, right, sizes, color=colour)
    axes.set(xlim=(0, 1), ylim=(0, 1.02), xlabel="probability said (in brackets: error)", ylabel="share right")
    axes.set_title(short(model))
    legend_below(axes, 2)
