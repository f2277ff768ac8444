"""Summaries: the result of an evaluation of a model as a file, `<evaluation>.<name>.summary.json`, and their report.

`codescaler evaluate` and `benchmarks/bench_latency.py --output` write them, and `codescaler report` reads them.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import cycle
from pathlib import Path
from typing import Any

from codescaler_plugin import __version__
from codescaler_plugin.data.outputs import check_folder, write_text
from codescaler_plugin.errors import ConfigError, DataError
from codescaler_plugin.evaluation.best_of_n import BestOfNResult
from codescaler_plugin.evaluation.calibration import CalibrationResult
from codescaler_plugin.evaluation.latency import LatencyResult
from codescaler_plugin.evaluation.pair_result import PairResult
from codescaler_plugin.evaluation.policy import PolicyResult
from codescaler_plugin.evaluation.result import Result
from codescaler_plugin.evaluation.rm_bench import RMBenchResult
from codescaler_plugin.evaluation.robustness import RobustnessResult
from codescaler_plugin.report.page import check_page, write_page
from codescaler_plugin.report.plots import COLOURS
from codescaler_plugin.report.sections import Section, Table

RESULTS: tuple[type[Result], ...] = (  # in the order of the report
    PairResult,
    RMBenchResult,
    BestOfNResult,
    CalibrationResult,
    RobustnessResult,
    LatencyResult,
    PolicyResult,
)
_BY_NAME = {result.evaluation: result for result in RESULTS}


@dataclass(frozen=True)
class Summary:
    """The result of one evaluation of one model. Those of one evaluation and name are compared in one section."""

    name: str  # of the data
    model: str
    result: Result
    facts: Mapping[str, Any] = field(default_factory=dict)  # other fields of the file: `command`, `data_sha256`, ...


def write_summary(folder: Path, summary: Summary) -> Path:
    """Write a summary into a folder and return its file. A summary of the same model and data is replaced."""
    path = summary_file(folder, type(summary.result), summary.name)
    check_summary(path, summary.model, summary.facts.get("data_sha256"))
    row = {
        "evaluation": summary.result.evaluation,
        "name": summary.name,
        "model": summary.model,
        "version": __version__,
        **summary.facts,
        "result": summary.result.to_json(),
    }
    check_folder(folder)
    write_text(path, json.dumps(row, indent=1, allow_nan=False) + "\n")
    return path


def summary_file(folder: Path, result: type[Result], name: str) -> Path:
    """The path of a summary."""
    return folder / f"{result.evaluation}.{name}.summary.json"


def check_summary(path: Path, model: str, data_sha256: str | None) -> None:
    """Raise if writing to `path` would replace a summary of another model or other data."""
    if not path.exists():
        return
    row = _read_row(path)
    if (row["model"], row.get("data_sha256")) != (model, data_sha256):
        raise ConfigError(
            f"{path} is of the model {row['model']} on {row.get('data', 'its data')}, not of {model} on "
            "the data given now. Give another `output=` or `name=`, or delete it"
        )


def read_summaries(folders: Sequence[Path]) -> list[Summary]:
    """All summaries in folders, in the order of the folders."""
    summaries: list[Summary] = []
    for folder in folders:
        if not folder.is_dir():
            raise ConfigError(f"no folder {folder}: give the folders that `codescaler evaluate` wrote")
        files = sorted(folder.glob("*.summary.json"))
        if not files:
            raise ConfigError(f"{folder} holds no *.summary.json: give the folders that `codescaler evaluate` wrote")
        summaries += map(_read_summary, files)
    return summaries


def _read_row(file: Path) -> dict[str, Any]:
    try:
        row = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise DataError(f"{file} is no summary of `codescaler evaluate`: {error}") from error
    for key, kind in (("evaluation", str), ("name", str), ("model", str), ("result", dict)):
        if not isinstance(row, dict) or not isinstance(row.get(key), kind):
            raise DataError(f"{file} is no summary of `codescaler evaluate`: it has no {key!r}")
    if row["evaluation"] not in _BY_NAME:
        raise DataError(f"{file} is no summary of `codescaler evaluate`: evaluation {row['evaluation']!r}")
    read: dict[str, Any] = row
    return read


def _read_summary(file: Path) -> Summary:
    row = _read_row(file)
    evaluation, name, model, values = (row.pop(key) for key in ("evaluation", "name", "model", "result"))
    try:
        result = _BY_NAME[evaluation].from_json(values)
        result.section()  # a result that lacks a part of itself cannot be shown
    except (DataError, LookupError, ValueError) as error:
        raise DataError(f"{file} is of another version of {evaluation} ({error}): run its command again") from error
    return Summary(name, model, result, row)


def write_report(folders: Sequence[Path], output: Path, *, title: str = "Reward models") -> tuple[Path, Path]:
    """Write the summaries in folders as a page, see `write_page`; returns the HTML and the Markdown file."""
    check_page(output)
    summaries = read_summaries(folders)
    labels = _labels([summary.model for summary in summaries])
    rows = [
        [
            labels[summary.model],
            f"{summary.result.heading}: {summary.name}",
            str(summary.facts.get("command", "")),
            str(summary.facts.get("data_sha256", ""))[:12],
        ]
        for summary in summaries
    ]
    methods = Table(("model", "evaluation", "command", "SHA-256 of the data"), rows)
    return write_page(output, title, sections(summaries), methods)


def sections(summaries: Sequence[Summary]) -> list[Section]:
    """The sections of a report, by evaluation and name of the data, with models side by side."""
    groups: dict[tuple[type[Result], str], dict[str, Result]] = {}
    for summary in summaries:
        kind = type(summary.result)
        models = groups.setdefault((kind, summary.name), {})
        if summary.model in models:
            raise DataError(
                f"two summaries of {kind.evaluation} {summary.name!r} for {summary.model}: leave one folder out"
            )
        models[summary.model] = summary.result
    labels = _labels([summary.model for summary in summaries])
    colours = dict(zip(labels.values(), cycle(COLOURS), strict=False))
    return [
        kind.compare(f"{kind.heading}: {name}", {labels[model]: result for model, result in models.items()}, colours)
        for (kind, name), models in sorted(groups.items(), key=lambda group: RESULTS.index(group[0][0]))
    ]


def _labels(models: Sequence[str]) -> dict[str, str]:
    """The last part of each model's name, or all of it if two models share that."""
    last = {model: Path(model).name or model for model in models}
    return {model: name if list(last.values()).count(name) == 1 else model for model, name in last.items()}
