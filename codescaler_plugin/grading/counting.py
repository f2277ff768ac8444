"""Counts the tests of one program, and keeps the first thing that went wrong.

What went wrong is a failure of the program, or a fault (`records.Fault`): then the tests gave no verdict. A failure
counts before any fault, whichever came first.
"""

import reprlib
from typing import Any

SHOWN = 100  # characters of a value, or of an error's name, in a detail

_LONG_BITS = 10_000  # Python refuses to write out whole numbers of above 14,284


class _Repr(reprlib.Repr):
    def repr_int(self, x: int, level: int) -> str:
        return super().repr_int(x, level) if x.bit_length() <= _LONG_BITS else f"<int of {x.bit_length()} bits>"


_repr = _Repr()  # bounded, and sets in order
_repr.maxlevel = 4
_repr.maxlist = _repr.maxtuple = _repr.maxset = _repr.maxdict = 12
_repr.maxstring = _repr.maxother = _repr.maxlong = SHOWN


class Count:
    """Tests passed of `total`, tests seen, and the first failure or else the first fault."""

    def __init__(self, total: int) -> None:
        self.total = total
        self.passed = 0
        self.seen = 0
        self.detail = ""
        self.fault = ""

    def take(self, *, right: bool, result: Any, wanted: Any) -> None:
        """A result that was compared."""
        if right:
            self.passed += 1
        else:
            self.fail(f"WrongAnswer in test {self.seen}: {shown(result)}, expected {shown(wanted)}")
        self.seen += 1

    def take_error(self, error: str, fault: str = "") -> None:
        """A test without a result."""
        self.fail(f"{error[:SHOWN] or 'an exception without a name'} in test {self.seen}", fault)
        self.seen += 1

    def fail(self, detail: str, fault: str = "") -> None:
        """What went wrong in the whole run."""
        if not self.detail or (self.fault and not fault):
            self.detail, self.fault = detail, fault

    def report(self) -> dict[str, Any]:
        """As every grading process sends it."""
        return {"passed": self.passed, "total": self.total, "detail": self.detail, "fault": self.fault, "beyond": ""}


def error_of(reply: dict[str, Any]) -> tuple[str, str]:
    """The name and the fault of what a candidate raised, from `candidate._error`, or from a candidate."""
    error, missing = (one if isinstance(one, str) else "" for one in (reply.get("error"), reply.get("missing")))
    error = error[:SHOWN] or "an exception without a name"
    if missing:
        return f"{error} ({missing[:SHOWN]})", "missing_package"
    return error, "unreadable_result" if error == "ResultTooLarge" else ""


def shown(value: Any) -> str:
    """A value in a detail."""
    text = _repr.repr(value)
    return text if len(text) <= SHOWN else text[:SHOWN] + "..."
