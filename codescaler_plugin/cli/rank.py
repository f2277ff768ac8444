"""`codescaler rank`."""

from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TextIO

from rich import box
from rich.panel import Panel
from rich.table import Table
from rich.text import Text
from typer import Context, Exit, Option

from codescaler_plugin.cli.candidates import GROUPS, CandidateReader, RankingOptions, selection_row
from codescaler_plugin.cli.costs import CostsOption, command_of, parsed_costs, print_plans
from codescaler_plugin.cli.options import Columns, Limit, Output, Source, Strict, Tests, grouped
from codescaler_plugin.cli.rows import RowReader, opened, write
from codescaler_plugin.cli.sandbox_options import PANEL, SandboxOptions, print_faults
from codescaler_plugin.cli.terminal import Closing, Skipped, Terminal, load_model, open_output, reported, say
from codescaler_plugin.data.rows import chunked
from codescaler_plugin.errors import ConfigError, DataError
from codescaler_plugin.records import Problem
from codescaler_plugin.safety import printable
from codescaler_plugin.selection.records import Outcome, Ranked, Selection

if TYPE_CHECKING:
    from codescaler_plugin.pipeline import CodeScaler
    from codescaler_plugin.selection.cascade import CascadeConfig


_SHOWN = 12  # candidates in the table of --show


@dataclass(frozen=True)
class _Confidence:
    """The probability that the first program is right."""

    panel = "Confidence"

    calibration: Annotated[Path | None, Option(help="File that codescaler calibrate wrote.")] = None
    abstain_below: Annotated[float | None, Option(min=0, max=1, help="Choose nothing below this probability.")] = None
    costs: CostsOption = None


@dataclass(frozen=True)
class _Cascade:
    """The tests that decide."""

    panel = PANEL

    tests: Tests = None
    target: Annotated[float, Option(min=0.01, help="Run no tests from this probability on.")] = 0.95
    keep_order: Annotated[bool, Option("--keep-order", help="In the order given; no reward model.")] = False
    budget: Annotated[int | None, Option(min=0, help="Largest number of programs run per problem.")] = None
    generated_tests: Annotated[
        bool, Option("--generated-tests", help="Tests may be wrong: take what passes most.")
    ] = False


