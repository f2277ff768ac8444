"""A row in the form of every data set, made by hand; a right program passes its tests, and wrong ones do not."""

import json
from pathlib import Path
from typing import Any

import pytest

from codescaler_plugin.data.problems import read_problems
from codescaler_plugin.execution.sandbox import Sandbox
from codescaler_plugin.records import Problem

DOUBLE = "def double(x):\n    return 2 * x\n"
CONSTANT = "def double(x):\n    return 4\n"
ECHO = "def double(x):\n    return x\n"
PROGRAM = "n = int(input())\nprint(2 * n)\n"
PRINTS_FOUR = "print(4)\n"


def case(given: Any, wanted: Any, **more: Any) -> dict[str, Any]:
    return {"input": given, "output": wanted, **more}


def livecodebench(cases: list[dict[str, Any]], private: Any = None, **more: Any) -> dict[str, Any]:
    row = {"question_content": "Double.", "question_id": "1", "public_test_cases": json.dumps(cases)}
    return {**row, "private_test_cases": private, "metadata": "{}", "starter_code": "", **more}


def apps(inputs: list[Any], outputs: list[Any], **more: Any) -> dict[str, Any]:
    return {"question": "Double.", "input_output": json.dumps({"inputs": inputs, "outputs": outputs, **more})}


def verl(**truth: Any) -> dict[str, Any]:
    return {
        "data_source": "taco",
        "prompt": [{"role": "user", "content": "Double."}],
        "reward_model": {"style": "rule", "ground_truth": json.dumps(truth)},
    }


HUMANEVAL = {
    "task_id": "HumanEval/900",
    "prompt": 'def double(x):\n    """Double."""\n',
    "canonical_solution": "    return 2 * x\n",
    "entry_point": "double",
}
CHECKER = """\
import sys
given, wanted, got = (open(path).read().split() for path in sys.argv[1:4])
print(1 if sorted(got) == sorted(wanted) else 0)
"""
CODEFORCES = {
    "id": "1/A",
    "title": "Double",
    "description": "Double it.",
    "input_mode": "stdio",
    "official_tests": [case("2\n", "4\n"), case("3\n", "6\n")],
    "time_limit": 1.0,
}
EVALPLUS = {**HUMANEVAL, "contract": "", "base_input": [[2]], "plus_input": [[3], [1e300]], "atol": 0}
EVALPLUS_MBPP = {
    "task_id": "Mbpp/2",
    "prompt": '"""\nFind the shared elements.\nassert similar_elements((1, 2), (2, 3)) == (2,)\n"""\n',
    "entry_point": "similar_elements",
    "canonical_solution": "def similar_elements(a, b):\n    return tuple(set(a) & set(b))\n",
    "base_input": [[[1, 2], [2, 3]]],
    "plus_input": [[[5, 6, 7], [7, 6]]],
    "atol": 0,
}
EVALPLUS_FLOATS = {
    **HUMANEVAL,
    "base_input": [[0.1]],
    "plus_input": [[0.7]],
    "atol": 1e-6,
}
BIGCODEBENCH = {
    "task_id": "BigCodeBench/900",
    "complete_prompt": 'import json\n\ndef task_func(x):\n    """Write a list of x and its double."""\n',
    "instruct_prompt": "Write a list of x and its double.",
    "code_prompt": "import json\n\ndef task_func(x):\n",
    "canonical_solution": "    return json.dumps([x, 2 * x])\n",
    "entry_point": "task_func",
    "libs": "['json']",
    "test": (
        "import json\nimport unittest\n\nclass TestCases(unittest.TestCase):\n"
        "    def setUp(self):\n        self.given = 3\n"
        "    def test_list(self):\n        self.assertEqual(json.loads(task_func(self.given)), [3, 6])\n"
        "    def test_text(self):\n        self.assertIsInstance(task_func(2), str)\n"
    ),
}
KODCODE = {
    "question_id": "Filter_1_I",
    "question": "Double.",
    "solution": DOUBLE,
    "test": (
        "from solution import double\n\ndef test_two():\n    assert double(2) == 4\n\n"
        "def test_three():\n    assert double(3) == 6\n"
    ),
    "test_info": [{"function_name": "double", "parameter_list": "(x)"}],
}
KODCODE_CLASS = {
    **KODCODE,
    "solution": "class Stack:\n    def __init__(self):\n        self.held = []\n    def push(self, x):\n        self.held.append(x)\n"
    "    def top(self):\n        return self.held[-1]\n",
    "test": "from solution import Stack as Pile\n\ndef test_top():\n    pile = Pile()\n    pile.push(3)\n    assert pile.top() == 3\n",
    "test_info": [],
}
MBPPPLUS = {
    "task_id": 900,
    "code": DOUBLE,
    "prompt": "Double it.",
    "source_file": "x",
    "test_imports": ["import math"],
    "test_list": ["assert double(2) == 4"],
    "test": (
        "def same(got, want):\n    if isinstance(want, float):\n        assert math.isclose(got, want)\n"
        "    else:\n        assert got == want\n\n"
        "for given, want in zip([[2], [3], [0.5]], [4, 6, 1.0]):\n    same(double(*given), want)\n"
    ),
}
HUMANEVALPACK = {
    **HUMANEVAL,
    "task_id": "Python/900",
    "declaration": "def double(x):\n",
    "import": "",
    "test_setup": "",
    "test": "def check(double):\n    assert double(2) == 4\n    assert double(3) == 6\n\ncheck(double)",
}
STARTER = "class Solution:\n    def double(self, x: int) -> int:\n        "
METHOD = "class Solution:\n    def double(self, x: int) -> int:\n        return 2 * x\n"

