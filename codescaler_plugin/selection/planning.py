"""Reward model, tests, or both: which is cheapest for given costs, replayed on candidates with known verdicts."""

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import fmean

from codescaler_plugin.errors import ConfigError, DataError
from codescaler_plugin.execution.executor import Job
from codescaler_plugin.records import Outcome, Problem, Ranked, ScriptTest, Selection, Verdict
from codescaler_plugin.selection.calibration import Calibration, fit_calibration
from codescaler_plugin.selection.cascade import CascadeConfig, decide_by_tests

WAYS = ("rm", "tests", "cascade")
TARGETS = (0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.95, 0.98, 0.99, 1.01)


@dataclass(frozen=True)
class Costs:
    """What things cost, all in one unit of your choice: seconds, cents.

    Attributes:
        score: scoring one candidate.
        test: running one program against its tests.
        wrong: answering a problem wrongly, or not at all.
    """

    score: float
    test: float
    wrong: float

    def __post_init__(self) -> None:
        if not all(0 <= cost < math.inf for cost in (self.score, self.test, self.wrong)):
            raise ConfigError(f"{self}: expected finite costs of at least 0, all in one unit")


@dataclass(frozen=True)
class Plan:
    """A way to choose, with what it would have cost; all numbers are means per problem.

    Attributes:
        way: `rm`, `tests` (programs as given, until one passes), or `cascade`.
        target: of the cascade; above 1: every choice is tested.
        accuracy: share of problems answered rightly.
        executions: programs run.
        scored: candidates scored.
        cost: in the unit of the costs; 0 of a plan without costs.
    """

    way: str
    target: float | None
    accuracy: float
    executions: float
    scored: float
    cost: float = 0.0

    def __post_init__(self) -> None:
        if self.way not in WAYS or (self.way == "cascade") != (self.target is not None):
            raise DataError(f"{self}: expected a way of {', '.join(WAYS)}, and a target of a cascade alone")
        counts = (self.executions, self.scored, self.cost, 1.0 if self.target is None else self.target)
        if not 0 <= self.accuracy <= 1 or not all(0 <= count < math.inf for count in counts):
            raise DataError(f"{self}: expected an accuracy in [0, 1] and finite numbers of at least 0")


Labelled = tuple[Selection, Sequence[bool]]
"""A ranked problem and, for each candidate in the order in which it was given, whether it passes."""


def learnable(labelled: Sequence[Labelled]) -> tuple[list[float], list[float]]:
    """Margins of the first programs and whether they pass (1 or 0): what `fit_calibration` wants.

    Problems without a margin (fewer than two programs with scores) are left out.
    """
    found = [(one.margin, float(passed[one.ranked[0].index])) for one, passed in labelled if one.margin is not None]
    return [margin for margin, _ in found], [right for _, right in found]


def fit_margins(labelled: Sequence[Labelled], *, model: str = "") -> Calibration:
    """Margin -> probability that the first program passes, for `best_of_n` and `cascade`.

    Platt's curve: with the few hundred problems that one has, an isotonic one promises too much at its upper end
    (benchmarks/bench_selection.py).

    Args:
        labelled: a few dozen problems at least, ranked as those to come will be.
        model: noted in the result.

    Raises:
        DataError: no problem has a margin.
        MissingExtraError: scikit-learn is not installed.
    """
    margins, right = learnable(labelled)
    if not margins:
        raise DataError("no problem has two programs with scores: there is no margin to learn from")
    return fit_calibration(margins, right, method="platt", model=model)


def plan(labelled: Sequence[Labelled], costs: Costs) -> list[Plan]:
    """Every way to choose, the cheapest first: `measured_ways`, `priced`."""
    return priced(measured_ways(labelled), costs)


def priced(plans: Sequence[Plan], costs: Costs) -> list[Plan]:
    """The same plans with what they cost, the cheapest first; of equal ones, the earlier."""

    def cost(one: Plan) -> float:
        return costs.score * one.scored + costs.test * one.executions + costs.wrong * (1 - one.accuracy)

    return sorted((replace(one, cost=cost(one)) for one in plans), key=lambda one: one.cost)


