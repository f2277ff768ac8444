"""What is a failure of the program, what is a fault that gives no verdict, and what costs the grader or the caller."""

import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from codescaler_plugin import SandboxError
from codescaler_plugin.execution.sandbox import Sandbox, run_tests
from codescaler_plugin.records import CallTest, Comparison, Fault, Problem, ScriptTest, StdioTest
from tests.execution.programs import (
    CHECK,
    HONEST,
    PASSED,
    calls,
    program,
    result,
    script,
)
from tests.processes import sandbox_or_skip


@pytest.fixture(scope="module", params=["bubblewrap", "landlock", "limits"])
def sandbox(request: pytest.FixtureRequest) -> Iterator[Sandbox]:
    with sandbox_or_skip(request.param, timeout=2.0, memory_mb=512) as pool:
        yield pool


def test_script_calls_by_name_and_as_candidate(sandbox: Sandbox) -> None:
    (one,) = sandbox.run([(HONEST, script(CHECK, "assert solve(1) == 2", "assert candidate(1) == 2"))])
    assert (one.passed, one.tests_passed, one.tests_total) == (True, 4, 4)


def test_script_counts_what_passes_before_and_after_a_failure() -> None:
    sources = [f"assert solve({n}) == {n + (n != 2)}" for n in range(5)]
    (one,) = run_tests([("def solve(n):\n    return n + 1 if n < 4 else 1 / 0\n", script(*sources))])
    assert (one.tests_passed, one.tests_total) == (3, 5)
    assert one.detail == "WrongAnswer in test 2: assert solve(2) == 2"


def test_asserts_that_are_always_true_are_no_tests() -> None:
    (one,) = run_tests([(HONEST, script("assert True, 'fine'\nassert solve(1) == 2"))])
    assert one.tests_total == 1


def test_asserts_that_a_broken_run_does_not_reach_are_counted() -> None:
    (one,) = run_tests(
        [("def solve(n):\n    raise ValueError\n", script("x = solve(1)\nassert x == 2\nassert x != 3"))]
    )
    assert (one.tests_passed, one.tests_total) == (0, 2)
    assert one.detail.startswith("ValueError in test 0")


def test_tests_that_wait_for_an_exception_get_it() -> None:
    source = "try:\n    solve(0)\nexcept ZeroDivisionError:\n    fine = True\nelse:\n    fine = False\nassert fine\n"
    right, wrong = run_tests([("def solve(n):\n    return 1 / n\n", script(source)), (HONEST, script(source))])
    assert (right.passed, wrong.passed) == (True, False)


NODES = """
class Node:
    def __init__(self, value, next=None):
        self.value, self.next = value, next
def chain(values):
    first = None
    for value in reversed(values):
        first = Node(value, first)
    return first
def values(node):
    found = []
    while node:
        found.append(node.value)
        node = node.next
    return found
"""


@pytest.mark.parametrize(
    "redefined",
    ["", "class Node:\n    def __init__(self, value=0, next=None):\n        self.value, self.next = value, next\n"],
)
def test_objects_of_the_preamble_cross_both_ways(redefined: str) -> None:
    code = (
        redefined
        + """
def solve(node):
    last = None
    while node:
        node.next, last, node = last, node, node.next
    return last
"""
    )
    long = list(range(5000))
    sources = [
        "assert values(solve(chain([1, 2, 3]))) == [3, 2, 1]",
        f"assert values(solve(chain({long}))) == {long[::-1]}",
    ]
    (one,) = run_tests([(code, script(*sources, preamble=NODES))])
    assert result(one) == PASSED


def test_arguments_changed_in_place_are_changed_for_the_test() -> None:
    code = "def solve(rows, seen):\n    rows[0].append(9)\n    seen.add(3)\n    return rows\n"
    source = """
row = [1]
rows, seen = [row, row], {1}
result = solve(rows, seen)
assert result is rows
assert rows == [[1, 9], [1, 9]] and row == [1, 9]
assert seen == {1, 3}
"""
    (one,) = run_tests([(code, script(source))])
    assert result(one) == PASSED


