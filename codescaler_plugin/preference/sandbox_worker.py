"""The sandbox's other side: a script of its own process that imports nothing but the standard library.

Reads one JSON job per line from stdin, `{"code", "entry_point", "arguments", "timeout", "memory_mb"}`, runs each in a
forked child under resource limits, and writes one JSON line per job: `{"results": [...]}` or `{"error": "..."}`. It
never sees an expected answer, so a candidate cannot read or fake one.
"""

import json
import os
import resource
import select
import signal
import sys
import time

RESULT_BYTES = 1 << 20


def _limit(timeout, memory_mb):
    seconds = int(timeout) + 1
    for kind, value in (
        (resource.RLIMIT_CPU, seconds),
        (resource.RLIMIT_AS, memory_mb << 20),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_NOFILE, 16),
    ):
        resource.setrlimit(kind, (value, value))


def _answer(job):
    namespace = {"__name__": "candidate"}
    try:
        exec(compile(job["code"], "<candidate>", "exec", dont_inherit=True), namespace)
        solve = namespace[job["entry_point"]]
        return {"results": [solve(argument) for argument in job["arguments"]]}
    except BaseException as error:  # SystemExit and KeyboardInterrupt too: whatever a candidate raises is its verdict
        return {"error": type(error).__name__}


def _child(job, write_end):
    os.setsid()
    null = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(null, stream)
    _limit(job["timeout"], job["memory_mb"])
    answer = _answer(job)
    try:
        text = json.dumps(answer, allow_nan=False)
    except BaseException:  # results that are no JSON: objects, cycles, endless generators' kin
        text = json.dumps({"error": "UnreadableResult"})
    data = text.encode()
    if len(data) > RESULT_BYTES:
        data = json.dumps({"error": "ResultTooLarge"}).encode()
    while data:
        data = data[os.write(write_end, data) :]


def _run(job):
    read_end, write_end = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(read_end)
        try:
            _child(job, write_end)
        finally:
            os._exit(0)
    os.close(write_end)
    chunks, deadline = [], time.monotonic() + job["timeout"]
    while True:
        ready, _, _ = select.select([read_end], [], [], max(0.0, deadline - time.monotonic()))
        chunk = os.read(read_end, 1 << 16) if ready else None
        if not chunk:
            break
        chunks.append(chunk)
    try:
        os.killpg(pid, signal.SIGKILL)
    except ProcessLookupError:  # it has not become a group of its own, or is gone
        os.kill(pid, signal.SIGKILL)
    os.close(read_end)
    os.waitpid(pid, 0)
    if chunk is None:
        return {"error": "Timeout"}
    try:
        return json.loads(b"".join(chunks)[: RESULT_BYTES + 1])
    except ValueError:
        return {"error": "Killed"}


if __name__ == "__main__":
    for line in sys.stdin:
        sys.stdout.write(json.dumps(_run(json.loads(line))) + "\n")
        sys.stdout.flush()
