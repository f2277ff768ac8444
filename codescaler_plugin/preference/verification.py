"""Verifies rollouts: runs each program against its problem's tests and writes the verdicts to a resumable file."""

import hashlib
import json
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, BinaryIO, Unpack

from codescaler_plugin.data.matching import ProblemIndex
from codescaler_plugin.data.outputs import CUT, check_folder, open_resumable
from codescaler_plugin.data.rows import chunked
from codescaler_plugin.errors import ConfigError, DataError
from codescaler_plugin.execution.executor import CachingExecutor, Executor, Job, Ticker
from codescaler_plugin.execution.remote_sandbox import WORKERS, RemoteSandbox
from codescaler_plugin.execution.sandbox import Sandbox, SandboxSettings
from codescaler_plugin.extraction import BLOCK_SELECTIONS, extract_all
from codescaler_plugin.records import Extraction, Fault, Problem, Rollout, Status, Verdict
from codescaler_plugin.text.lines import folded

EXTRACTIONS = (*BLOCK_SELECTIONS, "continue")
CHUNK = 256  # rollouts between two writes, which a kill can lose

_DETAIL = 500  # characters of a verdict's detail, which a program may have written
_FORM = 2  # version of the output; an output of another version is of another run
_STATUSES = frozenset(map(str, Status))
_COLUMNS = {
    **dict.fromkeys(("code", "status", "detail", "comparison"), str),
    **dict.fromkeys(("tests_passed", "tests_total"), int),
    **dict.fromkeys(("passed", "flaky", "in_process"), bool),
}


@dataclass
class VerificationReport:
    """Counts over all rows of the output, including the rows of earlier runs.

    Attributes:
        rows: rows of the output, one for each rollout.
        resumed: rows that an earlier run wrote.
        executed: programs run. Second runs of passing programs are not counted.
        passed: rows that pass.
        flaky: rows that passed once and then failed.
        unknown: rollouts left out because their problem is unknown.
        in_process: rows graded in the program's own process, where a hostile program can deceive its tests.
        statuses: rows by extraction status.
        failures: rows that fail, by the kind of the first failure.
        faults: rows without a verdict, by `Fault`. They are not in `passed`, `flaky` or `failures`.
        comparisons: rows by `Comparison`. Script tests have none.
        examples: detail of the first row of each fault.

    Example:
        >>> report = VerificationReport()
        >>> report.count({"status": "no_block", "passed": False, "flaky": False})
        >>> report.rows, report.passed, dict(report.statuses)
        (1, 0, {'no_block': 1})
    """

    rows: int = 0
    resumed: int = 0
    executed: int = 0
    passed: int = 0
    flaky: int = 0
    unknown: int = 0
    in_process: int = 0
    statuses: Counter[str] = field(default_factory=Counter)
    failures: Counter[str] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)
    comparisons: Counter[str] = field(default_factory=Counter)
    examples: dict[str, str] = field(default_factory=dict)

    def count(self, row: Mapping[str, Any]) -> None:
        """Count a row of the output."""
        self.rows += 1
        self.passed += row["passed"]
        self.flaky += row["flaky"]
        self.statuses[row["status"]] += 1
        if row["status"] != Status.OK:
            return
        self.in_process += row["in_process"]
        if row["comparison"]:
            self.comparisons[row["comparison"]] += 1
        if row["fault"] is not None:
            self.faults[row["fault"]] += 1
            self.examples.setdefault(row["fault"], row["detail"])
        elif not row["passed"]:
            self.failures[row["detail"].partition(" in test ")[0].partition(":")[0]] += 1


