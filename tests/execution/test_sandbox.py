"""Verdicts on ordinary and broken programs, limits of time and memory, and the pool of workers."""

import contextlib
import gzip
import json
import logging
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from codescaler_plugin import SandboxError
from codescaler_plugin.data.problems import read_problems
from codescaler_plugin.errors import ConfigError
from codescaler_plugin.execution import sandbox as module
from codescaler_plugin.execution.sandbox import Sandbox, run_tests, usable_cores
from codescaler_plugin.grading import serialization
from tests.execution.programs import (
    HONEST,
    PASSED,
    calls,
    result,
    running,
    script,
    verdict,
    wait_until,
)
from tests.processes import sandbox_or_skip


@pytest.fixture(scope="module", params=["bubblewrap", "landlock", "limits"])
def sandbox(request: pytest.FixtureRequest) -> Iterator[Sandbox]:
    with sandbox_or_skip(request.param, timeout=2.0, memory_mb=512) as pool:
        yield pool


DATA = Path(__file__).parents[3] / "shared" / "data"


@pytest.mark.parametrize(
    ("code", "tests"),
    [
        pytest.param("def solve(n):\n    return n + 1\n", [(3, 4), (-1, 0)], id="right-answers"),
        pytest.param("def solve(pair):\n    return tuple(pair)\n", [([1, 2], [1, 2])], id="tuple-equals-list"),
        pytest.param("def solve(x):\n    return x\n", [({"a": [None, "ü", 1.5]}, {"a": [None, "ü", 1.5]})], id="json"),
        pytest.param("solve = lambda s: s[::-1]\n", [("ab\n", "\nba")], id="strings-with-newlines"),
        pytest.param("print('hi')\ndef solve(n):\n    print(n)\n    return n\n", [(1, 1)], id="prints"),
        pytest.param("import math\ndef solve(n):\n    return math.isqrt(n)\n", [(9, 3)], id="standard-library"),
        pytest.param(
            "def solve(n):\n    return n\nif __name__ == '__main__':\n    1 / 0\n", [(1, 1)], id="main-guard"
        ),
        pytest.param(
            "from datetime import datetime\ndef solve(n):\n    return datetime.strptime('5', '%d').day - 1\n",
            [(1, 4)],
            id="lazy-import",
        ),
        pytest.param("x: 'int | None' = None\ndef solve(n):\n    return x\n", [(1, None)], id="none"),
    ],
)
def test_candidate_with_right_answers_passes(sandbox: Sandbox, code: str, tests: list[tuple[Any, Any]]) -> None:
    if "strptime" in code and any("library" in sentence for sentence in sandbox.missing):
        pytest.skip("; ".join(sandbox.missing))
    (one,) = sandbox.run([(code, calls(*tests))])
    assert (one.passed, one.detail) == PASSED
    assert one.tests_passed == one.tests_total == len(tests)


@pytest.mark.parametrize(
    ("code", "detail"),
    [
        pytest.param("def solve(n):\n    return n\n", "WrongAnswer in test 0", id="wrong-answer"),
        pytest.param("def solve(n):\n    return 4 / (n - 3)\n", "ZeroDivisionError in test 0", id="exception"),
        pytest.param("raise ValueError\n", "ValueError", id="exception-at-import"),
        pytest.param("class Odd(BaseException): ...\nraise Odd\n", "Odd", id="own-exception"),
        pytest.param("def solve(n:\n", "SyntaxError", id="syntax-error"),
        pytest.param("x = 1\n", "NameError in test 0", id="no-function"),
        pytest.param("solve = 4\n", "TypeError in test 0", id="function-that-is-none"),
        pytest.param("def solve(n):\n    return solve(n)\n", "RecursionError in test 0", id="endless-recursion"),
        pytest.param("import sys\nsys.exit(0)\n", "SystemExit", id="sys-exit"),
        pytest.param("import os\nos._exit(0)\n", "Killed", id="os-exit"),
        pytest.param("import ctypes\nctypes.string_at(0)\n", "Killed", id="crash"),
        pytest.param("def solve(n):\n    return object()\n", "UnreadableResult in test 0", id="object"),
        pytest.param("def solve(n):\n    return float('nan')\n", "WrongAnswer in test 0", id="nan"),
        pytest.param("def solve(n):\n    return float('inf')\n", "WrongAnswer in test 0", id="infinity"),
        pytest.param(
            "def solve(n):\n    a = []\n    a.append(a)\n    return a\n", "WrongAnswer in test 0", id="cycle"
        ),
        pytest.param("def solve(n):\n    yield 4\n", "UnreadableResult in test 0", id="generator"),
        pytest.param("def solve(n):\n    return 'a' * 40_000_000\n", "ResultTooLarge in test 0", id="huge-output"),
        pytest.param("def solve(n):\n    return 'a' * 10_000_000_000\n", "MemoryError in test 0", id="huge-string"),
        pytest.param("solve = \ud800\n", "UnicodeEncodeError", id="lone-surrogate"),
        pytest.param("def solve(n):\n    raise KeyboardInterrupt\n", "KeyboardInterrupt in test 0", id="interrupt"),
        pytest.param("def solve(n):\n    return input()\n", "EOFError in test 0", id="reads-stdin"),
        pytest.param("def solve(n):\n    return [10**5000]\n", "WrongAnswer in test 0", id="huge-integer"),
        pytest.param("def solve(n):\n    return {10**5000: 1}\n", "WrongAnswer in test 0", id="huge-key"),
        pytest.param(
            "from decimal import Decimal\ndef solve(n):\n    return Decimal('sNaN')\n",
            "WrongAnswer in test 0",
            id="signalling-nan",
        ),
    ],
)
def test_candidate_that_misbehaves_fails_with_its_reason(sandbox: Sandbox, code: str, detail: str) -> None:
    (one,) = sandbox.run([(code, calls())])
    assert result(one) == (False, detail)


