"""Cells of a report's tables: how the values of an evaluation's result are written."""

from collections.abc import Callable, Mapping
from typing import Any

Result = Mapping[str, Any]
Cell = Callable[[Result], str]

count, decimals, percent = "{:,}".format, "{:.3f}".format, "{:.1%}".format


def share(mean: Result) -> str:
    """A share with its interval."""
    return f"{mean['value']:.3f} ({mean['low']:.3f} to {mean['high']:.3f})"


def sized_share(mean: Result) -> str:
    """A share with its interval and the number of rows."""
    return f"{share(mean)}, n={mean['rows']:,}"


def gain(mean: Result) -> str:
    """A difference with its interval."""
    return f"{mean['value']:+.3f} ({mean['low']:+.3f} to {mean['high']:+.3f})"


def doubt(mean: Result) -> str:
    """The end of a sentence about a gain: a warning unless its interval is above 0."""
    if mean["low"] > 0:
        return "."
    return ": the interval holds 0, so this may be chance." if mean["high"] >= 0 else ": it is worse."


def cell(write: Callable[[Any], str], *path: str, missing: str = "-") -> Cell:
    """A cell with the value at a path of the result, as `write` formats it; `missing` if there is none."""

    def written(result: Result) -> str:
        value: Any = result
        for key in path:
            value = (value or {}).get(key)
        return missing if value is None else write(value)

    return written
