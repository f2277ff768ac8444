"""A warm process that forks one child per candidate, each alone in its namespaces, and kills what is left of it.

Talks with the sandbox over descriptor 0, one request at a time: `start` (with the child's descriptors) and `stop`.
It is told neither code nor tests: those go to the children directly, so no child inherits those of another.
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
from typing import Any

from codescaler_plugin.grading import candidate, script_tests, serialization
from codescaler_plugin.isolation import forks, namespaces

# What candidates import most: loaded once. A user without rights may also be unable to read the library's folder.
_WARM = (
    "array bisect calendar cmath collections copy dataclasses datetime decimal enum fractions functools heapq "
    "io itertools json math numbers operator queue random re statistics string struct textwrap threading time typing "
    "unicodedata encodings.idna encodings.latin_1 encodings.ascii contextlib abc types warnings atexit traceback"
)
_AS_ALONE = ("program", "in_process")  # they find what a program finds that a shell has started
_READY = "ready"
_PACKAGES = "packages"


def main() -> None:
    """Set up the isolation, say what it holds, and serve; returns only where the interpreter is to run its script."""
    settings = json.loads(sys.argv[1])
    _reset_signals()
    if settings["isolation"] == "namespaces":
        try:
            namespaces.enter(settings["paths"], settings["covered"], settings["links"])
        except OSError as error:
            serialization.send(socket.socket(fileno=os.dup(0)), {"error": str(error)})
            os._exit(1)
    namespaces.hide_memory()  # not before: a hidden process may not map its user
    namespaces.forbid_gains()
    control = socket.socket(fileno=os.dup(0))
    null = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(null, stream)
    if settings["tmp"]:
        _offer_packages(settings)
    sys.path.extend(settings["import_from"])
    for module in [*_WARM.split(), *settings["packages"]]:
        __import__(module)
    script_tests.rehearse()
    candidate.prepare()
    zygote = _Zygote(control, settings)
    serialization.send(control, {"enforced": zygote.enforced()})
    is_program = False
    try:
        is_program = zygote.serve()
    finally:
        if not is_program:
            zygote.stop(0)
            if settings["tmp"]:
                shutil.rmtree(settings["tmp"], ignore_errors=True)
            os._exit(0)


def _reset_signals() -> None:
    """Undo what the caller blocks or ignores (nohup, a shell's `&`): programs would inherit it."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, signal.valid_signals())
    for number in signal.valid_signals() - {signal.SIGPIPE, signal.SIGXFSZ}:  # Python itself ignores these
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)


def _offer_packages(settings: dict[str, Any]) -> None:
    """Where the folders of packages cannot be covered, a folder of links to those that may be imported."""
    if os.geteuid() == 0:
        os.chmod(settings["tmp"], 0o711)  # candidates have folders in it that they reach by their whole paths
    folder = os.path.join(settings["tmp"], _PACKAGES)
    os.mkdir(folder, 0o755)
    for path in settings["packages_at"]:
        os.symlink(path, os.path.join(folder, os.path.basename(path)))
    settings["import_from"] = [folder]


def _remove(folder: str) -> None:
    for parent, names, _ in os.walk(folder):
        for name in names:
            path = os.path.join(parent, name)
            if not os.path.islink(path):
                with contextlib.suppress(OSError):
                    os.chmod(path, 0o700)  # one without rights could be neither read nor removed
    shutil.rmtree(folder, ignore_errors=True)


