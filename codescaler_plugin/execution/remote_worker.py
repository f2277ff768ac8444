"""Runs one program on another machine, inside what a service of program runs starts there as one program.

The processes are started and talked to as on this machine, by `fork_server` and `runs`, with the isolation "limits",
for the service isolates. The job comes on standard input, and is read when the program's process has been forked. The
outcome goes into a file behind a token that is read last, so that nobody who ran before can have written it.
Python 3.10 or newer, standard library only.
"""

import base64
import json
import os
import sys
import tempfile
import time
from typing import Any

from codescaler_plugin.execution import runs
from codescaler_plugin.execution.fork_server import ForkServer, reset_signals, silence
from codescaler_plugin.grading import candidate
from codescaler_plugin.isolation import limits, processes

OUTCOME = "outcome.json"
TOKEN_BYTES = 32
_WARM = "encodings.idna encodings.latin_1 encodings.ascii"  # a user without rights may be unable to read them


def main(settings: dict[str, Any]) -> None:
    """Read a job, run it, and write the outcome.

    The settings are the `role` (a function of `runs`), `bounds` of the program's processes and of the `grader`'s
    (`cpu` seconds, `memory_mb`, `seed`), `wall` seconds of a program, `size` of the job in bytes.
    """
    seed = str(settings["bounds"]["seed"])
    if os.environ.get("PYTHONHASHSEED") != seed:  # it counts from an interpreter's start
        os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, "PYTHONHASHSEED": seed})
    for module in _WARM.split():
        __import__(module)
    outcome_path = os.path.abspath(OUTCOME)
    reset_signals()
    processes.hide_memory()
    processes.forbid_gains()
    job_input = open(os.dup(0), "rb", buffering=0)  # noqa: SIM115
    silence(0, 1)  # what goes to the other shows what is wrong with the service
    with tempfile.TemporaryDirectory() as folder:
        if is_root := os.geteuid() == 0:
            os.chmod(folder, 0o711)  # programs have folders in it that they reach by their whole paths
        server = ForkServer(
            {
                "isolation": "limits",
                "paths": [],
                "library": os.path.dirname(os.__file__),
                "tmp": folder,
                "script": "",
                "uid": 20_000 + os.getpid() % 20_000 * 2,  # within what a container without root maps
                "processes": limits.PROCESSES if is_root else -1,  # else the kernel counts all of the service's user
                "file_bytes": runs.OUTPUT_BYTES,
            },
            private=[job_input],
        )
        candidate.prepare()
        run = _Run(server, settings, job_input)
        start = time.monotonic()
        outcome: dict[str, Any] = getattr(run, settings["role"])()
        outcome["seconds"] = round(time.monotonic() - start, 4)
    outcome["token"] = _read(job_input, TOKEN_BYTES).decode("ascii")
    with open(outcome_path, "w") as file:
        json.dump(outcome, file)


class _Run:
    """The functions of `runs` with their outcomes as JSON has them; a `runs.Spawner` too."""

    def __init__(self, server: ForkServer, settings: dict[str, Any], job_input: Any) -> None:
        self.server = server
        self.bounds = settings["bounds"]
        self.settings = settings
        self.job_input = job_input

    def job(self) -> dict[str, Any]:
        return json.loads(_read(self.job_input, self.settings["size"]))  # type: ignore[no-any-return]

    def calls(self) -> dict[str, Any]:
        outcome = runs.calls(self, self.bounds, self.job)
        frames = [_as_text(frame) if isinstance(frame, bytes) else frame for frame in outcome["frames"]]
        return {**outcome, "frames": frames}

    def scripts(self) -> dict[str, Any]:
        with runs.start(self, "candidate", self.bounds) as program:
            job = self.job()
            grader, unfit = runs.open_grader(self, self.settings["grader"], job)
            with grader:
                return unfit or runs.scripts(self, grader, program, job)

    def in_process(self) -> dict[str, Any]:
        return runs.in_process(self, self.bounds, self.job)

    def programs(self) -> dict[str, Any]:
        outcomes = runs.programs(self, self.bounds, self.settings["wall"], self.job())
        return {"runs": [{**outcome, "output": _as_text(outcome["output"])} for outcome in outcomes]}

    def start(self, role: str, bounds: dict[str, Any], *ends: Any) -> None:
        answer = self.server.start({"role": role, **bounds}, [os.dup(end.fileno()) for end in ends])
        if answer and "error" in answer:
            raise OSError(answer["error"])

    def stop(self, grace: float, *, is_last: bool = True) -> tuple["list[int | None]", "list[float]"]:  # noqa: ARG002
        return self.server.stop(grace)  # the grader serves one program


def _as_text(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


def _read(job_input: Any, size: int) -> bytes:
    """Exactly so many bytes: what comes behind them is nobody's yet."""
    data = b""
    while len(data) < size:
        part = job_input.read(size - len(data))
        if not part:
            raise EOFError("the job ends early")
        data += part
    return data
