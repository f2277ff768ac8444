"""A warm process that forks one confined child per run of a program, and kills what is left of it.

It talks with the worker over descriptor 0, one request at a time: `start` (with the child's descriptors) and `stop`.
It is told neither code nor tests. Those go to the children directly, so no child inherits those of another.
"""

import contextlib
import gc
import json
import os
import random
import resource
import shutil
import signal
import socket
import sys
import time
from collections.abc import Sequence
from typing import Any

from codescaler_plugin.grading import candidate, script_tests, serialization
from codescaler_plugin.isolation import limits, processes
from codescaler_plugin.isolation.confinement import PACKAGES, confine

# What programs import most: loaded once. A user without rights may also be unable to read the library's folder.
_WARM = (
    "array bisect calendar cmath collections copy dataclasses datetime decimal enum fractions functools heapq "
    "io itertools json math numbers operator queue random re statistics string struct textwrap threading time typing "
    "unicodedata encodings.idna encodings.latin_1 encodings.ascii contextlib abc types warnings atexit traceback"
)
_AS_ALONE = ("program", "in_process")  # they find what a program finds that a shell has started


def main() -> None:
    """Load what programs use, say which protections hold, and serve.

    The interpreter's first argument holds the settings as JSON: `isolation`; `paths` that are visible; `packages` to
    load, which are `packages_at` these paths, and the folders to `import_from`; the folder of the standard `library`;
    a folder `tmp` for those of programs, outside bubblewrap; the path of the `script` that a program becomes; the
    `uid` of programs; how many `processes` their user may have; `file_bytes` that each may write to one file.

    Returns only in a child, where the interpreter is to run its script.
    """
    settings = json.loads(sys.argv[1])
    reset_signals()
    processes.hide_memory()
    processes.forbid_gains()
    control = socket.socket(fileno=os.dup(0))
    silence(0, 1, 2)
    if settings["tmp"]:
        _offer_packages(settings)
    sys.path.extend(settings["import_from"])
    for module in [*_WARM.split(), *settings["packages"]]:
        __import__(module)
    script_tests.rehearse()
    candidate.prepare()
    server = ForkServer(settings, private=[control])
    ours, theirs = socket.socketpair()
    with ours:  # the start of a program tells the protections that hold here
        answer = server.start({"role": "candidate", "cpu": 10.0, "memory_mb": 1024, "seed": 0}, [theirs.detach()])
        server.stop(0.0)
    serialization.send(control, answer or {})
    is_program = False
    try:
        is_program = _serve(server, control)
    finally:
        if not is_program:
            server.stop(0)
            if settings["tmp"]:
                shutil.rmtree(settings["tmp"], ignore_errors=True)
            os._exit(0)


def reset_signals() -> None:
    """Undo what the caller blocks or ignores (nohup, a shell's `&`): programs would inherit it."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, signal.valid_signals())
    for number in signal.valid_signals() - {signal.SIGPIPE, signal.SIGXFSZ}:  # Python itself ignores these
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)


def silence(*streams: int) -> None:
    """Connect standard streams to nothing."""
    null = os.open(os.devnull, os.O_RDWR)
    for stream in streams:
        os.dup2(null, stream)


def _offer_packages(settings: dict[str, Any]) -> None:
    """Where the folders of packages cannot be covered, make a folder of links to those that may be imported."""
    if os.geteuid() == 0:
        os.chmod(settings["tmp"], 0o711)  # programs have folders in it that they reach by their whole paths
    folder = os.path.join(settings["tmp"], PACKAGES)
    os.mkdir(folder, 0o755)
    for path in settings["packages_at"]:
        os.symlink(path, os.path.join(folder, os.path.basename(path)))
    settings["import_from"] = [folder]


def _serve(server: "ForkServer", control: socket.socket) -> bool:
    """Answer requests until the other side goes; True in a child that is to run the interpreter's script."""
    while True:
        data, descriptors, _, _ = socket.recv_fds(control, 1 << 16, 4)
        if not data:
            return False
        request = json.loads(data)
        if request["do"] == "start":
            answer = server.start(request, descriptors)
            if answer is None:
                return True
        else:
            codes, cpu = server.stop(request["grace"], is_last=request["is_last"])
            answer = {"codes": codes, "cpu": cpu}
        serialization.send(control, answer)


