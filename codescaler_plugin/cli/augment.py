"""`codescaler augment`."""

import json
from collections.abc import Mapping
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import Annotated, Any

from typer import Exit, Option

from codescaler_plugin.cli.options import Columns, Limit, Pairs, Strict, Tests, grouped
from codescaler_plugin.cli.pair_files import PairFiles, PairsFile, report_file
from codescaler_plugin.cli.sandbox_options import ProblemFormat, SandboxOptions, Service
from codescaler_plugin.cli.terminal import Closing, Skipped, errors, number_table, progress_bar, reported
from codescaler_plugin.data.columns import parsed_columns
from codescaler_plugin.errors import ConfigError


@grouped
def augment(
    source: Pairs,
    output: PairsFile = Path("augmented.jsonl"),
    tests: Tests = None,
    kind: Annotated[
        list[str] | None, Option(metavar="KIND=SHARE", help="Kind to add, as a share of the given pairs.")
    ] = None,
    trust_unaligned: Annotated[
        bool, Option("--trust-unaligned", help="Unaligned pairs also where there are no tests.")
    ] = False,
    columns: Columns = None,
    limit: Limit = None,
    strict: Strict = False,
    *,
    files: PairFiles,
    problem_format: ProblemFormat = "auto",
    sandbox: SandboxOptions,
    executor: Service = None,
) -> None:
    """Add pairs of other kinds, each confirmed by running both programs.

    unaligned: the wrong side solves another problem (paper; 0.3 inferred).

    operator, off_by_one, condition, return, bound, dropped_statement,
    truncated, stub: the wrong side is the right one with one such change.

    padding, praise, dead_code, rename, reformat: both sides are rewritten
    alike, and the label stays.

    Default: --kind unaligned=0.3. A program that turns out otherwise than its
    kind claims is dropped and counted. Python only; other pairs pass through.

    Example: codescaler augment pairs.jsonl --tests problems.jsonl

    Exit code: 0 done; 1 an error; 3 some kinds have fewer pairs than asked for,
    or rows of problems were skipped.
    """
    from codescaler_plugin.data.pairs import read_pairs
    from codescaler_plugin.preference.augmentation import DEFAULT_KINDS, augment_pairs, checked_kinds

    skipped, closing = Skipped(), Closing()
    inputs = [source, *(tests or ())]
    with reported():
        kinds = checked_kinds(dict(map(_share, kind)) if kind else DEFAULT_KINDS)
        files.check(output, inputs)
        pairs = list(islice(read_pairs(source, columns=parsed_columns(columns)), limit))
        tested = sandbox.problems(tests or (), problem_format, None if strict else skipped)
        done = 0

        def show(made: int, _: int) -> None:
            nonlocal done
            advance(made - done)
            done = made

        total = sum(round(share * len(pairs)) for share in kinds.values())
        with progress_bar("making pairs", total) as advance, sandbox.executors(service=executor) as (runner, _):
            settings: dict[str, Any] = {"kinds": kinds, "seed": files.seed, "trust_unaligned": trust_unaligned}
            augmented, report = augment_pairs(pairs, tested, **settings, executor=runner, progress=show)
        _print_kinds(report.kinds)
        errors.print(
            f"{len(pairs):,} pairs became {len(augmented):,}. Programs run: {report.executed:,}. Pairs without tests "
            f"here: {report.no_tests:,}; not in Python: {report.not_python:,}."
            + (" Give their problems by --tests FILE, or --trust-unaligned." if report.no_tests else "")
        )
        before = report_file(Path(source))
        earlier = json.loads(before.read_text(encoding="utf-8")) if before.is_file() else []
        written = files.write(augmented, output, [*earlier, asdict(report)], inputs)
        counts = {"given": len(pairs), "added": len(augmented) - len(pairs), "rows skipped": skipped.count}
        closing.say("made", len(augmented), "pairs", counts=counts, written=written)
    if skipped.count or any(counts["made"] < counts["wanted"] for counts in report.kinds.values()):
        raise Exit(3)


def _print_kinds(kinds: Mapping[str, Mapping[str, int]]) -> None:
    first = ("wanted", "made", "does not apply", "still passes")
    others = sorted({name for counts in kinds.values() for name in counts} - {*first})
    table = number_table("kind", *first, *others)
    for kind, counts in kinds.items():
        table.add_row(kind, *(f"{counts.get(name, 0):,}" for name in (*first, *others)))
    errors.print(table)


def _share(option: str) -> tuple[str, float]:
    name, _, share = option.partition("=")
    try:
        return name, float(share)
    except ValueError:
        raise ConfigError(f"--kind is {option!r}: expected KIND=SHARE, such as unaligned=0.3") from None
