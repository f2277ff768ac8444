"""Runs the tests that a script only defines: unittest's classes, and test functions and classes as pytest does."""

import contextlib
import itertools
import types
import unittest
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from codescaler_plugin.grading import pytest_module
from codescaler_plugin.grading.scripts import Script

Unit = Callable[[str, Callable[[], Any]], None]
"""Runs one test under a name, and counts its outcome."""
Broken = Callable[[BaseException, str], None]
"""Counts a test that was broken by an exception, with its name."""
_MODULE_HOOKS = ("setup_module", "teardown_module", "setup_function", "teardown_function")


def run(script: Script, space: dict[str, Any], unit: Unit, passed: Callable[[], None], broken: Broken) -> None:
    """Run the test functions and classes of a script that it does not run itself.

    `space` is the script's namespace after it ran. Each test of unittest calls `passed` or `broken`.
    """
    functions = {name: held for name, held in space.items() if isinstance(held, types.FunctionType)}
    own = {name: held for name, held in functions.items() if hasattr(held, "_fixture")}
    fixtures = {**own, **pytest_module.FIXTURES}
    module = types.SimpleNamespace(**{name: space[name] for name in _MODULE_HOOKS if name in functions})
    if hasattr(module, "setup_module"):
        unit("setup_module", lambda: _hook(module, "setup_module", module))
    for name in script.functions:
        if callable(space.get(name)) and name not in own:
            _run_function(name, space[name], fixtures, unit, module)
    for name in script.suites:
        kind = space.get(name)
        if isinstance(kind, type) and issubclass(kind, unittest.TestCase):
            unittest.defaultTestLoader.loadTestsFromTestCase(kind).run(_Result(passed, broken))
        elif isinstance(kind, type):
            _run_class(kind, fixtures, unit)
    if hasattr(module, "teardown_module"):
        unit("teardown_module", lambda: _hook(module, "teardown_module", module))


class _Result(unittest.TestResult):
    """Reports each outcome of unittest when it comes."""

    def __init__(self, passed: Callable[[], None], broken: Broken) -> None:
        super().__init__()
        self.passed = passed
        self.broken = broken

    def addSuccess(self, *_: Any) -> None:  # noqa: N802
        self.passed()

    def addError(self, test: Any, err: Any) -> None:  # noqa: N802
        self.broken(err[1], _method_name(test))

    addFailure = addError  # noqa: N815
    addExpectedFailure = addSuccess  # type: ignore[assignment]  # noqa: N815

    def addSubTest(self, test: unittest.TestCase, subtest: unittest.TestCase, err: Any) -> None:  # noqa: ARG002, N802
        if err is not None:
            self.broken(err[1], _method_name(test))

    def addUnexpectedSuccess(self, test: unittest.TestCase) -> None:  # noqa: N802
        self.broken(AssertionError("it was to fail"), _method_name(test))


def _method_name(test: Any) -> str:
    return str(getattr(test, "_testMethodName", "setUpClass"))


def _run_function(name: str, function: Any, fixtures: dict[str, Any], unit: Unit, module: Any) -> None:
    def call(parameters: dict[str, Any]) -> None:
        _hook(module, "setup_function", function)
        try:
            _call(function, parameters, fixtures)
        finally:
            _hook(module, "teardown_function", function)

    _run_each(name, getattr(function, "_marks", []), function, fixtures, unit, call)


def _run_class(kind: Any, fixtures: dict[str, Any], unit: Unit) -> None:
    own = [name for name, held in vars(kind).items() if hasattr(held, "_fixture")]

    def method_of_new_instance(name: str) -> tuple[Any, Any, dict[str, Any]]:
        instance = kind()
        return instance, getattr(instance, name), {**fixtures, **{key: getattr(instance, key) for key in own}}

    if getattr(kind, "setup_class", None) is not None:
        unit("setup_class", kind.setup_class)
    for name in [name for base in reversed(kind.__mro__) for name in vars(base) if name.startswith("test")]:
        if not callable(getattr(kind, name, None)):
            continue

        def call(parameters: dict[str, Any], name: str = name) -> None:
            instance, method, all_fixtures = method_of_new_instance(name)
            for hook in ("setup_method", "setUp"):
                _hook(instance, hook, method)
            try:
                _call(method, parameters, all_fixtures)
            finally:
                for hook in ("teardown_method", "tearDown"):
                    _hook(instance, hook, method)

        _, method, all_fixtures = method_of_new_instance(name)
        marks = [*getattr(kind, "_marks", []), *getattr(method, "_marks", [])]
        _run_each(name, marks, method, all_fixtures, unit, call)
    for inner in vars(kind).values():
        if isinstance(inner, type) and inner.__name__.startswith("Test"):
            _run_class(inner, fixtures, unit)
    if hasattr(kind, "teardown_class"):
        unit("teardown_class", kind.teardown_class)


