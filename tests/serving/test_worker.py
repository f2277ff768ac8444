"""The worker ends with its parent."""

import os
import signal
import time
from pathlib import Path

import psutil

from tests.serving.running import Command, children


def test_worker_ends_with_a_front_that_was_killed(tmp_path: Path) -> None:
    started = Command(tmp_path / "log", "--model", "builtin")
    [worker] = children(started.process.pid)
    time.sleep(0.5)
    os.kill(started.process.pid, signal.SIGKILL)
    started.process.wait()
    _, alive = psutil.wait_procs([worker], timeout=20)
    assert alive == []
