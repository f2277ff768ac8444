"""A stand-in for pytest: the module that tests import, and pytest's own fixtures. `suites` runs the tests.

It has what the data sets' tests use: `raises`, `approx`, `warns`, `fail`, `skip`, marks, parameters, and fixtures.
"""

import contextlib
import io
import math
import os
import re
import tempfile
import types
import warnings
from collections import namedtuple
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any


class Skipped(Exception):  # noqa: N818 - pytest's word
    """A test says that it does not apply."""


class NotOffered(Exception):  # noqa: N818
    """A test asks for a part of pytest that the stand-in lacks."""


class Failed(AssertionError):  # noqa: N818 - pytest's word
    """A test called `pytest.fail`, or an expected exception did not come."""


class Raises:
    """`pytest.raises` as a context."""

    def __init__(self, kinds: Any, match: str | None) -> None:
        self.kinds = kinds
        self.pattern = match
        self.value: Any = None

    def __enter__(self) -> "Raises":
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
        """Check the exception's text."""
        if not re.search(pattern, str(self.value)):
            raise Failed(f"{pattern!r} does not match {str(self.value)[:100]!r}")
        return True


def _raises(kinds: Any, *call: Any, match: str | None = None, **keywords: Any) -> Raises:
    context = Raises(kinds, match)
    if call:
        with context:
            call[0](*call[1:], **keywords)
    return context


class Approx:
    """`pytest.approx`."""

    __array_ufunc__ = None
    __array_priority__ = 100
    __hash__ = None  # type: ignore[assignment]

    def __init__(self, expected: Any, rel: Any = None, abs: Any = None, nan_ok: bool = False) -> None:  # noqa: A002
        self.expected, self.rel, self.abs, self.nan_ok = expected, rel, abs, nan_ok

    def __eq__(self, other: object) -> bool:
        return self._same(other, self.expected)

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
    """`pytest.mark`: each attribute is a decorator that adds its name and arguments to `_marks`."""

    def __getattr__(self, name: str) -> Any:
        def mark(*values: Any, **keywords: Any) -> Any:
            is_bare = len(values) == 1 and not keywords and callable(values[0])
            is_bare = is_bare and name not in ("parametrize", "skipif")

            def marked(thing: Any) -> Any:
                thing._marks = [*getattr(thing, "_marks", []), (name, () if is_bare else values, keywords)]
                return thing

            return marked(values[0]) if is_bare else marked

        return mark


class Param(tuple[Any, ...]):
    """`pytest.param`."""


def _fixture(*function: Any, **settings: Any) -> Any:
    def fixture(function: Any) -> Any:
        function._fixture = settings
        return function

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
    if not any(issubclass(item.category, kinds) and re.search(match or "", str(item.message)) for item in caught):
        raise Failed(f"did not warn {kinds}")


def _not_offered(name: str) -> Any:
    raise NotOffered(f"pytest.{name} is not offered here")


def module() -> types.ModuleType:
    """A new module `pytest`."""
    pytest = types.ModuleType("pytest")
    pytest.__dict__.update(
        raises=_raises,
        approx=Approx,
        mark=_Mark(),
        fixture=_fixture,
        skip=_skip,
        fail=_fail,
        xfail=_skip,
        importorskip=_import_or_skip,
        warns=_warns,
        deprecated_call=lambda match=None: _warns(DeprecationWarning, match),
        __getattr__=_not_offered,
        param=lambda *values, **_: Param(values),
        main=lambda *_, **__: 0,
    )
    return pytest


@_fixture
def _tmp_path() -> Iterator[Path]:
    yield Path(tempfile.mkdtemp(dir="."))


_Output = namedtuple("_Output", "out err")


class _Capture:
    def __init__(self) -> None:
        self.streams = io.StringIO(), io.StringIO()

    def readouterr(self) -> Any:
        """The text that was printed since the last call."""
        output = _Output(*(stream.getvalue() for stream in self.streams))
        for stream in self.streams:
            stream.seek(0)
            stream.truncate()
        return output


@_fixture
def _capsys() -> Iterator[_Capture]:
    capture = _Capture()
    with contextlib.redirect_stdout(capture.streams[0]), contextlib.redirect_stderr(capture.streams[1]):
        yield capture


class _Patches:
    def __init__(self, stack: contextlib.ExitStack) -> None:
        from unittest.mock import patch

        self.stack, self.patch = stack, patch

    def setattr(self, target: Any, name: Any, *value: Any, **_: Any) -> None:
        self.stack.enter_context(self.patch.object(target, name, *value) if value else self.patch(target, name))

    def setitem(self, target: Any, name: Any, value: Any) -> None:
        self.stack.enter_context(self.patch.dict(target, {name: value}))

    def setenv(self, name: str, value: str, **_: Any) -> None:
        self.setitem(os.environ, name, value)


@_fixture
def _monkeypatch() -> Iterator[_Patches]:
    with contextlib.ExitStack() as stack:
        yield _Patches(stack)


FIXTURES: dict[str, Callable[[], Any]] = {"tmp_path": _tmp_path, "capsys": _capsys, "monkeypatch": _monkeypatch}
"""Pytest's own fixtures."""
