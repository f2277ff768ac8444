"""`codescaler verify`, `mine` and `augment`: from rollouts to preference pairs."""

import json
import shlex
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from itertools import chain
from pathlib import Path
from typing import Annotated, Any

import typer

from codescaler_plugin.cli.options import grouped
from codescaler_plugin.cli.sandbox_options import ProblemFormat, SandboxOptions, Service, print_faults
from codescaler_plugin.cli.terminal import (
    Skipped,
    errors,
    number_table,
    print_counts,
    progress_bar,
    rate_bar,
    reported,
    say,
)
from codescaler_plugin.data.outputs import check_output, write_text
from codescaler_plugin.data.rows import stem
from codescaler_plugin.errors import ConfigError, DataError

_Seed = Annotated[int, typer.Option(help="The same input and seed give the same pairs.")]
_Columns = Annotated[str, typer.Option("--format", help="Columns: pairs, codescaler, trl or openrlhf.")]
_Card = Annotated[Path | None, typer.Option(help="Folder for a data card: page, plots, JSON.")]
_Predictor = Annotated[str | None, typer.Option(help="Causal model whose log-probability the card tries too.")]
_Strict = Annotated[bool, typer.Option("--strict", help="Stop at the first bad line.")]
_Pairs = Annotated[Path, typer.Option(help="File of pairs: .jsonl, .jsonl.gz or .parquet.")]


@grouped
def verify(
    source: Annotated[str, typer.Argument(metavar="ROLLOUTS", help="File, folder or hub id.")],
    problems: Annotated[list[str], typer.Option(metavar="FILE", help="Problems with tests; repeatable.")],
    output: Annotated[Path, typer.Option(help="Verdicts, JSONL; a run that was stopped goes on here.")] = Path(
        "verdicts.jsonl"
    ),
    extraction: Annotated[
        str, typer.Option(help="The code: single, last, first or bare block; continue: problem + completion.")
    ] = "single",
    format_: Annotated[
        str, typer.Option("--format", help="Of the rollouts: auto, trl, openrlhf, verl, recipe or jsonl.")
    ] = "auto",
    prompt_template: Annotated[
        str | None, typer.Option(help="The policy's tokenizer or Jinja file, for prompts of an unknown template.")
    ] = None,
    once: Annotated[bool, typer.Option("--once", help="No second run of what passed, so no mark on luck.")] = False,
    skip_unknown: Annotated[
        bool, typer.Option("--skip-unknown", help="Leave out rollouts of problems that are not given.")
    ] = False,
    strict: _Strict = False,
    problem_format: ProblemFormat = "auto",
    *,
    tests: SandboxOptions,
    executor: Service = None,
) -> None:
    """Run each rollout's code against its problem's tests.

    Each output line is the rollout with code, status, passed, tests_passed,
    tests_total, detail, seconds, flaky, fault, comparison and in_process. With
    a fault there is no verdict: the program is not known to be wrong, and the
    summary names the next step. The code runs in a sandbox: no network, no
    files of yours, bounded time, memory and processes; what this machine cannot
    enforce is said at the start. With --executor it runs on a service.

    Stopped at any point, the same command goes on where it ended.

    Exit code: 0 done; 1 an error, with --strict a bad line; 3 some rows were
    skipped.
    """
    from codescaler_plugin.data.rollouts import read_rollouts
    from codescaler_plugin.data.rows import count_rows
    from codescaler_plugin.preference.verification import verify_rollouts
    from codescaler_plugin.text.derivation import template_of

    skipped = Skipped()
    settings = tests.settings
    if executor is not None:
        settings["executor"] = "service"  # not its address, which may be another one tomorrow
    with reported():
        check_output(output, [source, *problems])
        template = template_of(prompt_template) if prompt_template is not None else None
        given = tests.problems(problems, problem_format, None if strict else skipped)
        with (
            tests.executors(second_run=not once, service=executor) as (first, second),
            rate_bar("verifying", count_rows(Path(source))) as advance,
        ):
            report = verify_rollouts(
                read_rollouts(source, format_, on_bad=None if strict else skipped, template=template),
                given,
                output,
                executor=first,
                second=second,
                extraction=extraction,
                settings=settings,
                skip_unknown=skip_unknown,
                progress=advance,
            )
        summary = {f"status {status}": count for status, count in report.statuses.most_common()}
        summary |= {"passed": report.passed, "passed once, not twice (flaky)": report.flaky}
        summary |= {f"failed: {kind}": count for kind, count in report.failures.most_common(8)}
        summary |= {f"no verdict: {fault}": count for fault, count in report.faults.most_common()}
        summary |= {f"compared by {name}": count for name, count in report.comparisons.most_common()}
        summary["graded in the program's own process"] = report.in_process
        summary["left out, problem unknown"] = report.unknown
        summary["skipped rows"] = skipped.count
        print_counts(
            f"{report.rows:,} rollouts verified, {report.resumed:,} of them before; {report.executed:,} programs run",
            summary,
        )
        print_faults(report.faults, report.examples, "run again into another output")
    if skipped.count or report.unknown:
        raise typer.Exit(3)


