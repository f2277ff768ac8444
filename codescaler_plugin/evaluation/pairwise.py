"""How often does a reward model put the right program first, and would something simpler do as well?

An accuracy alone says little: in LLM-written pairs "the longer is right" already reaches about 0.61. So it always
stands beside its controls: length, all shallow features together, a language model's log-probability, what the model
prefers where both programs are right, and bugs that people made.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from random import Random
from typing import Any, Unpack

from codescaler_plugin.data.matching import problem_key
from codescaler_plugin.data.rollouts import rows_of
from codescaler_plugin.errors import DataError
from codescaler_plugin.evaluation.score_file import Kept, Row, score_rows
from codescaler_plugin.intervals import mean_of, win
from codescaler_plugin.preference.baselines import (
    check_causal_model,
    log_probability_wins,
    shallow_wins,
)
from codescaler_plugin.preference.mutations import normal
from codescaler_plugin.records import PreferencePair
from codescaler_plugin.scoring import Scorer

SCORE_GAPS = (0.1, 0.25, 0.5, 1.0, 2.0, 4.0)
RATE_GAPS = (0.25, 0.5, 0.75)


@dataclass(frozen=True)
class ScoredPair:
    """A pair with its two raw scores; only pairs that have both."""

    pair: PreferencePair
    chosen: float
    rejected: float

    @property
    def gap(self) -> float:
        """Score of the right program minus that of the wrong one."""
        return self.chosen - self.rejected

    @property
    def problem(self) -> str:
        """What tells its problem from others."""
        return problem_key(self.pair.problem_id, self.pair.problem)


def score_pairs(
    pairs: Sequence[PreferencePair],
    scorer: Scorer,
    **kept: Unpack[Kept],
) -> list[ScoredPair]:
    """Both sides of every pair, as bare code; pairs with a side that gets no score are left out.

    See `score_rows` for the arguments and errors.

    Raises:
        DataError: no pairs, or no pair has two scores.
    """
    if not pairs:
        raise DataError("no pairs: there is nothing to evaluate")
    rows = [
        Row(
            {"row": number, "problem_id": pair.problem_id, "kind": pair.kind, "margin": pair.margin},
            ((pair.problem, pair.chosen), (pair.problem, pair.rejected)),
        )
        for number, pair in enumerate(pairs)
    ]
    found = []
    for pair, (chosen, rejected) in zip(pairs, score_rows(rows, scorer, **kept), strict=True):
        if chosen is not None and rejected is not None:
            found.append(ScoredPair(pair, chosen, rejected))
    if not found:
        raise DataError(f"none of {len(pairs)} pairs has a score on both sides: is max_length too small for them?")
    return found


def evaluate_pairs(
    pairs: Sequence[PreferencePair],
    scorer: Scorer,
    *,
    human_bugs: Sequence[PreferencePair] = (),
    base_model: str | None = None,
    base_pairs: int = 256,
    seed: int = 0,
    **kept: Unpack[Kept],
) -> dict[str, Any]:
    """Pair accuracy overall, in parts, and beside its controls, as JSON's types.

    A tie counts one half. Intervals are 95%, from a bootstrap over problems. `macro` counts each problem once.
    `above` holds, pair by pair, the accuracy minus that of each control: what the model is worth beyond it;
    `strongest` names the control over which that is least, each problem once. In the control `two right programs` 0.5
    is wanted: `prefers rewritten` is against the same program through `ast.unparse`, `prefers longer` is between the
    shortest and the longest right program of a problem.

    Args:
        pairs: n pairs of any kinds.
        scorer: gives raw logits.
        human_bugs: pairs whose wrong side a person broke, see `read_human_bugs`.
        base_model: causal language model for the control by log-probability; None: left out.
        base_pairs: pairs drawn for that control; `log_probability` holds the accuracy of both on the same draw.
        seed: of the draws.
        **kept: see `score_rows`. The scores of controls are kept beside the output, as `*.human_bugs.jsonl` and
            `*.rewritten.jsonl`; their rows are steps of progress, too.

    Raises:
        DataError: nothing to evaluate.
        ConfigError, ScorerError: see `score_rows`.
        MissingExtraError: scipy is not installed.
    """
    if base_model is not None:
        check_causal_model(base_model)
    scored = score_pairs(pairs, scorer, **kept)
    wins = [win(one.gap, 0.0) for one in scored]
    problems = [one.problem for one in scored]
    longer = _longer(scored)

    def parts(names: Sequence[str]) -> dict[str, dict[str, Any]]:
        members: dict[str, list[int]] = defaultdict(list)
        for place, name in enumerate(names):
            members[name].append(place)
        return {
            name: asdict(mean_of([wins[place] for place in rows], [problems[place] for place in rows], seed=seed))
            for name, rows in members.items()
        }

    def both(values: Sequence[float], of: Sequence[str], bounds: tuple[float, float] = (0, 1)) -> dict[str, Any]:
        return {
            name: asdict(mean_of(values, of, macro=name == "macro", seed=seed, bounds=bounds))
            for name in ("all", "macro")
        }

    rules = {"longer": longer, "shorter": [1 - one for one in longer]}
    rules["shallow"] = shallow_wins([one.pair for one in scored])
    controls: dict[str, Any] = {name: both(values, problems) for name, values in rules.items()}
    above = {
        name: both([one - two for one, two in zip(wins, values, strict=True)], problems, (-1, 1))
        for name, values in rules.items()
    }

    def beside(control: str) -> Kept:
        output = kept.get("output")
        return {**kept, "output": None if output is None else output.with_name(f"{output.stem}.{control}.jsonl")}

    controls |= _both_right(scored, scorer, seed, beside("rewritten"))
    if human_bugs:
        bugs = score_pairs(human_bugs, scorer, **beside("human_bugs"))
        broken = [one.problem for one in bugs]
        controls["human_bugs"] = {
            **asdict(mean_of([win(one.gap, 0.0) for one in bugs], broken, seed=seed)),
            "longer": asdict(mean_of(_longer(bugs), broken, seed=seed)),
        }
    if base_model is not None:
        drawn = Random(seed).sample(scored, min(base_pairs, len(scored)))
        likely = log_probability_wins([one.pair for one in drawn], base_model)
        held = [(one, other) for one, other in zip(drawn, likely, strict=True) if other is not None]
        if held:
            names = [one.problem for one, _ in held]
            ours, theirs = [win(one.gap, 0.0) for one, _ in held], [other for _, other in held]
            controls["log_probability"] = {
                "base": base_model,
                "pairs": len(held),
                **both(theirs, names),
                "model": asdict(mean_of(ours, names, macro=True, seed=seed)),
            }
            gains = [one - two for one, two in zip(ours, theirs, strict=True)]
            above["log_probability"] = both(gains, names, (-1, 1))
    own = both(wins, problems)
    return {
        "pairs": len(pairs),
        "unscored": len(pairs) - len(scored),
        "ties": sum(one.gap == 0 for one in scored),
        "accuracy": own["all"],
        "macro": own["macro"],
        "kinds": parts([one.pair.kind for one in scored]),
        "pass_rate_gap": _in_order(parts([_bin(one.pair.margin, RATE_GAPS) for one in scored]), RATE_GAPS),
        "score_gap": _in_order(parts([_bin(abs(one.gap), SCORE_GAPS) for one in scored]), SCORE_GAPS),
        "controls": controls,
        "above": above,
        "strongest": min(above, key=lambda name: above[name]["macro"]["value"]),
    }


def read_human_bugs(path: str | Path) -> Iterator[PreferencePair]:
    """The rows of HumanEvalPack (bigcode-project/octopack) as pairs: the canonical program against the broken one.

    Raises:
        ConfigError: nothing is there.
        DataError: a row without `prompt`, `canonical_solution` and `buggy_solution`; it is named.
    """
    for _, place, row in rows_of(path):
        missing = [name for name in ("prompt", "canonical_solution", "buggy_solution") if not row.get(name)]
        if missing:
            raise DataError(f"{place}: no {', '.join(missing)}: expected the columns of HumanEvalPack")
        yield PreferencePair(
            row["prompt"],
            row["prompt"] + row["canonical_solution"],
            row["prompt"] + row["buggy_solution"],
            str(row.get("bug_type") or "human bug"),
            str(row.get("task_id") or place),
        )


def _longer(scored: Sequence[ScoredPair]) -> list[float]:
    """How often the longer program is the right one."""
    return [win(len(one.pair.chosen), len(one.pair.rejected)) for one in scored]


def _both_right(scored: Sequence[ScoredPair], scorer: Scorer, seed: int, kept: Kept) -> dict[str, Any]:
    """What the model prefers among right programs of a problem; one comparison each problem."""
    right: dict[str, dict[str, float]] = defaultdict(dict)
    for one in scored:
        right[one.problem].setdefault(one.pair.chosen, one.chosen)
    controls: dict[str, Any] = {}
    longer = {}
    for problem, scores in right.items():
        least, most = min(scores, key=len), max(scores, key=len)
        if len(least) < len(most):
            longer[problem] = win(scores[most], scores[least])
    if longer:
        controls["prefers longer"] = asdict(mean_of(list(longer.values()), list(longer), seed=seed))
    rewritten = []
    for one in {one.problem: one for one in reversed(scored)}.values():
        again = normal(one.pair.chosen, Random(seed))
        if again is not None and again.strip() != one.pair.chosen.strip():
            rewritten.append((one, again))
    if rewritten:
        rows = [Row({"control": "rewritten"}, ((one.pair.problem, again),)) for one, again in rewritten]
        anew = score_rows(rows, scorer, **kept)
        held = [(one, score) for (one, _), (score,) in zip(rewritten, anew, strict=True) if score is not None]
        if held:
            wins = [win(score, one.chosen) for one, score in held]
            controls["prefers rewritten"] = asdict(mean_of(wins, [one.problem for one, _ in held], seed=seed))
    return controls


def _bin(value: float | None, edges: Sequence[float]) -> str:
    """The half-open bin a value is in, as text."""
    if value is None:
        return "unknown"
    return bin_names(edges)[sum(value >= edge for edge in edges)]


def bin_names(edges: Sequence[float]) -> list[str]:
    """The names of the half-open bins between edges, the lowest first."""
    inner = [f"{low:g} to {high:g}" for low, high in pairwise(edges)]
    return [f"below {edges[0]:g}", *inner, f"{edges[-1]:g} and more"]


def _in_order(found: dict[str, dict[str, Any]], edges: Sequence[float]) -> dict[str, dict[str, Any]]:
    return {name: found[name] for name in (*bin_names(edges), "unknown") if name in found}
