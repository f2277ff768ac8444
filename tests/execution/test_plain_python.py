"""Programs do in the sandbox what they do as `python3 file.py`: the same output, the same exit code."""

import os
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from codescaler_plugin.execution.sandbox import Sandbox
from codescaler_plugin.records import Problem, StdioTest
from tests.processes import sandbox_or_skip

# name: (program, standard input)
PROGRAMS: dict[str, tuple[str, str]] = {
    # How it starts
    "argv": ("import os, sys\nprint(len(sys.argv), os.path.basename(sys.argv[0]))", ""),
    "argv-of-a-file": ("import sys\nif len(sys.argv) > 1:\n    sys.stdin = open(sys.argv[1])\nprint(input())", "3\n"),
    "orig-argv": ("import sys\nprint(len(sys.orig_argv), sys.orig_argv[1] == sys.argv[0])", ""),
    "file": ("import os\nprint(os.path.basename(__file__), os.path.exists(__file__))", ""),
    "own-source": ("print(open(__file__).read())", ""),
    "path": ("import os, sys\nprint(os.path.realpath(sys.path[0]) == os.path.realpath(os.getcwd()))", ""),
    "module": ("print(__name__, __doc__, __package__, __spec__, type(__loader__).__name__)", ""),
    "docstring": ("'''Doc.'''\nprint(__doc__)", ""),
    "names": ("print(sorted(globals()))", ""),
    "builtins": ("print(type(__builtins__), __builtins__.len([1]))", ""),
    "main-is-this": ("import __main__\nx = 4\nprint(__main__.x, __main__.__dict__ is globals())", ""),
    "frame": ("import sys\nprint(sys._getframe().f_back, sys._getframe().f_code.co_name)", ""),
    "stack": ("import inspect\nprint(len(inspect.stack()))", ""),
    "site-builtins": ("print(*(type(x).__name__ for x in (exit, quit, copyright, license, credits, help)))", ""),
    "site": ("import site\nprint(callable(site.main), 'site' in __import__('sys').modules)", ""),
    "flags": (
        "import sys\nf = sys.flags\n"
        "print(f.debug, f.inspect, f.interactive, f.optimize, f.no_site, f.no_user_site, f.isolated, f.utf8_mode)",
        "",
    ),
    "x-options": ("import sys\nprint(sys._xoptions, sys.dont_write_bytecode)", ""),
    "recursion-limit": ("import sys\nprint(sys.getrecursionlimit())", ""),
    "recursion-error": (
        "def f(n):\n    try:\n        return f(n + 1)\n    except RecursionError:\n        return n\nprint(f(0))",
        "",
    ),
    "threads-at-start": ("import threading\nprint(threading.enumerate() == [threading.main_thread()])", ""),
    "signals": (
        "import signal\nprint([str(signal.getsignal(n)).split(' at ')[0] for n in (2, 13, 15, 17)])",
        "",
    ),
    "home": ("import os, pathlib\nprint(os.path.isdir(os.path.expanduser('~')), pathlib.Path.home().is_dir())", ""),
    "user": ("import getpass\nprint(bool(getpass.getuser()))", ""),
    "path-of-programs": ("import os\nprint(bool(os.environ['PATH']))", ""),
    "writable-folder": ("open('a', 'w').write('4')\nprint(open('a').read())", ""),
    "python": ("import sys\nprint(sys.executable == sys.orig_argv[0] or 4, sys.version_info[:2])", ""),
    "decimal-context": ("import decimal\nprint(decimal.getcontext().prec)", ""),
    "garbage-collector": ("import gc\nprint(gc.isenabled(), gc.get_threshold(), gc.get_freeze_count() >= 0)", ""),
    "warnings": ("import warnings\nwarnings.warn('x')\nprint(4)", ""),
    "future": ("from __future__ import annotations\ndef f(x: Nope): ...\nprint(f.__annotations__)", ""),
    "encoding-cookie": ("# -*- coding: utf-8 -*-\nprint('ü')", ""),
    "tabs-and-crlf": ("if True:\r\n\tprint(4)\r\n", ""),
    "form-feed": ("x = 1\n\x0cprint(x)", ""),
    "no-newline-at-the-end": ("print(4)", ""),
    "empty": ("", ""),
    # Input
    "input": ("print(int(input()) + 1)", "3\n"),
    "input-crlf": ("print(repr(input()), repr(input()))", "a\r\nb\r\n"),
    "lines-crlf": ("import sys\nprint([line for line in sys.stdin])", "a\r\nb\rc\n"),
    "readline-at-the-end": ("import sys\nprint(repr(sys.stdin.readline()), repr(sys.stdin.readline()))", "a"),
    "end-of-file": ("input()\ninput()", "3\n"),
    "buffer": ("import sys\nprint(sys.stdin.buffer.readline())", "3\r\n"),
    "descriptor": ("import os\nprint(os.read(0, 100), os.fstat(0).st_size)", "3\n"),
    "open-0": ("print(open(0).read())", "3\n"),
    "dev-stdin": ("print(open('/dev/stdin').read())", "3\n"),
    "dev-fd": ("print(open('/dev/fd/0').read())", "3\n"),
    "dunder-stdin": ("import sys\nprint(sys.__stdin__ is sys.stdin, sys.__stdin__.readline())", "3\n"),
    "stream-names": (
        "import sys\nfor s in (sys.stdin, sys.stdout):\n    print(s.name, s.mode, s.encoding, s.errors, s.line_buffering, "
        "s.newlines, s.buffer.raw.closefd, s.buffer.raw.name, type(s.buffer).__name__)",
        "",
    ),
    "seek": (
        "import sys\na = sys.stdin.readline()\nsys.stdin.seek(0)\nprint(a == sys.stdin.readline(), sys.stdin.tell())",
        "3\n4\n",
    ),
    "seekable": ("import sys\nprint(sys.stdin.seekable(), sys.stdout.seekable(), sys.stdin.isatty())", ""),
    "mixed-reads": ("import sys\na = input()\nprint(a, sys.stdin.read())", "3\n4\n"),
    "fileinput": ("import fileinput\nprint(sum(int(line) for line in fileinput.input()))", "3\n4\n"),
    "select": ("import select, sys\nprint(len(select.select([sys.stdin], [], [], 1)[0]))", "3\n"),
    "mmap": ("import mmap\nprint(mmap.mmap(0, 0, access=mmap.ACCESS_READ)[:])", "3\n"),
    "utf-8": ("print(input()[::-1])", "aüß→😀\n"),
    "bad-utf-8": ("import sys\nprint(ascii(sys.stdin.buffer.read()))", "\udcff\n"),
    "bom": ("print(ascii(input()))", "\ufeff3\n"),
    "input-prompt": ("print(input('n? '))", "3\n"),
    # Devices, folders, processes' files
    "null": ("open('/dev/null', 'w').write('x')\nprint(repr(open('/dev/null').read()))", ""),
    "urandom": ("import os\nprint(len(open('/dev/urandom', 'rb').read(4)), len(os.urandom(4)))", ""),
    "zero-and-full": (
        "try:\n    f = open('/dev/full', 'w')\n    f.write('x')\n    f.flush()\nexcept OSError as e:\n    print(e.errno, open('/dev/zero', 'rb').read(2))",
        "",
    ),
    "proc": (
        "import os\nprint(open('/proc/self/stat').read().split()[0] == str(os.getpid()), os.listdir('/proc/self/fd')[:2])",
        "",
    ),
    "open-descriptors": ("import os\nprint(sorted(map(int, os.listdir('/dev/fd')))[:3])", ""),
    "own-pid-is-not-the-first": ("import os\nprint(os.getpid() > 1)", ""),
    "tempfile": (
        "import tempfile\nwith tempfile.NamedTemporaryFile('w+') as f:\n    f.write('4')\n    f.seek(0)\n    print(f.read())",
        "",
    ),
    "temporary-folder": (
        "import os, tempfile\nwith tempfile.TemporaryDirectory() as d:\n    open(os.path.join(d, 'a'), 'w').write('4')\n    print(os.listdir(d))",
        "",
    ),
    "sqlite": ("import sqlite3\nprint(sqlite3.connect(':memory:').execute('select 2 + 2').fetchone())", ""),
    "zoneinfo": (
        "from zoneinfo import ZoneInfo\nfrom datetime import datetime\nprint(datetime(2024, 1, 1, tzinfo=ZoneInfo('Europe/Berlin')))",
        "",
    ),
    "platform": ("import platform\nprint(platform.system(), bool(platform.python_version()))", ""),
    "locale": ("import locale\nprint(locale.getpreferredencoding(), locale.setlocale(locale.LC_ALL, 'C'))", ""),
    # Output
    "dev-stdout": ("f = open('/dev/stdout', 'w')\nf.write('4')\nf.close()", ""),
    "buffered-and-raw": (
        "import os, sys\nprint(1)\nsys.stdout.flush()\nos.write(1, b'2\\n')\nsys.stdout.buffer.write(b'3\\n')",
        "",
    ),
    "not-flushed-in-order": ("import os\nprint(1)\nos.write(1, b'2\\n')", ""),
    "print-crlf": ("print('a\\r\\nb', end='\\r\\n')", ""),
    "surrogate": ("print('\\ud800')", ""),
    "dunder-stdout": ("import sys\nsys.__stdout__.write('4')", ""),
    "replaced-stdout": ("import io, sys\nprint(4)\nsys.stdout = io.StringIO()\nprint('junk')", ""),
    "replaced-and-put-back": (
        "import io, sys\nb = sys.stdout = io.StringIO()\nprint(4)\nsys.stdout = sys.__stdout__\nprint(b.getvalue())",
        "",
    ),
    "second-wrapper": ("import io, sys\nsys.stdout = io.TextIOWrapper(sys.stdout.buffer, 'latin-1')\nprint('ü')", ""),
    "wrapper-flushed-at-exit": (
        "import atexit, io, sys\nb = io.BytesIO()\nsys.stdout = io.TextIOWrapper(b)\n"
        "atexit.register(lambda: (sys.stdout.flush(), sys.__stdout__.write(b.getvalue().decode())))\nprint(4)",
        "",
    ),
    "detached": ("import sys\nb = sys.stdout.detach()\nb.write(b'4')", ""),
    "closed-stdout": ("import sys\nprint(4)\nsys.stdout.close()", ""),
    "print-after-close": ("import sys\nprint(4)\nsys.stdout.close()\nprint(5)", ""),
    "closed-descriptor": ("import os\nprint(4)\nos.close(1)", ""),
    "second-object": ("import os\nf = os.fdopen(1, 'w')\nf.write('4')", ""),
    "second-object-and-print": ("import os\nf = os.fdopen(1, 'w')\nf.write('4\\n')\nf.flush()\nprint(5)", ""),
    "second-object-closed": ("import os\nf = os.fdopen(1, 'w')\nprint(5)\nf.write('4')\nf.close()", ""),
    "dup-of-a-file": (
        "import os\nf = os.open('a', os.O_RDWR | os.O_CREAT)\nkept = os.dup(1)\nos.dup2(f, 1)\nprint(4, flush=True)\nos.dup2(kept, 1)\nprint(open('a').read())",
        "",
    ),
    "stdout-is-none": ("import sys\nsys.stdout = None\nprint(4)", ""),
    "stdout-of-a-class": (
        "import sys\nclass W:\n    def __init__(s): s.a = []\n    def write(s, t): sys.__stdout__.write(t.upper())\nsys.stdout = W()\nprint('a')",
        "",
    ),
    "reconfigure": ("import sys\nsys.stdout.reconfigure(encoding='latin-1', line_buffering=True)\nprint('ü')", ""),
    "stderr-is-apart": ("import sys\nprint('x', file=sys.stderr)\nprint(4)", ""),
    "much": ("print('x' * 3_000_000)", ""),
    # How it ends
    "exit-none": ("import sys\nprint(4)\nsys.exit()", ""),
    "exit-3": ("import sys\nprint(4)\nsys.exit(3)", ""),
    "exit-256": ("import sys\nsys.exit(256 + 3)", ""),
    "exit-negative": ("import sys\nsys.exit(-1)", ""),
    "exit-text": ("import sys\nsys.exit('message')", ""),
    "exit-list": ("raise SystemExit([1])", ""),
    "exit-true": ("raise SystemExit(True)", ""),
    "quit": ("print(4)\nquit(2)", ""),
    "exit-closes-stdin": (
        "import sys\nprint(4)\ntry:\n    exit()\nexcept SystemExit:\n    print(sys.stdin.closed)",
        "",
    ),
    "exception": ("print(4)\n1 / 0", ""),
    "own-exception": ("class E(BaseException): ...\nraise E", ""),
    "interrupt": ("print(4)\nraise KeyboardInterrupt", ""),
    "syntax": ("print(", ""),
    "indentation": ("  print(4)", ""),
    "null-byte-in-a-string": ("print('a\\0b')", ""),
    "excepthook": ("import sys\nsys.excepthook = lambda *a: print('hook', a[0].__name__)\n1 / 0", ""),
    "excepthook-of-the-start": ("import sys\nprint(sys.excepthook is sys.__excepthook__)", ""),
    "os-exit": ("import os\nprint(4)\nos._exit(3)", ""),
    "os-exit-flushed": ("import os\nprint(4, flush=True)\nos._exit(0)", ""),
    "term": ("import os, signal\nos.kill(os.getpid(), signal.SIGTERM)", ""),
    "kill": ("import os, signal\nos.kill(os.getpid(), signal.SIGKILL)", ""),
    "abort": ("import os\nos.abort()", ""),
    "segmentation-fault": ("import ctypes\nctypes.string_at(0)", ""),
    "alarm": (
        "import signal\ndef h(*_):\n    print(4)\n    raise SystemExit\nsignal.signal(signal.SIGALRM, h)\nsignal.setitimer(signal.ITIMER_REAL, 0.1)\nwhile True: pass",
        "",
    ),
    "alarm-without-a-handler": ("import signal\nsignal.setitimer(signal.ITIMER_REAL, 0.1)\nwhile True: pass", ""),
    "broken-pipe": ("import os\nr, w = os.pipe()\nos.close(r)\nos.write(w, b'x')", ""),
    "broken-stdout": ("import os, sys\nr, w = os.pipe()\nos.dup2(w, 1)\nos.close(r)\nos.close(w)\nprint(4)", ""),
    "atexit": ("import atexit\natexit.register(print, 1)\natexit.register(print, 2)\nprint(0)", ""),
    "atexit-fails": ("import atexit\natexit.register(lambda: 1 / 0)\nprint(4)", ""),
    "atexit-exits": ("import atexit, sys\natexit.register(sys.exit, 3)\nprint(4)", ""),
    "atexit-after-an-exception": ("import atexit\natexit.register(print, 4)\n1 / 0", ""),
    "finalize": ("import weakref\nclass A: ...\na = A()\nweakref.finalize(a, print, 4)", ""),
    "del-at-the-end": ("class A:\n    def __del__(self): print(4)\na = A()", ""),
    "del-in-a-cycle": ("class A:\n    def __del__(self): print(4)\na = A()\na.a = a", ""),
    "file-not-closed": (
        "import atexit\nf = open('a', 'w')\nf.write('4')\natexit.register(lambda: print(repr(open('a').read())))",
        "",
    ),
    "generator-not-finished": (
        "def g():\n    try:\n        yield\n    finally:\n        print(4)\nx = g()\nnext(x)",
        "",
    ),
    "thread-goes-on": (
        "import sys, threading, time\nthreading.Thread(target=lambda: (time.sleep(0.2), print(input()))).start()\nsys.exit(0)",
        "3\n",
    ),
    "thread-after-an-exception": (
        "import threading, time\nthreading.Thread(target=lambda: (time.sleep(0.2), print(4))).start()\n1 / 0",
        "",
    ),
    "daemon-thread": (
        "import threading, time\nthreading.Thread(target=lambda: (time.sleep(60), print(5)), daemon=True).start()\nprint(4)",
        "",
    ),
    "exception-in-a-thread": (
        "import threading\nt = threading.Thread(target=lambda: 1 / 0)\nt.start()\nt.join()\nprint(4)",
        "",
    ),
    "fork-and-wait": (
        "import os\npid = os.fork()\nif pid == 0:\n    print('child', flush=True)\n    os._exit(5)\nprint(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))",
        "",
    ),
    "fork-draws-other-numbers": (
        "import os, random\nr, w = os.pipe()\nif os.fork() == 0:\n    os.write(w, repr(random.random()).encode())\n    os._exit(0)\nos.wait()\nprint(os.read(r, 99).decode() != repr(random.random()))",
        "",
    ),
    "fork-that-runs-on": ("import os\npid = os.fork()\nif pid:\n    os.waitpid(pid, 0)\nprint(pid > 0)", ""),
    "fork-that-fails": (
        "import os\npid = os.fork()\nif pid == 0:\n    1 / 0\nprint(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))",
        "",
    ),
    "wait-without-children": ("import os\ntry:\n    os.wait()\nexcept ChildProcessError:\n    print(4)", ""),
    # What takes resources
    "deep-recursion": (
        "import sys\nsys.setrecursionlimit(10**6)\ndef f(n): return 0 if n == 0 else 1 + f(n - 1)\nprint(f(100_000))",
        "",
    ),
    "cached-recursion": (
        "import functools, sys\nsys.setrecursionlimit(10**6)\n@functools.lru_cache(None)\ndef f(n): return 0 if n == 0 else 1 + f(n - 1)\nprint(f(5000))",
        "",
    ),
    "recursion-in-a-thread": (
        "import sys, threading\nsys.setrecursionlimit(10**6)\nthreading.stack_size(1 << 28)\ndef f(n): return 0 if n == 0 else 1 + f(n - 1)\nt = threading.Thread(target=lambda: print(f(100_000)))\nt.start()\nt.join()",
        "",
    ),
    "stack-limit": (
        "import resource\nprint(resource.getrlimit(resource.RLIMIT_STACK)[0])\nresource.setrlimit(resource.RLIMIT_STACK, (16 << 20, resource.getrlimit(resource.RLIMIT_STACK)[1]))\nprint(4)",
        "",
    ),
    "thirty-threads": (
        "import threading\nb = threading.Barrier(31)\nfor _ in range(30):\n    threading.Thread(target=b.wait).start()\nb.wait()\nprint(4)",
        "",
    ),
    "thread-pool": (
        "from concurrent.futures import ThreadPoolExecutor as T\nwith T(8) as p: print(sum(p.map(lambda x: x * x, range(10))))",
        "",
    ),
    "asyncio": (
        "import asyncio\nasync def m():\n    await asyncio.sleep(0.01)\n    print(await asyncio.to_thread(lambda: 4))\nasyncio.run(m())",
        "",
    ),
    "pool": (
        "import multiprocessing as m\ndef f(x): return x * x\nif __name__ == '__main__':\n    with m.Pool(2) as p: print(sum(p.map(f, range(10))))",
        "",
    ),
    "pool-by-spawn": (
        "import multiprocessing as m\ndef f(x): return x * x\nif __name__ == '__main__':\n    with m.get_context('spawn').Pool(2) as p: print(sum(p.map(f, range(10))))",
        "",
    ),
    "pool-by-fork-server": (
        "import multiprocessing as m\ndef f(x): return x * x\nif __name__ == '__main__':\n    with m.get_context('forkserver').Pool(2) as p: print(sum(p.map(f, range(10))))",
        "",
    ),
    "process-pool": (
        "from concurrent.futures import ProcessPoolExecutor as T\ndef f(x): return x * x\nif __name__ == '__main__':\n    with T(2) as p: print(sum(p.map(f, range(10))))",
        "",
    ),
    "queue": (
        "import multiprocessing as m\ndef f(q): q.put(4)\nif __name__ == '__main__':\n    q = m.Queue()\n    p = m.Process(target=f, args=(q,))\n    p.start()\n    print(q.get())\n    p.join()\n    print(p.exitcode)",
        "",
    ),
    "semaphore-and-value": (
        "import multiprocessing as m\nv = m.Value('i', 3)\ns = m.Semaphore(1)\nwith s, v.get_lock():\n    v.value += 1\nprint(v.value)",
        "",
    ),
    "manager": (
        "import multiprocessing as m\nif __name__ == '__main__':\n    with m.Manager() as g:\n        d = g.dict()\n        d[1] = 4\n        print(dict(d))",
        "",
    ),
    "shared-memory": (
        "from multiprocessing.shared_memory import SharedMemory as S\ns = S(create=True, size=8)\ns.buf[0] = 4\nprint(S(s.name).buf[0])\ns.close()\ns.unlink()",
        "",
    ),
    "terminate": (
        "import multiprocessing as m, time\nif __name__ == '__main__':\n    p = m.Process(target=time.sleep, args=(60,))\n    p.start()\n    p.terminate()\n    p.join()\n    print(p.exitcode)",
        "",
    ),
    "subprocess-of-python": (
        "import subprocess, sys\nprint(subprocess.run([sys.executable, '-c', 'print(2 + 2)'], capture_output=True, text=True))",
        "",
    ),
    "unix-socket": ("import socket\na, b = socket.socketpair()\na.send(b'4')\nprint(b.recv(1))", ""),
    # The language and its library
    "pickle": (
        "import pickle\nclass A:\n    def __init__(s, v): s.v = v\nprint(pickle.loads(pickle.dumps(A(4))).v)",
        "",
    ),
    "type-hints": (
        "from __future__ import annotations\nfrom dataclasses import dataclass\nimport typing\n@dataclass\nclass A:\n    v: int\nprint(typing.get_type_hints(A), A(4))",
        "",
    ),
    "traceback": (
        "import traceback\ntry:\n    1 / 0\nexcept ZeroDivisionError:\n    print(traceback.format_exc().splitlines()[-2:])",
        "",
    ),
    "source-of-a-function": ("import inspect\ndef f():\n    return 4\nprint(inspect.getsource(f))", ""),
    "logging": ("import logging, sys\nlogging.basicConfig(stream=sys.stdout, level=20)\nlogging.info('4')", ""),
    "doctest": (
        "def f():\n    '''\n    >>> f()\n    4\n    '''\n    return 4\nimport doctest\nprint(doctest.testmod())",
        "",
    ),
    "unittest-main": (
        "import unittest\nclass T(unittest.TestCase):\n    def test(self): self.assertEqual(1, 2)\nunittest.main()",
        "",
    ),
    "help": ("def f():\n    'What it does.'\nhelp(f)", ""),
    "imports-own-file": ("open('other.py', 'w').write('x = 4')\nimport other\nprint(other.x)", ""),
    "libraries": (
        "import argparse, ast, base64, bz2, csv, ctypes, dis, graphlib, html, http.client, lzma, pprint, select, ssl, zipfile, zlib\nprint(4)",
        "",
    ),
}

