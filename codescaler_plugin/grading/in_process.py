"""Grades by tests that need the program in their own process: they hand it functions, patch it, read what it prints.

A program can deceive tests in its own process. What is done against it: builtins, the machinery of assertions and
whatever else the program patches is put back before the tests run; results are handed to the tests as data, as if they
came from another process, unless the problem asks for a class; a copy of the process reports nothing; and the report
needs a token that a program finds only by searching this process's memory.
"""

import ast
import builtins
import copy
import functools
import inspect
import io
import json
import math
import operator
import os
import signal
import sys
import threading
import types
import unittest.case
import unittest.mock
from collections.abc import Callable
from typing import Any

from codescaler_plugin.grading import (
    candidate,
    needs,
    operations,
    pytest_module,
    script_tests,
    scripts,
    serialization,
    stand_ins,
    suites,
    syntax,
    values,
    wrong_programs,
)
from codescaler_plugin.grading.stand_ins import Program, Remote

# Whatever decides a verdict: put back as it was before the program ran.
_KEPT: tuple[Any, ...] = (
    *(builtins, signal, json, operator, math, ast, unittest.case, unittest.mock, inspect, functools),
    *(candidate, needs, operations, pytest_module, script_tests, scripts, serialization, stand_ins),
    *(suites, syntax, values, wrong_programs),
    *(Program, Remote, stand_ins.Channel, wrong_programs.WrongProgram, script_tests._Run, script_tests._Trial),
    *(suites._Result, pytest_module.Raises, pytest_module.Approx, unittest.TestCase, unittest.TestResult),
)
_PRESENT = frozenset({"__class__", "__doc__", "__dict__", "__weakref__"})
_SCALARS = frozenset({type(None), bool, int, float, complex, str, bytes, bytearray, range})


def judged(job: dict[str, Any]) -> dict[str, Any]:
    """Grade a job's code by its tests, all in this process. The report holds the job's `token`, if it has one."""
    process = os.getpid()
    token = job.pop("token", "")
    report = script_tests.graded(job, _Shared(), is_shared=True)
    if _getpid() != process:
        _exit(1)  # a copy that the program made
    return {**report, "token": token}


_getpid, _exit = os.getpid, os._exit


