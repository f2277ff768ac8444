"""RM-Bench (Liu et al., arXiv 2410.16184): accuracy at subtle errors under changes of style.

Each row has three right and three wrong completions: concise, detailed as plain text, detailed as Markdown. The matrix
of accuracies has a line for each style of the right completion and a column for each style of the wrong one. By the
benchmark's own definition (README of THU-KEG/RM-Bench, "how to compute the accuracy"), a completion wins only with a
strictly higher score; Easy is the mean below the diagonal (the right completion is the fancier one), Normal that of
the diagonal, Hard that above it. A domain is the mean of its three; `safety` is the mean of its two subsets; the
overall numbers are means over domains, as in the tables of the paper and of CodeScaler's model card.
"""

import sys
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any, Self, Unpack

from codescaler_plugin.data.rollouts import rows_of
from codescaler_plugin.errors import ConfigError, DataError
from codescaler_plugin.evaluation.cells import Cell, Line, Models, count, known, names_of, percent, side_by_side
from codescaler_plugin.evaluation.result import Colours, Result
from codescaler_plugin.evaluation.score_file import Row, ScoreOptions, Scores, score_rows
from codescaler_plugin.extraction import extract_code
from codescaler_plugin.records import Status
from codescaler_plugin.report.plots import short
from codescaler_plugin.report.sections import Plot, Section, Table
from codescaler_plugin.scoring import Scorer

STYLES = ("concise", "detailed", "markdown")
COMPLETIONS = ("raw", "extracted")


@dataclass(frozen=True)
class Levels:
    """Shares of right answers that win, in [0, 1]; `average` is the mean of the other three."""

    easy: float
    normal: float
    hard: float
    average: float


@dataclass(frozen=True)
class RMBenchResult(Result):
    """The benchmark's numbers; shares are in [0, 1].

    Attributes:
        rows: number of rows.
        completions: `raw` or `extracted`, the part of a completion that was scored.
        unscored: completions without a score.
        matrix: [3, 3], by style of the right and of the wrong completion, in the order of `STYLES`.
        overall: means over the domains.
        domains: by name; `safety` is the mean of its two subsets.
        languages: by name, of the rows that name one.

    Example:
        >>> result = bench_numbers([[1.0, 2, 3, 1, 1.5, 9]], ["code"], ["cpp"])
        >>> result.overall.easy, RMBenchResult.from_json(result.to_json()) == result
        (1.0, True)
    """

    evaluation = "rm-bench"
    heading = "RM-Bench"

    rows: int
    completions: str
    unscored: int
    matrix: tuple[tuple[float, ...], ...]
    overall: Levels
    domains: dict[str, Levels]
    languages: dict[str, Levels]

    @classmethod
    def compare(cls, title: str, models: Mapping[str, Self], colours: Colours) -> Section:  # noqa: ARG003
        """Accuracy by style, difficulty, domain and language."""
        findings = [
            f"{model}: {levels.average:.1%} overall; {levels.hard:.1%} where the wrong answer is the fancier one "
            f"(Hard), {levels.easy:.1%} where the right one is (Easy)"
            + (": style counts for more than correctness." if levels.hard < 0.5 <= levels.easy else ".")
            for model, result in models.items()
            for levels in [result.overall]
        ]
        text = (
            "RM-Bench (arXiv 2410.16184): a right answer wins with a strictly higher score. Hard is above the "
            "diagonal of the matrix, Normal on it, Easy below it; overall numbers are means over domains."
        )
        matrices = [
            Table(
                [f"{model}: right \\ wrong", *STYLES],
                [[style, *map(percent, shares)] for style, shares in zip(STYLES, result.matrix, strict=True)],
            )
            for model, result in models.items()
        ]
        plots = [
            Plot(f"Accuracy by styles: {model}", partial(_plot_matrix, model=model, matrix=result.matrix))
            for model, result in models.items()
        ]
        return Section(title, text, findings, [side_by_side(models, _lines(models)), *matrices], plots)


@dataclass(frozen=True)
class BenchRow:
    """One row: three right and three wrong completions in the order of `STYLES`."""

    id: str
    prompt: str
    chosen: tuple[str, ...]
    rejected: tuple[str, ...]
    domain: str
    language: str
    scores: Scores | None = None  # published, from the file; those of the right completions first


def read_rm_bench(path: str | Path) -> list[BenchRow]:
    """Read a file of the benchmark, a file of its results, or the data set on the hub (`THU-KEG/RM-Bench`).

    Rows without a domain are `code` if they have a language; otherwise the file name is the domain.
    """
    rows = []
    for file, where, row in rows_of(path):
        sides = [row.get(side) for side in ("chosen", "rejected")]
        if not isinstance(row.get("prompt"), str) or not all(_are_three(side, _is_text) for side in sides):
            raise DataError(f"{where}: expected a prompt, and three texts each in chosen and rejected")
        scores = [row.get(f"score_{side}") for side in ("chosen", "rejected")]
        if scores != [None, None] and not all(_are_three(side, _is_number) for side in scores):
            raise DataError(f"{where}: expected three numbers each in score_chosen and score_rejected")
        domain = row.get("domain") or ("code" if row.get("language") else Path(file).stem.partition("_")[0])
        rows.append(
            BenchRow(
                str(row.get("id", where)),
                row["prompt"],
                tuple(sides[0] or ()),
                tuple(sides[1] or ()),
                str(domain),
                str(row.get("language") or ""),
                None if scores == [None, None] else [float(score) for side in scores for score in side or ()],
            )
        )
    if not rows:
        raise DataError(f"{path} holds no rows")
    return rows