@pytest.mark.parametrize("kind", ["", "frozenset"])
def test_a_set_is_walked_there_as_it_would_be_here(kind: str) -> None:
    """The order of a set depends on how it grew; a plain program sees that of a literal."""
    code = "def solve(s):\n    return [tuple(s), s]\n"
    sets = [
        "{1, 2, 3, 4, 5}",
        "{12, 13, 14, 15, 16}",
        "set([12, 13, 14, 15, 16])",
        "set(range(40, 0, -3))",
        "{'a', 'b', 'c'}",
        "{8, 0, 16}",
    ]
    sources = [
        f"s = {kind}({one})\nassert solve(s)[0] == tuple(s)\nassert tuple(solve(s)[1]) == tuple(s)" for one in sets
    ]
    (one,) = run_tests([(code, script(*sources))])
    assert (one.detail, one.tests_passed) == ("", 2 * len(sets))


def test_objects_of_the_candidate_stay_there_and_can_be_used() -> None:
    code = """
class Pair:
    def __init__(self, a, b):
        self.a, self.b = a, b
    def __eq__(self, other):
        return True
def solve(pairs):
    return sum(pair.a * pair.b for pair in pairs)
def walk(n):
    yield from range(n)
"""
    sources = [
        "assert solve([Pair(2, 3), Pair(4, 5)]) == 26",
        "p = Pair(1, 2)\np.a = 7\nassert p.a == 7\nassert solve([p]) == 14",
        "assert list(walk(4)) == [0, 1, 2, 3]",
        "assert set(walk(2)) | {5} == {0, 1, 5}",
    ]
    names = ("Pair", "walk")
    (one,) = run_tests([(code, replace(script(*sources), names=names))])
    assert result(one) == PASSED
    (one,) = run_tests([(code, replace(script("assert Pair(1, 2) == 5"), names=names))])
    assert result(one) == (False, "UnreadableResult in test 0")


def test_solution_may_carry_the_name_of_a_builtin() -> None:
    (one,) = run_tests([("def sum(a, b):\n    return a * b\n", script("assert sum(2, 3) == 6", entry_point="sum"))])
    assert result(one) == PASSED


def test_method_of_a_class_and_types_as_arguments() -> None:
    code = (
        "class Solution:\n    def keep(self, items, kind):\n        return [i for i in items if isinstance(i, kind)]\n"
    )
    (one,) = run_tests([(code, script("assert candidate([1, 'a'], kind=int) == [1]", entry_point="Solution.keep"))])
    assert result(one) == PASSED


def test_broken_tests_are_named_and_pass_nobody() -> None:
    for source in ("import nowhere\nassert True", "def check(:", "import sys\nsys.exit(0)", "import os\nos._exit(0)"):
        (one,) = run_tests([(HONEST, script(source, "assert solve(1) == 2"))])
        assert not one.passed
    (one,) = run_tests([(HONEST, script(CHECK, preamble="import nowhere"))])
    assert one.detail.startswith("TestError: ModuleNotFoundError")


def test_helper_of_the_preamble_wins_over_the_candidates() -> None:
    code = "def double(n):\n    return 0\ndef solve(n):\n    return 0\n"
    (one,) = run_tests([(code, script("assert solve(2) == double(2)", preamble="def double(n):\n    return 2 * n\n"))])
    assert not one.passed


@pytest.mark.parametrize(
    ("code", "fine", "detail"),
    [
        pytest.param("print(int(input()) + 1)", True, "", id="input"),
        pytest.param("import sys\nprint(int(sys.stdin.read()) + 1)", True, "", id="stdin"),
        pytest.param("import sys\nsys.stdout.buffer.write(b'4 \\n\\n')", True, "", id="white-space-at-the-ends"),
        pytest.param("if __name__ == '__main__':\n    print(4)\n    exit()", True, "", id="main-guard-and-exit"),
        pytest.param("import os\nos.write(1, b'4')\nos._exit(0)", True, "", id="os-exit"),
        pytest.param(
            "import threading\nthreading.stack_size(1 << 26)\nt = threading.Thread(target=lambda: print(4))\nt.start()",
            True,
            "",
            id="thread",
        ),
        pytest.param("import atexit\natexit.register(lambda: print(4))", True, "", id="atexit"),
        pytest.param("print(5)", False, "WrongAnswer in test 0", id="wrong"),
        pytest.param("print(4)\n1 / 0", False, "ZeroDivisionError in test 0", id="exception-after-the-answer"),
        pytest.param("print(4)\nraise SystemExit(3)", False, "exit code 3 in test 0", id="exit-code"),
        pytest.param(
            "import ctypes\nprint(4, flush=True)\nctypes.string_at(0)", False, "Killed in test 0", id="crash"
        ),
        pytest.param("print(", False, "SyntaxError in test 0", id="syntax"),
        pytest.param("while True:\n    print('x' * 100_000)", False, "OutputTooLarge in test 0", id="endless-output"),
        pytest.param("while True: pass", False, "Timeout in test 0", id="endless"),
        pytest.param(
            "import os\nprint(4, flush=True)\nos.close(1)\nwhile True: pass", False, "Timeout in test 0", id="goes-on"
        ),
        pytest.param(
            "import gc\nprint([o for o in gc.get_objects() if o == '4'] or 5)",
            False,
            "WrongAnswer in test 0",
            id="looks-for-the-answer",
        ),
    ],
)
def test_programs(sandbox: Sandbox, code: str, fine: bool, detail: str) -> None:
    (one,) = sandbox.run([(code, program(("3\n", "4\n")))])
    assert result(one) == (fine, detail)


