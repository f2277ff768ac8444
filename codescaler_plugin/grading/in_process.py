"""Grades by tests that need the program in their own process: it gets functions, prints, is patched, or is awaited.

A program can deceive whoever shares its process. What is done against it: builtins, the machinery of assertions and
what else is patched is put back before the tests run; results that no class was asked for are handed to the tests as
data, as if they came from elsewhere; a process that ends or is copied says nothing; and the report needs a token that
is only found by going through this process's memory.
"""

import ast
import builtins
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
    operations,
    script_tests,
    scripts,
    serialization,
    stand_ins,
    suites,
)
from codescaler_plugin.grading.stand_ins import Remote, Side

_KEPT: tuple[Any, ...] = (
    *(builtins, operations, scripts, suites, stand_ins, script_tests, candidate, serialization, signal),
    *(json, operator, math, ast, unittest.case, unittest.mock, inspect, functools),
    *(stand_ins.Side, stand_ins.Remote, stand_ins.Channel, script_tests._Run, unittest.TestCase, unittest.TestResult),
    *(suites._Result, suites._Raises, suites._Approx),
)
_PRESENT = frozenset({"__class__", "__doc__", "__dict__", "__weakref__"})


def judged(job: dict[str, Any]) -> dict[str, Any]:
    """Grade a job's code by its tests, all in this process. The report holds the job's `token`, if it has one."""
    process = os.getpid()
    token = job.pop("token", "")
    report = script_tests.graded(job, _Shared(), is_shared=True)
    if _getpid() != process:
        _exit(1)  # a copy that the program made
    return {**report, "token": token}


_getpid, _exit = os.getpid, os._exit