FORMATS: dict[str, tuple[dict[str, Any], str, str, list[str]]] = {
    "humaneval": (
        {**HUMANEVAL, "test": "def check(candidate):\n    assert candidate(2) == 4\n    assert candidate(3) == 6\n"},
        "humaneval",
        DOUBLE,
        [CONSTANT, ECHO],
    ),
    "humanevalpack": (HUMANEVALPACK, "humaneval", DOUBLE, [CONSTANT, ECHO]),
    "evalplus": (EVALPLUS, "evalplus", DOUBLE, [CONSTANT, "def double(x):\n    return 4 if x == 2 else x\n"]),
    "evalplus, set": (
        EVALPLUS_MBPP,
        "evalplus",
        "def similar_elements(a, b):\n    return [x for x in reversed(b) if x in a]\n",
        ["def similar_elements(a, b):\n    return [2]\n", "def similar_elements(a, b):\n    return a\n"],
    ),
    "evalplus, tolerance": (
        EVALPLUS_FLOATS,
        "evalplus",
        "def double(x):\n    return 2 * x + 1e-8\n",
        ["def double(x):\n    return 2 * x + 1e-3\n"],
    ),
    "mbpp": (
        {
            "text": "Double.",
            "code": DOUBLE,
            "task_id": 900,
            "test_list": ["assert double(2) == 4", "assert double(3) == 6"],
        },
        "mbpp",
        DOUBLE,
        [CONSTANT, ECHO],
    ),
    "mbppplus": (MBPPPLUS, "mbpp", DOUBLE, [CONSTANT, "def double(x):\n    return 4 if x == 2 else 0\n"]),
    "leetcode": (
        {
            "task_id": "double",
            "prompt": "from typing import *\n",
            "query": "Double.",
            "completion": METHOD,
            "entry_point": "Solution().double",
            "test": "def check(candidate):\n    assert candidate(x = 2) == 4\n    assert candidate(x = 3) == 6\n",
        },
        "leetcode",
        METHOD,
        [METHOD.replace("2 *", "1 *")],
    ),
    "bigcodebench": (
        BIGCODEBENCH,
        "bigcodebench",
        "import json\ndef task_func(x):\n    return json.dumps([x, 2 * x])\n",
        ["def task_func(x):\n    return [x, 2 * x]\n", "def task_func(x):\n    return '[3, 3]'\n"],
    ),
    "kodcode": (KODCODE, "kodcode", DOUBLE, [CONSTANT, ECHO]),
    "kodcode, class": (
        KODCODE_CLASS,
        "kodcode",
        KODCODE_CLASS["solution"],  # type: ignore[dict-item]
        [KODCODE_CLASS["solution"].replace("[-1]", "[0] + 1")],  # type: ignore[attr-defined]
    ),
    "acecode": (
        {"id": "oss_1", "question": "Double.", "test_cases": ["assert double(2) == 4", "assert double(3) == 6"]},
        "acecode",
        DOUBLE,
        [CONSTANT, ECHO],
    ),
    "livecodebench, stdin": (
        livecodebench([case("2\n", "4\n", testtype="stdin")], [case("3\n", "6\n", testtype="stdin")]),
        "livecodebench",
        PROGRAM,
        [PRINTS_FOUR, "print(input())"],
    ),
    "livecodebench, its names": (
        livecodebench([case("2\n", "4\n", testtype="stdin")]),
        "livecodebench",
        "print(floor(sys.maxsize // sys.maxsize * 2 * int(stdin.readline())), *list(accumulate(deque())))",
        [PRINTS_FOUR.replace("4", "5")],
    ),
    "livecodebench, functional": (
        livecodebench(
            [case("2", "4", testtype="functional")],
            [case("3", "6", testtype="functional")],
            metadata='{"func_name": "double"}',
            starter_code=STARTER,
        ),
        "livecodebench",
        METHOD,
        [METHOD.replace("2 *", "4 +"), METHOD.replace("2 *", "1 *")],
    ),
    "livebench": (
        {
            "question_id": "b1",
            "turns": ["Double."],
            "public_test_cases": json.dumps([case("2", "4", testtype="functional")]),
            "private_test_cases": json.dumps([case("3", "6", testtype="functional")]),
            "original_json": json.dumps({"metadata": {"func_name": "double"}, "starter_code": STARTER}),
        },
        "livebench",
        METHOD,
        [METHOD.replace("2 *", "1 *")],
    ),
    "codecontests": (
        {
            "name": "1_A. Double",
            "description": "Double.",
            "public_tests": {"input": ["2\n"], "output": ["4\n"]},
            "private_tests": {"input": [], "output": []},
            "generated_tests": {"input": ["3\n"], "output": ["6.0000001\n"]},
            "time_limit": {"seconds": 2, "nanos": 500000000},
        },
        "codecontests",
        PROGRAM,
        [PRINTS_FOUR],
    ),
    "codeforces": (CODEFORCES, "codeforces", PROGRAM, [PRINTS_FOUR]),
    "codeforces, checker": (
        {**CODEFORCES, "official_tests": [case("3\n", "1 2 3\n")], "generated_checker": CHECKER},
        "codeforces",
        "print(*range(int(input()), 0, -1))",
        ["print(1, 2)"],
    ),
    "cure": (
        {"task_id": 1, "question": "Double.", "test_input": ["2\n", "3\n"], "test_output": ["4", "6"]},
        "cure",
        PROGRAM,
        [PRINTS_FOUR],
    ),
    "apps, stdin": (apps(["2\n", ["3"]], ["4\n", ["6"]]), "taco", PROGRAM, [PRINTS_FOUR]),
    "apps, calls": (apps([[2], [3]], [[4], [6]], fn_name="double"), "taco", METHOD, [METHOD.replace("2 *", "1 *")]),
    "taco, integer keys": (
        apps([[{"1": 2}]], [[{"2": 4}]], fn_name="double"),
        "taco",
        "def double(x):\n    return {2 * key: 2 * value for key, value in x.items()}\n",
        ["def double(x):\n    return x\n"],
    ),
    "deepcoder, stdin_stdout": (
        {
            "problem": "Double.",
            "tests": json.dumps([case("2", "4", type="stdin_stdout"), case("3", "6", type="stdin_stdout")]),
        },
        "deepcoder",
        PROGRAM,
        [PRINTS_FOUR],
    ),
    "deepcoder, function_call": (
        {
            "problem": "Double.",
            "tests": [
                case([2], [4], type="function_call", fn_name="double"),
                case(["ab"], "abab", type="function_call", fn_name="double"),
            ],
        },
        "deepcoder",
        DOUBLE,
        [CONSTANT, ECHO],
    ),
    "deepcoder, functional": (
        {
            "problem": "Double.",
            "tests": json.dumps([case("2", "4", testtype="functional", metadata={"func_name": "double"})]),
        },
        "deepcoder",
        DOUBLE,
        [ECHO.replace("x\n", "x + 1\n")],
    ),
    "verl, stdin": (verl(inputs=["2\n", "3\n"], outputs=["4\n", "6\n"]), "deepcoder", PROGRAM, [PRINTS_FOUR]),
    "verl, calls": (verl(fn_name="double", inputs=["2", "3"], outputs=["4", "6"]), "deepcoder", DOUBLE, [CONSTANT]),
    "synthetic-1": (
        {
            "problem_id": "vcp_1",
            "task_type": "verifiable_code",
            "prompt": "Double.",
            "verification_info": json.dumps(
                {"language": "python", "test_cases": [case("2\n", "4\n", type="stdin_stdout"), case("3\n", "6\n")]}
            ),
        },
        "synthetic",
        PROGRAM,
        [PRINTS_FOUR],
    ),
    "pairs": ({"problem": "Double.", "tests": [[2, 4], [3, 6]], "entry_point": "double"}, "pairs", DOUBLE, [CONSTANT]),
}


