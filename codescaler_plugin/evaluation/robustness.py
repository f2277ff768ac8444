"""What edits that change nothing do to the scores: comments, praise, dead code, other names, another layout.

Each kind of `preference.rewrites.KEEPING` is used as an attack: the *wrong* program is edited, the right one is not.
The edits keep what a program does by their making; nothing is run. What breaking edits do, pairs tell that execution
has confirmed: `codescaler augment`, then `codescaler evaluate pairs`.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict
from math import sqrt
from random import Random
from statistics import fmean, pstdev
from typing import Any, Unpack

from codescaler_plugin.data.matching import problem_key
from codescaler_plugin.errors import DataError
from codescaler_plugin.evaluation.score_file import Kept, Row, score_rows
from codescaler_plugin.intervals import area, mean_of, win
from codescaler_plugin.preference.mutations import KEEPING
from codescaler_plugin.records import PreferencePair
from codescaler_plugin.scoring import Scorer

UNALIGNED = "unaligned"


def evaluate_robustness(
    pairs: Sequence[PreferencePair],
    scorer: Scorer,
    *,
    limit: int = 500,
    seed: int = 0,
    **kept: Unpack[Kept],
) -> dict[str, Any]:
    """Accuracy and score under edits that keep the label, as JSON's types.

    For each kind, over the pairs to whose both sides it applies: accuracy `before`; `attacked` (the wrong side
    edited); `both` edited; `right only` edited; `prefers edited`: share of programs, right and wrong, that score
    higher when edited (0.5 wanted); `shift right`, `shift wrong`: mean change of score, in logits. `unaligned` is
    the accuracy against another problem's right program. `spread` is the standard deviation of a program's score under
    its edits; `uncertainty` compares, as tellers of the right order (area under the curve), the gap alone with the gap
    over the spread of its two sides.

    Args:
        pairs: n pairs of Python programs; others are edited by no kind.
        scorer: gives raw logits.
        limit: pairs drawn.
        seed: of draws and edits.
        **kept: see `score_rows`.

    Raises:
        DataError: no pairs, or none with two scores.
        ConfigError, ScorerError: see `score_rows`.
        MissingExtraError: scipy is not installed.
    """
    if not pairs:
        raise DataError("no pairs: there is nothing to evaluate")
    drawn = Random(seed).sample(list(pairs), min(limit, len(pairs)))
    rows = [_row(number, pair, drawn, seed) for number, pair in enumerate(drawn)]
    names: list[str] = []
    kinds: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    problems: dict[str, list[str]] = defaultdict(list)
    spreads, gaps, over_spread, right = [], [], [], []
    unaligned: list[float] = []
    unaligned_problems: list[str] = []
    for pair, row, scores in zip(drawn, rows, score_rows(rows, scorer, **kept), strict=True):
        chosen, rejected, *rest = scores
        if chosen is None or rejected is None:
            continue
        name = problem_key(pair.problem_id, pair.problem)
        names.append(name)
        if row.facts[UNALIGNED]:
            other = rest.pop()
            if other is not None:
                unaligned.append(win(chosen, other))
                unaligned_problems.append(name)
        edited: list[list[float]] = [[chosen], [rejected]]
        for kind, (of_chosen, of_rejected) in zip(
            row.facts["edits"], zip(rest[::2], rest[1::2], strict=True), strict=True
        ):
            if of_chosen is None or of_rejected is None:
                continue
            edited[0].append(of_chosen)
            edited[1].append(of_rejected)
            problems[kind].append(name)
            for measure, value in {
                "before": win(chosen, rejected),
                "attacked": win(chosen, of_rejected),
                "both": win(of_chosen, of_rejected),
                "right only": win(of_chosen, rejected),
                "prefers edited": (win(of_chosen, chosen) + win(of_rejected, rejected)) / 2,
                "shift right": of_chosen - chosen,
                "shift wrong": of_rejected - rejected,
            }.items():
                kinds[kind][measure].append(value)
        if len(edited[0]) > 2:
            deviations = [pstdev(scores_) for scores_ in edited]
            spreads += deviations
            noise = sqrt(deviations[0] ** 2 + deviations[1] ** 2)
            gaps.append(abs(chosen - rejected))
            over_spread.append(abs(chosen - rejected) / noise if noise else float("inf"))
            right.append(win(chosen, rejected))
    if not names:
        raise DataError(f"none of {len(drawn)} pairs has a score on both sides: is max_length too small for them?")

    def mean(kind: str, measure: str, values: list[float]) -> dict[str, Any]:
        bounds = (min(values), max(values)) if "shift" in measure else (0, 1)
        return asdict(mean_of(values, problems[kind], seed=seed, bounds=bounds))

    found: dict[str, Any] = {
        "pairs": len(drawn),
        "unscored": len(drawn) - len(names),
        "kinds": {
            kind: {measure: mean(kind, measure, values) for measure, values in kinds[kind].items()}
            for kind in KEEPING
            if kind in kinds
        },
    }
    if unaligned:
        found[UNALIGNED] = asdict(mean_of(unaligned, unaligned_problems, seed=seed))
    if spreads:
        found["spread"] = {"mean": fmean(spreads), "gap": fmean(gaps), "programs": len(spreads)}
        found["uncertainty"] = {
            name: area(*([value for value, one in zip(values, right, strict=True) if one == side] for side in (1, 0)))
            for name, values in (("gap", gaps), ("gap over spread", over_spread))
        }
    return found


def _row(number: int, pair: PreferencePair, drawn: Sequence[PreferencePair], seed: int) -> Row:
    """Both sides as they are, both under each kind that applies to both, and another problem's right program."""
    codes = [pair.chosen, pair.rejected]
    applied = []
    for kind, change in KEEPING.items():
        edited = [change(code, Random(f"{seed} {kind} {number}")) for code in codes[:2]]
        if all(one is not None and one != code for one, code in zip(edited, codes, strict=False)):
            codes += [one for one in edited if one is not None]
            applied.append(kind)
    others = [one.chosen for one in drawn if one.problem != pair.problem]
    if others:
        codes.append(Random(f"{seed} {UNALIGNED} {number}").choice(others))
    return Row(
        {"row": number, "problem_id": pair.problem_id, "kind": pair.kind, "edits": applied, UNALIGNED: bool(others)},
        tuple((pair.problem, code) for code in codes),
    )
