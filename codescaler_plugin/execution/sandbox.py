"""Verdicts by execution: model-written code runs in a sandbox, and what decides about it stays outside.

The candidate's process never holds a test's expected answer. Calls go in and results come out as data
(`grading.serialization`). They are compared here, or, for tests that are Python source, in a second process that runs
the source and reaches the candidate's functions from afar (`grading.script_tests`). So an object that equals
everything, a patched builtin, an early exit, or a look at frames and files decides nothing.

What the sandbox holds back depends on the machine: see `Sandbox.missing`. It does not hold back an attack on the
kernel itself; memory is bounded per process, not in sum.
"""

import contextlib
import glob
import importlib.util
import itertools
import json
import logging
import math
import os
import re
import secrets
import select
import shutil
import socket
import subprocess
import sys
import sysconfig
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import cache
from importlib import metadata
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any, Self, TypedDict, Unpack

import psutil

from codescaler_plugin.errors import ConfigError, SandboxError
from codescaler_plugin.execution.executor import CachingExecutor, Job, Ticker
from codescaler_plugin.execution.jobs import (
    AGAIN,
    GRADER_GONE,
    MEMORY_MB,
    TESTS_GONE,
    TIMEOUT,
    Allowed,
    Limits,
    Report,
    call_job,
    checked_report,
    checker_job,
    ended,
    nothing,
    packed_calls,
    script_job,
    take_output,
    told_apart,
    verdict_of,
)
from codescaler_plugin.grading import call_tests, serialization
from codescaler_plugin.grading.call_tests import Frame
from codescaler_plugin.grading.counting import Count, error_of
from codescaler_plugin.isolation.namespaces import DEVICES, FOLDERS, LINKS, PROCESSES, WORK
from codescaler_plugin.records import CallTest, Comparison, Fault, Problem, StdioTest, Verdict

logger = logging.getLogger(__name__)

ISOLATIONS = ("bubblewrap", "namespaces", "limits")

_OUTPUT_BYTES = 16 << 20  # of a program
_REPORT_BYTES = 64 << 10
_WAIT = 30.0  # seconds for a process of ours to answer
_GRACE = 1.0  # seconds for a process to end by itself, and beyond its limit before a grader is given up
_PACKAGE = Path(__file__).parents[1]
_SANDBOXED = [
    _PACKAGE / name for name in ("__init__.py", "isolation", "grading", "execution")
]  # what its processes import
_GRADE = (
    "import sys; sys.path.append(sys.argv[1]); from codescaler_plugin.grading.call_tests import grade_apart; "
    "grade_apart(float(sys.argv[2]), int(sys.argv[3]))"
)
_NIX = "/nix/store"
_ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
_QUOTAS = (  # of CPU time and its period, in both versions of Linux' control groups
    ("/sys/fs/cgroup/cpu.max",),
    ("/sys/fs/cgroup/cpu/cpu.cfs_quota_us", "/sys/fs/cgroup/cpu/cpu.cfs_period_us"),
)
_MISSING = {
    "network": "network not isolated: the code can connect to other machines",
    "hidden files": "files not hidden: the code can find out which there are, and read what is installed",
    "contents of files": "files not protected: the code can read, change and delete what its user may",
    "processes of others": "processes not hidden: the code can see those of its user",
    "signals": "signals not held back: the code can end other processes of its user",
    "disk": "disk not private: no tmp of its own size; the code can fill the disk for the time of its run",
    "leftovers": "leftovers: what the code leaves outside its own folder stays",
    "user": "user not changed: the code runs as you, and has no shared memory and semaphores",
    "memory": "memory not limited",
    "library": "standard library hidden from the code's user: only modules loaded beforehand can be imported",
}


