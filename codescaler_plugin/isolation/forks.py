"""Puts off what library modules do at each fork.

`threading`, `random` and `logging` have the interpreter run functions of theirs at each fork. The fork server has no
other threads and seeds `random` itself, so its own forks need none of them and are faster without. Its children
register the functions for forks of their own.
"""

import os
from typing import Any

_put_off: list[dict[str, Any]] = []
_register = os.register_at_fork


def put_off() -> None:
    """Collect what modules that are imported from now on register."""
    os.register_at_fork = lambda **hooks: _put_off.append(hooks)


def register(*, and_run: bool = False) -> None:
    """Register it for forks of this process; `and_run` runs it in this process too, as after an ordinary fork."""
    os.register_at_fork = _register
    for hooks in _put_off:
        if and_run and "after_in_child" in hooks:
            hooks["after_in_child"]()
        _register(**hooks)
    _put_off.clear()