def test_each_run_of_a_program_is_fresh(sandbox: Sandbox) -> None:
    code = "import os\nn = int(input())\nprint(n, os.path.exists('seen'))\ntry:\n    open('seen', 'w').close()\nexcept OSError:\n    pass\n"
    (one,) = sandbox.run([(code, program(("1", "1 False"), ("2", "2 False"), ("3", "4")))])
    assert (one.passed, one.tests_passed, one.tests_total) == (False, 2, 3)


@pytest.fixture(scope="module")
def strongest() -> Iterator[Sandbox]:
    with Sandbox(workers=1, timeout=2.0) as pool:
        yield pool


@pytest.mark.parametrize(
    ("code", "problem", "detail", "fault"),
    [
        pytest.param("import nowhere\n", calls(), "ModuleNotFoundError (nowhere)", Fault.MISSING_PACKAGE, id="import"),
        pytest.param(  # a module of the standard library that is not here
            "import winreg\n",
            script(CHECK),
            "MissingPackage: the program imports 'winreg'",
            Fault.MISSING_PACKAGE,
            id="import-in-script",
        ),
        pytest.param(
            "def solve(n):\n    import nowhere.at.all\n",
            calls(),
            "ModuleNotFoundError (nowhere) in test 0",
            Fault.MISSING_PACKAGE,
            id="import-in-call",
        ),
        pytest.param(
            "import nowhere",
            program(("", "4")),
            "ModuleNotFoundError (nowhere) in test 0",
            Fault.MISSING_PACKAGE,
            id="import-in-program",
        ),
        pytest.param(
            "def solve(n):\n    return object()\n",
            calls(),
            "UnreadableResult in test 0",
            Fault.UNREADABLE_RESULT,
            id="object",
        ),
        pytest.param(
            "def solve(n):\n    return 'a' * 40_000_000\n",
            calls(),
            "ResultTooLarge in test 0",
            Fault.UNREADABLE_RESULT,
            id="too-large",
        ),
        pytest.param(
            "def solve(n):\n    return 5\n", calls(), "WrongAnswer in test 0: 5, expected 4", None, id="wrong"
        ),
        pytest.param("while True: pass", calls(), "Timeout", None, id="busy"),
        pytest.param("import time\ntime.sleep(60)", program(("", "")), "Timeout in test 0", None, id="asleep"),
        pytest.param(
            "def solve(n):\n    return object() if n else 5\n",
            calls((0, 4), (1, 4)),
            "WrongAnswer in test 0: 5, expected 4",
            None,
            id="wrong-before-unreadable",
        ),
        pytest.param(
            "def solve(n):\n    return 5 if n else object()\n",
            calls((0, 4), (1, 4)),
            "WrongAnswer in test 1: 5, expected 4",
            None,
            id="unreadable-before-wrong",
        ),
    ],
)
def test_a_fault_is_told_from_a_wrong_program(
    strongest: Sandbox, code: str, problem: Problem, detail: str, fault: Fault | None
) -> None:
    [one] = strongest.run([(code, problem)])
    assert (one.passed, one.detail, one.fault) == (False, detail, fault)
    assert one.is_failure == (fault is None)


def test_a_program_that_is_killed_runs_again_alone() -> None:
    """As by the memory pressure of others: the first kill is no verdict, and neither is a second one."""
    with Sandbox(workers=2, timeout=2.0) as pool:
        verdicts = pool.run([("import os\nos.kill(os.getpid(), 9)\n", program(("", "")))] + [(HONEST, calls())] * 3)
    if verdicts[0].detail == "Killed in test 0":  # the first process of a namespace cannot be killed from inside
        assert verdicts[0].fault is Fault.KILLED
    assert [one.passed for one in verdicts[1:]] == [True] * 3