def mine(
    sources: Annotated[
        list[str], typer.Argument(metavar="FILE...", help="Verdicts, or pairs; files, folders, hub ids.")
    ],
    output: _Pairs = Path("pairs.jsonl"),
    pairs_per_problem: Annotated[int, typer.Option(min=1, help="Pairs of a problem at most.")] = 8,
    hard: Annotated[
        float | None, typer.Option(min=0, max=1, help="Share of near misses aimed at; else as they come.")
    ] = None,
    max_pairs: Annotated[int | None, typer.Option(min=1, help="Pairs at most.")] = None,
    held_out: Annotated[float, typer.Option(min=0, max=0.99, help="Chance of each problem to be held out.")] = 0.0,
    held_out_output: Annotated[
        Path | None, typer.Option(help="File of the held-out pairs; else they share --output, told by `split`.")
    ] = None,
    decontaminate: Annotated[
        list[str] | None, typer.Option(metavar="FILE", help="Evaluation set whose problems are removed; repeatable.")
    ] = None,
    seed: _Seed = 0,
    columns: _Columns = "pairs",
    card: _Card = None,
    model: _Predictor = None,
) -> None:
    """Make preference pairs of verdicts: of a problem, right against wrong programs.

    FILE holds what `codescaler verify` wrote; or pairs, such as
    CodeScalerPair-51K, which are then deduplicated, checked, capped and split
    in the same way. With --held-out-output, training and held-out pairs go to
    two files; formats without a column for the split always get two. The report
    is in NAME.report.json, which `codescaler augment` and the card read.

    Exit code: 0 done; 1 an error, or no pairs; 3 some rows were skipped.
    """
    from codescaler_plugin.data.pairs import is_pair, pairs_in, write_pairs
    from codescaler_plugin.data.rollouts import read_problem_texts
    from codescaler_plugin.preference.mining import mine_pairs, refine_pairs

    skipped = Skipped()
    with reported():
        if held_out_output is not None and not held_out:
            raise ConfigError(f"{held_out_output} would stay empty: give --held-out SHARE, such as 0.02")
        _check_outputs(output, columns, [*sources, *(decontaminate or ())], card, model, held_out_output)
        evaluation: dict[str, list[str]] = {}
        for path in decontaminate or ():
            texts = read_problem_texts(path)
            if not texts:
                raise DataError(f"--decontaminate {path} holds no problems")
            evaluation.setdefault(stem(Path(path).name), []).extend(texts)
        rows = _counted(sources, skipped)
        first = next(rows, None)
        if first is None:
            raise DataError(f"{', '.join(sources)}: no rows")
        settings: dict[str, Any] = {"pairs_per_problem": pairs_per_problem, "hard": hard, "max_pairs": max_pairs}
        settings |= {"held_out": held_out, "evaluation": evaluation, "seed": seed}
        if is_pair(first[1]):
            made, report = refine_pairs(pairs_in(chain([first], rows), skipped), **settings)
        else:
            made, report = mine_pairs((row for _, row in chain([first], rows)), **settings)
        summary: dict[str, Any] = {f"problems: {name}": count for name, count in report.problems.items()}
        summary |= {f"invalid rows: {status}": count for status, count in report.invalid.items()}
        summary |= {f"dropped: {reason}": count for reason, count in report.dropped.items()}
        summary |= {f"pairs: {split}": count for split, count in report.splits.items()}
        summary["near misses among the pairs"] = report.near_misses
        print_counts(f"{report.rows:,} rows gave {len(made):,} pairs", summary)
        if not made:
            raise DataError(f"no pairs: {report.why_no_pairs()}")
        files = write_pairs(made, output, columns, held_out=held_out_output)
        if held_out and len(report.splits) == 1:
            say("all pairs are in one split: they are all of one problem", "yellow")
        _finish(made, output, files, [asdict(report)], sources, card, model)
    if skipped.count:
        raise typer.Exit(3)


