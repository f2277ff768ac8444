"""Grades by tests that are Python source; the functions that they test live in another process.

What comes back from there is rebuilt here as data of known types, so an object with an `__eq__` of its own, a patched
builtin, or an early exit decides nothing. What a test cannot do to another process is reported as `beyond`; the caller
can then have it graded by `in_process`.
"""

import builtins
import contextlib
import functools
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
from typing import Any

from codescaler_plugin.grading import candidate, scripts, serialization, suites, wrong_programs
from codescaler_plugin.grading.stand_ins import Beyond, Channel, Over, Side, UnreadableResult
from codescaler_plugin.isolation import forks

_NOTHING = "TestError: the tests test nothing"
_REPORTED = 77  # exit code of a process that has sent its whole report
_SHAMS = 2.0  # seconds for the shams of all scripts; tests that take longer can fail for all that is known


class _Stop(BaseException):
    """A script broke off in a way that says nothing of the candidate."""


def serve(report: socket.socket) -> None:
    """Read a problem's tests once, then grade each program that comes in a copy of this process.

    The problem comes as a job without code; the answer is empty, or the report if no program can be graded by these
    tests here. Then a program comes as a byte with the descriptor of its channel, and `code` and `timeout`; the answer
    is the report. Where a copy ends otherwise, the answer is its exit `code`, and no other program is taken.
    """
    side = Channel()
    run = _Run(serialization.receive(report), side, is_shared=False)

    def prepare() -> None:
        run.prepare()
        run.find_toothless()  # once for all programs

    run.bounded(run.job["timeout"], prepare)
    if side.over:
        run.fault = ("test_error", "TestError: Timeout in the problem's tests or preamble")
        side.over = ""
    if side.beyond or run.fault[0]:
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
            forks.register()
            side.channel = socket.socket(fileno=descriptors[0])
            program = serialization.receive(report)
            run.bounded(program["timeout"], functools.partial(run.grade, program["code"]))
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


def graded(job: dict[str, Any], side: Side, *, is_shared: bool = False) -> dict[str, Any]:
    """The report on a job (`grading.script_job`), as every grading process sends it.

    Where it `is_shared`, the candidate's code runs in this process, so nothing is `beyond`.
    """
    run = _Run(job, side, is_shared=is_shared)

    def all_of_it() -> None:
        run.prepare()
        run.grade(job["code"])

    run.bounded(job["timeout"], all_of_it)
    return run.report()


