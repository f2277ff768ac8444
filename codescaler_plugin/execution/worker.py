"""One fork server and the conversation with it: where the programs of one worker of the sandbox run."""

import itertools
import json
import os
import shutil
import socket
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Iterator
from typing import Any

import psutil

from codescaler_plugin.errors import SandboxError
from codescaler_plugin.execution import runs
from codescaler_plugin.execution.jobs import Allowed, Limits
from codescaler_plugin.execution.runs import Outcome
from codescaler_plugin.execution.verdicts import grade, nothing, verdict_of
from codescaler_plugin.execution.visible_files import PACKAGE, covered, visible
from codescaler_plugin.grading import serialization
from codescaler_plugin.isolation import bubblewrap, landlock, limits
from codescaler_plugin.isolation.confinement import MISSING
from codescaler_plugin.records import Fault, Problem, Verdict

_START_SECONDS = 30.0  # for the fork server to answer
_FILE_BYTES = {  # that a program may write to one file
    "bubblewrap": 16 << 20,
    "landlock": 1 << 20,  # on a disk that others write to
    "limits": 0,
}
_ENVIRONMENT = {
    "PYTHONDONTWRITEBYTECODE": "1",
    "PYTHONPATH": str(PACKAGE / "execution" / "start"),
    "LC_CTYPE": "C.UTF-8",
    "MALLOC_ARENA_MAX": "2",  # each takes address space of which a thread needs little
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
}
# A thread's stack is as large as the limit of the stack at the start: none would fit into the memory's limit.
_WITH_STACK = ["/bin/sh", "-c", 'ulimit -S -s 8192; exec "$0" "$@"']
_numbers = itertools.count()


