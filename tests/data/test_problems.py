import base64
import gzip
import json
import pickle
import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from codescaler_plugin.data.formats.calls import apps_call, json_call
from codescaler_plugin.data.formats.columns import seconds
from codescaler_plugin.data.formats.sources import without_imports_of
from codescaler_plugin.data.problems import FORMATS, read_problems
from codescaler_plugin.data.rollouts import read_rollouts
from codescaler_plugin.errors import ConfigError, DataError
from codescaler_plugin.execution.sandbox import run_tests
from codescaler_plugin.records import CallTest, Comparison, Problem, ScriptTest, StdioTest

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
        ({**PAIRS, "tests": [[1]]}, r"a test is \[1\]: expected \[argument, expected result\]"),
    ],
)
def test_bad_row_is_named(tmp_path: Path, row: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=f"p.jsonl, line 2.*{message}"):
        list(read_problems(write(tmp_path / "p.jsonl", PAIRS, row)))


def test_a_bad_row_is_named_and_passed_over(tmp_path: Path) -> None:
    bad: list[dict[str, Any]] = [
        {"a": 1},
        {**PAIRS, "tests": []},
        {**TACO_STDIN, "input_output": "{"},
        {**TACO_STDIN, "input_output": ""},
        {**HUMANEVAL, "test": None},
        {**HUMANEVAL, "test": "def check(:"},
        {**MBPP, "test_list": [3]},
        {**LCB_CALL, "public_test_cases": "", "private_test_cases": "[]"},
        {"turns": [], "public_test_cases": "[]", "original_json": "{}"},
        {**TACO_STDIN, "question": [{"role": "system", "content": "x"}]},
        {**PAIRS, "comparison": "nearly"},
        {"question": "q", "test": "def test_f():\n    assert f(1)\n", "solution": "x = 1"},
    ]
    path = write(tmp_path / "p.jsonl", PAIRS, *bad, PAIRS)
    path.write_text(path.read_text() + "{\n")
    messages: list[str] = []
    problems = list(read_problems(path, on_bad=messages.append))
    assert [problem.text for problem in problems] == ["Add one.", "Add one."]
    assert [message.partition(":")[0] for message in messages] == [
        f"p.jsonl, line {number}" for number in (*range(2, 2 + len(bad)), len(bad) + 3)
    ]
    with pytest.raises(DataError, match=r"p\.jsonl, line 2"):
        list(read_problems(path))


@pytest.mark.parametrize("absent", [None, "", "[]", [], float("nan")])
def test_private_tests_may_be_absent(tmp_path: Path, absent: Any) -> None:
    [problem] = read_problems(write(tmp_path / "p.jsonl", {**LCB_STDIN, "private_test_cases": absent}))
    assert problem.tests == (StdioTest("1\n", "2\n"),)
    contest = {"description": "d", "name": "n", "public_tests": {"input": ["1"], "output": ["2"]}}
    for row in ({**contest, "private_tests": None if absent == "[]" else absent}, contest):
        [problem] = read_problems(write(tmp_path / "c.jsonl", row))
        assert problem.tests == (StdioTest("1", "2"),)


def test_rows_of_numpy_arrays_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    numpy = pytest.importorskip("numpy")
    row = {
        "question": "Add one.",
        "difficulty": numpy.float64("nan"),
        "input_output": {
            "fn_name": "f",
            "inputs": numpy.array([numpy.array([[1, 2]]), numpy.array([[3, 4]])]),
            "outputs": numpy.array([[[2, 3]], [[4, 5]]]),
        },
    }
    monkeypatch.setattr("codescaler_plugin.data.problems.rows_of", lambda *_, **__: [("f", "row 0", row)])
    [problem] = read_problems("p")
    assert problem.tests == (CallTest(([1, 2],), [2, 3], ([[2, 3]],)), CallTest(([3, 4],), [4, 5], ([[4, 5]],)))
    assert type(problem.tests[0].arguments[0][0]) is int