def verify_rollouts(
    rollouts: Iterable[Rollout],
    problems: Iterable[Problem],
    output: str | Path,
    *,
    executor: Executor | None = None,
    second: Executor | None = None,
    extraction: str = "single",
    settings: Mapping[str, Any] | None = None,
    skip_unknown: bool = False,
    chunk: int = CHUNK,
    progress: Callable[[int], None] | None = None,
) -> VerificationReport:
    r"""Verify rollouts with the tests of their problems; `output` gets one JSON line each, in their order.

    A line holds the fields of the rollout and `code, status, passed, tests_passed, tests_total, detail, seconds,
    flaky, fault, comparison, in_process`. A completion without valid code is not run: `passed` is false and
    `tests_total` is 0. With a `fault` there is no verdict, and the program may be right. The same code for the same
    problem runs once.

    Interrupted runs resume when called with the same arguments; rollouts appended since are verified too. Rollouts are
    streamed; problems are held in memory.

    Args:
        rollouts: rollouts, matched with their problems by id or text; see `ProblemIndex`.
        problems: problems with unique ids.
        output: file of the verdicts; its folder is created. `<output>.run.json` beside it holds the settings of the
            run.
        executor: executor that gives the verdicts. The default is a `Sandbox` of default settings.
        second: executor that runs passing programs again, with another seed. A program that then fails is `flaky` and
            has not passed. If the second run has a fault, the first verdict stands. None: no second run.
        extraction: block selection, see `extract_code`; or `continue`: the program is the problem's text followed by
            the completion, as base models write it.
        settings: settings of the executor. A resumed run must have the same.
        skip_unknown: whether rollouts of unknown problems are left out and counted. The default is an error.
        chunk: rollouts between two writes.
        progress: called with the number of rollouts that were just verified, resumed or left out.

    Raises:
        ConfigError: an unknown extraction, or an output that another run is writing or wrote with other arguments.
        DataError: no problems, two problems with one id, or a rollout with an unknown or ambiguous problem.
        SandboxError: the executor failed. The lines written so far stay.

    Example:
        >>> import tempfile
        >>> from codescaler_plugin.testing import FakeExecutor
        >>> problems = [Problem("p", "Add one to n.", ())]
        >>> rollouts = [Rollout("Add one to n.", text) for text in ("```python\nn += 1\n```", "I cannot.")]
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     output = Path(folder, "verdicts.jsonl")
        ...     report = verify_rollouts(rollouts, problems, output, executor=FakeExecutor({"n += 1": True}))
        ...     [json.loads(line)["passed"] for line in output.read_text().splitlines()]
        [True, False]
    """
    output = Path(output)
    if extraction not in EXTRACTIONS:
        raise ConfigError(f"extraction is {extraction!r}: expected one of {', '.join(EXTRACTIONS)}")
    known = ProblemIndex(problems)
    if not known.problems:
        raise DataError("no problems: nothing can be verified")
    made_with = {
        "form": _FORM,
        "extraction": extraction,
        "second run": second is not None,
        "problems": _digest(known.problems),
        **(settings or {}),
    }
    check_folder(output.parent)
    report, tick = VerificationReport(), progress or (lambda _: None)
    stream = _matched(rollouts, known, report, skip_unknown=skip_unknown, tick=tick)
    companion = output.with_name(output.name + ".run.json")
    with ExitStack() as stack:
        first = stack.enter_context(Sandbox()) if executor is None else executor
        caching = CachingExecutor(first if second is None else _Confirming(first, second))
        run = _Run(caching, extraction, report, stream, tick)
        file = stack.enter_context(open_resumable(output, run.claim, companion=companion, made_with=made_with))
        for part in chunked(stream, chunk):
            _append(file, run.rows(part))
    report.executed = caching.executed
    return report


