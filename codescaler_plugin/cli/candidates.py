"""Candidates in and selections out: the input, options and output that `rank`, `calibrate` and `sample` share."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, Annotated, Any

from typer import FileBinaryRead, Option

from codescaler_plugin.cli.options import Model
from codescaler_plugin.cli.rows import chunks, skip
from codescaler_plugin.data.rows import dumps
from codescaler_plugin.errors import DataError
from codescaler_plugin.records import Problem
from codescaler_plugin.selection.records import Selection
from codescaler_plugin.text.lines import folded
from codescaler_plugin.text.messages import completion_text, problem_text
from codescaler_plugin.text.templates import Template

if TYPE_CHECKING:
    from codescaler_plugin.data.matching import ProblemIndex
    from codescaler_plugin.pipeline import CodeScaler

GROUPS = 32  # problems at a time: tests of all of them run together

Row = dict[str, Any]


@dataclass(frozen=True)
class RankingOptions:
    """A group of options for the order of candidates, see `options.grouped`."""

    model: Model = None
    extraction: Annotated[
        str, Option(envvar="CODESCALER_EXTRACTION", help="Block selection: last, first, single or bare.")
    ] = "last"
    self_consistency: Annotated[
        float, Option(min=0, help="Weight of the number of candidates that wrote the same program.")
    ] = 0.0

    def scaler(self) -> "CodeScaler":
        """The pipeline of the options and the environment."""
        from codescaler_plugin.config import CodeScalerConfig
        from codescaler_plugin.pipeline import CodeScaler

        return CodeScaler(config=CodeScalerConfig.from_env(model=self.model))

    def order(self, scaler: "CodeScaler") -> str:
        """The name of the order, as calibrations hold it: a calibration fits no other order."""
        return f"first of N by {scaler.config.model}, self-consistency {self.self_consistency:g}"

    def rank(self, scaler: "CodeScaler", rows: Sequence[Row], **settings: Any) -> list[Selection]:
        """The selections of rows, in order. Settings are those of `best_of_n`."""
        from codescaler_plugin.selection.ranking import rank_groups

        settings |= {"extraction": self.extraction, "self_consistency": self.self_consistency}
        return list(rank_groups(scaler, [(row["problem"], row["completions"]) for row in rows], **settings))


@dataclass
class CandidateReader:
    """Reads rows with a problem and all its candidates, in either form of input, and the tests of each problem.

    A bad problem is reported and skipped. If the rest of the input cannot be read, the problems before it are yielded
    first.
    """

    source: FileBinaryRead
    strict: bool
    template: Template | None
    tested: "ProblemIndex | None" = None  # None yields None for the tests
    only: int | None = None  # number of the only problem to read; nothing behind it is read
    labelled: bool = False  # `passed` is required for each candidate
    has_skipped: bool = False
    count: int = 0  # problems read
    _broken: DataError | None = None

    def __iter__(self) -> Iterator[tuple[Row, Problem | None]]:
        for _, group in groupby(enumerate(self._lines()), key=self._key):
            self.count += 1
            if self.only not in (None, self.count):
                continue
            rows = [row for _, row in group]
            if self._broken is not None and "completion" in rows[0]:
                break  # other candidates of the problem may be in the part that cannot be read
            try:
                yield self._row(rows), self._tests(rows[0])
            except DataError as error:
                self.has_skipped = True
                skip(f"problem {start_of(rows[0]['problem'])!r}: {error}", error, strict=self.strict)
            if self.count == self.only:
                return
        if self._broken is not None:
            raise self._broken

    def _lines(self) -> Iterator[Row]:
        try:
            columns, template = ("problem",), self.template
            for rows, count in chunks(self.source, columns, "selecting", strict=self.strict, template=template):
                self.has_skipped |= len(rows) < count
                yield from rows
        except DataError as error:
            self._broken = error

    def _key(self, numbered: tuple[int, Row]) -> Any:
        """The same for neighbouring lines with one completion each of the same problem."""
        number, row = numbered
        return dumps(row["problem"]) if "completion" in row else number

    def _row(self, rows: list[Row]) -> Row:
        row = rows[0]
        if "completions" in row:
            if not isinstance(row["completions"], list):
                raise DataError("`completions` is no list")
        elif "completion" in row:
            row = {name: value for name, value in row.items() if name in ("problem", "problem_id")}
            if self.labelled:
                rows = [row for row in rows if not row.get("fault")]
                if not rows:
                    raise DataError("the tests gave no verdict on any of its candidates")
                row["passed"] = [row.get("passed") for row in rows]
            row["completions"] = [row["completion"] for row in rows]
        else:
            raise DataError("expected `completions` or `completion`")
        for index, completion in enumerate(row["completions"]):
            completion_text(completion, f"completion {index}")
        if self.labelled:
            passed = row.get("passed")
            if not isinstance(passed, list) or list(map(type, passed)) != [bool] * len(row["completions"]):
                raise DataError("expected `passed`, true or false for each completion")
        return row

    def _tests(self, row: Row) -> Problem | None:
        from codescaler_plugin.data.rollouts import problem_id_of

        if self.tested is None:
            return None
        name, text = problem_id_of(row), problem_text(row["problem"], "problem", self.template)
        problem = self.tested.find(name, text)
        if problem is None:
            raise DataError(f"no problem with tests has {f'the id {name!r} or ' if name else ''}this text")
        return problem


def start_of(problem: Any) -> str:
    """The first characters of a problem, for a message."""
    return folded(str(problem))[:60]


def selection_row(selection: Selection) -> Row:
    """The columns that a selection adds to a row."""
    best = selection.best
    return {
        "outcome": str(selection.outcome),
        "best": None if best is None else best.index,
        "code": "" if best is None else best.judgement.code,
        "margin": selection.margin,
        "probability": selection.probability,
        "executions": selection.executions,
        "explanation": selection.explanation,
        "ranked": [
            {
                "index": candidate.index,
                "score": candidate.judgement.score,
                "rank_score": candidate.rank_score,
                "status": str(candidate.judgement.status),
                "explanation": candidate.judgement.explanation,
                "duplicates": candidate.duplicates,
                "duplicate_of": candidate.duplicate_of,
                "passed": None if verdict is None or verdict.fault is not None else verdict.passed,
                "fault": None if verdict is None else verdict.fault,
                "detail": "" if verdict is None else verdict.detail,
            }
            for candidate in selection.ranked
            for verdict in [candidate.verdict]
        ],
    }