def test_integers_of_any_length_read(tmp_path: Path) -> None:
    digits = "1" + "0" * 5000
    row = {"question": "q", "input_output": f'{{"fn_name": "f", "inputs": [[1]], "outputs": [[{digits}]]}}'}
    [problem] = read_problems(write(tmp_path / "p.jsonl", row))
    test = problem.tests[0]
    assert isinstance(test, CallTest)
    assert test.expected == 10**5000


@pytest.mark.parametrize(
    ("given", "wanted", "test"),
    [
        ([1], [2], CallTest((1,), 2, ([2],))),
        ([1], 2, CallTest((1,), 2)),
        ([[1, 2]], [[2, 3]], CallTest(([1, 2],), [2, 3], ([[2, 3]],))),
        ([[1, 2]], [2, 3], CallTest(([1, 2],), [2, 3])),
        ([[]], [], CallTest(([],), [])),
        ([[]], [[]], CallTest(([],), [], ([[]],))),
        ("5", "6", CallTest((5,), 6)),
        ("[1, 2]\n3", "[4]", CallTest(([1, 2], 3), 4, ([4],))),
        ('"ab"\n', '"ba"', CallTest(("ab",), "ba")),
        (["ab"], "ba", CallTest(("ab",), "ba")),
        ("ab", "ba", CallTest(("ab",), "ba")),
        ("ab", "12", CallTest(("ab",), 12, ("12",))),
        (["ab"], "12", CallTest(("ab",), 12, ("12",))),
        ([1], ["1"], CallTest((1,), "1", (["1"],))),
        ("ab\ncd", ["x"], CallTest(("ab\ncd",), "x", (["x"],))),
        (5, 6, CallTest((5,), 6)),
        ([{"1": 2}], [{"3": 4}], CallTest(({1: 2},), {3: 4}, ({"3": 4}, [{"3": 4}]))),
        ([{"a": 2}], [{"a": 4}], CallTest(({"a": 2},), {"a": 4}, ([{"a": 4}],))),
        ([{"1": 2}, 3], {"-1": 4}, CallTest(({"1": 2}, 3), {-1: 4}, ({"-1": 4},))),
        ([{}], [{}], CallTest(({},), {}, ([{}],))),
        ([1], [None], CallTest((1,), None, ([None],))),
        ([1], [True], CallTest((1,), True, ([True],))),
    ],
)
def test_calls_are_read_as_the_grader_of_apps_reads_them(given: Any, wanted: Any, test: CallTest) -> None:
    read = apps_call(given, wanted)
    assert repr(read) == repr(test)  # 1 == True


@pytest.mark.parametrize(
    ("given", "wanted", "test"),
    [
        ("[1, 2]\n3", "[4]", CallTest(([1, 2], 3), [4])),
        ('"1"', '"2"', CallTest(("1",), "2")),
        ('""', "0", CallTest(("",), 0)),
        ("", "0", CallTest((), 0)),
        ('{"1": 2}', '{"1": 2}', CallTest(({"1": 2},), {"1": 2})),
        ("1", "yes", CallTest((1,), "yes")),
        ([1, 2], [3], CallTest((1, 2), [3])),
    ],
)
def test_calls_are_read_as_the_grader_of_livecodebench_reads_them(given: Any, wanted: Any, test: CallTest) -> None:
    assert json_call(given, wanted) == test


CODECONTESTS = {
    "name": "n",
    "description": "Add one.",
    "public_tests": {"input": ["1"], "output": ["2"]},
    "private_tests": {"input": ["3"], "output": ["4"]},
    "generated_tests": {"input": ["5"], "output": ["6"]},
}
CODEFORCES = {"description": "d", "official_tests": [{"input": "1", "output": "2"}]}


