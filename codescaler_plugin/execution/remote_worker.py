"""Judges one candidate on another machine, inside what a service of program runs starts there as one program.

As in the sandbox, the code runs in a process of its own, which holds no test. The job comes on standard input, the
outcome goes into a file behind a token that is read last, so that nobody who ran before can have written it.
"""

import base64
import contextlib
import gc
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

from codescaler_plugin.grading import call_tests, candidate, in_process, script_tests, serialization, stand_ins
from codescaler_plugin.isolation import namespaces

OUTCOME = "outcome.json"
OUTPUT_BYTES = 16 << 20  # of a program
TOKEN_BYTES = 32
REPORT_BYTES = 64 << 10
_GRACE = 1.0  # seconds for a process to end by itself
_WARM = "encodings.idna encodings.latin_1 encodings.ascii"


def main(settings: dict[str, Any]) -> None:
    """Read a job, judge, and write the outcome.

    Args:
        settings: role (`calls`, `scripts`, `in_process`, `programs`), `seed`, `cpu` seconds, `memory_mb`, `wall`
            seconds, size of the job in bytes.
    """
    seed = str(settings["seed"])
    if os.environ.get("PYTHONHASHSEED") != seed:  # it counts from an interpreter's start
        os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, "PYTHONHASHSEED": seed})
    for module in _WARM.split():
        __import__(module)
    outcome = os.path.abspath(OUTCOME)
    namespaces.hide_memory()
    namespaces.adopt_orphans()
    gc.freeze()  # what is here is nothing that a candidate could list
    start = time.monotonic()
    judged = {"calls": _calls, "programs": _programs}.get(settings["role"], _scripts)(settings)
    judged["seconds"] = round(time.monotonic() - start, 4)
    judged["token"] = _read(TOKEN_BYTES).decode("ascii")
    with open(outcome, "w") as file:
        json.dump(judged, file)


def _calls(settings: dict[str, Any]) -> dict[str, Any]:
    """What the candidate sends, for the other machine to read and to compare; a dict says why no more came."""
    with _Child(settings, candidate.serve_calls) as child:
        job = _job(settings)
        came = list(call_tests.frames(job, job["requests"], child.channel))
        is_over = isinstance(came[-1], dict) and came[-1]["over"] == "Killed"
        code = child.wait(time.monotonic() + _GRACE) if is_over else None
    frames = [base64.b64encode(frame).decode("ascii") if isinstance(frame, bytes) else frame for frame in came]
    return {"frames": frames, "code": code, "cpu": child.cpu}


def _scripts(settings: dict[str, Any]) -> dict[str, Any]:
    is_apart = settings["role"] == "scripts"
    with _Child(settings, candidate.serve_calls if is_apart else _serve_tests) as child:
        job = _job(settings)
        report = (
            script_tests.graded(job, stand_ins.Channel(child.channel)) if is_apart else _received(child.channel, job)
        )
        is_over = isinstance(report, dict) and report.get("detail") == "Killed"
        code = child.wait(time.monotonic() + _GRACE) if is_over else None
    return {"report": report, "code": code, "cpu": child.cpu}


def _serve_tests(channel: socket.socket) -> None:
    serialization.send(channel, in_process.judged(serialization.receive(channel)))


def _received(channel: socket.socket, job: dict[str, Any]) -> Any:
    """The report of a process that runs the candidate too, so it may be anything."""
    serialization.send(channel, job)
    report = {"passed": 0, "total": len(job["tests"]), "detail": "", "fault": "", "beyond": ""}
    try:
        return serialization.receive(channel, time.monotonic() + job["timeout"], REPORT_BYTES)
    except TimeoutError:
        return {**report, "detail": "Timeout"}
    except (EOFError, serialization.SerializationError):
        return {**report, "detail": "Killed"}


def _programs(settings: dict[str, Any]) -> dict[str, Any]:
    job = _job(settings)
    runs: list[dict[str, Any]] = []
    for stdin in job["stdins"]:
        runs.append(_program(settings, job, stdin))
        if runs[-1]["code"] in (None, signal.SIGXCPU) or runs[-1]["error"] == "SyntaxError":
            break
    return {"runs": runs}


def _program(settings: dict[str, Any], job: dict[str, Any], stdin: str) -> dict[str, Any]:
    """One run: `output` as base64, `code`, `cpu`, what it raised, whether its output `is_long`."""
    told: Any = {}
    with tempfile.TemporaryFile() as given, tempfile.TemporaryFile() as output:
        given.write(stdin.encode("utf-8", "surrogateescape"))
        given.seek(0)

        def run(channel: socket.socket) -> int:
            return candidate.run_program(
                serialization.receive(channel), lambda error: serialization.send(channel, error)
            )

        with _Child(settings, run, given.fileno(), output.fileno()) as child:
            serialization.send(child.channel, {"code": job["code"], "preamble": job["preamble"]})
            code = child.wait(time.monotonic() + settings["wall"])
            if code:
                with contextlib.suppress(EOFError, OSError, serialization.SerializationError):
                    told = serialization.receive(child.channel, time.monotonic() + _GRACE, REPORT_BYTES)
        size = os.fstat(output.fileno()).st_size
        output.seek(0)
        text = output.read(OUTPUT_BYTES)
    told = told if isinstance(told, dict) else {}
    is_right = code == 0 and size < OUTPUT_BYTES
    return {
        "output": base64.b64encode(text).decode("ascii") if is_right else "",
        "code": code,
        "cpu": child.cpu,
        "error": str(told.get("error", ""))[:REPORT_BYTES],
        "missing": str(told.get("missing", ""))[:REPORT_BYTES],
        "is_long": size >= OUTPUT_BYTES,
    }


class _Child:
    """A process that runs `serve` on its end of `channel`, with as few rights as can be had; as a context."""

    def __init__(self, settings: dict[str, Any], serve: Callable[[socket.socket], int | None], *streams: int) -> None:
        self.folder = tempfile.mkdtemp()
        self.channel, theirs = socket.socketpair()
        self.pid = os.fork()
        self.reaped = False
        self.cpu = 0.0
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
            pid, status, usage = os.wait4(self.pid, os.WNOHANG)
            if pid:
                self.reaped = True
                self.cpu = usage.ru_utime + usage.ru_stime
                return os.waitstatus_to_exitcode(status)
            time.sleep(0.002)
        return None

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        if not self.reaped:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)
            usage = os.wait4(self.pid, 0)[2]
            self.cpu = usage.ru_utime + usage.ru_stime
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
    namespaces.limit(settings["cpu"], settings["memory_mb"], namespaces.PROCESSES if root else -1)
    namespaces.limit_files(OUTPUT_BYTES)
    namespaces.forbid_gains()
    namespaces.drop_privileges(uid)
    namespaces.filter_calls(shared=True, own_kills_only=True)
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
