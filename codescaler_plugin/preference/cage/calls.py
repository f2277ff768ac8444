"""Asks a candidate's process call after call. What it answers is data; whether it is right is decided elsewhere."""

import socket
import time
from collections.abc import Iterator, Sequence
from typing import Any

from . import wire

_SHOWN = 100  # characters of an error's name


def replies(
    channel: socket.socket, code: str, preamble: str, entry_point: str, requests: Sequence[Any], timeout: float
) -> Iterator[dict[str, Any]]:
    """Load code behind `channel`, then a reply per request, in order.

    A reply is `{"value": message}` or `{"error": name}`; `{"over": detail}` is the last if no more can come.

    Args:
        channel: to a process in `candidate.serve_calls`.
        code: of the candidate.
        preamble: runs before it.
        entry_point: what is called.
        requests: arguments of each call, packed.
        timeout: wall seconds for all of it.
    """
    deadline = time.monotonic() + timeout
    reply = _ask(channel, {"code": code, "preamble": preamble}, deadline)
    if "error" in reply:
        reply = {"over": reply["error"]}
    for request in requests:
        if "over" in reply:
            yield reply
            return
        message = {"target": entry_point, "verb": "call", "value": request, "classes": [], "copy_back": False}
        reply = _ask(channel, message, deadline)
        if "over" not in reply:
            yield reply
    if "over" in reply:
        yield reply


def _ask(channel: socket.socket, message: dict[str, Any], deadline: float) -> dict[str, Any]:
    try:
        channel.settimeout(max(0.001, deadline - time.monotonic()))
        wire.send(channel, message)
        reply = wire.receive(channel, deadline)
    except TimeoutError:
        return {"over": "Timeout"}
    except (EOFError, ConnectionError):
        return {"over": "Killed"}
    except wire.WireError:
        return {"over": "UnreadableResult"}
    if not isinstance(reply, dict):
        return {"over": "UnreadableResult"}
    return {"error": str(reply["error"])[:_SHOWN]} if "error" in reply else {"value": reply.get("value")}
