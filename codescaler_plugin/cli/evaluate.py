"""`codescaler evaluate`: what a reward model is worth, by five measures; each leaves its numbers for the report."""

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

from codescaler_plugin.cli.options import MaxTokens, Model, grouped
from codescaler_plugin.cli.terminal import (
    Terminal,
    errors,
    number_table,
    rate_bar,
    reported,
    say,
    without_loading_bars,
)
from codescaler_plugin.data.outputs import check_folder, check_output, write_text
from codescaler_plugin.data.rows import stem
from codescaler_plugin.errors import ConfigError
from codescaler_plugin.extras import require
from codescaler_plugin.safety import one_line

if TYPE_CHECKING:
    from codescaler_plugin.evaluation.best_of_n import Candidates
    from codescaler_plugin.records import PreferencePair
    from codescaler_plugin.report.sections import Section

evaluate = typer.Typer(no_args_is_help=True, help="Measure a reward model; codescaler report makes a page of it.")

_Data = Annotated[str, typer.Argument(metavar="DATA", help="File, folder or hub id.")]
_Extraction = Annotated[str, typer.Option(help="Which block of a completion is its code, where no code is given.")]
_Seed = Annotated[int, typer.Option(help="Of draws and intervals.")]
_Split = Annotated[str | None, typer.Option(help="Only pairs of this split, such as held_out.")]

_SCORES = {  # the files of scores that each writes or goes on with
    "pairs": ("pairs.{}.jsonl", "pairs.{}.rewritten.jsonl", "pairs.{}.human_bugs.jsonl"),
    "rm-bench": ("rm-bench.{}.jsonl",),
    "candidates": ("candidates.{}.jsonl",),
    "calibration": ("pairs.{}.jsonl", "candidates.{}.jsonl"),
    "robustness": ("robustness.{}.jsonl",),
}


@dataclass(frozen=True)
class _RunOptions:
    """What every evaluation asks; a group of options, see `options.grouped`."""

    output: Annotated[
        Path | None, typer.Option(help="Folder for scores and numbers; else evaluation/ and the model's name.")
    ] = None
    name: Annotated[str | None, typer.Option(help="What the data is called in the report; else as its file.")] = None
    max_tokens: MaxTokens = None


class _Run:
    """One evaluation: where its files go, the scorer, and its name for the report."""

    def __init__(
        self, evaluation: str, data: str, model: str | None, options: _RunOptions, more: str | None = None
    ) -> None:
        from codescaler_plugin.config import CodeScalerConfig
        from codescaler_plugin.report.summary import check_summary, summary_file

        self.evaluation, self.data = evaluation, data
        self.config = CodeScalerConfig.from_env(model=model, max_tokens=options.max_tokens)
        self.model = self.config.model
        self.identity = _identity(self.model, self.config.max_length)
        self.folder = options.output or Path("evaluation") / _slug(Path(self.model).name or self.model)
        self.name = _slug(options.name or stem(Path(data).name))
        self.started = perf_counter()
        modules = {"rm-bench": (), "calibration": ("scipy", "sklearn")}.get(evaluation, ("scipy",))
        require(f"evaluate {evaluation}", "report", *modules)
        check_folder(self.folder)
        summary = summary_file(self.folder, evaluation, self.name)
        written = [summary, *(self.folder / one.format(self.name) for one in _SCORES[evaluation])]
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
        """What a function makes of rows and the scorer. Scores are kept as those `of` an evaluation; else this one."""
        from codescaler_plugin.pipeline import CodeScaler

        without_loading_bars()
        scorer = CodeScaler(config=self.config).scorer
        kept = self.folder / f"{of or self.evaluation}.{self.name}.jsonl"
        with rate_bar("scoring", total) as advance:
            return function(rows, scorer, output=kept, model=self.identity, progress=advance, **settings)

    def finish(self, result: Mapping[str, Any]) -> None:
        """Write the summary and print what the report will say of it."""
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