def measured_ways(labelled: Sequence[Labelled]) -> list[Plan]:
    """Every way to choose, without costs. Nothing is executed.

    The cascade's confidence is calibrated on one half of the problems and replayed on the other, both ways.

    Args:
        labelled: problems like those to come, at least two; `replay` says what is done with them.

    Raises:
        DataError: fewer than two problems, no margin in one half of them, or a problem with another number of verdicts
            than candidates.
        MissingExtraError: scikit-learn is not installed.
    """
    for number, (selection, passed) in enumerate(labelled):
        if len(selection.ranked) != len(passed):
            raise DataError(f"problem {number} has {len(selection.ranked)} candidates and {len(passed)} verdicts")
    if len(labelled) < 2:
        raise DataError(f"{len(labelled)} problems: a plan wants two at least, and some hundred to be trusted")
    candidates = fmean(len(one.ranked) for one, _ in labelled)
    halves = labelled[::2], labelled[1::2]
    fitted = [fit_margins(half) for half in halves[::-1]]

    def tried(way: str, target: float | None) -> Plan:
        done: list[Selection] = []
        for half, calibration in zip(halves, fitted, strict=True):
            given = [(keep_order(one) if way == "tests" else one, passed) for one, passed in half]
            budget = 0 if way == "rm" else None
            config = CascadeConfig(None if target is None else calibration, target or 1.0, budget=budget)
            done += replay(given, config)
        verdicts = [passed for half in halves for _, passed in half]
        right = fmean(is_right(one, passed) for one, passed in zip(done, verdicts, strict=True))
        runs = fmean(one.executions for one in done)
        return Plan(way, target, right, runs, 0.0 if way == "tests" else candidates)

    return [tried("rm", None), tried("tests", None), *(tried("cascade", target) for target in TARGETS)]


def with_plans(calibration: Calibration, plans: Sequence[Plan]) -> str:
    """A calibration with what each way was worth where it was fitted, as one line of JSON.

    `read_calibration` reads the one, `read_plans` the other.
    """
    rows = [asdict(replace(one, cost=0.0)) for one in plans]
    return json.dumps({**json.loads(calibration.to_json()), "plans": rows})


def read_plans(path: Path) -> list[Plan]:
    """What each way was worth, from a file of `codescaler select --calibrate`; without costs, see `priced`.

    Raises:
        ConfigError: the file cannot be read.
        DataError: it holds no plans.
    """
    try:
        plans = [Plan(**row) for row in json.loads(path.read_bytes())["plans"]]
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from error
    except (ValueError, KeyError, TypeError, DataError) as error:
        raise DataError(
            f"{path} does not say what each way to choose is worth ({type(error).__name__}: {error}): make one with "
            "codescaler select --calibrate"
        ) from error
    if not plans:
        raise DataError(f"{path} holds no plans: make one with codescaler select --calibrate")
    return plans


def replay(labelled: Sequence[Labelled], config: CascadeConfig) -> list[Selection]:
    """What `decide_by_tests` would have chosen, the verdicts being known; same length, same order."""
    problems = [Problem(id=str(number), text="", tests=(ScriptTest(""),)) for number in range(len(labelled))]
    known = {
        (one.judgement.code, problem.id): passed[one.index]
        for (selection, passed), problem in zip(labelled, problems, strict=True)
        for one in selection.programs
    }
    return decide_by_tests([one for one, _ in labelled], problems, executor=_Known(known), config=config)


def is_right(selection: Selection, passed: Sequence[bool]) -> bool:
    """Whether a winner was chosen and passes."""
    return selection.outcome is Outcome.CHOSEN and passed[selection.ranked[0].index]


class _Known:
    """An executor that has seen it all."""

    def __init__(self, passed: dict[tuple[str, str], bool]) -> None:
        self.passed = passed

    def run(self, jobs: Sequence[Job], *, progress: object = None) -> list[Verdict]:  # noqa: ARG002
        return [
            Verdict(known := self.passed[code, problem.id], tests_passed=int(known), tests_total=1)
            for code, problem in jobs
        ]


def keep_order(selection: Selection) -> Selection:
    """The same candidates in the order in which they came, their scores forgotten."""
    groups: dict[int, list[Ranked]] = {}
    for one in sorted(selection.ranked, key=lambda one: one.index):
        leader = one.index if one.duplicate_of is None else one.duplicate_of
        groups.setdefault(leader, []).append(one)
    ranked = tuple(one for group in groups.values() for one in group)
    return replace(selection, ranked=ranked, margin=None, probability=None)
