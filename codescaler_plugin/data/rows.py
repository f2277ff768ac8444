"""Rows in, whatever form a file or stdin has, and JSON out: one reader and one writer for all commands.

| content | rows |
|---|---|
| JSON lines | one object a line; blank lines are passed over |
| a JSON array | its objects |
| CSV, TSV | the lines below the header; every cell is text |
| parquet | its rows |
| gzip, zstd | those of what is packed |

The content tells the form; a file's name only where the content cannot: `.csv`, `.tsv`, and files that are damaged
from their first byte. Text is UTF-8, with or without a byte order mark; lines end in LF or CRLF.
"""

import csv
import gzip
import io
import json
import re
import secrets
import sys
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any, TypeVar

from codescaler_plugin.errors import DataError

Found = tuple[str, dict[str, Any] | DataError]
"""The place of a row in its file, such as `line 3`, and the row, or what is wrong with it."""

SUFFIXES = (
    ".parquet",
    *(kind + packed for kind in (".jsonl", ".json", ".csv", ".tsv") for packed in ("", ".gz", ".zst")),
)
"""How the names of files of rows end."""

_BATCH = 256  # rows of a parquet file in memory at a time; a completion can have 100 kB
_HEAD = 4096  # bytes that tell the form of a file whose first line is longer
_LINE = 512 << 20  # bytes of a line; the longest rows of LiveCodeBench, with packed tests, have about 100 MiB
_BUFFER = 1 << 16
_DIGITS = 600  # `sys.set_int_max_str_digits` takes no limit below 640
_BOM = "\N{BOM}".encode()
_MAGIC = {b"PAR1": "parquet", b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd"}
_BY_NAME = {".parquet": "parquet", ".gz": "gzip", ".zst": "zstd"}
_OTHERS = {
    b"\xff\xfe": "UTF-16 text",
    b"\xfe\xff": "UTF-16 text",
    b"PK\x03\x04": "a zip archive, as .xlsx, .npz and .zip are",
    b"SQLite format 3\0": "a SQLite database",
    b"ARROW1": "an Arrow file",
    b"BZh": "packed by bzip2",
    b"\xfd7zXZ\0": "packed by xz",
}
_READ = "JSON lines, a JSON array, CSV, TSV or parquet, also packed by gzip or zstd, its text in UTF-8"
_HEADER = re.compile(rb'"?\w+"?(?:(?P<delimiter>[,\t])"?\w+"?)(?:(?P=delimiter)"?\w+"?)*\r?\n')
_SPACE = re.compile(r"[ \t\r\n]*")
_DAMAGE = (OSError, EOFError, zlib.error)

_Item = TypeVar("_Item")


class LongInt(int):
    """An integer of more digits than Python turns into text (4,300); its text is all of them, `dumps` writes them."""

    def __repr__(self) -> str:
        return str(Decimal(int(self)))

    __str__ = __repr__


def read_rows(source: Path | io.BufferedIOBase) -> Iterator[Found]:
    """The rows of a file or a stream, one at a time; JSON lines are given as they come in.

    A row that cannot be read is given as an error, and the rows behind it follow. Of a file that is cut off or damaged
    all rows before the damage are given before the error is raised.

    Args:
        source: a file, or an open one such as stdin; it need not be seekable.

    Raises:
        DataError: a form that is not read, or a file that is damaged; the message names it.

    Example:
        >>> for place, row in read_rows(Path("answers.csv")):
        ...     print(place, row)
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
    """Rows of a file, or of a folder of files, without parsing them; None if that cannot be told. Blank lines count.

    Raises:
        OSError: a file cannot be opened.
    """
    if not path.is_dir():
        return _counted(path) if path.is_file() else None
    counts = [_counted(file) if file.name.endswith(SUFFIXES) else None for file in path.iterdir()]
    return None if None in counts else sum(filter(None, counts))


def _counted(file: Path) -> int | None:
    with file.open("rb") as stream:
        try:
            opened = _opened(stream, file.name)
            if opened.form == "parquet":
                import pyarrow.parquet as parquet

                rows: int = parquet.read_metadata(opened.seekable()).num_rows
                return rows
            lines: int = sum(part.count(b"\n") for part in iter(lambda: opened.stream.read(_BUFFER), b""))
        except (OSError, ValueError):  # whoever reads the rows says what is wrong
            return None
        return lines if opened.form == "lines" and opened.raw.error is None else None


def chunked(items: Iterable[_Item], size: int) -> Iterator[list[_Item]]:
    """Lists of `size` items, the last one shorter; what came before a DataError is given before it is raised.

    Raises:
        DataError: of the items.
    """
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
    """A file's name without what tells its form."""
    return re.sub(r"\.(jsonl|json|csv|tsv|parquet)(\.gz|\.zst)?$", "", name)


def loads(text: str) -> Any:
    """The value of a JSON text; integers may have any number of digits, those that Python refuses are `LongInt`.

    Raises:
        ValueError: it is no JSON.
        RecursionError: it is nested too deeply.
    """
    return _DECODER.decode(text)


def dumps(value: Any) -> str:
    """One line of JSON, also of what only parquet and `LongInt` hold: times and decimals become text, bytes hex."""
    try:
        return json.dumps(value, default=_as_text)
    except ValueError:  # an integer of too many digits: `json` asks no subclass for its text
        mark = secrets.token_hex(16)
        numbers: list[LongInt] = []
        text = json.dumps(_marked(value, mark, numbers), default=_as_text)
        return re.sub(f'"{mark}([0-9]+)"', lambda found: str(numbers[int(found[1])]), text)


def _as_text(value: Any) -> str:
    return value.hex() if isinstance(value, bytes) else str(value)


def _marked(value: Any, mark: str, numbers: list[LongInt]) -> Any:
    """The value with a text that can be found again in place of each `LongInt`, which goes to `numbers`."""
    if isinstance(value, Mapping):
        return {key: _marked(one, mark, numbers) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_marked(one, mark, numbers) for one in value]
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


class _Raw(io.RawIOBase):
    """Parts of bytes as a file. Damage ends it like the end of a file, so that all before can be read; see `error`."""

    def __init__(self, parts: Iterator[bytes]) -> None:
        self.parts, self.left = parts, b""
        self.error: Exception | None = None

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        if not self.left:
            try:
                self.left = next(self.parts, b"")
            except _DAMAGE as error:
                self.error = error
        part, self.left = self.left[: len(buffer)], self.left[len(buffer) :]
        buffer[: len(part)] = part
        return len(part)


@dataclass
class _Opened:
    """A file whose form is known: its unpacked bytes; and the file itself if it is not packed and can be sought in."""

    form: str
    stream: "io.BufferedReader[Any]"
    raw: _Raw
    file: io.BufferedIOBase | None

    def seekable(self) -> io.BufferedIOBase:
        """For a form that is read from its end."""
        if self.file is None:
            return io.BytesIO(self.stream.read())
        self.file.seek(0)
        return self.file


def _rows(file: io.BufferedIOBase, name: str) -> Iterator[Found]:
    opened = _opened(file, name)
    try:
        yield from _FORMS[opened.form](opened, name)
    except DataError:
        if opened.raw.error is None:  # else that is the cause
            raise
    if opened.raw.error is not None:
        raise DataError(
            f"{name}: what follows cannot be read; the file is cut off or damaged ({opened.raw.error})"
        ) from opened.raw.error


def _opened(file: io.BufferedIOBase, name: str) -> _Opened:
    """Tell the form and unpack what is packed.

    Raises:
        DataError: a form that is not read.
    """
    inner = name
    sought = file if file.seekable() and file.tell() == 0 else None
    parts = _parts(file)
    while True:
        raw = _Raw(_whole_head(parts))
        stream = io.BufferedReader(raw, _BUFFER)
        form = _form_of(stream.peek(), inner, name)
        if form in _FORMS:
            return _Opened(form, stream, raw, sought)
        inner = inner.removesuffix(".gz").removesuffix(".zst")
        parts = _parts(gzip.GzipFile(fileobj=stream)) if form == "gzip" else _zstd_parts(stream, sought)
        sought = None


def _form_of(head: bytes, inner: str, name: str) -> str:
    """One of `_FORMS`, or what the bytes are packed by; `inner` is the name without the packing that is undone."""
    start = head.removeprefix(_BOM).lstrip()
    if known := next((form for magic, form in _MAGIC.items() if head.startswith(magic)), None):
        return known
    if start.startswith(b"["):
        return "array"
    if start.startswith(b"{"):
        return "lines"
    if other := next((what for magic, what in _OTHERS.items() if head.startswith(magic)), None):
        raise DataError(f"{name} is {other}: expected {_READ}")
    if b"\0" in head:
        raise DataError(f"{name} is binary data of an unknown form: expected {_READ}")
    header = _HEADER.match(start)
    if header or inner.endswith((".csv", ".tsv")):
        return "tsv" if inner.endswith(".tsv") or (header and header["delimiter"] == b"\t") else "csv"
    return next((form for suffix, form in _BY_NAME.items() if inner.endswith(suffix)), "lines")


def _parts(file: io.BufferedIOBase) -> Iterator[bytes]:
    while part := file.read1(_BUFFER):
        yield part


def _whole_head(parts: Iterator[bytes]) -> Iterator[bytes]:
    """The same bytes, the first part being a whole line, or as much as tells the form."""
    head = b""
    try:
        for part in parts:
            head += part
            if len(head) >= _HEAD or b"\n" in head.removeprefix(_BOM).lstrip():
                break
    except _DAMAGE:
        yield head
        raise
    yield head
    yield from parts


def _zstd_parts(stream: "io.BufferedReader[Any]", file: io.BufferedIOBase | None) -> Iterator[bytes]:
    import pyarrow as arrow

    if file is None:
        yield from _parts(arrow.CompressedInputStream(stream, "zstd"))
        return
    given = 0
    file.seek(0)
    try:
        for part in _parts(arrow.CompressedInputStream(file, "zstd")):
            given += len(part)
            yield part
    except OSError:  # Arrow gives nothing of a read that meets damage: read up to there, byte by byte
        file.seek(0)
        again = arrow.CompressedInputStream(file, "zstd")
        while given:
            given -= len(again.read(min(given, _BUFFER)))
        while part := again.read(1):
            yield part


def _lines(opened: _Opened, name: str) -> Iterator[Found]:  # noqa: ARG001 - as all of `_FORMS`
    for number, line in enumerate(_bounded(opened.stream), start=1):
        if line is None:
            yield f"line {number}", DataError(f"longer than {_LINE >> 20} MiB")
            continue
        text = line.removeprefix(_BOM).rstrip()
        if not text:
            continue
        row = _row(text)
        if isinstance(row, DataError) and opened.raw.error is not None and not line.endswith(b"\n"):
            return  # torn
        yield f"line {number}", row


def _bounded(stream: "io.BufferedReader[Any]") -> Iterator[bytes | None]:
    """The lines of a stream; None for one that is too long, which is read over."""
    while line := stream.readline(_LINE + 1):
        if len(line) <= _LINE:
            yield line
            continue
        while line and not line.endswith(b"\n"):
            line = stream.readline(_BUFFER)
        yield None


def _row(line: bytes) -> dict[str, Any] | DataError:
    try:
        # Half a surrogate pair is no valid UTF-8, but some programs write it, and completions may hold it.
        value = loads(line.decode("utf-8", "surrogatepass"))
    except UnicodeDecodeError:
        return DataError("not UTF-8")
    except RecursionError:
        return DataError("not JSON (nested too deeply)")
    except json.JSONDecodeError as error:
        return DataError(f"not JSON ({error.msg} at column {error.colno})")
    return value if isinstance(value, dict) else DataError("expected an object")


def _array(opened: _Opened, name: str) -> Iterator[Found]:
    data = opened.stream.read()
    text = data.decode("utf-8", "surrogateescape").removeprefix("\N{BOM}")
    values, broken = _elements(text)
    if broken is not None and not any(isinstance(value, dict) for value in values):
        lines = io.BytesIO(data)
        if any(isinstance(_row(line), dict) for line in lines):  # only its first line looks like an array
            lines.seek(0)
            yield from _lines(_Opened("lines", io.BufferedReader(lines), opened.raw, None), name)
            return
        values = []
    for number, value in enumerate(values):
        bad = DataError("expected an object")
        yield f"row {number}", value if isinstance(value, dict | DataError) else bad
    if broken is not None:
        raise DataError(f"{name} is no JSON array: {broken}") from broken


def _elements(text: str) -> tuple[list[Any], Exception | None]:
    """The elements of an array, an error for one that is not UTF-8; and what is wrong behind the last one."""
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
    """Whether a text that was decoded with `surrogateescape` holds no byte that is no UTF-8."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _csv(opened: _Opened, name: str) -> Iterator[Found]:  # noqa: ARG001
    text = io.TextIOWrapper(opened.stream, "utf-8-sig", "surrogateescape", newline="")
    # Strict: a quote that is not closed would silently take the rows behind it into its cell.
    reader = csv.DictReader(text, delimiter="\t" if opened.form == "tsv" else ",", strict=True)
    held: Found | None = None
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
    limit = csv.field_size_limit(sys.maxsize)  # a setting of the process: it is put back before anybody else runs
    try:
        row: dict[Any, Any] | None = next(reader, None)
    except csv.Error as error:
        return DataError(f"not CSV ({error})")
    finally:
        csv.field_size_limit(limit)
    if row is None:
        return None
    wanted = len(reader.fieldnames or ())
    if None in row:
        return DataError(f"{wanted + len(row[None])} cells: expected {wanted}, as the header has")
    if (cells := sum(cell is not None for cell in row.values())) < wanted:
        return DataError(f"{cells} cells: expected {wanted}, as the header has")
    return row if _is_utf8("".join(row.values())) else DataError("not UTF-8")


def _parquet(opened: _Opened, name: str) -> Iterator[Found]:
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
