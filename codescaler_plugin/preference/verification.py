"""Rollouts + problems -> a verdict for each rollout, in a file that a killed run goes on with where it ended."""

import hashlib
import json
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, BinaryIO

from cachetools import LRUCache

from codescaler_plugin.data.outputs import lock, write_text
from codescaler_plugin.data.rows import SUFFIXES, chunked
from codescaler_plugin.data.rows import count_rows as _count
from codescaler_plugin.errors import ConfigError, DataError
from codescaler_plugin.extraction import POLICIES as _BLOCK_POLICIES
from codescaler_plugin.extraction import extract_all
from codescaler_plugin.preference.grading import MEMORY_MB, TIMEOUT
from codescaler_plugin.preference.remote_sandbox import WORKERS, RemoteSandbox
from codescaler_plugin.preference.sandbox import Executor, Sandbox
from codescaler_plugin.records import Extraction, Problem, Rollout, Status, Verdict

POLICIES = (*_BLOCK_POLICIES, "continue")
CHUNK = 256  # rollouts between two writes: what a kill can cost

_REMEMBERED = 200_000  # verdicts of (problem, code) in memory, about 100 MB
_FORM = 1  # of the output; a later one is another run
_MADE = {"code", "status", "passed", "detail", "tests_passed", "tests_total", "seconds", "flaky"}


@dataclass
class VerificationReport:
    """What a run did; counts are over all rows of the output, those of an earlier run included.

    Attributes:
        rows: rollouts with a verdict.
        resumed: of them, rows that an earlier run had written.
        executed: programs run; the second runs of passing ones are not counted.
        passed: rows that pass.
        flaky: rows that passed once and then not.
        unknown: rollouts left out because their problem is not among the problems.
        statuses: rows per extraction status.
        failures: rows per kind of first failure, without its place.
    """

    rows: int = 0
    resumed: int = 0
    executed: int = 0
    passed: int = 0
    flaky: int = 0
    unknown: int = 0
    statuses: Counter[str] = field(default_factory=Counter)
    failures: Counter[str] = field(default_factory=Counter)

    def count(self, row: Mapping[str, Any]) -> None:
        """Take in a row of the output."""
        self.rows += 1
        self.passed += row["passed"]
        self.flaky += row["flaky"]
        self.statuses[row["status"]] += 1
        if not row["passed"] and row["status"] == Status.OK:
            self.failures[row["detail"].partition(" in test ")[0].partition(":")[0]] += 1


def verify_rollouts(
    rollouts: Iterable[Rollout],
    problems: Iterable[Problem],
    output: Path,
    *,
    executor: Executor,
    second: Executor | None = None,
    policy: str = "single",
    settings: Mapping[str, Any] | None = None,
    skip_unknown: bool = False,
    chunk: int = CHUNK,
    progress: Callable[[int], None] | None = None,
) -> VerificationReport:
    """Give each rollout the verdict of its problem's tests; one JSON line each in `output`, in the rollouts' order.

    A line holds the rollout's fields and `code, status, passed, tests_passed, tests_total, detail, seconds, flaky`. A
    completion without usable code is not run: `passed` is false and `tests_total` 0. The same code for the same
    problem is run once. Lines are on disk chunk by chunk; called again with the same arguments, the run goes on where
    it ended, a torn last line is taken off, and rollouts that have been appended since are verified as well. Rollouts
    are streamed; all problems are in memory.

    Args:
        rollouts: matched with a problem by `problem_id`, else by its text.
        problems: ids are unique.
        output: its companion `<output>.run.json` says what the run was made with.
        executor: gives verdicts.
        second: runs what passed once more, under another seed; what then fails is `flaky` and has not passed. None:
            one run is believed.
        policy: which block is the code, see `extract_code`; or `continue`: the program is the problem's text with the
            completion behind it, as base models write.
        settings: of the executor, to be compared when the run goes on.
        skip_unknown: leave out rollouts of unknown problems, and count them, instead of failing.
        chunk: rollouts between two writes.
        progress: called with the number of rollouts just judged, found judged, or left out.

    Raises:
        ConfigError: an unknown policy; an output that another run has made, with other settings, problems or rollouts,
            or is making now.
        DataError: a rollout whose problem is unknown, two problems with one id, or no problems.
        SandboxError: the executor broke. What has been written stays.
    """
    if policy not in POLICIES:
        raise ConfigError(f"policy is {policy!r}: expected one of {', '.join(POLICIES)}")
    known = _Problems(problems)
    made_with = {
        "form": _FORM,
        "policy": policy,
        "second run": second is not None,
        "problems": known.digest,
        **(settings or {}),
    }
    report = VerificationReport()
    tick = progress or (lambda _: None)
    stream = _matched(rollouts, known, report, skip_unknown=skip_unknown, tick=tick)
    with _Output(output, made_with) as file:
        run = _Run(executor, second, policy, report)
        _resume(file, stream, run, output, tick)
        for part in chunked(stream, chunk):
            lines = [json.dumps(row) + "\n" for row in run.rows(part, tick)]
            file.write("".join(lines).encode("ascii"))
            file.flush()
            os.fsync(file.fileno())
    return report


