"""Judges one candidate on another machine, inside what a service of program runs starts there as one program.

As in the sandbox, the code runs in a process of its own, which holds no test. The job comes on standard input, the
outcome goes into a file behind a token that is read last, so that nobody who ran before can have written it.
"""

import contextlib
import json
import os
import random
import shutil
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any

from . import calls, candidate, judge, namespaces, wire

OUTCOME = "outcome.json"
OUTPUT_BYTES = 16 << 20  # of a program
TOKEN_BYTES = 32
_REPLIES_BYTES = 64 << 20  # of all calls of a candidate
_WARM = "encodings.idna encodings.latin_1 encodings.ascii"


def main(settings: dict[str, Any]) -> None:
    """Read a job, judge, and write the outcome.

    Args:
        settings: role (`calls`, `scripts`, `programs`), seed, timeout in seconds, memory_mb, size of the job in bytes.
    """
    seed = str(settings["seed"])
    if os.environ.get("PYTHONHASHSEED") != seed:  # it counts from an interpreter's start
        os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, "PYTHONHASHSEED": seed})
    for module in _WARM.split():
        __import__(module)
    outcome = os.path.abspath(OUTCOME)
    namespaces.hide_memory()
    namespaces.adopt_orphans()
    start = time.monotonic()
    judged = {"calls": _calls, "scripts": _scripts, "programs": _programs}[settings["role"]](settings)
    judged["seconds"] = round(time.monotonic() - start, 4)
    judged["token"] = _read(TOKEN_BYTES).decode("ascii")
    with open(outcome, "w") as file:
        json.dump(judged, file)


def _calls(settings: dict[str, Any]) -> dict[str, Any]:
    with _Child(settings, candidate.serve_calls) as child:
        job = _job(settings)
        came, size = [], 0
        for reply in calls.replies(
            child.channel, job["code"], job["preamble"], job["entry_point"], job["requests"], settings["timeout"]
        ):
            size += len(json.dumps(reply))
            came.append(reply if size <= _REPLIES_BYTES else {"error": "ResultTooLarge"})
    return {"replies": came}


def _scripts(settings: dict[str, Any]) -> dict[str, Any]:
    with _Child(settings, candidate.serve_calls) as child:
        return judge.judged({**_job(settings), "timeout": settings["timeout"]}, child.channel)


def _programs(settings: dict[str, Any]) -> dict[str, Any]:
    job = _job(settings)
    runs: list[dict[str, str]] = []
    for stdin in job["stdins"]:
        error, output = _program(settings, job, stdin)
        runs.append({"error": error, "output": output})
        if error in ("Timeout", "SyntaxError"):
            break
    return {"runs": runs}


def _program(settings: dict[str, Any], job: dict[str, Any], stdin: str) -> tuple[str, str]:
    with tempfile.TemporaryFile() as given, tempfile.TemporaryFile() as output:
        given.write(stdin.encode("utf-8", "surrogateescape"))
        given.seek(0)
        deadline = time.monotonic() + settings["timeout"]

        def run(channel: socket.socket) -> int:
            return candidate.run_program(wire.receive(channel), lambda error: wire.send(channel, error))

        with _Child(settings, run, given.fileno(), output.fileno()) as child:
            wire.send(child.channel, {"code": job["code"], "preamble": job["preamble"]})
            code = child.wait(deadline)
            error = "Timeout" if code is None else ""
            if code:
                try:
                    error = str(wire.receive(child.channel, time.monotonic() + 1)["error"])
                except (EOFError, OSError, wire.WireError, TypeError, KeyError):
                    error = "Killed" if code < 0 else f"exit code {code}"
        size = os.fstat(output.fileno()).st_size
        if size >= OUTPUT_BYTES:
            error = "OutputTooLarge"
        output.seek(0)
        return error, output.read(OUTPUT_BYTES).decode("utf-8", "replace") if not error else ""


class _Child:
    """A process that runs `serve` on its end of `channel`, with as few rights as can be had; as a context."""

    def __init__(self, settings: dict[str, Any], serve: Callable[[socket.socket], int | None], *streams: int) -> None:
        self.folder = tempfile.mkdtemp()
        self.channel, theirs = socket.socketpair()
        self.pid = os.fork()
        self.reaped = False
        if self.pid == 0:
            code = 1
            try:
                self.channel.close()
                _confine(settings, self.folder, streams)
                code = serve(theirs) or 0
            except (EOFError, ConnectionError):  # the other side has heard enough
                code = 0
            finally:
                os._exit(code)
        theirs.close()

    def __enter__(self) -> "_Child":
        return self

    def wait(self, deadline: float) -> int | None:
        """The exit code, negative for a signal; None at the deadline."""
        while time.monotonic() < deadline:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.reaped = True
                return os.waitstatus_to_exitcode(status)
            time.sleep(0.002)
        return None

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        if not self.reaped:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
        namespaces.kill_orphans()
        self.channel.close()
        shutil.rmtree(self.folder, ignore_errors=True)


def _confine(settings: dict[str, Any], folder: str, streams: tuple[int, ...]) -> None:
    os.setsid()
    null = os.open(os.devnull, os.O_RDWR)
    for number, stream in zip((0, 1, 2), (*streams, null, null, null), strict=False):
        os.dup2(stream, number)
    uid = 20_000 + os.getpid() % 40_000  # within what a container without root maps
    if os.geteuid() == 0:
        with contextlib.suppress(OSError):
            os.chown(folder, uid, uid)
    os.chdir(folder)
    root = os.geteuid() == 0  # else the kernel counts all processes of the service's user together
    namespaces.limit(settings["timeout"], settings["memory_mb"], OUTPUT_BYTES, namespaces.PROCESSES if root else -1)
    namespaces.forbid_gains()
    namespaces.drop_privileges(uid)
    namespaces.filter_calls(own_kills_only=True)
    candidate.prepare()
    random.seed(settings["seed"])


def _job(settings: dict[str, Any]) -> dict[str, Any]:
    job: dict[str, Any] = json.loads(_read(settings["size"]))
    return job


def _read(size: int) -> bytes:
    """Exactly so many bytes of standard input: what comes behind them is nobody's yet."""
    data = b""
    while len(data) < size:
        part = os.read(0, size - len(data))
        if not part:
            raise EOFError("the job ends early")
        data += part
    return data