class _Shared(Side):
    """A candidate in this process."""

    def __init__(self) -> None:
        super().__init__()
        self.service = candidate._Service({})

    def load(self, code: str, preamble: str) -> None:  # noqa: ARG002
        before = [(thing, dict(vars(thing))) for thing in _KEPT]
        handler = signal.getsignal(signal.SIGALRM)
        module = types.ModuleType("candidate")
        sys.modules["candidate"] = module
        self.service.namespace = module.__dict__
        module.__dict__.update(self.provided)  # what the preamble defines is the same for tests and program
        answer = candidate._load({"code": code, "preamble": ""}, module.__dict__)
        for thing, held in before:
            _put_back(thing, held)
        sys.settrace(None)
        sys.setprofile(None)
        threading.settrace(None)
        signal.signal(signal.SIGALRM, handler)
        sys.stdout, sys.stderr = io.StringIO(), io.StringIO()
        if "error" in answer:
            self.noted(Exception(), answer["missing"])
            raise self.end(answer["error"] or "an exception without a name")

    def named(self, target: str) -> Any:
        try:
            found = self.service._named(target)
        except Exception as error:  # there is no such name, or the class of the method under test cannot be made
            broken = error

            def fails(*_: Any, **__: Any) -> Any:
                raise self.noted(broken, "")

            return fails
        if self.wants.is_class or isinstance(found, type):
            return found
        return self._guarded(found) if callable(found) else self._plain(found)

    def ask(self, target: str | int, verb: str, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> Any:
        message = {"target": target, "verb": verb}
        held = tuple(map(self._held, arguments))
        return self._do(
            lambda: self.service._do(message, held, {name: self._held(one) for name, one in keywords.items()}), verb
        )

    def change(self, name: str, *value: Any) -> None:
        """Change the candidate's own module."""
        self.service.namespace.pop(name, None)
        self.service.namespace.update(zip([name], value, strict=False))

    def is_object(self, thing: Any) -> bool:
        """Its stand-ins, and what tests made of its classes."""
        return isinstance(thing, Remote) or any(type(thing) is one for one in self.service.namespace.values())

    def _held(self, thing: Any) -> Any:
        target = object.__getattribute__(thing, "_target") if type(thing) is _Local else None
        return thing if target is None else self.service.kept[target]

    def _do(self, action: Callable[[], Any], verb: str = "call") -> Any:
        self.asked += 1
        try:
            found = action()
        except (stand_ins.Over, stand_ins.Beyond):
            raise
        except BaseException as error:  # SystemExit too: what a candidate raises is its verdict
            raise self._heard(error, verb) from None
        return self._plain(found)

    def _heard(self, error: BaseException, verb: str = "call") -> BaseException:
        if isinstance(error, StopIteration | StopAsyncIteration) and not (
            verb == "next" or self.awaited & {"next", "anext", type(error).__name__}
        ):
            error = stand_ins.CandidateError(type(error).__name__)
        missing = error.name if isinstance(error, ModuleNotFoundError) else ""
        self.raised.append(error)
        if missing:
            self.missing = self.missing or missing.partition(".")[0]
        return error

    def _guarded(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """A function whose results are data, or stand-ins for objects."""

        def plainly(*arguments: Any, **keywords: Any) -> Any:
            given = tuple(map(self._held, arguments))
            return self._do(lambda: function(*given, **{name: self._held(one) for name, one in keywords.items()}))

        async def plainly_later(*arguments: Any, **keywords: Any) -> Any:
            return await plainly(*arguments, **keywords)

        guard = plainly_later if inspect.iscoroutinefunction(function) else plainly
        try:
            return functools.wraps(function)(guard)
        except Exception:  # attributes that cannot be copied
            return guard

    def _plain(self, value: Any) -> Any:
        """A result as the tests may see it; of plain data it is the result itself."""
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
            message, _ = serialization.pack(value, name_of=self.class_of, handle_of=self.service._keep)
            return serialization.unpack(
                message, class_of=self.classes.get, object_of=lambda number: _Local(self, number)
            )[0]
        except (serialization.UnserializableError, serialization.SerializationError) as error:
            raise self.cannot_read(str(error)) from None

    async def _later(self, coroutine: Any) -> Any:
        try:
            found = await coroutine
        except BaseException as error:  # as above
            raise self._heard(error) from None
        return self._plain(found)

    async def _one_by_one(self, generator: Any) -> Any:
        async for one in generator:
            yield self._plain(one)


class _Local(Remote):
    """A stand-in for an object of this process: of its class, but the tests' values do not meet it unasked."""

    __slots__ = ()

    @property  # type: ignore[misc]
    def __class__(self) -> Any:
        side, target = (object.__getattribute__(self, name) for name in ("_side", "_target"))
        return type(side.service.kept[target])

    def __enter__(self) -> Any:
        return self._through("__enter__")

    def __exit__(self, *about: Any) -> Any:
        return self._through("__exit__", *about)

    async def __aenter__(self) -> Any:
        return await self._through("__aenter__")

    async def __aexit__(self, *about: Any) -> Any:
        return await self._through("__aexit__", *about)

    def __await__(self) -> Any:
        return self._through("__await__")

    def __hash__(self) -> int:
        return hash(self._side.service.kept[self._target]) if self._side.wants.has_objects else id(self)

    def __reduce_ex__(self, protocol: Any) -> Any:
        return self._side.service.kept[self._target].__reduce_ex__(protocol)

    def __deepcopy__(self, _: Any) -> Any:
        import copy

        return self._side._plain(copy.deepcopy(self._side.service.kept[self._target]))

    def _through(self, name: str, *arguments: Any) -> Any:
        held = self._side.service.kept[self._target]
        return self._side._do(lambda: getattr(type(held), name)(held, *arguments))


_SCALARS = frozenset({type(None), bool, int, float, complex, str, bytes, bytearray, range})


def _is_plain(value: Any) -> bool:
    """Whether a value is built of nothing but exact built-in types."""
    stack, seen = [value], set()
    while stack:
        one = stack.pop()
        kind = type(one)
        if kind in _SCALARS or id(one) in seen:
            continue
        seen.add(id(one))
        if kind in (list, tuple, set, frozenset):
            stack += one
        elif kind is dict:
            stack += one.keys()
            stack += one.values()
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
