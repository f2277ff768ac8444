"""Compares results and outputs with what tests expect, by the rules of `records.Comparison`.

Every comparison takes time linear in what is expected, because results come from model-written programs.
"""

import decimal
import math
import re
from itertools import repeat
from typing import Any

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
    return (
        rule == "decimal_lines"
        and len(lines) == len(expected_lines)
        and all(map(_same_decimals, lines, expected_lines))
    )


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
