"""`codescaler report`."""

from pathlib import Path
from typing import Annotated

import typer

from codescaler_plugin.cli.terminal import reported, say


def report(
    folders: Annotated[list[Path], typer.Argument(metavar="FOLDER...", help="--output of codescaler evaluate.")],
    output: Annotated[Path, typer.Option(help="The page; Markdown is written beside it.")] = Path("report.html"),
    title: Annotated[str, typer.Option(help="Of the page.")] = "Reward models",
) -> None:
    """Write a page of all evaluations, reward models side by side.

    One HTML file that needs no network, and the same in Markdown.

    Example: codescaler report evaluation/*
    """
    with reported():
        from codescaler_plugin.report.document import write_report

        for path in write_report(folders, output, title=title):
            say(f"wrote {path}")
