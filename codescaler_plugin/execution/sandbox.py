"""Verdicts by execution: a model's programs run in a sandbox, and what decides about them stays outside.

A program's process never holds a test's expected answer. Arguments go in and results come out as data
(`grading.serialization`). They are compared in this process; or, for tests that are Python source, in a second process
that runs the source and reaches the program's functions from afar (`grading.script_tests`). So an object that equals
everything, a patched builtin, an early exit, or a look at frames and files decides nothing.

How a run goes, for who reviews it:

- `Sandbox` hands programs to its workers. A `worker.Worker` talks to one `fork_server`, which forks a process per run,
  has `isolation.confinement` take away its rights, and kills it afterwards with all that it has started.
- `runs` is the conversation with that process, `verdicts` decides what its outcome means; both are the same for
  `remote_sandbox`, whose other end is `remote_worker`.

What the sandbox does not hold:

- What the isolation does not: `Sandbox.missing` lists it for this machine, `codescaler_plugin.isolation` for each
  isolation. It never holds an attack on the kernel itself, and bounds memory per process, not in sum.
- Tests that need the program in their own process (they pass it functions, patch it, or await it). They run with it,
  `Verdict.in_process` says so, and a program that is written to deceive them can.
- Programs that depend on time or on other programs' load: their verdicts can differ from run to run.
"""

import contextlib
import logging
import math
import os
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Self, TypedDict, Unpack

from codescaler_plugin.errors import ConfigError, SandboxError
from codescaler_plugin.execution.executor import CachingExecutor, Job, Ticker, grade_all
from codescaler_plugin.execution.jobs import MEMORY_MB, TIMEOUT, Limits
from codescaler_plugin.execution.visible_files import package_paths
from codescaler_plugin.execution.worker import Worker
from codescaler_plugin.isolation.confinement import ISOLATIONS
from codescaler_plugin.records import Verdict

logger = logging.getLogger(__name__)
_QUOTAS = (  # of CPU time and its period, in both versions of Linux' control groups
    ("/sys/fs/cgroup/cpu.max",),
    ("/sys/fs/cgroup/cpu/cpu.cfs_quota_us", "/sys/fs/cgroup/cpu/cpu.cfs_period_us"),
)


class SandboxSettings(TypedDict, total=False):
    """The arguments of `Sandbox` that its callers pass on."""

    timeout: float
    memory_mb: int
    workers: int | None
    require_isolation: bool
    packages: Sequence[str]


def run_tests(
    jobs: Sequence[Job], *, progress: Ticker | None = None, **settings: Unpack[SandboxSettings]
) -> list[Verdict]:
    """Run jobs in a sandbox of these settings, the same code for the same problem once; see `Sandbox`.

    Example:
        >>> from codescaler_plugin import CallTest, Problem, run_tests
        >>> problem = Problem("add", "Add two numbers.", (CallTest((1, 2), 3),), "add")
        >>> right, wrong = run_tests([("def add(a, b): return a + b", problem), ("def add(a, b): return a", problem)])
        >>> right.passed, wrong.detail
        (True, 'WrongAnswer in test 0: 1, expected 3')
    """
    if not jobs:
        return []
    settings["workers"] = min(settings.get("workers") or usable_cores(), len(jobs))
    with Sandbox(**settings) as sandbox:
        return CachingExecutor(sandbox).run(jobs, progress=progress)


