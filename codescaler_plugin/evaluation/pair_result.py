"""The result of accuracy on pairs: beside its controls, and with the pairs that a model gets most wrong."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Any, Literal, Self

from codescaler_plugin.evaluation.cells import (
    Cell,
    Line,
    Models,
    count,
    doubt,
    gain,
    known,
    names_of,
    share,
    side_by_side,
    sized_share,
)
from codescaler_plugin.evaluation.result import Colours, Result
from codescaler_plugin.evaluation.worst_pairs import WorstPair, worst_pairs_fold
from codescaler_plugin.intervals import Mean
from codescaler_plugin.report.plots import SHADE, guide, short
from codescaler_plugin.report.sections import Plot, Section

SCORE_GAPS = (0.1, 0.25, 0.5, 1.0, 2.0, 4.0)
RATE_GAPS = (0.25, 0.5, 0.75)
UNKNOWN = "unknown"

ControlName = Literal["longer", "shorter", "shallow", "log_probability"]
CONTROLS: dict[ControlName, str] = {
    "longer": "“the longer is right”",
    "shorter": "“the shorter is right”",
    "shallow": "length and style, fitted",
    "log_probability": "mean log-probability",
}


@dataclass(frozen=True)
class Control:
    """A rule that needs no reward model, and the reward model, on the same pairs.

    Attributes:
        accuracy: of the rule, over pairs.
        macro: of the rule, each problem once.
        model: of the reward model, each problem once.
        gain: accuracy of the reward model minus that of the rule, pair by pair.
        macro_gain: the same, each problem once.
    """

    accuracy: Mean
    macro: Mean
    model: Mean
    gain: Mean
    macro_gain: Mean


@dataclass(frozen=True)
class HumanBugs:
    """Accuracy on programs that people broke: of the reward model, and of the rule that the longer is right."""

    accuracy: Mean
    longer: Mean


@dataclass(frozen=True)
class PairResult(Result):
    """Accuracy of a reward model on pairs, with 95% intervals of a bootstrap over problems; a tie counts one half.

    Attributes:
        pairs: number of pairs.
        unscored: pairs with a side that has no score; they are left out of all else.
        ties: pairs with equal scores.
        accuracy: over pairs.
        macro: each problem once.
        kinds: accuracy by `PreferencePair.kind`.
        pass_rate_gap: accuracy by bin of `PreferencePair.margin`; `unknown` without one.
        score_gap: accuracy by bin of the distance of the two scores, in logits.
        controls: rules that need no reward model. `log_probability` is measured only with a base model, on a draw.
        base_model: causal model of that control; empty without it.
        prefers_longer: share of problems whose longest right program scores above the shortest one; 0.5 is best.
            None if no problem has two right programs.
        prefers_rewritten: share of right programs that score higher in another layout; 0.5 is best. None if none can
            be rewritten.
        human_bugs: accuracy on bugs that people made. None if it was not measured.
        worst: the pairs that the model gets most wrong, the worst first.

    Example:
        >>> from codescaler_plugin import PreferencePair, evaluate_pairs
        >>> from codescaler_plugin.testing import FakeScorer
        >>> pairs = [PreferencePair("Set x to 2.", "x = 2", "x = 1", "rollout")]
        >>> result = evaluate_pairs(pairs, FakeScorer({"x = 2": -1.0, "x = 1": 1.5}))
        >>> result.macro.value, result.worst[0].gap
        (0.0, 2.5)
        >>> PairResult.from_json(result.to_json()) == result
        True
    """

    evaluation = "pairs"
    heading = "Pairs"

    pairs: int
    unscored: int
    ties: int
    accuracy: Mean
    macro: Mean
    kinds: dict[str, Mean]
    pass_rate_gap: dict[str, Mean]
    score_gap: dict[str, Mean]
    controls: dict[ControlName, Control]
    base_model: str
    prefers_longer: Mean | None
    prefers_rewritten: Mean | None
    human_bugs: HumanBugs | None
    worst: tuple[WorstPair, ...]

    @property
    def strongest(self) -> ControlName:
        """The best of all measured controls: the one over which the model gains least, each problem once."""
        return min(self.controls, key=lambda name: self.controls[name].macro_gain.value)

    @classmethod
    def compare(cls, title: str, models: Mapping[str, Self], colours: Colours) -> Section:
        """Accuracy beside the controls; the finding of a model compares it with the best of them."""
        findings = []
        for model, result in models.items():
            control = result.controls[result.strongest]
            findings.append(
                f"{model}: {control.model.value:.3f} of a problem's pairs in the right order, "
                f"{gain(control.macro_gain)} above the best of {len(result.controls)} controls, "
                f"{CONTROLS[result.strongest]}{doubt(control.macro_gain)}"
            )
        text = (
            "How often the right program of a pair scores higher; a tie is half. In brackets the 95% interval of a "
            "bootstrap over problems. A model that is not clearly above the controls has shown no more than they know."
        )
        plots = [
            Plot("Accuracy", partial(_plot_accuracy, models=models, colours=colours)),
            Plot("Accuracy by gap of scores", partial(_plot_by_gap, models=models, colours=colours)),
        ]
        table = side_by_side(models, _accuracy_lines(models) + _control_lines())
        folds = [worst_pairs_fold(model, result.worst) for model, result in models.items()]
        return Section(title, text, findings, [table], plots, folds)


def bin_names(edges: tuple[float, ...]) -> list[str]:
    """The names of the half-open bins between edges, the lowest first."""
    inner = [f"{low:g} to {high:g}" for low, high in pairwise(edges)]
    return [f"below {edges[0]:g}", *inner, f"{edges[-1]:g} and more"]


def _accuracy_lines(models: Models[PairResult]) -> list[Line[PairResult]]:
    def part(of: Callable[[PairResult], dict[str, Mean]], name: str) -> Cell[PairResult]:
        return lambda result: known(sized_share, of(result).get(name))

    lines: list[Line[PairResult]] = [
        ("pairs", lambda result: count(result.accuracy.rows)),
        ("problems", lambda result: count(result.accuracy.problems)),
        ("without a score", lambda result: count(result.unscored)),
        ("ties", lambda result: count(result.ties)),
        "Accuracy",
        ("all pairs", lambda result: share(result.accuracy)),
        ("each problem once", lambda result: share(result.macro)),
    ]
    kinds = names_of(result.kinds for result in models.values())
    if len(kinds) > 1:
        lines += [(f"kind: {kind}", part(lambda result: result.kinds, kind)) for kind in kinds]
    gaps: dict[str, Callable[[PairResult], dict[str, Mean]]] = {
        "pass rates": lambda result: result.pass_rate_gap,
        "scores": lambda result: result.score_gap,
    }
    for name, of in gaps.items():
        lines.append(f"Accuracy by gap of {name}")
        lines += [(bin_, part(of, bin_)) for bin_ in names_of(map(of, models.values())) if bin_ != UNKNOWN]
    return lines


def _control_lines() -> list[Line[PairResult]]:
    def of(name: ControlName, part: str, missing: str = "-") -> Cell[PairResult]:
        write = gain if part == "macro_gain" else share
        return lambda result: known(write, getattr(result.controls.get(name), part, None), missing)

    def bugs(part: str, missing: str = "-") -> Cell[PairResult]:
        return lambda result: known(share, getattr(result.human_bugs, part, None), missing)

    def preference(part: str, missing: str) -> Cell[PairResult]:
        return lambda result: known(share, getattr(result, part), f"not measured: {missing}")

    return [
        "Controls, each problem once",
        *((label, of(name, "macro", "not measured: --base-model MODEL")) for name, label in CONTROLS.items()),
        ("the reward model on the same pairs", of("log_probability", "model")),
        "Gain over the controls, pair by pair",
        *((f"over {label}", of(name, "macro_gain")) for name, label in CONTROLS.items()),
        "Of two right programs (0.5 wanted)",
        ("prefers the longer", preference("prefers_longer", "no problem has two")),
        ("prefers the rewritten", preference("prefers_rewritten", "none can be rewritten")),
        "Bugs that people made",
        ("accuracy", bugs("accuracy", "not measured: --human-bugs FILE")),
        ("longer is right", bugs("longer")),
    ]


def _plot_accuracy(axes: Any, models: Models[PairResult], colours: Colours) -> None:
    first = next(iter(models.values()))
    bars = [(CONTROLS[name], control.macro, SHADE) for name, control in first.controls.items()]
    bars += [(model, result.macro, colours[model]) for model, result in models.items()]
    for row, (_, mean, colour) in enumerate(bars):
        axes.barh(row, mean.value, color=colour, height=0.6)
        axes.plot([mean.low, mean.high], [row, row], color="black", linewidth=1.5)
    axes.set_yticks(range(len(bars)), [short(name) for name, _, _ in bars])
    guide(axes, 0.5, vertical=True)
    axes.axvline(first.controls[first.strongest].macro.value, color="black", linestyle="--", linewidth=1)
    axes.set(xlim=(0, 1), xlabel="pairs in order (dashed: best control)")
    axes.set_title("Accuracy, 95% interval")


def _plot_by_gap(axes: Any, models: Models[PairResult], colours: Colours) -> None:
    measured = names_of(result.score_gap for result in models.values())
    bins = [name for name in bin_names(SCORE_GAPS) if name in measured]
    for model, result in models.items():
        colour = colours[model]
        xs = [x for x, name in enumerate(bins) if name in result.score_gap]
        means = [result.score_gap[bins[x]] for x in xs]
        axes.plot(xs, [mean.value for mean in means], "o-", color=colour, label=short(model))
        axes.fill_between(xs, [mean.low for mean in means], [mean.high for mean in means], color=colour, alpha=0.15)
    names = [name.replace("below ", "< ").replace(" to ", "-").replace(" and more", "+") for name in bins]
    axes.set_xticks(range(len(names)), names, rotation=30, ha="right")
    guide(axes, 0.5)
    axes.set(ylim=(0, 1.02), xlabel="gap of scores", title="Accuracy by gap of scores")
    axes.legend(loc="lower right")
