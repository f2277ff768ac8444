"""The values that walk through the pipeline. All are frozen; none holds a tensor."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any, Self

from codescaler_plugin.errors import DataError, Failure, FailureKind, ScorerError


class Status(StrEnum):
    """Why a completion's code is, or is not, valid. Only `ok` reaches the reward model."""

    OK = "ok"
    NO_BLOCK = "no_block"
    MULTIPLE_BLOCKS = "multiple_blocks"
    UNCLOSED = "unclosed"
    WRONG_LANGUAGE = "wrong_language"
    SYNTAX_ERROR = "syntax_error"
    TRIVIAL = "trivial"
    TOO_LONG = "too_long"
    TOO_COMPLEX = "too_complex"


@dataclass(frozen=True)
class Extraction:
    """The code found in a completion; `code` is empty unless `status` is `ok`.

    `language` is that of the block, empty if unknown. `explanation` is a sentence on the status if one was asked for.
    """

    code: str
    language: str
    status: Status
    explanation: str = ""


@dataclass(frozen=True)
class Judgement:
    """What the pipeline says of one completion.

    Attributes:
        reward: the shaped value, 0 for invalid code, for the paper's shape in (0, ∞) for valid code; None with a
            `failure`.
        score: raw logit; None for invalid code and with a `failure`.
        status: None if a failure came before the code was read.
        code: what was extracted; empty if invalid, and where the caller has it already.
        failure: why there is no reward; None if there is one.

    Example:
        >>> judgement = Judgement(None, None, Status.OK, "x = 1", Failure(FailureKind.NO_SCORE, "too long"))
        >>> judgement.reward_or(0.0)
        0.0
    """

    reward: float | None
    score: float | None
    status: Status | None
    code: str
    failure: Failure | None = None

    @property
    def probability(self) -> float:
        """1 / (1 + e^-score), in [0, 1]; 0 without a score. For hosts that filter by it."""
        if self.score is None:
            return 0.0
        return 1 / (1 + math.exp(-self.score)) if self.score > -700 else 0.0

    @property
    def is_valid(self) -> bool:
        """Whether the code is valid; False if it was not read."""
        return self.status is Status.OK

    def raise_for_failure(self) -> None:
        """Raise the failure, if there is one.

        Raises:
            DataError: the completion or its prompt cannot be read, or a server refuses them.
            ScorerError: the reward model gave no score.
        """
        if self.failure is not None:
            raise (DataError if self.failure.kind is FailureKind.DATA else ScorerError)(self.failure.reason)

    def reward_or(self, fallback: float | None) -> float:
        """The reward, or the fallback where there is a failure: for hosts that need a number.

        Raises:
            DataError, ScorerError: there is a failure and no fallback; see `raise_for_failure`.
        """
        if fallback is None:
            self.raise_for_failure()
        reward = fallback if self.reward is None else self.reward
        assert reward is not None  # noqa: S101 - without a failure there is a reward
        return reward

    def logs(self) -> dict[str, float]:
        """What goes into a host's logs; the means over many judgements are shares."""
        return {"codescaler_valid": float(self.is_valid), "codescaler_fallback": float(self.failure is not None)}

    def to_json(self) -> dict[str, Any]:
        """A dict that JSON can hold; `from_json` reads it."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        """The judgement in a dict of `to_json`.

        Raises:
            DataError: it is no judgement.
        """
        try:
            reward, score, status, failure = (values[name] for name in ("reward", "score", "status", "failure"))
            return cls(
                None if reward is None else float(reward),
                None if score is None else float(score),
                None if status is None else Status(status),
                str(values["code"]),
                None if failure is None else Failure(FailureKind(failure["kind"]), str(failure["reason"])),
            )
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise DataError(f"{str(values)[:200]!r} is no judgement: {error}") from error


class Comparison(StrEnum):
    """How a result is compared with what a test expects: as the data set's own grader does.

    `exact`: text equal up to white space at the ends of lines and of the text; values equal as JSON has them.
    `tokens`: text divided at white space; tokens that are whole numbers equal, other numbers within 1e-5, words equal
        but for case (CodeContests). Of values, their numbers within 1e-5. The default.
    `decimal_lines`: text line by line, exact but for lines of numbers, which are equal as decimals (LiveCodeBench).
    `allclose`: numbers within 1e-8 + 1e-5 * |expected|, all else as `exact` (APPS, EvalPlus' tolerance).
    `set`: as `exact`, the order and the number of times of a list's items aside (EvalPlus, where it does so).
    `checker`: the problem's own checker program decides (CodeForces).
    """

    EXACT = "exact"
    TOKENS = "tokens"
    DECIMAL_LINES = "decimal_lines"
    ALLCLOSE = "allclose"
    SET = "set"
    CHECKER = "checker"


@dataclass(frozen=True)
class CallTest:
    """One call of the function under test; passed if it returns what is expected (plain data only).

    `alternatives` are accepted as well: what `expected` may also mean where a data set's form is ambiguous.
    """

    arguments: tuple[Any, ...]
    expected: Any
    alternatives: tuple[Any, ...] = ()


@dataclass(frozen=True)
class StdioTest:
    """One run of the program; passed if its stdout compares as equal to `stdout`."""

    stdin: str
    stdout: str


@dataclass(frozen=True)
class ScriptTest:
    """Python source that judges by assertions; it calls the function under test by its name, or as `candidate`."""

    source: str


@dataclass(frozen=True)
class Problem:
    """A problem with the tests that decide whether a program solves it.

    Attributes:
        id: unique within its source, e.g. `HumanEval/0`.
        text: what a policy is asked; also what the reward model reads.
        tests: of one type.
        entry_point: name of the function under test, `Solution.method` for a method; empty for StdioTest.
        preamble: trusted source that runs before the candidate (imports, helper functions, node classes).
        comparison: of results and outputs; a ScriptTest compares by itself.
        time_limit: CPU seconds of a single test, as the data set says; None: the executor's `timeout`.
        checker: Python source of the program that decides where `comparison` is `checker`.
        names: what tests ask of the candidate beside `entry_point`, such as classes that the solution defines.
    """

    id: str
    text: str
    tests: tuple[CallTest, ...] | tuple[StdioTest, ...] | tuple[ScriptTest, ...]
    entry_point: str = ""
    preamble: str = ""
    comparison: Comparison = Comparison.TOKENS
    time_limit: float | None = None
    checker: str = ""
    names: tuple[str, ...] = ()


@dataclass(frozen=True)
class Rollout:
    """One completion of a policy; `step` is the training step it comes from, None if unknown."""

    problem: str
    completion: str
    problem_id: str = ""
    step: int | None = None
    source: str = ""


class Fault(StrEnum):
    """Why tests gave no verdict on a program. None of these says that the program is wrong."""

    TIMEOUT = "timeout"
    """Wall time ran out while the program had CPU time left, also when it ran alone."""
    MISSING_PACKAGE = "missing_package"
    """The program, or a test, imports what the sandbox lacks."""
    TEST_ERROR = "test_error"
    """The tests cannot run, or test nothing."""
    UNREADABLE_RESULT = "unreadable_result"
    """A result cannot be sent or read, so nothing was compared."""
    KILLED = "killed"
    """The program was ended from outside, as by memory pressure, also when it ran alone."""


@dataclass(frozen=True)
class Verdict:
    """The outcome of running one candidate against its tests.

    Attributes:
        passed: all tests passed.
        detail: the first failure, empty if all passed.
        fault: why there is no verdict; then `passed` is False, and the program is not known to be wrong. Else None.
        comparison: of results, see `Comparison`; empty for scripts, which compare by themselves.
        in_process: graded in the candidate's own process, which a hostile program can deceive.
        tests_passed: how many passed; counting ends where the candidate breaks off.
        tests_total: how many there are.
        seconds: wall time of the candidate.
        flaky: passed once and failed a second run; then `passed` is False.
    """

    passed: bool
    detail: str = ""
    tests_passed: int = 0
    tests_total: int = 0
    seconds: float = 0.0
    flaky: bool = False
    fault: Fault | None = None
    comparison: str = ""
    in_process: bool = False

    @property
    def is_failure(self) -> bool:
        """Whether the tests found the program wrong."""
        return not self.passed and self.fault is None


@dataclass(frozen=True)
class PreferencePair:
    """A right and a wrong program for one problem.

    Attributes:
        problem: as the reward model reads it.
        chosen: code that passes every test.
        rejected: code that fails at least one.
        kind: where the two come from: `rollout`, `real`, or a kind of augmentation.
        problem_id: of the verified problem.
        margin: pass rate of chosen minus that of rejected, in (0, 1]; None if unknown.
        step: training step of the policy that wrote them, the later of the two; None if unknown.
        split: `train` or `held_out`; all pairs of a problem are on one side.
        source: file or run that the rollouts came from.
    """

    problem: str
    chosen: str
    rejected: str
    kind: str
    problem_id: str = ""
    margin: float | None = None
    step: int | None = None
    split: str = "train"
    source: str = ""


class Outcome(StrEnum):
    """What became of a choice among candidates. Only with `chosen` there is a winner."""

    CHOSEN = "chosen"
    ABSTAINED = "abstained"
    NONE_VALID = "none_valid"
    UNSCORED = "unscored"
    ALL_FAILED = "all_failed"


@dataclass(frozen=True)
class Ranked:
    """A candidate in its place among those for its problem.

    Attributes:
        index: its place among the candidates as given, from 0.
        completion: as given.
        judgement: what the pipeline says of it.
        rank_score: what it is ranked by, in logits, the same for all duplicates of a program; None without a score.
        duplicates: candidates that are the same program, itself included; 0 without valid code.
        duplicate_of: index of the first-placed candidate that is the same program; None if it is that one itself.
        verdict: of the tests; None if the program was not run.
    """

    index: int
    completion: str
    judgement: Judgement
    rank_score: float | None
    duplicates: int
    duplicate_of: int | None = None
    verdict: Verdict | None = None


@dataclass(frozen=True)
class Selection:
    """The candidates for a problem, best first, and what became of the choice.

    Attributes:
        ranked: all candidates, those without valid code last.
        outcome: `chosen`; `abstained`: too little confidence; `none_valid`: no candidate is a valid program;
            `unscored`: no valid one has a score; `all_failed`: tests ran and every program failed.
        margin: worth of the first program minus that of the next *other* program, in logits, at least 0; None if
            fewer than two programs have a score.
        probability: calibrated, that the first program is right, before it was run; None where nothing was calibrated.
        executions: programs run.
        explanation: a sentence.
    """

    ranked: tuple[Ranked, ...]
    outcome: Outcome
    margin: float | None = None
    probability: float | None = None
    executions: int = 0
    explanation: str = ""

    @property
    def best(self) -> Ranked | None:
        """The winner, None unless the outcome is `chosen`."""
        return self.ranked[0] if self.outcome is Outcome.CHOSEN else None

    @property
    def programs(self) -> tuple[Ranked, ...]:
        """The valid candidates without their duplicates, best first."""
        return tuple(one for one in self.ranked if one.judgement.status is Status.OK and one.duplicate_of is None)
