"""The conversation with the processes that run one program, in the caller's process here or in a service's there.

What comes back is plain data that says what was seen: an outcome. `verdicts` says what it means. Standard library
only, because a service runs this module too (`remote_worker`).
"""

import contextlib
import os
import select
import signal
import socket
import tempfile
import time
from collections.abc import Callable, Iterator
from typing import Any, Protocol

from codescaler_plugin.grading import call_tests, serialization

GRACE = 1.0  # seconds for a process to end by itself, and beyond its limit before a grader is given up
REPORT_BYTES = 64 << 10
OUTPUT_BYTES = 16 << 20  # of a program
GRADER_GONE, TESTS_GONE = "GraderGone", "TestsGone"

Job = Callable[[], dict[str, Any]]
"""Gives what a process is to do. It is called after the process has been forked, which cannot inherit it so."""
Outcome = dict[str, Any]
"""What was seen of a run: the exit `code` of the program's process (negative for a signal, None if it had to be
killed), its `cpu` seconds, and what the function says."""


class Spawner(Protocol):
    """Starts and ends confined processes, those of one program at a time: see `fork_server.ForkServer`."""

    def start(self, role: str, bounds: dict[str, Any], *ends: Any) -> None: ...  # noqa: D102
    def stop(self, grace: float, *, is_last: bool = True) -> tuple[list[int | None], list[float]]: ...  # noqa: D102


def start(spawner: Spawner, role: str, bounds: dict[str, Any], *streams: Any) -> socket.socket:
    """Start a process, and return the channel to it."""
    ours, theirs = socket.socketpair()
    try:
        with theirs:
            spawner.start(role, bounds, theirs, *streams)
    except BaseException:  # after Ctrl-C, too: the caller never gets the channel, so nobody else closes it
        ours.close()
        raise
    return ours


def calls(spawner: Spawner, bounds: dict[str, Any], get_job: Job) -> Outcome:
    """Call the functions of a program; `frames` is what it sent, see `call_tests.frames`."""
    with start(spawner, "candidate", bounds) as channel:
        job = get_job()
        frames = list(call_tests.frames(job, job["requests"], channel))
        codes, cpu = spawner.stop(GRACE if frames[-1] == {"over": "Killed"} else 0.0)
    return {"frames": frames, "code": codes[0], "cpu": cpu[0]}


def open_grader(spawner: Spawner, bounds: dict[str, Any], job: dict[str, Any]) -> tuple[socket.socket, Outcome | None]:
    """Start a process that holds a problem's tests; with the outcome for all programs if it can grade none."""
    grader = start(spawner, "grader", bounds)
    grader.settimeout(job["timeout"] + GRACE)
    report, over = None, TESTS_GONE
    with contextlib.suppress(EOFError, ConnectionError, TimeoutError):  # the tests end or hold their process
        serialization.send(grader, {**job, "code": ""})
        report, over = serialization.receive(grader, time.monotonic() + job["timeout"] + GRACE, REPORT_BYTES), ""
    if over or report:
        spawner.stop(0.0)
        return grader, {"report": report, "over": over, "code": None, "cpu": 0.0}
    return grader, None


def scripts(spawner: Spawner, grader: socket.socket, candidate: socket.socket, job: dict[str, Any]) -> Outcome:
    """Have a grader test the functions of a `candidate`'s process.

    `report` is the grader's; or `over` says why there is none: `Timeout`, or `GRADER_GONE` (`grader`: its exit code).
    """
    report, over = {}, ""
    try:
        grader.settimeout(job["timeout"] + GRACE)
        socket.send_fds(grader, [b"\0"], [candidate.fileno()])
        serialization.send(grader, {"code": job["code"], "timeout": job["timeout"]})
        report = serialization.receive(grader, time.monotonic() + job["timeout"] + GRACE, REPORT_BYTES)
        if not isinstance(report, dict):
            raise serialization.SerializationError("no report")
        over = GRADER_GONE if "code" in report else ""
    except TimeoutError:
        over = "Timeout"
    codes, cpu = spawner.stop(GRACE if report.get("detail") == "Killed" else 0.0, is_last=bool(over))
    return {"report": report, "over": over, "grader": report.get("code"), "code": codes[0], "cpu": cpu[0]}


