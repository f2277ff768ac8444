import contextlib
import gzip
import json
import logging
import os
import random
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest

from codescaler_plugin import SandboxError, Verdict
from codescaler_plugin.data.problems import read_problems
from codescaler_plugin.errors import ConfigError
from codescaler_plugin.execution.sandbox import Sandbox, run_tests
from codescaler_plugin.grading import serialization
from codescaler_plugin.records import CallTest, Problem, ScriptTest, StdioTest
from tests.processes import sandbox_or_skip

DATA = Path(__file__).parents[3] / "shared" / "data"


def calls(*tests: tuple[Any, Any], entry_point: str = "solve", preamble: str = "") -> Problem:
    """A problem of one-argument calls; without tests, solve(3) must be 4."""
    pairs = tests or ((3, 4),)
    return Problem("p", "text", tuple(CallTest((given,), wanted) for given, wanted in pairs), entry_point, preamble)


def script(*sources: str, entry_point: str = "solve", preamble: str = "") -> Problem:
    return Problem("p", "text", tuple(ScriptTest(source) for source in sources), entry_point, preamble)


def program(*tests: tuple[str, str]) -> Problem:
    return Problem("p", "text", tuple(StdioTest(stdin, stdout) for stdin, stdout in tests))


CHECK = "def check(candidate):\n    assert candidate(3) == 4\n    assert candidate(10) == 11\ncheck(candidate)\n"
HONEST = "def solve(n):\n    return n + 1\n"


@pytest.fixture(scope="module", params=["bubblewrap", "namespaces", "limits"])
def sandbox(request: pytest.FixtureRequest) -> Iterator[Sandbox]:
    with sandbox_or_skip(request.param, timeout=2.0, memory_mb=512) as pool:
        yield pool


@pytest.fixture(scope="module")
def strongest() -> Iterator[Sandbox]:
    with Sandbox(workers=1, timeout=2.0, memory_mb=512) as pool:
        yield pool


def result(verdict: Verdict) -> tuple[bool, str]:
    """What a verdict says, without counts and seconds; the detail without the values."""
    return verdict.passed, verdict.detail.partition(":")[0]


def verdict(code: str, *tests: tuple[Any, Any], **settings: Any) -> tuple[bool, str]:
    (one,) = run_tests([(code, calls(*tests))], workers=1, **settings)
    return result(one)


PASSED = (True, "")


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


def offspring() -> set[int]:
    """All processes below this one."""
    return {child.pid for child in psutil.Process().children(recursive=True)}


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
    if sandbox.isolation == "limits" and os.geteuid() != 0:
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


HOSTILE = {
    "deep-result": "def solve(n):\n    a = []\n    for _ in range(50_000):\n        a = [a]\n    return a\n",
    "kills-its-parent": "import os\ndef solve(n):\n    os.kill(os.getppid(), 9)\n",
    "kills-everyone": "import os\ndef solve(n):\n    os.kill(-1, 9)\n    return 5\n",
    "ignores-signals": (
        "import signal\nfor number in range(1, 32):\n    try:\n        signal.signal(number, signal.SIG_IGN)\n"
        "    except (OSError, ValueError):\n        pass\ndef solve(n):\n    while True:\n        pass\n"
    ),
    "ten-gigabytes": "def solve(n):\n    return len(bytearray(10 << 30))\n",
    "endless-print": "def solve(n):\n    while True:\n        print('x' * 65536)\n",
    "endless-answer": """
import os
def solve(n):
    while True:
        for fd in range(3, 64):
            try:
                os.write(fd, b"x" * 65536)
            except OSError:
                pass
""",
    "equals-everything": "class Yes:\n    def __eq__(self, other): return True\n    def __bool__(self): return True\n"
    "def solve(n):\n    return Yes()\n",
    "int-that-equals-everything": (
        "class Yes(int):\n    def __eq__(self, other): return True\n    def __hash__(self): return 0\n"
        "    def __ne__(self, other): return False\ndef solve(n):\n    return Yes(7)\n"
    ),
    "list-that-equals-everything": (
        "class Yes(list):\n    def __eq__(self, other): return True\ndef solve(n):\n    return Yes([7])\n"
    ),
    "patches-builtins": (
        "import builtins, json, operator\nbuiltins.bool = lambda *_: True\nbuiltins.all = lambda *_: True\n"
        "builtins.AssertionError = type('X', (BaseException,), {})\njson.dumps = lambda *a, **k: '{}'\n"
        "def solve(n):\n    return 7\n"
    ),
    "patches-the-service": """
import sys
for name, module in list(sys.modules.items()):
    if name.startswith("codescaler_plugin"):
        for key, value in list(vars(module).items()):
            if callable(value) and not isinstance(value, type):
                try:
                    setattr(module, key, lambda *a, **k: ({"root": 4, "nodes": []}, []))
                except Exception:
                    pass
def solve(n):
    return 7
""",
    "exits-before-the-tests": "import sys\nsys.exit(0)\n",
    "exits-in-a-call": "import os\ndef solve(n):\n    os._exit(0)\n",
    "prints-a-verdict": 'def solve(n):\n    print(\'{"passed": 2, "total": 2, "detail": ""}\')\n    return 7\n',
    "looks-into-frames": """
import gc, sys
def solve(n):
    frame = sys._getframe()
    while frame:
        for value in list(frame.f_locals.values()) + list(frame.f_globals.values()):
            if isinstance(value, dict) and "tests" in value:
                return 4 if n == 3 else 11
        frame = frame.f_back
    for thing in gc.get_objects():
        if isinstance(thing, dict) and ("tests" in thing or "expected" in thing):
            return 4 if n == 3 else 11
    return 7
""",
    "reads-the-tests-from-files": """
import os
def solve(n):
    def listed(folder):
        try:
            return [os.path.join(folder, name) for name in os.listdir(folder)]
        except OSError:
            return []
    places = listed(".") + listed("/dev/shm") + listed("/proc/self/fd") + listed("/dev/fd") + ["/dev/stdin"]
    for folder in listed("/tmp"):
        places += listed(folder) if "codescaler" in folder else []
    for folder in listed("/proc"):
        if folder[6:].isdigit():
            places += [os.path.join(folder, name) for name in ("cmdline", "environ", "mem", "fd/0", "fd/3", "fd/4")]
    for place in places:
        try:
            with open(os.open(place, os.O_RDONLY | os.O_NONBLOCK), "rb") as file:
                text = file.read(1 << 20) or b""
        except (OSError, ValueError):
            continue
        if b"candidate(10) == 11" in text or b'"tests"' in text or b'"expected"' in text:
            return 4 if n == 3 else 11
    return 7
""",
    "sends-an-exception-that-is-none": """
class KeyboardInterrupt(BaseException): ...
def solve(n):
    raise KeyboardInterrupt
""",
}


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


