"""`codescaler select`: the best of many candidates, without tests or with few."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass, fields
from functools import partial
from itertools import groupby
from math import ceil
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TextIO

import typer

from codescaler_plugin.cli.options import Model, grouped
from codescaler_plugin.cli.rows import Output, Source, Strict, chunks, skipped, write
from codescaler_plugin.cli.sandbox_options import PANEL, SandboxOptions, print_faults
from codescaler_plugin.cli.terminal import (
    Skipped,
    Terminal,
    errors,
    number_table,
    open_output,
    reported,
    say,
    without_loading_bars,
)
from codescaler_plugin.data.outputs import check_output, write_text
from codescaler_plugin.data.rows import chunked, dumps
from codescaler_plugin.errors import ConfigError, DataError, GenerationError, HttpError
from codescaler_plugin.extras import require
from codescaler_plugin.records import Problem
from codescaler_plugin.safety import printable
from codescaler_plugin.selection.records import Outcome, Ranked, Selection
from codescaler_plugin.text.lines import folded

if TYPE_CHECKING:
    from codescaler_plugin.data.matching import ProblemIndex
    from codescaler_plugin.pipeline import CodeScaler
    from codescaler_plugin.text.templates import Template

_GROUPS = 32  # problems at a time: tests of all of them run together
_ASKED = 64  # candidates in one request to a server, at most
_OF_TESTS = tuple(one.name for one in fields(SandboxOptions))
_SAMPLING, _CALIBRATION = "With a server that writes candidates", "Confidence"

Row = dict[str, Any]


@grouped
def select(
    context: typer.Context,
    source: Source = "-",  # type: ignore[assignment]
    model: Model = None,
    output: Output = None,
    show: Annotated[
        int | None, typer.Option(min=1, metavar="NUMBER", help="Show this problem as a table, not JSONL.")
    ] = None,
    extraction: Annotated[
        str,
        typer.Option(
            envvar="CODESCALER_POLICY", help="Which block of an answer is its code: last, first, single or bare."
        ),
    ] = "last",
    self_consistency: Annotated[
        float, typer.Option(min=0, help="Weight of the number of candidates that wrote the same program.")
    ] = 0.0,
    strict: Strict = False,
    calibration: Annotated[
        Path | None, typer.Option(help="File of --calibrate.", rich_help_panel=_CALIBRATION)
    ] = None,
    abstain_below: Annotated[
        float | None,
        typer.Option(min=0, max=1, help="Choose nothing below this probability.", rich_help_panel=_CALIBRATION),
    ] = None,
    calibrate: Annotated[
        Path | None,
        typer.Option(help="Fit a calibration on lines with `passed`; write it here.", rich_help_panel=_CALIBRATION),
    ] = None,
    costs: Annotated[
        str | None,
        typer.Option(
            metavar="SCORE,TEST,WRONG",
            help="Of scoring, testing, being wrong. With --tests and --calibration: go the cheapest way; without: "
            "say which it is, of lines with `passed`.",
            rich_help_panel=_CALIBRATION,
        ),
    ] = None,
    tests: Annotated[
        list[str] | None,
        typer.Option(metavar="FILE", help="Problems with tests; repeatable.", rich_help_panel=PANEL),
    ] = None,
    target: Annotated[
        float,
        typer.Option(min=0.01, help="Untested at this probability (--calibration).", rich_help_panel=PANEL),
    ] = 0.95,
    tests_alone: Annotated[
        bool, typer.Option("--keep-order", help="In the order given; no reward model.", rich_help_panel=PANEL)
    ] = False,
    budget: Annotated[
        int | None, typer.Option(min=0, help="Programs run for a problem at most.", rich_help_panel=PANEL)
    ] = None,
    generated_tests: Annotated[
        bool,
        typer.Option("--generated-tests", help="Tests may be wrong: take what passes most.", rich_help_panel=PANEL),
    ] = False,
    generate: Annotated[
        str | None,
        typer.Option(metavar="URL", help="OpenAI-compatible; lines need only `problem`.", rich_help_panel=_SAMPLING),
    ] = None,
    generator: Annotated[
        str | None, typer.Option(help="Its model; else the only one it serves.", rich_help_panel=_SAMPLING)
    ] = None,
    n: Annotated[int, typer.Option("-n", min=1, help="Candidates at most.", rich_help_panel=_SAMPLING)] = 8,
    cost: Annotated[
        float,
        typer.Option(
            min=0, help="Stop early if one more gains less, as a share of a right answer.", rich_help_panel=_SAMPLING
        ),
    ] = 0.0,
    temperature: Annotated[float, typer.Option(min=0, rich_help_panel=_SAMPLING)] = 1.0,
    max_tokens: Annotated[
        int | None, typer.Option(min=1, help="Per candidate; else the server's limit.", rich_help_panel=_SAMPLING)
    ] = None,
    api_key: Annotated[
        str | None, typer.Option(envvar="OPENAI_API_KEY", help="Of the server.", rich_help_panel=_SAMPLING)
    ] = None,
    *,
    sandbox: SandboxOptions,
) -> None:
    """Rank the candidates of each problem by their scores; the best is first.

    JSONL in: `problem` with a list `completions`, or a line for each
    `completion`, those of a problem together. JSONL out: a line for each
    problem, with outcome, best (place of the winner), code, margin,
    probability, executions, explanation and ranked (all candidates, best
    first).

    With --tests, programs run in the order of the scores until one passes;
    with --calibration, only where the first is right with less probability
    than --target; with --keep-order, in the order given, and nothing is scored.
    With --costs too, the way (reward model alone, tests alone, or both, and
    the target) that was cheapest where --calibrate ran. Tests are found by
    `problem_id`, else by the problem's text.

    Exit code: 0 a winner for each problem; 1 an error, with --strict a bad
    line; 3 some lines were skipped or some problems have no winner.
    """
    from codescaler_plugin.config import CodeScalerConfig
    from codescaler_plugin.data.matching import ProblemIndex
    from codescaler_plugin.generation.server import server_candidates
    from codescaler_plugin.pipeline import CodeScaler
    from codescaler_plugin.scoring import Unscored
    from codescaler_plugin.selection.adaptive import Stopping
    from codescaler_plugin.selection.calibration import read_calibration
    from codescaler_plugin.selection.cascade import CascadeConfig, decide_by_tests
    from codescaler_plugin.selection.planning import keep_order
    from codescaler_plugin.selection.ranking import chosen, rank_groups

    without_loading_bars()
    known = calibrate is not None or (costs is not None and not tests)
    way = "tests" if tests_alone else "cascade" if tests else "rm"
    inputs: list[Any] = [source, *(tests or ()), *([calibration] if calibration is not None else ())]
    with reported(), open_output(None if known else output, inputs) as sink:
        if known and output is not None:
            raise ConfigError("--calibrate, and --costs without --tests, write no lines: leave --output out")
        if known and (tests or generate is not None or show is not None or abstain_below is not None):
            raise ConfigError(
                "--calibrate, and --costs without --tests, read `passed`: leave out --tests, --generate, --show and "
                "--abstain-below"
            )
        if tests and abstain_below is not None:
            raise ConfigError("--abstain-below is for choices without tests: with --tests give --target")
        _wanted(context, "--tests", tests, "target", "tests_alone", "budget", "generated_tests", *_OF_TESTS)
        _wanted(context, "--calibration", calibration, "target")
        _wanted(context, "--generate", generate, "generator", "n", "cost", "temperature", "max_tokens")
        if tests_alone:
            _unwanted(context, "--keep-order asks no reward model", "self_consistency", "calibration", "costs", "cost")
        if calibrate is not None:
            check_output(calibrate, inputs)
        if known:
            require("--costs" if calibrate is None else "--calibrate", "report", "sklearn")
        price = None if costs is None else _costs(costs)
        scaler = CodeScaler(config=CodeScalerConfig.from_env(model=model))
        holds_for = f"first of N by {scaler.config.model}, self-consistency {self_consistency:g}"
        fitted = None if calibration is None else read_calibration(calibration)
        if fitted is not None and fitted.model != holds_for:
            raise ConfigError(
                f"{calibration} was fitted for {fitted.model!r}, not {holds_for!r}: make one with --calibrate"
            )
        if price is not None and tests:
            _unwanted(context, "--costs chooses, for right tests", "target", "budget", "generated_tests", "cost")
            best = _cheapest(calibration, price)
            way, target = best.strategy, best.target or target
        if way == "tests":
            scaler = CodeScaler(Unscored(), config=scaler.config)
        config = CascadeConfig(calibration=fitted, target=target, budget=budget, generated=generated_tests)
        batch = min(4, n) if cost else ceil(n / ceil(n / _ASKED))  # without a cost all are wanted: ask for all
        stopping = Stopping(cost=cost, min_samples=min(4, n), max_samples=n, batch=batch)
        skipped_problems = Skipped()
        tested = None
        if tests:
            tested = ProblemIndex(_once(sandbox.problems(tests, "auto", None if strict else skipped_problems)))
        reader = _Reader(source, tested, show, generate is not None, known, strict, scaler.template)
        labelled: list[tuple[Selection, list[bool]]] = []
        complete = True
        faults: Counter[str] = Counter()
        examples: dict[str, str] = {}
        with sandbox.executors() if tests and way != "rm" else nullcontext((None, None)) as (executor, _):
            for chunk in chunked(reader, _GROUPS):
                rows = [row for row, _ in chunk]
                if generate is None:
                    candidates = [(row["problem"], row["completions"]) for row in rows]
                    selections = list(
                        rank_groups(
                            scaler,
                            candidates,
                            extraction=extraction,
                            self_consistency=self_consistency,
                            calibration=fitted,
                            abstain_below=abstain_below,
                        )
                    )
                else:
                    server = partial(
                        server_candidates,
                        generate,
                        model=generator,
                        batch=stopping.batch,
                        temperature=temperature,
                        max_tokens=max_tokens,
                        api_key=api_key,
                    )
                    found = asyncio.run(
                        _sampled(rows, scaler, server, stopping, extraction, self_consistency, strict=strict)
                    )
                    reader.bad += found.count(None)
                    chunk = [pair for pair, one in zip(chunk, found, strict=True) if one is not None]
                    rows = [row for row, _ in chunk]
                    selections = [chosen(one.ranked, fitted, abstain_below) for one in found if one is not None]
                if way == "tests":
                    selections = [keep_order(one) for one in selections]
                if executor is not None:
                    problems = [problem for _, problem in chunk if problem is not None]
                    selections = decide_by_tests(selections, problems, executor=executor, config=config)
                for row, selection in zip(rows, selections, strict=True):
                    complete &= selection.outcome is Outcome.CHOSEN
                    for one in selection.programs:
                        if one.verdict is not None and one.verdict.fault is not None:
                            faults[one.verdict.fault] += 1
                            examples.setdefault(one.verdict.fault, one.verdict.detail)
                    if known:
                        labelled.append((selection, row["passed"]))
                    elif show is not None:
                        _show(row["problem"], selection, scaler, sink)
                    else:
                        write(sink, {**row, **_as_json(selection)})
        if show is not None and show > reader.count:
            raise DataError(f"there is no problem {show}: the input has {reader.count}")
        print_faults(faults, examples, "run again")
        if known:
            _learn(labelled, holds_for, calibrate, price)
            complete = True
    if reader.bad or skipped_problems.count or not complete:
        raise typer.Exit(3)


def _wanted(context: typer.Context, option: str, value: object, *names: str) -> None:
    """An error for options that say nothing without another one."""
    given = _given(context, names)
    if given and not value:
        raise ConfigError(f"{given} without {option} would do nothing: give {option}, or leave it out")


def _unwanted(context: typer.Context, why: str, *names: str) -> None:
    """An error for options that another one leaves without a meaning."""
    if given := _given(context, names):
        raise ConfigError(f"{why}: leave out {given}")


def _given(context: typer.Context, names: Sequence[str]) -> str:
    """Those of these options that stand on the command line."""
    found = [
        parameter.opts[0]
        for parameter in context.command.params
        if parameter.name in names
        and (source := context.get_parameter_source(parameter.name)) is not None
        and source.name == "COMMANDLINE"
    ]
    return ", ".join(found)


async def _sampled(
    rows: Sequence[Row],
    scaler: Any,
    server: Callable[[Any], AsyncIterator[str]],
    stopping: Any,
    extraction: str,
    self_consistency: float,
    *,
    strict: bool,
) -> list[Selection | None]:
    """Selections among fresh candidates, which are put into the rows; all problems are sampled at the same time.

    None for a problem that the server refuses, which is reported, or raised with `strict`.
    """
    from codescaler_plugin.selection.adaptive import sample_adaptively

    async def sampled(row: Row) -> Selection | None:
        problem = row["problem"]
        try:
            found = await sample_adaptively(
                scaler,
                problem,
                server(problem),
                stopping=stopping,
                extraction=extraction,
                self_consistency=self_consistency,
            )
        except GenerationError as error:
            if not (isinstance(error.__cause__, HttpError) and error.__cause__.is_refusal):
                raise
            skipped(f"problem {_start(problem)!r}: {error}", error, strict=strict)
            return None
        ranked = sorted(found.selection.ranked, key=lambda one: one.index)
        row["completions"] = [candidate.completion for candidate in ranked]
        row["stopped"] = found.stopped
        return found.selection

    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(_GROUPS))  # a request for each problem
    return await asyncio.gather(*map(sampled, rows))


@dataclass
class _Reader:
    """Rows with a problem and all its candidates, from either form of input, and the tests of each if there are any.

    `bad` counts the lines left out, `count` the problems read; with `only`, no other problem is looked at, and nothing
    is read beyond it.

    What cannot be read on raises a DataError behind the problems before it.
    """

    source: typer.FileBinaryRead
    tested: "ProblemIndex | None"
    only: int | None
    generate: bool
    known: bool
    strict: bool
    template: "Template | None"
    bad: int = 0
    count: int = 0
    broken: DataError | None = None

    def __iter__(self) -> Iterator[tuple[Row, Problem | None]]:
        for _, group in groupby(enumerate(self._lines()), key=self._key):
            self.count += 1
            if self.only not in (None, self.count):
                continue
            rows = [row for _, row in group]
            if self.broken is not None and self._is_part(rows[0]):
                break  # its other candidates may be behind what cannot be read
            try:
                found = self._row(rows), self._tests(rows[0])
            except DataError as error:
                self.bad += len(rows)
                skipped(f"problem {_start(rows[0]['problem'])!r}: {error}", error, strict=self.strict)
            else:
                yield found
            if self.count == self.only:
                return
        if self.broken is not None:
            raise self.broken

    def _lines(self) -> Iterator[Row]:
        try:
            columns, template = ("problem",), self.template
            for rows, count in chunks(self.source, columns, "selecting", strict=self.strict, template=template):
                self.bad += count - len(rows)
                yield from rows
        except DataError as error:
            self.broken = error

    def _key(self, numbered: tuple[int, Row]) -> Any:
        """Lines of one completion are one problem while the problem's text is the same."""
        number, row = numbered
        return dumps(row["problem"]) if self._is_part(row) else number

    def _is_part(self, row: Row) -> bool:
        """Whether a row holds one candidate of a problem, and not the problem with all of them."""
        return "completion" in row and not self.generate

    def _row(self, rows: list[Row]) -> Row:
        from codescaler_plugin.text.messages import completion_text

        first = rows[0]
        if self.generate:
            if given := [name for name in ("completions", "completion") if name in first]:
                raise DataError(f"`{given[0]}` is there already, and --generate would replace it: leave one out")
            return first
        if "completions" in first:
            found = first
            if not isinstance(found["completions"], list):
                raise DataError("`completions` is no list")
        elif "completion" in first:
            found = {name: value for name, value in first.items() if name in ("problem", "problem_id")}
            if self.known:
                rows = [row for row in rows if not row.get("fault")]
                if not rows:
                    raise DataError("the tests gave no verdict on any of its candidates")
            found["completions"] = [row["completion"] for row in rows]
            if self.known:
                found["passed"] = [row.get("passed") for row in rows]
        else:
            raise DataError("expected `completions` or `completion`")
        for place, completion in enumerate(found["completions"]):
            completion_text(completion, f"completion {place}")
        if self.known:
            passed = found.get("passed")
            if (
                not isinstance(passed, list)
                or len(passed) != len(found["completions"])
                or not all(isinstance(one, bool) for one in passed)
            ):
                raise DataError("expected `passed`, true or false for each completion")
        return found

    def _tests(self, row: Row) -> Problem | None:
        from codescaler_plugin.data.rollouts import problem_id_of
        from codescaler_plugin.text.messages import problem_text

        if self.tested is None:
            return None
        name, text = problem_id_of(row), problem_text(row["problem"], "problem", self.template)
        problem = self.tested.find(name, text)
        if problem is None:
            raise DataError(f"no problem with tests has {f'the id {name!r} or ' if name else ''}this text")
        return problem


