"""The part that all evaluations of a reward model share: options, files, the scorer, and the printed summary."""

import hashlib
import re
import shlex
import sys
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Annotated, Any

import typer

from codescaler_plugin.cli.options import MaxTokens, Model
from codescaler_plugin.cli.terminal import Terminal, errors, number_table, progress_bar, say, without_loading_bars
from codescaler_plugin.data.outputs import check_folder, check_output
from codescaler_plugin.data.rows import stem
from codescaler_plugin.errors import ConfigError
from codescaler_plugin.extras import require
from codescaler_plugin.safety import one_line

if TYPE_CHECKING:
    from codescaler_plugin.evaluation.best_of_n import Candidates
    from codescaler_plugin.records import PreferencePair
    from codescaler_plugin.report.sections import Section

Data = Annotated[str, typer.Argument(metavar="DATA", help="File, folder or hub id.")]
Seed = Annotated[int, typer.Option(help="Of draws and intervals.")]
Split = Annotated[str | None, typer.Option(help="Only pairs of this split, such as held_out.")]

_SCORES = {  # files of scores that each evaluation writes or resumes
    "pairs": ("pairs.{}.jsonl", "pairs.{}.rewritten.jsonl", "pairs.{}.human_bugs.jsonl"),
    "rm-bench": ("rm-bench.{}.jsonl",),
    "candidates": ("candidates.{}.jsonl",),
    "calibration": ("pairs.{}.jsonl", "candidates.{}.jsonl"),
    "robustness": ("robustness.{}.jsonl",),
}


@dataclass(frozen=True)
class RunOptions:
    """A group of options that every evaluation has, see `options.grouped`."""

    model: Model = None
    output: Annotated[
        Path | None, typer.Option(help="Folder for scores and numbers; else evaluation/ and the model's name.")
    ] = None
    name: Annotated[str | None, typer.Option(help="Name of the data in the report; else that of its file.")] = None
    max_tokens: MaxTokens = None


class Run:
    """One evaluation.

    Args:
        evaluation: name of the subcommand.
        data: file, folder or hub id.
        options: options of the command.
        more: a second input.

    Raises:
        ConfigError: a wrong setting, or files that cannot be written.
    """

    def __init__(self, evaluation: str, data: str, options: RunOptions, more: str | None = None) -> None:
        from codescaler_plugin.config import CodeScalerConfig
        from codescaler_plugin.report.summary import check_summary, summary_file

        self.evaluation, self.data = evaluation, data
        self.config = CodeScalerConfig.from_env(model=options.model, max_tokens=options.max_tokens)
        self.model = self.config.model
        self.identity = _identity(self.model, self.config.max_length)
        self.folder = options.output or Path("evaluation") / _slug(Path(self.model).name or self.model)
        self.name = _slug(options.name or stem(Path(data).name))
        self.started = perf_counter()
        modules = {"rm-bench": (), "calibration": ("scipy", "sklearn")}.get(evaluation, ("scipy",))
        require(f"evaluate {evaluation}", "report", *modules)
        check_folder(self.folder)
        summary = summary_file(self.folder, evaluation, self.name)
        written = [summary, *(self.folder / pattern.format(self.name) for pattern in _SCORES[evaluation])]
        for file in written:
            check_output(file, [data, *([more] if more is not None else ())])
        file = Path(data)
        self.data_sha256 = hashlib.sha256(file.read_bytes()).hexdigest() if file.is_file() else ""
        check_summary(summary, self.model, self.data_sha256)

    def score(
        self,
        function: Callable[..., Any],
        rows: Sequence[Any],
        *,
        total: int | None = None,
        of: str | None = None,
        **settings: Any,
    ) -> Any:
        """Call a function of the evaluation room with rows and the scorer.

        Args:
            function: function that scores rows.
            rows: rows to score.
            total: number of rows, if known, for the progress bar.
            of: evaluation whose file keeps the scores. The default is this evaluation.
            settings: further arguments of the function.
        """
        from codescaler_plugin.pipeline import CodeScaler

        without_loading_bars()
        scorer = CodeScaler(config=self.config).scorer
        kept = self.folder / f"{of or self.evaluation}.{self.name}.jsonl"
        with progress_bar("scoring", total) as advance:
            return function(rows, scorer, output=kept, model=self.identity, progress=advance, **settings)

    def finish(self, result: Mapping[str, Any]) -> None:
        """Write the summary, and print its sections of the report."""
        from codescaler_plugin.report.document import sections
        from codescaler_plugin.report.summary import Summary, write_summary

        facts = {
            "data": Path(self.data).name,
            "data_sha256": self.data_sha256,
            "command": shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]),
            "seconds": round(perf_counter() - self.started, 1),
        }
        summary = Summary(self.evaluation, self.name, self.model, result, facts)
        path = write_summary(self.folder, summary)
        for section in sections([summary]):
            _print(section)
        say(f"wrote {path}")


def read_split(data: str, split: str | None) -> "list[PreferencePair]":
    """The pairs of a split, or all.

    Raises:
        ConfigError: there are none.
    """
    from codescaler_plugin.data.pairs import read_pairs

    pairs = [pair for pair in read_pairs(data) if split in (None, pair.split)]
    sizes = Counter(pair.split for pair in pairs)
    if {"train", "held_out"} <= sizes.keys():
        counts = ", ".join(f"{count} of {name}" for name, count in sizes.items())
        errors.print(
            f"all splits are measured together ({counts}); --split held_out leaves out what a model trained on"
        )
    if not pairs:
        raise ConfigError(f"{data} holds no pairs" + (f" of the split {split!r}" if split else ""))
    return pairs


def read_verdicts(data: str, extraction: str) -> "list[Candidates]":
    """Candidates with verdicts; prints the number of those without."""
    from codescaler_plugin.evaluation.best_of_n import read_candidates

    groups = read_candidates(data, extraction=extraction)
    if count := sum(group.without_verdict for group in groups):
        errors.print(f"left out: {count:,}, on which the tests gave no verdict (column fault)", style="yellow")
    return groups


def _identity(model: str, max_length: int | None) -> str:
    """The identity of the model that kept scores belong to. A folder's changes with its files."""
    from codescaler_plugin.builtin import reward_model

    folder = Path(reward_model(model)).expanduser()
    files = sorted(folder.iterdir()) if folder.is_dir() else []
    states = [
        f"{file.name} {file.stat().st_size} {file.stat().st_mtime_ns}"
        for file in files
        if file.suffix in (".safetensors", ".bin", ".json", ".jinja")
    ]
    return "\n".join([model, f"max_length {max_length}", *states])


def _slug(text: str) -> str:
    return re.sub(r"[^\w.-]+", "-", text).strip("-.") or "data"


def _print(section: "Section") -> None:
    console = Terminal()
    console.print(section.title, style="bold")
    for number, data in enumerate(section.tables):
        if number:
            console.print()
        table = number_table(*data.head, title=data.caption or None, title_justify="left", padding=(0, 2, 0, 0))
        for row in data.rows:
            table.add_row(*(one_line(cell) for cell in row), style="bold" if len(row) == 1 else None)
        console.print(table)
    for finding in section.findings:
        console.print(finding)