@contextmanager
def executors(
    *,
    second_run: bool = True,
    workers: int | None = None,
    require_isolation: bool = False,
    timeout: float = TIMEOUT,
    memory_mb: int = MEMORY_MB,
    packages: Sequence[str] = (),
    service: str | None = None,
) -> Iterator[tuple[Executor, Executor | None]]:
    """An executor, and for second runs one of another seed, so that luck and the order of sets show.

    Args:
        second_run: whether there are second runs.
        workers: programs at a time; None: one per core, or what suits a service.
        require_isolation: see `Sandbox`; of a service it cannot be known.
        timeout: see `Sandbox`.
        memory_mb: see `Sandbox`.
        packages: see `Sandbox`; a service has its own.
        service: addresses of a SandboxFusion service; None: this machine's sandbox.

    Raises:
        ConfigError: a setting that makes no sense, or that a service cannot take.
        SandboxError: no program can be run.
    """
    if service is not None:
        if require_isolation or packages:
            named = "require-isolation" if require_isolation else f"package {packages[0]}"
            raise ConfigError(
                f"--{named} is about this machine's sandbox: what a service isolates and has installed is set there"
            )
        yield (
            RemoteSandbox(service, timeout=timeout, memory_mb=memory_mb, workers=workers or WORKERS),
            RemoteSandbox(service, timeout=timeout, memory_mb=memory_mb, workers=workers or WORKERS, seed=1)
            if second_run
            else None,
        )
        return

    def started(seed: int) -> Sandbox:
        return Sandbox(
            timeout=timeout,
            memory_mb=memory_mb,
            workers=workers,
            require_isolation=require_isolation,
            packages=packages,
            seed=seed,
        )

    with started(0) as first, started(1) if second_run else nullcontext() as second:
        yield first, second


def count_rows(path: str | Path) -> int | None:
    """Rows of a file, or of a folder of files, without parsing them; None if that cannot be told."""
    here = Path(path)
    files = sorted(here.iterdir()) if here.is_dir() else [here]
    total = 0
    for file in files:
        rows = _count(file) if file.is_file() and file.name.endswith(SUFFIXES) else None
        if rows is None:
            return None
        total += rows
    return total


