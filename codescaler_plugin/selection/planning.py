"""The cheapest strategy (reward model, tests, or a cascade of both) at given costs.

The strategies are replayed on candidates whose verdicts are known. Nothing is executed.
"""

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import fmean

from codescaler_plugin.errors import ConfigError, DataError
from codescaler_plugin.execution.executor import Job
from codescaler_plugin.records import Problem, ScriptTest, Verdict
from codescaler_plugin.selection.calibration import Calibration, fit_calibration
from codescaler_plugin.selection.cascade import CascadeConfig, decide_by_tests
from codescaler_plugin.selection.records import Outcome, Ranked, Selection

STRATEGIES = ("rm", "tests", "cascade")
TARGETS = (0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.95, 0.98, 0.99, 1.01)

Labelled = tuple[Selection, Sequence[bool]]  # a ranked problem, and whether each candidate passes, as given


@dataclass(frozen=True)
class Costs:
    """Costs in one unit of your choice, such as seconds or cents."""

    score: float  # of a candidate
    test: float  # of running a program against its tests
    wrong: float  # of a problem without a right choice

    def __post_init__(self) -> None:
        if not all(0 <= cost < math.inf for cost in (self.score, self.test, self.wrong)):
            raise ConfigError(f"{self}: expected finite costs of at least 0, all in one unit")


@dataclass(frozen=True)
class Plan:
    """A strategy with its measured results, which are means per problem."""

    strategy: str  # `rm`, `tests` (programs in their original order, until one passes), or `cascade`
    target: float | None  # probability of a cascade; above 1, every choice is tested
    accuracy: float  # share of problems with a right choice
    executions: float
    scored: float
    cost: float = 0.0  # 0 before `price_plans`

    def __post_init__(self) -> None:
        if self.strategy not in STRATEGIES or (self.strategy == "cascade") != (self.target is not None):
            raise DataError(f"{self}: expected a strategy of {', '.join(STRATEGIES)}, and a target of a cascade alone")
        counts = (self.executions, self.scored, self.cost, 1.0 if self.target is None else self.target)
        if not 0 <= self.accuracy <= 1 or not all(0 <= count < math.inf for count in counts):
            raise DataError(f"{self}: expected an accuracy in [0, 1] and finite numbers of at least 0")


def first_margins(labelled: Sequence[Labelled]) -> tuple[list[float], list[float]]:
    """Margins of the first programs of problems with two scored ones, and 1 or 0 for those that pass or fail."""
    rows = [
        (selection.margin, float(passed[selection.ranked[0].index]))
        for selection, passed in labelled
        if selection.margin is not None
    ]
    return [margin for margin, _ in rows], [right for _, right in rows]


def fit_margins(labelled: Sequence[Labelled], *, model: str = "") -> Calibration:
    """Fit margin -> probability that the first program passes, for `best_of_n` and `cascade`.

    It takes a few dozen problems, ranked in the same manner as those to come. The curve is Platt's: fitted on a few
    hundred problems, an isotonic one promises too much at its upper end (benchmarks/bench_selection.py).
    """
    margins, right = first_margins(labelled)
    if not margins:
        raise DataError("no problem has two programs with scores: there is no margin to learn from")
    return fit_calibration(margins, right, method="platt", model=model)


