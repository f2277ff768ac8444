"""`codescaler calibrate`."""

from pathlib import Path
from typing import Annotated

from typer import Exit, Option

from codescaler_plugin.cli.candidates import GROUPS, CandidateReader, RankingOptions
from codescaler_plugin.cli.costs import CostsOption, command_of, parsed_costs, print_plans
from codescaler_plugin.cli.options import Source, Strict, grouped
from codescaler_plugin.cli.terminal import hide_loading_bars, reported, say
from codescaler_plugin.data.outputs import check_output, write_text
from codescaler_plugin.data.rows import chunked
from codescaler_plugin.errors import ConfigError
from codescaler_plugin.extras import require
from codescaler_plugin.selection.records import Selection


@grouped
def calibrate(
    source: Source = "-",  # type: ignore[assignment]
    *,
    ranking: RankingOptions,
    output: Annotated[Path | None, Option(help="File of the calibration, for codescaler rank.")] = None,
    costs: CostsOption = None,
    strict: Strict = False,
) -> None:
    """Fit the probability that the first candidate is right.

    Input as for codescaler rank, with `passed` for each completion: the
    verdicts of tests, as from codescaler verify. The calibration holds for the
    same model, options and number of candidates. It notes the accuracy of each
    way to select (reward model, tests, or both); with --costs, the cheapest way
    is printed, and --output may be left out.

    Example: codescaler calibrate verdicts.jsonl --output calibration.json

    Exit code: 0 done; 1 an error, or with --strict a bad line; 3 some lines
    were skipped.
    """
    from codescaler_plugin.selection.planning import fit_margins, measure_plans, price_plans, with_plans

    hide_loading_bars()
    with reported():
        if output is None and costs is None:
            raise ConfigError("nothing to do: give --output FILE, --costs SCORE,TEST,WRONG, or both")
        if output is not None:
            check_output(output, [source])
        require("calibrate", "report", "sklearn")
        prices = None if costs is None else parsed_costs(costs)
        scaler = ranking.scaler()
        reader = CandidateReader(source, strict, scaler.template, labelled=True)
        labelled: list[tuple[Selection, list[bool]]] = []
        for chunk in chunked(reader, GROUPS):
            rows = [row for row, _ in chunk]
            labelled += zip(ranking.rank(scaler, rows), (row["passed"] for row in rows), strict=True)
        plans = measure_plans(labelled)
        if output is not None:
            calibration = fit_margins(labelled, model=ranking.order(scaler))
            write_text(output, with_plans(calibration, plans) + "\n")
            say(f"wrote {output}: {calibration.right:g} of {calibration.examples} first programs are right")
        if prices is not None:
            plans = price_plans(plans, prices)
            print_plans(plans)
            say(f"cheapest: {command_of(plans[0])}")
    if reader.has_skipped:
        raise Exit(3)