@grouped
def rank(
    context: Context,
    source: Source = "-",
    *,
    ranking: RankingOptions,
    output: Output = None,
    show: Annotated[
        int | None, Option(min=1, metavar="NUMBER", help="Show this problem as a table, not JSONL.")
    ] = None,
    columns: Columns = None,
    limit: Limit = None,
    strict: Strict = False,
    confidence: _Confidence,
    cascade: _Cascade,
    sandbox: SandboxOptions,
) -> None:
    """Rank the candidates of each problem by score, best first.

    Rows in: a problem with a list of completions, or a row for each completion,
    with the rows of a problem together. JSONL out: a line for each problem,
    with outcome, best (index of the winner), code, margin, probability,
    executions, explanation and ranked (all candidates).

    With --tests, programs run in the order of their scores until one passes;
    with --calibration, only if the first is right with a probability below
    --target. With --costs too, all problems get the strategy (reward model,
    tests, or both) that was cheapest on the data of codescaler calibrate. Tests
    are found by `problem_id`, else by the text of the problem.

    Example: codescaler rank candidates.jsonl --tests problems.jsonl

    Exit code: 0 a winner for each problem; 1 an error, or with --strict a bad
    line; 3 some lines were skipped or some problems have no winner.
    """
    from codescaler_plugin.selection.cascade import decide_by_tests
    from codescaler_plugin.selection.planning import keep_order

    closing, outcomes, faults = Closing(), Counter[str](), Counter[str]()
    tests, skipped, examples = cascade.tests or (), Skipped(), dict[str, str]()
    calibrations = [] if confidence.calibration is None else [confidence.calibration]
    with reported(), open_output(output, [opened(source), *tests, *calibrations]) as sink:
        _check(context, confidence, cascade)
        scaler, strategy, config = _strategy(ranking, confidence, cascade)
        index = _indexed(sandbox.problems(tests, "auto", None if strict else skipped)) if tests else None
        rows = RowReader(source, "ranking", "problem", columns, limit, strict, scaler.template)
        rows.prepare = partial(load_model, scaler)
        reader = CandidateReader(rows, tested=index, only=show)
        with sandbox.executors() if strategy != "rm" else nullcontext((None, None)) as (executor, _):
            for groups in chunked(reader, GROUPS):
                certainty = {"calibration": config.calibration, "abstain_below": confidence.abstain_below}
                selections = ranking.rank(scaler, groups, **certainty)
                if strategy == "tests":
                    selections = list(map(keep_order, selections))
                if executor is not None:
                    problems = [group.tested for group in groups if group.tested is not None]
                    selections = decide_by_tests(selections, problems, executor=executor, config=config)
                for group, selection in zip(groups, selections, strict=True):
                    outcomes[str(selection.outcome)] += 1
                    for verdict in (program.verdict for program in selection.programs):
                        if verdict is not None and verdict.fault is not None:
                            faults[verdict.fault] += 1
                            examples.setdefault(verdict.fault, verdict.detail)
                    if show is not None:
                        _show(group.problem, selection, scaler, sink)
                    else:
                        write(sink, {**group.row, **selection_row(selection)})
        if show is not None and show > reader.count:
            raise DataError(f"there is no problem {show}: the input has {reader.count}")
        print_faults(faults, examples, "run again")
    if show is None:
        counts = {name.replace("_", " "): count for name, count in outcomes.most_common()}
        counts |= {"skipped": rows.skipped.count, "skipped in --tests": skipped.count}
        total = outcomes.total() + rows.skipped.count
        closing.say("ranked", outcomes.total(), "problems", of=total, counts=counts, written=[output])
    if skipped.count or rows.skipped.count or outcomes.total() > outcomes[str(Outcome.CHOSEN)]:
        raise Exit(3)


def _check(context: Context, confidence: _Confidence, cascade: _Cascade) -> None:
    """Refuse options that have no effect without another one, or beside another one."""
    if cascade.tests and confidence.abstain_below is not None:
        raise ConfigError("--abstain-below is for choices without tests: with --tests give --target")
    of_tests = [field.name for group in (_Cascade, SandboxOptions) for field in fields(group) if field.name != "tests"]
    for option, value, names in (
        ("--tests", cascade.tests, ["costs", *of_tests]),
        ("--calibration", confidence.calibration, ["target"]),
    ):
        if not value and (options := _on_command_line(context, names)):
            raise ConfigError(f"{options} without {option} would do nothing: give {option}, or leave it out")
    for is_set, reason, names in (
        (cascade.keep_order, "--keep-order asks no reward model", ["self_consistency", "calibration", "costs"]),
        (confidence.costs, "--costs chooses, for right tests", ["target", "budget", "generated_tests"]),
    ):
        if is_set and (options := _on_command_line(context, names)):
            raise ConfigError(f"{reason}: leave out {options}")


def _on_command_line(context: Context, names: Sequence[str]) -> str:
    """The options of these parameters that the command line holds."""
    return ", ".join(
        parameter.opts[0]
        for parameter in context.command.params
        if parameter.name in names
        and (source := context.get_parameter_source(parameter.name)) is not None
        and source.name == "COMMANDLINE"
    )