class SandboxSettings(TypedDict, total=False):
    """Arguments of `Sandbox` that are passed on to it by whoever starts one."""

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
        >>> [verdict] = run_tests([("def add(a, b): return a + b", problem)], timeout=5.0)
    """
    if not jobs:
        return []
    settings["workers"] = min(settings.get("workers") or usable_cores(), len(jobs))
    with Sandbox(**settings) as sandbox:
        return CachingExecutor(sandbox).run(jobs, progress=progress)


class Sandbox:
    """A pool of warm processes that run candidates; use it as a context, for its processes live until `close`.

    Code sees the standard library and `packages`, an empty environment, and an empty folder of its own. Equal seeds
    give equal verdicts but for code that depends on time.

    Args:
        timeout: CPU seconds of a candidate over all its calls; of a program (StdioTest), per run. A problem's own
            `time_limit` goes before it. Wall time may be four times as long.
        memory_mb: address space of each process of a candidate, in MiB.
        workers: candidates at a time; None: one per core that this process may use.
        require_isolation: refuse to run where something cannot be enforced.
        packages: names of installed packages that code and tests may import; they are loaded beforehand.
        isolation: None for the strongest that works here; or one of `ISOLATIONS`.
        seed: of the hash of strings and of `random` in candidates and tests.

    Attributes:
        missing: what cannot be enforced on this machine, a sentence each.

    Raises:
        ConfigError: a setting that makes no sense.
        SandboxError: no process can be started, or isolation is required and incomplete.
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
        self._slots: list[_Slot] = []
        self._idle: SimpleQueue[_Slot] = SimpleQueue()
        try:
            found = _found(packages)
            self.isolation, first = _first_slot((isolation,) if isolation else ISOLATIONS, seed, found)
            self._slots.append(first)
            self.missing = first.missing()
            if self.missing and require_isolation:
                raise SandboxError(
                    f"isolation is required and incomplete here: {'; '.join(self.missing)}. Install bubblewrap, or "
                    "allow this user or container to make namespaces"
                )
            for sentence in self.missing:
                _say(sentence)
            while len(self._slots) < (workers or usable_cores()):
                self._slots.append(_Slot(self.isolation, seed, found))
        except BaseException:  # Ctrl-C too must leave no process behind
            self.close()
            raise
        for slot in self._slots:
            self._idle.put(slot)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End all processes."""
        for slot in self._slots:
            slot.close()
        self._slots.clear()

    def run(self, jobs: Sequence[Job], *, progress: Ticker | None = None) -> list[Verdict]:
        """Run each candidate's code against its problem's tests; same length, same order.

        A candidate passes if all tests do. Otherwise its verdict has a detail, and a `fault` where the tests did not
        find it wrong; a program that the machine may have held back runs once more, alone. No candidate can fail the
        caller. `progress` is called with the number of candidates just judged, one call at a time.

        Raises:
            SandboxError: a test's values cannot be sent, or this machine cannot run programs: no space, no file
                descriptors, no processes.
        """
        if not self._slots:
            raise SandboxError("the sandbox is closed: no program can be run in it")

        def judge(job: Job, is_alone: bool) -> Verdict:
            slot = self._idle.get()
            try:
                return slot.judge(*job, replace(self._limits, is_alone=is_alone))
            finally:
                self._idle.put(slot)

        try:
            return judge_all(judge, jobs, workers=len(self._slots), progress=progress)
        finally:
            self._rest()

    def _rest(self) -> None:
        """Let no process hold tests for longer than a run, but those of other threads' runs."""
        slots = []
        with contextlib.suppress(Empty):
            while True:
                slots.append(self._idle.get_nowait())
        for slot in slots:
            slot.rest()
            self._idle.put(slot)


def judge_all(
    judge: Callable[[Job, bool], Verdict], jobs: Sequence[Job], *, workers: int, progress: Ticker | None = None
) -> list[Verdict]:
    """A verdict per job in the jobs' order, by `workers` threads; code that cannot be encoded fails unrun.

    What may be the fault of a busy machine is judged again at the end, one at a time; `judge` is told so.

    Raises:
        SandboxError: a problem has no tests, or whatever `judge` raises.
    """
    lock = threading.Lock()

    def judged(job: Job) -> Verdict:
        code, problem = job
        if not problem.tests:
            raise SandboxError(f"problem {problem.id or problem.text[:40]!r} has no tests: no code can be verified")
        try:
            code.encode()
        except UnicodeEncodeError:
            verdict = Verdict(passed=False, detail="UnicodeEncodeError", tests_total=len(problem.tests))
        else:
            verdict = judge(job, False)
        if progress is not None:
            with lock:
                progress(1)
        return verdict

    pool = ThreadPoolExecutor(max(1, workers), thread_name_prefix="sandbox")
    try:
        verdicts = list(pool.map(judged, jobs))
    finally:
        pool.shutdown(cancel_futures=True)
    return [judge(job, True) if one.fault in AGAIN else one for job, one in zip(jobs, verdicts, strict=True)]


