"""The cells and tables of results: numbers as text, and models side by side."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TypeVar

from codescaler_plugin.intervals import Mean
from codescaler_plugin.report.sections import Table

R = TypeVar("R")
Value = TypeVar("Value")
Key = TypeVar("Key")
Models = Mapping[str, R]  # the results of one evaluation, by the label of the model
Cell = Callable[[R], str]
Line = tuple[str, Cell[R]] | str  # a row of `side_by_side`: a name with the cell of each model, or a heading

count, decimals, percent = "{:,}".format, "{:.3f}".format, "{:.1%}".format


def share(mean: Mean) -> str:
    """A share with its interval.

    Example:
        >>> share(Mean(0.8125, 0.7, 0.9, rows=16, problems=4))
        '0.812 (0.700 to 0.900)'
    """
    return f"{mean.value:.3f} ({mean.low:.3f} to {mean.high:.3f})"


def sized_share(mean: Mean) -> str:
    """A share with its interval and the number of rows."""
    return f"{share(mean)}, n={mean.rows:,}"


def gain(mean: Mean) -> str:
    """A difference with its interval."""
    return f"{mean.value:+.3f} ({mean.low:+.3f} to {mean.high:+.3f})"


def doubt(mean: Mean) -> str:
    """The end of a sentence about a gain: a warning unless its interval is above 0."""
    if mean.low > 0:
        return "."
    return ": the interval holds 0, so this may be chance." if mean.high >= 0 else ": it is worse."


def known(write: Callable[[Value], str], value: Value | None, missing: str = "-") -> str:
    """The cell of a value, or `missing` if it is None."""
    return missing if value is None else write(value)


def names_of(mappings: Iterable[Mapping[Key, object]]) -> list[Key]:
    """The keys of all mappings, each once, in order."""
    return list(dict.fromkeys(name for mapping in mappings for name in mapping))


def side_by_side(models: Models[R], lines: Sequence[Line[R]]) -> Table:
    """A table with a column for each model. Rows without any value and headings without rows are left out.

    Example:
        >>> table = side_by_side({"a": 0.5, "b": 0.25}, ["Accuracy", ("all pairs", decimals), "Empty"])
        >>> table.rows
        [['Accuracy'], ['all pairs', '0.500', '0.250']]
    """
    rows: list[list[str]] = []
    for line in lines:
        row = [line] if isinstance(line, str) else [line[0], *(line[1](result) for result in models.values())]
        if set(row[1:]) != {"-"}:
            rows.append(row)
    kept = [row for row, after in zip(rows, [*rows[1:], [""]], strict=True) if len(row) > 1 or len(after) > 1]
    return Table(["", *models], kept)
