"""What all adapters need to read a row: parsed values whatever holds them, the id, the text, the limit of time."""

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
    """A row of plain lists, dicts and numbers, whatever Arrow or NumPy made of them; a cell of NaN is null."""
    return {
        name: None if isinstance(value, float) and math.isnan(value) else _plain(value) for name, value in row.items()
    }


def _plain(value: Any) -> Any:
    if hasattr(value, "tolist"):  # of NumPy: an array, or a number
        value = value.tolist()
    if isinstance(value, Mapping):
        return {name: _plain(one) for name, one in value.items()}
    return [_plain(one) for one in value] if isinstance(value, list | tuple) else value


def parsed(value: Any) -> Any:
    """The value of a column that holds JSON, as text or parsed already; an empty text is null."""
    if not isinstance(value, str):
        return value
    try:
        return loads(value) if value.strip() else None
    except ValueError as error:
        raise DataError(f"a column should hold JSON and holds {reprlib.repr(value)}: {error}") from error


def row_id(row: Row) -> str:
    """The id of a row of problems, whose `id` is the problem's; empty if it has none."""
    return problem_id_of(row) or ("" if row.get("id") is None else str(row["id"]))


def stated(text: Any) -> str:
    """A problem as it stands; of messages, the user's."""
    return problem_text(text, is_stated=True)


def lines(text: Any) -> str:
    """Input or output of a program: a text, or a list of its lines. Line ends of Windows become those of Linux."""
    if isinstance(text, list):
        return "\n".join(lines(line) for line in text)
    return text.replace("\r\n", "\n") if isinstance(text, str) else dumps(text)


def seconds(limit: Any) -> float | None:
    """A limit of time as data sets write it: a number, `2.0 seconds`, or seconds and nanos; None if there is none."""
    if isinstance(limit, Mapping):
        limit = (limit.get("seconds") or 0) + (limit.get("nanos") or 0) / 1e9
    elif isinstance(limit, str):
        found = re.fullmatch(r"\s*([0-9]+(?:\.[0-9]*)?)\s*([a-z]*)\.?\s*", limit.lower())
        limit = float(found[1]) * _UNITS.get(found[2], math.nan) if found else None
    return float(limit) if isinstance(limit, int | float) and limit > 0 else None
