"""Counts the tests of one program, and keeps its first failure.

Without a failure it keeps the first fault (`records.Fault`), because of which the tests give no verdict.
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
    """The tests passed of `total`, the tests seen, and the first failure or else the first fault."""

    def __init__(self, total: int) -> None:
        self.total = total
        self.passed = 0
        self.seen = 0
        self.detail = ""
        self.fault = ""

    def take(self, *, right: bool, result: Any, wanted: Any) -> None:
        """Count a result that was compared."""
        if right:
            self.passed += 1
        else:
            self.fail(f"WrongAnswer in test {self.seen}: {shown(result)}, expected {shown(wanted)}")
        self.seen += 1

    def take_error(self, error: str, fault: str = "") -> None:
        """Count a test without a result."""
        self.fail(f"{error[:SHOWN] or 'an exception without a name'} in test {self.seen}", fault)
        self.seen += 1

    def fail(self, detail: str, fault: str = "") -> None:
        """Note a failure, or a fault, of the whole run."""
        if not self.detail or (self.fault and not fault):
            self.detail, self.fault = detail, fault

    def report(self) -> dict[str, Any]:
        """The report that every grading process sends."""
        return {"passed": self.passed, "total": self.total, "detail": self.detail, "fault": self.fault, "beyond": ""}


def error_of(reply: dict[str, Any]) -> tuple[str, str]:
    """The name and the fault of an exception of the program, by its reply, which the program may have forged."""
    error, missing = (part if isinstance(part, str) else "" for part in (reply.get("error"), reply.get("missing")))
    error = error[:SHOWN] or "an exception without a name"
    if missing:
        return f"{error} ({missing[:SHOWN]})", "missing_package"
    return error, "unreadable_result" if error == "ResultTooLarge" else ""


def shown(value: Any) -> str:
    """The text of a value in a detail."""
    text = _repr.repr(value)
    return text if len(text) <= SHOWN else text[:SHOWN] + "..."