class ForkServer:
    """Forks and ends the processes of one program at a time, and the process that holds the tests of its problem.

    The `settings` are those of `main` but for packages and folders to import from. Without a `script`, a program does
    not become the interpreter's, but is run by `exec`. No child keeps the `private` sockets and files.
    """

    def __init__(self, settings: dict[str, Any], private: Sequence[Any]) -> None:
        self.settings = settings
        self.has_namespaces = settings["isolation"] == "bubblewrap"
        self.children: list[tuple[int, int]] = []  # each with the first process of its namespace, 0 if it has none
        self.here = os.pidfd_open(os.getpid()) if self.has_namespaces else -1
        self.private = private
        self.grader = 0  # the process that holds the tests of a problem; there is none
        self.folders: list[str] = []
        if not self.has_namespaces:
            processes.adopt_orphans()
        gc.collect()
        gc.freeze()

    def start(self, request: dict[str, Any], descriptors: list[int]) -> dict[str, Any] | None:
        """Fork a child, and wait until it is confined.

        A request holds a `role` (`candidate`, `program`, `in_process`, `grader`), `cpu` seconds, `memory_mb`, `seed`.
        The descriptors, which are closed here, are the child's channel, and a program's standard input and output.

        The answer says the protections that are `given`, see `confinement.confine`; or an `error` of this machine,
        for no code has run. It is None in a child that is to run the interpreter's script.
        """
        is_grader = request["role"] == "grader"
        if is_grader:
            self._end_grader()
        reader, writer = os.pipe()
        try:
            child, first = self._fork(request["role"])
        except OSError as error:
            for descriptor in [*descriptors, reader, writer]:
                os.close(descriptor)
            return {"error": str(error)}
        if child == 0:
            code: int | None = 1
            try:
                os.close(reader)
                code = self._child(request, descriptors, writer)
            finally:
                if code is not None:
                    os._exit(code)
            return None
        if is_grader:
            self.grader = child
        else:
            self.children.append((child, first))
        for descriptor in [*descriptors, writer]:
            os.close(descriptor)
        with open(reader, "rb") as ready:
            text = ready.read()
        answer: dict[str, Any] = json.loads(text) if text else {"error": "a process ended before it ran anything"}
        return answer

    def stop(self, grace: float, *, is_last: bool = True) -> tuple[list[int | None], list[float]]:
        """Kill the children with all that they have started; the first has `grace` seconds to end by itself.

        If this `is_last`, the grader ends too; otherwise it waits for the next program of its problem.

        The children's exit codes are negative for a signal, None if one was still running. Of the CPU seconds that
        each has used, those of the first count all processes that had no other parent left.
        """
        deadline = time.monotonic() + grace
        if is_last:
            self._end_grader()
        before = _cpu_of(resource.getrusage(resource.RUSAGE_CHILDREN))
        ended: list[bool] = []
        codes: list[int | None] = []
        cpu: list[float] = []
        for child, first in self.children:  # all are killed before one is waited for: a namespace takes its time to go
            while not (status := os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT)):
                if time.monotonic() >= deadline:
                    break
                time.sleep(0.0005)
            if first:
                os.kill(first, signal.SIGKILL)  # and with it all that is in the namespace
            else:
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.killpg(child, signal.SIGKILL)
                os.kill(child, signal.SIGKILL)  # it may not have made its group yet
            ended.append(status is not None)
            deadline = 0.0
        for (child, first), has_ended in zip(self.children, ended, strict=True):
            _, code, usage = os.wait4(child, 0)
            if first:
                os.waitpid(first, 0)
            codes.append(os.waitstatus_to_exitcode(code) if has_ended else None)
            cpu.append(_cpu_of(usage))
        if not self.has_namespaces:
            self._clear()
        self.children.clear()
        if cpu:
            cpu[0] += max(0.0, _cpu_of(resource.getrusage(resource.RUSAGE_CHILDREN)) - before - sum(cpu))
        return codes, cpu

    def _fork(self, role: str) -> tuple[int, int]:
        """A child in a process namespace of its own, and the first process there if that is another one."""
        if not self.has_namespaces:
            self.folders.append(os.path.join(self.settings["tmp"], os.urandom(16).hex()))  # nobody can be there before
            return os.fork(), 0
        processes.call("unshare", processes.CLONE_NEWPID)
        first, child = 0, -1
        try:
            first = processes.start_idle_process() if role in _AS_ALONE else 0
            child = os.fork()
        finally:
            if child:
                processes.call("setns", self.here, processes.CLONE_NEWPID)
            if child < 0 and first:
                os.kill(first, signal.SIGKILL)
                os.waitpid(first, 0)
        return child, first

    def _child(self, request: dict[str, Any], descriptors: list[int], ready: int) -> int | None:
        """Do what a role has to do, and return the exit code; None if it is to run the interpreter's script."""
        for end in self.private:
            end.close()
        if self.here >= 0:
            os.close(self.here)
        os.dup2(1, 2)  # a service's worker has kept its own
        role = request["role"]
        if role == "program":
            for stream in (1, 0):
                os.fchmod(descriptors[1 + stream], 0o666)  # another user opens it again, as /dev/stdin
                os.dup2(descriptors[1 + stream], stream)
                os.close(descriptors.pop())
        channel = socket.socket(fileno=descriptors[0])
        if role == "in_process":  # not by all: what it imports would double the cost of each fork
            from codescaler_plugin.grading import in_process
        try:
            folder = "" if self.has_namespaces else self.folders[-1]
            given = confine(self.settings, request, folder, has_proc=role in _AS_ALONE, keeps_stdin=role == "program")
        except Exception as error:
            os.write(ready, json.dumps({"error": repr(error)}).encode())
            return 0
        os.write(ready, json.dumps({"given": given}).encode())
        os.close(ready)
        if role != "grader":  # it forks for each program
            processes.register_fork_hooks(and_run=role in _AS_ALONE)
        random.seed(request["seed"])
        file_bytes = self.settings["file_bytes"]
        if role != "program":  # it has its script to write before
            limits.limit_files(file_bytes)
        try:
            if role == "program" and self.settings["script"]:
                return None if candidate.become_program(channel, self.settings["script"], file_bytes) else 0
            if role == "program":
                limits.limit_files(file_bytes)
                job = serialization.receive(channel)
                return candidate.run_program(job, lambda error: serialization.send(channel, error))
            if role == "grader":
                script_tests.serve(channel)
            elif role == "in_process":
                serialization.send(channel, in_process.judged(serialization.receive(channel)))
            else:
                candidate.serve_calls(channel)
        except (EOFError, ConnectionError):  # the other side has heard enough
            pass
        return 0

    def _end_grader(self) -> None:
        if self.grader:
            os.kill(self.grader, signal.SIGKILL)
            os.waitpid(self.grader, 0)
            self.grader = 0

    def _clear(self) -> None:
        """Remove what programs have left: processes outside their group, their folders, and shared memory."""
        processes.kill_orphans()
        for folder in self.folders:
            _remove(folder)
        self.folders.clear()
        users = (self.settings["uid"], self.settings["uid"] + 1)
        for entry in os.scandir("/dev/shm") if os.geteuid() == 0 and os.path.isdir("/dev/shm") else ():
            if entry.stat(follow_symlinks=False).st_uid in users:
                if entry.is_dir(follow_symlinks=False):
                    _remove(entry.path)
                else:
                    os.unlink(entry.path)


def _remove(folder: str) -> None:
    for parent, names, _ in os.walk(folder):
        for name in names:
            path = os.path.join(parent, name)
            if not os.path.islink(path):
                with contextlib.suppress(OSError):
                    os.chmod(path, 0o700)  # one without rights could be neither read nor removed
    shutil.rmtree(folder, ignore_errors=True)


def _cpu_of(usage: resource.struct_rusage) -> float:
    return usage.ru_utime + usage.ru_stime
