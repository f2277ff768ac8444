"""The records that pass through the pipeline. All are frozen, and none holds a tensor."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any, Self

from codescaler_plugin import notebook
from codescaler_plugin.errors import DataError, Failure, FailureKind, ScorerError


class Status(StrEnum):
    """The result of extraction. Only code with the status `ok` is valid and reaches the reward model.

    Example:
        >>> Status("no_block") is Status.NO_BLOCK
        True
    """

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
    r"""The code of a completion, empty unless `status` is `ok`.

    `language` is that of the block, empty if unknown. `explanation` is a sentence about the reason of the
    status.

    Example:
        >>> from codescaler_plugin import extract_code
        >>> extract_code("```python\nx = 1\n```").explanation
        'The block at line 1 of the completion is a python program.'
        >>> extraction = extract_code("I cannot.")
        >>> extraction.status.value, extraction.explanation
        ('no_block', 'The completion has no fenced block.')
    """

    code: str
    language: str
    status: Status
    explanation: str = field(default="", compare=False)  # prose


@dataclass(frozen=True)
class Judgement:
    """The pipeline's judgement of one completion.

    Attributes:
        reward: shaped score; 0 for invalid code, in (0, ∞) for valid code with the paper's shape. None with a
            `failure`.
        score: raw logit. None for invalid code and with a `failure`.
        status: status of the extraction. None if a failure came first.
        code: extracted program; empty if invalid, or if the caller gave the program.
        failure: reason why there is no reward. None if there is one.
        explanation: sentence about the reason of the status, as in `Extraction`. With a failure it is always the
            failure's sentence.

    A notebook shows a judgement as a box with all of this.

    Example:
        >>> judgement = Judgement(None, None, Status.OK, "x = 1", Failure(FailureKind.NO_SCORE, "too long"))
        >>> judgement.reward_or(0.0)
        0.0
        >>> judgement.explanation
        'There is no reward (no_score): too long.'
    """

    reward: float | None
    score: float | None
    status: Status | None
    code: str
    failure: Failure | None = None
    explanation: str = field(default="", compare=False)  # prose

    def __post_init__(self) -> None:
        if self.failure is not None:
            object.__setattr__(self, "explanation", self.failure.sentence)

    def _repr_html_(self) -> str:
        facts = {"reward": self.reward, "score": self.score}
        return notebook.element(str(self.status or "no status"), facts, self.explanation, self.code)

    @property
    def probability(self) -> float:
        """1 / (1 + e^-score) in [0, 1], for hosts that filter by it; 0 without a score."""
        if self.score is None:
            return 0.0
        return 1 / (1 + math.exp(-self.score)) if self.score > -700 else 0.0

    @property
    def is_valid(self) -> bool:
        """Whether the code is valid. False if it was not read."""
        return self.status is Status.OK

    def raise_for_failure(self) -> None:
        """Raise the failure, if there is one.

        Raises:
            DataError: the completion or its prompt cannot be read, or a server refuses them.
            ScorerError: the reward model returned no score.
        """
        if self.failure is not None:
            raise (DataError if self.failure.kind is FailureKind.DATA else ScorerError)(self.failure.reason)

    def reward_or(self, fallback: float | None) -> float:
        """The reward, or the fallback if there is a failure, for hosts that need a number.

        Raises:
            DataError, ScorerError: there is a failure, and the fallback is None; see `raise_for_failure`.
        """
        if fallback is None:
            self.raise_for_failure()
        reward = fallback if self.reward is None else self.reward
        assert reward is not None  # noqa: S101 - without a failure there is a reward
        return reward

    def logs(self) -> dict[str, float]:
        """Metrics for the logs of a host. Their means over many judgements are shares in [0, 1]."""
        return {"codescaler_valid": float(self.is_valid), "codescaler_fallback": float(self.failure is not None)}

    def to_json(self) -> dict[str, Any]:
        """The judgement as a dict for JSON; `from_json` reads it."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        """The judgement from a dict of `to_json`; a `DataError` if it is none."""
        try:
            reward, score, status, code, failure = (values[name] for name in _FIELDS)
            if not isinstance(code, str):
                raise TypeError(f"code is {code!r}, not text")
            return cls(
                None if reward is None else float(reward),
                None if score is None else float(score),
                None if status is None else Status(status),
                code,
                None if failure is None else Failure(FailureKind(failure["kind"]), str(failure["reason"])),
                str(values.get("explanation") or ""),
            )
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise DataError(f"{str(values)[:200]!r} is no judgement: {error}") from error


_FIELDS = ("reward", "score", "status", "code", "failure")  # of a judgement's dict; an explanation is optional


class Comparison(StrEnum):
    """The rule by which a result equals the expected one, as in the data set's own grader.

    `exact`: text is equal up to white space at the ends of lines and of the text; values are equal as in JSON.
    `tokens`: text is split at white space. Whole numbers are equal, other numbers within 1e-5, words equal but for
        case (CodeContests). Numbers in values are within 1e-5. The default.
    `decimal_lines`: lines are equal; lines of numbers are equal as decimals (LiveCodeBench).
    `allclose`: numbers are within 1e-8 + 1e-5 * |expected|, everything else as `exact` (APPS, EvalPlus' tolerance).
    `set`: as `exact`, without the order and repetition of a list's items (EvalPlus, where it does so).
    `checker`: the problem's own checker program decides (CodeForces).

    Example:
        >>> Problem("add", "Add.", (StdioTest("1 2", "3"),), comparison=Comparison.EXACT).comparison.value
        'exact'
    """

    EXACT = "exact"
    TOKENS = "tokens"
    DECIMAL_LINES = "decimal_lines"
    ALLCLOSE = "allclose"
    SET = "set"
    CHECKER = "checker"


@dataclass(frozen=True)
class CallTest:
    """A call of the function under test, passed if it returns the expected value, which is plain data.

    The `alternatives` pass as well, where the format of a data set is ambiguous.

    Example:
        >>> CallTest(arguments=(2,), expected=4)
        CallTest(arguments=(2,), expected=4, alternatives=())
    """

    arguments: tuple[Any, ...]
    expected: Any
    alternatives: tuple[Any, ...] = ()


@dataclass(frozen=True)
class StdioTest:
    r"""A run of the program, passed if its output equals `stdout` by the problem's `Comparison`.

    Example:
        >>> StdioTest(stdin="2\n", stdout="4\n").stdout
        '4\n'
    """

    stdin: str
    stdout: str


@dataclass(frozen=True)
class ScriptTest:
    """Python source that asserts. It calls the function under test by its name, or as `candidate`.

    Example:
        >>> ScriptTest("assert double(2) == 4").source
        'assert double(2) == 4'
    """

    source: str


@dataclass(frozen=True)
class Problem:
    """A problem with the tests that decide whether a program solves it.

    Attributes:
        id: unique name within the source, such as `HumanEval/0`.
        text: text that the policy and the reward model read.
        entry_point: name of the function under test, `Solution.method` for a method; empty for `StdioTest`.
        preamble: trusted source that runs before the program, such as imports, helper functions and node classes.
        comparison: rule for results and outputs. A `ScriptTest` compares by itself.
        time_limit: CPU seconds for each test. The default is the `timeout` of the executor.
        checker: Python source of the checker program, where `comparison` is `checker`.
        names: names that tests use beside `entry_point`, such as classes that the program defines.

    Raises:
        DataError: a test that is none of the three types, or a `CallTest` without `entry_point`.

    Example:
        >>> problem = Problem("double", "Double n.", (CallTest((2,), 4),), entry_point="double")
        >>> len(problem.tests)
        1
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

    def __post_init__(self) -> None:
        if isinstance(self.tests, str):
            raise DataError(f"tests of problem {self.id!r} is one string: expected a tuple, as (ScriptTest(...),)")
        for test in self.tests:
            if not isinstance(test, CallTest | StdioTest | ScriptTest):
                raise DataError(
                    f"a test of problem {self.id!r} is {type(test).__name__}: expected a CallTest, StdioTest or "
                    "ScriptTest; give a string of assertions as ScriptTest(string)"
                )
            if isinstance(test, CallTest) and not self.entry_point:
                raise DataError(f"problem {self.id!r} has a CallTest and no entry_point: name the function to call")


@dataclass(frozen=True)
class Rollout:
    """A completion of a policy. `step` is the training step of the policy, None if unknown.

    Example:
        >>> Rollout("Double n.", "I cannot.", step=100).step
        100
    """

    problem: str
    completion: str
    problem_id: str = ""
    step: int | None = None
    source: str = ""


class Fault(StrEnum):
    """The reason why tests gave no verdict on a program. It does not mean that the program is wrong.

    Example:
        >>> Verdict(passed=False, fault=Fault.TIMEOUT).is_failure
        False
    """

    TIMEOUT = "timeout"
    """Wall time ran out before CPU time, also when the program ran alone."""
    MISSING_PACKAGE = "missing_package"
    """The program or a test imports a package that the sandbox lacks."""
    TEST_ERROR = "test_error"
    """The tests cannot run, or test nothing."""
    UNREADABLE_RESULT = "unreadable_result"
    """A result cannot be serialized or read, so nothing was compared."""
    KILLED = "killed"
    """Something outside, such as memory pressure, ended the program, also when it ran alone."""


@dataclass(frozen=True)
class Verdict:
    """The outcome of running one program against its tests.

    Attributes:
        detail: first failure; empty if all tests passed.
        tests_passed: number of tests that passed, up to the first that ended the program.
        seconds: wall time of the program.
        flaky: the program passed once and failed a second run. Then `passed` is False.
        fault: reason why there is no verdict. Then `passed` is False, but the program is not known to be wrong.
        comparison: `Comparison` of results; empty for scripts, which compare by themselves.
        in_process: graded in the program's own process, which a hostile program can deceive.

    Example:
        >>> Verdict(passed=False, detail="double(2) returned 3", tests_passed=0, tests_total=1).is_failure
        True
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
        chosen: code that passes every test.
        rejected: code that fails at least one test.
        kind: origin of the pair: `rollout`, `real`, or a kind of augmentation.
        problem_id: `Problem.id`; empty if unknown.
        margin: pass rate of `chosen` minus that of `rejected`, in (0, 1]. None if unknown.
        step: training step of the policy, the later of the two. None if unknown.
        split: `train` or `held_out`. All pairs of a problem are in one split.
        source: file or run of the rollouts; empty if unknown.

    Example:
        >>> PreferencePair("Double n.", "print(2 * n)", "print(n)", kind="rollout").split
        'train'
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
