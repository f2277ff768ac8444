"""The package stays readable: sizes of rooms, modules and functions, and an example for each public name."""

import ast
from collections import Counter
from functools import cache
from importlib import import_module
from pathlib import Path

import pytest

import codescaler_plugin
from codescaler_plugin import testing

PACKAGE = Path(codescaler_plugin.__path__[0])
MODULES = sorted(PACKAGE.rglob("*.py"))
LARGEST_ROOM, LARGEST_MODULE, LARGEST_FUNCTION = 0.12, 400, 80


@cache
def lines_of(module: Path) -> int:
    return len(module.read_text(encoding="utf-8").splitlines())


def test_no_room_holds_more_than_an_eighth_of_the_package() -> None:
    rooms = Counter[str]()
    for module in MODULES:
        rooms[module.relative_to(PACKAGE).parts[0] if module.parent != PACKAGE else "."] += lines_of(module)
    total = rooms.total()
    assert {room: count for room, count in rooms.items() if count > LARGEST_ROOM * total} == {}


@pytest.mark.parametrize("module", MODULES, ids=lambda module: str(module.relative_to(PACKAGE)))
def test_modules_and_functions_are_short(module: Path) -> None:
    assert lines_of(module) <= LARGEST_MODULE
    functions = [
        node
        for node in ast.walk(ast.parse(module.read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    ]
    sizes = {function.name: (function.end_lineno or 0) - function.lineno + 1 for function in functions}
    assert {name: size for name, size in sizes.items() if size > LARGEST_FUNCTION} == {}


@pytest.mark.parametrize("name", [*codescaler_plugin.__all__, *(f"testing.{name}" for name in testing.__all__)])
def test_every_public_name_has_an_example(name: str) -> None:
    module, _, attribute = f"codescaler_plugin.{name}".rpartition(".")
    value = getattr(import_module(module), attribute)
    if callable(value) or isinstance(value, type):
        assert ">>> " in (value.__doc__ or "")
