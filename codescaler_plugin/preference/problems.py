"""Problems with tests, from the files that others publish: one adapter per form, one `Problem` out.

| format | rows of | tests become |
|---|---|---|
| `humaneval` | HumanEval and its kin: `prompt`, `entry_point`, `test` with a `check` | one ScriptTest |
| `mbpp` | MBPP, full and sanitized: `test_list` | a ScriptTest per assertion |
| `leetcode` | LeetCodeDataset: `prompt` (imports), `query`, `entry_point`, `test` | one ScriptTest |
| `livecodebench` | LiveCodeBench: `public_test_cases`, `private_test_cases` | StdioTest or CallTest |
| `livebench` | LiveBench's coding: `turns`, tests as LiveCodeBench's, the rest in `original_json` | as LiveCodeBench |
| `codecontests` | CodeContests: `description`; `public_tests`, `private_tests`, `generated_tests` | StdioTest |
| `cure` | CURE's CodeContests, CodeForces, LiveBench, MBPP: `question`, `test_input`, `test_output` | StdioTest |
| `taco` | APPS, TACO: `input_output` | StdioTest or CallTest |
| `deepcoder` | DeepCoder's `tests`, verl's `ground_truth`: either of the two above | StdioTest or CallTest |
| `pairs` | the miniature: `problem`, `tests` as [argument, expected] | CallTest |
"""

import ast
import base64
import binascii
import pickletools
import re
import warnings
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from codescaler_plugin.data.rows import dumps, loads
from codescaler_plugin.errors import ConfigError, DataError
from codescaler_plugin.preference.rollouts import problem_id_of, rows_of
from codescaler_plugin.records import CallTest, Problem, ScriptTest, StdioTest
from codescaler_plugin.text.lines import lines_with_ends
from codescaler_plugin.text.messages import problem_text

Row = Mapping[str, Any]

# What LeetCode offers to every solution. The builtins come last: math has a pow of its own.
_LEETCODE_IMPORTS = """\
import bisect, collections, datetime, functools, heapq, itertools, math, operator, random, re, string
from bisect import *
from collections import *
from functools import *
from heapq import *
from itertools import *
from math import *
from typing import *
from builtins import *
"""
_CODECONTESTS_TESTS = ("public_tests", "private_tests", "generated_tests")
_PRIVATE_BYTES = 1 << 30  # of unpacked private tests; LiveCodeBench's largest problem has about 300 MB
_STRING_OPCODES = frozenset(
    {"PROTO", "FRAME", "MEMOIZE", "BINPUT", "LONG_BINPUT", "PUT", "STOP"}
    | {"UNICODE", "SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8"}
)


def read_problems(path: str | Path, format: str = "auto") -> Iterator[Problem]:  # noqa: A002
    """The problems of a file, a folder, or a dataset, one at a time; see the table above.

    Args:
        path: a file of any form that `data.rows` reads; a folder of such; `datasets` on disk or a hub id
            (`owner/name`, with `:split` if it has several).
        format: one of `FORMATS`; `auto` tells by the columns of each row.

    A problem without an id gets the file's name and the row's number.

    Raises:
        ConfigError: an unknown format, or a path that is not there.
        DataError: a row that is no problem; it is named.
    """
    if format != "auto" and format not in _ADAPTERS:
        raise ConfigError(f"format is {format!r}: expected one of {', '.join(FORMATS)}")
    for number, (_, place, row) in enumerate(rows_of(path)):
        try:
            problem = _ADAPTERS[_format_of(row) if format == "auto" else format](row)
            if not problem.tests:
                raise DataError("it has no tests")
        except KeyError as error:
            raise DataError(f"{place}: no column {error}") from error
        except (TypeError, ValueError, AttributeError, SyntaxError, RecursionError) as error:
            raise DataError(f"{place}: {error}") from error
        yield problem if problem.id else replace(problem, id=f"{Path(path).name}/{number}")


def _id(row: Row) -> str:
    """The id of a row of problems, whose `id` is the problem's."""
    return problem_id_of(row) or ("" if row.get("id") is None else str(row["id"]))


def _format_of(row: Row) -> str:
    columns = {name for name, value in row.items() if value is not None}
    for name, needed in (
        ("livecodebench", {"public_test_cases", "question_content"}),
        ("livebench", {"public_test_cases", "turns", "original_json"}),
        ("codecontests", {"description", "public_tests", "private_tests"}),
        ("cure", {"question", "test_input", "test_output"}),
        ("leetcode", {"test", "entry_point", "query"}),
        ("humaneval", {"test", "entry_point", "prompt"}),
        ("mbpp", {"test_list"}),
        ("deepcoder", {"reward_model"}),
    ):
        if needed <= columns:
            return name
    if "tests" in columns:
        tests = row["tests"]
        pairs = isinstance(tests, list) and tests and isinstance(tests[0], list)
        return "pairs" if pairs else "deepcoder"
    if "input_output" in columns:
        return "taco"
    raise DataError(f"no known form of problem has the columns {', '.join(map(repr, row))}; name the format")


