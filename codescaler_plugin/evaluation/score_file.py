"""Rows -> scores, in a file with a line for each row that a killed run goes on with where it ended."""

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypedDict

from codescaler_plugin.data.outputs import check_folder, open_resumable
from codescaler_plugin.prefetch import weighed_chunks
from codescaler_plugin.scoring import Scorer

Item = tuple[str, str]
"""A problem and a code, as a scorer takes them."""

Scores = list[float | None]

_CHUNK = 256  # items between two writes: what a kill can cost


@dataclass(frozen=True)
class Row:
    """What is scored together: the sides of a pair, the candidates for a problem.

    Attributes:
        facts: what its line holds beside the scores.
        items: what is scored, at least one.
    """

    facts: dict[str, Any]
    items: tuple[Item, ...]


class Kept(TypedDict, total=False):
    """Where scores are kept, and who hears of them: settings of `score_rows`, and of each evaluation."""

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
    """The scores of every row; same order.

    A line of `output` holds a row's facts, its `scores` and a `key` of model and texts. Called again with the same
    model and rows, the run goes on where it ended; a torn last line is taken off.

    Args:
        rows: n rows.
        scorer: gives raw logits.
        output: JSON lines; None: nothing is kept.
        model: name of the model behind the scorer.
        progress: called with the number of rows just read or scored.

    Raises:
        ConfigError: an output that cannot be written, is being written, or is of another model or other rows.
        ScorerError: the model failed; the rows before are in the file.
    """
    chunks = partial(weighed_chunks, size=_CHUNK, weight=lambda row: len(row.items))
    if output is None:
        return [scores for chunk in chunks(rows) for scores in _scored(chunk, scorer, progress)]
    check_folder(output.parent)
    found: list[Scores] = []

    def claim(kept: Any) -> str:
        key = _key(model, rows[len(found)]) if len(found) < len(rows) else None
        if not isinstance(kept, dict) or key is None or kept.get("key") != key or "scores" not in kept:
            return (
                "is of another model, other data or other options than are given now. Give another --output or "
                "--name, or delete it to start anew"
            )
        found.append(kept["scores"])
        return ""

    with open_resumable(output, claim) as file:
        if progress is not None:
            progress(len(found))
        for chunk in chunks(rows[len(found) :]):
            for row, scores in zip(chunk, _scored(chunk, scorer, progress), strict=True):
                line = {**row.facts, "scores": scores, "key": _key(model, row)}
                file.write(json.dumps(line).encode() + b"\n")
                found.append(scores)
            file.flush()
    return found


def _scored(chunk: Sequence[Row], scorer: Scorer, progress: Callable[[int], None] | None) -> list[Scores]:
    scores = iter(scorer.score([item for row in chunk for item in row.items]))
    found = [[next(scores) for _ in row.items] for row in chunk]
    if progress is not None:
        progress(len(chunk))
    return found


def _key(model: str, row: Row) -> str:
    text = json.dumps([model, *row.items])
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()
