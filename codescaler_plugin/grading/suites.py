"""Runs suites of tests that a script only defines: unittest's classes, and test functions and classes as pytest does.

`pytest` is a small stand-in here: `raises`, `approx`, `fail`, `skip`, marks, and fixtures of the script's own.
"""

import contextlib
import io
import itertools
import math
import os
import re
import tempfile
import types
import unittest
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from codescaler_plugin.grading.scripts import Script

Unit = Callable[[str, Callable[[], Any]], None]
"""Runs one test under a name, and counts what comes of it."""

_MODULE_HOOKS = ("setup_module", "teardown_module", "setup_function", "teardown_function")


class Skipped(Exception):  # noqa: N818 - pytest's word
    """A test says that it does not apply."""


class NotOffered(Exception):  # noqa: N818
    """A test function asks for what is not offered here."""


class Failed(AssertionError):  # noqa: N818 - as above
    """`pytest.fail` was called, or an exception did not come."""


class _Raises:
    def __init__(self, kinds: Any, match: str | None) -> None:
        self.kinds = kinds
        self.pattern = match
        self.value: Any = None

    def __enter__(self) -> "_Raises":
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: Any) -> bool:
        if kind is None or value is None:
            raise Failed(f"did not raise {self.kinds}")
        if not issubclass(kind, self.kinds):
            return False
        self.value, self.type, self.tb = value, kind, trace
        if self.pattern is not None:
            self.match(self.pattern)
        return True

    def match(self, pattern: str) -> bool:
        if not re.search(pattern, str(self.value)):
            raise Failed(f"{pattern!r} does not match {str(self.value)[:100]!r}")
        return True


def _raises(kinds: Any, *call: Any, match: str | None = None, **keywords: Any) -> _Raises:
    waiting = _Raises(kinds, match)
    if call:
        with waiting:
            call[0](*call[1:], **keywords)
    return waiting


class _Approx:
    __array_ufunc__ = None
    __array_priority__ = 100

    def __init__(
        self,
        expected: Any,
        rel: float | None = None,
        abs: float | None = None,  # noqa: A002 - pytest's name
        nan_ok: bool = False,
    ) -> None:
        self.expected, self.rel, self.abs, self.nan_ok = expected, rel, abs, nan_ok

    def __eq__(self, other: object) -> bool:
        return self._same(other, self.expected)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"approx({self.expected!r})"

    def _same(self, result: Any, expected: Any) -> bool:
        if hasattr(expected, "tolist"):
            expected = expected.tolist()
        if isinstance(expected, dict):
            return len(result) == len(expected) and all(
                key in result and self._same(result[key], expected[key]) for key in expected
            )
        if isinstance(expected, list | tuple):
            return len(result) == len(expected) and all(map(self._same, result, expected))
        if isinstance(expected, bool) or not isinstance(expected, int | float | complex):
            return bool(result == expected)
        if isinstance(expected, float) and math.isnan(expected):
            return bool(self.nan_ok and result != result)
        if result == expected:
            return True
        absolute = 1e-12 if self.abs is None else self.abs
        relative = (1e-6 if self.abs is None else 0.0) if self.rel is None else self.rel
        gap = abs(result - expected)
        return bool(gap <= max(absolute, relative * abs(expected)) and gap != math.inf)


class _Mark:
    def __getattr__(self, name: str) -> Any:
        def mark(*given: Any, **keywords: Any) -> Any:
            is_bare = len(given) == 1 and not keywords and callable(given[0]) and name not in ("parametrize", "skipif")

            def marked(thing: Any) -> Any:
                thing._marks = [*getattr(thing, "_marks", []), (name, () if is_bare else given, keywords)]
                return thing

            return marked(given[0]) if is_bare else marked

        return mark


class _Param(tuple[Any, ...]):
    pass


def _fixture(*function: Any, **settings: Any) -> Any:
    def fixture(one: Any) -> Any:
        one._fixture = settings
        return one

    return fixture(function[0]) if function else fixture


