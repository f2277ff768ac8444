"""What a program reaches beyond itself: packages, memory that outlives it, services, files and other programs."""

import os
import site
import socket
import subprocess
import sys
import sysconfig
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from codescaler_plugin.execution.sandbox import Sandbox
from codescaler_plugin.records import CallTest, Problem, StdioTest, Verdict
from tests.processes import sandbox_or_skip

HONEST = "def solve(n):\n    return n + 1\n"


@pytest.fixture(scope="module", params=["bubblewrap", "namespaces", "limits"])
def isolation(request: pytest.FixtureRequest) -> str:
    sandbox_or_skip(request.param).close()
    return str(request.param)


@pytest.fixture(scope="module")
def sandbox(isolation: str) -> Iterator[Sandbox]:
    with Sandbox(isolation=isolation, workers=1, timeout=3.0, memory_mb=512) as pool:
        yield pool


def calls(wanted: object) -> Problem:
    return Problem("p", "text", (CallTest((3,), wanted),), "solve")


def returned(sandbox: Sandbox, code: str, wanted: object = "") -> Verdict:
    return sandbox.run([(code, calls(wanted))])[0]


def printed(sandbox: Sandbox, code: str, wanted: str) -> Verdict:
    return sandbox.run([(code, Problem("p", "text", (StdioTest("", wanted),)))])[0]


def skip_without(sandbox: Sandbox, *words: str) -> None:
    if said := [sentence for sentence in sandbox.missing if any(word in sentence for word in words)]:
        pytest.skip("; ".join(said))


# Packages


def folders_of_packages() -> set[str]:
    named = {sysconfig.get_paths()["purelib"], sysconfig.get_paths()["platlib"], *site.getsitepackages()}
    return named | {"/usr/lib/python3/dist-packages", sysconfig.get_path("stdlib") + "/site-packages"}


def test_installed_packages_are_not_there(sandbox: Sandbox) -> None:
    skip_without(sandbox, "files not hidden")
    code = f"""
import os, sys
def solve(n):
    found = []
    for folder in {sorted(folders_of_packages())!r} + sys.path:
        if folder.endswith("-packages"):
            for parent, _, names in os.walk(folder):
                found += [os.path.join(parent, name) for name in names]
    for parent in ("/lib", "/usr", "/opt", {sysconfig.get_config_var("LIBDIR")!r}):
        for folder, names, files in os.walk(parent):
            if folder.endswith(("site-packages", "dist-packages")):
                found += [os.path.join(folder, name) for name in names + files]
    return found[:5]
"""
    assert returned(sandbox, code, []).detail == ""


def test_no_package_can_be_imported_that_is_not_named(sandbox: Sandbox) -> None:
    one = printed(sandbox, "try:\n    import numpy\nexcept ImportError as e:\n    print(e.name)", "numpy")
    assert one.detail == ""


def test_a_named_package_brings_what_it_requires_and_what_it_loads_late(isolation: str) -> None:
    pytest.importorskip("pandas")
    with Sandbox(isolation=isolation, workers=1, timeout=10.0, memory_mb=1024, packages=("pandas",)) as pool:
        skip_without(pool, "standard library hidden")
        code = """
import os
import dateutil.relativedelta, numpy as np, numpy.random, pandas as pd, pandas.tseries.holiday
from importlib import metadata
print(pd.DataFrame({'a': [1, 2]}).a.sum(), np.random.default_rng(0).integers(1), metadata.version('pandas') == pd.__version__)
print(int((np.ones((200, 200)) @ np.ones((200, 200))).sum()))
try:
    import torch
except ImportError:
    print('no torch')
"""
        assert printed(pool, code, "3 0 True\n8000000\nno torch").detail == ""