class Sandbox:
    """A pool of warm processes that run programs. Use it as a context: its processes live until `close`.

    Code sees the standard library and `packages`, an empty environment, and an empty folder of its own. Equal seeds
    give equal verdicts except for code that depends on time. Linux only.

    Args:
        timeout: CPU seconds of a program over all calls of its tests; with stdin tests, per test. A problem's own
            `time_limit` takes precedence. Wall time may be four times as long.
        memory_mb: address space of each process of a program, in MiB.
        workers: programs at a time; None: one per core that this process may use.
        require_isolation: fail where something cannot be enforced.
        packages: names of installed packages that code and tests may import; they are loaded beforehand.
        isolation: "bubblewrap", "landlock" or "limits", see `codescaler_plugin.isolation`; None: the first that works.
        seed: seed of the hash of strings and of `random`, in programs and tests.

    Attributes:
        isolation: the isolation that is used.
        missing: what cannot be enforced on this machine, a sentence each; it is logged as a warning, once per process.

    Raises:
        ConfigError: a setting is out of range, or a package is not installed.
        SandboxError: no process can be started, or isolation is required and incomplete.

    Example:
        >>> from codescaler_plugin import Problem, Sandbox, StdioTest
        >>> problem = Problem("hello", "Print 4.", (StdioTest("", "4"),))
        >>> with Sandbox(workers=1, timeout=2.0) as sandbox:
        ...     [verdict] = sandbox.run([("print(2 + 2)", problem)])
        >>> verdict.passed
        True
    """

    def __init__(
        self,
        *,
        timeout: float = TIMEOUT,
        memory_mb: int = MEMORY_MB,
        workers: int | None = None,
        require_isolation: bool = False,
        packages: Sequence[str] = (),
        isolation: str | None = None,
        seed: int = 0,
    ) -> None:
        if not timeout > 0:
            raise ConfigError(f"timeout is {timeout!r}: expected seconds above 0")
        if memory_mb < 64:
            raise ConfigError(f"memory_mb is {memory_mb!r}: an interpreter needs at least 64")
        if isolation is not None and isolation not in ISOLATIONS:
            raise ConfigError(f"isolation is {isolation!r}: expected one of {', '.join(ISOLATIONS)}")
        self._limits = Limits(timeout, memory_mb, seed)
        self._workers: list[Worker] = []
        self._idle: SimpleQueue[Worker] = SimpleQueue()
        try:
            paths = package_paths(packages)
            self.isolation, first = _first_worker((isolation,) if isolation else ISOLATIONS, seed, paths)
            self._workers.append(first)
            self.missing = first.missing
            if self.missing and require_isolation:
                raise SandboxError(
                    f"isolation is required and incomplete here: {'; '.join(self.missing)}. Install bubblewrap, or "
                    "allow this user or container to make namespaces"
                )
            for sentence in self.missing:
                _warn(sentence)
            while len(self._workers) < (workers or usable_cores()):
                self._workers.append(Worker(self.isolation, seed, paths))
        except BaseException:  # Ctrl-C too must leave no process behind
            self.close()
            raise
        for worker in self._workers:
            self._idle.put(worker)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End all processes."""
        for worker in self._workers:
            worker.close()
        self._workers.clear()

    def run(self, jobs: Sequence[Job], *, progress: Ticker | None = None) -> list[Verdict]:
        """Run each program against its problem's tests; see `Executor.run`.

        A program passes if all tests do. Otherwise its verdict has a detail, and a `fault` where the tests did not
        find it wrong. A program that the machine may have held back runs once more, alone. No program can fail the
        caller.

        Raises:
            SandboxError: a test's values cannot be sent, or this machine cannot run programs: no space, no file
                descriptors, no processes.
        """
        if not self._workers:
            raise SandboxError("the sandbox is closed: no program can be run in it")

        def grade(job: Job, is_alone: bool) -> Verdict:
            worker = self._idle.get()
            try:
                return worker.grade(*job, replace(self._limits, is_alone=is_alone))
            finally:
                self._idle.put(worker)

        try:
            return grade_all(grade, jobs, workers=len(self._workers), progress=progress)
        finally:
            self._rest()

    def _rest(self) -> None:
        """Let no process hold tests for longer than a run, except those of other threads' runs."""
        workers = []
        with contextlib.suppress(Empty):
            while True:
                workers.append(self._idle.get_nowait())
        for worker in workers:
            worker.rest()
            self._idle.put(worker)


def usable_cores() -> int:
    """Cores that this process may use, by its affinity and by its control group's quota; at least 1."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    for files in _QUOTAS:
        with contextlib.suppress(OSError, ValueError):  # no such control group, or no quota
            quota, period = " ".join(Path(file).read_text() for file in files).split()
            if int(quota) > 0:
                cores = min(cores, math.ceil(int(quota) / int(period)))
    return max(1, cores)


@cache
def _warn(sentence: str) -> None:
    """Warn once in the life of this process."""
    logger.warning("sandbox: %s", sentence)


def _first_worker(isolations: Sequence[str], seed: int, packages: dict[str, list[str]]) -> tuple[str, Worker]:
    reasons = []
    for isolation in isolations:
        try:
            return isolation, Worker(isolation, seed, packages)
        except SandboxError as error:
            reasons.append(f"{isolation}: {error}")
            logger.info("sandbox: no %s here: %s", isolation, error)
    raise SandboxError(f"no program can be run here: {'; '.join(reasons)}")