def usable_cores() -> int:
    """Cores that this process may use, by its affinity and by its control group's quota; at least 1."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    for files in _QUOTAS:
        with contextlib.suppress(OSError, ValueError):  # no such control group, or no quota
            quota, period = " ".join(Path(file).read_text() for file in files).split()
            if int(quota) > 0:
                cores = min(cores, math.ceil(int(quota) / int(period)))
    return max(1, cores)


def grade_calls(problem: Problem, accepted: Sequence[Any], came: Sequence[Frame], allowed: Allowed) -> Report:
    """The report on what a candidate sent, in a process of its own where that may take long."""
    if call_tests.is_cheap(came, problem.comparison):
        return checked_report(call_tests.graded(problem.comparison, accepted, came))
    frames = [frame for frame in came if isinstance(frame, bytes)]
    job = {
        "rule": problem.comparison,
        "tests": len(accepted),
        "frames": len(frames),
        "end": [frame for frame in came if isinstance(frame, dict)],
    }
    bounds = map(str, (allowed.of_grader().cpu, allowed.of_grader().memory_mb))
    ours, theirs = socket.socketpair()
    with ours:
        with theirs:
            process = subprocess.Popen(
                [os.path.realpath(sys.executable), "-I", "-S", "-c", _GRADE, str(_PACKAGE.parent), *bounds],
                stdin=theirs.fileno(),
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
        try:
            with contextlib.suppress(ConnectionError):  # it has reported before it read all
                for message in (job, *accepted):
                    serialization.send(ours, message)
                for frame in frames:
                    serialization.send_bytes(ours, frame)
            return checked_report(serialization.receive(ours, time.monotonic() + _WAIT, _REPORT_BYTES))
        except (EOFError, TimeoutError, serialization.SerializationError):
            return nothing(problem, "UnreadableResult", Fault.UNREADABLE_RESULT)
        finally:
            process.kill()
            process.wait()


@cache
def _say(sentence: str) -> None:
    """Warn once in the life of this process."""
    logger.warning("sandbox: %s", sentence)


def _first_slot(kinds: Sequence[str], seed: int, packages: dict[str, list[str]]) -> tuple[str, "_Slot"]:
    reasons = []
    for isolation in kinds:
        try:
            return isolation, _Slot(isolation, seed, packages)
        except SandboxError as error:
            reasons.append(f"{isolation}: {error}")
            logger.info("sandbox: no %s here: %s", isolation, error)
    raise SandboxError(f"no candidate can be run here: {'; '.join(reasons)}")


_numbers = itertools.count()


class _Slot:
    """One zygote and the conversation with it; used by one thread at a time."""

    def __init__(self, isolation: str, seed: int, packages: dict[str, list[str]]) -> None:
        self._isolation = isolation
        self._seed = seed
        self._packages = packages
        self._number = next(_numbers)
        self._is_broken = False
        self._judge: socket.socket | None = None  # to a process that holds the tests of a problem
        self._problem: Problem | None = None
        self._start()

    def _start(self) -> None:
        self._tmp = tempfile.mkdtemp(prefix="codescaler-sandbox-") if self._isolation == "limits" else ""
        self._control, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                self._command(),
                stdin=theirs.fileno(),
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                env={
                    "PYTHONHASHSEED": str(self._seed),
                    "PYTHONDONTWRITEBYTECODE": "1",
                    "PYTHONPATH": str(_PACKAGE / "execution" / "start"),
                    "LC_CTYPE": "C.UTF-8",
                    "MALLOC_ARENA_MAX": "2",  # each takes address space of which a thread needs little
                    **_ONE_THREAD,
                },
                cwd="/",
                start_new_session=True,
            )
        try:
            answer = serialization.receive(self._control, time.monotonic() + _WAIT)
        except (EOFError, TimeoutError, serialization.SerializationError) as error:
            self.close()
            raise SandboxError(f"its process does not start: {self._last_words or repr(error)}") from error
        self._enforced = answer.get("enforced", [])
        broken = answer.get("error") or next((name for name in self._enforced if name.startswith("failed")), None)
        if broken:
            self.close()
            raise SandboxError(str(broken))

    def _command(self) -> list[str]:
        packages = sorted({*itertools.chain.from_iterable(self._packages.values())})
        visible, links = _visible()
        paths = sorted({*visible, *packages})
        covered = _covered()
        settings: dict[str, Any] = {
            "isolation": self._isolation,
            "paths": paths,
            "covered": covered,
            "links": links,
            "packages": list(self._packages),
            "packages_at": packages,
            "import_from": sorted({os.path.dirname(path) for path in packages}),
            "library": sysconfig.get_path("stdlib"),
            "tmp": self._tmp,
            "script": "/proc/self/cwd/main.py" if self._isolation == "limits" else f"{WORK}/main.py",
            "uid": 1_000_000_000 + os.getpid() * 256 + self._number % 128 * 2,
            "processes": PROCESSES + (0 if self._isolation != "limits" or os.geteuid() == 0 else _threads_of_user()),
        }
        python = os.path.realpath(sys.executable)
        run = [python, "-X", "frozen_modules=off", settings["script"], json.dumps(settings), str(_PACKAGE.parent)]
        # A thread's stack is as large as the limit of the stack at the start: none would fit into the memory's limit.
        with_stack = ["/bin/sh", "-c", 'ulimit -S -s 8192; exec "$0" "$@"']
        if self._isolation == "namespaces" and sys.platform != "linux":
            raise SandboxError("namespaces are Linux's")
        if self._isolation != "bubblewrap":
            return [*with_stack, *run]
        bwrap = shutil.which("bwrap")
        if bwrap is None:
            raise SandboxError("bwrap is not installed")
        command = [bwrap, "--unshare-pid", "--unshare-net", "--unshare-ipc", "--unshare-uts", "--cap-drop", "ALL"]
        if os.geteuid() != 0:
            command += ["--unshare-user", "--uid", "0", "--gid", "0"]
        for name in ("SYS_ADMIN", "SETUID", "SETGID", "SETPCAP", "KILL"):
            command += ["--cap-add", f"CAP_{name}"]
        made = {"/"}
        for path in sorted({*paths, *covered, *DEVICES, *links, *LINKS, *FOLDERS}):  # a folder before what lies in it
            for parent in reversed(Path(path).parents):  # bwrap would make them for root alone
                if str(parent) not in made:
                    command += ["--perms", "0755", "--dir", str(parent)]
                    made.add(str(parent))
            made.add(path)
            if path in covered:
                command += ["--perms", "0755", "--tmpfs", path]
            elif path in DEVICES:
                command += ["--dev-bind", path, path]
            elif path in paths:
                command += ["--ro-bind", path, path]
            elif path == "/proc":
                command += ["--proc", path]
            elif path in FOLDERS:
                command += ["--perms", "0755", "--dir", path]
            else:
                command += ["--symlink", {**links, **LINKS}[path], path]
        for path in [*covered, "/"]:
            command += ["--remount-ro", path]
        return [*with_stack, *command, "--chdir", "/", "--", *run]

    def missing(self) -> list[str]:
        return [
            sentence
            for name, sentence in _MISSING.items()
            if name not in self._enforced and not (name == "signals" and "processes of others" in self._enforced)
        ]

    def close(self) -> None:
        self._forget_judge()
        self._control.close()
        try:
            self._process.wait(2)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        assert self._process.stderr is not None
        self._last_words = self._process.stderr.read().decode("utf-8", "replace").strip()[-500:]
        self._process.stderr.close()
        shutil.rmtree(self._tmp, ignore_errors=True)

    def judge(self, code: str, problem: Problem, limits: Limits) -> Verdict:
        """The verdict; a fault of this machine raises a SandboxError and leaves the slot fit for the next program."""
        for _ in range(2):
            if self._is_broken:
                self.close()
                self._start()
            self._is_broken = True
            try:
                verdict = self._verdict(code, problem, limits)
            except (EOFError, ConnectionError, TimeoutError, serialization.SerializationError):
                continue  # the zygote has gone: only a new one can tell whether it was us
            except OSError as error:
                raise SandboxError(f"programs cannot be run here: {error}. What has been judged stands") from error
            self._is_broken = False
            return verdict
        return Verdict(passed=False, detail="Killed", tests_total=len(problem.tests), fault=Fault.KILLED)

    def _verdict(self, code: str, problem: Problem, limits: Limits) -> Verdict:
        start = time.monotonic()
        in_process = False
        if isinstance(problem.tests[0], CallTest):
            report = self._calls(code, problem, limits)
        elif isinstance(problem.tests[0], StdioTest):
            report = self._programs(code, problem, limits)
        else:
            report = self._scripts(code, problem, limits)
            if in_process := bool(report["beyond"]):
                report = self._in_process(code, problem, limits)
        return verdict_of(report, problem, time.monotonic() - start, in_process=in_process)

    def _calls(self, code: str, problem: Problem, limits: Limits) -> Report:
        requests, accepted = packed_calls(problem)
        allowed = limits.of(problem)
        ours, theirs = socket.socketpair()
        with ours:
            self._child("candidate", allowed, theirs)
            came = list(call_tests.frames(call_job(code, problem, allowed), requests, ours))
            codes, cpu = self._stop(_GRACE if came[-1] == {"over": "Killed"} else 0.0)
        return told_apart(grade_calls(problem, accepted, came, allowed), codes, cpu[0], allowed)

    def _scripts(self, code: str, problem: Problem, limits: Limits) -> Report:
        allowed = limits.of(problem)
        judge = self._judge_of(problem, allowed)
        if not isinstance(judge, socket.socket):
            return judge
        ours, theirs = socket.socketpair()
        with ours:
            self._child("candidate", allowed, theirs)
            ended_by: list[int | None] = []
            try:
                judge.settimeout(allowed.wall + _GRACE)
                socket.send_fds(judge, [b"\0"], [ours.fileno()])
                serialization.send(judge, {"code": code, "timeout": allowed.wall})
                answer = serialization.receive(judge, time.monotonic() + allowed.wall + _GRACE, _REPORT_BYTES)
            except TimeoutError:
                answer, ended_by = nothing(problem, "Timeout", Fault.TIMEOUT), [None]  # not even the grader's own
        if "code" in answer:
            answer, ended_by = nothing(problem, GRADER_GONE), [answer["code"]]
        report = checked_report(answer)
        is_last = bool(ended_by) or self._isolation == "limits"
        codes, cpu = self._stop(_GRACE if report["detail"] in ("Killed", GRADER_GONE) else 0.0, is_last=is_last)
        return told_apart(report, [*codes, *ended_by], cpu[0], allowed)

    def _judge_of(self, problem: Problem, allowed: Allowed) -> socket.socket | Report:
        """A process that holds the problem's tests; or the report, where they can grade no program from outside."""
        if self._problem is problem and self._judge is not None:
            return self._judge
        self._forget_judge()
        ours, theirs = socket.socketpair()
        self._judge = ours
        self._child("judge", allowed.of_grader(), theirs)
        ours.settimeout(allowed.wall + _GRACE)
        answer = nothing(problem, TESTS_GONE, Fault.TEST_ERROR)
        with contextlib.suppress(EOFError, ConnectionError, TimeoutError):  # the tests end or hold their process
            serialization.send(ours, script_job("", problem, allowed))
            answer = serialization.receive(ours, time.monotonic() + allowed.wall + _GRACE, _REPORT_BYTES)
        if not answer:
            self._problem = problem
            return ours
        self._stop(0.0)
        return answer

    def rest(self) -> None:
        """End the judge."""
        if self._judge is not None and not self._is_broken:
            try:
                self._stop(0.0)
            except (
                OSError,
                EOFError,
                serialization.SerializationError,
            ):  # the next program finds it so, and starts anew
                self._is_broken = True

    def _forget_judge(self) -> None:
        if self._judge is not None:
            self._judge.close()
        self._judge, self._problem = None, None

    def _in_process(self, code: str, problem: Problem, limits: Limits) -> Report:
        allowed = limits.of(problem)
        token = secrets.token_hex(16)
        ours, theirs = socket.socketpair()
        with ours:
            self._child("in_process", allowed, theirs)
            try:
                ours.settimeout(allowed.wall + _GRACE)
                with contextlib.suppress(ConnectionError):  # it has ended before it read all
                    serialization.send(ours, {**script_job(code, problem, allowed), "token": token})
                answer = serialization.receive(ours, time.monotonic() + allowed.wall + _GRACE, _REPORT_BYTES)
                report = checked_report(answer, token)
            except TimeoutError:
                report = nothing(problem, "Timeout")
            except (EOFError, serialization.SerializationError):
                report = nothing(problem, "Killed")
        codes, cpu = self._stop(_GRACE if report["detail"] == "Killed" else 0.0)
        return told_apart(report, codes, cpu[0], allowed)

    def _programs(self, code: str, problem: Problem, limits: Limits) -> Report:
        allowed = limits.of(problem)
        count = Count(len(problem.tests))
        for test in problem.tests:
            assert isinstance(test, StdioTest)
            error, fault, output = self._program(code, problem.preamble, test.stdin, allowed)
            checked = None
            if not error and problem.comparison is Comparison.CHECKER:
                program, given = checker_job(problem, test, output)
                error, _, checked = self._program(program, "", given, allowed.of_grader())
                if error:  # that it breaks says nothing of the candidate
                    error, fault = f"TestError: {error} in the checker", Fault.TEST_ERROR
            if error:
                count.take_error(error, fault)
            else:
                take_output(count, output, test, problem, checked)
            if fault or error in ("Timeout", "SyntaxError"):
                break
        return count.report()

    def _program(self, code: str, preamble: str, stdin: str, allowed: Allowed) -> tuple[str, str, str]:
        """The error, the fault and the output of one run."""
        ours, theirs = socket.socketpair()
        reader, writer = os.pipe()
        with ours, open(reader, "rb", buffering=0) as output, tempfile.TemporaryFile() as given:
            with open(writer, "wb", buffering=0) as sink:
                given.write(stdin.encode("utf-8", "surrogateescape"))
                given.seek(0)
                self._child("program", allowed, theirs, given, sink)
            deadline = time.monotonic() + allowed.wall
            ours.settimeout(allowed.wall)
            text, error = "", ""
            try:
                serialization.send(ours, {"code": code, "preamble": preamble})
                text, error = _read_output(output, deadline)
            except TimeoutError:
                error = "Timeout"
            except ConnectionError:
                error = "Killed"
            grace = 0.0 if error in ("Timeout", "OutputTooLarge") else max(_GRACE, deadline - time.monotonic())
            codes, cpu = self._stop(grace)
            fault = ""
            if error or codes[0] is None:
                error, fault = ended(error or "Timeout", codes[0], cpu[0], allowed)
            elif codes[0]:
                error, fault = ended("Killed", codes[0], cpu[0], allowed)
                if error == "Killed" and codes[0] > 0:
                    error, fault = f"exit code {codes[0]}", ""
                    with contextlib.suppress(
                        EOFError, OSError, serialization.SerializationError, AttributeError
                    ):  # it exited by itself
                        error, fault = error_of(serialization.receive(ours, time.monotonic() + _GRACE, _REPORT_BYTES))
        return error, fault, text

    def _child(self, role: str, allowed: Allowed, *ends: Any) -> None:
        request = json.dumps({"do": "start", "role": role, **allowed.request()}).encode()
        try:
            socket.send_fds(self._control, [request], [end.fileno() for end in ends])
            answer = serialization.receive(self._control, time.monotonic() + _WAIT)
        finally:
            for end in ends:
                if isinstance(end, socket.socket):
                    end.close()
        if "error" in answer:
            raise SandboxError(f"programs cannot be run here: {answer['error']}. What has been judged stands")

    def _stop(self, grace: float, *, is_last: bool = True) -> tuple[list[int | None], list[float]]:
        """The children's exit codes (None: it had to be killed) and their CPU seconds; `is_last`: the judge goes."""
        if is_last:
            self._forget_judge()
        self._control.settimeout(_WAIT)
        self._control.sendall(json.dumps({"do": "stop", "grace": grace, "is_last": is_last}).encode())
        answer = serialization.receive(self._control, time.monotonic() + grace + _WAIT)
        return answer["codes"], answer["cpu"]


