"""Robustness of scores against edits that change nothing: comments, praise, dead code, other names, another layout.

Each kind of `mutations.PRESERVING` serves as an attack: the *wrong* program is edited, the right one is not.
The edits keep the behaviour of a program by construction, so nothing is run. For edits that break programs, confirmed
by execution, use `codescaler augment`, then `codescaler evaluate pairs`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from math import hypot, inf
from random import Random
from statistics import fmean, pstdev
from typing import Any, Self, Unpack

from codescaler_plugin.data.matching import problem_key
from codescaler_plugin.errors import DataError
from codescaler_plugin.evaluation.cells import (
    Cell,
    Line,
    Models,
    count,
    decimals,
    gain,
    known,
    names_of,
    share,
    side_by_side,
)
from codescaler_plugin.evaluation.result import Colours, Result
from codescaler_plugin.evaluation.score_file import Row, ScoreOptions, Scores, score_rows
from codescaler_plugin.intervals import Mean, area, mean_of, win
from codescaler_plugin.preference.mutations import PRESERVING
from codescaler_plugin.records import PreferencePair
from codescaler_plugin.report.plots import guide, legend_below, short
from codescaler_plugin.report.sections import Plot, Section
from codescaler_plugin.scoring import Scorer

_UNALIGNED = "unaligned"

_MEASURES: dict[str, Callable[[float, float, float, float], float]] = {  # of right, wrong, right edited, wrong edited
    "before": lambda right, wrong, _, __: win(right, wrong),
    "attacked": lambda right, _, __, wrong_edited: win(right, wrong_edited),
    "both": lambda _, __, right_edited, wrong_edited: win(right_edited, wrong_edited),
    "right_only": lambda _, wrong, right_edited, __: win(right_edited, wrong),
    "prefers_edited": lambda right, wrong, right_edited, wrong_edited: (
        (win(right_edited, right) + win(wrong_edited, wrong)) / 2
    ),
    "shift_right": lambda right, _, right_edited, __: right_edited - right,
    "shift_wrong": lambda _, wrong, __, wrong_edited: wrong_edited - wrong,
}


@dataclass(frozen=True)
class EditEffect:
    """What one kind of edit does, over the pairs to whose both sides it applies.

    Attributes:
        before: accuracy without edits.
        attacked: accuracy with the wrong side edited.
        both: accuracy with both sides edited.
        right_only: accuracy with the right side edited.
        prefers_edited: share of programs, right and wrong, that score higher when edited; 0.5 is best.
        shift_right: mean change of score of the right side, in logits.
        shift_wrong: mean change of score of the wrong side, in logits.
    """

    before: Mean
    attacked: Mean
    both: Mean
    right_only: Mean
    prefers_edited: Mean
    shift_right: Mean
    shift_wrong: Mean


@dataclass(frozen=True)
class Spread:
    """How far edits that change nothing move a score.

    Attributes:
        mean: mean standard deviation of a program's score under its edits, in logits.
        gap: mean distance of a pair's scores, in logits.
        programs: number of programs.
        area_gap: area under the curve of the gap as a predictor of the right order. None if all pairs have one order.
        area_gap_over_spread: the same of the gap over the spread of its two sides.
    """

    mean: float
    gap: float
    programs: int
    area_gap: float | None
    area_gap_over_spread: float | None


@dataclass(frozen=True)
class RobustnessResult(Result):
    r"""Accuracy and score under edits that keep the label.

    Attributes:
        pairs: pairs drawn.
        unscored: pairs with a side that has no score.
        edits: effects by kind of `mutations.PRESERVING`, without the kinds that apply to no pair.
        unaligned: accuracy against another problem's right program. None with a single problem.
        spread: None if no pair takes two kinds of edits.

    Example:
        >>> from codescaler_plugin.testing import FakeScorer
        >>> pairs = [PreferencePair("Set x to 2.", "x = 2\n", "x = 1\n", "rollout", "1")]
        >>> result = evaluate_robustness(pairs, FakeScorer())
        >>> RobustnessResult.from_json(result.to_json()) == result
        True
    """

    evaluation = "robustness"
    heading = "Robustness"

    pairs: int
    unscored: int
    edits: dict[str, EditEffect]
    unaligned: Mean | None
    spread: Spread | None

    @classmethod
    def compare(cls, title: str, models: Mapping[str, Self], colours: Colours) -> Section:
        """Accuracy and scores under each kind of edit; the finding names the worst kind."""
        findings = []
        for model, result in models.items():
            if result.edits:
                worst, effect = max(
                    result.edits.items(), key=lambda item: item[1].before.value - item[1].attacked.value
                )
                findings.append(
                    f"{model}: weakest against {_named(worst)}: {effect.before.value:.3f} of pairs in order, "
                    f"{effect.attacked.value:.3f} when the wrong side is edited."
                )
        text = (
            "Edits that change nothing of what a program does. As an attack the wrong program is edited, the right "
            "one is not: whatever accuracy is lost then was won by style."
        )
        plots = [Plot("Accuracy under attack", partial(_plot_attacks, models=models, colours=colours))]
        return Section(title, text, findings, [side_by_side(models, _lines(models))], plots if findings else [])


@dataclass(frozen=True)
class _Scored:
    """The scores of a pair as it is, under each kind of edit, and of another problem's right program."""

    problem: str
    right: float
    wrong: float
    edited: dict[str, tuple[float, float]]
    unaligned: float | None