@grouped
def augment(
    source: Annotated[str, typer.Argument(metavar="PAIRS", help="Pairs, in any format; file, folder or hub id.")],
    output: _Pairs = Path("augmented.jsonl"),
    problems: Annotated[
        list[str] | None, typer.Option(metavar="FILE", help="Problems with tests; repeatable.")
    ] = None,
    kind: Annotated[
        list[str] | None, typer.Option(metavar="KIND=SHARE", help="What to make, in shares of the given pairs.")
    ] = None,
    seed: _Seed = 0,
    columns: _Columns = "pairs",
    trust_unaligned: Annotated[
        bool, typer.Option("--trust-unaligned", help="Unaligned pairs also where there are no tests.")
    ] = False,
    strict: _Strict = False,
    card: _Card = None,
    model: _Predictor = None,
    problem_format: ProblemFormat = "auto",
    *,
    tests: SandboxOptions,
    executor: Service = None,
) -> None:
    """Add pairs of other kinds, each confirmed by running both of its programs.

    unaligned: the wrong side solves another problem (paper; 0.3 inferred).

    operator, off_by_one, condition, return, bound, dropped_statement,
    truncated, stub: the wrong side is the right one with one such change.

    padding, praise, dead_code, rename, reformat: both sides are written anew
    alike, the label stays.

    Default: --kind unaligned=0.3. A program that does not turn out as its kind
    claims is dropped and counted. Python only; other pairs pass through.

    Exit code: 0 done; 1 an error; 3 some kinds have fewer pairs than wanted, or
    rows of problems were skipped.
    """
    from codescaler_plugin.data.pairs import read_pairs, write_pairs
    from codescaler_plugin.preference.augmentation import DEFAULT_KINDS, augment_pairs, checked_kinds

    skipped = Skipped()
    with reported():
        kinds = checked_kinds(dict(map(_share, kind)) if kind else DEFAULT_KINDS)
        _check_outputs(output, columns, [source, *(problems or ())], card, model)
        pairs = list(read_pairs(source))
        tested = tests.problems(problems or (), problem_format, None if strict else skipped)
        with (
            progress_bar("making pairs") as advance,
            tests.executors(service=executor) as (runner, _),
        ):
            made, report = augment_pairs(
                pairs,
                tested,
                kinds=kinds,
                seed=seed,
                trust_unaligned=trust_unaligned,
                executor=runner,
                progress=advance,
            )
        _print_kinds(report.kinds)
        errors.print(
            f"{len(pairs):,} pairs became {len(made):,}. Programs run: {report.executed:,}. Pairs without tests here: "
            f"{report.no_tests:,}; not in Python: {report.not_python:,}."
            + (" Give their problems by --problems FILE, or --trust-unaligned." if report.no_tests else ""),
        )
        files = write_pairs(made, output, columns)
        before = _report_file(Path(source))
        earlier = json.loads(before.read_text(encoding="utf-8")) if before.is_file() else []
        _finish(made, output, files, [*earlier, asdict(report)], [source, *(problems or ())], card, model)
    if skipped.count or any(counts["made"] < counts["wanted"] for counts in report.kinds.values()):
        raise typer.Exit(3)


def _print_kinds(kinds: Mapping[str, Mapping[str, int]]) -> None:
    first = ("wanted", "made", "does not apply", "still passes")
    others = sorted({what for counts in kinds.values() for what in counts} - {*first})
    table = number_table("kind", *first, *others)
    for name, counts in kinds.items():
        table.add_row(name, *(f"{counts.get(what, 0):,}" for what in (*first, *others)))
    errors.print(table)


def _share(option: str) -> tuple[str, float]:
    name, _, share = option.partition("=")
    try:
        return name, float(share)
    except ValueError:
        raise ConfigError(f"--kind is {option!r}: expected KIND=SHARE, such as unaligned=0.3") from None


def _report_file(pairs: Path) -> Path:
    return pairs.with_name(f"{stem(pairs.name)}.report.json")


def _check_outputs(
    output: Path,
    columns: str,
    inputs: Sequence[str],
    card: Path | None,
    model: str | None,
    held_out: Path | None = None,
) -> None:
    """What could not be written after the work, or measured for the card; and that no input is written over."""
    from codescaler_plugin.data.pairs import output_files
    from codescaler_plugin.preference.baselines import check_causal_model
    from codescaler_plugin.preference.data_card import check_card

    for file in [*output_files(output, columns, held_out), _report_file(output)]:
        check_output(file, inputs)
    if card is not None:
        check_card(card, inputs)
        if model is not None:
            check_causal_model(model)


def _finish(
    pairs: Sequence[Any],
    output: Path,
    files: list[Path],
    reports: list[dict[str, Any]],
    inputs: Sequence[str],
    card: Path | None,
    model: str | None,
) -> None:
    """The report beside the pairs, and the card if one is asked for."""
    reports = [*reports[:-1], {"command": shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]), **reports[-1]}]
    write_text(_report_file(output), json.dumps(reports, indent=2) + "\n")
    written = [str(file) for file in files]
    if card is not None:
        from codescaler_plugin.preference.data_card import write_data_card

        page = write_data_card(pairs, card, reports=reports, inputs=[*map(Path, inputs)], outputs=files, model=model)
        written.append(str(page))
    say(f"wrote {', '.join(written)}")


def _counted(sources: Sequence[str], on_bad: Callable[[str], None]) -> Iterator[tuple[str, dict[str, Any]]]:
    """The rows of all sources with their places, with a progress bar at a terminal."""
    from codescaler_plugin.data.rollouts import rows_of

    with rate_bar("reading", None) as advance:
        for source in sources:
            for _, place, row in rows_of(source, on_bad=on_bad):
                yield place, row
                advance(1)
