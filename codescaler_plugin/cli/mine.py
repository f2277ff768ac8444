"""`codescaler mine`."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from itertools import chain, islice
from pathlib import Path
from typing import Annotated, Any

from typer import Exit, Option

from codescaler_plugin.cli.options import Columns, EvaluationSets, Files, Limit, Strict, grouped
from codescaler_plugin.cli.pair_files import PairFiles, PairsFile
from codescaler_plugin.cli.rows import total_rows
from codescaler_plugin.cli.terminal import Closing, Skipped, print_counts, progress_bar, reported, say
from codescaler_plugin.data.columns import NAMES, first_value, parsed_columns
from codescaler_plugin.data.rows import stem
from codescaler_plugin.errors import ConfigError, DataError


@grouped
def mine(
    sources: Files,
    output: PairsFile = Path("pairs.jsonl"),
    pairs_per_problem: Annotated[int, Option(min=1, help="Largest number of pairs per problem.")] = 8,
    hard: Annotated[
        float | None, Option(min=0, max=1, help="Share of near misses aimed at; else as they come.")
    ] = None,
    max_pairs: Annotated[int | None, Option(min=1, help="Largest number of pairs.")] = None,
    held_out: Annotated[float, Option(min=0, max=0.99, help="Chance of each problem to be held out.")] = 0.0,
    held_out_output: Annotated[
        Path | None, Option(help="File of the held-out pairs; else they are in --output, with `split`.")
    ] = None,
    decontaminate: EvaluationSets = None,
    columns: Columns = None,
    limit: Limit = None,
    strict: Strict = False,
    *,
    files: PairFiles,
) -> None:
    """Make preference pairs of a problem's right and wrong programs.

    FILE holds the output of codescaler verify; or pairs, such as
    CodeScalerPair-51K, which are deduplicated, checked, capped and split in the
    same way. With --held-out-output, training and held-out pairs go to two
    files; formats without a column for the split always get two. The report is
    in NAME.report.json, which codescaler augment and the card read.

    Example: codescaler mine verdicts.jsonl --held-out 0.02 --card card

    Exit code: 0 done; 1 an error, or no pairs, or with --strict a bad line; 3
    some rows were skipped.
    """
    from codescaler_plugin.data.pairs import is_pair, pairs_in
    from codescaler_plugin.preference.mining import mine_pairs, refine_pairs

    skipped, closing = Skipped(), Closing()
    with reported():
        if held_out_output is not None and not held_out:
            raise ConfigError(f"{held_out_output} would stay empty: give --held-out SHARE, such as 0.02")
        files.check(output, [*sources, *(decontaminate or ())], held_out_output)
        settings: dict[str, Any] = {"pairs_per_problem": pairs_per_problem, "hard": hard, "max_pairs": max_pairs}
        settings |= {"held_out": held_out, "evaluation": _problem_texts(decontaminate or ()), "seed": files.seed}
        on_bad = None if strict else skipped
        rows = islice(_counted(sources, on_bad, parsed_columns(columns), limit), limit)
        first = next(rows, None)
        if first is None:
            raise DataError(f"{', '.join(sources)}: no rows")
        if is_pair(first[1]):
            pairs, report = refine_pairs(pairs_in(chain([first], rows), on_bad), **settings)
        else:
            pairs, report = mine_pairs((row for _, row in chain([first], rows)), **settings)
        summary: dict[str, Any] = {f"problems: {name}": count for name, count in report.problems.items()}
        summary |= {f"invalid rows: {status}": count for status, count in report.invalid.items()}
        summary |= {f"dropped: {reason}": count for reason, count in report.dropped.items()}
        summary |= {f"pairs: {split}": count for split, count in report.splits.items()}
        summary["near misses among the pairs"] = report.near_misses
        print_counts(f"{report.rows:,} rows gave {len(pairs):,} pairs", summary)
        if not pairs:
            raise DataError(f"no pairs: {report.why_no_pairs()}")
        written = files.write(pairs, output, [asdict(report)], sources, held_out_output)
        if held_out and len(report.splits) == 1:
            say("all pairs are in one split: they are all of one problem", "yellow")
        counts = {"rows read": report.rows, "rows skipped": skipped.count}
        closing.say("mined", len(pairs), "pairs", counts=counts, written=written)
    if skipped.count:
        raise Exit(3)


def _problem_texts(paths: Sequence[str]) -> dict[str, list[str]]:
    """The problems of evaluation sets, by the stem of their files."""
    from codescaler_plugin.data.rollouts import read_problem_texts

    evaluation: dict[str, list[str]] = {}
    for path in paths:
        texts = read_problem_texts(path)
        if not texts:
            raise DataError(f"--decontaminate {path} holds no problems")
        evaluation.setdefault(stem(Path(path).name), []).extend(texts)
    return evaluation


def _counted(
    sources: Sequence[str], on_bad: Callable[[str], None] | None, columns: dict[str, str], limit: int | None
) -> Iterator[tuple[str, dict[str, Any]]]:
    """The rows of all sources with their locations, with a progress bar."""
    from codescaler_plugin.data.rollouts import rows_of

    with progress_bar("reading", total_rows(sources, limit)) as advance:
        for source in sources:
            for _, location, row in rows_of(source, on_bad=on_bad, columns=columns):
                if (problem := first_value(row, NAMES["problem"])) is not None:
                    row.setdefault("problem", problem)
                yield location, row
                advance(1)
