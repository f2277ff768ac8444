"""Accuracy of a reward model on pairs, beside the controls that need no reward model.

An accuracy alone says little: in LLM-written pairs "the longer is right" already reaches about 0.61. So the controls
are measured with it: length, all shallow features together, a language model's log-probability, the model's preference
between two right programs, and bugs that people made.
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
from codescaler_plugin.evaluation.score_file import Row, ScoreOptions, score_rows
from codescaler_plugin.intervals import mean_of, win
from codescaler_plugin.preference.baselines import check_causal_model, log_probability_wins, shallow_wins
from codescaler_plugin.preference.mutations import normalized
from codescaler_plugin.records import PreferencePair
from codescaler_plugin.scoring import Scorer

SCORE_GAPS = (0.1, 0.25, 0.5, 1.0, 2.0, 4.0)
RATE_GAPS = (0.25, 0.5, 0.75)

Json = dict[str, Any]


@dataclass(frozen=True)
class ScoredPair:
    """A pair with the raw scores of both sides."""

    pair: PreferencePair
    chosen: float
    rejected: float

    @property
    def gap(self) -> float:
        """Score of the right program minus that of the wrong one."""
        return self.chosen - self.rejected

    @property
    def win(self) -> float:
        """1 if the right program has the higher score, 0 if the lower one, 0.5 for a tie."""
        return win(self.chosen, self.rejected)

    @property
    def problem(self) -> str:
        """Key of the problem, see `problem_key`."""
        return problem_key(self.pair.problem_id, self.pair.problem)


def score_pairs(pairs: Sequence[PreferencePair], scorer: Scorer, **options: Unpack[ScoreOptions]) -> list[ScoredPair]:
    """Score both sides of every pair as bare code. Pairs with a side that gets no score are left out."""
    if not pairs:
        raise DataError("no pairs: there is nothing to evaluate")
    rows = [
        Row(
            {"row": number, "problem_id": pair.problem_id, "kind": pair.kind, "margin": pair.margin},
            ((pair.problem, pair.chosen), (pair.problem, pair.rejected)),
        )
        for number, pair in enumerate(pairs)
    ]
    scored = []
    for pair, (chosen, rejected) in zip(pairs, score_rows(rows, scorer, **options), strict=True):
        if chosen is not None and rejected is not None:
            scored.append(ScoredPair(pair, chosen, rejected))
    if not scored:
        raise DataError(f"none of {len(pairs)} pairs has a score on both sides: is max_length too small for them?")
    return scored


def evaluate_pairs(
    pairs: Sequence[PreferencePair],
    scorer: Scorer,
    *,
    human_bugs: Sequence[PreferencePair] = (),
    base_model: str | None = None,
    base_pairs: int = 256,
    seed: int = 0,
    **options: Unpack[ScoreOptions],
) -> Json:
    """Pair accuracy overall, in parts, and beside its controls, as JSON's types.

    A tie counts one half. Intervals are 95%, from a bootstrap over problems. `macro` counts each problem once.
    `above` holds, pair by pair, the accuracy minus that of each control; `strongest` names the control with the
    smallest macro gain. Two controls compare right programs, where 0.5 is best: `prefers rewritten` compares a program
    with itself after `ast.unparse`, and `prefers longer` the shortest and the longest right program of a problem.

    Args:
        pairs: n pairs of any kinds.
        scorer: scorer that returns raw logits.
        human_bugs: pairs whose wrong side a person broke, see `read_human_bugs`. By default this control is left out.
        base_model: causal language model for the control by log-probability. By default this control is left out.
        base_pairs: pairs drawn for that control; `log_probability` holds the accuracies of both on the same draw.
        seed: seed of the draws.
        **options: see `score_rows`. The scores of controls are kept beside the output, as `*.human_bugs.jsonl` and
            `*.rewritten.jsonl`; their rows are steps of progress, too.

    Raises:
        DataError: there is nothing to evaluate.
        ConfigError, ScorerError: see `score_rows`.
        MissingExtraError: scipy is not installed.

    Example:
        >>> from codescaler_plugin.testing import FakeScorer
        >>> problems = [("1", "Set x to 2.", "x = 2", "x = 1"), ("2", "Set y to 3.", "y = 3", "y = 33")]
        >>> pairs = [PreferencePair(text, right, wrong, "rollout", id_) for id_, text, right, wrong in problems]
        >>> result = evaluate_pairs(pairs, FakeScorer(lambda problem, code: "2" in code or "33" in code))
        >>> result["macro"]["value"], result["controls"]["longer"]["macro"]["value"]
        (0.5, 0.25)
    """
    if base_model is not None:
        check_causal_model(base_model)
    scored = score_pairs(pairs, scorer, **options)
    problems = [pair.problem for pair in scored]
    wins = [pair.win for pair in scored]
    longer = _longer(scored)
    rules = {
        "longer": longer,
        "shorter": [1 - share for share in longer],
        "shallow": shallow_wins([pair.pair for pair in scored]),
    }
    controls: Json = {name: _means(values, problems, seed) for name, values in rules.items()}
    above = {name: _gains(wins, values, problems, seed) for name, values in rules.items()}

    def beside(control: str) -> ScoreOptions:
        output = options.get("output")
        return {**options, "output": None if output is None else output.with_name(f"{output.stem}.{control}.jsonl")}

    controls |= _prefers_longer(scored, seed)
    controls |= _prefers_rewritten(scored, scorer, seed, beside("rewritten"))
    if human_bugs:
        controls["human_bugs"] = _human_bugs(score_pairs(human_bugs, scorer, **beside("human_bugs")), seed)
    if base_model is not None and (measured := _log_probability(scored, base_model, base_pairs, seed)):
        controls["log_probability"], above["log_probability"] = measured
    own = _means(wins, problems, seed)
    return {
        "pairs": len(pairs),
        "unscored": len(pairs) - len(scored),
        "ties": sum(pair.gap == 0 for pair in scored),
        "accuracy": own["all"],
        "macro": own["macro"],
        "kinds": _parts(scored, [pair.pair.kind for pair in scored], seed),
        "pass_rate_gap": _binned(scored, [pair.pair.margin for pair in scored], RATE_GAPS, seed),
        "score_gap": _binned(scored, [abs(pair.gap) for pair in scored], SCORE_GAPS, seed),
        "controls": controls,
        "above": above,
        "strongest": min(above, key=lambda name: above[name]["macro"]["value"]),
    }


def read_human_bugs(path: str | Path) -> Iterator[PreferencePair]:
    """The rows of HumanEvalPack (bigcode-project/octopack) as pairs of the canonical and the broken program."""
    for _, where, row in rows_of(path):
        missing = [name for name in ("prompt", "canonical_solution", "buggy_solution") if not row.get(name)]
        if missing:
            raise DataError(f"{where}: no {', '.join(missing)}: expected the columns of HumanEvalPack")
        yield PreferencePair(
            row["prompt"],
            row["prompt"] + row["canonical_solution"],
            row["prompt"] + row["buggy_solution"],
            str(row.get("bug_type") or "human bug"),
            str(row.get("task_id") or where),
        )


def bin_names(edges: Sequence[float]) -> list[str]:
    """The names of the half-open bins between edges, the lowest first."""
    inner = [f"{low:g} to {high:g}" for low, high in pairwise(edges)]
    return [f"below {edges[0]:g}", *inner, f"{edges[-1]:g} and more"]


def _means(values: Sequence[float], problems: Sequence[str], seed: int, low: float = 0.0) -> Json:
    """Over all rows, and over problems; the values are in [low, 1]."""
    return {
        name: asdict(mean_of(values, problems, macro=name == "macro", seed=seed, bounds=(low, 1)))
        for name in ("all", "macro")
    }


def _gains(own: Sequence[float], other: Sequence[float], problems: Sequence[str], seed: int) -> Json:
    return _means([mine - theirs for mine, theirs in zip(own, other, strict=True)], problems, seed, -1)


def _parts(scored: Sequence[ScoredPair], names: Sequence[str], seed: int) -> dict[str, Json]:
    """The accuracy of the pairs of each name."""
    members: dict[str, list[ScoredPair]] = defaultdict(list)
    for pair, name in zip(scored, names, strict=True):
        members[name].append(pair)
    return {
        name: asdict(mean_of([pair.win for pair in part], [pair.problem for pair in part], seed=seed))
        for name, part in members.items()
    }


def _binned(
    scored: Sequence[ScoredPair], values: Sequence[float | None], edges: Sequence[float], seed: int
) -> dict[str, Json]:
    """The accuracy of the pairs in each bin of a value, in the order of the bins."""
    names = [*bin_names(edges), "unknown"]
    bins = ["unknown" if value is None else names[sum(value >= edge for edge in edges)] for value in values]
    parts = _parts(scored, bins, seed)
    return {name: parts[name] for name in names if name in parts}


def _longer(scored: Sequence[ScoredPair]) -> list[float]:
    """The wins of the rule "the longer is right"."""
    return [win(len(pair.pair.chosen), len(pair.pair.rejected)) for pair in scored]


def _prefers_longer(scored: Sequence[ScoredPair], seed: int) -> Json:
    """The preference between the shortest and the longest right program of each problem."""
    right: dict[str, dict[str, float]] = defaultdict(dict)
    for pair in scored:
        right[pair.problem].setdefault(pair.pair.chosen, pair.chosen)
    wins = {}
    for problem, scores in right.items():
        shortest, longest = min(scores, key=len), max(scores, key=len)
        if len(shortest) < len(longest):
            wins[problem] = win(scores[longest], scores[shortest])
    return {"prefers longer": asdict(mean_of(list(wins.values()), list(wins), seed=seed))} if wins else {}


def _prefers_rewritten(scored: Sequence[ScoredPair], scorer: Scorer, seed: int, options: ScoreOptions) -> Json:
    """The preference between the first right program of each problem and itself in another layout."""
    rewritten = []
    for pair in {pair.problem: pair for pair in reversed(scored)}.values():
        code = normalized(pair.pair.chosen, Random(seed))
        if code is not None and code.strip() != pair.pair.chosen.strip():
            rewritten.append((pair, code))
    rows = [Row({"control": "rewritten"}, ((pair.pair.problem, code),)) for pair, code in rewritten]
    scores = score_rows(rows, scorer, **options) if rows else []
    wins = {
        pair.problem: win(score, pair.chosen)
        for (pair, _), (score,) in zip(rewritten, scores, strict=True)
        if score is not None
    }
    return {"prefers rewritten": asdict(mean_of(list(wins.values()), list(wins), seed=seed))} if wins else {}


def _human_bugs(scored: Sequence[ScoredPair], seed: int) -> Json:
    problems = [pair.problem for pair in scored]
    return {
        **asdict(mean_of([pair.win for pair in scored], problems, seed=seed)),
        "longer": asdict(mean_of(_longer(scored), problems, seed=seed)),
    }


def _log_probability(scored: Sequence[ScoredPair], base_model: str, count: int, seed: int) -> tuple[Json, Json] | None:
    """The control by log-probability and the gain over it, on a draw of the pairs; None if no pair of it is scored."""
    drawn = Random(seed).sample(scored, min(count, len(scored)))
    of_base = log_probability_wins([pair.pair for pair in drawn], base_model)
    compared = [(pair, theirs) for pair, theirs in zip(drawn, of_base, strict=True) if theirs is not None]
    if not compared:
        return None
    problems = [pair.problem for pair, _ in compared]
    own, theirs = [pair.win for pair, _ in compared], [theirs for _, theirs in compared]
    control = {
        "base": base_model,
        "pairs": len(compared),
        **_means(theirs, problems, seed),
        "model": asdict(mean_of(own, problems, macro=True, seed=seed)),
    }
    return control, _gains(own, theirs, problems, seed)
