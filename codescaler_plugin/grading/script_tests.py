"""Grades by tests that are Python source; the functions that they test live in another process.

Results are rebuilt here as data of known types, so an object with an `__eq__` of its own, a patched builtin, or an
early exit decides nothing. What a test cannot do to another process is reported as `beyond`; the caller then has the
program graded by `in_process`.
"""

import builtins
import contextlib
import gc
import importlib
import io
import os
import select
import signal
import socket
import sys
import threading
import types
import unittest
import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

from codescaler_plugin.grading import candidate, needs, pytest_module, scripts, serialization, suites
from codescaler_plugin.grading.stand_ins import Beyond, Channel, Over, Program, UnreadableResult, offer_module
from codescaler_plugin.grading.wrong_programs import WRONG_PROGRAMS, WrongProgram
from codescaler_plugin.isolation import processes

_REPORTED = 77  # exit code of a process that has sent its whole report
_WRONG_SECONDS = 2.0  # for the wrong programs by all scripts; tests that take longer are taken to be able to fail
_SHOWN = 300  # characters of a detail


class _Stop(BaseException):
    """A script stopped in a way that says nothing about the program."""


def serve(report: socket.socket) -> None:
    """Read a problem's tests once, then grade each program that comes in a copy of this process.

    The problem comes as a job without code. The reply is empty, or a report if no program can be graded by these tests
    here. Then each program comes as a byte with the descriptor of its channel, and a message of `code` and `timeout`;
    the reply is its report. If a copy ends without one, the reply is its exit `code`, and no other program is taken.
    """
    program = Channel()
    run = _Run(serialization.receive(report), program, is_shared=False)
    run.bounded(run.job["timeout"], run.prepare, run.find_passing_wrong)  # once for all programs
    if program.over:
        run.fault = ("test_error", "TestError: Timeout in the problem's tests or preamble")
        program.over = ""
    if program.beyond or run.fault[0]:
        serialization.send(report, run.report())
        return
    serialization.send(report, {})
    gc.collect()
    gc.freeze()  # so that the copies' collections touch nothing of it
    while True:
        data, descriptors, _, _ = socket.recv_fds(report, 1, 1)
        if not data:
            return
        copy = os.fork()
        if copy == 0:
            processes.register_fork_hooks()
            program.channel = socket.socket(fileno=descriptors[0])
            job = serialization.receive(report)
            run.bounded(job["timeout"], partial(run.grade, job["code"]))
            serialization.send(report, run.report())
            os._exit(_REPORTED)
        os.close(descriptors[0])
        code = os.waitstatus_to_exitcode(os.waitpid(copy, 0)[1])
        if code != _REPORTED:
            serialization.send(report, {"code": code})
            return


def rehearse() -> None:
    """Grade a program in this process, and leave no trace: copies of a process that has done so are faster."""
    before, handler = dict(sys.modules), signal.getsignal(signal.SIGALRM)
    job = {"code": "def f(n):\n    return [n]", "preamble": "", "entry_point": "f", "text": "", "timeout": 60.0}
    ours, theirs = socket.socketpair()
    with ours, theirs:
        thread = threading.Thread(target=candidate.serve_calls, args=(theirs,))
        thread.start()
        graded({**job, "tests": ["def check(g):\n    assert g(1) == [1]\ncheck(f)"]}, Channel(ours))
        ours.shutdown(socket.SHUT_WR)
        thread.join()
    signal.signal(signal.SIGALRM, handler)
    for name in sys.modules.keys() - before.keys():
        del sys.modules[name]
    sys.modules.update(before)


def graded(job: dict[str, Any], program: Program, *, is_shared: bool = False) -> dict[str, Any]:
    """Grade the program of an `execution.jobs.script_job`, and return the report that every grading process sends.

    If it `is_shared`, the program's code runs in this process, so nothing is `beyond`.
    """
    run = _Run(job, program, is_shared=is_shared)
    run.bounded(job["timeout"], run.prepare, partial(run.grade, job["code"]))
    return run.report()