def _read_output(output: Any, deadline: float) -> tuple[str, str]:
    data = bytearray()
    while len(data) <= _OUTPUT_BYTES:
        ready, _, _ = select.select([output], [], [], max(0.0, deadline - time.monotonic()))
        if not ready:
            return "", "Timeout"
        part = output.read(1 << 16)
        if not part:
            return data.decode("utf-8", "replace"), ""
        data += part
    return "", "OutputTooLarge"


def _visible() -> tuple[list[str], dict[str, str]]:
    """Files and folders that the interpreter needs: its own, the standard library, shared libraries; and links."""
    paths = {
        os.path.realpath(sys.executable),
        *map(str, _SANDBOXED),
        "/usr/lib64",
        "/usr/share/zoneinfo",
        "/etc/ld.so.cache",
    }
    paths |= {sysconfig.get_path("stdlib"), sysconfig.get_path("platstdlib"), _NIX}
    libraries = {"/lib", "/lib64", "/usr/lib", sysconfig.get_config_var("LIBDIR") or "/usr/lib"}
    for folder in {os.path.realpath(folder) for folder in libraries}:
        own = [os.path.join(folder, name) for name in (sysconfig.get_config_var("MULTIARCH"), "locale") if name]
        paths |= set(own) if os.path.isdir(own[0]) and folder == "/usr/lib" else {folder}  # else all kinds of things
    links = {path: os.readlink(path) for path in ("/lib", "/lib64", "/usr/lib64") if os.path.islink(path)}
    return sorted({os.path.realpath(path) for path in paths if os.path.exists(path)}), links


