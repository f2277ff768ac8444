"""Summaries: the result of an evaluation of a model as a file, `<evaluation>.<name>.summary.json`.

`codescaler evaluate` and `benchmarks/bench_latency.py --output` write them, and the report reads them.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from codescaler_plugin import __version__
from codescaler_plugin.data.outputs import check_folder, write_text
from codescaler_plugin.errors import ConfigError, DataError

EVALUATIONS = ("pairs", "rm-bench", "candidates", "calibration", "robustness", "latency")
_NEWEST = {"pairs": "strongest", "candidates": "max_n", "latency": "strategies"}  # keys that older versions lack


@dataclass(frozen=True)
class Summary:
    """The result of one evaluation of one model. Those of one evaluation and name are compared in one table."""

    evaluation: str  # one of `EVALUATIONS`
    name: str  # of the data
    model: str
    result: Mapping[str, Any]
    facts: Mapping[str, Any] = field(default_factory=dict)  # other fields of the file: `command`, `data_sha256`, ...


def write_summary(folder: Path, summary: Summary) -> Path:
    """Write a summary into a folder and return its file. A summary of the same model and data is replaced."""
    path = summary_file(folder, summary.evaluation, summary.name)
    check_summary(path, summary.model, summary.facts.get("data_sha256"))
    row = {
        "evaluation": summary.evaluation,
        "name": summary.name,
        "model": summary.model,
        "version": __version__,
        **summary.facts,
        "result": summary.result,
    }
    check_folder(folder)
    write_text(path, json.dumps(row, indent=1, allow_nan=False) + "\n")
    return path


def summary_file(folder: Path, evaluation: str, name: str) -> Path:
    """The path of a summary."""
    return folder / f"{evaluation}.{name}.summary.json"


def check_summary(path: Path, model: str, data_sha256: str | None) -> None:
    """Raise if writing to `path` would replace a summary of another model or other data."""
    if not path.exists():
        return
    summary = _read_summary(path)
    if (summary.model, summary.facts.get("data_sha256")) != (model, data_sha256):
        raise ConfigError(
            f"{path} is of the model {summary.model} on {summary.facts.get('data', 'its data')}, not of {model} on "
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


def _read_summary(file: Path) -> Summary:
    try:
        row = json.loads(file.read_text(encoding="utf-8"))
        evaluation, name, model, result = (row.pop(key) for key in ("evaluation", "name", "model", "result"))
    except (ValueError, KeyError, AttributeError) as error:
        raise DataError(f"{file} is no summary of `codescaler evaluate`: {error}") from error
    if evaluation not in EVALUATIONS or not isinstance(result, dict):
        raise DataError(f"{file} is no summary of `codescaler evaluate`: evaluation {evaluation!r}")
    if (key := _NEWEST.get(evaluation)) and key not in result:
        raise DataError(f"{file} is of an older version, without {key!r}: run its command again")
    return Summary(evaluation, name, model, result, row)