class _Zygote:
    def __init__(self, control: socket.socket, settings: dict[str, Any]) -> None:
        self.control = control
        self.settings = settings
        self.has_namespaces = settings["isolation"] != "limits"
        self.children: list[tuple[int, int]] = []  # each with the first process of its namespace, 0 if it has none
        self.here = os.pidfd_open(os.getpid()) if self.has_namespaces else -1
        self.judge = 0  # the process that holds the tests of a problem; there is none
        self.folders: list[str] = []
        if not self.has_namespaces:
            namespaces.adopt_orphans()
        gc.collect()
        gc.freeze()

    def enforced(self) -> list[str]:
        """What a child that has been through the whole set-up finds taken away."""
        reader, writer = os.pipe()
        child, first = self._fork("judge")
        if child == 0:
            try:
                found = self._confine({"cpu": 10.0, "memory_mb": 1024, "role": "judge"})
                os.write(writer, json.dumps(found).encode())
            except BaseException as error:  # the other side waits for an answer, whatever it is
                os.write(writer, json.dumps([f"failed: {error!r}"]).encode())
            finally:
                os._exit(0)
        os.close(writer)
        self.children.append((child, first))
        with open(reader, "rb") as answer:
            text = answer.read()
        self.stop(1.0)
        return [str(name) for name in json.loads(text)]

    def serve(self) -> bool:
        """Answer requests until the other side goes; True in a child that is to run the interpreter's script."""
        while True:
            data, descriptors, _, _ = socket.recv_fds(self.control, 1 << 16, 4)
            if not data:
                return False
            request = json.loads(data)
            if request["do"] == "start":
                answer = self._start(request, descriptors)
                if answer is None:
                    return True
                serialization.send(self.control, answer)
            else:
                serialization.send(self.control, self.stop(request["grace"], is_last=request["is_last"]))

    def _start(self, request: dict[str, Any], descriptors: list[int]) -> dict[str, str] | None:
        """Fork a child, and wait until it is confined; an `error` is a fault of this machine, for no code has run.

        None in a child that is to run the interpreter's script.
        """
        if request["role"] == "judge":
            self._end_judge()
        reader, writer = os.pipe()
        try:
            child, first = self._fork(request["role"])
        except OSError as error:
            for descriptor in [*descriptors, reader, writer]:
                os.close(descriptor)
            return {"error": str(error)}
        if child == 0:
            is_program, code = False, 1
            try:
                os.close(reader)
                is_program, code = self._child(request, descriptors, writer), 0
            finally:
                if not is_program:
                    os._exit(code)
            return None
        if request["role"] == "judge":
            self.judge = child
        else:
            self.children.append((child, first))
        for descriptor in [*descriptors, writer]:
            os.close(descriptor)
        with open(reader, "rb") as ready:
            said = ready.read().decode("utf-8", "replace")
        return {} if said == _READY else {"error": said or "a process ended before it ran anything"}

    def _fork(self, role: str) -> tuple[int, int]:
        """A child in a process namespace of its own, and the first process there if that is another one."""
        if not self.has_namespaces:
            self.folders.append(os.path.join(self.settings["tmp"], os.urandom(16).hex()))  # nobody can be there before
            return os.fork(), 0
        namespaces.unshare(namespaces.CLONE_NEWPID)
        first, child = 0, -1
        try:
            first = namespaces.idle_process() if role in _AS_ALONE else 0
            child = os.fork()
        finally:
            if child:
                namespaces.return_to(self.here, namespaces.CLONE_NEWPID)
            if child < 0 and first:
                os.kill(first, signal.SIGKILL)
                os.waitpid(first, 0)
        return child, first

    def _child(self, request: dict[str, Any], descriptors: list[int], ready: int) -> bool:
        """Do what a role has to do; True if that is to run the interpreter's script."""
        self.control.close()
        if self.here >= 0:
            os.close(self.here)
        role = request["role"]
        if role == "program":
            for stream in (1, 0):
                os.fchmod(descriptors[1 + stream], 0o666)  # another user opens it again, as /dev/stdin
                os.dup2(descriptors[1 + stream], stream)
                os.close(descriptors.pop())
        channels = [socket.socket(fileno=descriptor) for descriptor in descriptors]
        if role == "in_process":
            from codescaler_plugin.grading import (
                in_process,
            )  # not by all: what it imports would double the cost of each fork
        try:
            self._confine(request)
        except Exception as error:  # whatever it is, no code has run: a fault of this machine
            os.write(ready, repr(error).encode())
            return False
        os.write(ready, _READY.encode())
        os.close(ready)
        if role != "judge":  # it forks for each program
            forks.register(and_run=role in _AS_ALONE)
        random.seed(request["seed"])
        try:
            if role == "program":
                return candidate.become_program(channels[0], self.settings["script"], self.file_bytes)
            if role == "judge":
                script_tests.serve(channels[0])
            elif role == "in_process":
                (report,) = channels
                serialization.send(report, in_process.judged(serialization.receive(report)))
            else:
                candidate.serve_calls(*channels)
        except (EOFError, ConnectionError):  # the other side has heard enough
            return False
        return False

    def _confine(self, request: dict[str, Any]) -> list[str]:
        """Take away what can be taken away; the names of what was."""
        done: list[str] = []
        settings = self.settings
        os.setsid()
        is_judge = request["role"] == "judge"  # it holds tests and runs no code of a candidate
        uid = settings["uid"] + is_judge  # so that a program cannot signal it
        if self.has_namespaces:
            namespaces.private_folders(settings["paths"], with_proc=request["role"] in _AS_ALONE)
            done += ["network", "hidden files", "contents of files", "processes of others", "disk", "leftovers"]
        else:
            folder = self.folders[-1]
            os.mkdir(folder, 0o700)
            if os.geteuid() == 0:
                os.chown(folder, uid, uid)
            os.chdir(folder)
        namespaces.limit(request["cpu"], request["memory_mb"], settings["processes"])
        root = os.geteuid() == 0
        namespaces.drop_privileges(uid)
        if self.has_namespaces or (root and os.geteuid() != 0):
            done.append("user")
        own_kills_only = not self.has_namespaces
        self.file_bytes = namespaces.FILE_BYTES
        if not self.has_namespaces:
            writable = [folder, *namespaces.DEVICES, *(["/dev/shm"] if root else [])]
            readable = [*settings["paths"], os.path.join(settings["tmp"], _PACKAGES), "/proc"]
            files, signals = namespaces.restrict_files(readable, writable, [0] if request["role"] == "program" else [])
            done += ["contents of files"] if files else []
            done += ["signals"] if signals else []
            own_kills_only = not signals
            self.file_bytes = namespaces.SHARED_DISK_FILE_BYTES if files else 0
        if namespaces.filter_calls(shared=not self.has_namespaces, own_kills_only=own_kills_only):
            done += [name for name in ("network", "signals") if name not in done]
        if is_judge:
            namespaces.hide_memory()
        else:
            namespaces.show_memory()
        if request["role"] != "program":  # it has its script to write before
            namespaces.limit_files(self.file_bytes)
        if sys.platform == "linux":
            done.append("memory")
        if os.access(settings["library"], os.R_OK | os.X_OK):
            done.append("library")
        return done

    def _empty_shared_memory(self) -> None:
        """Remove what the users of candidates have left there."""
        users = (self.settings["uid"], self.settings["uid"] + 1)
        for entry in os.scandir("/dev/shm") if os.path.isdir("/dev/shm") else ():
            if entry.stat(follow_symlinks=False).st_uid in users:
                if entry.is_dir(follow_symlinks=False):
                    _remove(entry.path)
                else:
                    os.unlink(entry.path)

    def _end_judge(self) -> None:
        if self.judge:
            os.kill(self.judge, signal.SIGKILL)
            os.waitpid(self.judge, 0)
            self.judge = 0

    def stop(self, grace: float, *, is_last: bool = True) -> dict[str, list[Any]]:
        """Kill the children with all that they have started.

        Args:
            grace: seconds for the first child to end by itself.
            is_last: the judge ends too; otherwise it waits for the next program of its problem.

        Returns:
            Per child its exit code (`codes`), negative for a signal, None if it was still running; and the CPU seconds
            (`cpu`) that it has used; with those of the first count all processes that had no other parent left.
        """
        deadline = time.monotonic() + grace
        if is_last:
            self._end_judge()
        before = _cpu_of(resource.getrusage(resource.RUSAGE_CHILDREN))
        ended, codes, cpu = [], [], []
        for child, first in self.children:  # all are killed before one is waited for: a namespace takes its time to go
            while not (has_ended := os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT)):
                if time.monotonic() >= deadline:
                    break
                time.sleep(0.0005)
            if first:
                os.kill(first, signal.SIGKILL)  # and with it all that is in the namespace
            else:
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.killpg(child, signal.SIGKILL)
                os.kill(child, signal.SIGKILL)  # it may not have made its group yet
            ended.append(has_ended)
            deadline = 0.0
        for (child, first), has_ended in zip(self.children, ended, strict=True):
            _, status, usage = os.wait4(child, 0)
            if first:
                os.waitpid(first, 0)
            codes.append(os.waitstatus_to_exitcode(status) if has_ended else None)
            cpu.append(_cpu_of(usage))
        if not self.has_namespaces:
            namespaces.kill_orphans()
            for folder in self.folders:
                _remove(folder)
            self.folders.clear()
            if os.geteuid() == 0:
                self._empty_shared_memory()
        self.children.clear()
        if cpu:
            cpu[0] += max(0.0, _cpu_of(resource.getrusage(resource.RUSAGE_CHILDREN)) - before - sum(cpu))
        return {"codes": codes, "cpu": cpu}


def _cpu_of(usage: resource.struct_rusage) -> float:
    return usage.ru_utime + usage.ru_stime
