"""Reads rows from files of any form and from stdin, and writes JSON, for all commands.

| content | rows |
|---|---|
| JSON lines | one object per line; blank lines are skipped |
| a JSON array | its objects |
| CSV, TSV | the lines below the header; every cell is text |
| parquet | its rows |
| gzip, zstd | those of the decompressed content |

The content tells the form (`data.file_forms`). Text is UTF-8, with or without a byte order mark; lines end in LF or
CRLF.
"""

import csv
import io
import json
import re
import secrets
import sys
from collections.abc import Iterable, Iterator, Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any, TypeVar

from codescaler_plugin.data.file_forms import BOM, BUFFER, OpenedFile, opened_file
from codescaler_plugin.errors import DataError

PlacedRow = tuple[
    str, dict[str, Any] | DataError
]  # its position in the file, such as `line 3`, and a row or its error
SUFFIXES = (
    ".parquet",
    *(kind + packed for kind in (".jsonl", ".json", ".csv", ".tsv") for packed in ("", ".gz", ".zst")),
)
_BATCH = 256  # rows of a parquet file in memory at a time; a completion can have 100 kB
_LINE = 512 << 20  # bytes of a line; the longest rows of LiveCodeBench, with packed tests, have about 100 MiB
_DIGITS = 600  # `sys.set_int_max_str_digits` takes no limit below 640
_SPACE = re.compile(r"[ \t\r\n]*")

_Item = TypeVar("_Item")


class LongInt(int):
    """An integer of more than the 4,300 digits that Python converts to text. `str` and `dumps` write all of them."""

    def __repr__(self) -> str:
        return str(Decimal(int(self)))

    __str__ = __repr__


def read_rows(source: Path | io.BufferedIOBase) -> Iterator[PlacedRow]:
    r"""Read the rows of a file or a stream, one at a time. JSON lines are yielded as they arrive.

    A row that cannot be read is yielded as an error, and the next rows follow. All rows before the damage of a file
    are yielded before the error is raised. An open file, such as stdin, need not be seekable.

    Raises:
        DataError: an unsupported form, or a damaged file; the message names it.

    Example:
        >>> list(read_rows(io.BytesIO(b"code,passed\nx = 1,true\n")))
        [('row 0', {'code': 'x = 1', 'passed': 'true'})]
    """
    if isinstance(source, Path):
        try:
            file = source.open("rb")
        except OSError as error:
            raise DataError(f"{source.name} cannot be read: {error.strerror}") from error
        with file:
            yield from _rows(file, source.name)
    else:
        yield from _rows(source, str(getattr(source, "name", "<stdin>")))


def count_rows(path: Path) -> int | None:
    """Count the rows of a file or a folder of files without parsing them; blank lines count. None: unknown."""
    if not path.is_dir():
        return _counted(path) if path.is_file() else None
    counts = [_counted(file) if file.name.endswith(SUFFIXES) else None for file in path.iterdir()]
    return None if None in counts else sum(filter(None, counts))


def _counted(file: Path) -> int | None:
    with file.open("rb") as stream:
        try:
            opened = opened_file(stream, file.name)
            if opened.form == "parquet":
                import pyarrow.parquet as parquet

                rows: int = parquet.read_metadata(opened.seekable()).num_rows
                return rows
            lines: int = sum(part.count(b"\n") for part in iter(lambda: opened.stream.read(BUFFER), b""))
        except (OSError, ValueError):  # the reader of the rows raises the error
            return None
        return lines if opened.form == "lines" and opened.raw.error is None else None


def chunked(items: Iterable[_Item], size: int) -> Iterator[list[_Item]]:
    """Lists of `size` items; the last may be shorter. Items before a DataError are yielded before it is raised."""
    chunk: list[_Item] = []
    try:
        for item in items:
            chunk.append(item)
            if len(chunk) == size:
                yield chunk
                chunk = []
    except DataError:
        if chunk:
            yield chunk
        raise
    if chunk:
        yield chunk


def stem(name: str) -> str:
    """A file's name without the suffixes of its form."""
    return re.sub(r"\.(jsonl|json|csv|tsv|parquet)(\.gz|\.zst)?$", "", name)


