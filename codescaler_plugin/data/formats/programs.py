"""Formats whose tests are inputs and outputs, of a program's stdin and stdout or of function calls."""

import base64
import binascii
import pickletools
import zlib
from collections.abc import Mapping
from typing import Any

from codescaler_plugin.data.formats.calls import apps_call, json_call, paired
from codescaler_plugin.data.formats.columns import Row, lines, parsed, row_id, seconds, stated
from codescaler_plugin.data.formats.scripts import asserts
from codescaler_plugin.data.rows import loads
from codescaler_plugin.errors import DataError
from codescaler_plugin.records import CallTest, Comparison, Problem, StdioTest
from codescaler_plugin.text.messages import problem_text

# CPU seconds per test of the data sets' own graders
_LIVECODEBENCH = 6.0
_APPS = 4.0
_TACO = 10.0  # also of PRIME and verl
_DEEPCODER = 12.0
# Limits that a problem states are for compiled languages. Judges that allow for that (CodeChef, HackerEarth) give
# Python five times as long, which still fails a program whose complexity is too high.
_PYTHON = 5.0

_APPS_LEVELS = ("introductory", "interview", "competition")
_PRIVATE_BYTES = 1 << 30  # of unpacked private tests; LiveCodeBench's largest problem has about 300 MB
_STRING_OPCODES = frozenset(
    {"PROTO", "FRAME", "MEMOIZE", "BINPUT", "LONG_BINPUT", "PUT", "STOP"}
    | {"UNICODE", "SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8"}
)

_STAR = (
    "string re datetime collections heapq bisect copy math random statistics itertools functools operator io sys json"
)

# In place of `from builtins import *` of the graders: restores the builtins that `math` and `operator` hide (`pow`),
# and lets a program replace builtins.
_BUILTINS_AGAIN = """\
import builtins
for _name in dir(builtins):
    if not _name.startswith("_"):
        globals().pop(_name, None)
del builtins, _name
"""


def _preamble(recursion: int) -> str:
    """Imports and limits of the interpreter, which benchmarks put before every program."""
    return "".join(
        (
            *(f"from {module} import *\n" for module in _STAR.split()),
            _BUILTINS_AGAIN,
            "from typing import *\n",
            f"import {', '.join(_STAR.split())}, fractions, time\n",
            f"sys.setrecursionlimit({recursion})\n",
            'if hasattr(sys, "set_int_max_str_digits"):\n    sys.set_int_max_str_digits(50000)\n',
        )
    )


# The graders of APPS, TACO and DeepCoder have the names of LiveCodeBench's and NumPy, left out here.
_NAMES = _preamble(50_000)
_PRIME_NAMES = _preamble(600_000)  # also of verl's grader


def livecodebench(row: Row) -> Problem:
    """LiveCodeBench: public and private tests."""
    cases = [*_case_list(row.get("public_test_cases")), *_private(row.get("private_test_cases"))]
    name = (parsed(row.get("metadata")) or {}).get("func_name", "")
    return _cases(row, stated(row["question_content"]), cases, name, _LIVECODEBENCH)


def _case_list(cases: Any) -> list[Any]:
    return list(parsed(cases) or [])


def _private(tests: Any) -> list[Any]:
    """The private tests of LiveCodeBench: JSON, or a pickled JSON string, compressed by zlib, in base64.

    The pickle is not loaded: only the opcodes of one string are accepted, so nothing in it can run.
    """
    try:
        return _case_list(tests)
    except ValueError:
        pass
    try:
        inflate = zlib.decompressobj()
        data = inflate.decompress(base64.b64decode(tests), _PRIVATE_BYTES)
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
    return _case_list(loads(strings[0]))


def livebench(row: Row) -> Problem:
    """LiveBench's coding tasks, in the form of LiveCodeBench."""
    original = parsed(row["original_json"])
    return livecodebench({**original, **row, "question_content": row["turns"][0]})


def codecontests(row: Row) -> Problem:
    """CodeContests: public, private and generated tests."""
    sets = [parsed(row.get(name)) or {} for name in ("public_tests", "private_tests", "generated_tests")]
    pairs = [pair for tests in sets for pair in paired(tests.get("input"), tests.get("output"))]
    return _stdio(
        row, stated(row["description"]), pairs, key=str(row.get("name") or row_id(row)), limit=_stated_limit(row)
    )


def codecontests_plus(_: Row) -> Problem:
    """CodeContests+: always an error that names it."""
    raise DataError("its checker is C++ (testlib), which is not run here; no other comparison would be its own")


def codeforces(row: Row) -> Problem:
    """open-r1/codeforces: the official tests, and a checker if an input has several right outputs.

    A checker is a Python program. Its arguments are the files of input, expected output and output, and it prints 1
    for a right output.
    """
    if row.get("interaction_format"):
        raise DataError("it is interactive, and no interactor is published")
    if (row.get("input_mode") or "stdio") != "stdio":
        raise DataError(f"its input_mode is {row['input_mode']!r}: expected stdio")
    tests = [(case["input"], case["output"]) for case in parsed(row["official_tests"]) or []]
    checker = row.get("generated_checker") or ""
    return _stdio(
        row,
        problem_text(row["prompt"]) if row.get("prompt") else _statement(row),
        tests,
        comparison=Comparison.CHECKER if checker else Comparison.TOKENS,
        limit=_stated_limit(row),
        checker=checker,
    )


def _statement(row: Row) -> str:
    examples = "".join(
        f"\n\n{title}\n{case[name]}"
        for case in parsed(row.get("examples")) or []
        for title, name in (("Input:", "input"), ("Output:", "output"))
    )
    parts = (("", "title"), ("", "description"), ("Input\n", "input_format"), ("Output\n", "output_format"))
    text = "\n\n".join(f"{title}{row[name]}" for title, name in parts if row.get(name))
    return stated(text + examples + (f"\n\nNote\n{row['note']}" if row.get("note") else ""))


