"""The number of CPU threads by the size of the model: small models are faster on one thread."""

from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock, local
from typing import Any

SMALL = 10_000_000
"""Parameters below which a model gets one thread: a choice, as the trade-off is similar at 1M and 38M parameters."""

_lock = Lock()
_inside = 0  # blocks of all threads
_before = 1
_own = local()  # `depth`: blocks of this thread. OpenMP has a number of threads for each thread.


@contextmanager
def fitting_threads(model: Any) -> Iterator[None]:
    """Inside, torch uses one CPU thread if `model` is on the CPU and has fewer than `SMALL` parameters.

    Torch splits each operation over its threads and waits for the slowest. The operations of a small model take
    microseconds, so a second process on the machine delays all threads. Scoring on two cores, two threads took 1.6 to
    2.2 times as long as one beside such a process, and 0.6 to 0.8 times without it (`benchmarks/bench_threads.py`).
    Larger models and models on a GPU keep the caller's number of threads, which is never raised.
    """
    import torch

    global _inside, _before
    if next(model.parameters()).device.type != "cpu" or sum(weight.numel() for weight in model.parameters()) >= SMALL:
        yield
        return
    _own.depth = getattr(_own, "depth", 0) + 1
    with _lock:
        if not _inside:  # only the first to enter sees the caller's number
            _before = torch.get_num_threads()
        _inside += 1
        torch.set_num_threads(1)
    try:
        yield
    finally:
        _own.depth -= 1
        with _lock:
            _inside -= 1
            if not _own.depth:  # else a reward model inside a policy's training would end that training's one thread
                torch.set_num_threads(_before)