def read(row: dict[str, Any], folder: Path, format_: str = "auto") -> Problem:
    file = folder / "p.jsonl"
    file.write_text(json.dumps(row) + "\n")
    [problem] = read_problems(file, format_)
    return problem


@pytest.mark.parametrize("name", FORMATS)
def test_a_row_is_told_by_its_columns(tmp_path: Path, name: str) -> None:
    row, format_, _, _ = FORMATS[name]
    assert read(row, tmp_path) == read(row, tmp_path, format_)


@pytest.fixture(scope="module")
def sandbox() -> Any:
    with Sandbox(workers=1) as made:
        yield made


@pytest.mark.parametrize("name", FORMATS)
def test_right_programs_pass_and_wrong_ones_are_found_wrong(tmp_path: Path, sandbox: Sandbox, name: str) -> None:
    row, _, right, wrong = FORMATS[name]
    problem = read(row, tmp_path)
    good, *bad = sandbox.run([(code, problem) for code in (right, *wrong)])
    assert good.passed, good
    assert good.tests_total > 0
    assert [verdict.is_failure for verdict in bad] == [True] * len(wrong), bad


def unpacked(value: Any) -> Any:
    """The value with what is JSON of a list or an object in its place."""
    if isinstance(value, dict):
        return {name: unpacked(one) for name, one in value.items()}
    if isinstance(value, str) and value[:1] in ("{", "["):
        try:
            return unpacked(json.loads(value))
        except ValueError:
            return value
    return value