def evaluate_robustness(
    pairs: Sequence[PreferencePair],
    scorer: Scorer,
    *,
    limit: int = 500,
    seed: int = 0,
    **options: Unpack[ScoreOptions],
) -> RobustnessResult:
    r"""Accuracy and score under edits that keep the label; see `RobustnessResult`.

    Args:
        pairs: n pairs of Python programs. No kind edits programs of other languages.
        scorer: scorer that returns raw logits.
        limit: pairs drawn at most.
        seed: seed of draws and edits.
        **options: see `score_rows`.

    Raises:
        DataError: there are no pairs, or none has two scores.
        ConfigError, ScorerError: see `score_rows`.
        MissingExtraError: scipy is not installed.

    Example:
        >>> from codescaler_plugin.testing import FakeScorer
        >>> pairs = [PreferencePair("Set x to 2.", "x = 2\n", "x = 1\n", "rollout", "1")]
        >>> result = evaluate_robustness(pairs, FakeScorer())  # longer programs score higher
        >>> result.edits["praise"].attacked.value
        0.0
    """
    if not pairs:
        raise DataError("no pairs: there is nothing to evaluate")
    drawn = Random(seed).sample(list(pairs), min(limit, len(pairs)))
    rows = [_row(number, pair, drawn, seed) for number, pair in enumerate(drawn)]
    of_rows = score_rows(rows, scorer, **options)
    scored = [pair for pair in map(_scored, drawn, rows, of_rows) if pair is not None]
    if not scored:
        raise DataError(f"none of {len(drawn)} pairs has a score on both sides: is max_length too small for them?")
    edited = {kind: [pair for pair in scored if kind in pair.edited] for kind in PRESERVING}
    compared = [(win(pair.right, pair.unaligned), pair.problem) for pair in scored if pair.unaligned is not None]
    return RobustnessResult(
        pairs=len(drawn),
        unscored=len(drawn) - len(scored),
        edits={kind: _effect(kind, part, seed) for kind, part in edited.items() if part},
        unaligned=mean_of(*map(list, zip(*compared, strict=True)), seed=seed) if compared else None,
        spread=_spread([pair for pair in scored if len(pair.edited) > 1]),
    )


def _row(number: int, pair: PreferencePair, drawn: Sequence[PreferencePair], seed: int) -> Row:
    """Both sides as they are, both under each kind that applies to both, and another problem's right program."""
    sides = [pair.chosen, pair.rejected]
    codes, kinds = list(sides), []
    for kind, edit in PRESERVING.items():
        edited = [edit(code, Random(f"{seed} {kind} {number}")) for code in sides]
        changed = [new for new, code in zip(edited, sides, strict=True) if new is not None and new != code]
        if len(changed) == len(sides):
            codes += changed
            kinds.append(kind)
    others = [other.chosen for other in drawn if other.problem != pair.problem]
    if others:
        codes.append(Random(f"{seed} {_UNALIGNED} {number}").choice(others))
    return Row(
        {"row": number, "problem_id": pair.problem_id, "kind": pair.kind, "edits": kinds, _UNALIGNED: bool(others)},
        tuple((pair.problem, code) for code in codes),
    )


