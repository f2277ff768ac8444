"""Opens files of rows: detects the form of the content and decompresses it.

The name of a file decides only where the content cannot: for CSV and TSV without a recognizable header, and for files
that are damaged from their first byte.
"""

import gzip
import io
import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from codescaler_plugin.errors import DataError

BUFFER = 1 << 16
BOM = "\N{BOM}".encode()
FORMS = ("lines", "array", "csv", "tsv", "parquet")

_HEAD = 4096  # bytes that tell the form of a file whose first line is longer
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
_DAMAGE = (OSError, EOFError, zlib.error)


class _Stream(io.RawIOBase):
    """Chunks of bytes as a file. Damage ends the file, so that all bytes before it can be read, and is in `error`."""

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
class OpenedFile:
    """A file of known form."""

    form: str  # one of `FORMS`
    stream: "io.BufferedReader[Any]"  # the decompressed bytes
    raw: _Stream  # source of `stream`, which holds the error of a damaged file
    file: io.BufferedIOBase | None  # the file itself; None: it is compressed or cannot seek

    def seekable(self) -> io.BufferedIOBase:
        """A file that can seek, for forms that are read from their end."""
        if self.file is None:
            return io.BytesIO(self.stream.read())
        self.file.seek(0)
        return self.file


def opened_file(file: io.BufferedIOBase, name: str) -> OpenedFile:
    """Detect the form and decompress."""
    inner = name
    seekable = file if file.seekable() and file.tell() == 0 else None
    parts = _parts(file)
    while True:
        raw = _Stream(_whole_head(parts))
        stream = io.BufferedReader(raw, BUFFER)
        form = _form_of(stream.peek(), inner, name)
        if form in FORMS:
            return OpenedFile(form, stream, raw, seekable)
        inner = inner.removesuffix(".gz").removesuffix(".zst")
        parts = _parts(gzip.GzipFile(fileobj=stream)) if form == "gzip" else _zstd_parts(stream, seekable)
        seekable = None


def _form_of(head: bytes, inner: str, name: str) -> str:
    """One of `FORMS`, or a compression; `inner` is the name without the suffixes of compressions undone so far."""
    start = head.removeprefix(BOM).lstrip()
    if known := next((form for magic, form in _MAGIC.items() if head.startswith(magic)), None):
        return known
    if start.startswith(b"["):
        return "array"
    if start.startswith(b"{"):
        return "lines"
    if other := next((kind for magic, kind in _OTHERS.items() if head.startswith(magic)), None):
        raise DataError(f"{name} is {other}: expected {_READ}")
    if b"\0" in head:
        raise DataError(f"{name} is binary data of an unknown form: expected {_READ}")
    header = _HEADER.match(start)
    if header or inner.endswith((".csv", ".tsv")):
        return "tsv" if inner.endswith(".tsv") or (header and header["delimiter"] == b"\t") else "csv"
    return next((form for suffix, form in _BY_NAME.items() if inner.endswith(suffix)), "lines")


def _parts(file: io.BufferedIOBase) -> Iterator[bytes]:
    while part := file.read1(BUFFER):
        yield part


def _whole_head(parts: Iterator[bytes]) -> Iterator[bytes]:
    """The same bytes, with a first part that holds a whole line, or enough to detect the form."""
    head = b""
    try:
        for part in parts:
            head += part
            if len(head) >= _HEAD or b"\n" in head.removeprefix(BOM).lstrip():
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
    size = 0
    file.seek(0)
    try:
        for part in _parts(arrow.CompressedInputStream(file, "zstd")):
            size += len(part)
            yield part
    except OSError:  # Arrow returns nothing of a read that meets damage: read up to there, byte by byte
        file.seek(0)
        again = arrow.CompressedInputStream(file, "zstd")
        while size:
            size -= len(again.read(min(size, BUFFER)))
        while part := again.read(1):
            yield part