def _humaneval(row: Row) -> Problem:
    entry = row["entry_point"]
    return Problem(
        id=str(row["task_id"]),
        text=row["prompt"],
        tests=(ScriptTest(_called(row["test"], entry)),),
        entry_point=entry,
        preamble=_before(row["prompt"], entry),
    )


def _called(test: str, entry: str) -> str:
    """Test source that calls its `check`; some files leave that to the runner."""
    defined = [node.name for node in _tree(test).body if isinstance(node, ast.FunctionDef)]
    calls = re.search(r"^check\(", test, re.MULTILINE)
    return (
        test
        if calls or "check" not in defined
        else f"{test}\ncheck({entry if entry.isidentifier() else 'candidate'})\n"
    )


def _before(prompt: str, entry: str) -> str:
    """What stands in a prompt before the function that is asked for: imports and helpers."""
    try:
        tree = _tree(prompt)
    except SyntaxError:
        tree = _tree(prompt.rstrip() + "\n    pass\n")
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name == entry:
            return "".join(lines_with_ends(prompt)[: node.lineno - 1 - len(node.decorator_list)])
    return ""


def _mbpp(row: Row) -> Problem:
    tests = list(row["test_list"])
    setup = "\n".join([*(row.get("test_imports") or []), row.get("test_setup_code") or ""]).replace("\r\n", "\n")
    return Problem(
        id=f"MBPP/{row['task_id']}",
        text=row.get("text") or row["prompt"],
        tests=tuple(ScriptTest(f"{setup}\n{test}" if setup.strip() else test) for test in tests),
        entry_point=_tested(tests, row.get("code") or ""),
    )


def _tested(tests: list[str], solution: str) -> str:
    """The function that the assertions call: one that the solution defines, else the outermost of the first."""
    defined = {node.name for node in ast.walk(_parsed(solution)) if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    called = [node.func.id for node in ast.walk(_tree("".join(tests[:1]))) if _is_call_of_name(node)]  # type: ignore[attr-defined]
    return next((name for name in called if name in defined), called[0] if called else "")


def _is_call_of_name(node: ast.AST) -> bool:
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Name)


def _parsed(source: str) -> ast.Module:
    try:
        return _tree(source)
    except SyntaxError:
        return ast.Module([], [])