def _scored(pair: PreferencePair, row: Row, scores: Scores) -> _Scored | None:
    """The scores of a `_row` by name; None if a side of the pair has none."""
    right, wrong, *rest = scores
    if right is None or wrong is None:
        return None
    unaligned = rest.pop() if row.facts[_UNALIGNED] else None
    edited = {
        kind: (of_right, of_wrong)
        for kind, of_right, of_wrong in zip(row.facts["edits"], rest[::2], rest[1::2], strict=True)
        if of_right is not None and of_wrong is not None
    }
    return _Scored(problem_key(pair.problem_id, pair.problem), right, wrong, edited, unaligned)


def _effect(kind: str, scored: Sequence[_Scored], seed: int) -> EditEffect:
    problems = [pair.problem for pair in scored]
    means = {}
    for name, measure in _MEASURES.items():
        values = [measure(pair.right, pair.wrong, *pair.edited[kind]) for pair in scored]
        bounds = (min(values), max(values)) if "shift" in name else (0, 1)
        means[name] = mean_of(values, problems, seed=seed, bounds=bounds)
    return EditEffect(**means)


def _spread(scored: Sequence[_Scored]) -> Spread | None:
    """The spread of scores under edits, and its use as a sign of uncertainty."""
    if not scored:
        return None
    gaps, over_spread, spreads, wins = [], [], [], []
    for pair in scored:
        sides = zip((pair.right, pair.wrong), *pair.edited.values(), strict=True)
        deviations = [pstdev(scores) for scores in sides]
        noise, gap = hypot(*deviations), abs(pair.right - pair.wrong)
        spreads += deviations
        gaps.append(gap)
        over_spread.append(gap / noise if noise else inf)
        wins.append(win(pair.right, pair.wrong))

    def of_order(values: Sequence[float]) -> float | None:
        right, wrong = (
            [value for value, outcome in zip(values, wins, strict=True) if outcome == side] for side in (1, 0)
        )
        return area(right, wrong)

    return Spread(fmean(spreads), fmean(gaps), len(spreads), of_order(gaps), of_order(over_spread))


def _named(kind: str) -> str:
    return kind.replace("_", " ")


def _lines(models: Models[RobustnessResult]) -> list[Line[RobustnessResult]]:
    labels = {
        "before": "accuracy",
        "attacked": "accuracy, wrong side edited",
        "both": "accuracy, both edited",
        "right_only": "accuracy, right side edited",
        "prefers_edited": "prefers the edited (0.5 wanted)",
        "shift_right": "change of score, right side",
        "shift_wrong": "change of score, wrong side",
    }

    def effect(kind: str, measure: str) -> Cell[RobustnessResult]:
        write = gain if "shift" in measure else share
        return lambda result: known(write, getattr(result.edits.get(kind), measure, None))

    def spread(part: str) -> Cell[RobustnessResult]:
        return lambda result: known(decimals, getattr(result.spread, part, None))

    lines: list[Line[RobustnessResult]] = [
        ("pairs", lambda result: count(result.pairs)),
        ("without a score", lambda result: count(result.unscored)),
    ]
    for kind in names_of(result.edits for result in models.values()):
        lines.append(_named(kind))
        lines += [(label, effect(kind, measure)) for measure, label in labels.items()]
    lines += [
        "Others",
        ("accuracy against another problem's program", lambda result: known(share, result.unaligned)),
        ("spread of a score under edits", spread("mean")),
        ("mean gap of a pair's scores", spread("gap")),
        ("gap as a predictor of the right order", spread("area_gap")),
        ("gap over spread as one", spread("area_gap_over_spread")),
    ]
    return lines


def _plot_attacks(axes: Any, models: Models[RobustnessResult], colours: Colours) -> None:
    kinds = names_of(result.edits for result in models.values())
    width = 0.8 / len(models)
    for number, (model, result) in enumerate(models.items()):
        for group, kind in enumerate(kinds):
            if kind not in result.edits:
                continue
            before, attacked = result.edits[kind].before, result.edits[kind].attacked
            x = group + (number - (len(models) - 1) / 2) * width
            label = None if group else short(model)
            axes.bar(x, attacked.value, width * 0.92, color=colours[model], label=label)
            axes.plot([x, x], [attacked.low, attacked.high], color="black", linewidth=1.2)
            axes.plot([x - width / 2, x + width / 2], [before.value] * 2, color="black", linewidth=2)
    guide(axes, 0.5)
    axes.set_xticks(range(len(kinds)), [_named(kind) for kind in kinds])
    axes.set(ylim=(0, 1), ylabel="pairs in order", title="Wrong side edited (bar); before (line)")
    legend_below(axes, 2)
