"""Stage 3: the preference pairs that `codescaler_plugin.preference.mining` does not make from rollouts.

Two kinds beside its `rollout`: `near_miss` (a reference solution against a verified mutant of it in the same or
another style; both sides come from the same writer, so style tells nothing), and `real` (LLM-written MBPP and
HumanEval programs, see `real_pairs.py`). Unaligned pairs are drawn by the trainer.
"""

from pathlib import Path
from random import Random

from problems import STYLES, draw_problems, mutate, solve

from codescaler_plugin.data.pairs import read_pairs
from codescaler_plugin.records import PreferencePair

PAIRS_PER_PROBLEM = 6
REAL_PAIRS = Path(__file__).parent / "data" / "real_pairs.jsonl.gz"


def near_miss_pairs(count: int, rng: Random) -> list[PreferencePair]:
    """`count` near misses over training compositions.

    A mutant that survives the hidden tests (one in eight) is no negative. These programs are ours, not a model's, so
    the tests are put to their meaning (`Program.run`), not to a sandboxed process.
    """
    pairs: list[PreferencePair] = []
    stream = draw_problems(rng, held_out=False)
    while len(pairs) < count:
        problem, style = next(stream), rng.choice(STYLES)
        wrong_style = style if rng.random() < 0.7 else rng.choice(STYLES)
        wrong = mutate(problem.program, rng)
        # A mutant may take another type of argument: then it is wrong without a run.
        fits = wrong.source.argument == problem.program.source.argument
        if fits and all(wrong.run(argument) == expected for argument, expected in problem.tests):
            continue
        chosen, rejected = solve(problem.program, style), solve(wrong, wrong_style)
        pairs.append(PreferencePair(problem.problem, chosen, rejected, "near_miss"))
    return pairs


def real_pairs(split: str) -> list[PreferencePair]:
    """The vendored pairs of LLM-written programs, of one side of their problem-disjoint split: train or held_out."""
    return [pair for pair in read_pairs(REAL_PAIRS) if pair.split == split]
