"""Grades tests that are calls: asks a candidate's process call after call, and compares what comes.

Runs in a process of its own, which has limits of its own: what a candidate sends can cost more to read and to compare
than it cost to send.
"""

import collections
import itertools
import socket
import time
from collections.abc import Iterable, Iterator
from typing import Any

from . import namespaces, wire
from .comparison import same_value
from .counting import SHOWN, Count, error_of

Frame = bytes | dict[str, Any]
"""A reply as it came; or, as the last one, what is `over` and perhaps the `fault`."""


def judged(job: dict[str, Any], tests: Iterable[dict[str, Any]], channel: socket.socket) -> dict[str, Any]:
    """The report on the code behind `channel`.

    Args:
        job: `code`, `preamble`, `entry_point`, `rule` of comparison, `total` number of tests, `timeout` (wall seconds
            of all calls), `call_timeout` (of one call), `cpu` (CPU seconds of one call, 0: of all together).
        tests: `total` of them: `request` (packed arguments) and `accepted` (packed values) each.
        channel: to a process in `candidate.serve_calls`.
    """
    accepted: collections.deque[list[Any]] = collections.deque()

    def requests() -> Iterator[Any]:
        for test in tests:
            accepted.append(test["accepted"])
            yield test["request"]

    return _graded(job, frames(job, requests(), channel), accepted)


def frames(job: dict[str, Any], requests: Iterable[Any], channel: socket.socket) -> Iterator[Frame]:
    """What the candidate sends: first when its code is loaded, then per request."""
    deadline = time.monotonic() + job["timeout"]
    load = {"code": job["code"], "preamble": job["preamble"]}
    call = {"target": job["entry_point"], "verb": "call", "classes": [], "copy_back": False}
    for message in itertools.chain([load], ({**call, "value": request} for request in requests)):
        until = min(deadline, time.monotonic() + job["call_timeout"])
        frame = _asked(channel, {**message, "cpu": job["cpu"]}, until)
        yield frame
        if isinstance(frame, dict):
            return


def grade_frames(cpu: float, memory_mb: int) -> None:
    """Report on frames that another machine has sent: the whole life of a process, which talks over descriptor 0.

    It receives a job (`rule`, `total`), the `accepted` values of each test, and the frames.
    """
    namespaces.limit(cpu, memory_mb, -1)
    namespaces.limit_files(0)
    channel = socket.socket(fileno=0)
    job = wire.receive(channel)
    accepted = collections.deque(wire.receive(channel) for _ in range(job["total"]))
    came: Iterator[Frame] = (wire.receive_bytes(channel) for _ in range(job["frames"]))
    wire.send(channel, _graded(job, itertools.chain(came, [job["end"]]), accepted))


def _asked(channel: socket.socket, message: dict[str, Any], deadline: float) -> Frame:
    try:
        channel.settimeout(max(0.001, deadline - time.monotonic()))
        wire.send(channel, message)
        return wire.receive_bytes(channel, deadline)
    except TimeoutError:
        return {"over": "Timeout"}
    except (EOFError, ConnectionError):
        return {"over": "Killed"}
    except (wire.WireError, MemoryError):
        return {"over": "UnreadableResult", "fault": "unreadable_result"}


def _graded(job: dict[str, Any], came: Iterable[Frame], accepted: collections.deque[list[Any]]) -> dict[str, Any]:
    count = Count(job["total"])
    for number, frame in enumerate(came):
        reply = _reply(frame) if isinstance(frame, bytes) else frame
        if "over" in reply:
            count.fail(reply["over"], reply.get("fault", ""))
            break
        if number:
            _grade(reply, accepted.popleft(), job["rule"], count)
            if count.seen == job["total"]:
                break
        elif "error" in reply:  # the code does not load
            count.fail(*error_of(reply))
            break
    return count.report()


def _reply(frame: bytes) -> dict[str, Any]:
    try:
        reply = wire.decoded(frame)
    except (wire.WireError, MemoryError):
        reply = None
    if not isinstance(reply, dict):
        return {"over": "UnreadableResult", "fault": "unreadable_result"}
    return {"error": str(reply["error"])[:SHOWN], "missing": reply.get("missing")} if "error" in reply else reply


def _grade(reply: dict[str, Any], accepted: list[Any], rule: str, count: Count) -> None:
    if "error" in reply:
        count.take_error(*error_of(reply))
        return
    try:
        result, _ = wire.unpack(reply.get("value"))
    except (wire.WireError, MemoryError):
        count.take_error("UnreadableResult", "unreadable_result")
        return
    wanted = [wire.unpack(one)[0] for one in accepted]
    count.take(right=any(same_value(result, one, rule) for one in wanted), result=result, wanted=wanted[0])
