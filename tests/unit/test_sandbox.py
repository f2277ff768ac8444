import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from codescaler_plugin import SandboxError, Verdict
from codescaler_plugin.preference.sandbox import run_tests

PASSED = Verdict(passed=True)


def verdict(code: str, *tests: tuple[Any, Any], **settings: Any) -> Verdict:
    (result,) = run_tests([(code, tests or ((3, 4),))], **settings)
    return result


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
        pytest.param("x: 'int | None' = None\ndef solve(n):\n    return x\n", [(1, None)], id="none"),
    ],
)
def test_candidate_with_right_answers_passes(code: str, tests: list[tuple[Any, Any]]) -> None:
    assert verdict(code, *tests) == PASSED


@pytest.mark.parametrize(
    ("code", "detail"),
    [
        pytest.param("def solve(n):\n    return n\n", "WrongAnswer in test 0", id="wrong-answer"),
        pytest.param("def solve(n):\n    return 4 / (n - 3)\n", "ZeroDivisionError", id="exception"),
        pytest.param("raise ValueError\n", "ValueError", id="exception-at-import"),
        pytest.param("class Odd(BaseException): ...\nraise Odd\n", "Odd", id="own-exception"),
        pytest.param("def solve(n:\n", "SyntaxError", id="syntax-error"),
        pytest.param("x = 1\n", "KeyError", id="no-function"),
        pytest.param("solve = 4\n", "TypeError", id="function-that-is-none"),
        pytest.param("def solve(n):\n    return solve(n)\n", "RecursionError", id="endless-recursion"),
        pytest.param("import sys\nsys.exit(0)\n", "SystemExit", id="sys-exit"),
        pytest.param("import os\nos._exit(0)\n", "Killed", id="os-exit"),
        pytest.param("import os, signal\nos.kill(os.getpid(), signal.SIGSEGV)\n", "Killed", id="crash"),
        pytest.param("def solve(n):\n    return object()\n", "UnreadableResult", id="object"),
        pytest.param("def solve(n):\n    return float('nan')\n", "UnreadableResult", id="nan"),
        pytest.param("def solve(n):\n    return float('inf')\n", "UnreadableResult", id="infinity"),
        pytest.param("def solve(n):\n    a = []\n    a.append(a)\n    return a\n", "UnreadableResult", id="cycle"),
        pytest.param("def solve(n):\n    yield 4\n", "UnreadableResult", id="generator"),
        pytest.param("def solve(n):\n    return 'a' * 2_000_000\n", "ResultTooLarge", id="huge-output"),
        pytest.param("def solve(n):\n    return 'a' * 10_000_000_000\n", "MemoryError", id="huge-string"),
        pytest.param("solve = \ud800\n", "UnicodeEncodeError", id="lone-surrogate"),
        pytest.param(
            "import os\ndef solve(n):\n    os.write(os.open('x', 65), b'4')\n", "OSError", id="writes-a-file"
        ),
        pytest.param("def solve(n):\n    raise KeyboardInterrupt\n", "KeyboardInterrupt", id="interrupt"),
        pytest.param("def solve(n):\n    return input()\n", "EOFError", id="reads-stdin"),
    ],
)
def test_candidate_that_misbehaves_fails_with_its_reason(code: str, detail: str) -> None:
    assert verdict(code) == Verdict(passed=False, detail=detail)


def test_detail_names_the_first_failing_test() -> None:
    assert verdict("def solve(n):\n    return 0\n", (1, 0), (2, 0), (3, 1), (4, 1)).detail == "WrongAnswer in test 2"


def test_all_tests_share_one_namespace_as_in_one_program() -> None:
    code = "seen = []\ndef solve(n):\n    seen.append(n)\n    return len(seen)\n"
    assert verdict(code, (5, 1), (5, 2)) == PASSED


def test_entry_point_can_have_another_name() -> None:
    assert verdict("def main(n):\n    return n + 1\n", entry_point="main") == PASSED


@pytest.mark.parametrize(
    "body",
    ["while True: pass", "import time; time.sleep(60)", "x = 10 ** 10 ** 9"],
    ids=["busy", "asleep", "inside-one-c-call"],
)
def test_endless_candidate_times_out_within_the_limit(body: str) -> None:
    start = time.perf_counter()
    assert verdict(f"def solve(n):\n    {body}\n", timeout=0.5) == Verdict(passed=False, detail="Timeout")
    assert time.perf_counter() - start < 3


