"""CPU threads by the size of the model: a small one computes faster alone than with others that it must wait for."""

from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock, local
from typing import Any

SMALL = 10_000_000
"""Parameters below which one thread is used: a choice, for models of demonstrations and tests. What it trades is much
the same at 1M and at 38M parameters (`benchmarks/bench_threads.py`); larger models are worth all cores."""

_lock = Lock()
_inside = 0  # blocks of all threads
_before = 1
_own = local()  # `depth`: blocks of this thread; OpenMP keeps a number for each


@contextmanager
def fitting_threads(model: Any) -> Iterator[None]:
    """Inside, torch uses one CPU thread if `model` is on the CPU and has fewer than `SMALL` parameters.

    Torch divides each operation among its threads and waits for the slowest. The parts of a small model take
    microseconds, so a second process on the machine makes all threads wait: scoring on two cores, two threads then
    took 1.6 to 2.2 times as long as one, and 0.6 to 0.8 times alone (`benchmarks/bench_threads.py`). Larger models and
    models on a GPU keep the caller's number of threads. It is never raised.

    Args:
        model: a module of torch.

    Example:
        >>> with fitting_threads(model):
        ...     model(input_ids)
    """
    import torch

    global _inside, _before
    if next(model.parameters()).device.type != "cpu" or sum(one.numel() for one in model.parameters()) >= SMALL:
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
            if not _own.depth:  # a reward model inside of a policy's training leaves that training its one thread
                torch.set_num_threads(_before)
