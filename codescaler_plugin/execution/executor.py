"""Who gives verdicts, and that no program is run twice for one."""

import hashlib
from collections.abc import Callable, Sequence
from typing import Protocol

from cachetools import LRUCache

from codescaler_plugin.records import Problem, Verdict

Job = tuple[str, Problem]
"""A candidate's code, and the problem whose tests decide."""
Ticker = Callable[[int], None]

_REMEMBERED = 200_000  # verdicts in memory, about 100 MB


class Executor(Protocol):
    """Whatever gives verdicts: this machine's sandbox, or a service."""

    def run(self, jobs: Sequence[Job], *, progress: Ticker | None = None) -> list[Verdict]:
        """A verdict per job in the jobs' order; `progress` is called with the number of jobs just judged."""
        ...


class CachingExecutor:
    """An executor that runs each program once for a problem, over all its calls; later jobs get the same verdict.

    Two programs are the same if their texts are. Two problems are the same only if they are one object. `executed` is
    the number of programs run.

    Example:
        >>> with Sandbox() as sandbox:
        ...     executor = CachingExecutor(sandbox)
        ...     verdicts = executor.run([(code, problem), (code, problem)])
        >>> executor.executed
        1
    """

    def __init__(self, executor: Executor) -> None:
        self.executed = 0
        self._executor = executor
        self._verdicts: LRUCache[bytes, Verdict] = LRUCache(_REMEMBERED)
        self._problems: dict[int, Problem] = {}  # kept alive: the id of one that is gone may be another's

    def run(self, jobs: Sequence[Job], *, progress: Ticker | None = None) -> list[Verdict]:
        """See `Executor.run`; jobs that need no run are judged first.

        Raises:
            SandboxError: the executor broke. What it judged before is lost.
        """
        keys = [self._key(job) for job in jobs]
        found = {key: self._verdicts[key] for key in keys if key in self._verdicts}
        new = {key: job for key, job in zip(keys, jobs, strict=True) if key not in found}
        if progress is not None and len(new) < len(jobs):
            progress(len(jobs) - len(new))
        if new:
            made = dict(zip(new, self._executor.run(list(new.values()), progress=progress), strict=True))
            self.executed += len(new)
            self._verdicts.update(made)
            found |= made
        return [found[key] for key in keys]

    def remember(self, job: Job, verdict: Verdict) -> None:
        """Take a verdict as if the program had been run here."""
        self._verdicts[self._key(job)] = verdict

    def _key(self, job: Job) -> bytes:
        code, problem = job
        self._problems[id(problem)] = problem
        return hashlib.blake2b(f"{id(problem)}\0{code}".encode("utf-8", "surrogatepass"), digest_size=16).digest()
