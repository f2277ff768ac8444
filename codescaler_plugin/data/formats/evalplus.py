"""EvalPlus' own files (HumanEvalPlus.jsonl, MbppPlus.jsonl): inputs, and a solution that gives the expected results.

The test is a script that holds the solution inside a function. It compares as EvalPlus does: equal, or numbers within
`atol` + 1e-7 * |expected|. A few tasks have their own oracle. NumPy is not needed.
"""

import ast
from collections.abc import Callable
from typing import Any

from codescaler_plugin.data.formats.columns import Row, parsed, row_id, stated
from codescaler_plugin.data.formats.sources import before, beside, defined, script
from codescaler_plugin.errors import DataError
from codescaler_plugin.grading import syntax
from codescaler_plugin.records import Problem

_SHORT = 10**4000  # more digits are written as hex, which has no limit


def evalplus(row: Row) -> Problem:
    """A row of HumanEvalPlus.jsonl or MbppPlus.jsonl."""
    text, entry, key = stated(row["prompt"]), row["entry_point"], row_id(row)
    solution = row["canonical_solution"]
    if entry not in defined(solution):
        solution = text + solution
    is_mbpp = key.lower().startswith("mbpp")
    inputs = [*(parsed(row["base_input"]) or []), *(parsed(row.get("plus_input")) or [])]
    if not inputs:
        raise DataError("it has no inputs")
    if is_mbpp:
        inputs = [_SHAPES.get(int(key.rpartition("/")[2]), list)(arguments) for arguments in inputs]
    preamble = "" if is_mbpp else before(text, entry)
    same = (_MBPP if is_mbpp else _HUMANEVAL).get(entry, "equal(got, want)")
    source = _SCRIPT.format(
        reference=_reference(solution, entry), inputs=_literal(inputs), tolerance=row.get("atol") or 0, same=same
    )
    return Problem(key, text, (script(source),), entry, preamble, names=beside(solution, entry, preamble))


def _reference(solution: str, entry: str) -> str:
    """The solution in a function that returns it, so that its names do not hide the program's names in the test."""
    body = syntax.parsed(solution).body
    imports = [node for node in body if isinstance(node, ast.Import | ast.ImportFrom)]
    rest = [node for node in body if not isinstance(node, ast.Import | ast.ImportFrom)]
    made = ast.parse(f"def _solution():\n    return {entry}")
    made.body[0].body[:0] = rest  # type: ignore[attr-defined]
    return ast.unparse(ast.Module([*imports, *made.body], []))


_SCRIPT = """\
{reference}

import copy as _copy
import math as _math
inf, nan = _math.inf, _math.nan

def floats(value):
    parts = value if isinstance(value, (list, tuple)) else [value]
    return all(isinstance(part, float) for part in parts)

def close(got, want, tolerance):
    if isinstance(want, (list, tuple)):
        return isinstance(got, (list, tuple)) and len(got) == len(want) and all(
            close(one, other, tolerance) for one, other in zip(got, want))
    if isinstance(want, (int, float, complex)) and isinstance(got, (int, float, complex)):
        return got == want or got != got and want != want or abs(got - want) <= tolerance + 1e-7 * abs(want)
    return got == want

def equal(got, want):
    global tolerance
    if not tolerance and floats(want):
        tolerance = 1e-6
    return got == want or tolerance != 0 and close(got, want, tolerance)

def digits_apart(first, second):
    width = max(len(str(first)), len(str(second)))
    return sum(abs(int(a) - int(b)) for a, b in zip(str(first).zfill(width), str(second).zfill(width)))

def pyramid(base, height):
    return round(base**2 + 2 * base * _math.sqrt((base / 2) ** 2 + height**2))

tolerance = {tolerance}
solution = _solution()
for given in {inputs}:
    want = solution(*_copy.deepcopy(given))
    got = candidate(*_copy.deepcopy(given))
    assert {same}
"""

_HUMANEVAL = {"find_zero": "abs(sum(one * _math.pow(got, power) for power, one in enumerate(given[0]))) <= tolerance"}
_NOT_NONE = "got == (want is not None) if isinstance(got, bool) else (got is not None) == (want is not None)"
_SET = "set(got) == set(want)"
_MBPP = {
    "are_equivalent": "equal(got, want) or got is not Ellipsis",  # EvalPlus takes any result
    "sum_div": "equal(got, want) or got == 0",
    "surface_Area": "equal(got, want) or abs(got - pyramid(*given)) <= tolerance",
    "digit_distance_nums": "equal(got, want) or got == digits_apart(*given)",
    **dict.fromkeys(("check_str", "text_match_three", "text_starta_endb"), _NOT_NONE),
    **dict.fromkeys(
        (
            *("similar_elements", "find_char_long", "common_in_nested_lists", "extract_singly"),
            *("larg_nnum", "intersection_array", "find_dissimilar", "Diff"),
        ),
        _SET,
    ),
}


def _deep(value: Any) -> Any:
    return tuple(_deep(item) for item in value) if isinstance(value, list) else value


def _items(value: Any) -> list[Any]:
    """The list with tuples in place of its lists."""
    return [tuple(item) if isinstance(item, list) else item for item in value]


_Shape = Callable[[list[Any]], list[Any]]

# Restores the types of MBPP's arguments that JSON cannot hold, by the numbers of the tasks.
_SHAPED: tuple[tuple[_Shape, str], ...] = (
    (_items, "2 116 132 143 222 261 273 394 399 421 424 429 470 560 579 596 616 630 726 740 744 809"),
    (lambda given: [_items(one) for one in given], "63 64 70 94 120 237 272 299 400 409 417 438 473 614 780"),
    (lambda given: [_items(given[0]), *given[1:]], "75 413 444 753"),
    (lambda given: [given[0], tuple(given[1])], "106 750"),
    (lambda given: [[set(one) if isinstance(one, list) and one else {} for one in given[0]]], "115"),
    (lambda given: [float(given[0]), complex(given[1])], "124"),
    (lambda given: [complex(given[0])], "252"),
    (lambda given: [tuple(given[0]), *given[1:]], "250 405 446 617 720 763 808 307"),
    (lambda given: [tuple(_items(one)) for one in given], "259 401 445"),
    (lambda given: [tuple(_items(given[0]))], "278"),
    (lambda given: [{name: tuple(one) for name, one in given[0].items()}, *given[1:]], "722"),
    (lambda given: list(_deep(given)), "580 615 791"),
)
_SHAPES: dict[int, _Shape] = {int(number): shape for shape, numbers in _SHAPED for number in numbers.split()}


def _literal(value: Any) -> str:
    """Python source of a value, with the names `inf` and `nan`."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_literal(key)}: {_literal(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return f"[{', '.join(map(_literal, value))}]"
    if isinstance(value, tuple):
        return f"({', '.join(map(_literal, value))}{',' if len(value) == 1 else ''})"
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) > _SHORT:
        return hex(value)
    return repr(value)
