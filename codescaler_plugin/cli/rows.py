"""Lines of JSON in, checked line by line, and lines of JSON out."""

import json
from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Annotated, Any, TextIO

import typer

from codescaler_plugin.cli.terminal import errors
from codescaler_plugin.errors import DataError

CHUNK = 64  # lines at a time: streaming, yet batched
Source = Annotated[  # bytes that are no UTF-8 come through as surrogates, so that their line can be named
    typer.FileText,
    typer.Argument(metavar="[FILE]", help="JSONL; - for stdin.", encoding="utf-8", errors="surrogateescape"),
]
Output = Annotated[Path | None, typer.Option(help="Write here, not to stdout.")]
Strict = Annotated[bool, typer.Option(help="Stop at the first bad line.")]
Model = Annotated[
    str | None, typer.Option(help="Hub id, directory or 'builtin'; else CODESCALER_MODEL, else the 8B model.")
]


def chunks(
    source: TextIO, columns: tuple[str, ...], verb: str, *, strict: bool
) -> Iterator[tuple[list[dict[str, Any]], int]]:
    """The good rows of each chunk of lines and the number of its lines, with a progress bar at a terminal.

    A bad line is reported on stderr, or raised with `strict`.
    """
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    shown = (TextColumn(verb), BarColumn(), TextColumn("{task.completed} lines"), TimeElapsedColumn())
    with Progress(*shown, console=errors, transient=True, disable=not errors.is_terminal) as bar:
        task = bar.add_task("", total=None)
        lines = enumerate(source, start=1)
        while chunk := list(islice(lines, CHUNK)):
            yield list(_rows(chunk, columns, strict=strict)), len(chunk)
            bar.update(task, advance=len(chunk))


def skipped(message: str, cause: Exception | None = None, *, strict: bool) -> None:
    """Report a bad line, or raise it with `strict`."""
    if strict:
        raise DataError(message) from cause
    errors.print(f"skipped {message}", style="yellow", markup=False, highlight=False, soft_wrap=True)


def write(sink: TextIO, row: Mapping[str, Any]) -> None:
    """One line of JSON."""
    print(json.dumps(row), file=sink, flush=True)


def _rows(lines: list[tuple[int, str]], columns: tuple[str, ...], *, strict: bool) -> Iterator[dict[str, Any]]:
    for number, line in lines:
        try:
            yield _row(line, columns)
        except DataError as error:
            skipped(f"line {number}: {error}", error, strict=strict)


def _row(line: str, columns: tuple[str, ...]) -> dict[str, Any]:
    from codescaler_plugin.pipeline import completion_text, problem_text

    try:
        line.encode()
        row = json.loads(line)
    except UnicodeEncodeError as error:
        raise DataError("not UTF-8") from error
    except RecursionError as error:
        raise DataError("not JSON (nested too deeply)") from error
    except json.JSONDecodeError as error:
        raise DataError(f"not JSON ({error.msg} at column {error.colno})") from error
    if not isinstance(row, dict) or not row.keys() >= set(columns):
        raise DataError(f"expected an object with {' and '.join(map(repr, columns))}")
    if "problem" in columns:
        problem_text(row["problem"])
    if "completion" in columns:
        completion_text(row["completion"])
    return row