def _stated_limit(row: Row) -> float | None:
    limit = seconds(row.get("time_limit"))
    return None if limit is None else limit * _PYTHON


def cure(row: Row) -> Problem:
    """CURE's versions of CodeContests, CodeForces, LiveBench and MBPP: programs of stdin and stdout."""
    return _stdio(row, stated(row["question"]), paired(parsed(row["test_input"]), parsed(row["test_output"])))


def taco(row: Row) -> Problem:
    """APPS and TACO."""
    text = stated(row.get("question") or row.get("problem") or row["prompt"])
    limit = _APPS if row.get("difficulty") in _APPS_LEVELS else max(_TACO, _stated_limit(row) or 0)
    return _tests(row, text, parsed(row["input_output"]), limit, _NAMES)


def deepcoder(row: Row) -> Problem:
    """DeepCoder's `tests`, or verl's `ground_truth` with PRIME's grader."""
    text = problem_text(row.get("problem") or row["prompt"], is_stated=bool(row.get("problem")))
    if row.get("tests") is not None:
        return _tests(row, text, parsed(row["tests"]), _DEEPCODER, _NAMES)
    truth = parsed(parsed(row["reward_model"])["ground_truth"])
    return _tests(row, text, truth, _TACO, _PRIME_NAMES)


def synthetic(row: Row) -> Problem:
    """SYNTHETIC-1 and open-r1's verifiable problems: `verification_info` with `test_cases`."""
    info = parsed(row["verification_info"])
    if (language := info.get("language") or "python") not in ("python", "python3"):
        raise DataError(f"its language is {language!r}: expected python")
    statement = next((row[name] for name in ("problem_statement", "problem") if row.get(name)), None)
    text = stated(statement) if statement else problem_text(row["prompt"])
    return _tests(row, text, parsed(info["test_cases"]), _DEEPCODER, _NAMES)


def pairs(row: Row) -> Problem:
    """The miniature's problems: each of `tests` is a list of an argument and the expected result."""
    tests = parsed(row["tests"])
    for test in tests:
        if not isinstance(test, list | tuple) or len(test) != 2:
            raise DataError(f"a test is {str(test)[:80]}: expected [argument, expected result], for one argument")
    tests = tuple(CallTest((argument,), expected) for argument, expected in tests)
    return Problem(row_id(row), stated(row["problem"]), tests, row.get("entry_point") or "solve")


def _tests(row: Row, text: str, tests: Any, limit: float, preamble: str) -> Problem:
    """A problem whose tests are lists of inputs and outputs, a list of cases, or a list of assertions."""
    if isinstance(tests, list):
        if tests and isinstance(tests[0], str):
            return asserts(row_id(row), text, tests)
        name = next((_name_in(test) for test in tests if isinstance(test, Mapping) and _name_in(test)), "")
        return _cases(row, text, tests, name, limit, preamble)
    if tests is None:
        raise DataError("it has no tests")
    pairs = paired(tests["inputs"], tests["outputs"])
    if name := tests.get("fn_name"):
        return _call(row, text, tuple(apps_call(*pair) for pair in pairs), name, limit, preamble)
    return _stdio(row, text, pairs, limit=limit, preamble=preamble)


def _cases(row: Row, text: str, cases: list[Any], name: str, limit: float, preamble: str = _NAMES) -> Problem:
    """A problem whose tests are a list of {input, output, testtype or type}; `testtype` means LiveCodeBench rules."""
    for case in cases:
        if not isinstance(case, Mapping):
            raise DataError(f"a test is {str(case)[:40]}: expected an object")
    kinds = {case.get("testtype") or case.get("type") or "stdin" for case in cases}
    pairs = [(case["input"], case["output"]) for case in cases]
    if kinds in ({"functional"}, {"function_call"}):
        if not name:
            raise DataError("function-call tests without a function's name (metadata.func_name or fn_name)")
        call = json_call if kinds == {"functional"} else apps_call
        return _call(row, text, tuple(call(*pair) for pair in pairs), name, limit, preamble)
    if kinds <= {"stdin", "stdin_stdout"}:
        is_lines = "stdin" in kinds and any("testtype" in case for case in cases)
        comparison = Comparison.DECIMAL_LINES if is_lines else Comparison.TOKENS
        return _stdio(row, text, pairs, comparison=comparison, limit=limit, preamble=preamble)
    raise DataError(f"tests of the kinds {', '.join(sorted(kinds))}: expected all stdin or all functional")


def _name_in(case: Row) -> str:
    return str(case.get("fn_name") or (parsed(case.get("metadata")) or {}).get("func_name") or "")


def _call(row: Row, text: str, tests: tuple[CallTest, ...], name: str, limit: float, preamble: str) -> Problem:
    """A problem whose tests call a function, or a method of `Solution` if the starter code has that class."""
    entry = f"Solution.{name}" if "class Solution" in (row.get("starter_code") or "") else name
    return Problem(row_id(row), text, tests, entry, preamble, Comparison.ALLCLOSE, limit)


def _stdio(
    row: Row,
    text: str,
    pairs: list[tuple[Any, Any]],
    *,
    key: str = "",
    comparison: Comparison = Comparison.TOKENS,
    limit: float | None = None,
    preamble: str = "",
    checker: str = "",
) -> Problem:
    return Problem(
        id=key or row_id(row),
        text=text,
        tests=tuple(StdioTest(lines(stdin), lines(stdout)) for stdin, stdout in pairs),
        preamble=preamble,
        comparison=comparison,
        time_limit=limit,
        checker=checker,
    )
