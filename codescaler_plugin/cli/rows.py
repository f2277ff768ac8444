"""Rows of a command's input, checked one by one, and lines of JSON of its output."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any, TextIO

from typer import FileBinaryRead

from codescaler_plugin.cli.terminal import Skipped, progress_bar
from codescaler_plugin.data.rows import chunked, dumps, read_rows
from codescaler_plugin.errors import DataError
from codescaler_plugin.text.messages import begun_text, completion_text, problem_text
from codescaler_plugin.text.templates import Template

CHUNK = 64  # rows at a time: enough for a batch, and few enough to stream


def chunks(
    source: FileBinaryRead, columns: tuple[str, ...], verb: str, *, strict: bool, template: Template | None = None
) -> Iterator[tuple[list[dict[str, Any]], int]]:
    """The good rows of each chunk and the number of all its rows, with a progress bar. Bad ones go to `skip`."""
    with progress_bar(verb) as advance:
        for chunk in chunked(read_rows(source), CHUNK):
            rows = []
            for location, row in chunk:
                try:
                    rows.append(_checked(row, columns, template))
                except DataError as error:
                    skip(f"{location}: {error}", error, strict=strict)
            yield rows, len(chunk)
            advance(len(chunk))


def skip(message: str, cause: Exception | None = None, *, strict: bool) -> None:
    """Report a bad line, or raise it with `strict`."""
    if strict:
        raise DataError(message) from cause
    Skipped()(message)


def write(sink: TextIO, row: Mapping[str, Any]) -> None:
    """Write one line of JSON."""
    print(dumps(row), file=sink, flush=True)


def write_records(
    sink: TextIO, rows: list[dict[str, Any]], records: Sequence[Any], leave_out: tuple[str, ...] = ()
) -> None:
    """Write each row with the fields of its record added. A `failure` of None is left out."""
    for row, record in zip(rows, records, strict=True):
        added = {name: value for name, value in asdict(record).items() if name not in leave_out}
        if added.get("failure", "") is None:
            del added["failure"]
        write(sink, {**row, **added})


def _checked(row: dict[str, Any] | DataError, columns: tuple[str, ...], template: Template | None) -> dict[str, Any]:
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
