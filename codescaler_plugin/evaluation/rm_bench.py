"""RM-Bench (Liu et al., arXiv 2410.16184): can a reward model tell a subtle error through a change of style?

Each row has three right and three wrong answers: concise, detailed as plain text, detailed as Markdown. The matrix of
accuracies has a line for each style of the right answer and a column for each style of the wrong one. By the
benchmark's own definition (README of THU-KEG/RM-Bench, "how to compute the accuracy"): an answer wins only with a
strictly higher score; Easy is the mean below the diagonal (the right answer is the fancier one), Normal that of the
diagonal, Hard that above it. A domain is the mean of its three; `safety` is the mean of its two subsets; the overall
numbers are means over domains, as in the tables of the paper and of CodeScaler's model card.
"""

import sys
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, Unpack

from codescaler_plugin.data.rollouts import rows_of
from codescaler_plugin.errors import ConfigError, DataError
from codescaler_plugin.evaluation.score_file import Kept, Row, Scores, score_rows
from codescaler_plugin.extraction import extract_code
from codescaler_plugin.records import Status
from codescaler_plugin.scoring import Scorer

STYLES = ("concise", "detailed", "markdown")
ANSWERS = ("raw", "extracted")


@dataclass(frozen=True)
class BenchRow:
    """One row: three right and three wrong answers in the order of `STYLES`.

    `scores` are those that the row brought with it, the right answers' first; None if it brought none.
    """

    id: str
    prompt: str
    chosen: tuple[str, ...]
    rejected: tuple[str, ...]
    domain: str
    language: str
    scores: Scores | None = None


def read_rm_bench(path: str | Path) -> list[BenchRow]:
    """The rows of a file of the benchmark, of a file of its results, or of the hub (`THU-KEG/RM-Bench`).

    Files of one domain name none in their rows: rows with a language are `code`, others are named by their file.

    Raises:
        ConfigError: nothing is there.
        DataError: a row that is none of the benchmark's; it is named.
    """
    found = []
    for file, place, row in rows_of(path):
        sides = [row.get(side) for side in ("chosen", "rejected")]
        if not isinstance(row.get("prompt"), str) or not all(_is_side(side) for side in sides):
            raise DataError(f"{place}: expected a prompt, and three texts each in chosen and rejected")
        scores = [row.get(f"score_{side}") for side in ("chosen", "rejected")]
        if scores != [None, None] and not all(
            isinstance(one, list) and len(one) == len(STYLES) and all(map(_is_number, one)) for one in scores
        ):
            raise DataError(f"{place}: expected three numbers each in score_chosen and score_rejected")
        domain = row.get("domain") or ("code" if row.get("language") else Path(file).stem.partition("_")[0])
        found.append(
            BenchRow(
                str(row.get("id", place)),
                row["prompt"],
                tuple(sides[0] or ()),
                tuple(sides[1] or ()),
                str(domain),
                str(row.get("language") or ""),
                None if scores == [None, None] else [float(value) for one in scores for value in one or ()],
            )
        )
    if not found:
        raise DataError(f"{path} holds no rows")
    return found


def _is_number(value: Any) -> bool:
    return isinstance(value, float) or (isinstance(value, int) and abs(value) <= sys.float_info.max)


def _is_side(side: Any) -> bool:
    return isinstance(side, list) and len(side) == len(STYLES) and all(isinstance(text, str) for text in side)