@pytest.mark.parametrize("grow", ["[a] * 12", "(a, a)", "{'a': a, 'b': a}"], ids=["lists", "tuples", "dicts"])
@pytest.mark.parametrize("wanted", [4, [[4, 4], [4, 4]], {"a": {"a": 4}, "b": 4}])
def test_a_small_value_that_unfolds_without_end_is_judged_at_once(grow: str, wanted: Any) -> None:
    start = time.perf_counter()
    code = f"def solve(n):\n    a = 4\n    for _ in range(60):\n        a = {grow}\n    return a\n"
    assert not verdict(code, (0, wanted))[0]
    assert time.perf_counter() - start < 10


def test_keys_of_a_dict_and_tuples_are_compared_as_json_has_them() -> None:
    code = "def solve(n):\n    return {1: (2, [3]), 'a': {None: 4}}\n"
    assert verdict(code, (0, {"1": [2, (3,)], "a": {"None": 4}})) == PASSED
    for other in ({"1": [2, [3]]}, {"1": [2, [3]], "b": {"None": 4}}, {"1": [2, [4]], "a": {"None": 4}}, [1, "a"]):
        assert verdict(code, (0, other)) == (False, "WrongAnswer in test 0")


def test_many_tuples_in_one_are_read_in_time() -> None:
    code = "def solve(n):\n    return tuple((i, i) for i in range(n))\n"
    assert verdict(code, (50_000, [[i, i] for i in range(50_000)]), timeout=20.0) == PASSED


@pytest.mark.parametrize(
    "nodes",
    [
        [["f", [1]], *(["t", [place], [place]] for place in range(2, 62)), ["t", 1]],
        [["F", "1e999999999"]],
        [["t", [1]], ["t", [0]]],
    ],
    ids=["hashing-without-end", "fraction-of-a-text", "tuple-in-itself"],
)
def test_a_forged_value_is_refused_at_once(nodes: list[Any]) -> None:
    start = time.perf_counter()
    with pytest.raises(serialization.SerializationError):
        serialization.unpack({"root": [0], "nodes": nodes})
    assert time.perf_counter() - start < 5


def test_detail_names_the_first_failing_test() -> None:
    (one,) = run_tests([("def solve(n):\n    return 0\n", calls((1, 0), (2, 0), (3, 1), (4, 0)))])
    assert one.detail == "WrongAnswer in test 2: 0, expected 1"
    assert (one.tests_passed, one.tests_total) == (3, 4)


def test_all_tests_share_one_namespace_as_in_one_program() -> None:
    code = "seen = []\ndef solve(n):\n    seen.append(n)\n    return len(seen)\n"
    assert verdict(code, (5, 1), (5, 2)) == PASSED


def test_entry_point_can_have_another_name() -> None:
    (one,) = run_tests([("def main(n):\n    return n + 1\n", calls(entry_point="main"))])
    assert result(one) == PASSED


@pytest.mark.parametrize(
    "body",
    ["while True: pass", "import time; time.sleep(60)", "x = 10 ** 10 ** 9"],
    ids=["busy", "asleep", "inside-one-c-call"],
)
def test_endless_candidate_times_out_within_the_limit(body: str) -> None:
    start = time.perf_counter()
    assert verdict(f"def solve(n):\n    {body}\n", timeout=0.5) == (False, "Timeout")
    assert time.perf_counter() - start < 5


