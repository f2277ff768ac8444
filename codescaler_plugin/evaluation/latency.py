"""Time and accuracy of ways to choose among candidates, as `benchmarks/bench_latency.py` measures them."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from itertools import cycle
from typing import Any, Self

from codescaler_plugin.evaluation.cells import Models, decimals, known, names_of, percent
from codescaler_plugin.evaluation.result import Colours, Result
from codescaler_plugin.report.plots import log_axis, short
from codescaler_plugin.report.sections import Plot, Section, Table

ALONE = "reward model"  # the strategy that the others are compared with


@dataclass(frozen=True)
class Times:
    """Milliseconds a problem: median, 95th percentile, and mean."""

    p50: float
    p95: float
    mean: float


@dataclass(frozen=True)
class Multiple:
    """Time over that of the reward model alone: the median over problems, and of the means."""

    median: float
    of_means: float


@dataclass(frozen=True)
class Strategy:
    """Costs and results of one strategy.

    Attributes:
        accuracy: share of problems whose choice is right.
        wall: wall time.
        cpu: CPU time of all processes.
        programs_run: programs that tests ran, a problem.
        timeouts: share of runs that time out. None if nothing was run.
        wall_multiple: wall time over that of the reward model alone. None of the reward model itself.
        cpu_multiple: the same of CPU time.
    """

    accuracy: float
    wall: Times
    cpu: Times
    programs_run: float
    timeouts: float | None
    wall_multiple: Multiple | None = None
    cpu_multiple: Multiple | None = None


@dataclass(frozen=True)
class LatencyResult(Result):
    """Time and accuracy of the strategies, and the conditions of the comparison.

    Attributes:
        strategies: by name; `reward model` is the one that the others are compared with.
        conditions: what a reader must know to compare, by name.

    Example:
        >>> times = Times(p50=2.0, p95=3.0, mean=2.1)
        >>> result = LatencyResult({"reward model": Strategy(0.7, times, times, 0.0, None)}, {"gpu": None})
        >>> LatencyResult.from_json(result.to_json()) == result
        True
    """

    evaluation = "latency"
    heading = "Latency"

    strategies: dict[str, Strategy]
    conditions: dict[str, str | int | float | None]

    @classmethod
    def compare(cls, title: str, models: Mapping[str, Self], colours: Colours) -> Section:
        """A table for each model, and the conditions side by side."""
        tables = [_costs(model, result) for model, result in models.items()]
        conditions = []
        for name in names_of(result.conditions for result in models.values()):
            values = [result.conditions.get(name, "-") for result in models.values()]
            conditions.append([name.replace("_", " "), *("none" if value is None else str(value) for value in values)])
        tables.append(Table(["condition", *models], conditions, "Conditions"))
        findings = [
            f"{model}: {strategy.accuracy:.3f} solved by {name}, in {strategy.cpu_multiple.median:.2f} times the "
            f"CPU of the reward model alone, which solves "
            f"{result.strategies[ALONE].accuracy:.3f} (the median problem)."
            for model, result in models.items()
            for name, strategy in result.strategies.items()
            if strategy.cpu_multiple is not None
        ]
        text = (
            "The best of the same candidates, a problem at a time: by the reward model alone, by tests in the order "
            "given until one passes, and by a cascade. Below 1 times, tests are the faster ones. The paper states 10x "
            "lower latency than unit tests; its protocol is not public, and that figure is the paper's."
        )
        plots = [Plot("Accuracy by CPU time", partial(_plot_costs, models=models, colours=colours))]
        return Section(title, text, findings, tables, plots)


def _costs(model: str, result: LatencyResult) -> Table:
    head = ("strategy", "accuracy", "wall ms p50", "p95", "CPU ms p50", "p95", "programs run", "runs that time out")
    rows = []
    for name, strategy in result.strategies.items():
        times = [f"{value:.1f}" for clock in (strategy.wall, strategy.cpu) for value in (clock.p50, clock.p95)]
        timeouts = known(percent, strategy.timeouts)
        rows.append([name, decimals(strategy.accuracy), *times, f"{strategy.programs_run:.2f}", timeouts])
    return Table(head, rows, f"A problem with {model}")


def _plot_costs(axes: Any, models: Models[LatencyResult], colours: Colours) -> None:
    markers = dict(zip(names_of(result.strategies for result in models.values()), cycle("osD^"), strict=False))
    for model, result in models.items():
        for name, strategy in result.strategies.items():
            label = name if len(models) == 1 else f"{short(model)}: {name}"
            milliseconds = max(strategy.cpu.mean, 0.01)  # as the figures are rounded; a log axis has no 0
            axes.plot(milliseconds, strategy.accuracy, markers[name], color=colours[model], markersize=8, label=label)
    log_axis(axes)
    axes.set(xlabel="CPU ms a problem, mean", ylabel="problems solved", title="What a choice costs", ylim=(0, 1.02))
    axes.legend(loc="best", fontsize="small")
