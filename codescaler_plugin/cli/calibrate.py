"""`codescaler calibrate`."""

from functools import partial
from pathlib import Path
from typing import Annotated

from typer import Exit, Option

from codescaler_plugin.cli.candidates import GROUPS, CandidateReader, RankingOptions
from codescaler_plugin.cli.costs import CostsOption, command_of, parsed_costs, print_plans
from codescaler_plugin.cli.options import Columns, Limit, Source, Strict, grouped
from codescaler_plugin.cli.rows import RowReader, opened
from codescaler_plugin.cli.terminal import Closing, load_model, reported, say
from codescaler_plugin.data.outputs import check_output, write_text
from codescaler_plugin.data.rows import chunked
from codescaler_plugin.errors import ConfigError
from codescaler_plugin.extras import require
from codescaler_plugin.selection.records import Selection


@grouped
def calibrate(
    source: Source = "-",
    *,
    ranking: RankingOptions,
    output: Annotated[Path | None, Option(help="File of the calibration, for codescaler rank.")] = None,
    costs: CostsOption = None,
    columns: Columns = None,
    limit: Limit = None,
    strict: Strict = False,
) -> None:
    """Fit the probability that the first candidate is right.

    Input as for codescaler rank, with `passed` for each completion: the
    verdicts of tests, as from codescaler verify. The calibration holds for the
    same model, options and number of candidates. It notes the accuracy of each
    strategy (reward model, tests, or both); with --costs, the cheapest strategy
    is printed, and --output may be left out.

    Example: codescaler calibrate verdicts.jsonl --output calibration.json

    Exit code: 0 done; 1 an error, or with --strict a bad line; 3 some lines
    were skipped.
    """
    from codescaler_plugin.selection.planning import fit_margins, measure_plans, price_plans, with_plans

    closing = Closing()
    with reported():
        if output is None and costs is None:
            raise ConfigError("nothing to do: give --output FILE, --costs SCORE,TEST,WRONG, or both")
        if output is not None:
            check_output(output, [opened(source)])
        require("calibrate", "report", "sklearn")
        prices = None if costs is None else parsed_costs(costs)
        scaler = ranking.scaler()
        rows = RowReader(source, "scoring", "problem", columns, limit, strict, scaler.template)
        rows.prepare = partial(load_model, scaler)
        reader = CandidateReader(rows, labelled=True)
        labelled: list[tuple[Selection, list[bool]]] = []
        for groups in chunked(reader, GROUPS):
            labelled += zip(ranking.rank(scaler, groups), (group.passed for group in groups), strict=True)
        plans = measure_plans(labelled)
        right = {}
        if output is not None:
            calibration = fit_margins(labelled, model=ranking.order(scaler))
            write_text(output, with_plans(calibration, plans) + "\n")
            right = {"first programs right": round(calibration.right)}
        if prices is not None:
            plans = price_plans(plans, prices)
            print_plans(plans)
            say(f"cheapest: {command_of(plans[0])}")
    counts, total = {**right, "skipped": rows.skipped.count}, len(labelled) + rows.skipped.count
    closing.say("calibrated on", len(labelled), "problems", of=total, counts=counts, written=[output])
    if rows.skipped.count:
        raise Exit(3)
