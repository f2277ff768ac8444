"""Verdicts by execution: a candidate's function is called with hidden arguments in a separate, limited process.

Covers: a process per candidate, wall and CPU time, memory, no file writes, no core dumps, its own empty folder, no
inherited environment, and expected answers that never enter the candidate's process. Does not cover: the network,
reading files, or an attacker who knows the kernel. Verify code of an untrusted model in a container as well.
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

    A candidate passes if every call returns a value equal to the expected one after a trip through JSON (a tuple
    equals a list). Whatever else it does, it fails with a detail; it cannot fail the caller.

    Args:
        candidates: (code, tests) each.
        entry_point: name of the one-argument function under test.
        timeout: wall seconds per candidate, over all its tests.
        memory_mb: address space per candidate.
        workers: processes at a time; None: one per core.
        progress: called with the number of candidates that have just been judged.

    Raises:
        SandboxError: the sandbox process itself died, or a test is not JSON.
    """
    chunks = [candidates[start : start + _CHUNK] for start in range(0, len(candidates), _CHUNK)]

    def judge(chunk: Sequence[tuple[str, Tests]]) -> list[Verdict]:
        answers = _execute([code for code, _ in chunk], [tests for _, tests in chunk], entry_point, timeout, memory_mb)
        if progress is not None:
            progress(len(chunk))
        return [_verdict(answer, tests) for answer, (_, tests) in zip(answers, chunk, strict=True)]

    with ThreadPoolExecutor(workers or os.cpu_count() or 1) as pool:
        return [verdict for verdicts in pool.map(judge, chunks) for verdict in verdicts]


def _execute(
    codes: list[str], tests: list[Tests], entry_point: str, timeout: float, memory_mb: int
) -> list[dict[str, Any]]:
    settings = {"entry_point": entry_point, "timeout": timeout, "memory_mb": memory_mb}
    try:
        jobs = [
            json.dumps({"code": code, "arguments": [argument for argument, _ in cases], **settings})
            for code, cases in zip(codes, tests, strict=True)
        ]
    except (TypeError, ValueError) as error:
        raise SandboxError(f"a test argument is not of JSON's types: {error}") from error
    with tempfile.TemporaryDirectory(prefix="codescaler-sandbox-") as folder:
        done = subprocess.run(
            [sys.executable, "-I", "-S", str(_WORKER)],
            input="\n".join(jobs) + "\n",
            capture_output=True,
            text=True,
            cwd=folder,
            env={},
            timeout=60 + 2 * timeout * len(jobs),
            check=False,
        )
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    if done.returncode != 0 or len(answers) != len(jobs):
        raise SandboxError(
            f"the sandbox process ended with code {done.returncode} after {len(answers)} of {len(jobs)} candidates: "
            f"{done.stderr.strip()[-500:] or 'no message'}"
        )
    return answers


def _verdict(answer: dict[str, Any], tests: Tests) -> Verdict:
    if "error" in answer:
        return Verdict(passed=False, detail=answer["error"])
    results = answer.get("results")
    if not isinstance(results, list) or len(results) != len(tests):
        return Verdict(passed=False, detail="UnreadableResult")
    for number, (result, (_, expected)) in enumerate(zip(results, tests, strict=True)):
        if result != expected:
            return Verdict(passed=False, detail=f"WrongAnswer in test {number}")
    return Verdict(passed=True)