def open_files(code: str) -> str:
    return f"import os\ndef solve(n):\n    try:\n{code}\n    except OSError as error:\n        return type(error).__name__\n"


def test_files_of_the_user_are_not_there(tmp_path: Path, sandbox: Sandbox) -> None:
    if any("files" in sentence for sentence in sandbox.missing):
        pytest.skip("; ".join(sandbox.missing))
    secret = tmp_path / "tests.json"
    secret.write_text("4")
    body = f"        return open({str(secret)!r}).read()"
    (one,) = sandbox.run([(open_files(body), calls((3, "FileNotFoundError")))])
    assert result(one) == PASSED
    listing = "import os\ndef solve(n):\n    return [os.path.exists(p) for p in ('/proc/meminfo', '/home', '/root/.ssh', '/etc/passwd')]\n"
    (one,) = sandbox.run([(listing, calls((3, [False] * 4)))])
    assert result(one) == PASSED


@pytest.mark.parametrize("mode", ["a", "w", "r+"])
def test_nothing_is_written_outside(tmp_path: Path, sandbox: Sandbox, mode: str) -> None:
    if any("files" in sentence for sentence in sandbox.missing):
        pytest.skip("; ".join(sandbox.missing))
    target = tmp_path / "precious"
    target.write_text("before")
    tmp_path.chmod(0o777)
    target.chmod(0o666)
    code = f"def solve(n):\n    with open({str(target)!r}, {mode!r}) as file:\n        file.write('after')\n    return 4\n"
    (one,) = sandbox.run([(code, calls())])
    assert not one.passed
    assert target.read_text() == "before"


@pytest.mark.parametrize("place", ["/", "/usr/lib", "/dev", "/nowhere"])
def test_only_tmp_can_be_written_to(sandbox: Sandbox, place: str) -> None:
    if sandbox.isolation == "limits":
        pytest.skip("; ".join(sandbox.missing))
    body = f"        open({place + '/note'!r}, 'w').write('x')\n        return 'written'"
    (one,) = sandbox.run([(open_files(body), calls((3, "written")))])
    assert result(one) == (False, "WrongAnswer in test 0")
    inside = "def solve(n):\n    open('note', 'w').write('x')\n    return open('note').read()\n"
    (one,) = sandbox.run([(inside, calls((3, "x")))])
    assert result(one) == PASSED


def test_disk_cannot_be_filled(sandbox: Sandbox) -> None:
    code = """
import os
def solve(n):
    written = 0
    for number in range(1000):
        try:
            with open(f"fill{number}", "wb") as file:
                for _ in range(64):
                    written += file.write(b"x" * (1 << 20))
                    file.flush()
        except OSError:
            if number > 100:
                break
    return written < 128 << 20
"""
    (one,) = sandbox.run([(code, calls((3, True)))])
    assert result(one) == PASSED


