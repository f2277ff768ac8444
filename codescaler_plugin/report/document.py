"""The report: a section for each evaluation and data set, with reward models side by side."""

from collections.abc import Sequence
from itertools import cycle
from pathlib import Path

from codescaler_plugin.errors import DataError
from codescaler_plugin.report.page import check_page, write_page
from codescaler_plugin.report.pairs import pairs_section, rm_bench_section, robustness_section
from codescaler_plugin.report.plots import COLOURS
from codescaler_plugin.report.sections import Result, Section, Table
from codescaler_plugin.report.selection import calibration_section, candidates_section, latency_section
from codescaler_plugin.report.summary import EVALUATIONS, Summary, read_summaries

_SECTIONS = {
    "pairs": ("Pairs", pairs_section),
    "rm-bench": ("RM-Bench", rm_bench_section),
    "candidates": ("Best of N", candidates_section),
    "calibration": ("Calibration", calibration_section),
    "robustness": ("Robustness", robustness_section),
    "latency": ("Latency", latency_section),
}


def write_report(folders: Sequence[Path], output: Path, *, title: str = "Reward models") -> tuple[Path, Path]:
    """Write the summaries in folders as a page, see `write_page`; returns the HTML and the Markdown file."""
    check_page(output)
    summaries = read_summaries(folders)
    labels = _labels([summary.model for summary in summaries])
    rows = [
        [
            labels[summary.model],
            f"{_SECTIONS[summary.evaluation][0]}: {summary.name}",
            str(summary.facts.get("command", "")),
            str(summary.facts.get("data_sha256", ""))[:12],
        ]
        for summary in summaries
    ]
    methods = Table(("model", "evaluation", "command", "SHA-256 of the data"), rows)
    return write_page(output, title, sections(summaries), methods)


def sections(summaries: Sequence[Summary]) -> list[Section]:
    """The sections of a report, by evaluation and name of the data."""
    groups: dict[tuple[str, str], dict[str, Result]] = {}
    for summary in summaries:
        models = groups.setdefault((summary.evaluation, summary.name), {})
        if summary.model in models:
            raise DataError(
                f"two summaries of {summary.evaluation} {summary.name!r} for {summary.model}: leave one folder out"
            )
        models[summary.model] = summary.result
    labels = _labels([summary.model for summary in summaries])
    colours = dict(zip(labels.values(), cycle(COLOURS), strict=False))
    ordered = sorted(groups.items(), key=lambda group: EVALUATIONS.index(group[0][0]))
    return [
        write(f"{heading}: {name}", {labels[model]: result for model, result in models.items()}, colours)
        for (evaluation, name), models in ordered
        for heading, write in [_SECTIONS[evaluation]]
    ]


def _labels(models: Sequence[str]) -> dict[str, str]:
    """The last part of each model's name, or all of it if two models share that."""
    last = {model: Path(model).name or model for model in models}
    return {model: name if list(last.values()).count(name) == 1 else model for model, name in last.items()}