def test_timeout_is_for_all_tests_together() -> None:
    code = "import time\ndef solve(n):\n    time.sleep(0.3)\n    return 4\n"
    assert verdict(code, *[(3, 4)] * 5, timeout=0.8).detail == "Timeout"


def test_memory_beyond_the_limit_fails_and_below_it_passes() -> None:
    code = "def solve(n):\n    return len(bytearray(n << 20))\n"
    limits = {"memory_mb": 256, "timeout": 10.0}
    assert verdict(code, (50, 50 << 20), **limits) == PASSED
    assert verdict(code, (400, 400 << 20), **limits).detail == "MemoryError"


def test_memory_hog_fails_soon() -> None:
    code = "def solve(n):\n    a = []\n    while True:\n        a.append(bytearray(1 << 20))\n"
    assert verdict(code, memory_mb=128, timeout=10.0).detail == "MemoryError"


def wait_until(condition: Callable[[], bool], seconds: float = 5.0) -> bool:
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.02)
    return condition()


def running(marker: str) -> list[int]:
    """Processes that carry the marker as their name, which forked children inherit."""
    found = []
    for path in Path("/proc").iterdir():
        if path.name.isdigit():
            try:
                name, state = (path / "comm").read_text().strip(), (path / "stat").read_text().rpartition(") ")[2][0]
            except OSError:
                continue
            if name == marker and state != "Z":
                found.append(int(path.name))
    return found


BREED = """
import ctypes, os, time
ctypes.CDLL(None).prctl(15, b"{marker}")
{detach}
for _ in range(3):
    if os.fork() == 0:
        {child}
        time.sleep(20)
        os._exit(0)
def solve(n):
    {answer}
"""


@pytest.mark.parametrize("answer", ["return 4", "time.sleep(60)", "os._exit(1)"], ids=["passes", "times-out", "exits"])
def test_children_of_a_candidate_are_killed_with_it(answer: str) -> None:
    marker = f"cs-brood-{os.getpid() % 10_000}"
    verdict(BREED.format(marker=marker, detach="", child="pass", answer=answer), timeout=1.0)
    assert wait_until(lambda: not running(marker))


def test_child_that_leaves_the_group_is_killed_as_well() -> None:
    marker = f"cs-stray-{os.getpid() % 10_000}"
    verdict(BREED.format(marker=marker, detach="", child="os.setsid()", answer="time.sleep(0.3); return 4"))
    strays = running(marker)
    gone = wait_until(lambda: not running(marker), seconds=1.0)
    for pid in running(marker):
        os.kill(pid, 9)
    assert gone, f"{len(strays)} processes outlived the verdict"


def test_fork_bomb_fails_and_leaves_nothing_behind() -> None:
    marker = f"cs-bomb-{os.getpid() % 10_000}"
    # Bounded by depth, so that a sandbox that does not hold it cannot take the machine down.
    code = f"""
import ctypes, os
ctypes.CDLL(None).prctl(15, b"{marker}")
for _ in range(6):
    os.fork()
while True:
    pass
"""
    assert verdict(code, timeout=0.5).detail == "Timeout"
    assert wait_until(lambda: not running(marker))


@pytest.mark.parametrize("mode", ["a", "r+"])
def test_file_cannot_be_written_to(tmp_path: Path, mode: str) -> None:
    target = tmp_path / "precious"
    target.write_text("before")
    verdict(f"def solve(n):\n    with open({str(target)!r}, {mode!r}) as file:\n        file.write('after')\n")
    assert target.read_text() == "before"


def test_one_candidate_leaves_no_file_for_the_next() -> None:
    writer = "def solve(n):\n    open('note', 'w').close()\n    return 4\n"
    reader = "import os\ndef solve(n):\n    return os.listdir()\n"
    assert run_tests([(writer, [(3, 4)]), (reader, [(0, [])])], workers=1)[1] == PASSED


def test_environment_of_a_candidate_is_empty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET_TOKEN", "s3cret")
    # CPython sets LC_CTYPE by itself where the locale is C (PEP 538).
    code = "import os\ndef solve(n):\n    return [name for name in os.environ if name != 'LC_CTYPE']\n"
    assert verdict(code, (0, [])) == PASSED


def test_folder_of_a_candidate_is_empty_and_its_own() -> None:
    code = "import os\ndef solve(n):\n    return [os.listdir(), 'codescaler-sandbox-' in os.getcwd()]\n"
    assert verdict(code, (0, [[], True])) == PASSED


