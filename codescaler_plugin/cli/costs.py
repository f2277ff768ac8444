"""`--costs` of `rank` and `calibrate`: the cheapest strategy."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

from typer import Option

from codescaler_plugin.cli.terminal import errors, number_table
from codescaler_plugin.errors import ConfigError

if TYPE_CHECKING:
    from codescaler_plugin.selection.planning import Costs, Plan

CostsOption = Annotated[
    str | None,
    Option(
        metavar="SCORE,TEST,WRONG",
        help="Costs of scoring a candidate, testing a program, and a wrong choice; for the cheapest strategy.",
    ),
]


def parsed_costs(text: str) -> "Costs":
    """The costs of an option: three finite numbers of at least 0."""
    from codescaler_plugin.selection.planning import Costs

    try:
        score, test, wrong = map(float, text.split(","))
    except ValueError:
        raise ConfigError(f"--costs is {text!r}: expected three numbers, such as 0.02,0.3,60") from None
    return Costs(score, test, wrong)


def print_plans(plans: "Sequence[Plan]") -> None:
    """Print a table of plans on stderr, the first of them as the best."""
    table = number_table("strategy", "target", "accuracy", "programs run", "cost a problem")
    for number, plan in enumerate(plans):
        target = "" if plan.target is None else "always test" if plan.target > 1 else f"{plan.target:g}"
        table.add_row(
            plan.strategy,
            target,
            f"{plan.accuracy:.1%}",
            f"{plan.executions:.2f}",
            f"{plan.cost:.4g}",
            style="bold green" if number == 0 else "",
        )
    errors.print(table)


def command_of(plan: "Plan") -> str:
    """The command that selects as a plan says."""
    if plan.strategy == "rm":
        return "codescaler rank without --tests"
    if plan.strategy == "tests":
        return "codescaler rank --tests FILE --keep-order"
    confidence = "" if plan.target is None or plan.target > 1 else f" --calibration FILE --target {plan.target:g}"
    return f"codescaler rank --tests FILE{confidence}"