class _Problems:
    """Problems by id and by text."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.by_id: dict[str, Problem] = {}
        self.by_text: dict[str, Problem] = {}
        digest = hashlib.sha256()
        for problem in problems:
            if problem.id in self.by_id:
                raise DataError(f"two problems have the id {problem.id!r}")
            self.by_id[problem.id] = problem
            self.by_text.setdefault(problem.text.strip(), problem)
            digest.update(repr(problem).encode("utf-8", "surrogatepass"))
        if not self.by_id:
            raise DataError("no problems: nothing can be verified")
        self.digest = digest.hexdigest()

    def of(self, rollout: Rollout) -> Problem | None:
        return self.by_id.get(rollout.problem_id) or self.by_text.get(rollout.problem.strip())


Matched = tuple[Rollout, Problem]


def _matched(
    rollouts: Iterable[Rollout],
    known: _Problems,
    report: VerificationReport,
    *,
    skip_unknown: bool,
    tick: Callable[[int], None],
) -> Iterator[Matched]:
    for number, rollout in enumerate(rollouts):
        problem = known.of(rollout)
        if problem is not None:
            yield rollout, problem
        elif skip_unknown:
            report.unknown += 1
            tick(1)
        else:
            shown = rollout.problem_id or rollout.problem.strip()[:60]
            raise DataError(
                f"rollout {number}: no problem with tests is called or reads {shown!r}. Rollouts without a problem_id "
                "are found by their whole problem text, what a prompt puts around it included; give its problems as "
                "well, or skip unknown ones"
            )


class _Run:
    """Verdicts for rows, each program once."""

    def __init__(self, executor: Executor, second: Executor | None, policy: str, report: VerificationReport) -> None:
        self.executor, self.second, self.policy, self.report = executor, second, policy, report
        self.verdicts: LRUCache[bytes, Verdict] = LRUCache(_REMEMBERED)

    def rows(self, part: Sequence[Matched], tick: Callable[[int], None]) -> list[dict[str, Any]]:
        extractions = self._extractions(part)
        keys = [_key(problem, one.code) for (_, problem), one in zip(part, extractions, strict=True)]
        jobs = {
            key: (one.code, problem)
            for key, (_, problem), one in zip(keys, part, extractions, strict=True)
            if one.status is Status.OK and key not in self.verdicts
        }
        tick(len(part) - len(jobs))
        made = dict(zip(jobs, self._judged(list(jobs.values()), tick), strict=True))
        self.report.executed += len(jobs)
        rows = []
        for key, (rollout, problem), one in zip(keys, part, extractions, strict=True):
            verdict = Verdict(passed=False)
            if one.status is Status.OK:
                verdict = made.get(key) or self.verdicts[key]
            rows.append(_row(rollout, problem, one, verdict))
            self.report.count(rows[-1])
        self.verdicts.update(made)
        return rows

    def remember(self, problem: Problem, row: Mapping[str, Any]) -> None:
        if row["status"] == Status.OK:
            verdict = Verdict(**{name: row[name] for name in _MADE - {"code", "status"}})
            self.verdicts[_key(problem, row["code"])] = verdict
        self.report.count(row)
        self.report.resumed += 1

    def _judged(self, jobs: list[tuple[str, Problem]], tick: Callable[[int], None]) -> list[Verdict]:
        verdicts = self.executor.run(jobs, progress=tick)
        if self.second is not None:
            places = [place for place, verdict in enumerate(verdicts) if verdict.passed]
            for place, again in zip(places, self.second.run([jobs[place] for place in places]), strict=True):
                if not again.passed:
                    verdicts[place] = replace(verdicts[place], passed=False, flaky=True, detail=again.detail)
        return verdicts

    def _extractions(self, part: Sequence[Matched]) -> list[Extraction]:
        if self.policy != "continue":
            return extract_all([rollout.completion for rollout, _ in part], policy=self.policy)
        return extract_all([problem.text + rollout.completion for rollout, problem in part], policy="bare")


def _key(problem: Problem, code: str) -> bytes:
    return hashlib.blake2b(f"{problem.id}\0{code}".encode("utf-8", "surrogatepass"), digest_size=16).digest()


def _row(rollout: Rollout, problem: Problem, extraction: Extraction, verdict: Verdict) -> dict[str, Any]:
    return {
        **asdict(rollout),
        "problem_id": problem.id,
        "code": extraction.code,
        "status": str(extraction.status),
        **asdict(verdict),
    }


class _Output:
    """The output for appending, locked, whole lines only, and made with the same settings."""

    def __init__(self, output: Path, made_with: dict[str, Any]) -> None:
        self.output, self.made_with = output, made_with
        self.companion = output.with_name(output.name + ".run.json")

    def __enter__(self) -> BinaryIO:
        try:
            file: BinaryIO = self.output.open("ab+")
        except OSError as error:
            raise ConfigError(f"cannot write {self.output}: {error.strerror}") from error
        self.file = file
        try:
            lock(file, self.output)
            self._check()
        except BaseException:  # `__exit__` is not called for what `__enter__` raises
            file.close()
            raise
        return file

    def __exit__(self, *_: object) -> None:
        self.file.close()

    def _check(self) -> None:
        size = self.output.stat().st_size
        if not self.companion.exists():
            if size:
                raise ConfigError(f"{self.output} exists, and no {self.companion.name} beside it: give another output")
            write_text(self.companion, json.dumps(self.made_with, indent=2))
            return
        try:
            before = json.loads(self.companion.read_text(encoding="utf-8"))
        except ValueError as error:
            raise ConfigError(f"{self.companion} cannot be read: delete it and {self.output}") from error
        for name in before.keys() | self.made_with.keys():
            if before.get(name) != self.made_with.get(name):
                raise ConfigError(
                    f"{self.output} was made with other {name}: {_shown(before.get(name))} then, "
                    f"{_shown(self.made_with.get(name))} now. Give another output, or delete it to start anew"
                )


def _shown(value: Any) -> str:
    return repr(value[:12] + "...") if isinstance(value, str) and len(value) > 40 else repr(value)


def _resume(file: BinaryIO, stream: Iterator[Matched], run: _Run, output: Path, tick: Callable[[int], None]) -> None:
    """Take off a torn last line, and read over what has been done, comparing it with the rollouts."""
    file.seek(0)
    whole = 0
    for number, line in enumerate(file):
        if not line.endswith(b"\n"):
            break
        try:
            row = json.loads(line)
        except ValueError as error:
            raise ConfigError(f"row {number} of {output} is no JSON: take it out with all behind it") from error
        rollout, problem = next(stream, (None, None))
        if rollout is None or problem is None or not _same(row, rollout, problem):
            raise ConfigError(
                f"row {number} of {output} belongs to another rollout than is given now: the rollouts have changed. "
                "Give another output, or delete it to start anew"
            )
        run.remember(problem, row)
        whole += len(line)
        tick(1)
    file.truncate(whole)
    file.seek(0, os.SEEK_END)


def _same(row: Mapping[str, Any], rollout: Rollout, problem: Problem) -> bool:
    expected = {**asdict(rollout), "problem_id": problem.id}
    return (
        isinstance(row, dict)
        and row.keys() >= _MADE
        and all(row.get(name) == value for name, value in expected.items())
    )
