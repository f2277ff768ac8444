"""Sections and tables of a report."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from codescaler_plugin.report.cells import Cell, Result

MARGIN_NOTE = (
    "A margin compares two programs of one problem. Scores have no common zero across problems, so a fixed threshold "
    "on a single score does not carry from one problem to the next."
)


@dataclass(frozen=True)
class Table:
    """A table of text cells.

    Attributes:
        head: cells of the header.
        rows: rows; the first cell is a row's name. A row of one cell is a heading.
        caption: title of the table.
        prose: the cells are sentences more than numbers, and are aligned to the left.
    """

    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    caption: str = ""
    prose: bool = False


@dataclass(frozen=True)
class Section:
    """A section of a page: one evaluation on one data set.

    Attributes:
        title: title.
        text: a paragraph that explains the evaluation.
        findings: sentences for the top of the page.
        tables: tables.
        plots: for each plot, its title and a function that draws it on matplotlib's axes.
    """

    title: str
    text: str
    findings: Sequence[str]
    tables: Sequence[Table]
    plots: Sequence[tuple[str, Callable[[Any], None]]] = ()


Models = Mapping[str, Result]
"""The results of one evaluation, by the label of the model."""

Colours = Mapping[str, str]
"""Colours by the label of the model."""

Lines = list[tuple[str, Cell] | str]
"""Rows of `side_by_side`: a name with the cell of each model, or a heading."""


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
