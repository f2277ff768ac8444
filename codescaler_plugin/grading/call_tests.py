"""Grades tests that are calls: asks a program's process call after call, and compares the results.

A result can cost more to read and to compare than it cost to send. So results stay bytes until all calls are made;
then they are graded at once if they are small and plain, else in a process that has limits of its own.
"""

import itertools
import socket
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from codescaler_plugin.grading import serialization
from codescaler_plugin.grading.comparison import Count, error_of, same_value
from codescaler_plugin.isolation import limits

Frame = bytes | dict[str, Any]
"""A reply in the bytes that came. The last one may be a dict: what is `over`, and perhaps the `fault`."""
_CHEAP_BYTES = 16 << 10  # of all frames together: nothing so short takes long, hashing aside
_HASHED, _NESTED = frozenset("sdCOZV"), frozenset("tS")
# A frozen set is hashed when it is made, a named tuple has a class made for it, and an array is read and compared as
# lists where NumPy is not loaded: whether it is loaded here must decide nothing.
_COSTLY = frozenset("fNy")
_UNREADABLE = {"over": "UnreadableResult", "fault": "unreadable_result"}


def frames(job: dict[str, Any], requests: Iterable[Any], channel: socket.socket) -> Iterator[Frame]:
    """Yield the program's replies: the first when its code is loaded, then one for the packed arguments of each call.

    The job is that of `execution.jobs.call_job`; the channel leads to a process in `candidate.serve_calls`.
    """
    deadline = time.monotonic() + job["timeout"]
    load = {"code": job["code"], "preamble": job["preamble"]}
    call = {"target": job["entry_point"], "verb": "call", "classes": [], "copy_back": False}
    size = 0
    for message in itertools.chain([load], ({**call, "value": request} for request in requests)):
        call_deadline = min(deadline, time.monotonic() + job["call_timeout"])
        frame = _ask(channel, {**message, "cpu": job["cpu"]}, call_deadline)
        size += len(frame) if isinstance(frame, bytes) else 0
        if size > 2 * serialization.MAX_FRAME:
            frame = {"over": "ResultTooLarge", "fault": "unreadable_result"}
        yield frame
        if isinstance(frame, dict):
            return


def is_cheap(came: Sequence[Frame], rule: str) -> bool:
    """Whether grading these frames by a rule takes only a moment, whoever made them.

    A tuple in a set or a dict is hashed through and through, each time that it is held; by the rule `set`, so is all
    that a result holds.
    """
    data = [frame for frame in came if isinstance(frame, bytes)]
    return sum(map(len, data)) <= _CHEAP_BYTES and not any(_is_costly(frame, rule) for frame in data)


def _is_costly(frame: bytes, rule: str) -> bool:
    try:
        reply = serialization.decoded(frame)
        tags = [node[0] for node in reply["value"]["nodes"]] if "value" in reply else []
        if rule == "set" and len(tags) > 1:
            return True
        return not _COSTLY.isdisjoint(tags) or not (_HASHED.isdisjoint(tags) or _NESTED.isdisjoint(tags))
    except (serialization.SerializationError, TypeError, LookupError):  # the grader will report it
        return False


def graded(rule: str, accepted: Sequence[list[Any]], came: Iterable[Frame]) -> dict[str, Any]:
    """The report on a program's frames; `accepted` are the packed values that each test accepts."""
    count = Count(len(accepted))
    for number, frame in enumerate(came):
        reply = _reply(frame) if isinstance(frame, bytes) else None
        if reply is None:
            end = frame if isinstance(frame, dict) else _UNREADABLE
            count.fail(end["over"], end.get("fault", ""))
            break
        if number:
            _grade(reply, accepted[number - 1], rule, count)
        elif "error" in reply:  # the code does not load
            count.fail(*error_of(reply))
            break
    return count.report()


def grade_apart(cpu: float, memory_mb: int) -> None:
    """Run the whole life of a process that grades frames, with its channel on descriptor 0.

    It receives a job (`rule`, `tests`, `frames`, `end`: the last frame if that is a dict), the accepted values of each
    test, and the frames.
    """
    limits.limit(cpu, memory_mb, -1)
    channel = socket.socket(fileno=0)
    job = serialization.receive(channel)
    accepted = [serialization.receive(channel) for _ in range(job["tests"])]
    came: Iterator[Frame] = (serialization.receive_bytes(channel) for _ in range(job["frames"]))
    serialization.send(channel, graded(job["rule"], accepted, itertools.chain(came, job["end"])))


def _ask(channel: socket.socket, message: dict[str, Any], deadline: float) -> Frame:
    try:
        channel.settimeout(max(0.001, deadline - time.monotonic()))
        serialization.send(channel, message)
        return serialization.receive_bytes(channel, deadline)
    except TimeoutError:
        return {"over": "Timeout"}
    except (EOFError, ConnectionError):
        return {"over": "Killed"}
    except (serialization.SerializationError, MemoryError):
        return _UNREADABLE


def _reply(frame: bytes) -> dict[str, Any] | None:
    """The reply of a program, which cannot say that the run is over. None if the bytes are no reply."""
    try:
        reply = serialization.decoded(frame)
    except (serialization.SerializationError, MemoryError):
        return None
    return reply if isinstance(reply, dict) else None


def _grade(reply: dict[str, Any], accepted: list[Any], rule: str, count: Count) -> None:
    if "error" in reply:
        count.take_error(*error_of(reply))
        return
    try:
        result, _ = serialization.unpack(reply.get("value"))
    except (serialization.SerializationError, MemoryError):
        count.take_error("UnreadableResult", "unreadable_result")
        return
    expected = [serialization.unpack(value)[0] for value in accepted]
    count.take(right=any(same_value(result, value, rule) for value in expected), result=result, wanted=expected[0])
