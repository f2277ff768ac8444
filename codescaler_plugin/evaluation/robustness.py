"""Robustness of scores against edits that change nothing: comments, praise, dead code, other names, another layout.

Each kind of `mutations.PRESERVING` serves as an attack: the *wrong* program is edited, the right one is not.
The edits keep the behaviour of a program by construction, so nothing is run. For edits that break programs, confirmed
by execution, use `codescaler augment`, then `codescaler evaluate pairs`.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from math import hypot, inf
from random import Random
from statistics import fmean, pstdev
from typing import Any, Unpack

from codescaler_plugin.data.matching import problem_key
from codescaler_plugin.errors import DataError
from codescaler_plugin.evaluation.score_file import Row, ScoreOptions, Scores, score_rows
from codescaler_plugin.intervals import area, mean_of, win
from codescaler_plugin.preference.mutations import PRESERVING
from codescaler_plugin.records import PreferencePair
from codescaler_plugin.scoring import Scorer

UNALIGNED = "unaligned"

_MEASURES: dict[str, Callable[[float, float, float, float], float]] = {  # of right, wrong, right edited, wrong edited
    "before": lambda right, wrong, _, __: win(right, wrong),
    "attacked": lambda right, _, __, wrong_edited: win(right, wrong_edited),
    "both": lambda _, __, right_edited, wrong_edited: win(right_edited, wrong_edited),
    "right only": lambda _, wrong, right_edited, __: win(right_edited, wrong),
    "prefers edited": lambda right, wrong, right_edited, wrong_edited: (
        (win(right_edited, right) + win(wrong_edited, wrong)) / 2
    ),
    "shift right": lambda right, _, right_edited, __: right_edited - right,
    "shift wrong": lambda _, wrong, __, wrong_edited: wrong_edited - wrong,
}


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
) -> dict[str, Any]:
    r"""Accuracy and score under edits that keep the label, as JSON's types.

    For each kind, over the pairs to whose both sides it applies: accuracy `before`, `attacked` (the wrong side
    edited), `both` edited, and `right only` edited; `prefers edited`, the share of programs, right and wrong, that
    score higher when edited (0.5 is best); `shift right` and `shift wrong`, the mean change of score in logits.
    `unaligned` is the accuracy against another problem's right program. `spread` is the standard deviation of a
    program's score under its edits. `uncertainty` compares two predictors of the right order by the area under the
    curve: the gap alone, and the gap over the spread of its two sides.

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
        >>> result["kinds"]["praise"]["attacked"]["value"]
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
    kinds = {kind: [pair for pair in scored if kind in pair.edited] for kind in PRESERVING}
    result: dict[str, Any] = {
        "pairs": len(drawn),
        "unscored": len(drawn) - len(scored),
        "kinds": {kind: _measures(kind, part, seed) for kind, part in kinds.items() if part},
    }
    compared = [(win(pair.right, pair.unaligned), pair.problem) for pair in scored if pair.unaligned is not None]
    if compared:
        result[UNALIGNED] = asdict(mean_of(*map(list, zip(*compared, strict=True)), seed=seed))
    return result | _spread([pair for pair in scored if len(pair.edited) > 1])


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
        codes.append(Random(f"{seed} {UNALIGNED} {number}").choice(others))
    return Row(
        {"row": number, "problem_id": pair.problem_id, "kind": pair.kind, "edits": kinds, UNALIGNED: bool(others)},
        tuple((pair.problem, code) for code in codes),
    )


def _scored(pair: PreferencePair, row: Row, scores: Scores) -> _Scored | None:
    """The scores of a `_row` by name; None if a side of the pair has none."""
    right, wrong, *rest = scores
    if right is None or wrong is None:
        return None
    unaligned = rest.pop() if row.facts[UNALIGNED] else None
    edited = {
        kind: (of_right, of_wrong)
        for kind, of_right, of_wrong in zip(row.facts["edits"], rest[::2], rest[1::2], strict=True)
        if of_right is not None and of_wrong is not None
    }
    return _Scored(problem_key(pair.problem_id, pair.problem), right, wrong, edited, unaligned)


def _measures(kind: str, scored: Sequence[_Scored], seed: int) -> dict[str, Any]:
    problems = [pair.problem for pair in scored]
    means = {}
    for name, measure in _MEASURES.items():
        values = [measure(pair.right, pair.wrong, *pair.edited[kind]) for pair in scored]
        bounds = (min(values), max(values)) if "shift" in name else (0, 1)
        means[name] = asdict(mean_of(values, problems, seed=seed, bounds=bounds))
    return means


def _spread(scored: Sequence[_Scored]) -> dict[str, Any]:
    """The spread of scores under edits, and its use as a sign of uncertainty."""
    if not scored:
        return {}
    gaps, over_spread, spreads, wins = [], [], [], []
    for pair in scored:
        sides = zip((pair.right, pair.wrong), *pair.edited.values(), strict=True)
        deviations = [pstdev(scores) for scores in sides]
        noise, gap = hypot(*deviations), abs(pair.right - pair.wrong)
        spreads += deviations
        gaps.append(gap)
        over_spread.append(gap / noise if noise else inf)
        wins.append(win(pair.right, pair.wrong))

    def by_win(values: Sequence[float], side: int) -> list[float]:
        return [value for value, outcome in zip(values, wins, strict=True) if outcome == side]

    return {
        "spread": {"mean": fmean(spreads), "gap": fmean(gaps), "programs": len(spreads)},
        "uncertainty": {
            name: area(by_win(values, 1), by_win(values, 0))
            for name, values in (("gap", gaps), ("gap over spread", over_spread))
        },
    }
