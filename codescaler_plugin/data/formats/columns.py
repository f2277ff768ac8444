"""Reads the columns that many formats share: parsed values, ids, texts, time limits."""

import math
import re
import reprlib
from collections.abc import Mapping
from typing import Any

from codescaler_plugin.data.rollouts import problem_id_of
from codescaler_plugin.data.rows import dumps, loads
from codescaler_plugin.errors import DataError
from codescaler_plugin.text.messages import problem_text

Row = Mapping[str, Any]

_UNITS = {"": 1.0, "s": 1.0, "sec": 1.0, "second": 1.0, "seconds": 1.0, "ms": 1e-3, "milliseconds": 1e-3}


def plain_row(row: Row) -> dict[str, Any]:
    """The row with plain lists, dicts and numbers in place of those of Arrow and NumPy, and None in place of NaN."""
    return {
        name: None if isinstance(value, float) and math.isnan(value) else _plain(value) for name, value in row.items()
    }


def _plain(value: Any) -> Any:
    if hasattr(value, "tolist"):  # of NumPy: an array, or a number
        value = value.tolist()
    if isinstance(value, Mapping):
        return {name: _plain(item) for name, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value


def parsed(value: Any) -> Any:
    """The value of a column of JSON, which may be parsed already. An empty text is null."""
    if not isinstance(value, str):
        return value
    try:
        return loads(value) if value.strip() else None
    except ValueError as error:
        raise DataError(f"a column should hold JSON and holds {reprlib.repr(value)}: {error}") from error


def row_id(row: Row) -> str:
    """The id of a row of problems, which may be in the column `id`; empty if it has none."""
    return problem_id_of(row) or ("" if row.get("id") is None else str(row["id"]))


def stated(text: Any) -> str:
    """The text of a problem as it stands; of messages, the user's turn."""
    return problem_text(text, is_stated=True)


def lines(text: Any) -> str:
    """Input or output of a program, which may be a list of lines. CRLF becomes LF."""
    if isinstance(text, list):
        return "\n".join(lines(line) for line in text)
    return text.replace("\r\n", "\n") if isinstance(text, str) else dumps(text)


def seconds(limit: Any) -> float | None:
    """A time limit in seconds: a number, a text as `2.0 seconds`, or a dict of seconds and nanos. None: no limit."""
    if isinstance(limit, Mapping):
        limit = (limit.get("seconds") or 0) + (limit.get("nanos") or 0) / 1e9
    elif isinstance(limit, str):
        match = re.fullmatch(r"\s*([0-9]+(?:\.[0-9]*)?)\s*([a-z]*)\.?\s*", limit.lower())
        limit = float(match[1]) * _UNITS.get(match[2], math.nan) if match else None
    return float(limit) if isinstance(limit, int | float) and limit > 0 else None