def test_arguments_that_a_candidate_changes_stay_as_they_are_outside() -> None:
    argument = [3, 1, 2]
    assert verdict("def solve(a):\n    a.sort()\n    return a\n", (argument, [1, 2, 3])) == PASSED
    assert argument == [3, 1, 2]


def test_order_is_kept_for_many_candidates() -> None:
    candidates = [(f"def solve(n):\n    return {index}\n", [(0, index % 7)]) for index in range(200)]
    verdicts = run_tests(candidates, workers=2)
    assert [verdict.passed for verdict in verdicts] == [index < 7 for index in range(200)]


def test_candidate_cannot_change_the_next_one() -> None:
    spoiler = "import builtins, json\nbuiltins.len = lambda _: 4\njson.dumps = lambda *a, **k: '{}'\nsolve = len\n"
    honest = "def solve(a):\n    return len(a)\n"
    assert run_tests([(spoiler, [([], 0)]), (honest, [([1, 2], 2)])], workers=1)[1] == PASSED


def test_no_candidates_give_no_verdicts() -> None:
    assert run_tests([]) == []


FORGED = {
    "a-passing-looking-line": '{"results": [4]}\n',
    "a-verdict": '{"passed": true}',
    "the-right-number-too-often": '{"results": [4, 4, 4]}',
    "a-bare-list": "[]",
    "a-bare-string": '"error"',
    "a-bare-number": "1",
    "an-error-that-is-no-string": '{"error": {"a": 1}}',
    "deep-nesting": "[" * 50_000,
}


@pytest.mark.parametrize("text", FORGED.values(), ids=FORGED.keys())
def test_candidate_that_writes_json_to_every_descriptor_cannot_fake_a_pass(text: str) -> None:
    """The honest neighbour shows that the sandbox itself survives."""
    forger = f"""
import os
def solve(n):
    for fd in range(1, 16):
        try:
            os.write(fd, {text!r}.encode())
        except OSError:
            pass
    os._exit(0)
"""
    honest = "def solve(n):\n    return n + 1\n"
    forged, other = run_tests([(forger, [(3, 5)]), (honest, [(3, 4)])], workers=1)
    assert not forged.passed
    assert isinstance(forged.detail, str)
    assert other == PASSED


HOSTILE = {
    "deep-result": """
import sys
sys.setrecursionlimit(1_000_000)
def solve(n):
    a = []
    for _ in range(5_000):
        a = [a]
    return a
""",
    "kills-its-parent": """
import os, signal
def solve(n):
    os.kill(os.getppid(), signal.SIGKILL)
""",
    "writes-to-its-parents-stdout": """
import os
def solve(n):
    with open(f"/proc/{os.getppid()}/fd/1", "w") as out:
        out.write("garbage\\n")
""",
    "endless-answer": """
import os
def solve(n):
    while True:
        for fd in range(3, 16):
            try:
                os.write(fd, b"x" * 65536)
            except OSError:
                pass
""",
}


@pytest.mark.parametrize("code", HOSTILE.values(), ids=HOSTILE.keys())
def test_hostile_candidate_fails_alone(code: str) -> None:
    honest = "def solve(n):\n    return n + 1\n"
    start = time.perf_counter()
    hostile, other = run_tests([(code, [(3, 4)]), (honest, [(3, 4)])], workers=1, timeout=0.5)
    assert not hostile.passed
    assert other == PASSED
    assert time.perf_counter() - start < 5


@pytest.mark.parametrize("argument", [{1, 2}, object(), b"x"], ids=["set", "object", "bytes"])
def test_argument_that_is_no_json_is_a_sandbox_error(argument: object) -> None:
    with pytest.raises(SandboxError, match="JSON"):
        verdict("def solve(n):\n    return 1\n", (argument, 1))


def test_expected_answer_that_is_no_json_is_a_sandbox_error() -> None:
    with pytest.raises(SandboxError, match="JSON"):
        verdict("def solve(n):\n    return [1]\n", (1, {1}))


@pytest.mark.parametrize(
    ("returned", "expected"), [("(1, 2)", (1, 2)), ("{1: 2}", {1: 2})], ids=["tuple", "integer-key"]
)
def test_expected_answer_makes_the_same_trip_through_json(returned: str, expected: Any) -> None:
    assert verdict(f"def solve(n):\n    return {returned}\n", (0, expected)) == PASSED


def test_progress_adds_up_to_all_candidates() -> None:
    counts: list[int] = []
    run_tests([("def solve(n):\n    return 4\n", [(3, 4)])] * 150, progress=counts.append)
    assert sum(counts) == 150
    assert len(counts) > 1
