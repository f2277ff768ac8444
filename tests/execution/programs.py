"""Problems and programs that tests of the sandbox share, and what is left of programs on the machine."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil

from codescaler_plugin import Verdict
from codescaler_plugin.execution.sandbox import run_tests
from codescaler_plugin.records import CallTest, Problem, ScriptTest, StdioTest


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


def result(verdict: Verdict) -> tuple[bool, str]:
    """What a verdict says, without counts and seconds; the detail without the values."""
    return verdict.passed, verdict.detail.partition(":")[0]


def verdict(code: str, *tests: tuple[Any, Any], **settings: Any) -> tuple[bool, str]:
    (one,) = run_tests([(code, calls(*tests))], workers=1, **settings)
    return result(one)


PASSED = (True, "")


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
