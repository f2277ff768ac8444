"""Unit tests as a TRL reward function, alone or beside `CodeScalerReward`. See `reward` for how TRL calls it."""

import logging
import os
import weakref
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from statistics import fmean
from time import perf_counter
from typing import Any

from codescaler_plugin.config import CodeScalerConfig
from codescaler_plugin.data.matching import ProblemIndex
from codescaler_plugin.data.rollouts import problem_id_of
from codescaler_plugin.errors import ConfigError, DataError, SandboxError
from codescaler_plugin.execution.executor import CachingExecutor, Executor, Job
from codescaler_plugin.execution.jobs import MEMORY_MB, TIMEOUT, named_faults
from codescaler_plugin.execution.sandbox import Sandbox, usable_cores
from codescaler_plugin.extraction.languages import checked_language
from codescaler_plugin.integrations.trl.compat import gathered, processes_here
from codescaler_plugin.integrations.trl.reward import LogExtra, LogMetric, PoorCalls, problems_in
from codescaler_plugin.pipeline import CodeScaler, check_lengths
from codescaler_plugin.records import Judgement, Problem, Status, Verdict
from codescaler_plugin.safety import one_line
from codescaler_plugin.scoring import Unscored
from codescaler_plugin.text.messages import Text

logger = logging.getLogger(__name__)

_SETTINGS = (
    *("language", "extraction", "reasoning_marks", "thinking_prefilled", "fence_prefilled", "prompt_template"),
    *("problem_wrapper", "problem_column", "max_unscored"),
)
_PYTHON = "python"  # what the sandbox runs
_UNTESTED_CALLS = 20  # calls without any problem with tests before a warning; an evaluation may take several

Rewards = list[float | None]


