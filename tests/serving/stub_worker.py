"""A scoring worker without a model: scores by length, and does what the code tells it to. `python -m` it."""

import math
import os
import re
import signal
import time
from pathlib import Path

from codescaler_plugin.config import CodeScalerConfig
from codescaler_plugin.errors import ScorerError
from codescaler_plugin.pipeline import CodeScaler
from codescaler_plugin.serving.worker import main
from codescaler_plugin.testing import FakeScorer


def obey(_: str, code: str) -> float:
    """`die`, `die_once = 'FILE'`, `hang`, `raise_`, `out_of_memory`, `nan`, `slow = SECONDS` in the code."""
    if once := re.search(r"die_once = '(.+)'", code):
        if not Path(once[1]).exists():
            Path(once[1]).touch()
            os.kill(os.getpid(), signal.SIGKILL)
    elif "die" in code:
        os.kill(os.getpid(), signal.SIGKILL)
    if "hang" in code:
        time.sleep(1000)
    if "raise_" in code:
        raise ScorerError("the scorer is broken")
    if "out_of_memory" in code:
        raise MemoryError
    if slow := re.search(r"slow = ([\d.]+)", code):
        time.sleep(float(slow[1]))
    return math.nan if "nan" in code else len(code) / 100 - 1


def scaler(config: CodeScalerConfig) -> CodeScaler:
    return CodeScaler(FakeScorer(obey), config=config)


if __name__ == "__main__":
    main(scaler)
