"""Stage 3: preference pairs. Positive passes every hidden test, negative is valid and fails one; same problem.

Four kinds: `rollout` (both from the policy), `near_miss` (a reference solution against a verified mutant of it in the
same or another style; both sides come from the same writer, so style tells nothing), `unaligned` (the negative is
a right solution of another problem; the share of 0.3 is inferred from the name of the paper's artefact), and `real`
(LLM-written MBPP and HumanEval programs, see `real_pairs.py`).
"""

import gzip
import json
from dataclasses import dataclass
from pathlib import Path
from random import Random

from problems import STYLES, MiniatureProblem, draw_problems, mutate, solve

from codescaler_plugin.evaluation.generation import Sampled
from codescaler_plugin.extraction import extract_code
from codescaler_plugin.records import Status

UNALIGNED_SHARE = 0.3
PAIRS_PER_PROBLEM = 6
REAL_PAIRS = Path(__file__).parent / "data" / "real_pairs.jsonl.gz"


@dataclass(frozen=True)
class Pair:
    """A problem with a right and a wrong program, and where the two come from."""

    problem: str
    chosen: str
    rejected: str
    kind: str


def pairs_of_rollouts(problems: list[MiniatureProblem], sampled: Sampled, rng: Random) -> list[Pair]:
    """At most `PAIRS_PER_PROBLEM` pairs of distinct programs from each problem that has both sides."""
    pairs = []
    for problem, texts, verdicts in zip(problems, sampled.completions, sampled.passed, strict=True):
        sides: dict[bool, dict[str, None]] = {True: {}, False: {}}
        for text, passed in zip(texts, verdicts, strict=True):
            extraction = extract_code(text)
            if extraction.status is Status.OK:
                sides[passed][extraction.code] = None
        both = [(right, wrong) for right in sides[True] for wrong in sides[False]]
        for right, wrong in rng.sample(both, min(PAIRS_PER_PROBLEM, len(both))):
            pairs.append(Pair(problem.problem, right, wrong, "rollout"))
    return pairs


def near_miss_pairs(count: int, rng: Random) -> list[Pair]:
    """`count` pairs over training compositions, near misses and unaligned ones.

    A mutant that survives the hidden tests (one in eight) is no negative. These programs are ours, not a model's, so
    the tests are put to their meaning (`Program.run`), not to a sandboxed process.
    """
    pairs: list[Pair] = []
    stream = draw_problems(rng, held_out=False)
    other = next(stream).program
    while len(pairs) < count:
        problem, style = next(stream), rng.choice(STYLES)
        wrong_style = style if rng.random() < 0.7 else rng.choice(STYLES)
        unaligned = rng.random() < UNALIGNED_SHARE
        wrong = other if unaligned else mutate(problem.program, rng)
        other = problem.program
        # Another problem may take another type of argument: then it is wrong without a run.
        fits = wrong.source.argument == problem.program.source.argument
        if fits and all(wrong.run(argument) == expected for argument, expected in problem.tests):
            continue
        kind = "unaligned" if unaligned else "near_miss"
        pairs.append(Pair(problem.problem, solve(problem.program, style), solve(wrong, wrong_style), kind))
    return pairs


def real_pairs(*, held_out: bool) -> list[Pair]:
    """The vendored pairs of LLM-written programs, from one side of their problem-disjoint split."""
    with gzip.open(REAL_PAIRS, "rt", encoding="utf-8") as file:
        rows = [json.loads(line) for line in file]
    return [
        Pair(row["problem"], row["chosen"], row["rejected"], "real") for row in rows if row["held_out"] is held_out
    ]
