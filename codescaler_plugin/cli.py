"""The `codescaler` command. Heavy imports happen inside the commands, so that `--help` is instant."""

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TextIO

import typer
from rich.console import Console

from codescaler_plugin import __version__
from codescaler_plugin.errors import CodeScalerError, ConfigError, DataError

if TYPE_CHECKING:
    from codescaler_plugin.pipeline import CodeScaler

app = typer.Typer(no_args_is_help=True, add_completion=False, help="An execution-free reward for code.")
errors = Console(stderr=True)
CHUNK = 64  # lines judged at a time: streaming, yet batched


@contextmanager
def _reported() -> Iterator[None]:
    """Turn an error of this package into one message on stderr and exit code 1; a bug keeps its traceback."""
    try:
        yield
    except CodeScalerError as error:
        errors.print(f"error: {error}", style="red", markup=False, highlight=False, soft_wrap=True)
        raise typer.Exit(1) from error
    except KeyboardInterrupt:
        raise typer.Exit(130) from None


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"codescaler-plugin {__version__}")
        raise typer.Exit


@app.callback()
def _main(
    _version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


@app.command()
def quickstart(
    steps: Annotated[int | None, typer.Option(min=1, help="GRPO steps; the model card tells the default.")] = None,
    seed: Annotated[int, typer.Option(help="Seed of sampling and of the training order.")] = 0,
    output: Annotated[Path, typer.Option(help="Folder for all that is written.")] = Path("codescaler-quickstart"),
    as_json: Annotated[bool, typer.Option("--json", help="End with one line of JSON.")] = False,
) -> None:
    """Watch GRPO improve a small policy with a reward that runs no tests. Offline, on a CPU, in minutes."""
    from codescaler_plugin.quickstart import run_quickstart

    with _reported():
        report = run_quickstart(steps=steps, seed=seed, output=output)
    if as_json:
        typer.echo(json.dumps(asdict(report)))


@app.command()
def score(
    source: Annotated[  # bytes that are no UTF-8 come through as surrogates, so that their line can be named
        typer.FileText,
        typer.Argument(metavar="[FILE]", help="JSONL; - for stdin.", encoding="utf-8", errors="surrogateescape"),
    ] = "-",  # type: ignore[assignment]
    model: Annotated[
        str | None, typer.Option(help="Hub id, directory or 'builtin'; else CODESCALER_MODEL, else the 8B model.")
    ] = None,
    output: Annotated[Path | None, typer.Option(help="Write here, not to stdout.")] = None,
    batch_size: Annotated[int | None, typer.Option(min=1, help="Sequences per forward pass.")] = None,
    strict: Annotated[bool, typer.Option(help="Stop at the first bad line.")] = False,
) -> None:
    """Judge completions: JSONL with `problem` and `completion` in, JSONL with the judgement added out.

    A bad line is reported with its number on stderr and skipped.

    Exit code: 0 all judged; 1 an error, with --strict a bad line; 3 some lines were skipped or got no score.
    """
    from transformers.utils.logging import disable_progress_bar

    from codescaler_plugin.config import CodeScalerConfig
    from codescaler_plugin.pipeline import CodeScaler

    disable_progress_bar()  # of loading weights: ours is of lines
    with _reported():
        scaler = CodeScaler(config=CodeScalerConfig.from_env(model=model, batch_size=batch_size))
        with _sink(output) as sink:
            complete = _score_lines(scaler, source, sink, strict=strict)
    if not complete:
        raise typer.Exit(3)


@contextmanager
def _sink(output: Path | None) -> Iterator[TextIO]:
    if output is None:
        yield sys.stdout
        return
    try:
        file = output.open("w", encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"cannot write {output}: {error.strerror}") from error
    with file:
        yield file


def _score_lines(scaler: "CodeScaler", source: TextIO, sink: TextIO, *, strict: bool) -> bool:
    """Judge line by line in chunks; whether every line got a reward."""
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    complete = True
    columns = (TextColumn("scoring"), BarColumn(), TextColumn("{task.completed} lines"), TimeElapsedColumn())
    with Progress(*columns, console=errors, transient=True, disable=not errors.is_terminal) as bar:
        task = bar.add_task("", total=None)
        lines = enumerate(source, start=1)
        while chunk := list(islice(lines, CHUNK)):
            rows = list(_rows(chunk, strict=strict))
            judgements = scaler.judge([row["problem"] for row in rows], [row["completion"] for row in rows])
            for row, judgement in zip(rows, judgements, strict=True):
                print(json.dumps({**row, **asdict(judgement)}), file=sink, flush=True)
            complete &= len(rows) == len(chunk) and all(judgement.reward is not None for judgement in judgements)
            bar.update(task, advance=len(chunk))
    return complete


def _rows(lines: list[tuple[int, str]], *, strict: bool) -> Iterator[dict[str, Any]]:
    """The good rows of a chunk; a bad one is reported, or raised with `strict`."""
    for number, line in lines:
        try:
            yield _row(line)
        except DataError as error:
            message = f"line {number}: {error}"
            if strict:
                raise DataError(message) from error
            errors.print(f"skipped {message}", style="yellow", markup=False, highlight=False, soft_wrap=True)


def _row(line: str) -> dict[str, Any]:
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
    if not isinstance(row, dict) or not {"problem", "completion"} <= row.keys():
        raise DataError("expected an object with 'problem' and 'completion'")
    problem_text(row["problem"])
    completion_text(row["completion"])
    return row