@evaluate.command()
@grouped
def pairs(
    data: _Data,
    model: Model = None,
    human_bugs: Annotated[
        str | None, typer.Option(metavar="FILE", help="Rows of HumanEvalPack, for the control by bugs people made.")
    ] = None,
    base_model: Annotated[
        str | None, typer.Option(help="Causal model for the control by log-probability: hub id or directory.")
    ] = None,
    base_pairs: Annotated[int, typer.Option(min=1, help="Pairs drawn for that control.")] = 256,
    split: _Split = None,
    *,
    options: _RunOptions,
    seed: _Seed = 0,
) -> None:
    """Accuracy on pairs: overall, per kind, by margin, and beside its controls.

    DATA holds pairs in any format of codescaler mine. Called again, the same
    command goes on where it ended.
    """
    with reported():
        from codescaler_plugin.evaluation.pairwise import evaluate_pairs, read_human_bugs

        run = _Run("pairs", data, model, options, human_bugs)
        found = _pairs(data, split)
        bugs = list(read_human_bugs(human_bugs)) if human_bugs else []
        controls: dict[str, Any] = {"human_bugs": bugs, "base_model": base_model, "base_pairs": base_pairs}
        run.finish(run.score(evaluate_pairs, found, seed=seed, **controls))


@evaluate.command("rm-bench")
@grouped
def rm_bench(
    data: _Data,
    model: Model = None,
    completions: Annotated[
        str, typer.Option(help="raw, as the benchmark; or extracted: the last code block.")
    ] = "raw",
    published: Annotated[
        str | None, typer.Option(metavar="MODEL", help="DATA holds this model's scores; nothing is scored.")
    ] = None,
    *,
    options: _RunOptions,
) -> None:
    """RM-Bench: the matrix of styles, Easy, Normal, Hard, domains, languages.

    DATA is a file of the benchmark, a file of its results (with --published),
    or THU-KEG/RM-Bench on the hub.
    """
    with reported():
        from codescaler_plugin.evaluation.rm_bench import evaluate_rm_bench, read_rm_bench

        if published and completions != "raw":
            raise ConfigError(
                f"--completions {completions} with --published: nothing is scored, the scores are as published"
            )
        run = _Run("rm-bench", data, published or model, options)
        rows = read_rm_bench(data)
        if published:
            run.finish(evaluate_rm_bench(rows, None))
        else:
            run.finish(run.score(evaluate_rm_bench, rows, total=len(rows), completions=completions))


@evaluate.command()
@grouped
def candidates(
    data: _Data,
    model: Model = None,
    max_n: Annotated[int | None, typer.Option(min=1, help="Largest N; else 64 or what most problems have.")] = None,
    extraction: _Extraction = "last",
    *,
    options: _RunOptions,
    seed: _Seed = 0,
) -> None:
    """Best of N against random choice, length and the oracle.

    DATA holds candidates with verdicts: the output of codescaler verify, or
    any rows with problem, passed, and code or completion.
    """
    with reported():
        from codescaler_plugin.evaluation.best_of_n import evaluate_candidates, read_candidates

        run = _Run("candidates", data, model, options)
        groups = _judged(read_candidates(data, extraction=extraction))
        run.finish(run.score(evaluate_candidates, groups, total=len(groups), max_n=max_n, seed=seed))