def _tree(source: str) -> ast.Module:
    """The syntax tree; invalid escapes are the data's, and nothing to warn of."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return ast.parse(source)


def _leetcode(row: Row) -> Problem:
    entry = row["entry_point"].replace("Solution().", "Solution.")
    return Problem(
        id=str(row["task_id"]),
        text=row["query"],
        tests=(ScriptTest(_called(row["test"], entry)),),
        entry_point=entry,
        preamble=row["prompt"],
    )


def _livecodebench(row: Row) -> Problem:
    cases = [*loads(row["public_test_cases"]), *_private(row.get("private_test_cases") or "[]")]
    name = (_json(row.get("metadata")) or {}).get("func_name", "")
    return _cases(row, row["question_content"], str(row.get("question_id") or ""), cases, name)


def _private(text: str) -> list[dict[str, str]]:
    """LiveCodeBench's private tests: JSON, or base64 of zlib of a pickled JSON string, which is read unpickled.

    Only the opcodes of one string are taken: nothing in such a pickle can be run.
    """
    try:
        return list(loads(text))
    except ValueError:
        pass
    try:
        inflate = zlib.decompressobj()
        data = inflate.decompress(base64.b64decode(text), _PRIVATE_BYTES)
    except (zlib.error, binascii.Error) as error:
        raise DataError(f"private_test_cases is neither JSON nor base64 of zlib: {error}") from error
    if inflate.unconsumed_tail:
        raise DataError(f"private_test_cases unpacks to more than {_PRIVATE_BYTES >> 20} MiB")
    strings = []
    for opcode, argument, _ in pickletools.genops(data):
        if opcode.name not in _STRING_OPCODES:
            raise DataError(f"private_test_cases is a pickle of more than a string ({opcode.name}); it is not read")
        if isinstance(argument, str):
            strings.append(argument)
    if len(strings) != 1:
        raise DataError(f"private_test_cases is a pickle of {len(strings)} strings: expected one")
    return list(loads(strings[0]))


def _livebench(row: Row) -> Problem:
    original = _json(row["original_json"])
    return _livecodebench({**original, **row, "question_content": row["turns"][0]})


def _codecontests(row: Row) -> Problem:
    sets = [_json(row.get(name)) or {"input": [], "output": []} for name in _CODECONTESTS_TESTS]
    pairs = [pair for one in sets for pair in zip(one["input"], one["output"], strict=True)]
    tests = tuple(StdioTest(given, wanted) for given, wanted in pairs)
    return Problem(str(row.get("name") or ""), row["description"], tests)


def _cure(row: Row) -> Problem:
    pairs = zip(row["test_input"], row["test_output"], strict=True)
    tests = tuple(StdioTest(_lines(given), _lines(wanted)) for given, wanted in pairs)
    return Problem(_id(row), row["question"], tests)


def _taco(row: Row) -> Problem:
    text = row.get("question") or row.get("problem") or row["prompt"]
    return _tests(row, problem_text(text, is_stated=True), _json(row["input_output"]))


def _deepcoder(row: Row) -> Problem:
    text = problem_text(row.get("problem") or row["prompt"], is_stated=bool(row.get("problem")))
    given = row["tests"] if row.get("tests") is not None else row["reward_model"]["ground_truth"]
    return _tests(row, text, _json(given))


def _tests(row: Row, text: str, tests: Any) -> Problem:
    key = _id(row)
    if isinstance(tests, list):
        if tests and isinstance(tests[0], str):
            return Problem(key, text, tuple(ScriptTest(test) for test in tests), _tested(tests, ""))
        name = next((_name_in(test) for test in tests if _name_in(test)), "")
        return _cases(row, text, key, tests, name)
    inputs, outputs = tests["inputs"], tests["outputs"]
    if len(inputs) != len(outputs):
        raise DataError(f"{len(inputs)} inputs and {len(outputs)} outputs: expected one each")
    if name := tests.get("fn_name"):
        if all(isinstance(output, list) and len(output) == 1 for output in outputs):
            outputs = [output[0] for output in outputs]  # APPS and TACO wrap each result in a list
        calls = tuple(CallTest(tuple(given), wanted) for given, wanted in zip(inputs, outputs, strict=True))
        return Problem(key, text, calls, _entry(name, row), _LEETCODE_IMPORTS)
    pairs = zip(inputs, outputs, strict=True)
    return Problem(key, text, tuple(StdioTest(_lines(given), _lines(wanted)) for given, wanted in pairs))


def _cases(row: Row, text: str, key: str, cases: list[Any], name: str) -> Problem:
    """Tests as a list of {input, output, testtype or type}."""
    for case in cases:
        if not isinstance(case, Mapping):
            raise DataError(f"a test is {str(case)[:40]}: expected an object")
    kinds = {case.get("testtype") or case.get("type") or "stdin" for case in cases}
    if kinds <= {"functional", "function_call"} and kinds:
        if not name:
            raise DataError("function-call tests without a function's name (metadata.func_name or fn_name)")
        calls = tuple(CallTest(_arguments(case["input"]), _json(case["output"])) for case in cases)
        return Problem(key, text, calls, _entry(name, row), _LEETCODE_IMPORTS)
    if kinds <= {"stdin", "stdin_stdout"}:
        return Problem(key, text, tuple(StdioTest(_lines(case["input"]), _lines(case["output"])) for case in cases))
    raise DataError(f"tests of the kinds {', '.join(sorted(kinds))}: expected all stdin or all functional")


def _name_in(case: Row) -> str:
    return str(case.get("fn_name") or (_json(case.get("metadata")) or {}).get("func_name") or "")


def _entry(name: str, row: Row) -> str:
    """The method of a `Solution` if the starter code has one; the sandbox finds a plain function too."""
    return f"Solution.{name}" if "class Solution" in (row.get("starter_code") or "") else name


def _arguments(given: Any) -> tuple[Any, ...]:
    """One JSON value a line, or a list of arguments."""
    return tuple(loads(line) for line in given.split("\n") if line) if isinstance(given, str) else tuple(given)


def _lines(text: Any) -> str:
    if isinstance(text, list):
        return "\n".join(_lines(line) for line in text)
    return text if isinstance(text, str) else dumps(text)


def _json(value: Any) -> Any:
    return loads(value) if isinstance(value, str) else value


def _pairs(row: Row) -> Problem:
    text = problem_text(row["problem"], is_stated=True)
    tests = tuple(CallTest((argument,), expected) for argument, expected in row["tests"])
    return Problem(_id(row), text, tests, row.get("entry_point") or "solve")


_ADAPTERS: dict[str, Callable[[Row], Problem]] = {
    "humaneval": _humaneval,
    "mbpp": _mbpp,
    "leetcode": _leetcode,
    "livecodebench": _livecodebench,
    "livebench": _livebench,
    "codecontests": _codecontests,
    "cure": _cure,
    "taco": _taco,
    "deepcoder": _deepcoder,
    "pairs": _pairs,
}
FORMATS = ("auto", *_ADAPTERS)
