"""Rows in, checked one by one, and lines of JSON out."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TextIO

import typer

from codescaler_plugin.cli.terminal import Skipped, rate_bar
from codescaler_plugin.data.rows import chunked, dumps, read_rows
from codescaler_plugin.errors import DataError

if TYPE_CHECKING:
    from codescaler_plugin.text.templates import Template

CHUNK = 64  # rows at a time: streaming, yet batched
Source = Annotated[
    typer.FileBinaryRead,
    typer.Argument(metavar="[FILE]", help="JSONL, a JSON array, CSV or parquet, also .gz or .zst; - for stdin."),
]
Output = Annotated[Path | None, typer.Option(help="Write here, not to stdout.")]
Strict = Annotated[bool, typer.Option(help="Stop at the first bad line.")]


def chunks(
    source: typer.FileBinaryRead,
    columns: tuple[str, ...],
    verb: str,
    *,
    strict: bool,
    template: "Template | None" = None,
) -> Iterator[tuple[list[dict[str, Any]], int]]:
    """The good rows of each chunk and the number of its rows, with a progress bar at a terminal.

    A bad row is reported on stderr, or raised with `strict`.

    Raises:
        DataError: a form that is not read, a file that is damaged, or with `strict` a bad row.
    """
    with rate_bar(verb, None) as advance:
        for chunk in chunked(read_rows(source), CHUNK):
            rows = []
            for place, row in chunk:
                try:
                    rows.append(_checked(row, columns, template))
                except DataError as error:
                    skipped(f"{place}: {error}", error, strict=strict)
            yield rows, len(chunk)
            advance(len(chunk))


def skipped(message: str, cause: Exception | None = None, *, strict: bool) -> None:
    """Report a bad line, or raise it with `strict`."""
    if strict:
        raise DataError(message) from cause
    Skipped()(message)


def write(sink: TextIO, row: Mapping[str, Any]) -> None:
    """One line of JSON."""
    print(dumps(row), file=sink, flush=True)


def _checked(row: dict[str, Any] | DataError, columns: tuple[str, ...], template: "Template | None") -> dict[str, Any]:
    from codescaler_plugin.text.messages import begun_text, completion_text, problem_text

    if isinstance(row, DataError):
        raise row
    if not row.keys() >= set(columns):
        raise DataError(f"expected an object with {' and '.join(map(repr, columns))}")
    if "problem" in columns:
        problem_text(row["problem"], "problem", template)
        begun_text(row["problem"], "problem", template)
    if "completion" in columns:
        completion_text(row["completion"])
    return row