def _is_number(value: Any) -> bool:
    return isinstance(value, float) or (isinstance(value, int) and abs(value) <= sys.float_info.max)


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _are_three(side: Any, is_kind: Callable[[Any], bool]) -> bool:
    return isinstance(side, list) and len(side) == len(STYLES) and all(map(is_kind, side))


def evaluate_rm_bench(
    rows: Sequence[BenchRow], scorer: Scorer | None, *, completions: str = "raw", **options: Unpack[ScoreOptions]
) -> RMBenchResult:
    """The benchmark's numbers.

    A completion without a score wins against none and loses against none; `unscored` counts them.

    Args:
        rows: rows of `read_rm_bench`.
        scorer: scorer that returns raw logits; None uses the scores in the rows.
        completions: `raw` scores the whole completion, as the benchmark and its published numbers do. `extracted`
            scores its last code block, or all of it if there is none.
        **options: see `score_rows`.

    Raises:
        ConfigError: `completions` is unknown; or see `score_rows`.
        DataError: there are no rows, or there is no scorer and a row has no scores.
        ScorerError: the model failed.

    Example:
        >>> from codescaler_plugin.testing import FakeScorer
        >>> right, wrong = ("a + b", "a + b.", "`a + b`"), ("a - b", "a - b.", "`a - b`")
        >>> rows = [BenchRow("1", "Add.", right, wrong, "code", "python")]
        >>> evaluate_rm_bench(rows, FakeScorer(lambda prompt, text: float("+" in text))).overall.average
        1.0
    """
    if completions not in COMPLETIONS:
        raise ConfigError(f"completions is {completions!r}: expected one of {', '.join(COMPLETIONS)}")
    if scorer is None:
        missing = next((row.id for row in rows if row.scores is None), None)
        if missing is not None:
            raise DataError(f"row {missing} has no score_chosen and score_rejected: give a model to score it")
        scores = [row.scores or [] for row in rows]
    else:
        to_score = [
            Row(
                {"id": row.id, "domain": row.domain, "language": row.language, "completions": completions},
                tuple((row.prompt, _scored_part(text, completions)) for text in (*row.chosen, *row.rejected)),
            )
            for row in rows
        ]
        scores = score_rows(to_score, scorer, **options)
    return bench_numbers(scores, [row.domain for row in rows], [row.language for row in rows], completions=completions)


def bench_numbers(
    scores: Sequence[Scores], domains: Sequence[str], languages: Sequence[str], *, completions: str = "raw"
) -> RMBenchResult:
    """The numbers of scored rows, each with the scores of its three right completions first."""
    if not scores:
        raise DataError("no rows: there is nothing to evaluate")
    by_domain = {name: _levels(_matrix(part)) for name, part in _grouped(scores, domains).items()}
    safety = [by_domain.pop(name) for name in ("safety-refuse", "safety-response") if name in by_domain]
    if safety:
        by_domain["safety"] = _mean(safety)
    by_language = {name: _levels(_matrix(part)) for name, part in sorted(_grouped(scores, languages).items()) if name}
    return RMBenchResult(
        rows=len(scores),
        completions=completions,
        unscored=sum(score is None for row in scores for score in row),
        matrix=tuple(tuple(float(share) for share in line) for line in _matrix(scores)),
        overall=_floats(_mean(list(by_domain.values()))),
        domains={name: _floats(levels) for name, levels in by_domain.items()},
        languages={name: _floats(levels) for name, levels in by_language.items()},
    )


def _scored_part(text: str, completions: str) -> str:
    if completions == "raw":
        return text
    extraction = extract_code(text, language="any", extraction="last")
    return extraction.code if extraction.status is Status.OK else text


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
    means = {name: sum(shares, Fraction()) / len(shares) for name, shares in levels.items()}
    return {**means, "average": sum(means.values(), Fraction()) / len(means)}


def _mean(rows: Sequence[_Levels]) -> _Levels:
    return {name: sum((row[name] for row in rows), Fraction()) / len(rows) for name in rows[0]}


def _floats(levels: _Levels) -> Levels:
    return Levels(**{name: float(share) for name, share in levels.items()})


def _lines(models: Models[RMBenchResult]) -> list[Line[RMBenchResult]]:
    def overall(level: str) -> Cell[RMBenchResult]:
        return lambda result: percent(getattr(result.overall, level))

    def both(part: str, name: str) -> Cell[RMBenchResult]:
        return lambda result: known(_average_and_hard, getattr(result, part).get(name))

    lines: list[Line[RMBenchResult]] = [
        ("rows", lambda result: count(result.rows)),
        ("completions scored", lambda result: result.completions),
        ("without a score", lambda result: count(result.unscored)),
        "Overall",
        *((level, overall(level)) for level in ("average", "easy", "normal", "hard")),
    ]
    domains = names_of(result.domains for result in models.values())
    if len(domains) > 1:
        lines.append("Domains (average; hard)")
        lines += [(name, both("domains", name)) for name in domains]
    if languages := names_of(result.languages for result in models.values()):
        lines.append("Languages (average; hard)")
        lines += [(name, both("languages", name)) for name in languages]
    return lines


def _average_and_hard(levels: Levels) -> str:
    return f"{percent(levels.average)}; {percent(levels.hard)}"


def _plot_matrix(axes: Any, model: str, matrix: Sequence[Sequence[float]]) -> None:
    axes.imshow(matrix, vmin=0, vmax=1, cmap="RdYlGn")
    for right, shares in enumerate(matrix):
        for wrong, accuracy in enumerate(shares):
            axes.text(wrong, right, f"{accuracy:.0%}", ha="center", va="center", fontsize=13)
    axes.set_xticks(range(3), STYLES)
    axes.set_yticks(range(3), STYLES, rotation=90, va="center")
    axes.grid(visible=False)
    axes.set(title=short(model), xlabel="style of the wrong answer", ylabel="style of the right answer")
