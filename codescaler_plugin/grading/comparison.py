"""Compares results and outputs with what tests expect, by the rules of `records.Comparison`, and counts the tests.

Every comparison takes time linear in what is expected, because results come from model-written programs.
"""

import decimal
import math
import re
import reprlib
from itertools import repeat
from typing import Any

SHOWN = 100  # characters of a value, or of an error's name, in a detail
_LONG_BITS = 10_000  # Python refuses to write out whole numbers of above 14,284
_TOLERANCE = 1e-5  # CodeContests'
_CLOSE_ABSOLUTE, _CLOSE_RELATIVE = 1e-8, 1e-5  # NumPy's `allclose`
_WHOLE = re.compile(r"([+-]?)0*([0-9]+)")
_NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")


def same_text(output: str, expected: str, rule: str) -> bool:
    """Whether a program's output is the expected one, by `exact`, `tokens`, `decimal_lines`, `allclose` or `set`."""
    expected_lines = trimmed(expected).split("\n")
    lines = output.strip().split("\n", len(expected_lines))  # no more: it may be far longer
    lines = [line.rstrip() for line in lines]
    if lines == expected_lines:
        return True
    if rule in ("tokens", "allclose"):
        expected_tokens = expected.split()
        tokens = output.split(None, len(expected_tokens))
        return len(tokens) == len(expected_tokens) and all(map(_same_token, tokens, expected_tokens, repeat(rule)))
    if rule == "set":
        return set(trimmed(output).split("\n")) == set(expected_lines)
    is_as_long = len(lines) == len(expected_lines)
    return rule == "decimal_lines" and is_as_long and all(map(_same_decimals, lines, expected_lines))


def trimmed(text: str) -> str:
    """A text without white space at its ends and at the ends of its lines."""
    return "\n".join(line.rstrip() for line in text.strip().split("\n"))


def same_value(result: Any, expected: Any, rule: str) -> bool:
    """Whether a call's result is the expected one, by `exact`, `tokens`, `allclose` or `set`.

    A tuple equals a list, and a number as a key its text, as in JSON. The comparison goes only as deep as `expected`.
    """
    try:
        return _same(result, expected, rule)
    except (RecursionError, ArithmeticError, ValueError, TypeError):  # a signalling NaN, a key too long to write out
        return False


def _same_token(token: str, expected: str, rule: str) -> bool:
    if token == expected or (rule == "tokens" and token.casefold() == expected.casefold()):
        return True
    whole, expected_whole = _WHOLE.fullmatch(token), _WHOLE.fullmatch(expected)
    if whole and expected_whole:  # as text: Python refuses to read whole numbers of over 4300 digits
        same_sign = (whole[1] == "-") == (expected_whole[1] == "-")
        return whole[2] == expected_whole[2] and (whole[2] == "0" or same_sign)
    if not (_NUMBER.fullmatch(token) and _NUMBER.fullmatch(expected)):
        return False
    return _close(float(token), float(expected), rule, is_whole=expected_whole is not None)


def _close(number: float, expected: float, rule: str, *, is_whole: bool) -> bool:
    """Whether two numbers are near enough. `tokens` does not scale its tolerance for an expected whole number."""
    if number == expected or (math.isnan(number) and math.isnan(expected)):
        return True
    if rule == "allclose":
        return abs(number - expected) <= _CLOSE_ABSOLUTE + _CLOSE_RELATIVE * abs(expected)
    return abs(number - expected) <= _TOLERANCE * (1.0 if is_whole else max(1.0, abs(expected)))


def _same_decimals(line: str, expected: str) -> bool:
    if line == expected:
        return True
    tokens, expected_tokens = line.split(), expected.split()
    if len(tokens) != len(expected_tokens):
        return False
    try:
        return list(map(decimal.Decimal, tokens)) == list(map(decimal.Decimal, expected_tokens))
    except decimal.InvalidOperation:  # no number; or a signalling NaN
        return False


def _same(result: Any, expected: Any, rule: str) -> bool:
    if isinstance(expected, (list, tuple)):
        if not isinstance(result, (list, tuple)):
            return False
        if rule == "set":
            return set(map(_hashable, result)) == set(map(_hashable, expected))
        return len(result) == len(expected) and all(map(_same, result, expected, repeat(rule)))
    if isinstance(expected, dict):
        if not isinstance(result, dict) or len(result) != len(expected):
            return False
        by_key = {_key(key): value for key, value in result.items()}
        return all(_key(key) in by_key and _same(by_key[_key(key)], value, rule) for key, value in expected.items())
    if rule in ("tokens", "allclose") and isinstance(expected, (int, float)) and isinstance(result, (int, float)):
        if isinstance(expected, int) and isinstance(result, int):
            return result == expected
        return _close(float(result), float(expected), rule, is_whole=isinstance(expected, int))
    return bool(result == expected)


def _key(key: Any) -> str:
    return key if isinstance(key, str) else repr(key)


def _hashable(item: Any) -> Any:
    if isinstance(item, (list, tuple)):
        return tuple(map(_hashable, item))
    if isinstance(item, dict):
        return frozenset((_key(key), _hashable(value)) for key, value in item.items())
    return frozenset(item) if isinstance(item, set) else item


class _Repr(reprlib.Repr):
    def repr_int(self, x: int, level: int) -> str:
        return super().repr_int(x, level) if x.bit_length() <= _LONG_BITS else f"<int of {x.bit_length()} bits>"


_repr = _Repr()  # bounded, and sets in order
_repr.maxlevel = 4
_repr.maxlist = _repr.maxtuple = _repr.maxset = _repr.maxdict = 12
_repr.maxstring = _repr.maxother = _repr.maxlong = SHOWN


class Count:
    """The tests passed of `total`, the tests seen, and the first failure or else the first fault (`records.Fault`)."""

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