# What only bubblewrap gives: files of the user's own processes, and local services.
_NEEDS_SEPARATION = {"manager", "pool-by-fork-server", "own-pid-is-not-the-first"}
_SHARES_MEMORY = {"pool", "pool-by-spawn", "process-pool", "queue", "semaphore-and-value", "shared-memory"}
# What limits alone do not give: they let no file (as of a semaphore) be written, and no other process be signalled.
_NEEDS_LANDLOCK = {"writable-folder", "tempfile", "temporary-folder", "dup-of-a-file", "imports-own-file", "terminate"}
_NEEDS_LANDLOCK |= _SHARES_MEMORY - {"shared-memory"}


@pytest.fixture(scope="module", params=["bubblewrap", "landlock", "limits"])
def sandbox(request: pytest.FixtureRequest) -> Iterator[Sandbox]:
    with sandbox_or_skip(request.param, timeout=10.0, memory_mb=1024) as pool:
        yield pool


def as_from_a_shell() -> None:
    """What the runner of these tests may have changed: the stack, and signals that a shell's `&` ignores."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    signal.signal(signal.SIGQUIT, signal.SIG_DFL)
    resource.setrlimit(resource.RLIMIT_STACK, (8 << 20, resource.getrlimit(resource.RLIMIT_STACK)[1]))


def as_plain(code: str, stdin: str, folder: Path) -> tuple[int, str]:
    script = folder / "main.py"
    script.write_bytes(code.encode())
    (folder / "stdin").write_bytes(stdin.encode("utf-8", "surrogateescape"))
    with (folder / "stdin").open("rb") as given:
        done = subprocess.run(
            [os.path.realpath(sys.executable), str(script)],
            stdin=given,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            cwd=folder,
            env={"HOME": str(folder), "PATH": os.defpath, "LANG": "C.UTF-8", "USER": "nobody"},
            preexec_fn=as_from_a_shell,
        )
    return done.returncode, done.stdout.decode("utf-8", "replace")


def in_sandbox(pool: Sandbox, code: str, stdin: str) -> tuple[int | None, str]:
    allowed = pool._limits.of(Problem("p", "text", (StdioTest(stdin, ""),)))
    [run] = pool._workers[0].programs({"code": code, "preamble": "", "stdins": [stdin]}, allowed)
    return run["code"], run["output"].decode("utf-8", "replace")


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_program_does_what_it_does_under_plain_python(name: str, sandbox: Sandbox, tmp_path: Path) -> None:
    if any("library" in sentence for sentence in sandbox.missing):
        pytest.skip("; ".join(sandbox.missing))
    needs = _NEEDS_SEPARATION | (_SHARES_MEMORY if os.geteuid() else set())
    if sandbox.isolation == "limits":
        needs |= _NEEDS_LANDLOCK
    if sandbox.isolation != "bubblewrap" and name in needs:
        pytest.skip("; ".join(sandbox.missing))
    code, stdin = PROGRAMS[name]
    wanted, came = as_plain(code, stdin, tmp_path), in_sandbox(sandbox, code, stdin)
    assert came == wanted