class Worker:
    """A `runs.Spawner` and a `verdicts.Runner` for one thread at a time; `packages` have their paths by their names.

    A SandboxError says why the fork server does not start in this isolation.
    """

    def __init__(self, isolation: str, seed: int, packages: dict[str, list[str]]) -> None:
        self._isolation = isolation
        self._script = f"{bubblewrap.WORK}/main.py" if isolation == "bubblewrap" else "/proc/self/cwd/main.py"
        self._seed = seed
        self._packages = packages
        self._number = next(_numbers)
        self._is_broken = False
        self._grader: socket.socket | None = None  # to a process that holds the tests of a problem
        self._problem: Problem | None = None
        self._start()

    def _start(self) -> None:
        command = self._command()
        self._tmp = "" if self._isolation == "bubblewrap" else tempfile.mkdtemp(prefix="codescaler-sandbox-")
        self._control, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                [*command, json.dumps(self._settings()), str(PACKAGE.parent)],
                stdin=theirs.fileno(),
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                env={**_ENVIRONMENT, "PYTHONHASHSEED": str(self._seed)},
                cwd="/",
                start_new_session=True,
            )
        try:
            answer = serialization.receive(self._control, time.monotonic() + _START_SECONDS)
        except (EOFError, TimeoutError, serialization.SerializationError) as error:
            self.close()
            raise SandboxError(f"its process does not start: {self._last_words or repr(error)}") from error
        if "error" in answer:
            self.close()
            raise SandboxError(str(answer["error"]))
        self.missing = [sentence for name, sentence in MISSING.items() if name not in answer["given"]]

    def _command(self) -> list[str]:
        """The interpreter's command line but for its arguments; it runs the script only in the end, see `start`."""
        if sys.platform != "linux":
            raise SandboxError("the sandbox needs Linux")
        python = [os.path.realpath(sys.executable), "-X", "frozen_modules=off", self._script]
        try:
            if self._isolation == "landlock":
                landlock.version()
            if self._isolation != "bubblewrap":
                return [*_WITH_STACK, *python]
            paths, links = visible()
            packages = itertools.chain.from_iterable(self._packages.values())
            return [*_WITH_STACK, *bubblewrap.command({*paths, *packages}, covered(), links), *python]
        except OSError as error:
            raise SandboxError(error.strerror or str(error)) from error

    def _settings(self) -> dict[str, Any]:
        """What the fork server is told, see `fork_server.main`."""
        packages = sorted({*itertools.chain.from_iterable(self._packages.values())})
        is_counted_alone = self._isolation == "bubblewrap" or os.geteuid() == 0
        return {
            "isolation": self._isolation,
            "paths": sorted({*visible()[0], *packages}),
            "packages": list(self._packages),
            "packages_at": packages,
            "import_from": sorted({os.path.dirname(path) for path in packages}),
            "library": sysconfig.get_path("stdlib"),
            "tmp": self._tmp,
            "script": self._script,
            "uid": 1_000_000_000 + os.getpid() * 256 + self._number % 128 * 2,
            "processes": limits.PROCESSES + (0 if is_counted_alone else _threads_of_user()),
            "file_bytes": _FILE_BYTES[self._isolation],
        }

    def close(self) -> None:
        """End the fork server with all that it has started."""
        self._forget_grader()
        self._control.close()
        try:
            self._process.wait(2)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        assert self._process.stderr is not None
        if not self._process.stderr.closed:  # else another process could not be started since
            self._last_words = self._process.stderr.read().decode("utf-8", "replace").strip()[-500:]
            self._process.stderr.close()
        shutil.rmtree(self._tmp, ignore_errors=True)

    def grade(self, code: str, problem: Problem, limits: Limits) -> Verdict:
        """The verdict; a fault of this machine raises a SandboxError and leaves this fit for the next program."""
        for _ in range(2):
            try:
                if self._is_broken:
                    self.close()
                    self._start()
                self._is_broken = True
                verdict = grade(self, code, problem, limits)
            except (EOFError, ConnectionError, TimeoutError, serialization.SerializationError):
                continue  # the fork server has gone: only a new one can tell whether it was us
            except OSError as error:
                raise SandboxError(f"programs cannot be run here: {error}. What has been graded stands") from error
            self._is_broken = False
            return verdict
        return verdict_of(nothing(problem, "Killed", Fault.KILLED), problem, 0.0)

    def rest(self) -> None:
        """End the process that holds tests."""
        if self._grader is not None and not self._is_broken:
            try:
                self.stop(0.0)
            except (OSError, EOFError, serialization.SerializationError):
                self._is_broken = True  # the next program finds it so, and starts another

    def calls(self, job: dict[str, Any], allowed: Allowed) -> Outcome:
        """See `runs.calls`."""
        return runs.calls(self, allowed.request(), lambda: job)

    def scripts(self, job: dict[str, Any], problem: Problem, allowed: Allowed) -> Outcome:
        """See `runs.scripts`; programs of one problem that follow each other have one grader."""
        if self._grader is None or self._problem is not problem:
            self._forget_grader()
            self._grader, unfit = runs.open_grader(self, allowed.of_grader().request(), job)
            if unfit:
                self._forget_grader()
                return unfit
            self._problem = problem
        with runs.start(self, "candidate", allowed.request()) as candidate:
            return runs.scripts(self, self._grader, candidate, job)

    def in_process(self, job: dict[str, Any], allowed: Allowed) -> Outcome:
        """See `runs.in_process`."""
        return runs.in_process(self, allowed.request(), lambda: job)

    def programs(self, job: dict[str, Any], allowed: Allowed) -> Iterator[Outcome]:
        """See `runs.programs`."""
        return runs.programs(self, allowed.request(), allowed.wall, job)

    def start(self, role: str, bounds: dict[str, Any], *ends: Any) -> None:
        """See `runs.Spawner`."""
        request = json.dumps({"do": "start", "role": role, **bounds}).encode()
        socket.send_fds(self._control, [request], [end.fileno() for end in ends])
        answer = serialization.receive(self._control, time.monotonic() + _START_SECONDS)
        if "error" in answer:
            raise SandboxError(f"programs cannot be run here: {answer['error']}. What has been graded stands")

    def stop(self, grace: float, *, is_last: bool = True) -> tuple[list[int | None], list[float]]:
        """See `runs.Spawner`; outside bubblewrap the grader cannot be told from what a program has started."""
        if is_last := is_last or self._isolation != "bubblewrap":
            self._forget_grader()
        self._control.settimeout(_START_SECONDS)
        self._control.sendall(json.dumps({"do": "stop", "grace": grace, "is_last": is_last}).encode())
        answer = serialization.receive(self._control, time.monotonic() + grace + _START_SECONDS)
        return answer["codes"], answer["cpu"]

    def _forget_grader(self) -> None:
        if self._grader is not None:
            self._grader.close()
        self._grader, self._problem = None, None


def _threads_of_user() -> int:
    """Where the kernel counts all processes of a user together, a program's are those beyond."""
    own = os.getuid()
    processes = [process.info for process in psutil.process_iter(["uids", "num_threads"])]
    return sum(info["num_threads"] or 0 for info in processes if info["uids"] and info["uids"].real == own)