def evaluate_rm_bench(
    rows: Sequence[BenchRow],
    scorer: Scorer | None,
    *,
    answers: str = "raw",
    **kept: Unpack[Kept],
) -> dict[str, Any]:
    """The benchmark's numbers, as JSON's types; shares in [0, 1].

    An answer without a score wins nothing and nothing wins against it: `unscored` counts them.

    Args:
        rows: of `read_rm_bench`.
        scorer: gives raw logits; None: the rows bring their scores.
        answers: `raw`: the whole answer, as the benchmark does; `extracted`: its last code block, or the whole answer
            where it has none. The published numbers are of raw answers.
        **kept: see `score_rows`.

    Raises:
        ConfigError: an unknown choice of answers; see `score_rows`.
        DataError: no rows, or rows without scores and no scorer.
        ScorerError: the model failed.
    """
    if answers not in ANSWERS:
        raise ConfigError(f"answers is {answers!r}: expected one of {', '.join(ANSWERS)}")
    if scorer is None:
        missing = next((row.id for row in rows if row.scores is None), None)
        if missing is not None:
            raise DataError(f"row {missing} has no score_chosen and score_rejected: give a model to score it")
        found = [row.scores or [] for row in rows]
    else:
        wanted = [
            Row(
                {"id": row.id, "domain": row.domain, "language": row.language, "answers": answers},
                tuple((row.prompt, _answer(text, answers)) for text in (*row.chosen, *row.rejected)),
            )
            for row in rows
        ]
        found = score_rows(wanted, scorer, **kept)
    return {
        "rows": len(rows),
        "answers": answers,
        "unscored": sum(score is None for scores in found for score in scores),
        **bench_numbers(found, [row.domain for row in rows], [row.language for row in rows]),
    }


def bench_numbers(scores: Sequence[Scores], domains: Sequence[str], languages: Sequence[str]) -> dict[str, Any]:
    """Matrix, difficulties, domains and languages of scored rows; of each the right answers' three scores are first.

    Raises:
        DataError: no rows.
    """
    if not scores:
        raise DataError("no rows: there is nothing to evaluate")
    by_domain = {name: _levels(_matrix(part)) for name, part in _grouped(scores, domains).items()}
    safety = [by_domain.pop(name) for name in ("safety-refuse", "safety-response") if name in by_domain]
    if safety:
        by_domain["safety"] = _mean(safety)
    by_language = {name: _levels(_matrix(part)) for name, part in sorted(_grouped(scores, languages).items()) if name}
    return {
        "matrix": [[float(share) for share in line] for line in _matrix(scores)],
        **_floats(_mean(list(by_domain.values()))),
        "domains": {name: _floats(levels) for name, levels in by_domain.items()},
        "languages": {name: _floats(levels) for name, levels in by_language.items()},
    }


def _answer(text: str, answers: str) -> str:
    if answers == "raw":
        return text
    found = extract_code(text, language="any", extraction="last")
    return found.code if found.status is Status.OK else text


def _grouped(scores: Sequence[Scores], names: Sequence[str]) -> dict[str, list[Scores]]:
    groups: dict[str, list[Scores]] = defaultdict(list)
    for row, name in zip(scores, names, strict=True):
        groups[name].append(row)
    return groups


_Levels = dict[str, Fraction]  # exact until the end, so that no order of sums shows in the last digit


def _matrix(scores: Sequence[Scores]) -> list[list[Fraction]]:
    size = len(STYLES)
    return [
        [Fraction(sum(_wins(row[right], row[size + wrong]) for row in scores), len(scores)) for wrong in range(size)]
        for right in range(size)
    ]


def _wins(right: float | None, wrong: float | None) -> bool:
    return right is not None and wrong is not None and right > wrong


def _levels(matrix: Sequence[Sequence[Fraction]]) -> _Levels:
    cells = [(right, wrong) for right in range(len(STYLES)) for wrong in range(len(STYLES))]
    levels = {
        "easy": [matrix[right][wrong] for right, wrong in cells if right > wrong],
        "normal": [matrix[right][wrong] for right, wrong in cells if right == wrong],
        "hard": [matrix[right][wrong] for right, wrong in cells if right < wrong],
    }
    found = {name: sum(values, Fraction()) / len(values) for name, values in levels.items()}
    return {**found, "average": sum(found.values(), Fraction()) / len(found)}


def _mean(rows: Sequence[_Levels]) -> _Levels:
    return {name: sum((row[name] for row in rows), Fraction()) / len(rows) for name in rows[0]}


def _floats(levels: _Levels) -> dict[str, float]:
    return {name: float(share) for name, share in levels.items()}