def _once(problems: Iterable[Problem]) -> list[Problem]:
    """The problems without those that come again, as from a file that is given twice."""
    found: dict[str, list[Problem]] = {}
    for problem in problems:
        same = found.setdefault(problem.id, [])
        if problem not in same:
            same.append(problem)
    return [problem for same in found.values() for problem in same]


def _start(problem: Any) -> str:
    """A problem in a message."""
    return folded(str(problem))[:60]


def _as_json(selection: Selection) -> Row:
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
                "index": one.index,
                "score": one.judgement.score,
                "rank_score": one.rank_score,
                "status": str(one.judgement.status),
                "duplicates": one.duplicates,
                "duplicate_of": one.duplicate_of,
                "passed": None if one.verdict is None or one.verdict.fault is not None else one.verdict.passed,
                "fault": None if one.verdict is None else one.verdict.fault,
                "detail": "" if one.verdict is None else one.verdict.detail,
            }
            for one in selection.ranked
        ],
    }


_SHOWN = 12  # candidates in the table


def _show(problem: Any, selection: Selection, scaler: "CodeScaler", sink: TextIO) -> None:
    from rich import box
    from rich.panel import Panel
    from rich.syntax import Syntax
    from rich.table import Table
    from rich.text import Text

    from codescaler_plugin.text.messages import problem_text

    console = Terminal(file=sink)
    tested = any(one.verdict is not None for one in selection.ranked)
    console.print(
        Panel(
            Text(problem_text(problem, "problem", scaler.template).strip()),
            title="problem",
            title_align="left",
            box=box.ROUNDED,
        )
    )
    table = Table(box=box.SIMPLE_HEAD)
    for name, right in (("", False), ("candidate", True), ("score", True), ("rank_score", True), ("duplicates", True)):
        table.add_column(name, justify="right" if right else "left")
    table.add_column("what it is", ratio=1)
    rows = [one for one in selection.ranked if one.duplicate_of is None]
    for one in rows[:_SHOWN]:
        wins = one is selection.best
        table.add_row(
            "▶" if wins else "",
            str(one.index),
            "" if one.judgement.score is None else f"{one.judgement.score:.4f}",
            "" if one.rank_score is None else f"{one.rank_score:.4f}",
            str(one.duplicates or ""),
            Text(_kind(one, tested=tested), overflow="ellipsis", no_wrap=True),
            style="bold green" if wins else "",
        )
    console.print(table)
    if len(rows) > _SHOWN:
        console.print(f"and {len(rows) - _SHOWN} more\n", style="dim")
    if selection.best is not None:
        text = printable(selection.best.judgement.code.rstrip())  # before it is coloured letter by letter
        code = Syntax(text, scaler.config.language, theme="ansi_dark", word_wrap=True)
        title = f"candidate {selection.best.index}"
        console.print(Panel(code, title=title, title_align="left", border_style="green", box=box.ROUNDED))
    console.print(f"{selection.outcome}: {selection.explanation}")