@cache
def _covered() -> list[str]:
    """The folders of installed packages below what is visible."""
    found = set(glob.glob(f"{_NIX}/*/lib/python*/site-packages"))
    for path in _visible()[0]:
        for parent, folders, _ in os.walk(path) if path != _NIX else ():
            for name in {"site-packages", "dist-packages"} & set(folders):
                folders.remove(name)
                found.add(os.path.join(parent, name))
    return sorted(found)


def _found(packages: Sequence[str]) -> dict[str, list[str]]:
    """Where installed packages lie, and what they require as far as it is installed, with all that came with them."""
    found = {}
    for name in packages:
        spec = importlib.util.find_spec(name) if name.isidentifier() else None
        if spec is None or spec.origin is None:
            raise ConfigError(f"package {name!r} is not installed here, so no code can import it")
        places = {os.path.realpath(place) for place in spec.submodule_search_locations or [spec.origin]}
        waiting, seen = list(metadata.packages_distributions().get(name, ())), set()
        while waiting:
            try:
                distribution = metadata.distribution(waiting.pop())
            except metadata.PackageNotFoundError:  # required, but only for an extra or another machine
                continue
            if distribution.name not in seen:
                seen.add(distribution.name)
                tops = {file.parts[0] for file in distribution.files or ()} - {"..", "__pycache__"}
                places |= {os.path.realpath(str(distribution.locate_file(top))) for top in tops}
                waiting += [re.split(r"[^\w.-]", text, maxsplit=1)[0] for text in distribution.requires or ()]
        found[name] = sorted(place for place in places if os.path.exists(place) and not place.endswith(".pth"))
    return found


def _threads_of_user() -> int:
    """Where the kernel counts all processes of a user together, ours are those beyond."""
    own = os.getuid()
    found = psutil.process_iter(["uids", "num_threads"])
    return sum(one.info["num_threads"] or 0 for one in found if one.info["uids"] and one.info["uids"].real == own)
