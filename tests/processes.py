"""Processes that tests start, and the time that calls take."""

import os
import time
from collections.abc import Callable
from typing import Any

import pytest

from codescaler_plugin.errors import SandboxError
from codescaler_plugin.execution.sandbox import Sandbox


def untraced(**more: str) -> dict[str, str]:
    """This process's environment without coverage: what it traces is a third slower, and others cover it already."""
    return {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE_")} | more


def sandbox_or_skip(isolation: str, **settings: Any) -> Sandbox:
    """A sandbox of one worker, held by this isolation; the test is skipped where the machine does not offer it."""
    try:
        return Sandbox(isolation=isolation, workers=1, **settings)
    except SandboxError as error:
        pytest.skip(str(error))


FIXED_WORK = 0.0025  # CPU seconds of `_fixed_work` on the machine that the bounds were set on


def _fixed_work() -> None:
    total = 0
    for number in range(40_000):
        total += number % 7


def _cpu_seconds(call: Callable[[], object]) -> float:
    start = time.thread_time()
    call()
    return time.thread_time() - start


def keeps(bound: float, call: Callable[[], object]) -> bool:
    """Whether a call takes less CPU time than a bound in seconds, at its best of five.

    The bound holds at the speed that it was set at. Where a fixed piece of work takes twice as long, because the core or
    the Python is slower or the core shares its units with another one, a call has twice the time.
    """
    for _ in range(5):
        slowness = max(1.0, _cpu_seconds(_fixed_work) / FIXED_WORK)
        if _cpu_seconds(call) < bound * slowness:
            return True
    return False