def _kind(one: Ranked, *, tested: bool) -> str:
    """The verdict, or why there is none, or the first line of the code."""
    if one.judgement.status != "ok":
        return str(one.judgement.status)
    if one.verdict is not None and one.verdict.fault is not None:
        return f"no verdict ({one.verdict.fault}): {one.verdict.detail}"
    if one.verdict is not None:
        return "passes all tests" if one.verdict.passed else one.verdict.detail
    if tested:
        return "not run"
    lines = [line.strip() for line in one.judgement.code.splitlines()]
    return next((line for line in lines if line and not line.startswith(("#", "import ", "from "))), "")


def _learn(labelled: Sequence[tuple[Selection, list[bool]]], holds_for: str, output: Path | None, costs: Any) -> None:
    """A calibration of the first program's margin, and what each way to choose is worth and would have cost."""
    from codescaler_plugin.selection.planning import fit_margins, measure_plans, price_plans, with_plans

    plans = measure_plans(labelled)
    if output is not None:
        fitted = fit_margins(labelled, model=holds_for)
        write_text(output, with_plans(fitted, plans) + "\n")
        share = f"{fitted.right:g} of {fitted.examples} first programs are right"
        say(f"wrote {output}: {share}")
    if costs is not None:
        _print_plans(found := price_plans(plans, costs))
        say(f"cheapest: {_how(found[0])}")


