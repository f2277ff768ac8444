"""`codescaler report`."""

from pathlib import Path
from typing import Annotated, Any

from typer import Argument, Exit, Option

from codescaler_plugin.cli.options import Columns, spooled
from codescaler_plugin.cli.terminal import Closing, Skipped, reported, say
from codescaler_plugin.data.columns import parsed_columns
from codescaler_plugin.errors import ConfigError


def report(
    sources: Annotated[
        list[Path],
        Argument(
            metavar="FILE|FOLDER...",
            callback=lambda context, values: list(map(Path, spooled(context, list(map(str, values))))),
            help="Judged completions, - for stdin; or folders of codescaler evaluate.",
        ),
    ],
    output: Annotated[Path, Option(help="The page; of evaluations, Markdown is written beside it.")] = Path(
        "report.html"
    ),
    title: Annotated[str | None, Option(help="Of the page.")] = None,
    columns: Columns = None,
) -> None:
    """Write a page of judged completions, or of evaluations.

    Files: output of codescaler score, verify or rank, or TRL's table of
    completions. The page shows each completion with its program marked, status,
    explanation, score, reward and rank, and where score and tests disagree
    most. A bad line is reported on stderr and skipped.

    Folders: output of codescaler evaluate, reward models side by side.

    A page is one HTML file that needs no network.

    Example: codescaler report judged.jsonl --output judged.html
    Example: codescaler report evaluation/*

    Exit code: 0 written; 1 an error; 3 some lines were skipped.
    """
    closing, skipped = Closing(), Skipped()
    with reported():
        if _are_judged(sources):
            from codescaler_plugin.report.judgements import write_judgements

            settings: dict[str, Any] = {"columns": parsed_columns(columns), "on_bad": skipped}
            page, count = write_judgements(sources, output, title=title or "Judgements", **settings)
            closing.say("read", count, "completions", of=count + skipped.count, written=[page])
        else:
            from codescaler_plugin.evaluation.summary import write_report

            for file in write_report(sources, output, title=title or "Reward models"):
                say(f"wrote {file}")
    if skipped.count:
        raise Exit(3)


def _are_judged(sources: list[Path]) -> bool:
    """Whether all sources hold judged completions; a `ConfigError` if some hold evaluations."""
    for source in sources:
        if not source.exists():
            raise ConfigError(f"no file or folder {source}")
    evaluations = [source for source in sources if any(source.glob("*.summary.json"))]
    judged = [source for source in sources if source not in evaluations]
    if evaluations and judged:
        raise ConfigError(
            f"{evaluations[0]} holds evaluations, and {judged[0]} none: give judged completions, or folders of "
            "codescaler evaluate"
        )
    return not evaluations
