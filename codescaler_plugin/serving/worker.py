"""The process that holds the model. It reads batches from stdin and writes answers to stdout, as frames of JSON.

A frame is its length (4 bytes, big endian) and UTF-8 JSON. The first frame in holds the settings. The first frame out
is `ready` after a scored warm-up, or `fatal` with the reason. The process ends with its parent, even a killed one.
"""

import ctypes
import json
import logging
import os
import select
import signal
import struct
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, is_dataclass
from threading import Lock
from typing import Any, BinaryIO

from codescaler_plugin.config import CodeScalerConfig
from codescaler_plugin.errors import ConfigError, ScorerError
from codescaler_plugin.pipeline import CodeScaler
from codescaler_plugin.serving.samples import Sample, judge_samples

LENGTH = struct.Struct(">I")
THREADS = 8  # batches at a time; the parent sends as many as the engine takes
_PR_SET_PDEATHSIG = 1
_M_ARENA_MAX = -8
_TRIM_SECONDS = 30.0  # between two returns of free memory, each of which makes the next batch a little slower


def keep_one_heap() -> None:
    """Let all threads share one heap, so that long texts do not leave free memory in the heap of each."""
    _glibc("mallopt", _M_ARENA_MAX, 1)


def _glibc(function: str, *arguments: int) -> None:
    if sys.platform == "linux" and hasattr(library := ctypes.CDLL(None), function):
        getattr(library, function)(*arguments)


def frame(message: Any) -> bytes:
    """The bytes of one message."""
    body = json.dumps(message).encode()
    return LENGTH.pack(len(body)) + body


def main(make_scaler: Callable[[CodeScalerConfig], CodeScaler] = lambda config: CodeScaler(config=config)) -> None:
    """Serve frames until stdin ends."""
    keep_one_heap()
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if _is_alone():  # the parent ended before it could be watched
        return
    for number in (signal.SIGINT, signal.SIGHUP):  # Ctrl-C and a terminal that closes reach the group
        signal.signal(number, signal.SIG_IGN)  # the parent decides when this ends
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")  # of loading weights: this is a log
    logging.basicConfig(format="%(asctime)s worker %(levelname)s %(name)s: %(message)s", level=logging.INFO)
    source = os.fdopen(os.dup(0), "rb")
    sink = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a library prints must not end up between frames
    settings = _read(source)
    if settings is None:
        return
    lock = Lock()
    trimmed = time.monotonic()

    def send(message: Any) -> None:
        with lock:
            sink.write(frame(message))
            sink.flush()

    try:
        scaler = make_scaler(CodeScalerConfig(**settings))
        scaler.check()
    except (ConfigError, ScorerError) as error:
        send({"fatal": str(error), "lasting": isinstance(error, ConfigError)})
        return
    send({"ready": True})

    def answer(request: dict[str, Any]) -> None:
        nonlocal trimmed
        judgements = judge_samples(scaler, [Sample(*fields) for fields in request["samples"]])
        stats = getattr(scaler.scorer, "stats", None)
        numbers = asdict(stats) if is_dataclass(stats) and not isinstance(stats, type) else {}
        send({"id": request["id"], "judgements": [row.to_json() for row in judgements], "stats": numbers})
        if time.monotonic() - trimmed > _TRIM_SECONDS:
            trimmed = time.monotonic()
            _glibc("malloc_trim", 0)  # free memory goes back to the system

    def guarded(request: dict[str, Any]) -> None:
        try:
            answer(request)
        except BaseException:  # a batch without an answer would wait for ever: end, and be restarted
            logging.getLogger(__name__).exception("the worker ends")
            os._exit(1)

    with ThreadPoolExecutor(THREADS) as pool:
        while (request := _read(source)) is not None:
            pool.submit(guarded, request)
        os._exit(0)  # the parent is gone, and nobody waits for an answer


def _is_alone() -> bool:
    """True if the other end of stdin is closed."""
    stdin = select.poll()
    stdin.register(0, select.POLLHUP)
    return any(event & select.POLLHUP for _, event in stdin.poll(0))


def _read(source: BinaryIO) -> Any:
    """The next message, or None at the end."""
    header = source.read(LENGTH.size)
    if len(header) < LENGTH.size:
        return None
    (length,) = LENGTH.unpack(header)
    body = source.read(length)
    return json.loads(body) if len(body) == length else None


if __name__ == "__main__":
    main()
