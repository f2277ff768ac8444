import base64
import gzip
import json
import pickle
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from codescaler_plugin.errors import ConfigError, DataError
from codescaler_plugin.preference.problems import FORMATS, read_problems
from codescaler_plugin.preference.rollouts import read_rollouts
from codescaler_plugin.preference.sandbox import run_tests
from codescaler_plugin.records import CallTest, Problem, ScriptTest, StdioTest

DATA = Path(__file__).parents[3] / "shared" / "data"

HUMANEVAL = {
    "task_id": "HumanEval/38",
    "prompt": 'import math\n\ndef helper(s):\n    return s[::-1]\n\n\ndef turn(s: str):\n    """Undo helper."""\n',
    "canonical_solution": "    return s[::-1]\n",
    "entry_point": "turn",
    "test": "def check(candidate):\n    assert candidate(helper('abc')) == 'abc'\n",
}
MBPP = {
    "text": "Add two numbers.",
    "code": "def inner(a):\r\n    return a\r\ndef add(a, b):\r\n    return inner(a) + b",
    "task_id": 7,
    "test_setup_code": "",
    "test_list": ["assert set([add(1, 2)]) == {3}", "assert add(2, 2) == 4"],
    "challenge_test_list": [],
}
LEETCODE = {
    "task_id": "plus-one",
    "prompt": "from typing import *\n",
    "query": "Add one.",
    "completion": "class Solution:\n    def plus(self, n: List[int]) -> int:\n        return n[0] + 1\n",
    "entry_point": "Solution().plus",
    "test": "def check(candidate):\n    assert candidate(n = [1]) == 2\n",
}
LCB_STDIN = {
    "question_content": "Add one.",
    "question_id": "abc1_a",
    "public_test_cases": json.dumps([{"input": "1\n", "output": "2\n", "testtype": "stdin"}]),
    "private_test_cases": "[]",
    "metadata": "{}",
    "starter_code": "",
}
LCB_CALL = {
    "question_content": "Add two.",
    "question_id": "3000",
    "public_test_cases": json.dumps([{"input": "[1, 2]\n3", "output": "[1, 2, 3]", "testtype": "functional"}]),
    "private_test_cases": "",
    "metadata": json.dumps({"func_name": "put"}),
    "starter_code": "class Solution:\n    def put(self, a: List[int], b: int) -> List[int]:\n        ",
}
TACO_STDIN = {
    "question": "Add one.",
    "input_output": json.dumps({"inputs": ["1\n", ["2", "3"]], "outputs": ["2\n", "3"]}),
}
TACO_CALL = {
    "question": "Add.",
    "starter_code": "def add(a, b):",
    "input_output": {"fn_name": "add", "inputs": [[1, 2], [3, 4]], "outputs": [[3], [7]]},
}
DEEPCODER = {"problem": "Add one.", "tests": json.dumps([{"type": "stdin_stdout", "input": "1", "output": "2"}])}
VERL = {
    "prompt": [{"role": "user", "content": "Add one."}],
    "reward_model": {"style": "rule", "ground_truth": json.dumps({"inputs": ["1"], "outputs": ["2"]})},
}
PAIRS = {"problem": "Add one.", "tests": [[1, 2], [2, 3]]}
METHOD = "class Solution:\n    def put(self, a: List[int], b: int):\n        return a + [b]\n"


