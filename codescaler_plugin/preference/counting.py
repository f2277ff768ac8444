"""What a candidate's results are worth: compared with what was wanted, and counted, outside of its process."""

import reprlib
from collections.abc import Iterable, Sequence
from typing import Any

from codescaler_plugin.errors import SandboxError
from codescaler_plugin.preference.cage import wire
from codescaler_plugin.records import CallTest, Problem

SHOWN = 100  # characters of a value, or of an error's name, in a detail

_LONG_BITS = 10_000  # Python refuses to write out whole numbers of above 14,284


class _Repr(reprlib.Repr):
    def repr_int(self, x: int, level: int) -> str:
        return super().repr_int(x, level) if x.bit_length() <= _LONG_BITS else f"<int of {x.bit_length()} bits>"


_repr = _Repr()  # bounded, and sets in order
_repr.maxlevel = 4
_repr.maxlist = _repr.maxtuple = _repr.maxset = _repr.maxdict = 12
_repr.maxstring = _repr.maxother = _repr.maxlong = SHOWN


class TestCount:
    """Tests passed, tests seen, and the first failure."""

    __test__ = False  # not one of pytest's

    def __init__(self) -> None:
        self.passed = 0
        self.seen = 0
        self.detail = ""

    def take(self, error: str, result: Any, wanted: Any) -> None:
        """One test's outcome: what went wrong, else what came and what was wanted."""
        if not error and _equal(result, wanted):
            self.passed += 1
        elif error:
            self.fail(f"{error} in test {self.seen}")
        else:
            self.fail(f"WrongAnswer in test {self.seen}: {_short(result)}, expected {_short(wanted)}")
        self.seen += 1

    def fail(self, detail: str) -> None:
        """The whole run failed; an earlier failure stays the first."""
        self.detail = self.detail or detail


def packed(problem: Problem, tests: Sequence[CallTest]) -> tuple[list[Any], list[Any]]:
    """The calls to send, and the values to expect back, as they would come through the wire.

    Raises:
        SandboxError: a test's values cannot be sent.
    """
    try:
        requests = [wire.pack((tuple(test.arguments), {}))[0] for test in tests]
        expected = [wire.unpack(wire.pack(test.expected)[0])[0] for test in tests]
    except wire.UnsendableError as error:
        raise SandboxError(f"a test of problem {problem.id!r} holds a value that is no plain data: {error}") from None
    return requests, expected


def count_calls(replies: Iterable[dict[str, Any]], expected: Sequence[Any]) -> TestCount:
    """Compare the replies of `cage.calls` with what was wanted."""
    count = TestCount()
    for number, reply in enumerate(replies):
        if "over" in reply:
            count.fail(str(reply["over"])[:SHOWN])
            return count
        error, value = str(reply.get("error", ""))[:SHOWN], None
        if not error:
            try:
                value, _ = wire.unpack(reply.get("value"))
            except wire.WireError:
                error = "UnreadableResult"
        count.take(error, value, expected[number])
    return count


def trimmed(text: str) -> str:
    """A program's output without white space at the ends of lines and text."""
    return "\n".join(line.rstrip() for line in text.strip().split("\n"))


def _short(value: Any) -> str:
    text = _repr.repr(value)
    return text if len(text) <= SHOWN else text[:SHOWN] + "..."


def _equal(result: Any, wanted: Any) -> bool:
    """As JSON would have it: a tuple is a list, a number as a key is its text. Goes no deeper than `wanted` does."""
    try:
        return _same(result, wanted)
    except (RecursionError, ArithmeticError, ValueError):  # a signalling NaN, a key too long to be written out
        return False


def _same(result: Any, wanted: Any) -> bool:
    if isinstance(wanted, list | tuple):
        if not isinstance(result, list | tuple) or len(result) != len(wanted):
            return False
        return all(map(_same, result, wanted))
    if isinstance(wanted, dict):
        if not isinstance(result, dict) or len(result) != len(wanted):
            return False
        found = {_key(key): value for key, value in result.items()}
        return all(_key(key) in found and _same(found[_key(key)], value) for key, value in wanted.items())
    return bool(result == wanted)


def _key(key: Any) -> str:
    return key if isinstance(key, str) else repr(key)
