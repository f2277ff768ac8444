"""`codescaler report`."""

from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from codescaler_plugin.cli.terminal import reported, say


def report(
    folders: Annotated[list[Path], Argument(metavar="FOLDER...", help="--output of codescaler evaluate.")],
    output: Annotated[Path, Option(help="The page; Markdown is written beside it.")] = Path("report.html"),
    title: Annotated[str, Option(help="Of the page.")] = "Reward models",
) -> None:
    """Write a page of all evaluations, reward models side by side.

    One HTML file that needs no network, and the same in Markdown.

    Example: codescaler report evaluation/*
    """
    from codescaler_plugin.evaluation.summary import write_report

    with reported():
        for path in write_report(folders, output, title=title):
            say(f"wrote {path}")
