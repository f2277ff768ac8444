"""What a program reaches beyond itself: files, the network, other processes, and memory that no limit counts."""

import os
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from codescaler_plugin import Verdict
from codescaler_plugin.execution.sandbox import Sandbox
from tests.execution.programs import PASSED, calls, result
from tests.processes import sandbox_or_skip


@pytest.fixture(scope="module", params=["bubblewrap", "landlock", "limits"])
def sandbox(request: pytest.FixtureRequest) -> Iterator[Sandbox]:
    with sandbox_or_skip(request.param, timeout=3.0, memory_mb=512) as pool:
        yield pool


def skip_without(sandbox: Sandbox, *words: str) -> None:
    if said := [sentence for sentence in sandbox.missing if any(word in sentence for word in words)]:
        pytest.skip("; ".join(said))


def returned(sandbox: Sandbox, code: str, wanted: object = "") -> Verdict:
    return sandbox.run([(code, calls((3, wanted)))])[0]


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
    is_kept = any("leftovers" in sentence for sentence in sandbox.missing)
    places = ("note",) if is_kept else ("note", "/tmp/note", "/dev/shm/note")
    writer = f"def solve(n):\n    for place in {places}:\n        try:\n            open(place, 'w').close()\n        except OSError:\n            pass\n    return 4\n"
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


@pytest.fixture(scope="module")
def strongest() -> Iterator[Sandbox]:
    with Sandbox(workers=1, timeout=2.0, memory_mb=512) as pool:
        yield pool


def test_candidate_is_nobody(strongest: Sandbox) -> None:
    if strongest.isolation != "bubblewrap" and os.geteuid() != 0:
        pytest.skip("; ".join(strongest.missing))
    code = "import os\ndef solve(n):\n    try:\n        os.setuid(0)\n    except OSError:\n        pass\n    return [os.getuid() == 0, bool(os.getgroups())]\n"
    if os.geteuid() == 0:
        (one,) = strongest.run([(code, calls((0, [False, False])))])
        assert result(one) == PASSED


@pytest.mark.skipif(sys.platform != "linux", reason="Linux's system calls")
@pytest.mark.parametrize(
    "call", ["shmget(0, 4096, 0o1600)", "semget(0, 1, 0o1600)", "msgget(0, 0o1600)", "memfd_create(b'a', 0)"]
)
def test_memory_that_no_limit_counts_is_refused(sandbox: Sandbox, call: str) -> None:
    code = f"import ctypes\nlibc = ctypes.CDLL(None, use_errno=True)\ndef solve(n):\n    return [libc.{call}, ctypes.get_errno()]\n"
    assert returned(sandbox, code, [-1, 1]).detail == ""


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