def _run_each(
    name: str, marks: list[Any], function: Any, fixtures: dict[str, Any], unit: Unit, call: Callable[..., None]
) -> None:
    """Run a test once for each choice of its parameters and of those of its fixtures, as its marks say."""
    if any(kind == "skip" or (kind == "skipif" and values and values[0] is True) for kind, values, _ in marks):
        return
    is_to_fail = any(kind == "xfail" and (not values or values[0] is True) for kind, values, _ in marks)
    needed = _with_needed(set(_fixtures_of(function, marks, fixtures)), fixtures)
    of_fixtures: list[Any] = [
        ("parametrize", (fixture, [_Chosen(value) for value in fixtures[fixture]._fixture["params"]]), {})
        for fixture in sorted(needed)
        if fixtures[fixture]._fixture.get("params")
    ]
    for parameters in _choices([*marks, *of_fixtures]):

        def run(parameters: dict[str, Any] = parameters) -> None:
            if not is_to_fail:
                return call(parameters)
            with contextlib.suppress(Exception):
                call(parameters)
            raise pytest_module.Skipped  # whether it fails says nothing, unless it is strict, which is not looked at

        unit(name, run)


@dataclass(frozen=True)
class _Chosen:
    """A fixture's parameter, which the fixture reads at `request.param`."""

    param: Any


def _choices(marks: list[Any]) -> Iterator[dict[str, Any]]:
    """The parameters of each run."""
    choices = []
    for kind, values, keywords in marks:
        if kind == "parametrize":
            names, rows = (lambda argnames, argvalues, **_: (argnames, argvalues))(*values, **keywords)
            names = [name.strip() for name in names.split(",")] if isinstance(names, str) else list(names)
            is_single = len(names) < 2
            rows = [(row,) if is_single and not isinstance(row, pytest_module.Param) else row for row in rows]
            choices.append([dict(zip(names, row, strict=True)) for row in rows])
    for combination in itertools.product(*choices):
        yield {name: value for choice in combination for name, value in choice.items()}


def _arguments(function: Any) -> tuple[str, ...]:
    """Names of the arguments that a function needs."""
    code, is_bound = function.__code__, isinstance(function, types.MethodType)
    return tuple(code.co_varnames[is_bound : code.co_argcount - len(function.__defaults__ or ())])


def _fixtures_of(function: Any, marks: list[Any], fixtures: dict[str, Any]) -> list[str]:
    """Names of what is made for a test, in this order."""
    automatic = [name for name, fixture in fixtures.items() if fixture._fixture.get("autouse")]
    named = [name for kind, values, _ in marks if kind == "usefixtures" for name in values]
    return [*automatic, *named, *_arguments(function)]


def _with_needed(names: set[str], fixtures: dict[str, Any]) -> set[str]:
    """Those of the names that are fixtures, and the fixtures that these need."""
    known = names & fixtures.keys()
    deeper = known.union(*(fixtures.keys() & set(_arguments(fixtures[name])) for name in known))
    return known if deeper == known else _with_needed(deeper, fixtures)


def _call(function: Any, parameters: dict[str, Any], fixtures: dict[str, Any]) -> None:
    """Call a test with its parameters and fixtures."""
    values = {name: value for name, value in parameters.items() if not isinstance(value, _Chosen)}

    def made(name: str) -> Any:
        if name in values:
            return values[name]
        if name not in fixtures:
            raise pytest_module.NotOffered(f"the fixture {name!r} is not offered here")
        value = fixtures[name](
            **{
                argument: parameters[name] if argument == "request" and name in parameters else made(argument)
                for argument in _arguments(fixtures[name])
            }
        )
        if isinstance(value, types.GeneratorType):
            generator, value = value, next(value)
            stack.callback(next, generator, None)
        values[name] = value
        return value

    with contextlib.ExitStack() as stack:
        for name in _fixtures_of(function, getattr(function, "_marks", []), fixtures):
            made(name)
        code = function.__code__
        outcome = function(**{name: values[name] for name in code.co_varnames[: code.co_argcount] if name in values})
        if isinstance(outcome, types.CoroutineType):
            import asyncio

            asyncio.run(outcome)


def _hook(holder: Any, name: str, subject: Any) -> None:
    """Call a set-up or tear-down if there is one; it may take what it is for."""
    hook = getattr(holder, name, None)
    if hook is not None:
        hook(*([subject] if _arguments(hook) else []))