@pytest.mark.parametrize("name", FORMATS)
def test_columns_may_be_parsed_already(tmp_path: Path, name: str) -> None:
    row = FORMATS[name][0]
    assert read({column: unpacked(value) for column, value in row.items()}, tmp_path) == read(row, tmp_path)


@pytest.mark.parametrize("name", ["livecodebench, stdin", "codecontests", "codeforces", "cure", "acecode", "kodcode"])
def test_a_row_of_parquet_reads_the_same(tmp_path: Path, name: str) -> None:
    import pyarrow as arrow
    import pyarrow.parquet as parquet

    row = {column: unpacked(value) for column, value in FORMATS[name][0].items() if value not in ("{}", [])}
    parquet.write_table(arrow.Table.from_pylist([row]), tmp_path / "p.parquet")
    [problem] = read_problems(tmp_path / "p.parquet")
    assert problem == read(row, tmp_path)


def test_messages_are_a_problem_too(tmp_path: Path) -> None:
    for name in ("livecodebench, stdin", "codecontests", "cure", "apps, calls", "acecode", "kodcode", "pairs"):
        row, _, _, _ = FORMATS[name]
        [column] = row.keys() & {"question_content", "description", "question", "problem"}
        told = [{"role": "system", "content": "Be good."}, {"role": "user", "content": "Double."}]
        assert read({**row, column: told}, tmp_path) == read(row, tmp_path)