RIGHT = """
import time
def solve(n):
    while time.process_time() < 2:
        pass
    return n + 1
"""


def test_on_a_busy_core_no_right_program_is_called_wrong() -> None:
    """One core, eight other processes: a program of two CPU seconds takes eighteen."""
    core = min(os.sched_getaffinity(0))
    busy = [subprocess.Popen(["taskset", "-c", str(core), sys.executable, "-c", "while True: pass"]) for _ in range(8)]
    source = (
        "from codescaler_plugin.execution.sandbox import run_tests\n"
        "from tests.execution.test_verdicts import RIGHT\nfrom tests.execution.programs import calls, script, CHECK\n"
        "print([(one.passed, one.fault) for one in run_tests([(RIGHT, calls()), (RIGHT, script(CHECK))])])\n"
    )
    try:
        done = subprocess.run(
            ["taskset", "-c", str(core), sys.executable, "-c", source],
            capture_output=True,
            text=True,
            cwd=Path(__file__).parents[2],
            timeout=300,
        )
    finally:
        for one in busy:
            one.kill()
            one.wait()
    assert done.stdout.strip() == "[(True, None), (True, None)]", done.stderr


def test_a_test_with_a_limit_of_its_own_has_it_for_each_call() -> None:
    code = "import time\ndef solve(n):\n    end = time.process_time() + n\n    while time.process_time() < end:\n        pass\n    return n\n"
    tests = tuple(CallTest((0.7,), 0.7) for _ in range(4))
    with Sandbox(workers=1, timeout=1.0) as pool:
        own, executors, slow = pool.run(
            [
                (code, Problem("p", "t", tests, "solve", time_limit=1.0)),
                (code, Problem("p", "t", tests, "solve")),
                (code, Problem("p", "t", (CallTest((0,), 0), CallTest((50,), 50), *tests), "solve", time_limit=1.0)),
            ]
        )
    assert own.passed
    assert (executors.passed, executors.detail) == (False, "Timeout")
    assert (slow.passed, slow.detail, slow.tests_passed, slow.fault) == (False, "Timeout", 1, None)
    assert slow.seconds < 20


JOBS = [(HONEST, calls()), (HONEST, script(CHECK)), ("print(int(input()) + 1)", program(("3\n", "4")))]


def test_a_full_disk_is_the_machines_fault(strongest: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(tempfile, "TemporaryFile", full)
    with pytest.raises(SandboxError, match="No space left on device"):
        strongest.run(JOBS[2:])
    monkeypatch.undo()
    assert strongest.run(JOBS[2:])[0].passed


@pytest.mark.parametrize("left", [0, 1, 2, 3, 4, 5, 6, 8])
@pytest.mark.parametrize("job", JOBS, ids=["calls", "script", "program"])
def test_used_up_descriptors_are_the_machines_fault_and_break_nothing(left: int, job: tuple[str, Problem]) -> None:
    with Sandbox(workers=1, timeout=2.0) as pool:
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        highest = max(int(one.name) for one in Path("/proc/self/fd").iterdir())
        held = [os.open(os.devnull, os.O_RDONLY) for _ in range(highest)]
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(held) + 1 + left, hard))
        try:
            for _ in range(3):  # a worker that is broken then starts again, or cannot
                try:
                    assert pool.run([job])[0].passed
                except SandboxError as error:
                    assert "programs cannot be run here" in str(error) or "does not start" in str(error)  # noqa: PT017
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
            for one in held:
                os.close(one)
        assert pool.run([job])[0].passed


FORGED = """
import os, struct
def make(n):
    {body}
def solve(n):
    body = make({size})
    data = struct.pack(">I", len(body)) + body
    for fd in range(3, 64):
        try:
            if os.fstat(fd).st_mode & 0o170000 != 0o140000:
                continue
            view = memoryview(data)
            while view:
                view = view[os.write(fd, view):]
        except OSError:
            continue
    import time
    time.sleep(60)
"""