def test_a_package_below_tmp_loads_its_modules_late(
    isolation: str, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = Path("/tmp") / f"codescaler-test-{os.getpid()}" / "site-packages"
    (folder / "lazypackage").mkdir(parents=True)
    (folder / "lazypackage" / "__init__.py").write_text("x = 1\n")
    (folder / "lazypackage" / "late.py").write_text("x = 4\n")
    monkeypatch.syspath_prepend(str(folder))
    try:
        with Sandbox(isolation=isolation, workers=1, packages=("lazypackage",)) as pool:
            code = "def solve(n):\n    from lazypackage import late\n    return late.x\n"
            assert returned(pool, code, 4).detail == ""
            assert printed(pool, "import lazypackage.late\nprint(lazypackage.late.x)", "4").detail == ""
            writes = f"def solve(n):\n    try:\n        open({str(folder / 'lazypackage' / 'late.py')!r}, 'a').close()\n    except OSError:\n        return 4\n"
            skip_without(pool, "files not protected")
            assert returned(pool, writes, 4).detail == ""
    finally:
        subprocess.run(["rm", "-r", str(folder.parent)], check=True)


# What outlives a program


@pytest.mark.skipif(sys.platform != "linux", reason="Linux's system calls")
@pytest.mark.parametrize(
    "call", ["shmget(0, 4096, 0o1600)", "semget(0, 1, 0o1600)", "msgget(0, 0o1600)", "memfd_create(b'a', 0)"]
)
def test_memory_that_no_limit_counts_is_refused(sandbox: Sandbox, call: str) -> None:
    code = f"import ctypes\nlibc = ctypes.CDLL(None, use_errno=True)\ndef solve(n):\n    return [libc.{call}, ctypes.get_errno()]\n"
    assert returned(sandbox, code, [-1, 1]).detail == ""


def test_a_program_cannot_stand_where_the_next_one_will(sandbox: Sandbox) -> None:
    spoiler = """
import os
def solve(n):
    parent, name = os.path.split(os.getcwd())
    for place in [parent, os.getcwd(), "/tmp", "/proc/self/cwd"]:
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
    first, *others = sandbox.run([(spoiler, calls(4))] + [(HONEST, calls(4))] * 5)
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
    first, second = sandbox.run([(chain, calls(4)), (HONEST, calls(4))])
    assert (first.detail, second.detail) == ("", "")
    time.sleep(0.2)
    assert {child.pid for child in psutil.Process().children(recursive=True)} <= before


def test_nothing_is_left_in_the_folders_of_all() -> None:
    def left() -> set[str]:
        found = {str(path) for path in Path("/tmp").glob("codescaler-sandbox-*")}
        return found | ({str(path) for path in Path("/dev/shm").iterdir()} if Path("/dev/shm").exists() else set())

    before = left()
    code = "import os\nos.umask(0o777)\nfor place in ('leak', '/dev/shm/leak', '/tmp/leak'):\n    try:\n        os.makedirs(place + '/x')\n    except OSError:\n        pass\ndef solve(n):\n    return 4\n"
    with Sandbox(isolation="limits", workers=1) as pool:
        assert returned(pool, code, 4).detail == ""
    assert left() <= before
    assert not Path("/tmp/leak").exists()


# The user's files and services


OVERWRITE = """
import mmap, os
def solve(n):
    done = []
    path = {path!r}
    for name, act in (
        ("read", lambda: open(path).read()),
        ("mmap", lambda: mmap.mmap(os.open(path, os.O_RDWR), 0).write(b"X")),
        ("truncate", lambda: os.truncate(path, 0)),
        ("rename", lambda: os.rename(path, path + "2")),
        ("unlink", lambda: os.unlink(path)),
        ("chmod", lambda: os.chmod(path, 0o777)),
        ("create", lambda: open(path + "3", "w")),
    ):
        try:
            act()
            done.append(name)
        except OSError:
            pass
    return done
"""


def test_files_of_the_user_can_be_neither_read_nor_changed(sandbox: Sandbox, tmp_path: Path) -> None:
    skip_without(sandbox, "files not protected", "standard library hidden")
    tmp_path.chmod(0o777)
    precious = tmp_path / "precious"
    precious.write_text("precious")
    precious.chmod(0o666)
    assert returned(sandbox, OVERWRITE.format(path=str(precious)), []).detail == ""
    assert precious.read_text() == "precious"
    assert precious.stat().st_mode & 0o777 == 0o666
    assert [path.name for path in tmp_path.iterdir()] == ["precious"]


@pytest.mark.parametrize("kind", ["socket.socket(socket.AF_UNIX, k)", "socket.socketpair(socket.AF_UNIX, k)[0]"])
@pytest.mark.parametrize("place", ["file", "abstract"])
def test_services_that_take_datagrams_cannot_be_reached(
    sandbox: Sandbox, tmp_path: Path, kind: str, place: str
) -> None:
    address = str(tmp_path / "service") if place == "file" else f"\0codescaler-datagrams-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as server:
        server.bind(address)
        if place == "file":
            tmp_path.chmod(0o777)
            Path(address).chmod(0o777)
        code = f"import socket\ndef solve(n):\n    for k in (socket.SOCK_DGRAM, socket.SOCK_RAW):\n        try:\n            {kind}.sendto(b'x', {address!r})\n        except OSError:\n            pass\n    return 4\n"
        assert returned(sandbox, code, 4).detail == ""
        server.settimeout(0.1)
        with pytest.raises(TimeoutError):
            server.recv(1)


def test_processor_time_of_a_run_is_told(sandbox: Sandbox) -> None:
    slot = sandbox._slots[0]
    told: list[float] = []
    stop = slot._stop

    def noted(grace: float) -> tuple[list[int | None], list[float]]:
        answer = stop(grace)
        told.extend(answer[1])
        return answer

    slot._stop = noted  # type: ignore[method-assign]
    code = "import time\nwhile time.process_time() < 0.5: pass\nprint(4)"
    assert printed(sandbox, code, "4").detail == ""
    slot._stop = stop  # type: ignore[method-assign]
    assert 0.5 <= told[0] < 2
