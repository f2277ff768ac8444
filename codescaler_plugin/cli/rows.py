"""Rows of a command's input, checked one by one, and lines of JSON of its output."""

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import chain, islice
from pathlib import Path
from typing import Any, Literal, TextIO

from codescaler_plugin.cli.terminal import Skipped, errors, progress_bar
from codescaler_plugin.data.columns import Host, NoColumnError, host_of, list_name, made_of, parsed_columns
from codescaler_plugin.data.rollouts import rows_of
from codescaler_plugin.data.rows import chunked, count_rows, dumps
from codescaler_plugin.errors import DataError
from codescaler_plugin.text.templates import Template

CHUNK = 64  # rows at a time: enough for a batch, and few enough to stream

Row = dict[str, Any]
Needs = Literal["problem", "completion", "both"]


@dataclass(frozen=True)
class Sample:
    """A row with its problem and one of its completions, under whichever names the row has them."""

    row: Row
    problem: Any = None
    completion: Any = None


@dataclass
class RowReader:
    """Reads the samples of a file in chunks, with a progress bar. A bad row is reported and skipped.

    A row with a list of completions gives a sample for each.
    """

    source: str  # a file, folder or hub id; - for stdin
    verb: str  # names the work beside the bar
    needs: Needs
    columns: str | None = None  # as `--columns`
    limit: int | None = None
    strict: bool = False
    template: Template | None = None
    prepare: Callable[[], None] = lambda: None  # called once, when the first rows have been read
    skipped: Skipped = field(default_factory=Skipped)
    rows: int = 0  # rows read so far, without those that are not rows of their form
    mapping: dict[str, str] = field(init=False)  # of `columns`

    def __post_init__(self) -> None:
        self.mapping = parsed_columns(self.columns)

    def __iter__(self) -> Iterator[list[Sample]]:
        chunks = chunked(self.samples(), CHUNK)
        first = next(chunks, None)
        if first is None:
            return
        self.prepare()
        with progress_bar(self.verb, total_rows([self.source], self.limit)) as advance:
            done = 0
            for chunk in chain([first], chunks):
                yield [sample for samples in chunk for sample in samples]
                advance(self.rows - done)
                done = self.rows

    def samples(self) -> Iterator[list[Sample]]:
        """The samples of each good row."""
        columns, hosts = self.mapping, dict[str, Host]()

        def numbered() -> Iterator[tuple[str, tuple[str, Row]]]:
            rows = rows_of(opened(self.source), on_bad=self.on_bad, columns=columns)
            for file, place, row in islice(rows, self.limit):
                self.rows += 1
                yield place, (file, row)

        def made(placed: tuple[str, Row]) -> list[Sample]:
            file, row = placed
            if file not in hosts:
                hosts[file] = host_of(row, columns=columns)
            return self._made(row, hosts[file])

        return made_of(numbered(), made, self.on_bad)

    @property
    def on_bad(self) -> Skipped | None:
        """What bad rows are reported to; None if they are errors."""
        return None if self.strict else self.skipped

    def skip(self, message: str, cause: Exception | None = None) -> None:
        """Report what is skipped, or raise it with `--strict`."""
        if self.strict:
            raise DataError(message) from cause
        self.skipped(message)

    def _made(self, row: Row, host: Host) -> list[Sample]:
        from codescaler_plugin.text.messages import begun_text, completion_text, problem_text

        problem = None
        if self.needs == "completion":  # a prompt beside it may open the reasoning
            try:
                problem = host.problem_of(row)
            except NoColumnError:
                problem = None
        else:
            problem = host.problem_of(row)
            problem_text(problem, "problem", self.template)
            begun_text(problem, "problem", self.template)
        if self.needs == "problem":
            return [Sample(row, problem)]
        completions = host.completions_of(row, self.template)
        for completion in completions:
            completion_text(completion)
        if (name := list_name(row)) is None:
            return [Sample(row, problem, completion) for completion in completions]
        rest = {column: value for column, value in row.items() if column != name}
        return [Sample({**rest, "completion": completion}, problem, completion) for completion in completions]


def total_rows(sources: Sequence[str], limit: int | None = None) -> int | None:
    """The number of rows to read, for a bar. None: there is no bar, or they cannot be counted without reading them."""
    if not errors.is_terminal or "-" in sources:
        return None
    counts = [count_rows(Path(source)) for source in sources]
    total = None if None in counts else sum(filter(None, counts))
    return total if total is None or limit is None else min(total, limit)


def opened(source: str) -> Any:
    """The source of rows that an argument names: stdin for -."""
    return sys.stdin.buffer if source == "-" else source


def write(sink: TextIO, row: Mapping[str, Any]) -> None:
    """Write one line of JSON."""
    print(dumps(row), file=sink, flush=True)


def write_records(sink: TextIO, rows: Sequence[Row], records: Sequence[Any]) -> None:
    """Write each row with the fields of its record added. A `failure` of None is left out."""
    for row, record in zip(rows, records, strict=True):
        added = asdict(record)
        if added.get("failure", "") is None:
            del added["failure"]
        write(sink, {**row, **added})