class _Shared(Program):
    """A program in this process."""

    def __init__(self) -> None:
        super().__init__()
        self.service = candidate.Service({})

    def load(self, code: str, preamble: str) -> None:  # noqa: ARG002
        before = [(thing, dict(vars(thing))) for thing in (*_KEPT, sys.modules[__name__], _Shared, _Local)]
        put_back = _put_back  # which the program may patch, too
        handler = signal.getsignal(signal.SIGALRM)
        module = types.ModuleType("candidate")
        sys.modules["candidate"] = module
        self.service.namespace = module.__dict__
        module.__dict__.update(self.provided)  # what the preamble defines is the same for tests and program
        reply = candidate.load({"code": code, "preamble": ""}, module.__dict__)
        for thing, held in before:
            put_back(thing, held)
        sys.settrace(None)
        sys.setprofile(None)
        threading.settrace(None)
        signal.signal(signal.SIGALRM, handler)
        sys.stdout, sys.stderr = io.StringIO(), io.StringIO()
        if reply:
            self.note_raised(Exception(), reply["missing"])
            raise self.end(reply["error"] or "an exception without a name")

    def stand_in(self, name: str) -> Any:
        try:
            thing = self.service.named(name)
        except Exception as error:  # there is no such name, or the class of the method under test cannot be made
            broken = error

            def fails(*_: Any, **__: Any) -> Any:
                raise self.note_raised(broken, "")

            return fails
        if self.needs.is_class or isinstance(thing, type):
            return thing
        return self._guarded(thing) if callable(thing) else self._plain(thing)

    def ask(self, target: str | int, verb: str, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> Any:
        return self._answer(
            lambda *args, **kwargs: self.service.do(target, verb, args, kwargs), arguments, keywords, verb
        )

    def change(self, name: str, *value: Any) -> None:
        """Change the program's own module."""
        self.service.namespace.pop(name, None)
        self.service.namespace.update(zip([name], value, strict=False))

    def owns(self, thing: Any) -> bool:
        """Stand-ins, and what tests made of the program's classes."""
        return isinstance(thing, Remote) or any(type(thing) is held for held in self.service.namespace.values())

    def _answer(
        self, function: Callable[..., Any], arguments: tuple[Any, ...], keywords: dict[str, Any], verb: str = "call"
    ) -> Any:
        """Call a function of the program with what stands behind the arguments, and make its result plain."""
        arguments, keywords = tuple(map(_real, arguments)), {name: _real(value) for name, value in keywords.items()}
        self.requests += 1
        try:
            result = function(*arguments, **keywords)
        except (stand_ins.Over, stand_ins.Beyond):
            raise
        except BaseException as error:  # SystemExit too: what a program raises is its verdict
            raise self._heard(error, verb) from None
        return self._plain(result)

    def _heard(self, error: BaseException, verb: str = "call") -> BaseException:
        if self.hides_stop(type(error), verb):
            error = stand_ins.ProgramError(type(error).__name__)
        return self.note_raised(error, candidate.missing_package(error))

    def _guarded(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """A function whose results are data, or stand-ins for objects."""

        def plainly(*arguments: Any, **keywords: Any) -> Any:
            return self._answer(function, arguments, keywords)

        async def plainly_later(*arguments: Any, **keywords: Any) -> Any:
            return await plainly(*arguments, **keywords)

        guard = plainly_later if inspect.iscoroutinefunction(function) else plainly
        try:
            return functools.wraps(function)(guard)
        except Exception:  # attributes that cannot be copied
            return guard

    def _plain(self, value: Any) -> Any:
        """A result as the tests may see it; plain data is the result itself."""
        if _is_plain(value):
            return value
        if inspect.iscoroutine(value):
            return self._later(value)
        if inspect.isasyncgen(value):
            return self._one_by_one(value)
        if type(value) in (types.FunctionType, types.MethodType):
            return self._guarded(value)
        if isinstance(value, type):
            return value
        try:
            message, _ = serialization.pack(value, name_of=self.class_of, handle_of=self.service.keep)
            return serialization.unpack(
                message, class_of=self.classes.get, object_of=lambda number: _Local(self, number)
            )[0]
        except (serialization.UnserializableError, serialization.SerializationError) as error:
            raise self.cannot_read(str(error)) from None

    async def _later(self, coroutine: Any) -> Any:
        try:
            result = await coroutine
        except BaseException as error:  # as above
            raise self._heard(error) from None
        return self._plain(result)

    async def _one_by_one(self, generator: Any) -> Any:
        async for item in generator:
            yield self._plain(item)


def _done(name: str) -> Callable[..., Any]:
    def method(self: "_Local", *arguments: Any) -> Any:
        held = _object_behind(self)
        return self._cs_program._answer(lambda *args: getattr(type(held), name)(held, *args), arguments, {})

    return method


class _Local(Remote):
    """A stand-in for an object of this process: of its class, but it does not meet the tests' values unless asked."""

    __slots__ = ()

    @property  # type: ignore[misc]
    def __class__(self) -> Any:
        return type(_object_behind(self))

    __enter__, __exit__ = _done("__enter__"), _done("__exit__")
    __aenter__, __aexit__ = _done("__aenter__"), _done("__aexit__")
    __await__ = _done("__await__")

    def __hash__(self) -> int:
        return hash(_object_behind(self)) if self._cs_program.needs.has_objects else id(self)

    def __reduce_ex__(self, protocol: Any) -> Any:
        return _object_behind(self).__reduce_ex__(protocol)

    def __deepcopy__(self, _: Any) -> Any:
        return self._cs_program._plain(copy.deepcopy(_object_behind(self)))


def _real(thing: Any) -> Any:
    return _object_behind(thing) if type(thing) is _Local else thing


def _object_behind(stand_in: Any) -> Any:
    program, target = (object.__getattribute__(stand_in, name) for name in ("_cs_program", "_cs_target"))
    return program.service.kept[target]


def _is_plain(value: Any) -> bool:
    """Whether a value is built of nothing but exact built-in types."""
    stack, seen = [value], set()
    while stack:
        thing = stack.pop()
        kind = type(thing)
        if kind in _SCALARS or id(thing) in seen:
            continue
        seen.add(id(thing))
        if kind in (list, tuple, set, frozenset):
            stack += thing
        elif kind is dict:
            stack += thing.keys()
            stack += thing.values()
        else:
            return False
    return True


def _put_back(thing: Any, held: dict[str, Any]) -> None:
    now = vars(thing)
    for name in [name for name in now if name not in held and name not in _PRESENT]:
        delattr(thing, name)
    for name, value in held.items():
        if now.get(name) is not value and name not in _PRESENT:
            setattr(thing, name, value)
