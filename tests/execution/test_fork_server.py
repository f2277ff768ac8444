"""What a program leaves behind, does to its neighbours, or sends instead of a result."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from codescaler_plugin import Verdict
from codescaler_plugin.execution.sandbox import Sandbox
from codescaler_plugin.records import Problem, StdioTest
from tests.execution.programs import (
    CHECK,
    HONEST,
    HOSTILE,
    PASSED,
    calls,
    offspring,
    result,
    running,
    script,
    wait_until,
)
from tests.processes import sandbox_or_skip


@pytest.fixture(scope="module", params=["bubblewrap", "landlock", "limits"])
def sandbox(request: pytest.FixtureRequest) -> Iterator[Sandbox]:
    with sandbox_or_skip(request.param, timeout=2.0, memory_mb=512) as pool:
        yield pool


def returned(sandbox: Sandbox, code: str, wanted: object = "") -> Verdict:
    return sandbox.run([(code, calls((3, wanted)))])[0]


BREED = """
import ctypes, os, time
ctypes.CDLL(None).prctl(15, b"{marker}")
for _ in range(3):
    if os.fork() == 0:
        {child}
        time.sleep(20)
        os._exit(0)
def solve(n):
    {answer}
"""


@pytest.mark.parametrize("child", ["pass", "os.setsid()"], ids=["in-the-group", "daemon"])
@pytest.mark.parametrize("answer", ["return 4", "time.sleep(60)", "os._exit(1)"], ids=["passes", "times-out", "exits"])
def test_what_a_candidate_has_started_dies_with_it(sandbox: Sandbox, answer: str, child: str) -> None:
    marker = f"cs-brood-{os.getpid() % 10_000}"
    before = offspring()
    sandbox.run([(BREED.format(marker=marker, child=child, answer=answer), calls())])
    assert wait_until(lambda: not running(marker))
    assert wait_until(lambda: offspring() <= before)


def test_fork_bomb_fails_and_leaves_nothing_behind(sandbox: Sandbox) -> None:
    marker = f"cs-bomb-{os.getpid() % 10_000}"
    # Bounded by depth, so that a sandbox that does not hold it cannot take the machine down.
    code = f"""
import ctypes, os
ctypes.CDLL(None).prctl(15, b"{marker}")
made = 0
for _ in range(7):
    try:
        os.fork()
    except OSError:
        pass
while True:
    pass
"""
    seen: list[int] = []
    one, other = sandbox.run(
        [(code, calls()), (HONEST, calls())], progress=lambda _: seen.append(len(running(marker)))
    )
    assert result(one) == (False, "Timeout")
    assert result(other) == PASSED
    assert wait_until(lambda: not running(marker))


def test_number_of_processes_is_bounded(sandbox: Sandbox) -> None:
    if sandbox.isolation != "bubblewrap" and os.geteuid() != 0:
        pytest.skip("the kernel counts all processes of a user together")
    code = """
import os, time
def solve(n):
    made = 0
    for _ in range(n):
        try:
            if os.fork() == 0:
                time.sleep(10)
                os._exit(0)
        except OSError:
            return made < 64
        made += 1
    return False
"""
    (one,) = sandbox.run([(code, calls((100, True)))])
    assert result(one) == PASSED


@pytest.mark.parametrize("problem", [calls((3, 4), (10, 11)), script(CHECK)], ids=["calls", "script"])
@pytest.mark.parametrize("code", HOSTILE.values(), ids=HOSTILE.keys())
def test_hostile_candidate_fails_alone(sandbox: Sandbox, code: str, problem: Problem) -> None:
    before = offspring()
    start = time.perf_counter()
    hostile, other = sandbox.run([(code, problem), (HONEST, problem)])
    assert not hostile.passed
    assert hostile.detail
    assert result(other) == PASSED
    assert time.perf_counter() - start < 20
    assert wait_until(lambda: offspring() <= before or len(offspring()) <= len(before))


def test_candidate_cannot_change_the_next_one(sandbox: Sandbox) -> None:
    spoiler = "import builtins, json\nbuiltins.len = lambda _: 4\njson.dumps = lambda *a, **k: '{}'\nsolve = len\n"
    honest = "def solve(a):\n    return len(a)\n"
    _, second = sandbox.run([(spoiler, calls(([], 0))), (honest, calls(([1, 2], 2)))])
    assert result(second) == PASSED


FORGED = {
    "a-passing-looking-line": '{"results": [4]}\n',
    "a-report": '\x00\x00\x00\x26{"passed": 1, "total": 1, "detail": ""}',
    "a-value": '\x00\x00\x00\x1b{"value":{"root":null,"nodes":[]}}',
    "a-length-without-end": "\xff\xff\xff\xff",
    "deep-nesting": "[" * 50_000,
}


@pytest.mark.parametrize("problem", [calls((3, 4)), script(CHECK)], ids=["calls", "script"])
@pytest.mark.parametrize("text", FORGED.values(), ids=FORGED.keys())
def test_candidate_that_writes_to_every_descriptor_cannot_fake_a_pass(
    sandbox: Sandbox, text: str, problem: Problem
) -> None:
    """The honest neighbour shows that the sandbox itself survives."""
    forger = f"""