def _cheapest(calibration: Path | None, costs: Any) -> Any:
    """The plan that a calibration file makes the cheapest, which is said beside the best of the other ways."""
    from codescaler_plugin.selection.planning import price_plans, read_plans

    if calibration is None:
        raise ConfigError(
            "--costs with --tests wants --calibration FILE: --calibrate notes there what each way is worth"
        )
    plans = price_plans(read_plans(calibration), costs)
    ways = {one.strategy: one for one in reversed(plans)}
    _print_plans([one for one in plans if ways[one.strategy] is one])
    best = plans[0]
    say(f"expected by {calibration}, applied: {_how(best)}")
    return best


def _costs(text: str) -> Any:
    from codescaler_plugin.selection.planning import Costs

    try:
        score, test, wrong = map(float, text.split(","))
    except ValueError:
        raise ConfigError(f"--costs is {text!r}: expected three numbers, such as 0.02,0.3,60") from None
    return Costs(score, test, wrong)


def _print_plans(plans: Sequence[Any]) -> None:
    table = number_table("way", "target", "accuracy", "programs run", "cost a problem")
    for number, one in enumerate(plans):
        target = "" if one.target is None else "always test" if one.target > 1 else f"{one.target:g}"
        table.add_row(
            one.strategy,
            target,
            f"{one.accuracy:.1%}",
            f"{one.executions:.2f}",
            f"{one.cost:.4g}",
            style="bold green" if number == 0 else "",
        )
    errors.print(table)


def _how(plan: Any) -> str:
    """How to do as a plan says."""
    if plan.strategy == "rm":
        return "codescaler select without --tests"
    if plan.strategy == "tests":
        return "codescaler select --tests FILE --keep-order"
    sure = "" if plan.target > 1 else f" --calibration FILE --target {plan.target:g}"
    return f"codescaler select --tests FILE{sure}"