def test_timeout_is_for_all_tests_together() -> None:
    code = "import time\ndef solve(n):\n    end = time.process_time() + 0.5\n    while time.process_time() < end:\n        pass\n    return 4\n"
    assert verdict(code, *[(3, 4)] * 5, timeout=0.8) == (False, "Timeout")
    assert verdict(code, (3, 4), timeout=0.8) == PASSED


def test_a_program_that_sleeps_has_more_wall_time_than_cpu_time() -> None:
    code = "import time\ndef solve(n):\n    time.sleep(0.3)\n    return 4\n"
    assert verdict(code, *[(3, 4)] * 5, timeout=0.8) == PASSED


def test_memory_beyond_the_limit_fails_and_below_it_passes() -> None:
    code = "def solve(n):\n    return len(bytearray(n << 20))\n"
    limits = {"memory_mb": 256, "timeout": 10.0}
    assert verdict(code, (50, 50 << 20), **limits) == PASSED
    assert verdict(code, (400, 400 << 20), **limits)[1] == "MemoryError in test 0"


def test_memory_hog_fails_soon() -> None:
    code = "def solve(n):\n    a = []\n    while True:\n        a.append(bytearray(1 << 20))\n"
    assert verdict(code, memory_mb=128, timeout=10.0)[1] == "MemoryError in test 0"


def test_environment_of_a_candidate_is_empty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET_TOKEN", "s3cret")
    # CPython sets LC_CTYPE by itself where the locale is C (PEP 538).
    code = "import os\ndef solve(n):\n    return [name for name in os.environ if name != 'LC_CTYPE']\n"
    assert verdict(code, (0, [])) == PASSED


def test_arguments_that_a_candidate_changes_stay_as_they_are_outside() -> None:
    argument = [3, 1, 2]
    assert verdict("def solve(a):\n    a.sort()\n    return a\n", (argument, [1, 2, 3])) == PASSED
    assert argument == [3, 1, 2]


def test_order_is_kept_for_many_candidates() -> None:
    candidates = [(f"def solve(n):\n    return {index}\n", calls((0, index % 7))) for index in range(100)]
    verdicts = run_tests(candidates, workers=2)
    assert [verdict.passed for verdict in verdicts] == [index < 7 for index in range(100)]


def test_no_candidates_give_no_verdicts() -> None:
    assert run_tests([]) == []


def test_value_that_cannot_be_sent_is_a_sandbox_error() -> None:
    with pytest.raises(SandboxError, match="no plain data"):
        verdict("def solve(n):\n    return 1\n", (object(), 1))
    with pytest.raises(SandboxError, match="no plain data"):
        verdict("def solve(n):\n    return 1\n", (1, lambda: 1))


@pytest.mark.parametrize(
    ("returned", "expected"),
    [("(1, 2)", (1, 2)), ("{1: 2}", {"1": 2}), ("{1, 2}", {2, 1}), ("b'x'", b"x"), ("2 ** 100", 2**100)],
    ids=["tuple", "integer-key", "set", "bytes", "big"],
)
def test_values_that_cross(returned: str, expected: Any) -> None:
    assert verdict(f"def solve(n):\n    return {returned}\n", (0, expected)) == PASSED


def test_progress_adds_up_to_all_candidates() -> None:
    counts: list[int] = []
    run_tests([(f"{HONEST}# {n}\n", calls()) for n in range(30)], progress=counts.append)
    assert sum(counts) == 30
    assert len(counts) > 1


def test_missing_isolation_is_said_and_can_be_refused(caplog: pytest.LogCaptureFixture) -> None:
    import codescaler_plugin.execution.sandbox as module

    module._warn.cache_clear()
    with caplog.at_level(logging.WARNING), Sandbox(isolation="limits", workers=1) as pool:
        for words in ("files not hidden", "files not protected"):
            assert any(words in sentence for sentence in pool.missing)
            assert caplog.text.count(words) == 1
    with caplog.at_level(logging.WARNING), Sandbox(isolation="limits", workers=2):
        assert caplog.text.count("files not protected") == 1
    for isolation in ("landlock", "limits"):
        sandbox_or_skip(isolation).close()
        with pytest.raises(SandboxError, match="isolation is required"):
            Sandbox(isolation=isolation, workers=1, require_isolation=True)