def _strategy(
    ranking: RankingOptions, confidence: _Confidence, cascade: _Cascade
) -> "tuple[CodeScaler, str, CascadeConfig]":
    """The pipeline, the strategy (`rm`, `tests` or `cascade`), and the settings of the cascade."""
    from codescaler_plugin.pipeline import CodeScaler
    from codescaler_plugin.scoring import Unscored
    from codescaler_plugin.selection.calibration import read_calibration
    from codescaler_plugin.selection.cascade import CascadeConfig
    from codescaler_plugin.selection.planning import price_plans, read_plans

    scaler, file = ranking.scaler(), confidence.calibration
    order = ranking.order(scaler)
    calibration = None if file is None else read_calibration(file)
    if calibration is not None and calibration.model != order:
        raise ConfigError(
            f"{file} was fitted for {calibration.model!r}, not {order!r}: make one with codescaler calibrate"
        )
    strategy = "tests" if cascade.keep_order else "cascade" if cascade.tests else "rm"
    target = cascade.target
    if confidence.costs is not None:
        costs = parsed_costs(confidence.costs)
        if file is None:
            raise ConfigError(
                "--costs wants --calibration FILE: codescaler calibrate measures each strategy on your data"
            )
        plans = price_plans(read_plans(file), costs)
        best_of_strategy = {plan.strategy: plan for plan in reversed(plans)}
        print_plans([plan for plan in plans if best_of_strategy[plan.strategy] is plan])
        say(f"expected by {file}, applied: {command_of(plans[0])}")
        strategy, target = plans[0].strategy, plans[0].target or target
    if strategy == "tests":
        scaler = CodeScaler(Unscored(), config=scaler.config)
    return (
        scaler,
        strategy,
        CascadeConfig(calibration, target, budget=cascade.budget, generated=cascade.generated_tests),
    )


def _indexed(problems: Iterable[Problem]) -> Any:
    """The index of the problems, each once, although a file may be given twice."""
    from codescaler_plugin.data.matching import ProblemIndex

    by_id: dict[str, list[Problem]] = {}
    for problem in problems:
        same = by_id.setdefault(problem.id, [])
        if problem not in same:
            same.append(problem)
    return ProblemIndex([problem for same in by_id.values() for problem in same])


def _show(problem: Any, selection: Selection, scaler: "CodeScaler", sink: TextIO) -> None:
    """Print a problem, its candidates and the best program."""
    from rich.syntax import Syntax  # with pygments

    from codescaler_plugin.text.messages import problem_text

    console = Terminal(file=sink)
    text = Text(problem_text(problem, "problem", scaler.template).strip())
    console.print(Panel(text, title="problem", title_align="left", box=box.ROUNDED))
    table = Table(box=box.SIMPLE_HEAD)
    table.add_column("")
    for name in ("candidate", "score", "rank_score", "duplicates"):
        table.add_column(name, justify="right")
    table.add_column("what it is", ratio=1)
    is_tested = any(candidate.verdict is not None for candidate in selection.ranked)
    leaders = [candidate for candidate in selection.ranked if candidate.duplicate_of is None]
    for candidate in leaders[:_SHOWN]:
        is_best = candidate is selection.best
        table.add_row(
            "▶" if is_best else "",
            str(candidate.index),
            "" if candidate.judgement.score is None else f"{candidate.judgement.score:.4f}",
            "" if candidate.rank_score is None else f"{candidate.rank_score:.4f}",
            str(candidate.duplicates or ""),
            Text(_kind(candidate, is_tested=is_tested), overflow="ellipsis", no_wrap=True),
            style="bold green" if is_best else "",
        )
    console.print(table)
    if len(leaders) > _SHOWN:
        console.print(f"and {len(leaders) - _SHOWN} more\n", style="dim")
    if selection.best is not None:
        code = printable(selection.best.judgement.code.rstrip())  # before the highlighter splits it
        syntax = Syntax(code, scaler.config.language, theme="ansi_dark", word_wrap=True)
        title = f"candidate {selection.best.index}"
        console.print(Panel(syntax, title=title, title_align="left", border_style="green", box=box.ROUNDED))
    console.print(f"{selection.outcome}: {selection.explanation}")


def _kind(candidate: Ranked, *, is_tested: bool) -> str:
    """The verdict, or why there is none, or the first line of the code."""
    judgement, verdict = candidate.judgement, candidate.verdict
    if judgement.status != "ok":
        return str(judgement.status)
    if verdict is not None and verdict.fault is not None:
        return f"no verdict ({verdict.fault}): {verdict.detail}"
    if verdict is not None:
        return "passes all tests" if verdict.passed else verdict.detail
    if is_tested:
        return "not run"
    lines = [line.strip() for line in judgement.code.splitlines()]
    return next((line for line in lines if line and not line.startswith(("#", "import ", "from "))), "")