import os
def solve(n):
    for fd in range(1, 32):
        try:
            os.write(fd, {text!r}.encode("latin-1"))
        except OSError:
            pass
    os._exit(0)
"""
    forged, other = sandbox.run([(forger, problem), (HONEST, problem)])
    assert not forged.passed
    assert isinstance(forged.detail, str)
    assert result(other) == PASSED


def test_a_program_cannot_stand_where_the_next_one_will(sandbox: Sandbox) -> None:
    spoiler = """
import os
def solve(n):
    parent, name = os.path.split(os.getcwd())
    for place in [parent, os.getcwd(), "/proc/self/cwd", *FURTHER]:
        for number in range(20):
            try:
                os.makedirs(f"{place}/{number}/x")
                os.chmod(f"{place}/{number}/x", 0)
            except OSError:
                pass
    for place in (parent, os.getcwd()):
        try:
            os.chmod(place, 0)
        except OSError:
            pass
    return 4
"""
    is_kept = any("leftovers" in sentence for sentence in sandbox.missing)
    spoiler += f"FURTHER = {[] if is_kept else ['/tmp']}\n"
    first, *others = sandbox.run([(spoiler, calls())] + [(HONEST, calls())] * 5)
    assert [one.detail for one in (first, *others)] == [""] * 6


def test_a_chain_of_processes_ends_with_its_program(sandbox: Sandbox) -> None:
    chain = """
import os, time
def solve(n):
    for _ in range(3):
        if os.fork() == 0:
            os.setsid()
            end = time.monotonic() + 20
            while time.monotonic() < end:
                try:
                    if os.fork():
                        os._exit(0)
                except OSError:
                    pass
            os._exit(0)
    return 4
"""
    before = {child.pid for child in psutil.Process().children(recursive=True)}
    first, second = sandbox.run([(chain, calls()), (HONEST, calls())])
    assert (first.detail, second.detail) == ("", "")
    time.sleep(0.2)
    assert {child.pid for child in psutil.Process().children(recursive=True)} <= before


def test_nothing_is_left_in_the_folders_of_all() -> None:
    def left() -> set[str]:
        found = {str(path) for path in Path("/tmp").glob("codescaler-sandbox-*")}
        return found | ({str(path) for path in Path("/dev/shm").iterdir()} if Path("/dev/shm").exists() else set())

    before = left()
    code = "import os\nos.umask(0o777)\nfor place in ('leak', '/dev/shm/leak', '/tmp/leak'):\n    try:\n        os.makedirs(place + '/x')\n    except OSError:\n        pass\ndef solve(n):\n    return 4\n"
    with sandbox_or_skip("landlock") as pool:
        assert returned(pool, code, 4).detail == ""
    assert left() <= before
    assert not Path("/tmp/leak").exists()


def test_processor_time_of_a_run_is_told(sandbox: Sandbox) -> None:
    code = "import time\nwhile time.process_time() < 0.5: pass\nprint(4)"
    allowed = sandbox._limits.of(Problem("p", "text", (StdioTest("", "4"),)))
    [run] = sandbox._workers[0].programs({"code": code, "preamble": "", "stdins": [""]}, allowed)
    assert run["output"] == b"4\n"
    assert 0.5 <= run["cpu"] < 2


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
