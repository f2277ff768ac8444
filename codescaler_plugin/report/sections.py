"""What a page is made of: sections with tables, plots, and folds that a reader opens."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Table:
    """A table of text cells. The first cell of a row is its name; a row of one cell is a heading.

    Example:
        >>> Table(["", "first", "second"], [["Accuracy"], ["all pairs", "0.812", "0.790"]]).caption
        ''
    """

    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    caption: str = ""
    prose: bool = False  # the cells are sentences more than numbers, and are aligned to the left


@dataclass(frozen=True)
class Plot:
    """A plot: its title, and the function that draws it on matplotlib's axes.

    Example:
        >>> Plot("Reward by step", lambda axes: axes.plot([0.1, 0.4])).title
        'Reward by step'
    """

    title: str
    draw: Callable[[Any], None]


@dataclass(frozen=True)
class Fold:
    r"""A part that is closed in HTML until a reader opens it: sentences, a program or a diff, and folds inside.

    Example:
        >>> Fold("1. add", "The wrong program is longer.", "-a + b\n+a - b", language="diff").folds
        ()
    """

    title: str
    text: str = ""
    code: str = ""
    language: str = ""  # of the code; the lines of a `diff` are coloured
    folds: Sequence["Fold"] = ()


@dataclass(frozen=True)
class Section:
    """A section of a page.

    Attributes:
        title: heading.
        text: a paragraph that explains what was measured.
        findings: sentences for the top of the page.
        tables: tables, below the plots.
        plots: plots, side by side where there is room.
        folds: details at the end.

    Example:
        >>> Section("Pairs: mbpp", "A tie is half.", ["m: 0.8 of pairs in order."], [Table(["a"], [])]).plots
        ()
    """

    title: str
    text: str
    findings: Sequence[str]
    tables: Sequence[Table]
    plots: Sequence[Plot] = ()
    folds: Sequence[Fold] = ()