class _Run:
    """One job: its scripts one after the other, and what they counted."""

    def __init__(self, job: dict[str, Any], side: Side, *, is_shared: bool) -> None:
        self.job = job
        self.side = side
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
        self.toothless: frozenset[int] | None = None  # scripts that pass programs that are wrong; None: not known yet
        self.module = types.ModuleType("judge")

    def bounded(self, timeout: float, part: Callable[[], None]) -> None:
        """Run a part of it for so many wall seconds at most; what breaks it off is noted."""
        try:
            signal.signal(signal.SIGALRM, self._out_of_time)
            signal.setitimer(signal.ITIMER_REAL, timeout)
            part()
        except (Over, Beyond, _Stop):
            pass  # noted where they were raised
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)

    def _out_of_time(self, *_: Any) -> None:
        self.is_own_time = not self.side.is_waited_for
        raise self.side.end("Timeout")

    def report(self) -> dict[str, Any]:
        """What came of it. A failure counts before any fault, whichever came first; nothing beats a swallowed one."""
        side = self.side
        detail, fault, beyond = self.detail, "", ""
        if side.beyond and not self.is_shared:
            beyond = side.beyond
        elif self.failed:
            pass
        elif side.missing:
            fault, detail = "missing_package", f"MissingPackage: the program imports {side.missing!r}"
        elif side.unreadable or side.beyond:
            fault, detail = (
                "unreadable_result",
                f"UnreadableResult in test {self.passed}: {side.unreadable or side.beyond}",
            )
        elif side.over:
            fault, detail = "timeout" if self.is_own_time else "", side.over
        elif self.fault[0]:
            fault, detail = self.fault
        elif not self.passed:
            fault = "test_error"
            detail = f"{_NOTHING}: nothing in them can fail because of what the program does"
        is_broken = bool(side.over or (detail and not self.failed))
        left = sum(max(1, len(one.sites)) for one in self.scripts if one.has_teeth) if is_broken else 0
        total = max(self.passed + self.failed + self.missed, left, len(self.job["tests"]) if is_broken else 0)
        return {"passed": self.passed, "total": total, "detail": detail[:300], "fault": fault, "beyond": beyond}

    def prepare(self) -> None:
        """Run the preamble, and read the scripts."""
        job, side, module = self.job, self.side, self.module
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                preamble = compile(job["preamble"], "<preamble>", "exec", dont_inherit=True)
            exec(preamble, module.__dict__)
            for number, source in enumerate(job["tests"]):
                self.scripts.append(scripts.read(source, number))
                self.codes.append(compile(self.scripts[-1].tree, "<test>", "exec", dont_inherit=True))
        except Exception as error:  # whatever the problem's own source raises is its fault
            self._not_run(error, "the problem's tests or preamble")
            raise _Stop from error
        provided = module.__dict__.keys() - {job["entry_point"]}
        side.wants = scripts.asked_of(job, self.scripts, provided)
        side.classes = {
            name: held
            for name, held in module.__dict__.items()
            if isinstance(held, type) and held.__module__ == module.__name__
        }
        if not self.is_shared:
            for script in self.scripts:
                reason = scripts.beyond(script, side.wants)
                if reason:
                    raise side.go_beyond(reason)
        sys.modules["pytest"] = suites.pytest_module()
        side.provided = {name: held for name, held in module.__dict__.items() if not name.startswith("__")}

    def grade(self, code: str) -> None:
        """Load the candidate's code, and run every script."""
        self.side.load(code, self.job["preamble"])
        for script in self.scripts:
            self._script(script, self.module)

    def find_toothless(self) -> frozenset[int]:
        """The scripts that pass all `shams`, each found out once, in a copy of this process that ends with it."""
        if self.toothless is None:
            reader, writer = os.pipe()
            copy = os.fork()
            if copy == 0:
                with contextlib.suppress(BaseException):  # whatever it is, what is not written counts as able to fail
                    sys.stdout = sys.stderr = io.StringIO()
                    os.write(writer, bytes(one.number for one in self.scripts if self._passes_shams(one)))
                os._exit(0)
            os.close(writer)
            is_done = select.select([reader], [], [], _SHAMS)[0]
            self.toothless = frozenset(os.read(reader, len(self.scripts)) if is_done else b"")
            os.close(reader)
            os.kill(copy, signal.SIGKILL)
            os.waitpid(copy, 0)
        return self.toothless

    def _passes_shams(self, script: scripts.Script) -> bool:
        for answer in wrong_programs.ANSWERS:
            side = wrong_programs.Sham(answer)
            trial = _Trial(self, side)
            trial._script(script, self.module)
            if trial.failed or side.beyond or side.unreadable:
                return False
        return True

    def note(self, script: int, site: int, outcome: Any) -> None:
        """An assertion was reached."""
        fine = bool(outcome)
        self.reached.add((script, site))
        if fine:
            self.passed += 1
        else:
            self._fail("WrongAnswer", self.scripts[script].sites[site][0])

    def error(self, script: int, site: int, error: Exception) -> None:
        """An assertion raised."""
        self.reached.add((script, site))
        self._broke(self.scripts[script], error, self.scripts[script].sites[site][0])

    def _script(self, script: scripts.Script, module: types.ModuleType) -> None:
        main = types.ModuleType("__main__")
        space = main.__dict__
        space.update({name: held for name, held in module.__dict__.items() if name != "__name__"})
        before, asked = (self.passed, self.failed), self.side.asked
        self.side.awaited = script.names
        try:
            self._bind(script, space)
            space |= {scripts.NOTE: self.note, scripts.ERROR: self.error, scripts.EXCEPTION: Exception}
            sys.modules["__main__"] = main
            is_whole = self._unit(script, "", lambda: exec(self.codes[script.number], space))
            if is_whole and script.check:
                candidate = space.get("candidate", self.side.named(self.job["entry_point"]))
                wanted = space[script.check].__code__.co_argcount
                self._unit(script, script.check, lambda: space[script.check](*[candidate][:wanted]))
            if is_whole:
                suites.run(
                    script,
                    space,
                    lambda name, call: self._counted(script, name, call),
                    self._pass,
                    lambda name, error: self._broke(script, error, name),
                )
        except _Stop:
            return
        has_asked = self.side.asked > asked or (
            self.is_shared and bool(script.modules or self._theirs(script) or script.check)
        )
        if self.failed > before[1]:
            return
        if not (has_asked and script.has_teeth):
            self.passed = before[0]
        elif self.passed == before[0] and not (script.functions or script.suites):
            self.passed += 1  # it can fail, and did not
        if self.passed > before[0] and script.number in self.find_toothless():
            self.passed = before[0]

    def _theirs(self, script: scripts.Script) -> frozenset[str]:
        return script.free & (self.side.wants.named | self.side.wants.words)

    def _counted(self, script: scripts.Script, name: str, call: Callable[[], Any]) -> None:
        """Run a test function; one without noted assertions counts as one test."""
        before = self.passed, self.failed
        if self._unit(script, name, call) and (self.passed, self.failed) == before and name.startswith("test"):
            self.passed += 1

    def _pass(self) -> None:
        self.passed += 1

    def _unit(self, script: scripts.Script, function: str, call: Callable[[], Any]) -> bool:
        """Run a part of a script; whether it ran to its end."""
        try:
            call()
        except (suites.Skipped, unittest.SkipTest):
            return False
        except (Exception, SystemExit, KeyboardInterrupt) as error:
            missed = [
                site
                for site, (_, stands_in) in enumerate(script.sites)
                if (script.number, site) not in self.reached and (not function or stands_in == function)
            ]
            if missed:
                self.reached.add((script.number, missed[0]))
                self.missed += len(missed) - 1
            self._broke(script, error, script.sites[missed[0]][0] if missed else "")
            return False
        return True

    def _broke(self, script: scripts.Script, error: BaseException, source: str) -> None:
        """An exception came out of the tests: a failure of the candidate, or a fault."""
        side = self.side
        if side.over:
            raise Over(side.over)
        if side.beyond:
            raise Beyond(side.beyond)
        if isinstance(error, Over | Beyond | _Stop):
            raise error
        if isinstance(error, UnreadableResult):
            side.cannot_read(str(error))
            raise _Stop
        if side.is_theirs(error):
            if side.missing:
                raise _Stop
            self._fail(type(error).__name__, source)
            return
        if isinstance(error, AssertionError):
            self._fail("WrongAnswer", source)
            return
        is_ours = isinstance(error, ImportError | SyntaxError | suites.NotOffered) or (
            isinstance(error, NameError)
            and not isinstance(error, UnboundLocalError)
            and error.name in script.free - self._theirs(script) - {"candidate"}
        )
        if isinstance(error, SystemExit) and not error.code:
            is_ours = True
        if is_ours or not (side.asked or self.is_shared):
            self._not_run(error, "the problem's tests")
            raise _Stop
        self._fail(type(error).__name__, source)

    def _not_run(self, error: BaseException, where: str) -> None:
        name = type(error).__name__
        if isinstance(error, SystemExit):
            detail = "TestError: the problem's tests end the program"
        else:
            detail = f"TestError: {name} in {where}: {str(error)[:150]}"
        missing = isinstance(error, ModuleNotFoundError) and (error.name or "").partition(".")[0]
        is_package = bool(missing) and missing not in scripts.STDLIB
        self.fault = self.fault if self.fault[0] else ("missing_package" if is_package else "test_error", detail)

    def _fail(self, kind: str, source: str) -> None:
        number = self.passed + self.failed
        self.detail = self.detail or f"{kind} in test {number}{': ' if source else ''}{source}"
        self.failed += 1

    def _bind(self, script: scripts.Script, space: dict[str, Any]) -> None:
        """Give a script the names that it reads: its own imports and the problem's come first, then the program's."""
        side, entry = self.side, self.job["entry_point"]
        first = entry.partition(".")[0]
        if entry:
            space["candidate"] = side.named(entry)
        for name in sorted({*script.free, *script.imported, first, *self.job.get("names", ())} - {"", "candidate"}):
            if name == first:
                space[name] = side.named(name)
            elif name in space or (name in vars(builtins) and name not in self.job.get("names", ())):
                continue
            elif name in scripts.STDLIB and name not in self.job.get("names", ()):
                space[name] = importlib.import_module(name)
            elif name in scripts.PACKAGES:
                try:
                    space[name] = importlib.import_module(scripts.PACKAGES[name])
                except ImportError as error:
                    self._not_run(error, "the problem's tests")
                    raise _Stop from error
            elif name in side.wants.named or name in side.wants.words:
                space[name] = side.named(name)
        for name in script.modules:
            _offer(name, side)


