"""Candidates in and selections out: the input, options and output that `rank`, `calibrate` and `sample` share."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import TYPE_CHECKING, Annotated, Any

from typer import Option

from codescaler_plugin.cli.options import MEASURE_EXTRACTION, Extraction, Model
from codescaler_plugin.cli.rows import Row, RowReader, Sample
from codescaler_plugin.cli.terminal import say
from codescaler_plugin.data.columns import host_of, list_name
from codescaler_plugin.data.rollouts import problem_id_of
from codescaler_plugin.data.rows import dumps
from codescaler_plugin.errors import DataError
from codescaler_plugin.records import Problem
from codescaler_plugin.selection.records import Selection
from codescaler_plugin.text.lines import folded

if TYPE_CHECKING:
    from codescaler_plugin.data.matching import ProblemIndex
    from codescaler_plugin.pipeline import CodeScaler

GROUPS = 32  # problems at a time: tests of all of them run together


@dataclass(frozen=True)
class RankingOptions:
    """A group of options for the order of candidates, see `options.grouped`."""

    model: Model = None
    extraction: Extraction = MEASURE_EXTRACTION
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

    def rank(self, scaler: "CodeScaler", groups: "Sequence[Group]", **settings: Any) -> list[Selection]:
        """The selections of groups, in order. Settings are those of `best_of_n`."""
        from codescaler_plugin.selection.ranking import rank_groups

        settings |= {"extraction": self.extraction, "self_consistency": self.self_consistency}
        return list(rank_groups(scaler, [(one.problem, one.completions) for one in groups], **settings))


@dataclass(frozen=True)
class Group:
    """A problem with all its candidates, and the row that the output begins with."""

    row: Row
    problem: Any
    completions: list[Any]
    passed: list[bool] = field(default_factory=list)
    tested: Problem | None = None  # the problem with its tests


@dataclass
class CandidateReader:
    """Reads problems with all their candidates, in either form of input, and the tests of each problem.

    A row has a list of completions, or one, and then the rows of a problem are together. A bad problem is reported and
    skipped. If the rest of the input cannot be read, the problems before it are yielded first.
    """

    rows: RowReader  # which needs only the problem
    tested: "ProblemIndex | None" = None  # None yields None for the tests
    only: int | None = None  # number of the only problem to read; nothing behind it is read
    labelled: bool = False  # `passed` is required for each candidate
    count: int = 0  # problems read
    _broken: DataError | None = None

    def __iter__(self) -> Iterator[Group]:
        begun, parts = set[int](), 0
        for key, group in groupby(enumerate(self._samples()), key=self._key):
            self.count += 1
            parts += hash(key) in begun
            begun.add(hash(key))
            if self.only not in (None, self.count):
                continue
            samples = [sample for _, sample in group]
            if self._broken is not None and list_name(samples[0].row) is None:
                break  # other candidates of the problem may be in the part that cannot be read
            try:
                yield self._group(samples)
            except DataError as error:
                self.rows.skip(f"problem {start_of(samples[0].problem)!r}: {error}", error)
            if self.count == self.only:
                return
        if parts:
            say(
                f"{parts:,} times a problem came again after rows of others, and counted as another: put the rows of "
                "a problem together",
                "yellow",
            )
        if self._broken is not None:
            raise self._broken

    def _samples(self) -> Iterator[Sample]:
        try:
            for samples in self.rows:
                yield from samples
        except DataError as error:
            self._broken = error

    def _key(self, numbered: tuple[int, Sample]) -> Any:
        """The same for neighbouring rows with one completion each of the same problem."""
        number, sample = numbered
        return number if list_name(sample.row) is not None else dumps(sample.problem)

    def _group(self, samples: list[Sample]) -> Group:
        from codescaler_plugin.text.messages import completion_text

        row, problem = samples[0].row, samples[0].problem
        host, template = host_of(row, columns=self.rows.mapping), self.rows.template
        if list_name(row) is None and self.labelled:
            samples = [sample for sample in samples if not sample.row.get("fault")]
            if not samples:
                raise DataError("the tests gave no verdict on any of its candidates")
        completions = [one for sample in samples for one in host.completions_of(sample.row, template)]
        for index, completion in enumerate(completions):
            completion_text(completion, f"completion {index}")
        passed: Any = row.get("passed")
        if list_name(row) is None:
            passed = [sample.row.get("passed") for sample in samples]
            name = problem_id_of(row)
            row = {"problem": problem, **({"problem_id": name} if name else {}), "completions": completions}
        if self.labelled and (not isinstance(passed, list) or list(map(type, passed)) != [bool] * len(completions)):
            raise DataError("expected `passed`, true or false for each completion")
        return Group(row, problem, completions, passed if self.labelled else [], self._tests(row, problem))

    def _tests(self, row: Row, problem: Any) -> Problem | None:
        from codescaler_plugin.text.messages import problem_text

        if self.tested is None:
            return None
        name, text = problem_id_of(row), problem_text(problem, "problem", self.rows.template)
        tested = self.tested.find(name, text)
        if tested is None:
            raise DataError(f"no problem with tests has {f'the id {name!r} or ' if name else ''}this text")
        return tested


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