def _skip(reason: str = "", **_: Any) -> None:
    raise Skipped(reason)


def _fail(reason: str = "", **_: Any) -> None:
    raise Failed(reason)


def _import_or_skip(name: str, **_: Any) -> Any:
    try:
        return __import__(name)
    except ImportError:
        raise Skipped(name) from None


@contextlib.contextmanager
def _warns(kinds: Any = Warning, match: str | None = None) -> Iterator[Any]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield caught
    if not any(issubclass(one.category, kinds) and re.search(match or "", str(one.message)) for one in caught):
        raise Failed(f"did not warn {kinds}")


def _not_offered(name: str) -> Any:
    raise NotOffered(f"pytest.{name} is not offered here")


def pytest_module() -> types.ModuleType:
    """The stand-in for pytest."""
    module = types.ModuleType("pytest")
    module.__dict__.update(
        raises=_raises,
        approx=_Approx,
        mark=_Mark(),
        fixture=_fixture,
        skip=_skip,
        fail=_fail,
        xfail=_skip,
        importorskip=_import_or_skip,
        warns=_warns,
        deprecated_call=lambda match=None: _warns(DeprecationWarning, match),
        __getattr__=_not_offered,
        param=lambda *values, **_: _Param(values),
        main=lambda *_, **__: 0,
    )
    return module


class _Result(unittest.TestResult):
    """Hands each outcome on as it comes."""

    def __init__(self, passed: Callable[[], None], broken: Callable[[str, BaseException], None]) -> None:
        super().__init__()
        self.passed = passed
        self.broken = broken

    def addSuccess(self, test: unittest.TestCase) -> None:  # noqa: ARG002, N802
        self.passed()

    def addError(self, test: Any, err: Any) -> None:  # noqa: N802
        self.broken(_name(test), err[1])

    addFailure = addError  # noqa: N815

    def addSubTest(self, test: unittest.TestCase, subtest: unittest.TestCase, err: Any) -> None:  # noqa: ARG002, N802
        if err is not None:
            self.broken(_name(test), err[1])

    def addExpectedFailure(self, test: unittest.TestCase, err: Any) -> None:  # noqa: ARG002, N802
        self.passed()

    def addUnexpectedSuccess(self, test: unittest.TestCase) -> None:  # noqa: N802
        self.broken(_name(test), AssertionError("it was to fail"))


def _name(test: Any) -> str:
    return str(getattr(test, "_testMethodName", "setUpClass"))


def run(
    script: Script,
    space: dict[str, Any],
    unit: Unit,
    passed: Callable[[], None],
    broken: Callable[[str, BaseException], None],
) -> None:
    """Run the test functions and classes of a script that it does not run itself.

    `space` is its namespace after it ran; `passed` and `broken` are told of the tests of unittest.
    """
    functions = {name: held for name, held in space.items() if isinstance(held, types.FunctionType)}
    fixtures = {name: held for name, held in functions.items() if hasattr(held, "_fixture")}
    module = types.SimpleNamespace(**{name: space[name] for name in _MODULE_HOOKS if name in functions})
    if hasattr(module, "setup_module"):
        unit("setup_module", lambda: _hook(module, "setup_module", module))
    for name in script.functions:
        if callable(space.get(name)) and name not in fixtures:
            _function(name, space[name], fixtures, unit, module)
    for name in script.suites:
        kind = space.get(name)
        if isinstance(kind, type) and issubclass(kind, unittest.TestCase):
            unittest.defaultTestLoader.loadTestsFromTestCase(kind).run(_Result(passed, broken))
        elif isinstance(kind, type):
            _class(kind, fixtures, unit)
    if hasattr(module, "teardown_module"):
        unit("teardown_module", lambda: _hook(module, "teardown_module", module))


def _function(name: str, function: Any, fixtures: dict[str, Any], unit: Unit, module: Any) -> None:
    def call(given: dict[str, Any]) -> None:
        _hook(module, "setup_function", function)
        try:
            _call(function, given, fixtures)
        finally:
            _hook(module, "teardown_function", function)

    _each(name, getattr(function, "_marks", []), function, fixtures, unit, call)


