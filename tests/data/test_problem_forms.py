"""A row in each form of the benchmarks as CURE publishes them; a right program passes, a wrong one does not."""

import base64
import json
import pickle
import zlib
from pathlib import Path

import pytest

from codescaler_plugin.data.problems import read_problems
from codescaler_plugin.execution.sandbox import run_tests

CASES = json.dumps([{"input": "1\n", "output": "2\n", "testtype": "stdin"}])
PRIVATE = base64.b64encode(zlib.compress(pickle.dumps(CASES))).decode()
CALLS = json.dumps([{"input": "1", "output": "2", "testtype": "functional"}])
PROGRAM = "print(int(input()) + 1)\n"
METHOD = "class Solution:\n    def plus(self, n):\n        return n + 1\n"


@pytest.mark.parametrize(
    ("row", "code", "tests"),
    [
        (
            {"question": "Add.", "test_input": ["1\n", "5\n"], "test_output": ["2\n", "6"], "example_input": ["9\n"]}
            | {"example_output": ["10\n"], "test_time_limit": 1, "task_id": 7},
            PROGRAM,
            2,
        ),
        (
            {"name": "1_A", "description": "Add.", "public_tests": {"input": ["1\n"], "output": ["2\n"]}}
            | {"private_tests": {"input": [], "output": []}, "generated_tests": {"input": ["3"], "output": ["4"]}},
            PROGRAM,
            2,
        ),
        (
            {"question_id": "q1", "turns": ["Add."], "public_test_cases": CASES, "private_test_cases": PRIVATE}
            | {"original_json": {"starter_code": "", "metadata": "{}", "question_content": "No."}},
            PROGRAM,
            2,
        ),
        (
            {"question_id": "q2", "turns": ["Add."], "public_test_cases": CALLS, "private_test_cases": "[]"}
            | {"original_json": json.dumps({"starter_code": "class Solution:", "metadata": '{"func_name": "plus"}'})},
            METHOD,
            1,
        ),
    ],
    ids=["cure", "codecontests", "livebench-stdin", "livebench-call"],
)
def test_forms_of_problems(row, code, tests, tmp_path: Path):
    file = tmp_path / "problems.jsonl"
    file.write_text(json.dumps(row) + "\n")
    [problem] = read_problems(file)
    assert problem.text == "Add."
    assert len(problem.tests) == tests
    right, wrong = run_tests([(code, problem), (code.replace("+ 1", "+ 2"), problem)])
    assert right.passed, right.detail
    assert not wrong.passed