@evaluate.command()
@grouped
def calibration(
    data: _Data,
    model: Model = None,
    extraction: _Extraction = "last",
    split: _Split = None,
    *,
    options: _RunOptions,
) -> None:
    """From a margin to the probability of being right: isotonic and Platt.

    DATA holds pairs, or candidates with verdicts; of candidates the margin is
    that of the best program over the next other one, as codescaler select needs
    it. Scores that evaluate pairs or candidates left in the folder are used.
    Writes the two calibrations beside the numbers, fitted on all examples.
    """
    with reported():
        from codescaler_plugin.data.pairs import is_pair
        from codescaler_plugin.data.rollouts import rows_of
        from codescaler_plugin.evaluation.best_of_n import leading_margins, read_candidates, score_candidates
        from codescaler_plugin.evaluation.calibration import evaluate_calibration
        from codescaler_plugin.evaluation.pairwise import score_pairs
        from codescaler_plugin.intervals import area, win
        from codescaler_plugin.report.sections import MARGIN_NOTE
        from codescaler_plugin.selection.calibration import METHODS, fit_calibration

        run = _Run("calibration", data, model, options)
        _, _, first = next(rows_of(data), ("", "", {}))
        across: dict[str, Any] = {}
        if is_pair(first):
            scored = run.score(score_pairs, _pairs(data, split), of="pairs")
            margins = [abs(one.gap) for one in scored]
            right = [win(one.gap, 0.0) for one in scored]
            problems = [one.problem for one in scored]
            across["paired"] = sum(right) / len(right)
            across["pooled"] = area([one.chosen for one in scored], [one.rejected for one in scored])
        else:
            groups = _judged(read_candidates(data, extraction=extraction))
            scores = run.score(score_candidates, groups, of="candidates")
            margins, right, problems = leading_margins(groups, scores)
        result = evaluate_calibration(margins, right, problems)
        run.finish({**result, **across})
        for method in METHODS:
            path = run.folder / f"calibration.{run.name}.{method}.json"
            write_text(path, fit_calibration(margins, right, method=method, model=run.model).to_json() + "\n")
            say(f"wrote {path}")
        errors.print(f"note: {MARGIN_NOTE}", style="yellow")


@evaluate.command()
@grouped
def robustness(
    data: _Data,
    model: Model = None,
    limit: Annotated[int, typer.Option(min=1, help="Pairs drawn.")] = 500,
    split: _Split = None,
    *,
    options: _RunOptions,
    seed: _Seed = 0,
) -> None:
    """Accuracy and scores under edits that change nothing of what a program does.

    Padding, praise in comments, dead code, other names, another layout; each
    as an attack on pairs of Python programs.
    """
    with reported():
        from codescaler_plugin.evaluation.robustness import evaluate_robustness

        run = _Run("robustness", data, model, options)
        found = _pairs(data, split)
        total = min(limit, len(found))
        run.finish(run.score(evaluate_robustness, found, total=total, limit=limit, seed=seed))


def _pairs(data: str, split: str | None) -> "list[PreferencePair]":
    from codescaler_plugin.data.pairs import read_pairs

    pairs = list(read_pairs(data))
    found = [pair for pair in pairs if split in (None, pair.split)]
    sizes = Counter(pair.split for pair in found)
    if {"train", "held_out"} <= sizes.keys():
        counts = ", ".join(f"{count} of {name}" for name, count in sizes.items())
        errors.print(
            f"all splits are measured together ({counts}); --split held_out leaves out what a model trained on",
        )
    if not found:
        raise ConfigError(f"{data} holds no pairs" + (f" of the split {split!r}" if split else ""))
    return found


def _judged(groups: "list[Candidates]") -> "list[Candidates]":
    """The groups as given; how many candidates were left out of them is said."""
    if count := sum(group.without_verdict for group in groups):
        errors.print(f"left out: {count:,}, on which the tests gave no verdict (column fault)", style="yellow")
    return groups


def _identity(model: str, max_length: int | None) -> str:
    """What kept scores belong to: a model in a folder may have been trained anew since."""
    from codescaler_plugin.builtin import reward_model

    folder = Path(reward_model(model)).expanduser()
    files = sorted(folder.iterdir()) if folder.is_dir() else []
    found = [
        f"{file.name} {file.stat().st_size} {file.stat().st_mtime_ns}"
        for file in files
        if file.suffix in (".safetensors", ".bin", ".json", ".jinja")
    ]
    return "\n".join([model, f"max_length {max_length}", *found])


def _slug(text: str) -> str:
    return re.sub(r"[^\w.-]+", "-", text).strip("-.") or "data"


def _print(section: "Section") -> None:
    console = Terminal()
    console.print(section.title, style="bold")
    for number, one in enumerate(section.tables):
        if number:
            console.print()
        table = number_table(*one.head, title=one.caption or None, title_justify="left", padding=(0, 2, 0, 0))
        for row in one.rows:
            table.add_row(*(one_line(cell) for cell in row), style="bold" if len(row) == 1 else None)
        console.print(table)
    for finding in section.findings:
        console.print(finding)