def write(path: Path, *rows: dict[str, Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.mark.parametrize(
    ("row", "format_", "right", "wrong"),
    [
        (HUMANEVAL, "humaneval", HUMANEVAL["prompt"] + HUMANEVAL["canonical_solution"], "def turn(s):\n    return s"),
        (HUMANEVAL, "humaneval", "def turn(s):\n    return s[::-1]", "def turn(s):\n    return helper(helper(s))"),
        (MBPP, "mbpp", MBPP["code"], "def add(a, b):\n    return 3"),
        (LEETCODE, "leetcode", LEETCODE["completion"], "class Solution:\n    def plus(self, n):\n        return 1"),
        (LCB_STDIN, "livecodebench", "print(int(input()) + 1)", "print(1)"),
        (LCB_CALL, "livecodebench", METHOD, METHOD.replace("[b]", "[]")),
        (LCB_CALL, "livecodebench", "def put(a, b):\n    return a + [b]", "def put(a, b):\n    return a"),
        (TACO_STDIN, "taco", "n = input()\nprint(int(n) + 1)", "print(2)"),
        (TACO_CALL, "taco", "def add(a, b):\n    return a + b", "def add(a, b):\n    return 3"),
        (TACO_CALL, "taco", "class Solution:\n    def add(self, a, b):\n        return a + b", "add = 3"),
        (DEEPCODER, "deepcoder", "print(int(input()) + 1)", "print(1)"),
        (VERL, "deepcoder", "print(int(input()) + 1)", "print(1)"),
        (PAIRS, "pairs", "def solve(n):\n    return n + 1", "def solve(n):\n    return 2"),
    ],
)
def test_each_form_is_told_by_its_columns_and_decides(
    tmp_path: Path, row: dict[str, Any], format_: str, right: str, wrong: str
) -> None:
    path = write(tmp_path / "problems.jsonl", row)
    (problem,) = read_problems(path)
    assert [problem] == list(read_problems(path, format_))
    verdicts = run_tests([(right, problem), (wrong, problem)])
    assert [one.passed for one in verdicts] == [True, False], verdicts


def test_records(tmp_path: Path) -> None:
    path = write(tmp_path / "p.jsonl", HUMANEVAL, MBPP, LEETCODE, LCB_CALL, TACO_STDIN, PAIRS)
    human, mbpp, leet, lcb, taco, pairs = read_problems(path)
    assert human == Problem(
        "HumanEval/38",
        HUMANEVAL["prompt"],
        (ScriptTest(HUMANEVAL["test"] + "\ncheck(turn)\n"),),
        "turn",
        "import math\n\ndef helper(s):\n    return s[::-1]\n\n\n",
    )
    assert (mbpp.id, mbpp.entry_point, len(mbpp.tests)) == ("MBPP/7", "add", 2)
    assert (leet.entry_point, leet.text) == ("Solution.plus", "Add one.")
    assert lcb.tests == (CallTest(([1, 2], 3), [1, 2, 3]),)
    assert lcb.entry_point == "Solution.put"
    assert taco.tests == (StdioTest("1\n", "2\n"), StdioTest("2\n3", "3"))
    assert pairs == Problem("p.jsonl/5", "Add one.", (CallTest((1,), 2), CallTest((2,), 3)), "solve")


@pytest.mark.parametrize("name", ["problem_id", "task_id", "question_id"])
@pytest.mark.parametrize("row", [PAIRS, TACO_STDIN])
def test_a_problem_and_its_rollouts_are_called_alike(tmp_path: Path, row: dict[str, Any], name: str) -> None:
    bare = {key: value for key, value in row.items() if key not in ("problem_id", "task_id", "id")}
    [problem] = read_problems(write(tmp_path / "p.jsonl", {**bare, name: 0}))
    [rollout] = read_rollouts(write(tmp_path / "r.jsonl", {"problem": "x", "completion": "y", name: 0}))
    assert problem.id == rollout.problem_id == "0"


def test_a_problem_may_be_called_by_its_id_but_a_rollout_never(tmp_path: Path) -> None:
    [problem] = read_problems(write(tmp_path / "p.jsonl", {**PAIRS, "id": "a"}))
    [rollout] = read_rollouts(write(tmp_path / "r.jsonl", {"problem": "x", "completion": "y", "id": "a"}))
    assert (problem.id, rollout.problem_id) == ("a", "")


def test_a_check_that_is_called_in_the_file_is_not_called_twice(tmp_path: Path) -> None:
    row = {**HUMANEVAL, "test": HUMANEVAL["test"] + "check(turn)\n"}
    (problem,) = read_problems(write(tmp_path / "p.jsonl", row))
    assert problem.tests == (ScriptTest(row["test"]),)


def test_setup_code_of_mbpp_stands_in_each_test(tmp_path: Path) -> None:
    row = {
        **MBPP,
        "test_setup_code": "two = 2",
        "test_list": ["assert add(two, 1) == 3"],
        "test_imports": ["import math"],
    }
    (problem,) = read_problems(write(tmp_path / "p.jsonl", row))
    assert problem.tests == (ScriptTest("import math\ntwo = 2\nassert add(two, 1) == 3"),)
    assert problem.preamble == ""


CASES = [{"input": "5\n", "output": "6\n", "testtype": "stdin"}]


def packed(value: Any) -> str:
    return base64.b64encode(zlib.compress(pickle.dumps(value))).decode()


def test_private_tests_are_read_without_unpickling(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pickle, "loads", None)
    monkeypatch.setattr(pickle, "Unpickler", None)
    row = {**LCB_STDIN, "private_test_cases": packed(json.dumps(CASES))}
    (problem,) = read_problems(write(tmp_path / "p.jsonl", row))
    assert problem.tests == (StdioTest("1\n", "2\n"), StdioTest("5\n", "6\n"))


class Exploit:
    def __reduce__(self) -> tuple[Callable[..., Any], tuple[str]]:
        return Path.touch, (Path("exploited"),)  # type: ignore[return-value]


@pytest.mark.parametrize(
    ("private", "message"),
    [
        (packed(Exploit()), "more than a string"),
        (packed(["a", "b"]), "more than a string"),
        ("no base64!", "neither JSON nor base64"),
        (base64.b64encode(b"no zlib").decode(), "neither JSON nor base64"),
        (packed("no json"), "Expecting value"),
    ],
)
def test_hostile_private_tests_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, private: str, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match=f"p.jsonl, line 1: .*{message}"):
        list(read_problems(write(tmp_path / "p.jsonl", {**LCB_STDIN, "private_test_cases": private})))
    assert not (tmp_path / "exploited").exists()


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"a": 1}, "no known form"),
        ({**MBPP, "test_list": []}, "no tests"),
        ({**HUMANEVAL, "test": "def check(:"}, "invalid syntax"),
        ({**TACO_STDIN, "input_output": '{"inputs": ["1"], "outputs": []}'}, "1 inputs and 0 outputs"),
        ({**TACO_STDIN, "input_output": '{"inputs": ["1"]}'}, "outputs"),
        ({**LCB_CALL, "metadata": "{}"}, "without a function's name"),
        ({**LCB_CALL, "public_test_cases": "[1]"}, "a test is 1: expected an object"),
        ({**PAIRS, "tests": []}, "no tests"),
        ({**PAIRS, "tests": [[1]]}, "unpack"),
    ],
)
def test_bad_row_is_named(tmp_path: Path, row: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=f"p.jsonl, line 2.*{message}"):
        list(read_problems(write(tmp_path / "p.jsonl", PAIRS, row)))


