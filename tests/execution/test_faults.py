"""What is not the program's fault gives no verdict on it, and what costs the grader does not cost the caller."""

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
from codescaler_plugin.execution import sandbox as module
from codescaler_plugin.execution.sandbox import Sandbox, usable_cores
from codescaler_plugin.records import CallTest, Comparison, Fault, Problem, ScriptTest, StdioTest
from tests.execution.test_sandbox import CHECK, HONEST, calls, program, script


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
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
    sandbox: Sandbox, code: str, problem: Problem, detail: str, fault: Fault | None
) -> None:
    [one] = sandbox.run([(code, problem)])
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
        "from tests.execution.test_faults import RIGHT\nfrom tests.execution.test_sandbox import calls, script, CHECK\n"
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


def test_a_full_disk_is_the_machines_fault(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(tempfile, "TemporaryFile", full)
    with pytest.raises(SandboxError, match="No space left on device"):
        sandbox.run(JOBS[2:])
    monkeypatch.undo()
    assert sandbox.run(JOBS[2:])[0].passed


@pytest.mark.parametrize("left", [0, 1, 2, 3, 4, 5, 6, 8])
@pytest.mark.parametrize("job", JOBS, ids=["calls", "script", "program"])
def test_used_up_descriptors_are_the_machines_fault_and_break_nothing(left: int, job: tuple[str, Problem]) -> None:
    with Sandbox(workers=1, timeout=2.0) as pool:
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        highest = max(int(one.name) for one in Path("/proc/self/fd").iterdir())
        held = [os.open(os.devnull, os.O_RDONLY) for _ in range(highest)]
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(held) + 1 + left, hard))
        try:
            assert pool.run([job])[0].passed
        except SandboxError as error:
            assert "programs cannot be run here" in str(error) or "does not start" in str(error)  # noqa: PT017
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
            for one in held:
                os.close(one)
        assert pool.run([job])[0].passed


def test_a_closed_sandbox_says_so() -> None:
    pool = Sandbox(workers=1)
    pool.close()
    with pytest.raises(SandboxError, match="closed"):
        pool.run(JOBS)


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
    sandbox: Sandbox, problem: Problem, body: str, size: int
) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF)
    start = time.monotonic()
    [one] = sandbox.run([(FORGED.format(body=body, size=size), problem)])
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
def test_no_reply_fails_the_caller_or_says_why_the_run_is_over(sandbox: Sandbox, reply: str) -> None:
    forger = FORGED.format(body=f"return {reply!r}.encode()", size=0).replace("time.sleep(60)", "os._exit(0)")
    one, other = sandbox.run([(forger, calls()), (HONEST, calls())])
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


INHERITED = """
import signal, sys
{setting}
from codescaler_plugin.execution.sandbox import Sandbox
from codescaler_plugin.records import Problem, StdioTest
program = '''
import os, signal
child = os.fork()
if not child:
    signal.pause()
os.kill(child, signal.SIGTERM)
print(os.waitpid(child, 0)[1])
try:
    signal.raise_signal(signal.SIGINT)
except KeyboardInterrupt:
    print("interrupted")
'''
with Sandbox(workers=1, timeout=1.0) as pool:
    [one] = pool.run([(program, Problem("p", "t", (StdioTest("", "15\\ninterrupted"),)))])
sys.exit(not one.passed)
"""


@pytest.mark.parametrize(
    "setting",
    [
        "signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())",
        "for one in (signal.SIGINT, signal.SIGTERM): signal.signal(one, signal.SIG_IGN)",
    ],
    ids=["blocked", "ignored"],
)
def test_signals_that_the_caller_holds_back_reach_programs(setting: str) -> None:
    done = subprocess.run([sys.executable, "-c", INHERITED.format(setting=setting)], timeout=60)
    assert done.returncode == 0


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
