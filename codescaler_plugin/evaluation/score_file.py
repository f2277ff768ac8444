"""Scores of rows, kept in a file that an interrupted run resumes."""

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from math import isfinite
from pathlib import Path
from typing import Any, TypedDict

from codescaler_plugin.data.outputs import check_folder, open_resumable
from codescaler_plugin.prefetch import weighed_chunks
from codescaler_plugin.scoring import Scorer

Item = tuple[str, str]  # a problem and a code, as a scorer takes them
Scores = list[float | None]

_CHUNK = 256  # items between two writes: what a kill can cost


@dataclass(frozen=True)
class Row:
    """Items that are scored together, such as the sides of a pair or the candidates of a problem; at least one."""

    facts: dict[str, Any]  # fields of its line beside the scores
    items: tuple[Item, ...]


class ScoreOptions(TypedDict, total=False):
    """Settings of `score_rows` that every evaluation passes on to it."""

    output: Path | None
    model: str
    progress: Callable[[int], None] | None


def score_rows(
    rows: Sequence[Row],
    scorer: Scorer,
    output: Path | None = None,
    *,
    model: str = "",
    progress: Callable[[int], None] | None = None,
) -> list[Scores]:
    """The scores of every row, in order.

    A line of `output` holds a row's facts, its `scores`, and a `key` of the model and the texts. An interrupted run
    resumes if the model and the rows are the same; a torn last line is removed. Without `output` the scores are not
    kept. `model` names the model behind the scorer. `progress` receives the number of rows just read or scored.

    Raises:
        ConfigError: the output cannot be written, another process writes it, or it is of another model or other rows.
        ScorerError: the model failed. The rows before are in the file.
    """
    chunks = partial(weighed_chunks, size=_CHUNK, weight=lambda row: len(row.items))
    if output is None:
        return [scores for chunk in chunks(rows) for scores in _scored(chunk, scorer, progress)]
    check_folder(output.parent)
    results: list[Scores] = []

    def claim(line: Any) -> str:
        key = _key(model, rows[len(results)]) if len(results) < len(rows) else None
        if not isinstance(line, dict) or key is None or line.get("key") != key or "scores" not in line:
            return (
                "is of another model, other data or other options than are given now. Give another `output=` "
                "or `name=`, or delete it to start over"
            )
        results.append(line["scores"])
        return ""

    with open_resumable(output, claim) as file:
        if progress is not None:
            progress(len(results))
        for chunk in chunks(rows[len(results) :]):
            for row, scores in zip(chunk, _scored(chunk, scorer, progress), strict=True):
                line = {**row.facts, "scores": scores, "key": _key(model, row)}
                file.write(json.dumps(line).encode() + b"\n")
                results.append(scores)
            file.flush()
    return results


def _scored(chunk: Sequence[Row], scorer: Scorer, progress: Callable[[int], None] | None) -> list[Scores]:
    scores = iter(scorer.score([item for row in chunk for item in row.items]))
    results = [[_finite(next(scores)) for _ in row.items] for row in chunk]
    if progress is not None:
        progress(len(chunk))
    return results


def _finite(score: float | None) -> float | None:
    """The score, or None if it is no number, as the pipeline has it."""
    return score if score is not None and isfinite(score) else None


def _key(model: str, row: Row) -> str:
    text = json.dumps([model, *row.items])
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()
