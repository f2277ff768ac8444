"""What library modules have done in each forked process, put off.

`threading`, `random` and `logging` have the interpreter run functions of theirs at each fork. The warm process has no
other threads, and seeds `random` itself: its own forks need none of them and are faster without. Its children register
them for forks of their own.
"""

import os
from typing import Any

_put_off: list[dict[str, Any]] = []
_register = os.register_at_fork


def put_off() -> None:
    """Collect what modules that are imported from now on want to be done."""
    os.register_at_fork = lambda **hooks: _put_off.append(hooks)


def register(*, and_run: bool = False) -> None:
    """Have it done in forks of this process; `and_run`: in this process too, as after an ordinary fork."""
    os.register_at_fork = _register
    for hooks in _put_off:
        if and_run and "after_in_child" in hooks:
            hooks["after_in_child"]()
        _register(**hooks)
    _put_off.clear()