class _Run:
    """One job: its scripts one after the other, and what they counted."""

    def __init__(self, job: dict[str, Any], program: Program, *, is_shared: bool) -> None:
        self.job = job
        self.program = program
        self.is_shared = is_shared
        self.passed = 0
        self.failed = 0
        self.missed = 0  # assertions that a broken script did not reach
        self.detail = ""
        self.fault = ("", "")
        self.is_own_time = False  # it ran out while the tests computed, not the program
        self.reached: set[tuple[int, int]] = set()
        self.scripts: list[scripts.Script] = []
        self.codes: list[types.CodeType] = []
        self.passing_wrong: frozenset[int] | None = None  # scripts that pass all wrong programs; None: not known yet
        self.module = types.ModuleType("tests")

    def bounded(self, timeout: float, *parts: Callable[[], object]) -> None:
        """Run parts of the job for at most `timeout` wall seconds; what breaks them off is noted."""
        try:
            signal.signal(signal.SIGALRM, self._out_of_time)
            signal.setitimer(signal.ITIMER_REAL, timeout)
            for part in parts:
                part()
        except (Over, Beyond, _Stop):
            pass  # noted where they were raised
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)

    def _out_of_time(self, *_: Any) -> None:
        self.is_own_time = not self.program.is_running
        raise self.program.end("Timeout")

    def report(self) -> dict[str, Any]:
        """The outcome. A failure counts before any fault, whichever came first."""
        program = self.program
        beyond = "" if self.is_shared else program.beyond
        fault, detail = ("", self.detail) if beyond or self.failed else self._fault()
        is_broken = bool(program.over or (detail and not self.failed))
        left = sum(max(1, len(script.sites)) for script in self.scripts if script.can_fail) if is_broken else 0
        total = max(self.passed + self.failed + self.missed, left, len(self.job["tests"]) if is_broken else 0)
        return {"passed": self.passed, "total": total, "detail": detail[:_SHOWN], "fault": fault, "beyond": beyond}

    def _fault(self) -> tuple[str, str]:
        """The fault of a run without a failure, and its detail."""
        program = self.program
        unreadable = program.unreadable or program.beyond
        if program.missing:
            return "missing_package", f"MissingPackage: the program imports {program.missing!r}"
        if unreadable:
            return "unreadable_result", f"UnreadableResult in test {self.passed}: {unreadable}"
        if program.over:
            return "timeout" if self.is_own_time else "", program.over
        if self.fault[0]:
            return self.fault
        if not self.passed:
            detail = "TestError: the tests test nothing: nothing in them can fail because of what the program does"
            return "test_error", detail
        return "", self.detail

    def prepare(self) -> None:
        """Run the preamble, and read the scripts."""
        job, program, module = self.job, self.program, self.module
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                preamble = compile(job["preamble"], "<preamble>", "exec", dont_inherit=True)
            exec(preamble, module.__dict__)
            for number, source in enumerate(job["tests"]):
                self.scripts.append(scripts.read(source, number))
                self.codes.append(compile(self.scripts[-1].tree, "<test>", "exec", dont_inherit=True))
        except Exception as error:  # any exception of the problem's own source is its fault
            raise self._not_run(error, "the problem's tests or preamble") from error
        program.needs = needs.needs_of(job, self.scripts, module.__dict__.keys() - {job["entry_point"]})
        program.classes = {
            name: held
            for name, held in module.__dict__.items()
            if isinstance(held, type) and held.__module__ == module.__name__
        }
        for script in [] if self.is_shared else self.scripts:
            if reason := needs.beyond(script, program.needs):
                raise program.go_beyond(reason)
        sys.modules["pytest"] = pytest_module.module()
        program.provided = {name: held for name, held in module.__dict__.items() if not name.startswith("__")}

    def grade(self, code: str) -> None:
        """Load the program's code, and run every script."""
        self.program.load(code, self.job["preamble"])
        for script in self.scripts:
            self._script(script)

    def find_passing_wrong(self) -> frozenset[int]:
        """Find the scripts that pass all wrong programs, once, in a copy of this process that ends with it."""
        if self.passing_wrong is None:
            reader, writer = os.pipe()
            copy = os.fork()
            if copy == 0:
                signal.signal(signal.SIGALRM, signal.SIG_DFL)
                signal.setitimer(signal.ITIMER_REAL, _WRONG_SECONDS)  # it ends itself where no process may be killed
                with contextlib.suppress(BaseException):  # a script whose number is not written counts as able to fail
                    sys.stdout = sys.stderr = io.StringIO()
                    os.write(writer, bytes(script.number for script in self.scripts if self._passes_wrong(script)))
                os._exit(0)
            os.close(writer)
            is_done = select.select([reader], [], [], _WRONG_SECONDS)[0]
            self.passing_wrong = frozenset(os.read(reader, len(self.scripts)) if is_done else b"")
            os.close(reader)
            with contextlib.suppress(PermissionError):
                os.kill(copy, signal.SIGKILL)
            os.waitpid(copy, 0)
        return self.passing_wrong

    def _passes_wrong(self, script: scripts.Script) -> bool:
        for answer in WRONG_PROGRAMS:
            trial = _Trial(self, WrongProgram(answer))
            trial._script(script)
            if trial.failed or trial.program.beyond or trial.program.unreadable:
                return False
        return True

    def note(self, script: int, site: int, outcome: Any) -> None:
        """An assertion was reached."""
        is_right = bool(outcome)  # which may raise
        self.reached.add((script, site))
        if is_right:
            self.passed += 1
        else:
            self._fail("WrongAnswer", self.scripts[script].sites[site][0])

    def error(self, script: int, site: int, error: Exception) -> None:
        """An assertion raised."""
        self.reached.add((script, site))
        self._broke(self.scripts[script], error, self.scripts[script].sites[site][0])

    def _script(self, script: scripts.Script) -> None:
        main = types.ModuleType("__main__")
        space = main.__dict__
        space.update({name: held for name, held in self.module.__dict__.items() if name != "__name__"})
        program, passed, failed, requests = self.program, self.passed, self.failed, self.program.requests
        program.read_names = script.names
        try:
            self._bind(script, space)
            space |= {scripts.NOTE: self.note, scripts.ERROR: self.error, scripts.EXCEPTION: Exception}
            sys.modules["__main__"] = main
            is_whole = self._unit(script, "", lambda: exec(self.codes[script.number], space))
            if is_whole and script.check:
                under_test = space.get("candidate", program.stand_in(self.job["entry_point"]))
                count = space[script.check].__code__.co_argcount
                self._unit(script, script.check, lambda: space[script.check](*[under_test][:count]))
            if is_whole:
                suites.run(script, space, partial(self._test, script), self._pass, partial(self._broke, script))
        except _Stop:
            return
        if self.failed > failed:
            return
        has_asked = program.requests > requests or (
            self.is_shared and bool(script.modules or program.needs.used_by(script) or script.check)
        )
        if not (has_asked and script.can_fail):
            self.passed = passed
        elif self.passed == passed and not (script.functions or script.suites):
            self.passed += 1  # it can fail, and did not
        if self.passed > passed and script.number in self.find_passing_wrong():
            self.passed = passed

    def _test(self, script: scripts.Script, name: str, call: Callable[[], Any]) -> None:
        """Run a test function; one without noted assertions counts as one test."""
        before = self.passed, self.failed
        if self._unit(script, name, call) and (self.passed, self.failed) == before and name.startswith("test"):
            self._pass()

    def _pass(self) -> None:
        self.passed += 1

    def _unit(self, script: scripts.Script, function: str, call: Callable[[], Any]) -> bool:
        """Run a part of a script. Returns whether it ran to its end."""
        try:
            call()
        except (pytest_module.Skipped, unittest.SkipTest):
            return False
        except (Exception, SystemExit, KeyboardInterrupt) as error:
            missed = [
                site
                for site, (_, within) in enumerate(script.sites)
                if (script.number, site) not in self.reached and (not function or within == function)
            ]
            if missed:
                self.reached.add((script.number, missed[0]))
                self.missed += len(missed) - 1
            self._broke(script, error, script.sites[missed[0]][0] if missed else "")
            return False
        return True

    def _broke(self, script: scripts.Script, error: BaseException, source: str) -> None:
        """An exception left the tests: a failure of the program, or a fault."""
        program = self.program
        if program.over:
            raise Over(program.over)
        if program.beyond:
            raise Beyond(program.beyond)
        if isinstance(error, Over | Beyond | _Stop):
            raise error
        if isinstance(error, UnreadableResult):
            program.cannot_read(str(error))
            raise _Stop
        if program.has_raised(error):
            if program.missing:
                raise _Stop
            self._fail(type(error).__name__, source)
        elif isinstance(error, AssertionError):
            self._fail("WrongAnswer", source)
        elif self._is_of_tests(script, error) or not (program.requests or self.is_shared):
            raise self._not_run(error, "the problem's tests")
        else:
            self._fail(type(error).__name__, source)

    def _is_of_tests(self, script: scripts.Script, error: BaseException) -> bool:
        """Whether an exception is the fault of the tests, not of what the program returned."""
        if isinstance(error, NameError) and not isinstance(error, UnboundLocalError):
            return error.name in script.free - self.program.needs.used_by(script) - {"candidate"}
        if isinstance(error, SystemExit):
            return not error.code
        return isinstance(error, ImportError | SyntaxError | pytest_module.NotOffered)

    def _not_run(self, error: BaseException, where: str) -> _Stop:
        """Note that the tests could not run."""
        name = type(error).__name__
        if isinstance(error, SystemExit):
            detail = "TestError: the problem's tests end the program"
        else:
            detail = f"TestError: {name} in {where}: {str(error)[:150]}"
        missing = candidate.missing_package(error)
        is_package = missing and missing not in needs.STDLIB
        self.fault = self.fault if self.fault[0] else ("missing_package" if is_package else "test_error", detail)
        return _Stop()

    def _fail(self, kind: str, source: str) -> None:
        number = self.passed + self.failed
        self.detail = self.detail or f"{kind} in test {number}{': ' if source else ''}{source}"
        self.failed += 1

    def _bind(self, script: scripts.Script, space: dict[str, Any]) -> None:
        """Give a script the names that it reads: its own imports and the problem's come first, then the program's."""
        program, entry, listed = self.program, self.job["entry_point"], frozenset(self.job.get("names", ()))
        first = entry.partition(".")[0]
        if entry:
            space["candidate"] = program.stand_in(entry)
        for name in sorted({*script.free, *script.imported, first, *listed} - {"", "candidate"}):
            if name == first:
                space[name] = program.stand_in(name)
            elif name in space or (name in vars(builtins) and name not in listed):
                continue
            elif (name in needs.STDLIB and name not in listed) or name in needs.PACKAGES:
                try:
                    space[name] = importlib.import_module(needs.PACKAGES.get(name, name))
                except ImportError as error:
                    raise self._not_run(error, "the problem's tests") from error
            elif name in program.needs.named or name in program.needs.words:
                space[name] = program.stand_in(name)
        for name in script.modules:
            offer_module(name, program)


class _Trial(_Run):
    """Scripts of a run with a wrong program, until one fails by anything but an exception of the program."""

    def __init__(self, run: _Run, program: WrongProgram) -> None:
        super().__init__(run.job, program, is_shared=run.is_shared)
        self.scripts, self.codes, self.module = run.scripts, run.codes, run.module
        self.passing_wrong = frozenset()
        program.needs, program.classes, program.provided = run.program.needs, run.program.classes, run.program.provided

    def _broke(self, script: scripts.Script, error: BaseException, source: str) -> None:  # noqa: ARG002
        if not self.program.has_raised(error):
            self._fail(type(error).__name__, source)

    def _fail(self, kind: str, source: str) -> None:
        super()._fail(kind, source)
        raise _Stop
