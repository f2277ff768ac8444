"""Rollouts + problems -> a verdict for each rollout, in a file that a killed run goes on with where it ended."""

import hashlib
import json
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Unpack

from codescaler_plugin.data.matching import ProblemIndex
from codescaler_plugin.data.outputs import CUT, open_resumable
from codescaler_plugin.data.rows import chunked
from codescaler_plugin.errors import ConfigError, DataError
from codescaler_plugin.execution.executor import CachingExecutor, Executor, Job, Ticker
from codescaler_plugin.execution.remote_sandbox import WORKERS, RemoteSandbox
from codescaler_plugin.execution.sandbox import Sandbox, SandboxSettings
from codescaler_plugin.extraction import BLOCK_SELECTIONS, extract_all
from codescaler_plugin.records import Extraction, Fault, Problem, Rollout, Status, Verdict
from codescaler_plugin.text.lines import folded

EXTRACTIONS = (*BLOCK_SELECTIONS, "continue")
CHUNK = 256  # rollouts between two writes: what a kill can cost

_DETAIL = 500  # characters of a verdict's detail, which a program may have written
_FORM = 2  # of the output; a later one is another run
_STATUSES = frozenset(map(str, Status))
_COLUMNS = {
    **dict.fromkeys(("code", "status", "detail", "comparison"), str),
    **dict.fromkeys(("tests_passed", "tests_total"), int),
    **dict.fromkeys(("passed", "flaky", "in_process"), bool),
}


