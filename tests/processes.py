"""Processes that tests start, and the time that calls take."""

import os
import time
from collections.abc import Callable


def untraced(**more: str) -> dict[str, str]:
    """This process's environment without coverage: what it traces is a third slower, and others cover it already."""
    return {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE_")} | more


def keeps(bound: float, call: Callable[[], object]) -> bool:
    """Whether a call takes less CPU time than so many seconds, at its best of five: a busy core slows it now and then."""
    for _ in range(5):
        start = time.thread_time()
        call()
        if time.thread_time() - start < bound:
            return True
    return False