@pytest.mark.parametrize("setting", [{"timeout": 0}, {"memory_mb": 1}, {"isolation": "paper"}])
def test_setting_that_makes_no_sense_is_a_config_error(setting: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        Sandbox(**setting)


def test_pool_survives_the_death_of_its_processes() -> None:
    with Sandbox(workers=1) as pool:
        process = psutil.Process(pool._workers[0]._process.pid)
        for one in [*process.children(recursive=True), process]:
            with contextlib.suppress(psutil.NoSuchProcess):  # one went with the other
                one.kill()
        pool._workers[0]._process.wait()
        first, second = pool.run([(HONEST, calls()), (HONEST, calls())])
    assert result(first) == PASSED  # it was no fault of its own
    assert result(second) == PASSED


def test_nothing_is_left_when_the_caller_is_killed(tmp_path: Path) -> None:
    marker = f"cs-left-{os.getpid() % 10_000}"
    code = f"import ctypes, time\nctypes.CDLL(None).prctl(15, b'{marker}')\ntime.sleep(60)\n"
    source = f"""
from codescaler_plugin.execution.sandbox import run_tests
from codescaler_plugin.records import CallTest, Problem
run_tests([({code!r}, Problem("p", "t", (CallTest((3,), 4),), "solve"))], timeout=50)
"""
    caller = subprocess.Popen([sys.executable, "-c", source])
    assert wait_until(lambda: bool(running(marker)), 30)
    caller.kill()
    caller.wait()
    assert wait_until(lambda: not running(marker))


def test_seed_fixes_random_numbers_and_the_order_of_sets() -> None:
    code = "import random\ndef solve(n):\n    return [random.random(), list({'a', 'b', 'c', 'd'}), hash('a')]\n"
    details = []
    for seed in (0, 0, 1):
        with Sandbox(workers=1, seed=seed) as pool:
            details.append(pool.run([(code, calls((0, None)))])[0].detail)
    assert details[0] == details[1] != details[2]


@pytest.mark.parametrize("seed", [0, 1])
def test_a_seed_fixes_the_random_numbers_of_tests_too(seed: int) -> None:
    drawn = random.Random(seed).random()
    problem = script(f"import random\nassert solve(random.random()) == {2 * drawn}")
    with Sandbox(workers=1, seed=seed) as pool:
        verdicts = pool.run([("def solve(x):\n    return 2 * x", problem)] * 2)
    assert [one.passed for one in verdicts] == [True, True], verdicts


@pytest.mark.skipif(not DATA.exists(), reason="the development data is not here")
@pytest.mark.parametrize(
    ("file", "solution", "known"),
    [
        ("humaneval/HumanEval.jsonl.gz", lambda row: row["prompt"] + row["canonical_solution"], set()),
        ("octopack/humanevalpack-python.jsonl", lambda row: row["prompt"] + row["canonical_solution"], set()),
    ],
)
def test_reference_solutions_pass(file: str, solution: Callable[[dict[str, Any]], str], known: set[str]) -> None:
    path = DATA / file
    with gzip.open(path, "rt") if path.suffix == ".gz" else path.open() as lines:
        rows = [json.loads(line) for line in lines][::4]
    problems = list(read_problems(path))[::4]
    verdicts = run_tests([(solution(row), problem) for row, problem in zip(rows, problems, strict=True)], timeout=20)
    assert {problem.id for problem, one in zip(problems, verdicts, strict=True) if not one.passed} == known


def test_bubblewrap_is_used_where_it_is() -> None:
    sandbox_or_skip("bubblewrap").close()
    with Sandbox(workers=1) as pool:
        assert pool.isolation == "bubblewrap"
        assert pool.missing == []


def test_workers_follow_affinity_and_quota(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))
    quota = tmp_path / "cpu.max"
    monkeypatch.setattr(module, "_QUOTAS", ((str(quota),), (str(tmp_path / "q"), str(tmp_path / "p"))))
    assert usable_cores() == 8
    for text, cores in (("max 100000", 8), ("150000 100000", 2), ("1600000 100000", 8), ("1000 100000", 1)):
        quota.write_text(text)
        assert usable_cores() == cores
    quota.unlink()
    (tmp_path / "q").write_text("300000\n")
    (tmp_path / "p").write_text("100000\n")
    assert usable_cores() == 3
    (tmp_path / "q").write_text("-1\n")
    assert usable_cores() == 8


def test_a_closed_sandbox_says_so() -> None:
    pool = Sandbox(workers=1)
    pool.close()
    with pytest.raises(SandboxError, match="closed"):
        pool.run([(HONEST, calls())])
