"""The subcommands of `codescaler evaluate` that measure a reward model."""

import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Annotated, Any

from typer import Argument, Option

from codescaler_plugin.builtin import reward_model
from codescaler_plugin.cli.evaluate.outcome import finish, sha256_of
from codescaler_plugin.cli.options import BaseModel, Extraction, MaxTokens, Model, grouped
from codescaler_plugin.cli.terminal import errors, hide_loading_bars, progress_bar, reported, say
from codescaler_plugin.data.outputs import check_folder, check_output, write_text
from codescaler_plugin.data.rows import stem
from codescaler_plugin.errors import ConfigError
from codescaler_plugin.extras import require
from codescaler_plugin.records import PreferencePair

if TYPE_CHECKING:
    from codescaler_plugin.evaluation.best_of_n import Candidates
    from codescaler_plugin.evaluation.result import Result

Data = Annotated[str, Argument(metavar="DATA", help="File, folder or hub id.")]
Seed = Annotated[int, Option(help="Of draws and intervals.")]
Split = Annotated[str | None, Option(help="Only pairs of this split, such as held_out.")]


@dataclass(frozen=True)
class _Options:
    """A group of options that every evaluation has, see `options.grouped`."""

    model: Model = None
    output: Annotated[
        Path | None, Option(help="Folder for scores and numbers; else evaluation/ and the model's name.")
    ] = None
    name: Annotated[str | None, Option(help="Name of the data in the report; else that of its file.")] = None
    max_tokens: MaxTokens = None


class _Run:
    """One evaluation of a reward model.

    `scores` are its files of scores, with {} for the name of the data; `modules` are those that it needs of the extra
    `report`, and `more` is a second input.
    """

    def __init__(
        self,
        result: "type[Result]",
        data: str,
        options: _Options,
        *,
        scores: Sequence[str],
        modules: Sequence[str] = ("scipy",),
        more: str | None = None,
    ) -> None:
        from codescaler_plugin.config import CodeScalerConfig
        from codescaler_plugin.evaluation.summary import check_summary, summary_file

        self.evaluation, self.data = result.evaluation, data
        self.config = CodeScalerConfig.from_env(model=options.model, max_tokens=options.max_tokens)
        self.model = self.config.model
        self._identity = _identity(self.model, self.config.max_length)
        self.folder = options.output or Path("evaluation") / _slug(Path(self.model).name or self.model)
        self.name = _slug(options.name or stem(Path(data).name))
        self.started = perf_counter()
        require(f"evaluate {self.evaluation}", "report", *modules)
        check_folder(self.folder)
        summary = summary_file(self.folder, result, self.name)
        for path in (summary, *(self.folder / pattern.format(self.name) for pattern in scores)):
            check_output(path, [data, *([more] if more is not None else ())])
        self.data_sha256 = sha256_of(data)
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
        """Call a function that scores rows. The file of the evaluation `of`, by default this, keeps the scores."""
        from codescaler_plugin.pipeline import CodeScaler

        hide_loading_bars()
        scorer = CodeScaler(config=self.config).scorer
        kept = self.folder / f"{of or self.evaluation}.{self.name}.jsonl"
        with progress_bar("scoring", total) as advance:
            return function(rows, scorer, output=kept, model=self._identity, progress=advance, **settings)

    def finish(self, result: "Result") -> None:
        """Write the summary, and print its section of the report."""
        seconds = round(perf_counter() - self.started, 1)
        facts = {"data": Path(self.data).name, "data_sha256": self.data_sha256, "seconds": seconds}
        finish(self.folder, self.name, self.model, result, **facts)


@grouped
def pairs(
    data: Data,
    *,
    options: _Options,
    human_bugs: Annotated[
        str | None, Option(metavar="FILE", help="Rows of HumanEvalPack, for the control by human bugs.")
    ] = None,
    base_model: BaseModel = None,
    base_pairs: Annotated[int, Option(min=1, help="Pairs drawn for the control by log-probability.")] = 256,
    split: Split = None,
    seed: Seed = 0,
) -> None:
    """Accuracy on pairs: overall, per kind, by margin, and beside its controls.

    DATA holds pairs in any format of codescaler mine. Interrupted runs resume
    with the same command.

    Example: codescaler evaluate pairs held_out.jsonl --model MODEL
    """
    with reported():
        from codescaler_plugin.evaluation.pair_result import PairResult
        from codescaler_plugin.evaluation.pairwise import evaluate_pairs, read_human_bugs

        files = ("pairs.{}.jsonl", "pairs.{}.rewritten.jsonl", "pairs.{}.human_bugs.jsonl")
        run = _Run(PairResult, data, options, scores=files, modules=("scipy", "sklearn"), more=human_bugs)
        rows = _pairs_of(data, split)
        bugs = list(read_human_bugs(human_bugs)) if human_bugs else []
        controls: dict[str, Any] = {"human_bugs": bugs, "base_model": base_model, "base_pairs": base_pairs}
        run.finish(run.score(evaluate_pairs, rows, seed=seed, **controls))