class CodeScalerTestsReward:  # a class, not a closure: async trainers pickle the reward into a spawned process
    r"""Reward for `GRPOTrainer(reward_funcs=[CodeScalerTestsReward(problems)])`: the problem's own tests decide.

    A program that passes all tests of its problem gets 1.0. One that fails any, and a completion without exactly one
    valid program (by the rules of `CodeScalerReward`), gets 0.0. A completion gets None if the tests give no verdict:
    its problem has no tests, its prompt cannot be read, or the run ended in a `Fault`, such as a busy machine, a
    missing package or broken tests. GRPO and RLOO leave a completion with None out, or use the other rewards of the
    list for it. OnlineDPO reads None as 0, so a fault counts as a failure there.

    A completion belongs to the problem that its row names (`problem_id`, `task_id`, `question_id`, also inside
    `extra_info` or `metadata`), else to the one with the same text, apart from white space. The text is that of
    `problem_column`, else the last user turn. So a prompt with instructions around its problem needs one of these
    columns.

    The sandbox starts on the first call, even without programs, so a machine that cannot run them ends a training at
    once. Its processes end with `close` or with the reward. Each distinct program of a call runs once.

    Training does not continue without rewards: the reward raises if the sandbox fails on the first call, or if more
    than `max_unscored` of the programs get no verdict in three calls in a row. It gives no partial credit and runs
    Python only.

    Args:
        problems: problems, for example from `read_problems`; those without tests are left out. All are held in memory.
        name: name in the logs (`rewards/<name>/mean` is the pass rate).
        executor: what runs the programs instead of a sandbox of this machine, such as a `RemoteSandbox`. The reward
            can be pickled if the executor can, and `close` does not end it.
        timeout, memory_mb, packages, require_isolation: see `Sandbox`.
        workers: programs at a time in this process. The default divides the cores among the processes of the training
            on this machine.
        **config: fields of `CodeScalerConfig`: `language`, `extraction`, `reasoning_marks`, `thinking_prefilled`,
            `fence_prefilled`, `prompt_template`, `problem_wrapper`, `problem_column`, `max_unscored`. The defaults are
            the `CODESCALER_*` variables.

    Raises:
        ConfigError: an unknown setting, or one without effect on tests; a language other than Python; a file name
            instead of problems.
        DataError: no problem has tests, or two have both the same id and the same text.

    Example:
        >>> from codescaler_plugin.records import CallTest
        >>> from codescaler_plugin.testing import FakeExecutor  # without it, a sandbox runs the programs
        >>> problems = [Problem("one", "Add one.", (CallTest((1,), 2),), "solve")]
        >>> reward = CodeScalerTestsReward(problems, executor=FakeExecutor({"solve = 1 .__add__": True}))
        >>> completions = ["```python\nsolve = 1 .__add__\n```", "I cannot.", "Roses are red."]
        >>> reward(prompts=["Add one.", "Add one.", "Write a poem."], completions=completions)
        [1.0, 0.0, None]
    """

    def __init__(
        self,
        problems: Iterable[Problem],
        *,
        name: str | None = None,
        executor: Executor | None = None,
        timeout: float = TIMEOUT,
        memory_mb: int = MEMORY_MB,
        workers: int | None = None,
        packages: Sequence[str] = (),
        require_isolation: bool = False,
        **config: Any,
    ) -> None:
        if isinstance(problems, str):
            raise ConfigError(f"problems is {problems!r}: expected problems; give read_problems({problems!r})")
        settings = CodeScalerConfig.from_env(**config)
        settings.check_host("trl")
        if idle := [setting for setting in config if setting not in _SETTINGS]:
            raise ConfigError(f"{', '.join(idle)} would have no effect on tests: expected {', '.join(_SETTINGS)}")
        if checked_language(settings.language) != _PYTHON:
            raise ConfigError(
                f"language is {settings.language!r}, and tests run in Python: give this reward language={_PYTHON!r}"
            )
        self.__name__ = name or "tests"
        self.config = settings
        self._index = ProblemIndex((problem for problem in problems if problem.tests), unique_ids=False)
        if not self._index.problems:
            raise DataError("no problem has tests, so every reward would be None: give problems with tests")
        for problem in self._index.problems:
            self._index.find(problem.id, problem.text)  # raises now if two problems cannot be told apart
        self._reader = CodeScaler(Unscored(), config=settings)
        self._executor = executor
        self._workers = workers
        limits: dict[str, Any] = {"timeout": timeout, "memory_mb": memory_mb, "packages": tuple(packages)}
        self._new_sandbox = partial(Sandbox, **limits, require_isolation=require_isolation)
        self._sandbox: Sandbox | None = None
        self._end: weakref.finalize[..., Any] | None = None
        self._process = os.getpid()
        self._has_run = False
        self._poor_calls = PoorCalls(settings.max_unscored)
        self._calls_untested: int | None = 0  # before the first one with tests; None after it
        self._warned: set[str] = set()

    def __getstate__(self) -> dict[str, Any]:  # processes and counts belong to this process
        fresh = {"_sandbox": None, "_end": None, "_has_run": False, "_calls_untested": 0, "_warned": set[str]()}
        return {**self.__dict__, **fresh, "_poor_calls": PoorCalls(self.config.max_unscored)}

    def __call__(
        self,
        prompts: Sequence[Text],
        completions: Sequence[Text],
        *,
        log_metric: LogMetric | None = None,
        log_extra: LogExtra | None = None,
        **columns: Any,  # TRL passes every dataset column, completion_ids, trainer_state ...
    ) -> Rewards:
        """The rewards of n completions, in order. Of the other arguments, only the columns named above are read.

        `log_metric` gets the share of each status among the completions with tests, `untested` (share of the
        completions without tests), `pass_rate` (of the programs with a verdict, over all processes), `unjudged`
        (number of programs without a verdict), and `seconds`. `log_extra` gets the columns `<name>/status` and
        `<name>/verdict` (`passed`, `failed` or the fault) of the completions table.

        Raises:
            DataError: a completion has the wrong form, the lengths differ, the problem column is missing, or a row's
                id and text name different problems.
            SandboxError: the sandbox cannot run programs on the first call, or too few get a verdict, see the class.
        """
        start = perf_counter()
        check_lengths(prompts=prompts, completions=completions)
        self._running()
        problems = self.problems(prompts, columns)
        self._warn_if_untested(problems)
        tested = {row: problem for row, problem in enumerate(problems) if problem is not None}
        extracted = self._reader.with_config(problem_wrapper=None).judge(
            [problem.text for problem in tested.values()],
            [completions[row] for row in tested],
            prompts=[prompts[row] for row in tested],
        )
        judgements = dict(zip(tested, extracted, strict=True))
        jobs = {row: (judgement.code, tested[row]) for row, judgement in judgements.items() if judgement.is_valid}
        verdicts = dict(zip(jobs, self._run(list(jobs.values())), strict=True))
        seconds = perf_counter() - start
        rows = range(len(problems))
        if log_metric is not None:
            for metric, value in _metrics(len(problems), judgements, verdicts, seconds).items():
                log_metric(f"{self.__name__}/{metric}", value)
        if log_extra is not None:
            statuses = [str(judgements[row].status) if row in tested else None for row in rows]
            log_extra(f"{self.__name__}/status", statuses)
            log_extra(f"{self.__name__}/verdict", [_word(verdicts.get(row)) for row in rows])
        return [_reward(judgements[row], verdicts.get(row)) if row in tested else None for row in rows]

    def elsewhere(self, reward: Callable[..., Rewards]) -> "Elsewhere":
        """A reward that calls `reward` for the problems without tests here, and gives None for the others.

        In a list with this reward, each completion gets one of the two. Set
        `multi_objective_aggregation="normalize_then_sum"`, so that each counts on its own scale.

        Args:
            reward: synchronous reward function, such as a `CodeScalerReward`.

        Example:
            >>> from codescaler_plugin import CodeScalerReward
            >>> from codescaler_plugin.records import CallTest
            >>> from codescaler_plugin.testing import FakeExecutor
            >>> problems = [Problem("one", "Add one.", (CallTest((1,), 2),), "solve")]
            >>> tests = CodeScalerTestsReward(problems, executor=FakeExecutor({}))
            >>> both = [tests, tests.elsewhere(CodeScalerReward(model="builtin"))]
            >>> [reward(prompts=["Add one.", "Add two."], completions=["No.", "No."]) for reward in both]
            [[0.0, None], [None, 0.0]]
        """
        return Elsewhere(self, reward)

    def problems(self, prompts: Sequence[Text], columns: dict[str, Any]) -> list[Problem | None]:
        """The problem of each of n prompts. None if it has no tests or the prompt cannot be read."""
        texts = problems_in(prompts, columns, self.config.problem_column)
        values = _by_row(columns, len(prompts))
        problems: list[Problem | None] = []
        for row, problem in enumerate(texts):
            try:
                is_stated = self.config.problem_column is not None
                text = self._reader.problem_of(problem, f"problem {row}", is_stated=is_stated)
            except DataError as error:
                self._warn("unread", f"a prompt holds no problem that can be read, and gets None: {error}")
                problems.append(None)
                continue
            problem_id = problem_id_of({name: column[row] for name, column in values.items()})
            problems.append(self._index.find(problem_id, text))
        return problems

    def close(self) -> None:
        """End the processes of the sandbox. The next call starts new ones."""
        if self._end is not None:
            self._end()
        self._sandbox = self._end = None

    def _running(self) -> Executor:
        """The executor of the programs, started on the first call."""
        if self._executor is not None:
            return self._executor
        if self._end is not None and self._process != os.getpid():  # a fork has the parent's processes
            self._end.detach()
            self._sandbox = None
        if self._sandbox is None:
            self._process = os.getpid()
            workers = self._workers or max(1, usable_cores() // processes_here())
            self._sandbox = self._new_sandbox(workers=workers)
            self._end = weakref.finalize(self, self._sandbox.close)
        return self._sandbox

    def _run(self, jobs: list[Job]) -> list[Verdict | None]:
        """One verdict per program. None for all if the sandbox breaks after it has worked."""
        if not jobs:
            return []
        verdicts: list[Verdict | None] = [None] * len(jobs)
        try:
            verdicts = list(CachingExecutor(self._running()).run(jobs))
        except SandboxError as error:
            if not self._has_run:
                raise
            logger.exception("%s: %d programs could not be run, and get None", self.__name__, len(jobs))
            reason = str(error)
        else:
            faulty = [verdict for verdict in verdicts if verdict is not None and verdict.fault is not None]
            reason = f"{named_faults(faulty)}, such as {one_line(faulty[0].detail)!r}" if faulty else ""
            for verdict in faulty:
                self._warn(str(verdict.fault), f"no verdict on {len(faulty)} of {len(jobs)} programs: {reason}")
        self._has_run = True
        unjudged = sum(verdict is None or verdict.fault is not None for verdict in verdicts)
        if excess := self._poor_calls.excess(unjudged, len(jobs)):  # going on would train on nothing
            raise SandboxError(
                f"{self.__name__}: {unjudged} of {len(jobs)} programs got no verdict, {excess}. The last cause: "
                f"{reason}. Mend that (packages, timeout, memory_mb and workers are settings of this reward), or set "
                "max_unscored=1 to go on without these samples"
            )
        return verdicts

    def _warn_if_untested(self, problems: Sequence[Problem | None]) -> None:
        if self._calls_untested is None:
            return
        self._calls_untested = None if any(problems) else self._calls_untested + 1
        if self._calls_untested == _UNTESTED_CALLS:
            self._warn(
                "untested",
                f"no completion of {_UNTESTED_CALLS} calls belongs to one of the {len(self._index.problems)} problems "
                "with tests, so all got None. If that is not meant, give the dataset a column problem_id, or name the "
                "column that holds the problem alone as problem_column",
            )

    def _warn(self, kind: str, message: str) -> None:
        if kind not in self._warned:
            self._warned.add(kind)
            logger.warning("%s: %s. Said once", self.__name__, message)


class Elsewhere:
    """The result of `CodeScalerTestsReward.elsewhere`. Its name in the logs is that of the reward."""

    def __init__(self, tests: CodeScalerTestsReward, reward: Callable[..., Rewards]) -> None:
        self.tests, self.reward = tests, reward
        self.__name__ = getattr(reward, "__name__", type(reward).__name__)

    def __call__(
        self,
        prompts: Sequence[Text],
        completions: Sequence[Text],
        *,
        log_extra: LogExtra | None = None,
        **columns: Any,
    ) -> Rewards:
        """The rewards of n completions. The reward is called even for none: each process logs the same metrics."""
        problems = self.tests.problems(prompts, columns)
        rows = [row for row, problem in enumerate(problems) if problem is None]

        def spread(values: Sequence[Any]) -> list[Any]:
            by_row = dict(zip(rows, values, strict=True))
            return [by_row.get(row) for row in range(len(problems))]

        of_rows = {name: [values[row] for row in rows] for name, values in _by_row(columns, len(prompts)).items()}
        log = None if log_extra is None else lambda column, values: log_extra(column, spread(values))
        return spread(
            self.reward(
                prompts=[prompts[row] for row in rows],
                completions=[completions[row] for row in rows],
                log_extra=log,
                **{**columns, **of_rows},
            )
        )


def _by_row(arguments: dict[str, Any], n: int) -> dict[str, list[Any]]:
    """The arguments with one value per completion, which are lists of n. Others, such as `trainer_state`, are not."""
    return {name: values for name, values in arguments.items() if isinstance(values, list) and len(values) == n}


def _reward(judgement: Judgement, verdict: Verdict | None) -> float | None:
    if judgement.status is not Status.OK:
        return 0.0
    return None if verdict is None or verdict.fault is not None else float(verdict.passed)


def _word(verdict: Verdict | None) -> str | None:
    """A verdict in one word. Its detail may be text of the program, and the host draws the table at a terminal."""
    if verdict is None:
        return None
    return str(verdict.fault) if verdict.fault is not None else "passed" if verdict.passed else "failed"


def _metrics(
    n: int, judgements: Mapping[int, Judgement], verdicts: Mapping[int, Verdict | None], seconds: float
) -> dict[str, float]:
    """One number per metric, with the same names in every process. Without any verdict there is no `pass_rate`."""
    counts = Counter(judgement.status for judgement in judgements.values())
    passed = [float(verdict.passed) for verdict in verdicts.values() if verdict is not None and verdict.fault is None]
    metrics = {f"status/{status}": counts[status] / max(len(judgements), 1) for status in Status}
    metrics["untested"] = (n - len(judgements)) / max(n, 1)
    metrics["unjudged"] = float(counts[Status.OK] - len(passed))
    metrics["seconds"] = seconds
    if all_passed := [number for part in gathered(passed) for number in part]:
        metrics["pass_rate"] = fmean(all_passed)
    return metrics
