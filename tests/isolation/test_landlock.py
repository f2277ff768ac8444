"""The isolations from the strongest that works to the weakest, on machines that lack what the stronger ones need."""

import os
import subprocess
import sys

import pytest

from codescaler_plugin import SandboxError
from codescaler_plugin.execution.sandbox import Sandbox
from codescaler_plugin.isolation import landlock
from tests.processes import sandbox_or_skip, untraced

# Refuses Landlock's first call as an older kernel does, to this process and all that it starts.
WITHOUT_LANDLOCK = """
import ctypes, os
from codescaler_plugin.isolation import landlock, processes, seccomp
if not seccomp._FILTERS:
    raise SystemExit("no seccomp")
header, _ = seccomp._filter(
    [(seccomp._LOAD, 0, 0, 0), (seccomp._EQUAL, 0, 1, landlock._CREATE_RULESET), (seccomp._RETURN, 0, 0, 0x00050000 | {errno})]
)
processes.prctl(processes._NO_NEW_PRIVS, 1)
processes.call("prctl", 22, ctypes.c_ulong(2), ctypes.byref(header), 0, 0)
os.environ["PATH"] = "/nowhere"  # of bubblewrap
import logging
logging.basicConfig(format="%(message)s")
from codescaler_plugin.errors import SandboxError
from codescaler_plugin.execution.sandbox import Sandbox
from tests.execution.programs import CHECK, HONEST, calls, program, script
try:
    Sandbox(isolation="landlock", workers=1)
except SandboxError as error:
    print(error)
with Sandbox(workers=1) as pool:
    print(pool.isolation)
    jobs = [(HONEST, calls()), (HONEST, script(CHECK)), ("print(4)", program(("", "4")))]
    print([(verdict.passed, verdict.detail) for verdict in pool.run(jobs)])
"""


@pytest.mark.parametrize(("errno", "words"), [(38, "Function not implemented"), (95, "Operation not supported")])
def test_a_kernel_without_landlock_is_named_and_leaves_limits_with_a_warning(errno: int, words: str) -> None:
    sandbox_or_skip("limits").close()
    source = WITHOUT_LANDLOCK.format(errno=errno)
    done = subprocess.run([sys.executable, "-c", source], capture_output=True, text=True, env=untraced(), timeout=120)
    if "no seccomp" in done.stderr:
        pytest.skip("no seccomp")
    refused, isolation, verdicts = done.stdout.splitlines()
    assert f"landlock: the kernel offers no Landlock here: {words}" in refused
    assert (isolation, verdicts) == ("limits", str([(True, "")] * 3))
    assert done.stderr.count("sandbox: files not protected") == 1


def test_landlock_is_used_where_bubblewrap_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    sandbox_or_skip("landlock").close()
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(SandboxError, match="bubblewrap: bwrap is not installed"):
        Sandbox(isolation="bubblewrap", workers=1)
    with Sandbox(workers=1) as pool:
        assert pool.isolation == "landlock"
        assert not any(words in sentence for sentence in pool.missing for words in ("not protected", "network"))


def test_where_landlock_fails_in_the_process_itself_nothing_is_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """The worker has asked for its version; what a process cannot give up then stops it."""
    reader, writer = os.pipe()
    if os.fork() == 0:
        try:
            monkeypatch.setattr(landlock, "version", lambda: 7)
            monkeypatch.setattr(landlock, "_CREATE_RULESET", -1)
            landlock.restrict_files([], [], [])
            os.write(writer, b"restricted")
        except OSError as error:
            os.write(writer, str(error).encode())
        finally:
            os._exit(0)
    os.wait()
    assert b"the kernel offers no Landlock here" in os.read(reader, 1000)