@dataclass
class VerificationReport:
    """What a run did; counts are over all rows of the output, those of an earlier run included.

    Attributes:
        rows: rollouts with a verdict.
        resumed: of them, rows that an earlier run had written.
        executed: programs run; the second runs of passing ones are not counted.
        passed: rows that pass.
        flaky: rows that passed once and then failed.
        unknown: rollouts left out because their problem is not among the problems.
        in_process: rows graded in the process of the program, which a hostile one can deceive.
        statuses: rows per extraction status.
        failures: rows that the tests found wrong, per kind of first failure, without its place.
        faults: rows without a verdict, per `Fault`; none of them is among `passed`, `flaky` and `failures`.
        examples: the detail of the first row of each fault.
        comparisons: rows per `Comparison`; those of scripts have none.
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
        """Take in a row of the output."""
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
    output: Path,
    *,
    executor: Executor,
    second: Executor | None = None,
    extraction: str = "single",
    settings: Mapping[str, Any] | None = None,
    skip_unknown: bool = False,
    chunk: int = CHUNK,
    progress: Callable[[int], None] | None = None,
) -> VerificationReport:
    """Give each rollout the verdict of its problem's tests; one JSON line each in `output`, in the rollouts' order.

    A line holds the rollout's fields and `code, status, passed, tests_passed, tests_total, detail, seconds, flaky,
    fault, comparison, in_process`. A completion without valid code is not run: `passed` is false and `tests_total` 0.
    With a `fault` the tests gave no verdict: the program is not known to be wrong. The same code for the same problem
    is run once. Lines are on disk chunk by chunk; called again with the same arguments, the run goes on where
    it ended, a torn last line is taken off, and rollouts that have been appended since are verified as well. Rollouts
    are streamed; all problems are in memory.

    Args:
        rollouts: matched with a problem by `problem_id`, else by its text, see `ProblemIndex`.
        problems: ids are unique.
        output: its companion `<output>.run.json` says what the run was made with.
        executor: gives verdicts.
        second: runs what passed once more, under another seed; what then fails is `flaky` and has not passed. A second
            run with a fault says nothing of the program, so the first one stands. None: one run is believed.
        extraction: block selection, see `extract_code`; or `continue`: the program is the problem's text with the
            completion behind it, as base models write.
        settings: of the executor, to be compared when the run goes on.
        skip_unknown: leave out rollouts of unknown problems, and count them, instead of failing.
        chunk: rollouts between two writes.
        progress: called with the number of rollouts just judged, found judged, or left out.

    Raises:
        ConfigError: an unknown extraction; an output that another run has made, with other settings, problems or
            rollouts, or is making now.
        DataError: a rollout whose problem is unknown, or that names two; two problems with one id, or no problems.
        SandboxError: the executor broke. What has been written stays.
    """
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
    report = VerificationReport()
    tick = progress or (lambda _: None)
    stream = _matched(rollouts, known, report, skip_unknown=skip_unknown, tick=tick)
    caching = CachingExecutor(executor if second is None else _Confirming(executor, second))
    run = _Run(caching, extraction, report, stream, tick)
    companion = output.with_name(output.name + ".run.json")
    with open_resumable(output, run.claim, companion=companion, made_with=made_with) as file:
        for part in chunked(stream, chunk):
            lines = [json.dumps(row) + "\n" for row in run.rows(part)]
            file.write("".join(lines).encode("ascii"))
            file.flush()
            os.fsync(file.fileno())
    report.executed = caching.executed
    return report


@contextmanager
def executors(
    *, second_run: bool = True, service: str | None = None, **settings: Unpack[SandboxSettings]
) -> Iterator[tuple[Executor, Executor | None]]:
    """An executor, and for second runs one of another seed, so that luck and the order of sets show.

    Args:
        second_run: whether there are second runs.
        service: addresses of a SandboxFusion service; None: this machine's sandbox.
        settings: see `Sandbox`. Of a service, `workers` is the number of requests at a time (None: what suits it); it
            has isolation and packages of its own.

    Raises:
        ConfigError: a setting that makes no sense, or that a service cannot take.
        SandboxError: no program can be run.

    Example:
        >>> with executors(timeout=5.0) as (executor, second):
        ...     verify_rollouts(rollouts, problems, Path("v.jsonl"), executor=executor, second=second)
    """
    seeds = (0, 1) if second_run else (0,)
    with ExitStack() as stack:
        made: list[Executor] = []
        if service is None:
            made += [stack.enter_context(Sandbox(**settings, seed=seed)) for seed in seeds]
        else:
            remote: dict[str, Any] = {**settings, "workers": settings.get("workers") or WORKERS}
            isolation, packages = remote.pop("require_isolation", False), remote.pop("packages", ())
            if isolation or packages:
                named = "require-isolation" if isolation else f"package {packages[0]}"
                raise ConfigError(
                    f"--{named} is about this machine's sandbox: what a service isolates and has installed is set "
                    "there"
                )
            made += [RemoteSandbox(service, **remote, seed=seed) for seed in seeds]
        yield made[0], made[1] if second_run else None


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
    for number, rollout in enumerate(rollouts):
        try:
            problem = known.find(rollout.problem_id, rollout.problem)
        except DataError as error:
            raise DataError(f"rollout {number}: {error}") from error
        if problem is not None:
            yield rollout, problem
        elif skip_unknown:
            report.unknown += 1
            tick(1)
        else:
            shown = rollout.problem_id or folded(rollout.problem)[:60]
            raise DataError(
                f"rollout {number}: no problem with tests is called or reads {shown!r}. Rollouts without a problem_id "
                "are found by their whole problem text, what a prompt puts around it included; give its problems as "
                "well, or skip unknown ones"
            )


@dataclass
class _Confirming:
    """An executor that runs what passed once more by a second one; what then fails is flaky and has not passed."""

    first: Executor
    second: Executor

    def run(self, jobs: Sequence[Job], *, progress: Ticker | None = None) -> list[Verdict]:
        verdicts = self.first.run(jobs, progress=progress)
        places = [place for place, verdict in enumerate(verdicts) if verdict.passed]
        for place, again in zip(places, self.second.run([jobs[place] for place in places]), strict=True):
            if again.is_failure:
                verdicts[place] = replace(verdicts[place], passed=False, flaky=True, detail=again.detail)
        return verdicts


@dataclass
class _Run:
    """Rows of an earlier run, and those of this one."""

    executor: CachingExecutor
    extraction: str
    report: VerificationReport
    stream: Iterator[Matched]
    tick: Ticker

    def claim(self, row: Any) -> str:
        """Take in a row of an earlier run if it is that of the next rollout; see `outputs.Claim`."""
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
        if self.extraction == "continue":
            extractions = extract_all(
                [problem.text + rollout.completion for rollout, problem in part], extraction="bare"
            )
        else:
            extractions = extract_all([rollout.completion for rollout, _ in part], extraction=self.extraction)
        jobs = [
            (one.code, problem) for (_, problem), one in zip(part, extractions, strict=True) if one.status is Status.OK
        ]
        self.tick(len(part) - len(jobs))
        verdicts = iter(self.executor.run(jobs, progress=self.tick))
        rows = []
        for (rollout, problem), one in zip(part, extractions, strict=True):
            verdict = next(verdicts) if one.status is Status.OK else Verdict(passed=False)
            rows.append(_row(rollout, problem, one, verdict))
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
    """The verdict of a row, None where a run cannot have written it."""
    fault = row.get("fault")
    if (
        any(type(row.get(name)) is not kind for name, kind in _COLUMNS.items())
        or not isinstance(row.get("seconds"), int | float)
        or row["status"] not in _STATUSES
        or fault not in (None, *Fault)
    ):
        return None
    made = {one.name: row[one.name] for one in fields(Verdict)}
    return Verdict(**{**made, "fault": None if fault is None else Fault(fault)})
