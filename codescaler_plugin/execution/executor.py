"""The `Executor` protocol, an executor that runs no program twice, and what all executors do with a batch."""

import hashlib
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

from cachetools import LRUCache

from codescaler_plugin.errors import SandboxError
from codescaler_plugin.execution.jobs import RERUN
from codescaler_plugin.records import Problem, Verdict

Job = tuple[str, Problem]
"""A program's code, and the problem whose tests decide."""
Ticker = Callable[[int], None]
_REMEMBERED = 200_000  # verdicts in memory, about 100 MB


class Executor(Protocol):
    """Gives verdicts: `Sandbox` on this machine, `RemoteSandbox` by a service, or your own class with this method.

    Example:
        >>> from codescaler_plugin import Executor, Problem, StdioTest, Verdict
        >>> class LengthExecutor:
        ...     def run(self, jobs, *, progress=None):
        ...         return [Verdict(passed=len(code) < 80) for code, problem in jobs]
        >>> executor: Executor = LengthExecutor()
        >>> executor.run([("print(1)", Problem("one", "Print 1.", (StdioTest("", "1"),)))])[0].passed
        True
    """

    def run(self, jobs: Sequence[Job], *, progress: Ticker | None = None) -> list[Verdict]:
        """Give one verdict per job, in the order of the jobs.

        Args:
            jobs: (code, problem) pairs.
            progress: called with the number of jobs that were just graded, by one thread at a time.
        """


class CachingExecutor:
    """An executor that runs each program once for a problem; later jobs get the same verdict.

    Two programs are the same if their texts are. Two problems are the same only if they are one object.

    Attributes:
        executed: number of programs run.

    Example:
        >>> from codescaler_plugin import CachingExecutor, CallTest, Problem
        >>> from codescaler_plugin.testing import FakeExecutor
        >>> problem = Problem("inc", "Add one.", (CallTest((1,), 2),), "inc")
        >>> executor = CachingExecutor(FakeExecutor(lambda code, problem: True))
        >>> first, second = executor.run([("def inc(n): return n + 1", problem)] * 2)
        >>> first is second, executor.executed
        (True, 1)
    """

    def __init__(self, executor: Executor) -> None:
        self.executed = 0
        self._executor = executor
        self._verdicts: LRUCache[bytes, Verdict] = LRUCache(_REMEMBERED)
        self._problems: dict[int, Problem] = {}  # kept alive: the id of one that is gone may be another's

    def run(self, jobs: Sequence[Job], *, progress: Ticker | None = None) -> list[Verdict]:
        """See `Executor.run`; `progress` counts the jobs that need no run first.

        Raises:
            SandboxError: the executor failed. Its verdicts of this call are lost.
        """
        keys = [self._key(job) for job in jobs]
        verdicts = {key: self._verdicts[key] for key in keys if key in self._verdicts}
        new = {key: job for key, job in zip(keys, jobs, strict=True) if key not in verdicts}
        if progress is not None and len(new) < len(jobs):
            progress(len(jobs) - len(new))
        if new:
            made = dict(zip(new, self._executor.run(list(new.values()), progress=progress), strict=True))
            self.executed += len(new)
            self._verdicts.update(made)
            verdicts |= made
        return [verdicts[key] for key in keys]

    def remember(self, job: Job, verdict: Verdict) -> None:
        """Take a verdict as if the program had been run here."""
        self._verdicts[self._key(job)] = verdict

    def _key(self, job: Job) -> bytes:
        code, problem = job
        self._problems[id(problem)] = problem
        return hashlib.blake2b(f"{id(problem)}\0{code}".encode("utf-8", "surrogatepass"), digest_size=16).digest()


def grade_all(
    grade: Callable[[Job, bool], Verdict], jobs: Sequence[Job], *, workers: int, progress: Ticker | None = None
) -> list[Verdict]:
    """Grade jobs by `workers` threads, and keep their order; code that cannot be encoded fails without a run.

    Jobs with a fault of a busy machine are graded again at the end, one at a time. The second argument of `grade` is
    true then.
    """
    lock = threading.Lock()

    def grade_one(job: Job) -> Verdict:
        code, problem = job
        if not problem.tests:
            raise SandboxError(f"problem {problem.id or problem.text[:40]!r} has no tests: no code can be verified")
        try:
            code.encode()
        except UnicodeEncodeError:
            verdict = Verdict(passed=False, detail="UnicodeEncodeError", tests_total=len(problem.tests))
        else:
            verdict = grade(job, False)
        if progress is not None:
            with lock:
                progress(1)
        return verdict

    pool = ThreadPoolExecutor(max(1, workers), thread_name_prefix="sandbox")
    try:
        verdicts = list(pool.map(grade_one, jobs))
    finally:
        pool.shutdown(cancel_futures=True)
    return [
        grade(job, True) if verdict.fault in RERUN else verdict for job, verdict in zip(jobs, verdicts, strict=True)
    ]