def loads(text: str) -> Any:
    """The value of a JSON text. Integers with too many digits for Python become `LongInt`.

    Raises:
        ValueError: the text is not JSON.
        RecursionError: it is nested too deeply.
    """
    return _DECODER.decode(text)


def dumps(value: Any) -> str:
    """One line of JSON. Times and decimals become text, bytes become hex, and `LongInt` keeps all digits."""
    try:
        return json.dumps(value, default=_as_text)
    except ValueError:  # an integer of too many digits: `json` does not call `__str__` of a subclass
        mark = secrets.token_hex(16)
        numbers: list[LongInt] = []
        text = json.dumps(_marked(value, mark, numbers), default=_as_text)
        return re.sub(f'"{mark}([0-9]+)"', lambda match: str(numbers[int(match[1])]), text)


def _as_text(value: Any) -> str:
    return value.hex() if isinstance(value, bytes) else str(value)


def _marked(value: Any, mark: str, numbers: list[LongInt]) -> Any:
    """The value with a marked text in place of each `LongInt`; the integers are appended to `numbers`."""
    if isinstance(value, Mapping):
        return {key: _marked(item, mark, numbers) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_marked(item, mark, numbers) for item in value]
    if isinstance(value, LongInt):
        numbers.append(value)
        return f"{mark}{len(numbers) - 1}"
    return value


def _integer(digits: str) -> int:
    try:
        return int(digits)
    except ValueError:
        magnitude = _magnitude(digits.removeprefix("-"))
        return LongInt(-magnitude if digits.startswith("-") else magnitude)


def _magnitude(digits: str) -> int:
    if len(digits) <= _DIGITS:
        return int(digits)
    half = len(digits) // 2
    shift: int = 10**half
    return _magnitude(digits[:-half]) * shift + _magnitude(digits[-half:])


_DECODER = json.JSONDecoder(parse_int=_integer)


def _rows(file: io.BufferedIOBase, name: str) -> Iterator[PlacedRow]:
    opened = opened_file(file, name)
    try:
        yield from _FORMS[opened.form](opened, name)
    except DataError:
        if opened.raw.error is None:  # else that is the cause
            raise
    if opened.raw.error is not None:
        raise DataError(
            f"{name}: what follows cannot be read; the file is cut off or damaged ({opened.raw.error})"
        ) from opened.raw.error


def _lines(opened: OpenedFile, name: str) -> Iterator[PlacedRow]:  # noqa: ARG001 - as all of `_FORMS`
    for number, line in enumerate(_bounded(opened.stream), start=1):
        if line is None:
            yield f"line {number}", DataError(f"longer than {_LINE >> 20} MiB")
            continue
        text = line.removeprefix(BOM).rstrip()
        if not text:
            continue
        row = _row(text)
        if isinstance(row, DataError) and opened.raw.error is not None and not line.endswith(b"\n"):
            return  # torn
        yield f"line {number}", row


def _bounded(stream: "io.BufferedReader[Any]") -> Iterator[bytes | None]:
    """The lines of a stream. None stands for a line that is too long, which is skipped."""
    while line := stream.readline(_LINE + 1):
        if len(line) <= _LINE:
            yield line
            continue
        while line and not line.endswith(b"\n"):
            line = stream.readline(BUFFER)
        yield None


def _row(line: bytes) -> dict[str, Any] | DataError:
    try:
        # Half a surrogate pair is not valid UTF-8, but some programs write it, and completions may hold it.
        value = loads(line.decode("utf-8", "surrogatepass"))
    except UnicodeDecodeError:
        return DataError("not UTF-8")
    except RecursionError:
        return DataError("not JSON (nested too deeply)")
    except json.JSONDecodeError as error:
        return DataError(f"not JSON ({error.msg} at column {error.colno})")
    return value if isinstance(value, dict) else DataError("expected an object")


