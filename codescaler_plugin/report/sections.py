"""Sections and tables of a report, and how the values of an evaluation's result are written in their cells."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

MARGIN_NOTE = (
    "A margin compares two programs of one problem. Scores have no common zero across problems, so a fixed threshold "
    "on a single score does not carry from one problem to the next."
)

Result = Mapping[str, Any]
Cell = Callable[[Result], str]
Models = Mapping[str, Result]  # the results of one evaluation, by the label of the model
Colours = Mapping[str, str]  # by the label of the model
Lines = list[tuple[str, Cell] | str]  # rows of `side_by_side`: a name with the cell of each model, or a heading

count, decimals, percent = "{:,}".format, "{:.3f}".format, "{:.1%}".format


@dataclass(frozen=True)
class Table:
    """A table of text cells. The first cell of a row is its name; a row of one cell is a heading."""

    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    caption: str = ""
    prose: bool = False  # the cells are sentences more than numbers, and are aligned to the left


@dataclass(frozen=True)
class Section:
    """A section of a page: one evaluation on one data set."""

    title: str
    text: str  # a paragraph that explains the evaluation
    findings: Sequence[str]  # sentences for the top of the page
    tables: Sequence[Table]
    plots: Sequence[tuple[str, Callable[[Any], None]]] = ()  # titles, and functions that draw on matplotlib's axes


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


def side_by_side(models: Models, lines: Lines) -> Table:
    """A table with a column for each model. Rows without any value and headings without rows are left out."""
    rows: list[list[str]] = []
    for line in lines:
        row = [line] if isinstance(line, str) else [line[0], *(line[1](result) for result in models.values())]
        if set(row[1:]) != {"-"}:
            rows.append(row)
    kept = [row for row, after in zip(rows, [*rows[1:], [""]], strict=True) if len(row) > 1 or len(after) > 1]
    return Table(["", *models], kept)


def keys_of(models: Models, key: str) -> list[str]:
    """The keys of an entry of the results, over all models, in order."""
    return list(dict.fromkeys(name for result in models.values() for name in result.get(key) or {}))
