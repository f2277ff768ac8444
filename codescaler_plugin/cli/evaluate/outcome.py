"""The end of an evaluation: its summary in a folder, and its section at the terminal."""

import hashlib
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from codescaler_plugin.cli.terminal import Terminal, number_table, say
from codescaler_plugin.report.sections import Section
from codescaler_plugin.safety import one_line

if TYPE_CHECKING:
    from codescaler_plugin.evaluation.result import Result

_FOLDS = 3  # of the parts inside a fold; the page shows all, with their programs


def sha256_of(data: str) -> str:
    """The SHA-256 of a file; empty for a folder or a data set on the hub."""
    file = Path(data)
    return hashlib.sha256(file.read_bytes()).hexdigest() if file.is_file() else ""


def finish(folder: Path, name: str, model: str, result: "Result", **facts: Any) -> None:
    """Write the summary of a result with the command and more facts of it, and print its section."""
    from codescaler_plugin.evaluation.summary import Summary, sections, write_summary

    command = shlex.join(["codescaler", *sys.argv[1:]])
    summary = Summary(name, model, result, {**facts, "command": command})
    path = write_summary(folder, summary)
    for section in sections([summary]):
        print_section(section)
    say(f"wrote {path}")


def print_section(section: Section) -> None:
    """Print the tables, then the first parts of each fold, then the findings, which a reader sees last."""
    console = Terminal()
    console.print(section.title, style="bold")
    for number, data in enumerate(section.tables):
        if number:
            console.print()
        table = number_table(*data.head, title=data.caption or None, title_justify="left", padding=(0, 2, 0, 0))
        table.columns[0].overflow = "fold"
        for row in data.rows:
            table.add_row(*(one_line(cell) for cell in row), style="bold" if len(row) == 1 else None)
        console.print(table)
    for fold in section.folds:
        console.print()
        console.print(one_line(fold.title), style="bold")
        for inner in fold.folds[:_FOLDS]:
            console.print(one_line(inner.title))
            console.print(one_line(inner.text, 240), style="dim")
        if len(fold.folds) > _FOLDS:
            console.print(f"codescaler report shows all {len(fold.folds)}, with their programs.")
    console.print()
    for finding in section.findings:
        console.print(finding)