def test_unknown_format_and_path() -> None:
    assert "humaneval" in FORMATS
    with pytest.raises(ConfigError, match="expected one of"):
        list(read_problems("x.jsonl", "apps"))
    with pytest.raises(ConfigError):
        list(read_problems("nowhere.jsonl"))


def test_gzip_parquet_json_and_folders(tmp_path: Path) -> None:
    import pyarrow as arrow
    import pyarrow.parquet as parquet

    with gzip.open(tmp_path / "1.jsonl.gz", "wt") as file:
        file.write(json.dumps(LCB_STDIN) + "\n")
    parquet.write_table(arrow.Table.from_pylist([LCB_CALL]), tmp_path / "2.parquet")
    (tmp_path / "3.json").write_text(json.dumps([HUMANEVAL, LEETCODE]))
    assert [problem.id for problem in read_problems(tmp_path)] == ["abc1_a", "3000", "HumanEval/38", "plus-one"]


@pytest.mark.skipif(not DATA.exists(), reason="the development data is not here")
@pytest.mark.parametrize(
    ("file", "count"),
    [
        ("humaneval/HumanEval.jsonl.gz", 164),
        ("mbpp/mbpp.jsonl", 974),
        ("leetcodedataset/LeetCodeDataset-v0.3.1-test.jsonl.gz", 228),
        ("octopack/humanevalpack-python.jsonl", 164),
        ("ldb/mbpp/seed-codellama.jsonl", 500),
        ("codet/HumanEval_for_code_generation.jsonl", 164),
    ],
)
def test_real_files(file: str, count: int) -> None:
    problems = list(read_problems(DATA / file))
    assert len(problems) == len({problem.id for problem in problems}) == count
    assert all(problem.entry_point for problem in problems)
