"""Known scores and verdicts for the tests of selection."""

import math
import random
from collections.abc import Sequence
from typing import Any

from codescaler_plugin import CodeScaler, CodeScalerConfig, best_of_n
from codescaler_plugin.records import Judgement, Problem, ScriptTest, Status, Verdict
from codescaler_plugin.selection.calibration import Calibration
from codescaler_plugin.selection.ranking import chosen, rank
from codescaler_plugin.selection.records import Selection
from codescaler_plugin.testing import FakeExecutor, FakeScorer
from tests.samples import fenced

PROBLEM = "Write solve(n): n plus one."
TESTS = Problem("p", PROBLEM, (ScriptTest("assert solve(1) == 2"),), "solve")
SURE = Calibration("isotonic", 10, 5, knots=((0.0, 0.5), (1.0, 0.6), (2.0, 0.9), (4.0, 0.98)))


def scaler_of(scores: dict[str, float | None]) -> CodeScaler:
    return CodeScaler(FakeScorer(scores), config=CodeScalerConfig(model="table"))


def choose(scores: dict[str, float | None], codes: Sequence[str], **settings: Any) -> Selection:
    return best_of_n(scaler_of(scores), PROBLEM, [fenced(code) for code in codes], **settings)


def order(selection: Selection) -> list[int]:
    return [candidate.index for candidate in selection.ranked]


def executor_of(passed: dict[str, tuple[int, int]]) -> FakeExecutor:
    """An executor with the number of tests that each code passes, and of all."""
    return FakeExecutor(
        {
            code: Verdict(right == total, "" if right == total else "wrong", right, total)
            for code, (right, total) in passed.items()
        }
    )


def ran(executor: FakeExecutor) -> list[str]:
    """The codes that were run, in order."""
    return [code.strip() for code, _ in executor.jobs]


def synthetic(count: int, seed: int, candidates: int = 8) -> list[tuple[Selection, list[bool]]]:
    """Problems of unequal hardness; a right program scores higher by 1.5 with a noise of 1."""
    rng = random.Random(seed)
    labelled = []
    for _ in range(count):
        ease = rng.random()
        passed = [rng.random() < ease for _ in range(candidates)]
        judgements = [
            Judgement(1.0, rng.gauss(1.5 * right, 1.0), Status.OK, f"x = {index}\n")
            for index, right in enumerate(passed)
        ]
        labelled.append((chosen(rank([""] * candidates, judgements)), passed))
    return labelled


def drawn_margins(count: int, seed: int = 0, slope: float = 1.5) -> tuple[list[float], list[float]]:
    """Margins that are right with probability 1 / (1 + exp(-slope margin))."""
    rng = random.Random(seed)
    margins = [rng.uniform(0, 3) for _ in range(count)]
    return margins, [float(rng.random() < 1 / (1 + math.exp(-slope * margin))) for margin in margins]