def _append(file: BinaryIO, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write rows, so that they survive a crash of the machine."""
    file.write("".join(json.dumps(row) + "\n" for row in rows).encode("ascii"))
    file.flush()
    os.fsync(file.fileno())


@contextmanager
def executors(
    *, second_run: bool = True, service: str | None = None, **settings: Unpack[SandboxSettings]
) -> Iterator[tuple[Executor, Executor | None]]:
    """Open an executor, and one with another seed for second runs, which shows luck and the order of sets.

    It is this machine's sandbox, or a SandboxFusion service, given its addresses. There `workers` is the number of
    concurrent requests (None: chosen for the service), and isolation and packages are set at the service.
    """
    seeds = (0, 1) if second_run else (0,)
    with ExitStack() as stack:
        opened: list[Executor] = []
        if service is None:
            opened += [stack.enter_context(Sandbox(**settings, seed=seed)) for seed in seeds]
        else:
            remote: dict[str, Any] = {**settings, "workers": settings.get("workers") or WORKERS}
            isolation, packages = remote.pop("require_isolation", False), remote.pop("packages", ())
            if isolation or packages:
                option = "require-isolation" if isolation else f"package {packages[0]}"
                raise ConfigError(
                    f"--{option} is about this machine's sandbox: what a service isolates and has installed is set "
                    "there"
                )
            opened += [RemoteSandbox(service, **remote, seed=seed) for seed in seeds]
        yield opened[0], opened[1] if second_run else None


def _digest(problems: Iterable[Problem]) -> str:
    digest = hashlib.sha256()
    for problem in problems:
        digest.update(repr(problem).encode("utf-8", "surrogatepass"))
    return digest.hexdigest()


Matched = tuple[Rollout, Problem]


def _matched(
    rollouts: Iterable[Rollout],
    known: ProblemIndex,
    report: VerificationReport,
    *,
    skip_unknown: bool,
    tick: Callable[[int], None],
) -> Iterator[Matched]:
    """The rollouts with their problems."""
    for index, rollout in enumerate(rollouts):
        try:
            problem = known.find(rollout.problem_id, rollout.problem)
        except DataError as error:
            raise DataError(f"rollout {index}: {error}") from error
        if problem is not None:
            yield rollout, problem
        elif skip_unknown:
            report.unknown += 1
            tick(1)
        else:
            shown = rollout.problem_id or folded(rollout.problem)[:60]
            raise DataError(
                f"rollout {index}: no problem with tests is called or reads {shown!r}. Rollouts without a problem_id "
                "are found by their whole problem text, what a prompt puts around it included; give its problems as "
                "well, or skip unknown ones"
            )


@dataclass
class _Confirming:
    """An executor that runs passing programs again on a second one. A program that then fails is flaky."""

    first: Executor
    second: Executor

    def run(self, jobs: Sequence[Job], *, progress: Ticker | None = None) -> list[Verdict]:
        verdicts = self.first.run(jobs, progress=progress)
        passing = [index for index, verdict in enumerate(verdicts) if verdict.passed]
        for index, again in zip(passing, self.second.run([jobs[index] for index in passing]), strict=True):
            if again.is_failure:
                verdicts[index] = replace(verdicts[index], passed=False, flaky=True, detail=again.detail)
        return verdicts


@dataclass
class _Run:
    """Reads the rows of an earlier run and makes those of this one."""

    executor: CachingExecutor
    extraction: str
    report: VerificationReport
    stream: Iterator[Matched]
    tick: Ticker

    def claim(self, row: Any) -> str:
        """Count a row of an earlier run if it belongs to the next rollout; see `outputs.Claim`."""
        rollout, problem = next(self.stream, (None, None))
        if rollout is None or problem is None or not _same(row, rollout, problem):
            return (
                "belongs to another rollout than is given now: the rollouts have changed. Give another output, or "
                "delete it to start anew"
            )
        verdict = _verdict_of(row)
        if verdict is None:
            return f"is no verdict: {CUT}"
        if row["status"] == Status.OK:
            self.executor.remember((row["code"], problem), verdict)
        self.report.count(row)
        self.report.resumed += 1
        self.tick(1)
        return ""

    def rows(self, part: Sequence[Matched]) -> list[dict[str, Any]]:
        """The rows of the next rollouts."""
        is_continued = self.extraction == "continue"
        extractions = extract_all(
            [(problem.text if is_continued else "") + rollout.completion for rollout, problem in part],
            extraction="bare" if is_continued else self.extraction,
        )
        extracted = list(zip(part, extractions, strict=True))
        jobs = [(extraction.code, problem) for (_, problem), extraction in extracted if extraction.status is Status.OK]
        self.tick(len(part) - len(jobs))
        verdicts = iter(self.executor.run(jobs, progress=self.tick))
        rows = []
        for (rollout, problem), extraction in extracted:
            verdict = next(verdicts) if extraction.status is Status.OK else Verdict(passed=False)
            rows.append(_row(rollout, problem, extraction, verdict))
            self.report.count(rows[-1])
        return rows


def _row(rollout: Rollout, problem: Problem, extraction: Extraction, verdict: Verdict) -> dict[str, Any]:
    return {
        **asdict(rollout),
        "problem_id": problem.id,
        "code": extraction.code,
        "status": str(extraction.status),
        **asdict(replace(verdict, detail=verdict.detail[:_DETAIL])),
    }


def _same(row: Any, rollout: Rollout, problem: Problem) -> bool:
    expected = {**asdict(rollout), "problem_id": problem.id}
    return isinstance(row, dict) and all(name in row and row[name] == value for name, value in expected.items())


def _verdict_of(row: Mapping[str, Any]) -> Verdict | None:
    """The verdict in a row. None: no run can have written the row."""
    fault = row.get("fault")
    if (
        any(type(row.get(name)) is not kind for name, kind in _COLUMNS.items())
        or not isinstance(row.get("seconds"), int | float)
        or row["status"] not in _STATUSES
        or fault not in (None, *Fault)
    ):
        return None
    values = {column.name: row[column.name] for column in fields(Verdict)}
    return Verdict(**{**values, "fault": None if fault is None else Fault(fault)})
