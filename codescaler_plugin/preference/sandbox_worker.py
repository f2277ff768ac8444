"""The sandbox's other side: a script of its own process that imports nothing but the standard library.

Reads one JSON job per line from stdin, `{"code", "entry_point", "arguments", "timeout", "memory_mb"}`, runs each in a
forked child under resource limits and in a folder of its own, and writes one JSON line per job: `{"results": [...]}`
or `{"error": "..."}`. It never sees an expected answer, so a candidate cannot read or fake one.
"""

import contextlib
import ctypes
import json
import os
import resource
import select
import signal
import sys
import time

RESULT_BYTES = 1 << 20
PR_SET_CHILD_SUBREAPER = 36  # linux/prctl.h: orphaned descendants become ours, so that they can be killed


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


def _child(job, number, write_end):
    os.setsid()
    os.mkdir(str(number))
    os.chdir(str(number))
    null = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(null, stream)
    _limit(job["timeout"], job["memory_mb"])
    answer = _answer(job)
    try:
        text = json.dumps(answer, allow_nan=False)
    except BaseException:  # results that are no JSON: objects, cycles, numbers without end
        text = json.dumps({"error": "UnreadableResult"})
    data = text.encode()
    if len(data) > RESULT_BYTES:
        data = json.dumps({"error": "ResultTooLarge"}).encode()
    while data:
        data = data[os.write(write_end, data) :]


def _run(job, number):
    read_end, write_end = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(read_end)
        try:
            _child(job, number, write_end)
        finally:
            os._exit(0)
    os.close(write_end)
    answer = _read(read_end, time.monotonic() + job["timeout"])
    os.close(read_end)
    with contextlib.suppress(ProcessLookupError):  # it is gone, or has not become a group of its own
        os.killpg(pid, signal.SIGKILL)
    _kill_children()
    return answer


def _read(read_end, deadline):
    """The child's answer, or what became of it; never more than `RESULT_BYTES` of it in memory."""
    data = bytearray()
    while len(data) <= RESULT_BYTES:
        ready, _, _ = select.select([read_end], [], [], max(0.0, deadline - time.monotonic()))
        if not ready:
            return {"error": "Timeout"}
        chunk = os.read(read_end, 1 << 16)
        if not chunk:
            break
        data += chunk
    else:
        return {"error": "ResultTooLarge"}
    try:
        return json.loads(data)
    except (ValueError, RecursionError):  # it died on the way, or wrote something of its own
        return {"error": "Killed"}


def _kill_children():
    """Kill and reap until no child is left, those of a candidate that has left its group included."""
    while True:
        try:
            with open(f"/proc/self/task/{os.getpid()}/children") as file:
                children = [int(pid) for pid in file.read().split()]
        except FileNotFoundError:  # a kernel without that list: the group is all we can reach
            children = []
        for pid in children:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        try:
            os.waitpid(-1, 0)
        except ChildProcessError:
            return


if __name__ == "__main__":
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    for number, line in enumerate(sys.stdin):
        sys.stdout.write(json.dumps(_run(json.loads(line), number)) + "\n")
        sys.stdout.flush()
