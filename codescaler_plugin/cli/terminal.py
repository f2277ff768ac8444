"""The terminal of all commands: errors, progress, tables."""

import errno
import os
import re
import stat
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from contextvars import ContextVar
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any, TextIO, cast

from rich import progress as rich
from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.table import Table
from rich.text import Text
from typer import Exit

from codescaler_plugin.data.outputs import Input, write_output
from codescaler_plugin.errors import CodeScalerError, ConfigError
from codescaler_plugin.safety import one_line, printable

if TYPE_CHECKING:
    from codescaler_plugin.pipeline import CodeScaler


class Terminal(Console):
    """A console on which text from data stays text: no markup, no emoji codes, no control characters."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(markup=False, highlight=False, emoji=False, **settings)

    def render_str(self, text: str, **settings: Any) -> Text:
        """Replace control characters before the layout, which depends on their width."""
        return super().render_str(printable(text), **settings)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """Replace control characters in the segments of every table, panel and text."""
        for segment in super().render(renderable, options):
            yield segment if segment.control else segment._replace(text=printable(segment.text))


errors = Terminal(stderr=True)
_rows_at_terminal = ContextVar("_rows_at_terminal", default=False)


def say(text: str, style: str = "") -> None:
    """Print a line on stderr. The terminal wraps it, so that paths stay whole."""
    errors.print(text, style=style, soft_wrap=True)


_SHOWN = 4000  # characters of a message, which may name a column of the data
_ARGUMENT = re.compile(r"`(\w+)=(\w+=\w+)?`")  # an argument of a library function in its message
_RENAMED = {"evaluation": "--decontaminate"}
_PATH_ERRORS = {  # of a path or a disk, not of this program
    *(errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT),
    *(errno.ENAMETOOLONG, errno.ELOOP, errno.ENOTDIR, errno.EISDIR),
}


class Skipped:
    """Names rows on stderr as they are skipped, and counts them."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self, message: str) -> None:
        """Skip a row; `message` names it."""
        self.count += 1
        say(f"skipped {with_options(one_line(message, _SHOWN))}", "yellow")


@contextmanager
def reported() -> Iterator[None]:
    """Turn an error of this package or of a path into a line on stderr and exit code 1; a bug keeps its traceback."""
    try:
        yield
    except (CodeScalerError, OSError, KeyboardInterrupt) as error:
        if isinstance(error, CodeScalerError):
            text = with_options(str(error))
            shown = text if len(text) <= _SHOWN else f"{text[: _SHOWN // 2]} ... {text[-_SHOWN // 2 :]}"
            say(f"error: {shown}", "red")
        elif isinstance(error, OSError):
            if error.errno not in _PATH_ERRORS:
                raise
            prefix = "cannot read or write: " if error.filename is None else f"{error.filename}: "
            say(f"error: {prefix}{error.strerror}", "red")
        for note in getattr(error, "__notes__", ()):
            say(note)
        raise Exit(130 if isinstance(error, KeyboardInterrupt) else 1) from error


def with_options(message: str) -> str:
    """A library's message with its arguments as options: `output=` in backticks becomes --output."""

    def option(match: re.Match[str]) -> str:
        name = _RENAMED.get(match[1], "--" + match[1].replace("_", "-"))
        return f"{name} {match[2]}" if match[2] else name

    return _ARGUMENT.sub(option, message)


class _Rate(rich.ProgressColumn):
    def render(self, task: rich.Task) -> Text:
        return Text(f"{task.speed:,.0f}/s" if task.speed else "")


@contextmanager
def progress_bar(verb: str, total: int | None = None) -> Iterator[Callable[[int], None]]:
    """Show a bar at a terminal, with the rate and the time left or gone; yields the function that adds steps to it.

    There is no bar where rows go to the terminal: they show the progress, and a bar would stand between them.
    """
    shown = errors.is_terminal and not _rows_at_terminal.get()
    time = rich.TimeElapsedColumn() if total is None else rich.TimeRemainingColumn()
    columns = (rich.TextColumn(verb), rich.BarColumn(), rich.MofNCompleteColumn(), _Rate(), time)
    with rich.Progress(
        *columns, console=errors, transient=True, disable=not shown, speed_estimate_period=60
    ) as progress:
        task = progress.add_task("", total=total)
        yield lambda steps: progress.advance(task, steps)


@contextmanager
def loading(model: str) -> Iterator[None]:
    """Show that a model loads, at a terminal."""
    hide_loading_bars()
    with errors.status(f"loading {one_line(model)}") if errors.is_terminal else nullcontext():
        yield