@grouped
def rm_bench(
    data: Data,
    *,
    options: _Options,
    completions: Annotated[str, Option(help="raw, as the benchmark; or extracted: the last code block.")] = "raw",
    published: Annotated[
        str | None, Option(metavar="MODEL", help="DATA holds this model's scores; nothing is scored.")
    ] = None,
) -> None:
    """RM-Bench: the matrix of styles, Easy, Normal, Hard, domains, languages.

    DATA is a file of the benchmark, a file of its results (with --published),
    or THU-KEG/RM-Bench on the hub.

    Example: codescaler evaluate rm-bench code_filtered.json --model MODEL
    """
    with reported():
        from codescaler_plugin.evaluation.rm_bench import RMBenchResult, evaluate_rm_bench, read_rm_bench

        if published and completions != "raw":
            raise ConfigError(
                f"--completions {completions} with --published: nothing is scored, the scores are as published"
            )
        options = replace(options, model=published or options.model)
        run = _Run(RMBenchResult, data, options, scores=("rm-bench.{}.jsonl",), modules=())
        rows = read_rm_bench(data)
        if published:
            run.finish(evaluate_rm_bench(rows, None))
        else:
            run.finish(run.score(evaluate_rm_bench, rows, total=len(rows), completions=completions))


@grouped
def candidates(
    data: Data,
    *,
    options: _Options,
    max_n: Annotated[int | None, Option(min=1, help="Largest N; else 64 or what most problems have.")] = None,
    extraction: Extraction = "last",
    seed: Seed = 0,
) -> None:
    """Best of N against random choice, length and the oracle.

    DATA holds candidates with verdicts: the output of codescaler verify, or
    any rows with problem, passed, and code or completion.

    Example: codescaler evaluate candidates verdicts.jsonl --model MODEL
    """
    with reported():
        from codescaler_plugin.evaluation.best_of_n import BestOfNResult, evaluate_candidates

        run = _Run(BestOfNResult, data, options, scores=("candidates.{}.jsonl",))
        groups = _candidates_of(data, extraction)
        run.finish(run.score(evaluate_candidates, groups, total=len(groups), max_n=max_n, seed=seed))


@grouped
def calibration(data: Data, *, options: _Options, extraction: Extraction = "last", split: Split = None) -> None:
    """From a margin to the probability of being right: isotonic and Platt.

    DATA holds pairs, or candidates with verdicts; the margin of candidates is
    that of the best program over the next other one, as codescaler rank needs
    it. Scores that evaluate pairs or candidates left in the folder are used.
    Writes the two calibrations beside the numbers, fitted on all examples.

    Example: codescaler evaluate calibration held_out.jsonl --model MODEL
    """
    with reported():
        from codescaler_plugin.data.pairs import is_pair
        from codescaler_plugin.data.rollouts import rows_of
        from codescaler_plugin.evaluation.best_of_n import leading_margins, score_candidates
        from codescaler_plugin.evaluation.calibration import MARGIN_NOTE, CalibrationResult, evaluate_calibration
        from codescaler_plugin.evaluation.pairwise import score_pairs
        from codescaler_plugin.intervals import area, win
        from codescaler_plugin.selection.calibration import METHODS, fit_calibration

        files = ("pairs.{}.jsonl", "candidates.{}.jsonl")
        run = _Run(CalibrationResult, data, options, scores=files, modules=("scipy", "sklearn"))
        _, _, first = next(rows_of(data), ("", "", {}))
        paired: float | None = None
        pooled: float | None = None
        if is_pair(first):
            scored = run.score(score_pairs, _pairs_of(data, split), of="pairs")
            margins = [abs(pair.gap) for pair in scored]
            right = [win(pair.gap, 0.0) for pair in scored]
            problems = [pair.problem for pair in scored]
            paired = sum(right) / len(right)
            pooled = area([pair.chosen for pair in scored], [pair.rejected for pair in scored])
        else:
            groups = _candidates_of(data, extraction)
            scores = run.score(score_candidates, groups, of="candidates")
            margins, right, problems = leading_margins(groups, scores)
        run.finish(replace(evaluate_calibration(margins, right, problems), paired=paired, pooled=pooled))
        for method in METHODS:
            path = run.folder / f"calibration.{run.name}.{method}.json"
            write_text(path, fit_calibration(margins, right, method=method, model=run.model).to_json() + "\n")
            say(f"wrote {path}")
        errors.print(f"note: {MARGIN_NOTE}", style="yellow")


@grouped
def robustness(
    data: Data,
    *,
    options: _Options,
    limit: Annotated[int, Option(min=1, help="Pairs drawn.")] = 500,
    split: Split = None,
    seed: Seed = 0,
) -> None:
    """Accuracy and scores under edits that keep a program's behaviour.

    Padding, praise in comments, dead code, other names, another layout; each
    as an attack on pairs of Python programs.

    Example: codescaler evaluate robustness held_out.jsonl --model MODEL
    """
    with reported():
        from codescaler_plugin.evaluation.robustness import RobustnessResult, evaluate_robustness

        run = _Run(RobustnessResult, data, options, scores=("robustness.{}.jsonl",))
        rows = _pairs_of(data, split)
        run.finish(run.score(evaluate_robustness, rows, total=min(limit, len(rows)), limit=limit, seed=seed))


def _pairs_of(data: str, split: str | None) -> list[PreferencePair]:
    """The pairs of a split, or all."""
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


def _candidates_of(data: str, extraction: str) -> "list[Candidates]":
    """Candidates with verdicts; prints the number of those without."""
    from codescaler_plugin.evaluation.best_of_n import read_candidates

    groups = read_candidates(data, extraction=extraction)
    if count := sum(group.without_verdict for group in groups):
        errors.print(f"left out: {count:,}, on which the tests gave no verdict (column fault)", style="yellow")
    return groups


def _identity(model: str, max_length: int | None) -> str:
    """The identity of the model that kept scores belong to. A folder's changes with its files."""
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