def test_one_candidate_leaves_no_file_for_the_next(sandbox: Sandbox) -> None:
    writer = "def solve(n):\n    for place in ('note', '/tmp/note', '/dev/shm/note'):\n        try:\n            open(place, 'w').close()\n        except OSError:\n            pass\n    return 4\n"
    reader = "import os\ndef solve(n):\n    return os.listdir()\n"
    _, second = sandbox.run([(writer, calls()), (reader, calls((0, [])))])
    assert result(second) == PASSED


@pytest.mark.parametrize("family", ["AF_INET", "AF_INET6", "AF_VSOCK", "AF_NETLINK", "AF_PACKET"])
def test_no_network(sandbox: Sandbox, family: str) -> None:
    code = f"""
import socket
def solve(n):
    try:
        socket.socket(socket.{family}, socket.SOCK_STREAM if n else socket.SOCK_RAW)
    except OSError as error:
        return error.errno in (1, 97, 93, 94)
    return "a socket"
"""
    (one,) = sandbox.run([(code, calls((1, True)))])
    assert result(one) == PASSED


def test_listening_neighbour_cannot_be_reached(sandbox: Sandbox) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        code = f"import socket\ndef solve(n):\n    socket.create_connection(('127.0.0.1', {port}), 1)\n    return 4\n"
        (one,) = sandbox.run([(code, calls())])
        assert not one.passed
        server.settimeout(0.1)
        with pytest.raises(TimeoutError):
            server.accept()


@pytest.mark.skipif(sys.platform != "linux", reason="abstract addresses are Linux's")
def test_local_services_cannot_be_reached(sandbox: Sandbox) -> None:
    address = f"\0codescaler-{os.getpid()}"
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(address)
        server.listen()
        code = f"import socket\ndef solve(n):\n    socket.socket(socket.AF_UNIX).connect({address!r})\n    return 4\n"
        (one,) = sandbox.run([(code, calls())])
        assert result(one) in [(False, f"{name} in test 0") for name in ("PermissionError", "ConnectionRefusedError")]
        server.settimeout(0.1)
        with pytest.raises(TimeoutError):
            server.accept()


@pytest.mark.skipif(sys.platform != "linux", reason="Linux's system calls")
@pytest.mark.parametrize(
    "call", ["unshare(0x10000000)", "ptrace(16, 1, 0, 0)", "setns(0, 0)", "mount(b'a', b'/tmp', b'tmpfs', 0, 0)"]
)
def test_kernel_refuses_calls_that_lead_out(sandbox: Sandbox, call: str) -> None:
    code = f"import ctypes\nlibc = ctypes.CDLL(None, use_errno=True)\ndef solve(n):\n    return [libc.{call}, ctypes.get_errno()]\n"
    (one,) = sandbox.run([(code, calls((0, [-1, 1])))])
    assert result(one) == PASSED


def test_candidate_is_nobody(strongest: Sandbox) -> None:
    if strongest.isolation == "limits" and os.geteuid() != 0:
        pytest.skip("; ".join(strongest.missing))
    code = "import os\ndef solve(n):\n    try:\n        os.setuid(0)\n    except OSError:\n        pass\n    return [os.getuid() == 0, bool(os.getgroups())]\n"
    if os.geteuid() == 0:
        (one,) = strongest.run([(code, calls((0, [False, False])))])
        assert result(one) == PASSED


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


def test_candidate_cannot_change_the_next_one(sandbox: Sandbox) -> None:
    spoiler = "import builtins, json\nbuiltins.len = lambda _: 4\njson.dumps = lambda *a, **k: '{}'\nsolve = len\n"
    honest = "def solve(a):\n    return len(a)\n"
    _, second = sandbox.run([(spoiler, calls(([], 0))), (honest, calls(([1, 2], 2)))])
    assert result(second) == PASSED


def test_no_candidates_give_no_verdicts() -> None:
    assert run_tests([]) == []


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


# Tests that are Python source


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


# Programs


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


# The pool


def test_missing_isolation_is_said_and_can_be_refused(caplog: pytest.LogCaptureFixture) -> None:
    import codescaler_plugin.execution.sandbox as module

    module._say.cache_clear()
    with caplog.at_level(logging.WARNING), Sandbox(isolation="limits", workers=1) as pool:
        assert any("files not hidden" in sentence for sentence in pool.missing)
        assert "files not hidden" in caplog.text
    with pytest.raises(SandboxError, match="isolation is required"):
        Sandbox(isolation="limits", workers=1, require_isolation=True)


@pytest.mark.parametrize("setting", [{"timeout": 0}, {"memory_mb": 1}, {"isolation": "paper"}])
def test_setting_that_makes_no_sense_is_a_config_error(setting: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        Sandbox(**setting)


def test_pool_survives_the_death_of_its_processes() -> None:
    with Sandbox(workers=1) as pool:
        process = psutil.Process(pool._slots[0]._process.pid)
        for one in [*process.children(recursive=True), process]:
            with contextlib.suppress(psutil.NoSuchProcess):  # one went with the other
                one.kill()
        pool._slots[0]._process.wait()
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
