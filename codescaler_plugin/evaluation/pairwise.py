"""Accuracy of a reward model on pairs, beside the controls that need no reward model.

An accuracy alone says little: in LLM-written pairs "the longer is right" already reaches about 0.61. So the controls
are measured with it: length, all shallow features together, a language model's log-probability, the model's preference
between two right programs, and bugs that people made.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Unpack

from codescaler_plugin.data.matching import problem_key
from codescaler_plugin.data.rollouts import rows_of
from codescaler_plugin.errors import DataError
from codescaler_plugin.evaluation.pair_result import (
    RATE_GAPS,
    SCORE_GAPS,
    UNKNOWN,
    Control,
    ControlName,
    HumanBugs,
    PairResult,
    bin_names,
)
from codescaler_plugin.evaluation.score_file import Row, ScoreOptions, score_rows
from codescaler_plugin.evaluation.worst_pairs import SHOWN, WorstPair, worst_pair
from codescaler_plugin.intervals import Mean, mean_of, win
from codescaler_plugin.preference.baselines import check_causal_model, log_probability_wins, shallow_wins
from codescaler_plugin.preference.mutations import normalized
from codescaler_plugin.records import PreferencePair
from codescaler_plugin.scoring import Scorer


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
) -> PairResult:
    """Pair accuracy overall, in parts, and beside its controls; see `PairResult`.

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
        >>> result.macro.value, result.controls["longer"].macro.value
        (0.5, 0.25)
    """
    if base_model is not None:
        check_causal_model(base_model)
    scored = score_pairs(pairs, scorer, **options)
    problems, wins = [pair.problem for pair in scored], [pair.win for pair in scored]
    longer, shallow = _longer(scored), shallow_wins([pair.pair for pair in scored])
    rules: dict[ControlName, list[float]] = {
        "longer": longer,
        "shorter": [1 - share for share in longer],
        "shallow": shallow,
    }
    controls = {name: _control(wins, values, problems, seed) for name, values in rules.items()}

    def beside(control: str) -> ScoreOptions:
        output = options.get("output")
        return {**options, "output": None if output is None else output.with_name(f"{output.stem}.{control}.jsonl")}

    rewritten = _prefers_rewritten(scored, scorer, seed, beside("rewritten"))
    bugs = _human_bugs(score_pairs(human_bugs, scorer, **beside("human_bugs")), seed) if human_bugs else None
    if base_model is not None and (control := _log_probability(scored, base_model, base_pairs, seed)) is not None:
        controls["log_probability"] = control
    return PairResult(
        pairs=len(pairs),
        unscored=len(pairs) - len(scored),
        ties=sum(pair.gap == 0 for pair in scored),
        accuracy=mean_of(wins, problems, seed=seed),
        macro=mean_of(wins, problems, macro=True, seed=seed),
        kinds=_parts(scored, [pair.pair.kind for pair in scored], seed),
        pass_rate_gap=_binned(scored, [pair.pair.margin for pair in scored], RATE_GAPS, seed),
        score_gap=_binned(scored, [abs(pair.gap) for pair in scored], SCORE_GAPS, seed),
        controls=controls,
        base_model=base_model or "",
        prefers_longer=_prefers_longer(scored, seed),
        prefers_rewritten=rewritten,
        human_bugs=bugs,
        worst=_worst(scored, shallow),
    )


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


def _worst(scored: Sequence[ScoredPair], shallow: Sequence[float]) -> tuple[WorstPair, ...]:
    """The pairs in the wrong order with the largest gaps, the largest first."""
    wrong = [(pair, wins) for pair, wins in zip(scored, shallow, strict=True) if pair.gap < 0]
    wrong.sort(key=lambda item: item[0].gap)
    return tuple(worst_pair(pair.pair, pair.chosen, pair.rejected, wins == 0) for pair, wins in wrong[:SHOWN])


def _control(own: Sequence[float], theirs: Sequence[float], problems: Sequence[str], seed: int) -> Control:
    gains = [mine - other for mine, other in zip(own, theirs, strict=True)]
    return Control(
        accuracy=mean_of(theirs, problems, seed=seed),
        macro=mean_of(theirs, problems, macro=True, seed=seed),
        model=mean_of(own, problems, macro=True, seed=seed),
        gain=mean_of(gains, problems, seed=seed, bounds=(-1, 1)),
        macro_gain=mean_of(gains, problems, macro=True, seed=seed, bounds=(-1, 1)),
    )


def _parts(scored: Sequence[ScoredPair], names: Sequence[str], seed: int) -> dict[str, Mean]:
    """The accuracy of the pairs of each name."""
    members: dict[str, list[ScoredPair]] = defaultdict(list)
    for pair, name in zip(scored, names, strict=True):
        members[name].append(pair)
    return {
        name: mean_of([pair.win for pair in part], [pair.problem for pair in part], seed=seed)
        for name, part in members.items()
    }


def _binned(
    scored: Sequence[ScoredPair], values: Sequence[float | None], edges: tuple[float, ...], seed: int
) -> dict[str, Mean]:
    """The accuracy of the pairs in each bin of a value, in the order of the bins."""
    names = [*bin_names(edges), UNKNOWN]
    bins = [UNKNOWN if value is None else names[sum(value >= edge for edge in edges)] for value in values]
    parts = _parts(scored, bins, seed)
    return {name: parts[name] for name in names if name in parts}


def _longer(scored: Sequence[ScoredPair]) -> list[float]:
    """The wins of the rule "the longer is right"."""
    return [win(len(pair.pair.chosen), len(pair.pair.rejected)) for pair in scored]


def _prefers_longer(scored: Sequence[ScoredPair], seed: int) -> Mean | None:
    """The preference between the shortest and the longest right program of each problem."""
    right: dict[str, dict[str, float]] = defaultdict(dict)
    for pair in scored:
        right[pair.problem].setdefault(pair.pair.chosen, pair.chosen)
    wins = {}
    for problem, scores in right.items():
        shortest, longest = min(scores, key=len), max(scores, key=len)
        if len(shortest) < len(longest):
            wins[problem] = win(scores[longest], scores[shortest])
    return mean_of(list(wins.values()), list(wins), seed=seed) if wins else None


def _prefers_rewritten(scored: Sequence[ScoredPair], scorer: Scorer, seed: int, options: ScoreOptions) -> Mean | None:
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
    return mean_of(list(wins.values()), list(wins), seed=seed) if wins else None


def _human_bugs(scored: Sequence[ScoredPair], seed: int) -> HumanBugs:
    problems = [pair.problem for pair in scored]
    return HumanBugs(
        mean_of([pair.win for pair in scored], problems, seed=seed), mean_of(_longer(scored), problems, seed=seed)
    )


def _log_probability(scored: Sequence[ScoredPair], base_model: str, count: int, seed: int) -> Control | None:
    """The control by log-probability, on a draw of the pairs; None if no pair of it is scored."""
    drawn = Random(seed).sample(scored, min(count, len(scored)))
    of_base = log_probability_wins([pair.pair for pair in drawn], base_model)
    compared = [(pair, theirs) for pair, theirs in zip(drawn, of_base, strict=True) if theirs is not None]
    if not compared:
        return None
    wins, theirs = [pair.win for pair, _ in compared], [theirs for _, theirs in compared]
    return _control(wins, theirs, [pair.problem for pair, _ in compared], seed)
