"""A cascade: the reward model ranks, and tests run only where its confidence does not suffice."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from codescaler_plugin.errors import ConfigError, DataError
from codescaler_plugin.execution.executor import Executor
from codescaler_plugin.execution.jobs import named_faults
from codescaler_plugin.execution.sandbox import Sandbox
from codescaler_plugin.pipeline import CodeScaler
from codescaler_plugin.records import Outcome, Problem, Ranked, Selection, Verdict
from codescaler_plugin.selection.calibration import Calibration
from codescaler_plugin.selection.ranking import best_of_n, margin_of, probability_of
from codescaler_plugin.text.messages import Text

TARGET = 0.95


@dataclass(frozen=True)
class CascadeConfig:
    """When tests run, and what they decide.

    Attributes:
        calibration: margin -> probability that the first program is right; None: every choice is tested.
        target: the first program is taken untested where that probability is at least this. Above 1: never.
        after_failure: the same probability where every program before has failed; a problem whose favourite fails is
            a harder one, so `calibration` does not hold there. None: once tests run, they go on.
        budget: programs run for a problem at most; None: no limit.
        generated: the tests were written by a model. Then a failure is no proof: if no program passes all of them, the
            one that passes the largest share is taken.
    """

    calibration: Calibration | None = None
    target: float = TARGET
    after_failure: Calibration | None = None
    budget: int | None = None
    generated: bool = False

    def __post_init__(self) -> None:
        if not self.target > 0:
            raise ConfigError(f"target is {self.target!r}: expected a probability; above 1 every choice is tested")
        if self.budget is not None and self.budget < 0:
            raise ConfigError(f"budget is {self.budget!r}: expected a number of programs")


def cascade(
    scaler: CodeScaler,
    problem: Text,
    completions: Sequence[Text],
    tests: Problem,
    *,
    config: CascadeConfig | None = None,
    executor: Executor | None = None,
    extraction: str = "last",
    self_consistency: float = 0.0,
) -> Selection:
    """The best candidate of a problem with as few tests as the wanted confidence allows.

    The programs are ranked as by `best_of_n`. The first is taken as it is if it is right with enough probability;
    otherwise programs are run in their order until one passes all tests. A program that the candidates wrote several
    times is run once. Programs run one at a time; see `decide_by_tests` for many problems at once.

    Args:
        scaler: see `best_of_n`, also for the next two and the last two.
        problem: a string or messages.
        completions: the candidates.
        tests: the problem with its tests.
        config: see `CascadeConfig`; None: tests decide every choice, in the order of the scores.
        executor: runs programs; None: a sandbox of this machine for this call, started only if a program is to run.
        extraction: which block is the code.
        self_consistency: weight of duplicates.

    Returns:
        A selection whose `executions` says how many programs were run. With given tests: what passed is first, then
        what has no verdict, then what failed; if nothing passed and all failed, the outcome is `all_failed`; if
        programs without a verdict are left, the best of them is chosen (`unscored` if none left has a score).
        A program has no verdict that was not run, or whose tests could not tell (`Verdict.fault`).
        With generated tests: by the share of tests passed, then what has no verdict, then what passed none.

    Raises:
        ConfigError, DataError, ScorerError: see `best_of_n`.
        SandboxError: programs cannot be run here, or the problem has no tests.
    """
    selection = best_of_n(scaler, problem, completions, extraction=extraction, self_consistency=self_consistency)
    if executor is not None:
        return decide_by_tests([selection], [tests], executor=executor, config=config)[0]
    state = _State(selection, tests, config or CascadeConfig())
    if state.next() is None:
        return state.result()
    with Sandbox(workers=1) as sandbox:
        return decide_by_tests([selection], [tests], executor=sandbox, config=config)[0]


def decide_by_tests(
    selections: Sequence[Selection],
    problems: Sequence[Problem],
    *,
    executor: Executor,
    config: CascadeConfig | None = None,
) -> list[Selection]:
    """The testing half of `cascade`, for many ranked problems; same length, same order.

    Runs in rounds: one program of each undecided problem, all at the same time as far as the executor has workers.
    Tests alone, without a reward model: rank with the scorer `scoring.Unscored`, and pass
    `planning.keep_order` of that.

    Raises:
        DataError: another number of problems than of selections.
        SandboxError: see `cascade`.
    """
    if len(selections) != len(problems):
        raise DataError(f"{len(selections)} selections and {len(problems)} problems with tests: expected one each")
    states = [
        _State(selection, problem, config or CascadeConfig())
        for selection, problem in zip(selections, problems, strict=True)
    ]
    while waiting := [(state, program) for state in states if (program := state.next()) is not None]:
        verdicts = executor.run([(program.judgement.code, state.problem) for state, program in waiting])
        for (state, program), verdict in zip(waiting, verdicts, strict=True):
            state.verdicts[program.index] = verdict
    return [state.result() for state in states]


@dataclass
class _State:
    """One problem on its way; `verdicts` by the index of a program's first candidate."""

    selection: Selection
    problem: Problem
    config: CascadeConfig
    verdicts: dict[int, Verdict] = field(default_factory=dict)

    def next(self) -> Ranked | None:
        """The program to be run next; None if the choice is made."""
        left = self._left()
        passed = any(verdict.passed for verdict in self.verdicts.values())
        if not left or passed or self._trusted() or len(self.verdicts) == self.config.budget:
            return None
        return left[0]

    def result(self) -> Selection:
        if not self.selection.programs:
            return self.selection
        ranked = self._ranked()
        first = ranked[0]
        fault = first.verdict.fault if first.verdict is not None else None
        ran = self._ran()
        probability = self._probability(self._open())
        outcome = Outcome.CHOSEN
        if not _has_verdict(first.verdict) and first.rank_score is None:
            outcome = Outcome.UNSCORED
            why = "the budget of tests is used up" if self._left() else "the tests gave no verdict"
            explanation = f"no program is left that has a score, and {why}; {ran}"
        elif first.verdict is None or fault is not None:
            sure = "" if probability is None else f", right with probability {probability:.3f}"
            why = (
                f"its tests gave no verdict ({fault})"
                if fault is not None
                else "taken untested"
                if self._trusted()
                else "the budget of tests is used up"
            )
            explanation = f"candidate {first.index}{sure}: {why}; {ran}"
        elif first.verdict.passed:
            explanation = f"candidate {first.index} passes all tests; {ran}"
        elif self.config.generated:
            share = f"{first.verdict.tests_passed} of {first.verdict.tests_total}"
            explanation = f"candidate {first.index} passes {share} generated tests; {ran}"
        else:
            outcome = Outcome.ALL_FAILED
            explanation = f"every program fails; {ran}"
        return replace(
            self.selection,
            ranked=ranked,
            outcome=outcome,
            probability=self._probability(self.selection.programs) if _has_verdict(first.verdict) else probability,
            executions=len(self.verdicts),
            explanation=explanation,
        )

    def _left(self) -> list[Ranked]:
        return [program for program in self.selection.programs if program.index not in self.verdicts]

    def _open(self) -> list[Ranked]:
        """The programs without a verdict."""
        return [one for one in self.selection.programs if not _has_verdict(self.verdicts.get(one.index))]

    def _ran(self) -> str:
        """How many programs were run, and of how many of them the tests could not tell."""
        count = len(self.verdicts)
        named = named_faults(self.verdicts.values())
        return f"{count} program{'' if count == 1 else 's'} run" + (f", no verdict: {named}" if named else "")

    def _trusted(self) -> bool:
        """Whether the first program without a verdict is taken as it is; never where tests are no proof of failure."""
        if self.verdicts and (self.config.generated or self.config.after_failure is None):
            return False
        probability = self._probability(self._open())
        return probability is not None and probability >= self.config.target

    def _probability(self, left: Sequence[Ranked]) -> float | None:
        fresh = len(left) == len(self.selection.programs)
        calibration = self.config.calibration if fresh else self.config.after_failure
        return probability_of(calibration, margin_of(left))

    def _ranked(self) -> tuple[Ranked, ...]:
        """All candidates anew: the duplicates of a program share its verdict."""
        found = []
        for one in self.selection.ranked:
            found.append(
                replace(one, verdict=self.verdicts.get(one.index if one.duplicate_of is None else one.duplicate_of))
            )
        return tuple(sorted(found, key=self._place))  # stable: otherwise they stand as they stood

    def _place(self, one: Ranked) -> tuple[int, float]:
        if not one.duplicates:
            return 3, 0.0
        if one.verdict is None or one.verdict.fault is not None:
            return 1, 0.0
        if one.verdict.passed:
            return 0, -1.0
        if not self.config.generated or not one.verdict.tests_passed:
            return 2, 0.0
        return 0, -one.verdict.tests_passed / one.verdict.tests_total


def _has_verdict(verdict: Verdict | None) -> bool:
    return verdict is not None and verdict.fault is None