BODIES = {
    "colliding-keys": (
        "return ('{\"value\":{\"root\":[0],\"nodes\":[[\"d\",' + ','.join('%d,0' % (i * (2**61 - 1)) for i in range(1, n)) + ']]}}').encode()",
        60_000,
    ),
    "many-objects": (
        "return ('{\"value\":{\"root\":null,\"nodes\":[' + ','.join(['{}'] * n) + ']}}').encode()",
        11_000_000,
    ),
    "lists-that-share": (
        'return (\'{"value":{"root":[0],"nodes":[\' + \',\'.join(\'["l",[%d],[%d]]\' % (i, i) for i in range(1, n))'
        " + ',[\"l\",1]]}}').encode()",
        60,
    ),
    "great-fraction": (
        "import random\n    a, b = (hex(random.getrandbits(4 * n)) for _ in range(2))\n"
        '    return (\'{"value":{"root":[0],"nodes":[["F",[1],[2]],["i","%s"],["i","%s"]]}}\' % (a, b)).encode()',
        1_000_000,
    ),
}


@pytest.mark.parametrize(("body", "size"), BODIES.values(), ids=BODIES.keys())
@pytest.mark.parametrize(
    "problem",
    [calls(), replace(calls(), tests=(CallTest((3,), [[1]]),), comparison=Comparison.SET), script(CHECK)],
    ids=["calls", "set", "script"],
)
def test_a_result_that_costs_its_reader_costs_the_caller_nothing(
    strongest: Sandbox, problem: Problem, body: str, size: int
) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF)
    start = time.monotonic()
    [one] = strongest.run([(FORGED.format(body=body, size=size), problem)])
    after = resource.getrusage(resource.RUSAGE_SELF)
    assert not one.passed
    assert time.monotonic() - start < 25
    assert after.ru_utime - before.ru_utime < 1.0
    assert after.ru_maxrss - before.ru_maxrss < 100 << 10


@pytest.mark.parametrize(
    "reply",
    [
        '{"over":5}',
        '{"over":"x","fault":"no such fault"}',
        '{"over":[],"fault":{}}',
        '{"over":"Timeout","fault":"timeout"}',
        '{"error":["x"],"missing":["y"]}',
        "5",
    ],
)
def test_no_reply_fails_the_caller_or_says_why_the_run_is_over(strongest: Sandbox, reply: str) -> None:
    forger = FORGED.format(body=f"return {reply!r}.encode()", size=0).replace("time.sleep(60)", "os._exit(0)")
    one, other = strongest.run([(forger, calls()), (HONEST, calls())])
    assert (one.passed, other.passed) == (False, True)
    assert one.fault in (None, Fault.UNREADABLE_RESULT)
    assert "Timeout" not in one.detail


def test_whether_the_caller_has_loaded_numpy_decides_nothing() -> None:
    pytest.importorskip("numpy")  # loads it
    code = "import numpy as np\ndef solve(n):\n    return np.zeros((n, 2))\n"
    with Sandbox(workers=1, packages=["numpy"]) as pool:
        [one] = pool.run([(code, replace(calls(), tests=(CallTest((2,), [[0, 0], [0, 0]]),)))])
    assert one.passed, one.detail


def test_a_script_is_no_wrong_program_where_the_tests_break() -> None:
    with Sandbox(workers=1) as pool:
        [one] = pool.run([(HONEST, Problem("p", "t", (ScriptTest("import ctypes\nctypes.string_at(0)"),), "solve"))])
    assert (one.passed, one.fault) == (False, Fault.TEST_ERROR)


def test_an_exit_code_is_not_hidden_by_an_empty_error() -> None:
    code = """
import json, os, struct
print(4, flush=True)
data = json.dumps({"error": "", "missing": ""}).encode()
for fd in range(3, 64):
    try:
        if os.fstat(fd).st_mode & 0o170000 == 0o140000:
            os.write(fd, struct.pack(">I", len(data)) + data)
    except OSError:
        pass
os._exit(3)
"""
    with Sandbox(workers=1) as pool:
        [one] = pool.run([(code, Problem("p", "t", (StdioTest("", "4"),)))])
    assert not one.passed


SLOW_TESTS = """
import time
def check(candidate):
    assert candidate(3) == 4
    time.sleep({seconds})  # as of tests that compute on a busy machine
    assert candidate(10) == 11
"""


@pytest.mark.parametrize(("seconds", "fault"), [(3, None), (60, Fault.TIMEOUT)])
def test_time_that_the_tests_take_is_not_the_programs(seconds: int, fault: Fault | None) -> None:
    with Sandbox(workers=1, timeout=0.5) as pool:  # 2 s of wall time; alone, 10
        one, other = pool.run([(HONEST, script(SLOW_TESTS.format(seconds=seconds))), (HONEST, script(CHECK))])
    assert (one.passed, one.fault, other.passed) == (fault is None, fault, True)
