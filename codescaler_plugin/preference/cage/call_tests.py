"""Grades tests that are calls: asks a candidate's process call after call, and compares what comes.

Runs in a process of its own, which has limits of its own: what a candidate sends can cost more to read and to compare
than it cost to send.
"""

import socket
import time
from collections.abc import Iterator
from typing import Any

from . import wire
from .comparison import same_value
from .counting import SHOWN, Count, error_of


def judged(job: dict[str, Any], tests: Iterator[dict[str, Any]], channel: socket.socket) -> dict[str, Any]:
    """The report on the code behind `channel`.

    Args:
        job: `code`, `preamble`, `entry_point`, `rule` of comparison, `total` number of tests, `timeout` (wall seconds
            of all calls), `call_timeout` (of one call), `cpu` (CPU seconds of one call, 0: of all together).
        tests: `total` of them: `request` (packed arguments) and `accepted` (packed values) each.
        channel: to a process in `candidate.serve_calls`.
    """
    count = Count(job["total"])
    deadline = time.monotonic() + job["timeout"]
    reply = _ask(channel, {"code": job["code"], "preamble": job["preamble"], "cpu": job["cpu"]}, job, deadline)
    if "error" in reply:
        count.fail(*error_of(reply))
        return count.report()
    for _ in range(job["total"]):
        if "over" in reply:
            break
        test = next(tests)
        message = {
            "target": job["entry_point"],
            "verb": "call",
            "value": test["request"],
            "classes": [],
            "copy_back": False,
            "cpu": job["cpu"],
        }
        reply = _ask(channel, message, job, deadline)
        if "over" not in reply:
            _grade(reply, test["accepted"], job["rule"], count)
    if "over" in reply:
        count.fail(reply["over"], reply.get("fault", ""))
    return count.report()


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


def _ask(channel: socket.socket, message: dict[str, Any], job: dict[str, Any], deadline: float) -> dict[str, Any]:
    """The reply; `over` and perhaps a `fault` if no more can come."""
    deadline = min(deadline, time.monotonic() + job["call_timeout"])
    try:
        channel.settimeout(max(0.001, deadline - time.monotonic()))
        wire.send(channel, message)
        reply = wire.receive(channel, deadline)
    except TimeoutError:
        return {"over": "Timeout"}
    except (EOFError, ConnectionError):
        return {"over": "Killed"}
    except (wire.WireError, MemoryError):
        reply = None
    if not isinstance(reply, dict):
        return {"over": "UnreadableResult", "fault": "unreadable_result"}
    if "error" in reply:
        return {"error": str(reply["error"])[:SHOWN], "missing": str(reply.get("missing") or "")}
    return {"value": reply.get("value")}