def in_process(spawner: Spawner, bounds: dict[str, Any], get_job: Job) -> Outcome:
    """Run a program and its tests in one process. The `report` may be anything; `over` says why there is none."""
    report, over = None, ""
    with start(spawner, "in_process", bounds) as channel:
        job = get_job()
        try:
            channel.settimeout(job["timeout"] + GRACE)
            with contextlib.suppress(ConnectionError):  # it has ended before it read all
                serialization.send(channel, job)
            report = serialization.receive(channel, time.monotonic() + job["timeout"] + GRACE, REPORT_BYTES)
        except TimeoutError:
            over = "Timeout"
        except (EOFError, serialization.SerializationError):
            over = "Killed"
        is_ended = over == "Killed" or (isinstance(report, dict) and report.get("detail") == "Killed")
        codes, cpu = spawner.stop(GRACE if is_ended else 0.0)
    return {"report": report, "over": over, "code": codes[0], "cpu": cpu[0]}


def programs(spawner: Spawner, bounds: dict[str, Any], wall: float, job: dict[str, Any]) -> Iterator[Outcome]:
    """Run a program on each of its `stdins`, until it runs out of time or turns out to be none."""
    for stdin in job["stdins"]:
        run = _program(spawner, bounds, wall, {"code": job["code"], "preamble": job["preamble"]}, stdin)
        yield run
        if run["error"] == "Timeout" or run["code"] == signal.SIGXCPU or run["told"].get("error") == "SyntaxError":
            return


def _program(spawner: Spawner, bounds: dict[str, Any], wall: float, job: dict[str, str], stdin: str) -> Outcome:
    """Its `output`, the `error` that cut it short, and what it `told` of an exception of its own."""
    reader, writer = os.pipe()
    with (
        open(reader, "rb", buffering=0) as output,
        open(writer, "wb", buffering=0) as sink,
        tempfile.TemporaryFile() as given,
    ):
        given.write(stdin.encode("utf-8", "surrogateescape"))
        given.seek(0)
        channel = start(spawner, "program", bounds, given, sink)
        sink.close()
        with channel:
            deadline = time.monotonic() + wall
            channel.settimeout(wall)
            text, error = b"", ""
            try:
                serialization.send(channel, job)
                text, error = _read_output(output, deadline)
            except TimeoutError:
                error = "Timeout"
            except ConnectionError:
                error = "Killed"
            grace = 0.0 if error in ("Timeout", "OutputTooLarge") else max(GRACE, deadline - time.monotonic())
            codes, cpu = spawner.stop(grace)
            error = error or ("Timeout" if codes[0] is None else "")
            told = _told(channel) if codes[0] and not error else {}
    return {"output": text, "error": error, "told": told, "code": codes[0], "cpu": cpu[0]}


def _told(channel: socket.socket) -> dict[str, Any]:
    """The exception that a program says has ended it, unless it exited by itself."""
    try:
        message = serialization.receive(channel, time.monotonic() + GRACE, REPORT_BYTES)
        return {name: message.get(name) for name in ("error", "missing")}
    except (EOFError, OSError, serialization.SerializationError, AttributeError):
        return {}


def _read_output(output: Any, deadline: float) -> tuple[bytes, str]:
    data = bytearray()
    while len(data) <= OUTPUT_BYTES:
        ready, _, _ = select.select([output], [], [], max(0.0, deadline - time.monotonic()))
        if not ready:
            return b"", "Timeout"
        part = output.read(1 << 16)
        if not part:
            return bytes(data), ""
        data += part
    return b"", "OutputTooLarge"