def _each(
    name: str,
    marks: list[Any],
    function: Any,
    fixtures: dict[str, Any],
    unit: Unit,
    call: Callable[[dict[str, Any]], None],
) -> None:
    """Run a test once for each choice of its parameters and of those of its fixtures, as its marks say."""
    if any(kind == "skip" or (kind == "skipif" and values and values[0] is True) for kind, values, _ in marks):
        return
    is_to_fail = any(kind == "xfail" and (not values or values[0] is True) for kind, values, _ in marks)
    wanted = set(_wanted(function, marks, fixtures))
    chosen: list[Any] = [
        ("parametrize", (one, [_Chosen(value) for value in fixtures[one]._fixture["params"]]), {})
        for one in sorted(_reached(wanted, fixtures))
        if fixtures[one]._fixture.get("params")
    ]
    for given in _parameters([*marks, *chosen]):
        unit(name, lambda given=given: _failing(call, given) if is_to_fail else call(given))  # type: ignore[misc]


@dataclass(frozen=True)
class _Chosen:
    """A fixture's parameter, which it finds at `request.param`."""

    param: Any


def _failing(call: Callable[[dict[str, Any]], None], given: dict[str, Any]) -> None:
    """Run a test marked to fail: whether it does says nothing, unless it is strict, which is not looked at."""
    with contextlib.suppress(Exception):
        call(given)
    raise Skipped


def _arguments(function: Any) -> tuple[str, ...]:
    """Names that a function must be given."""
    code, is_bound = function.__code__, isinstance(function, types.MethodType)
    return tuple(code.co_varnames[is_bound : code.co_argcount - len(function.__defaults__ or ())])


def _wanted(function: Any, marks: list[Any], fixtures: dict[str, Any]) -> list[str]:
    """Names of what is made for a test, in this order."""
    automatic = [one for one, fixture in fixtures.items() if fixture._fixture.get("autouse")]
    named = [one for kind, values, _ in marks if kind == "usefixtures" for one in values]
    return [*automatic, *named, *_arguments(function)]


def _reached(names: set[str], fixtures: dict[str, Any]) -> set[str]:
    """Those of the names that are fixtures, and what these need."""
    found = names & fixtures.keys()
    deeper = found.union(*(fixtures.keys() & set(_arguments(fixtures[one])) for one in found))
    return found if deeper == found else _reached(deeper, fixtures)


def _call(function: Any, given: dict[str, Any], fixtures: dict[str, Any]) -> None:
    with contextlib.ExitStack() as stack:
        made = {name: value for name, value in given.items() if not isinstance(value, _Chosen)}
        chosen = {name: value for name, value in given.items() if isinstance(value, _Chosen)}
        for name in _wanted(function, getattr(function, "_marks", []), fixtures):
            _made(name, fixtures, made, chosen, stack)
        code = function.__code__
        outcome = function(**{one: made[one] for one in code.co_varnames[: code.co_argcount] if one in made})
        if isinstance(outcome, types.CoroutineType):
            import asyncio

            asyncio.run(outcome)


def _made(
    name: str, fixtures: dict[str, Any], made: dict[str, Any], chosen: dict[str, Any], stack: contextlib.ExitStack
) -> Any:
    if name in made:
        return made[name]
    if name in _OFFERED:
        made[name] = stack.enter_context(_OFFERED[name]())
        return made[name]
    if name not in fixtures:
        raise NotOffered(f"the fixture {name!r} is not offered here")
    given = {
        one: chosen[name] if one == "request" and name in chosen else _made(one, fixtures, made, chosen, stack)
        for one in _arguments(fixtures[name])
    }
    found = fixtures[name](**given)
    if isinstance(found, types.GeneratorType):
        generator = found
        found = next(generator)
        stack.callback(next, generator, None)
    made[name] = found
    return found


