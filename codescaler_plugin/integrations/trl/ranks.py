"""The processes of a training, which log metrics together.

TRL averages a metric over the processes, up to 1.13 by one collective call a name: where one process logs fewer names
than the others, as it does if it has no valid program, the training hangs. So what not every process may have is
gathered first, and each logs the same.
"""

import os
import sys
from typing import TypeVar

T = TypeVar("T")


def gathered(value: T) -> list[T]:
    """The values of all processes, in the order of their ranks; the one value where there is one process.

    All processes must call it, as they must call the host's own collectives. Values are pickled.
    """
    if "accelerate" not in sys.modules:
        return [value]
    from accelerate.state import PartialState, is_initialized
    from accelerate.utils import gather_object

    if not is_initialized() or PartialState().num_processes == 1:
        return [value]
    values: list[T] = gather_object([value])
    return values


def processes_here() -> int:
    """The processes of the training on this machine, which share its cores; 1 where no launcher says how many."""
    return max(1, int(os.environ.get("LOCAL_WORLD_SIZE", "1")))