class _Trial(_Run):
    """Scripts of a run with a sham as the program, until one fails by anything but an exception of the sham."""

    def __init__(self, run: _Run, side: wrong_programs.Sham) -> None:
        super().__init__(run.job, side, is_shared=run.is_shared)
        self.scripts, self.codes = run.scripts, run.codes
        self.toothless = frozenset()
        side.wants, side.classes, side.provided = run.side.wants, run.side.classes, run.side.provided

    def _broke(self, script: scripts.Script, error: BaseException, source: str) -> None:  # noqa: ARG002
        if not self.side.is_theirs(error):
            self._fail(type(error).__name__, source)

    def _fail(self, kind: str, source: str) -> None:
        super()._fail(kind, source)
        raise _Stop


class _Solution(types.ModuleType):
    """The module that tests import the program from."""

    def __init__(self, name: str, side: Side) -> None:
        super().__init__(name)
        self.__dict__["_side"] = side
        self.__dict__["_deleted"] = set()

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name in self.__dict__["_deleted"]:
            raise AttributeError(name)
        return self.__dict__["_side"].named(name)

    def __setattr__(self, name: str, value: Any) -> None:
        if name.startswith("__"):
            super().__setattr__(name, value)
        else:
            self.__dict__["_deleted"].discard(name)
            self.__dict__["_side"].change(name, value)

    def __delattr__(self, name: str) -> None:
        self.__dict__["_deleted"].add(name)
        self.__dict__["_side"].change(name)


def _offer(name: str, side: Side) -> None:
    parts = name.split(".")
    for end in range(1, len(parts) + 1):
        module = _Solution(".".join(parts[:end]), side)
        module.__dict__["__path__"] = []
        sys.modules[".".join(parts[:end])] = module