def _array(opened: OpenedFile, name: str) -> Iterator[PlacedRow]:
    data = opened.stream.read()
    text = data.decode("utf-8", "surrogateescape").removeprefix("\N{BOM}")
    values, broken = _elements(text)
    if broken is not None and not any(isinstance(value, dict) for value in values):
        lines = io.BytesIO(data)
        if any(isinstance(_row(line), dict) for line in lines):  # only its first line looks like an array
            lines.seek(0)
            yield from _lines(OpenedFile("lines", io.BufferedReader(lines), opened.raw, None), name)
            return
        values = []
    for number, value in enumerate(values):
        bad = DataError("expected an object")
        yield f"row {number}", value if isinstance(value, dict | DataError) else bad
    if broken is not None:
        raise DataError(f"{name} is no JSON array: {broken}") from broken


def _elements(text: str) -> tuple[list[Any], Exception | None]:
    """The elements of an array (an error for one that is not UTF-8), and the error after the last element."""
    values: list[Any] = []
    try:
        position = _behind_space(text, _behind_space(text, 0) + 1)
        while text[position : position + 1] != "]":
            if values:
                if text[position : position + 1] != ",":
                    raise json.JSONDecodeError("Expecting ',' delimiter", text, position)
                position = _behind_space(text, position + 1)
            value, end = _DECODER.raw_decode(text, position)
            values.append(value if _is_utf8(text[position:end]) else DataError("not UTF-8"))
            position = _behind_space(text, end)
        if _behind_space(text, position + 1) != len(text):
            raise json.JSONDecodeError("Extra data", text, position + 1)
    except (ValueError, RecursionError) as error:
        return values, error
    return values, None


def _behind_space(text: str, position: int) -> int:
    return _SPACE.match(text, position).end()  # type: ignore[union-attr]  # it matches nothing, too


def _is_utf8(text: str) -> bool:
    """Whether a text that was decoded with `surrogateescape` was valid UTF-8."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _csv(opened: OpenedFile, name: str) -> Iterator[PlacedRow]:  # noqa: ARG001
    text = io.TextIOWrapper(opened.stream, "utf-8-sig", "surrogateescape", newline="")
    # Strict: a quote that is not closed would silently take the next rows into its cell.
    reader = csv.DictReader(text, delimiter="\t" if opened.form == "tsv" else ",", strict=True)
    held: PlacedRow | None = None
    number = 0
    while (row := _cells(reader)) is not None:
        if held is not None:
            yield held
        held = f"row {number}", row
        number += 1
    if held is not None and opened.raw.error is None:  # a torn row can look whole
        yield held


def _cells(reader: "csv.DictReader[str]") -> dict[str, Any] | DataError | None:
    """The next row; None at the end."""
    limit = csv.field_size_limit(sys.maxsize)  # a setting of the process, restored below
    try:
        row: dict[Any, Any] | None = next(reader, None)
    except csv.Error as error:
        return DataError(f"not CSV ({error})")
    finally:
        csv.field_size_limit(limit)
    if row is None:
        return None
    expected = len(reader.fieldnames or ())
    cells = expected + len(row[None]) if None in row else sum(cell is not None for cell in row.values())
    if cells != expected:
        return DataError(f"{cells} cells: expected {expected}, as the header has")
    if not _is_utf8("".join(row.values())):
        return DataError("not UTF-8")
    return {name: _messages(cell) for name, cell in row.items()}


def _messages(cell: str) -> Any:
    """The list of messages that a cell holds as JSON, because CSV holds only text; any other cell as it is."""
    if not cell.startswith("[{") or '"role"' not in cell:
        return cell
    try:
        messages = loads(cell)
    except (ValueError, RecursionError):
        return cell
    return messages if all(isinstance(message, dict) and "role" in message for message in messages) else cell


def _parquet(opened: OpenedFile, name: str) -> Iterator[PlacedRow]:
    import pyarrow as arrow
    import pyarrow.parquet as parquet

    number = 0
    try:
        with parquet.ParquetFile(opened.seekable(), pre_buffer=False) as file:
            for batch in file.iter_batches(batch_size=_BATCH):
                for row in batch.to_pylist():
                    yield f"row {number}", row
                    number += 1
    except (arrow.ArrowException, OSError) as error:
        raise DataError(f"{name} is no parquet file: {error}") from error


_FORMS = {"lines": _lines, "array": _array, "csv": _csv, "tsv": _csv, "parquet": _parquet}
