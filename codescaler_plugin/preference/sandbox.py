"""Verdicts by execution: a candidate's function is called with hidden arguments in a separate, limited process.

Covers: a process and a folder per candidate, wall and CPU time, memory, no growing of files, no core dumps, no
inherited environment, its descendants killed with it (Linux), and expected answers that never enter the candidate's
process. Does not cover: the network, and reading, emptying or deleting files that your user may touch. It is no
security boundary: verify the code of a model that you do not trust in a container as well.
"""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from codescaler_plugin.errors import SandboxError
from codescaler_plugin.records import Verdict

_WORKER = Path(__file__).with_name("sandbox_worker.py")
_CHUNK = 64  # candidates per worker process: start-up (20 ms) is shared, and progress is seen

Tests = Sequence[tuple[Any, Any]]
"""(argument, expected) pairs; both of JSON's types."""


def run_tests(
    candidates: Sequence[tuple[str, Tests]],
    *,
    entry_point: str = "solve",
    timeout: float = 2.0,
    memory_mb: int = 512,
    workers: int | None = None,
    progress: Callable[[int], None] | None = None,
) -> list[Verdict]:
    """Run each candidate's code against its tests; same length, same order.

    A candidate passes if every call returns a value equal to the expected one after a trip of both through JSON (a
    tuple equals a list). Whatever else it does, it fails with a detail; it cannot fail the caller.

    Args:
        candidates: (code, tests) each.
        entry_point: name of the one-argument function under test.
        timeout: wall seconds per candidate, over all its tests.
        memory_mb: address space per candidate.
        workers: processes at a time; None: one per core.
        progress: called with the number of candidates that have just been judged.

    Raises:
        SandboxError: a test is not JSON, or the sandbox does not work on this machine.
    """
    settings = {"entry_point": entry_point, "timeout": timeout, "memory_mb": memory_mb}
    chunks = [candidates[start : start + _CHUNK] for start in range(0, len(candidates), _CHUNK)]

    def judge(chunk: Sequence[tuple[str, Tests]]) -> list[Verdict]:
        jobs, expected = _jobs(chunk, settings)
        verdicts = [_verdict(answer, results) for answer, results in zip(_answers(jobs), expected, strict=True)]
        if progress is not None:
            progress(len(chunk))
        return verdicts

    with ThreadPoolExecutor(workers or os.cpu_count() or 1) as pool:
        return [verdict for verdicts in pool.map(judge, chunks) for verdict in verdicts]


def _jobs(chunk: Sequence[tuple[str, Tests]], settings: dict[str, Any]) -> tuple[list[str], list[list[Any]]]:
    """A JSON line per candidate, and the expected results as JSON gives them back."""
    try:
        jobs = [
            json.dumps({"code": code, "arguments": [argument for argument, _ in tests], **settings}, allow_nan=False)
            for code, tests in chunk
        ]
        expected = [json.loads(json.dumps([value for _, value in tests], allow_nan=False)) for _, tests in chunk]
    except (TypeError, ValueError) as error:
        raise SandboxError(f"a test is not of JSON's types: {error}") from error
    return jobs, expected


def _answers(jobs: list[str]) -> list[Any]:
    """One answer per job. A candidate that breaks the worker is found by running the jobs one at a time."""
    try:
        return _execute(jobs)
    except SandboxError:
        if len(jobs) > 1:
            return [answer for job in jobs for answer in _answers([job])]
        _execute([json.dumps({**json.loads(jobs[0]), "code": "", "arguments": []})])  # raises if it was not the code
        return [{"error": "Killed"}]


def _execute(jobs: list[str]) -> list[Any]:
    seconds = 60 + 2 * sum(json.loads(job)["timeout"] for job in jobs)
    with tempfile.TemporaryDirectory(prefix="codescaler-sandbox-") as folder:
        try:
            done = subprocess.run(
                [sys.executable, "-I", "-S", str(_WORKER)],
                input="\n".join(jobs) + "\n",
                capture_output=True,
                text=True,
                cwd=folder,
                env={},
                timeout=seconds,
                check=False,
            )
            answers = [json.loads(line) for line in done.stdout.splitlines()]
        except (subprocess.TimeoutExpired, ValueError, RecursionError) as error:
            raise SandboxError(f"the sandbox process gave no readable answer: {error}") from error
    if done.returncode != 0 or len(answers) != len(jobs):
        raise SandboxError(
            f"the sandbox process ended with code {done.returncode} after {len(answers)} of {len(jobs)} candidates: "
            f"{done.stderr.strip()[-500:] or 'no message'}"
        )
    return answers


def _verdict(answer: Any, expected: list[Any]) -> Verdict:
    error = answer.get("error") if isinstance(answer, dict) else None
    if isinstance(error, str):
        return Verdict(passed=False, detail=error)
    results = answer.get("results") if isinstance(answer, dict) else None
    if not isinstance(results, list) or len(results) != len(expected):
        return Verdict(passed=False, detail="UnreadableResult")
    for number, (result, value) in enumerate(zip(results, expected, strict=True)):
        if result != value:
            return Verdict(passed=False, detail=f"WrongAnswer in test {number}")
    return Verdict(passed=True)