def load_model(scaler: "CodeScaler") -> None:
    """Load the reward model, or connect to it, and show so."""
    ensure_loaded = getattr(scaler.scorer, "ensure_loaded", None)  # a scorer without a model has none
    if ensure_loaded is not None:
        with loading(scaler.config.model):
            ensure_loaded()


class Closing:
    """The line on stderr that ends a command, with counts, time and rate.

    Example:
        >>> Closing().text("scored", 120, "completions", of=123, counts={"ok": 97, "no_block": 23}, seconds=4)
        'scored 120 of 123 completions in 4.0 s (30/s): 97 ok, 23 no_block'
    """

    def __init__(self) -> None:
        self._started = perf_counter()

    def say(self, verb: str, done: int, noun: str, **settings: Any) -> None:
        """Print the line."""
        say(self.text(verb, done, noun, **settings))

    def text(
        self,
        verb: str,
        done: int,
        noun: str,
        *,
        of: int | None = None,
        counts: Mapping[str, int] | None = None,
        written: Sequence[Path | str | None] = (),
        seconds: float | None = None,
    ) -> str:
        """The line. Counts of 0 and files that are None are left out; without a file, rows went to stdout."""
        seconds = perf_counter() - self._started if seconds is None else seconds
        total = f" of {of:,}" if of not in (None, done) else ""
        rate = f" ({done / seconds:,.{0 if done >= 10 * seconds else 1}f}/s)" if done and seconds else ""
        line = f"{verb} {done:,}{total} {noun} in {seconds:,.1f} s{rate}"
        shown = ", ".join(f"{count:,} {one_line(name)}" for name, count in (counts or {}).items() if count)
        files = ", ".join(str(file) for file in written if file is not None)
        return line + (f": {shown}" if shown else "") + (f"; wrote {files}" if files else "")


def hide_loading_bars() -> None:
    """Turn off transformers' bars of loading weights: a command shows the progress of its own work."""
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()


def number_table(*head: str, **settings: Any) -> Table:
    """A table without lines, with all columns but the first aligned to the right. Settings are those of `Table`."""
    table = Table(*head, box=None, **settings)
    for column in table.columns[1:]:
        column.justify = "right"
    return table


def print_table(console: Console, head: Sequence[str], rows: Sequence[Sequence[str]], **settings: Any) -> None:
    """Print a `number_table`, in parts with the first column repeated if it is wider than the terminal.

    A row of one cell is a heading. Settings are those of `Table`.
    """
    widths = [max(cell_len(row[index]) for row in [head, *rows] if len(row) > index) + 2 for index in range(len(head))]
    parts: list[list[int]] = [[]]
    for index in range(1, len(head)):
        if parts[-1] and widths[0] + sum(widths[other] for other in [*parts[-1], index]) > console.width:
            parts.append([])
        parts[-1].append(index)
    for number, part in enumerate(parts):
        if number:
            console.print()
        table = number_table(head[0], *(head[index] for index in part), padding=(0, 2, 0, 0), **settings)
        for row in rows:
            cells = [one_line(row[index]) for index in [0, *part] if index < len(row)]
            table.add_row(*cells, style="bold" if len(row) == 1 else None)
        console.print(table)


def print_counts(title: str, counts: Mapping[str, int]) -> None:
    """Print a table of the counts that are not zero, on stderr."""
    errors.print(title, style="bold")
    table = number_table("", "", show_header=False)
    for name, count in counts.items():
        if count:
            table.add_row(one_line(name), f"{count:,}")
    errors.print(table)


@contextmanager
def open_output(output: Path | None, inputs: Sequence[Input] = ()) -> Iterator[TextIO]:
    """Open the file to write, or stdout; neither may be an input. See `write_output`."""
    if output is not None:
        with write_output(output, inputs, keep_part=True) as file:
            yield cast(TextIO, file)
        return
    if any(map(_is_stdout, inputs)):
        raise ConfigError("stdout is redirected into the file that is read: give another file")
    if sys.stdout is None:
        raise ConfigError("stdout is closed: give `output=`")
    before = _rows_at_terminal.set(sys.stdout.isatty())
    try:
        yield sys.stdout
    finally:
        _rows_at_terminal.reset(before)


def _is_stdout(source: Input) -> bool:
    try:
        here = os.fstat(sys.stdout.fileno())
        there = os.stat(source if isinstance(source, str | Path) else source.fileno())  # noqa: PTH116 - or a number
    except (OSError, ValueError, AttributeError):  # no such file, or a stream without a descriptor, as in tests
        return False
    return stat.S_ISREG(here.st_mode) and os.path.samestat(here, there)