def _parameters(marks: list[Any]) -> Iterator[dict[str, Any]]:
    choices = []
    for kind, values, keywords in marks:
        if kind == "parametrize":
            names, rows = (lambda argnames, argvalues, **_: (argnames, argvalues))(*values, **keywords)
            names = [one.strip() for one in names.split(",")] if isinstance(names, str) else list(names)
            choices.append(
                [
                    dict(zip(names, row if len(names) > 1 or isinstance(row, _Param) else (row,), strict=True))
                    for row in rows
                ]
            )
    for combination in itertools.product(*choices):
        yield {name: value for one in combination for name, value in one.items()}


def _class(kind: type, fixtures: dict[str, Any], unit: Unit) -> None:
    one: Any = kind
    own = {name: held for name, held in vars(kind).items() if hasattr(held, "_fixture")}
    setup = getattr(one, "setup_class", None)
    if setup is not None:
        unit("setup_class", setup)
    for name in [name for base in reversed(kind.__mro__) for name in vars(base) if name.startswith("test")]:
        if not callable(getattr(kind, name, None)):
            continue

        def call(given: dict[str, Any], name: str = name) -> None:
            instance = one()  # of its own for each run, as pytest has it
            method = getattr(instance, name)
            for hook in ("setup_method", "setUp"):
                _hook(instance, hook, method)
            try:
                _call(method, given, {**fixtures, **{key: getattr(instance, key) for key in own}})
            finally:
                for hook in ("teardown_method", "tearDown"):
                    _hook(instance, hook, method)

        instance = one()
        method = getattr(instance, name)
        marks = [*getattr(kind, "_marks", []), *getattr(method, "_marks", [])]
        _each(name, marks, method, {**fixtures, **{key: getattr(instance, key) for key in own}}, unit, call)
    for inner in vars(kind).values():
        if isinstance(inner, type) and inner.__name__.startswith("Test"):
            _class(inner, fixtures, unit)
    if hasattr(one, "teardown_class"):
        unit("teardown_class", one.teardown_class)


def _hook(holder: Any, name: str, subject: Any) -> None:
    """Call what stands around tests, if it is there; it may take what it stands around."""
    hook = getattr(holder, name, None)
    if hook is not None:
        hook(*([subject] if _arguments(hook) else []))


@contextlib.contextmanager
def _tmp_path() -> Iterator[Path]:
    yield Path(tempfile.mkdtemp(dir="."))


class _Capture:
    def __init__(self) -> None:
        self.streams = io.StringIO(), io.StringIO()

    def readouterr(self) -> Any:
        """What was printed since the last time."""
        found = _Output(*(stream.getvalue() for stream in self.streams))
        for stream in self.streams:
            stream.seek(0)
            stream.truncate()
        return found


class _Output(NamedTuple):
    out: str
    err: str


@contextlib.contextmanager
def _capsys() -> Iterator[_Capture]:
    capture = _Capture()
    with contextlib.redirect_stdout(capture.streams[0]), contextlib.redirect_stderr(capture.streams[1]):
        yield capture


class _Patches:
    def __init__(self, stack: contextlib.ExitStack) -> None:
        self.stack = stack

    def setattr(self, target: Any, name: Any, *value: Any, **_: Any) -> None:
        from unittest import mock

        patch = mock.patch.object(target, name, *value) if value else mock.patch(target, name)
        self.stack.enter_context(patch)

    def setitem(self, target: Any, name: Any, value: Any) -> None:
        from unittest import mock

        self.stack.enter_context(mock.patch.dict(target, {name: value}))

    def setenv(self, name: str, value: str, **_: Any) -> None:
        self.setitem(os.environ, name, value)


@contextlib.contextmanager
def _monkeypatch() -> Iterator[_Patches]:
    with contextlib.ExitStack() as stack:
        yield _Patches(stack)


_OFFERED: dict[str, Callable[[], Any]] = {"tmp_path": _tmp_path, "capsys": _capsys, "monkeypatch": _monkeypatch}
