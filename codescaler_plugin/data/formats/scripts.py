"""Formats whose tests are Python source: functions, classes or lists of assertions."""

import re
from typing import Any

from codescaler_plugin.data.formats.columns import Row, parsed, row_id, stated
from codescaler_plugin.data.formats.sources import (
    before,
    beside,
    called,
    defined,
    function_under_test,
    script,
    without_imports_of,
)
from codescaler_plugin.errors import DataError
from codescaler_plugin.records import Problem


def humaneval(row: Row) -> Problem:
    """HumanEval, HumanEval+ and HumanEvalPack. If the test does not call its `check`, a call is added."""
    text, entry = stated(row["prompt"]), row["entry_point"]
    preamble = before(text, entry)
    solution = row.get("canonical_solution") or ""
    return Problem(
        id=row_id(row),
        text=text,
        tests=(script(row.get("import") or "", row.get("test_setup") or "", called(row["test"], entry)),),
        entry_point=entry,
        preamble=preamble,
        names=beside(text + solution, entry, preamble) or beside(solution, entry, preamble),
    )


def mbpp(row: Row) -> Problem:
    """MBPP, full and sanitized: one test per assertion. MBPP+ on the hub: `test`, which holds all inputs."""
    asserts, solution = list(parsed(row.get("test_list")) or []), row.get("code") or ""
    setup = (*(parsed(row.get("test_imports")) or []), row.get("test_setup_code") or "")
    sources = [row["test"]] if row.get("test") else asserts
    key = row_id(row)
    entry = function_under_test(asserts or sources, solution.replace("\r\n", "\n"))
    return Problem(
        id=f"MBPP/{key}" if re.fullmatch(r"[0-9.]+", key) else key,
        text=stated(row.get("text") or row["prompt"]),
        tests=tuple(script(*setup, source) for source in sources),
        entry_point=entry,
        names=beside(solution.replace("\r\n", "\n"), entry),
    )


def leetcode(row: Row) -> Problem:
    """LeetCodeDataset."""
    entry = row["entry_point"].replace("Solution().", "Solution.")
    return Problem(
        id=row_id(row),
        text=stated(row["query"]),
        tests=(script(called(row["test"], entry)),),
        entry_point=entry,
        preamble=row["prompt"],
        names=beside(row.get("completion") or "", entry, row["prompt"]),
    )


def bigcodebench(row: Row) -> Problem:
    """BigCodeBench: a `unittest.TestCase`. The preamble is the code before the function in the prompt."""
    text, entry = stated(row.get("complete_prompt") or row["instruct_prompt"]), row["entry_point"]
    preamble = before(row.get("code_prompt") or text, entry)
    solution = (row.get("code_prompt") or "") + (row.get("canonical_solution") or "")
    return Problem(row_id(row), text, (script(row["test"]),), entry, preamble, names=beside(solution, entry, preamble))


def kodcode(row: Row) -> Problem:
    """KodCode: functions of pytest. They import names of the program from a module `solution`."""
    source, imported = without_imports_of("solution", row["test"])
    listed = [info["function_name"] for info in parsed(row.get("test_info")) or [] if info.get("function_name")]
    names = list(dict.fromkeys([*listed, *imported])) or defined(row.get("solution") or "")
    if not names:
        raise DataError("no function under test: expected `from solution import ...` in test, test_info, or solution")
    entry = names[0]
    others = (*names[1:], *beside(row.get("solution") or "", entry))
    return Problem(
        id=row_id(row),
        text=stated(row["question"]),
        tests=(script(source),),
        entry_point=entry,
        names=tuple(dict.fromkeys(others)),
    )


def acecode(row: Row) -> Problem:
    """AceCode."""
    return asserts(row_id(row), stated(row["question"]), parsed(row["test_cases"]))


def asserts(key: str, text: str, tests: list[Any]) -> Problem:
    """A problem whose tests are a list of assertions as text."""
    return Problem(key, text, tuple(script(test) for test in tests), function_under_test(tests, ""))
