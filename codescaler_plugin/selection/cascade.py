"""A cascade: the reward model ranks, and tests run only where its confidence does not suffice."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TypeGuard

from codescaler_plugin.errors import ConfigError, DataError
from codescaler_plugin.execution.executor import Executor
from codescaler_plugin.execution.jobs import named_faults
from codescaler_plugin.execution.sandbox import Sandbox
from codescaler_plugin.pipeline import CodeScaler
from codescaler_plugin.records import Problem, Verdict
from codescaler_plugin.selection.calibration import Calibration
from codescaler_plugin.selection.ranking import best_of_n, margin_of, probability_of
from codescaler_plugin.selection.records import Outcome, Ranked, Selection
from codescaler_plugin.text.messages import Text


@dataclass(frozen=True)
class CascadeConfig:
    """Settings of a cascade: when tests run, and how their verdicts count.

    Attributes:
        calibration: margin -> probability that the first program is right. By default every choice is tested.
        target: probability from which on the first program is taken without a test; above 1, every choice is tested.
        after_failure: calibration for problems whose first programs failed their tests. Such problems are harder, so
            `calibration` does not hold for them. By default tests continue after a failure.
        budget: programs run per problem at most. The default is no limit.
        generated: a model wrote the tests, so a failure is no proof. If no program passes all of them, the one that
            passes the largest share is taken.

    Raises:
        ConfigError: `target` is not above 0, or `budget` is below 0.

    Example:
        >>> from codescaler_plugin import Calibration
        >>> calibration = Calibration("platt", examples=100, right=80, slope=2.0)
        >>> CascadeConfig(calibration, target=0.9, budget=3).target
        0.9
    """

    calibration: Calibration | None = None
    target: float = 0.95
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
    r"""Choose the best candidate of a problem with as few test runs as the target probability allows.

    `best_of_n` ranks the programs. The first one is taken without a test if it is right with enough probability.
    Otherwise the programs run in order, one at a time, until one passes all tests. Duplicates run once. For many
    problems at once, see `decide_by_tests`.

    Args:
        scaler: pipeline with the reward model.
        problem: a string or messages, see `CodeScaler.judge`.
        completions: the candidates, any number.
        tests: the problem with its tests.
        config: settings. By default tests decide every choice, in the order of the scores.
        executor: executor of programs. The default is a local sandbox, started only if a program must run.
        extraction: block selection, see `extract_code`.
        self_consistency: weight of duplicates, see `best_of_n`.

    Returns:
        A selection with the number of programs run in `executions`. A program has no verdict if it was not run or if
        its tests could not tell (`Verdict.fault`). The order is: passed, no verdict, failed. If all programs failed,
        the outcome is `all_failed`. If none passed, the best program without a verdict is chosen; the outcome is
        `unscored` if none of those has a score. With generated tests the order is: by share of tests passed, no
        verdict, none passed.

    Raises:
        ConfigError, DataError, ScorerError: see `best_of_n`.
        SandboxError: programs cannot be run here, or the problem has no tests.

    Example:
        >>> from codescaler_plugin import CallTest
        >>> from codescaler_plugin.testing import FakeExecutor, FakeScorer
        >>> tests = Problem("inc", "Add one to n.", (CallTest((1,), 2),), "inc")
        >>> completions = [f"```python\ndef inc(n): return {result}\n```" for result in ("n", "n + 1")]
        >>> scaler = CodeScaler(FakeScorer(lambda problem, code: -len(code)))
        >>> executor = FakeExecutor(lambda code, problem: "n + 1" in code)
        >>> cascade(scaler, tests.text, completions, tests, executor=executor).explanation
        'candidate 1 passes all tests; 2 programs run'
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
    """The testing half of `cascade`, for many ranked problems; one selection per problem, in order.

    Each round runs one program of every undecided problem, in parallel as far as the executor has workers. To choose
    by tests alone, rank with the scorer `scoring.Unscored` and pass `planning.keep_order` of the selections.
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
    """The progress of one problem; `verdicts` by index of a program's first candidate."""

    selection: Selection
    problem: Problem
    config: CascadeConfig
    verdicts: dict[int, Verdict] = field(default_factory=dict)

    def next(self) -> Ranked | None:
        """The next program to run; None if the choice is made."""
        not_run = self._not_run()
        passed = any(verdict.passed for verdict in self.verdicts.values())
        if not not_run or passed or self._is_trusted() or len(self.verdicts) == self.config.budget:
            return None
        return not_run[0]

    def result(self) -> Selection:
        if not self.selection.programs:
            return self.selection
        ranked = self._ranked()
        first = ranked[0]
        programs = self.selection.programs if _has_verdict(first.verdict) else self._without_verdict()
        probability = self._probability(programs)
        outcome, explanation = self._decide(first, probability)
        count, faults = len(self.verdicts), named_faults(self.verdicts.values())
        runs = f"{count} program{'' if count == 1 else 's'} run" + (f", no verdict: {faults}" if faults else "")
        return replace(
            self.selection,
            ranked=ranked,
            outcome=outcome,
            probability=probability,
            executions=count,
            explanation=f"{explanation}; {runs}",
        )

    def _decide(self, first: Ranked, probability: float | None) -> tuple[Outcome, str]:
        verdict = first.verdict
        if not _has_verdict(verdict):
            if first.rank_score is None:
                why = "the budget of tests is used up" if self._not_run() else "the tests gave no verdict"
                return Outcome.UNSCORED, f"no program is left that has a score, and {why}"
            sure = "" if probability is None else f", right with probability {probability:.3f}"
            if verdict is not None:
                why = f"its tests gave no verdict ({verdict.fault})"
            else:
                why = "taken untested" if self._is_trusted() else "the budget of tests is used up"
            return Outcome.CHOSEN, f"candidate {first.index}{sure}: {why}"
        if verdict.passed:
            return Outcome.CHOSEN, f"candidate {first.index} passes all tests"
        if self.config.generated:
            share = f"{verdict.tests_passed} of {verdict.tests_total}"
            return Outcome.CHOSEN, f"candidate {first.index} passes {share} generated tests"
        return Outcome.ALL_FAILED, "every program fails"

    def _not_run(self) -> list[Ranked]:
        return [program for program in self.selection.programs if program.index not in self.verdicts]

    def _without_verdict(self) -> list[Ranked]:
        return [program for program in self.selection.programs if not _has_verdict(self.verdicts.get(program.index))]

    def _is_trusted(self) -> bool:
        """The first program without a verdict is taken untested. Never where tests are no proof of failure."""
        if self.verdicts and (self.config.generated or self.config.after_failure is None):
            return False
        probability = self._probability(self._without_verdict())
        return probability is not None and probability >= self.config.target

    def _probability(self, programs: Sequence[Ranked]) -> float | None:
        none_failed = len(programs) == len(self.selection.programs)
        calibration = self.config.calibration if none_failed else self.config.after_failure
        return probability_of(calibration, margin_of(programs))

    def _ranked(self) -> tuple[Ranked, ...]:
        """All candidates in their new order; duplicates share the verdict of their program."""
        tested = []
        for candidate in self.selection.ranked:
            program = candidate.index if candidate.duplicate_of is None else candidate.duplicate_of
            tested.append(replace(candidate, verdict=self.verdicts.get(program)))
        return tuple(sorted(tested, key=self._order))  # stable: equal ones keep the order of their scores

    def _order(self, candidate: Ranked) -> tuple[int, float]:
        verdict = candidate.verdict
        if not candidate.duplicates:  # no valid code
            return 3, 0.0
        if not _has_verdict(verdict):
            return 1, 0.0
        if verdict.passed:
            return 0, -1.0
        if not self.config.generated or not verdict.tests_passed:
            return 2, 0.0
        return 0, -verdict.tests_passed / verdict.tests_total


def _has_verdict(verdict: Verdict | None) -> TypeGuard[Verdict]:
    return verdict is not None and verdict.fault is None