@pytest.mark.parametrize(
    ("row", "comparison", "limit"),
    [
        (LCB_STDIN, "decimal_lines", 6),
        (LCB_CALL, "allclose", 6),
        (TACO_STDIN, "tokens", 10),
        (TACO_CALL, "allclose", 10),
        ({**TACO_STDIN, "time_limit": "3.0 seconds"}, "tokens", 15),
        ({**TACO_STDIN, "time_limit": "1 second"}, "tokens", 10),
        ({**TACO_STDIN, "difficulty": "interview"}, "tokens", 4),
        (DEEPCODER, "tokens", 12),
        ({"problem": "p", "tests": [{"testtype": "stdin", "input": "1", "output": "2"}]}, "decimal_lines", 12),
        (VERL, "tokens", 10),
        (CODECONTESTS, "tokens", None),
        ({**CODECONTESTS, "time_limit": {"seconds": 1, "nanos": 500_000_000}}, "tokens", 7.5),
        ({**CODECONTESTS, "time_limit": {"seconds": None, "nanos": None}}, "tokens", None),
        (CODEFORCES, "tokens", None),
        ({**CODEFORCES, "time_limit": 2.0, "generated_checker": "print(1)"}, "checker", 10),
        (PAIRS, "tokens", None),
        ({**PAIRS, "comparison": "exact"}, "exact", None),
        (HUMANEVAL, "tokens", None),
    ],
)
def test_comparison_and_limit_are_the_data_sets_own(
    tmp_path: Path, row: dict[str, Any], comparison: str, limit: float | None
) -> None:
    path = write(tmp_path / "p.jsonl", row)
    [problem] = read_problems(path)
    assert (problem.comparison, problem.time_limit) == (comparison, limit)
    assert problem.checker == row.get("generated_checker", "")
    [strict] = read_problems(path, comparison="exact")
    assert strict.comparison is Comparison.EXACT


def test_a_comparison_that_there_is_not(tmp_path: Path) -> None:
    path = write(tmp_path / "p.jsonl", PAIRS)
    with pytest.raises(ConfigError, match="comparison is 'strict': expected one of exact, tokens"):
        list(read_problems(path, comparison="strict"))
    with pytest.raises(DataError, match="line 1: comparison is 'checker', and the problem has none"):
        list(read_problems(path, comparison="checker"))


@pytest.mark.parametrize(
    ("limit", "expected"),
    [
        (2, 2.0),
        ("2.0 seconds", 2.0),
        ("1 second", 1.0),
        ("1500 ms", 1.5),
        ("0.5", 0.5),
        ({"seconds": 3, "nanos": 0}, 3.0),
        (None, None),
        ("", None),
        ("soon", None),
        ("1.2.3 s", None),
        ("2 fortnights", None),
        (0, None),
        (float("nan"), None),
    ],
)
def test_limits_of_time_as_data_sets_write_them(limit: Any, expected: float | None) -> None:
    assert seconds(limit) == expected


