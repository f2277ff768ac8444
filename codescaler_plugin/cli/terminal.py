"""What the commands share at a terminal: errors, progress, tables."""

import errno
import os
import stat
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO, cast

import typer
from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.text import Text

from codescaler_plugin.data.outputs import Input, write_output
from codescaler_plugin.errors import CodeScalerError, ConfigError
from codescaler_plugin.safety import one_line, printable

if TYPE_CHECKING:
    from rich.progress import Progress, ProgressColumn, TaskID
    from rich.table import Table


class Terminal(Console):
    """A console that shows what data say and obeys none of it: no markup, emoji codes or control characters.

    Takes the arguments of `rich.console.Console`.
    """

    def __init__(self, **settings: Any) -> None:
        super().__init__(markup=False, highlight=False, emoji=False, **settings)

    def render_str(self, text: str, **settings: Any) -> Text:
        """A text as it is laid out; so that what replaces a control character has its width."""
        return super().render_str(printable(text), **settings)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """What is printed, piece by piece; every table, panel and text comes by here."""
        for piece in super().render(renderable, options):
            yield piece if piece.control else piece._replace(text=printable(piece.text))


errors = Terminal(stderr=True)


def say(text: str, style: str = "") -> None:
    """Print a line on stderr; the terminal wraps it, so that paths stay whole."""
    errors.print(text, style=style, soft_wrap=True)


_SHOWN = 4000  # characters of a message, which may name what the data call a column
_PLACES = frozenset(  # a path or a disk is at fault, not this program
    {
        errno.EACCES,
        errno.EPERM,
        errno.EROFS,
        errno.ENOSPC,
        errno.EDQUOT,
        errno.ENAMETOOLONG,
        errno.ELOOP,
        errno.ENOTDIR,
        errno.EISDIR,
    }
)


class Skipped:
    """Names rows on stderr as they are skipped, and counts them."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self, message: str) -> None:
        """Skip a row; `message` names it."""
        self.count += 1
        say(f"skipped {one_line(message, _SHOWN)}", "yellow")


@contextmanager
def reported() -> Iterator[None]:
    """Turn an error of this package or of a path into a line on stderr and exit code 1; a bug keeps its traceback."""
    try:
        yield
    except (CodeScalerError, OSError, KeyboardInterrupt) as error:
        if isinstance(error, CodeScalerError):
            text = str(error)
            shown = text if len(text) <= _SHOWN else f"{text[: _SHOWN // 2]} ... {text[-_SHOWN // 2 :]}"
            say(f"error: {shown}", "red")
        elif isinstance(error, OSError):
            if error.errno not in _PLACES:
                raise
            name = "cannot read or write: " if error.filename is None else f"{error.filename}: "
            say(f"error: {name}{error.strerror}", "red")
        for note in getattr(error, "__notes__", ()):
            say(note)
        raise typer.Exit(130 if isinstance(error, KeyboardInterrupt) else 1) from error


@contextmanager
def _bar(verb: str, total: int | None, time: "ProgressColumn") -> Iterator[tuple["Progress", "TaskID"]]:
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn

    class Rate(ProgressColumn):
        def render(self, task: Task) -> Text:
            return Text(f"{task.speed:,.0f}/s" if task.speed else "")

    shown = (TextColumn(verb), BarColumn(), MofNCompleteColumn(), Rate(), time)
    with Progress(
        *shown, console=errors, transient=True, disable=not errors.is_terminal, speed_estimate_period=60
    ) as bar:
        yield bar, bar.add_task("", total=total)


@contextmanager
def rate_bar(verb: str, total: int | None) -> Iterator[Callable[[int], None]]:
    """A progress bar with rate, and time left or gone, at a terminal; what it gives advances it."""
    from rich.progress import TimeElapsedColumn, TimeRemainingColumn

    with _bar(verb, total, TimeElapsedColumn() if total is None else TimeRemainingColumn()) as (bar, task):
        yield lambda count: bar.advance(task, count)


@contextmanager
def progress_bar(verb: str) -> Iterator[Callable[[int, int], None]]:
    """A `rate_bar` that is set to (done, total)."""
    from rich.progress import TimeRemainingColumn

    with _bar(verb, None, TimeRemainingColumn()) as (bar, task):
        yield lambda done, total: bar.update(task, completed=done, total=total)


def without_loading_bars() -> None:
    """Transformers' bars of loading weights stay away: a command has its own, of its work."""
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()


def number_table(*head: str, **settings: Any) -> "Table":
    """A table without lines, whose columns but the first stand to the right; settings are those of rich's `Table`."""
    from rich.table import Table

    table = Table(*head, box=None, **settings)
    for column in table.columns[1:]:
        column.justify = "right"
    return table


def print_counts(title: str, counts: Mapping[str, int]) -> None:
    """A table of what is not zero, on stderr."""
    errors.print(title, style="bold")
    table = number_table("", "", show_header=False)
    for name, count in counts.items():
        if count:
            table.add_row(one_line(name), f"{count:,}")
    errors.print(table)


@contextmanager
def open_output(output: Path | None, inputs: Sequence[Input] = ()) -> Iterator[TextIO]:
    """The file to write, or stdout; neither may be an input. See `write_output`."""
    if output is not None:
        with write_output(output, inputs, keep_part=True) as file:
            yield cast(TextIO, file)
        return
    if any(map(_is_stdout, inputs)):
        raise ConfigError("stdout is redirected into the file that is read: give another file")
    yield sys.stdout


def _is_stdout(given: Input) -> bool:
    try:
        here = os.fstat(sys.stdout.fileno())
        there = os.stat(given if isinstance(given, str | Path) else given.fileno())  # noqa: PTH116 - a path or a number
    except (OSError, ValueError, AttributeError):  # no such file, or a stream without a descriptor, as in tests
        return False
    return stat.S_ISREG(here.st_mode) and os.path.samestat(here, there)