def measure_plans(labelled: Sequence[Labelled]) -> list[Plan]:
    """Replay every strategy, without costs, on two or more problems like those to come.

    The cascade's confidence is calibrated on one half of the problems and replayed on the other, both ways.
    """
    for number, (selection, passed) in enumerate(labelled):
        if len(selection.ranked) != len(passed):
            raise DataError(f"problem {number} has {len(selection.ranked)} candidates and {len(passed)} verdicts")
    if len(labelled) < 2:
        raise DataError(f"{len(labelled)} problems: a plan wants two at least, and some hundred to be trusted")
    candidates = fmean(len(selection.ranked) for selection, _ in labelled)
    halves = labelled[::2], labelled[1::2]
    verdicts = [passed for half in halves for _, passed in half]
    calibrations = [fit_margins(half) for half in halves[::-1]]

    def measured(strategy: str, target: float | None = None) -> Plan:
        selections: list[Selection] = []
        for half, calibration in zip(halves, calibrations, strict=True):
            if strategy == "tests":
                half = [(keep_order(selection), passed) for selection, passed in half]
            budget = 0 if strategy == "rm" else None
            config = CascadeConfig(None if target is None else calibration, target or 1.0, budget=budget)
            selections += replay(half, config)
        accuracy = fmean(map(is_right, selections, verdicts))
        executions = fmean(selection.executions for selection in selections)
        return Plan(strategy, target, accuracy, executions, 0.0 if strategy == "tests" else candidates)

    return [measured("rm"), measured("tests"), *(measured("cascade", target) for target in TARGETS)]


def price_plans(plans: Sequence[Plan], costs: Costs) -> list[Plan]:
    """The plans with their costs, the cheapest first; of equal ones, the earlier."""

    def cost(plan: Plan) -> float:
        return costs.score * plan.scored + costs.test * plan.executions + costs.wrong * (1 - plan.accuracy)

    return sorted((replace(plan, cost=cost(plan)) for plan in plans), key=lambda plan: plan.cost)


def with_plans(calibration: Calibration, plans: Sequence[Plan]) -> str:
    """A calibration and the plans measured where it was fitted, as a line for `read_calibration`, `read_plans`."""
    rows = [asdict(replace(plan, cost=0.0)) for plan in plans]
    return json.dumps({**json.loads(calibration.to_json()), "plans": rows})


def read_plans(path: Path) -> list[Plan]:
    """The plans in a file of `codescaler calibrate`, without costs; see `price_plans`."""
    try:
        plans = [Plan(**row) for row in json.loads(path.read_bytes())["plans"]]
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from error
    except (ValueError, KeyError, TypeError, DataError) as error:
        raise DataError(
            f"{path} holds no measured strategies ({type(error).__name__}: {error}): make one with "
            "codescaler calibrate"
        ) from error
    if not plans:
        raise DataError(f"{path} holds no plans: make one with codescaler calibrate")
    return plans


def replay(labelled: Sequence[Labelled], config: CascadeConfig) -> list[Selection]:
    """The selections that `decide_by_tests` makes with the known verdicts; one per problem, in order."""
    problems = [Problem(id=str(number), text="", tests=(ScriptTest(""),)) for number in range(len(labelled))]
    known = {
        (program.judgement.code, problem.id): passed[program.index]
        for (selection, passed), problem in zip(labelled, problems, strict=True)
        for program in selection.programs
    }
    selections = [selection for selection, _ in labelled]
    return decide_by_tests(selections, problems, executor=_KnownVerdicts(known), config=config)


def is_right(selection: Selection, passed: Sequence[bool]) -> bool:
    """Whether a candidate was chosen and passes."""
    return selection.outcome is Outcome.CHOSEN and passed[selection.ranked[0].index]


class _KnownVerdicts:
    """An executor that looks verdicts up by code and problem."""

    def __init__(self, passed: dict[tuple[str, str], bool]) -> None:
        self.passed = passed

    def run(self, jobs: Sequence[Job], *, progress: object = None) -> list[Verdict]:  # noqa: ARG002
        results = [self.passed[code, problem.id] for code, problem in jobs]
        return [Verdict(passed, tests_passed=int(passed), tests_total=1) for passed in results]


def keep_order(selection: Selection) -> Selection:
    """The same candidates in their original order, without margin and probability; duplicates follow their program."""
    groups: dict[int, list[Ranked]] = {}
    for candidate in sorted(selection.ranked, key=lambda candidate: candidate.index):
        program = candidate.index if candidate.duplicate_of is None else candidate.duplicate_of
        groups.setdefault(program, []).append(candidate)
    ranked = tuple(candidate for group in groups.values() for candidate in group)
    return replace(selection, ranked=ranked, margin=None, probability=None)