@pytest.mark.parametrize("row", [LCB_STDIN, LCB_CALL, TACO_STDIN, TACO_CALL, DEEPCODER, VERL])
def test_preambles_offer_what_the_benchmarks_graders_offer(tmp_path: Path, row: dict[str, Any]) -> None:
    [problem] = read_problems(write(tmp_path / "p.jsonl", row))
    code = (
        "assert sys.maxsize and ascii_lowercase and copy.deepcopy([]) == [] and json.dumps([]) == '[]'\n"
        "assert gcd(4, 6) == 2 and inf and datetime.date and heappop and Counter and lru_cache and List[int]\n"
        "assert pow(2, 3, 5) == 3 and open is builtins_open and sum([1]) == 1 and 'numpy' not in sys.modules\n"
        "assert sys.getrecursionlimit() >= 50000\n"
        "assert not hasattr(sys, 'get_int_max_str_digits') or sys.get_int_max_str_digits() >= 50000\n"
    )
    program = f"import builtins\nbuiltins_open = builtins.open\nexec({problem.preamble + code!r})"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_program_may_still_replace_what_is_built_in(tmp_path: Path) -> None:
    [problem] = read_problems(write(tmp_path / "p.jsonl", LCB_STDIN))
    code = "import builtins\nbuiltins.input = lambda: '1'\nassert input() == '1'\n"
    done = subprocess.run([sys.executable, "-c", problem.preamble + code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_mbpp_plus_runs_its_test_and_not_the_three_asserts(tmp_path: Path) -> None:
    row: dict[str, Any] = {
        **MBPP,
        "prompt": "p",
        "test": "for n in (1, 2):\n    assert add(n, 1) == n + 1",
        "test_imports": ["import math"],
    }
    [problem] = read_problems(write(tmp_path / "p.jsonl", row))
    assert problem.tests == (ScriptTest("import math\n" + row["test"]),)
    assert (problem.id, problem.entry_point, problem.names) == ("MBPP/7", "add", ("inner",))


@pytest.mark.parametrize(
    ("task_id", "id_"), [(7, "MBPP/7"), ("7", "MBPP/7"), (7.0, "MBPP/7.0"), ("Mbpp/7", "Mbpp/7"), (None, "p.jsonl/0")]
)
def test_ids_of_mbpp(tmp_path: Path, task_id: Any, id_: str) -> None:
    [problem] = read_problems(write(tmp_path / "p.jsonl", {**MBPP, "task_id": task_id}))
    assert problem.id == id_


def test_all_inputs_of_evalplus_are_in_the_script(tmp_path: Path) -> None:
    row = {
        "task_id": "Mbpp/106",
        "prompt": "Add.",
        "entry_point": "add",
        "canonical_solution": "import math\ndef helper(a):\n    return a\ndef add(a, b):\n    return helper(a) + list(b)",
        "base_input": [[[1], [2, 3]]],
        "plus_input": [[[10**5000, float("inf")], []]],
        "atol": 0,
    }
    path = tmp_path / "p.jsonl"
    path.write_text(json.dumps({**row, "plus_input": "@"}).replace('"@"', f"[[[1{'0' * 5000}, Infinity], []]]") + "\n")
    [problem] = read_problems(path)
    [test] = problem.tests
    assert isinstance(test, ScriptTest)
    assert (problem.entry_point, problem.names) == ("add", ("helper",))
    calls: list[Any] = []

    def add(a: list[Any], b: Any) -> list[Any]:
        calls.append((a, b))
        return a + list(b)

    exec(test.source, {"candidate": add})
    assert calls == [([1], (2, 3)), ([10**5000, float("inf")], ())]
    with pytest.raises(AssertionError):
        exec(test.source, {"candidate": lambda a, b: a})


def test_names_from_the_solutions_module_are_the_programs() -> None:
    source = "import math\nfrom solution import (\n    one,\n    two as deux,\n)\ndef test_é():\n    from solution import three\n    x = 'é'; from solution import four; assert one\n"
    text, names = without_imports_of("solution", source)
    assert names == ["four", "three", "one", "two"] or set(names) == {"one", "two", "three", "four"}
    assert text == ("import math\ndeux = two\ndef test_é():\n    pass\n    x = 'é'; pass; assert one\n")


def test_ends_of_lines_of_windows_are_not_the_programs_to_read(tmp_path: Path) -> None:
    row = {"question": "q", "input_output": json.dumps({"inputs": ["x\r\ny\r\n"], "outputs": ["xy\r\n"]})}
    [problem] = read_problems(write(tmp_path / "p.jsonl", row))
    assert problem.tests == (StdioTest("x\ny\n", "xy\n"),)


def test_forms_that_cannot_be_graded_are_refused_by_name(tmp_path: Path) -> None:
    plus = {"description": "d", "test_cases": [{"input": "1", "output": "2"}], "checker": '#include "testlib.h"'}
    rows: list[tuple[dict[str, Any], str]] = [
        (plus, "its checker is C"),
        ({**CODEFORCES, "interaction_format": "Ask."}, "it is interactive"),
        ({**CODEFORCES, "input_mode": "file"}, "its input_mode is 'file'"),
        ({"verification_info": {"language": "rust", "test_cases": []}, "prompt": "p"}, "its language is 'rust'"),
    ]
    for row, message in rows:
        with pytest.raises(DataError, match=message):
            list(read_problems(write(tmp_path / "p.jsonl", row)))


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
