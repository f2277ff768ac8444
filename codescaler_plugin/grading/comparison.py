"""Compares results and outputs with what tests expect, each by the rule that its data set names.

The rules are those of `records.Comparison`. Everything here takes time linear in what is expected, for results come
from model-written programs.
"""

import decimal
import math
import re
from typing import Any

_TOLERANCE = 1e-5  # CodeContests'
_CLOSE_ABSOLUTE, _CLOSE_RELATIVE = 1e-8, 1e-5  # NumPy's `allclose`
_WHOLE = re.compile(r"([+-]?)0*([0-9]+)")
_NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")


def same_text(output: str, wanted: str, rule: str) -> bool:
    """Whether a program's output is what is expected, by `exact`, `tokens`, `decimal_lines`, `allclose` or `set`."""
    expected = trimmed(wanted).split("\n")
    lines = [line.rstrip() for line in output.strip().split("\n", len(expected))]  # no more: it may be far longer
    if lines == expected:
        return True
    if rule in ("tokens", "allclose"):
        tokens = wanted.split()
        found = output.split(None, len(tokens))
        return len(found) == len(tokens) and all(
            _same_token(one, other, rule) for one, other in zip(found, tokens, strict=True)
        )
    if rule == "set":
        return set(trimmed(output).split("\n")) == set(expected)
    return rule == "decimal_lines" and len(lines) == len(expected) and all(map(_same_decimals, lines, expected))


def trimmed(text: str) -> str:
    """A program's output without white space at the ends of lines and text."""
    return "\n".join(line.rstrip() for line in text.strip().split("\n"))


def same_value(result: Any, wanted: Any, rule: str) -> bool:
    """Whether a call's result is what is expected, by `exact`, `tokens`, `allclose` or `set`.

    As JSON would have it: a tuple is a list, a number as a key is its text. Goes no deeper than `wanted` does.
    """
    try:
        return _same(result, wanted, rule)
    except (RecursionError, ArithmeticError, ValueError, TypeError):  # a signalling NaN, a key too long to write out
        return False


def _same_token(found: str, wanted: str, rule: str) -> bool:
    if found == wanted or (rule == "tokens" and found.casefold() == wanted.casefold()):
        return True
    whole, expected = _WHOLE.fullmatch(found), _WHOLE.fullmatch(wanted)
    if whole and expected:  # as text: Python refuses to read whole numbers of over 4300 digits
        return whole[2] == expected[2] and (whole[2] == "0" or (whole[1] == "-") == (expected[1] == "-"))
    if not (_NUMBER.fullmatch(found) and _NUMBER.fullmatch(wanted)):
        return False
    return _close(float(found), float(wanted), rule, is_whole=expected is not None)


def _close(found: float, wanted: float, rule: str, *, is_whole: bool) -> bool:
    """Whether two numbers are near enough; next to a whole number, `tokens` takes the tolerance as it stands."""
    if found == wanted or (math.isnan(found) and math.isnan(wanted)):
        return True
    if rule == "allclose":
        return abs(found - wanted) <= _CLOSE_ABSOLUTE + _CLOSE_RELATIVE * abs(wanted)
    return abs(found - wanted) <= _TOLERANCE * (1.0 if is_whole else max(1.0, abs(wanted)))


def _same_decimals(line: str, wanted: str) -> bool:
    if line == wanted:
        return True
    found, expected = line.split(), wanted.split()
    if len(found) != len(expected):
        return False
    try:
        return all(decimal.Decimal(one) == decimal.Decimal(other) for one, other in zip(found, expected, strict=True))
    except decimal.InvalidOperation:  # no number; or a signalling NaN
        return False


def _same(result: Any, wanted: Any, rule: str) -> bool:
    if isinstance(wanted, (list, tuple)):
        if not isinstance(result, (list, tuple)):
            return False
        if rule == "set":
            return set(map(_hashable, result)) == set(map(_hashable, wanted))
        return len(result) == len(wanted) and all(map(_same, result, wanted, [rule] * len(wanted)))
    if isinstance(wanted, dict):
        if not isinstance(result, dict) or len(result) != len(wanted):
            return False
        found = {_key(key): value for key, value in result.items()}
        return all(_key(key) in found and _same(found[_key(key)], value, rule) for key, value in wanted.items())
    if rule in ("tokens", "allclose") and isinstance(wanted, (int, float)) and isinstance(result, (int, float)):
        if isinstance(wanted, int) and isinstance(result, int):
            return result == wanted
        return _close(float(result), float(wanted), rule, is_whole=isinstance(wanted, int))
    return bool(result == wanted)


def _key(key: Any) -> str:
    return key if isinstance(key, str) else repr(key)


def _hashable(item: Any) -> Any:
    if isinstance(item, (list, tuple)):
        return tuple(map(_hashable, item))
    if isinstance(item, dict):
        return frozenset((_key(key), _hashable(value)) for key, value in item.items())
    return frozenset(item) if isinstance(item, set) else item
