"""Sections of the evaluations of a choice among candidates: best-of-N, calibration, and latency."""

from functools import partial
from itertools import cycle
from typing import Any

from codescaler_plugin.report.plots import COLOURS, SHADE, legend_below, short
from codescaler_plugin.report.sections import (
    MARGIN_NOTE,
    Colours,
    Lines,
    Models,
    Result,
    Section,
    Table,
    cell,
    count,
    decimals,
    doubt,
    gain,
    keys_of,
    percent,
    share,
    side_by_side,
)

_OTHERS = ("random", "shortest", "longest", "oracle")
_MAPS = {"as trained": "the margin's sigmoid", "isotonic": "isotonic", "platt": "Platt"}


def candidates_section(title: str, models: Models, colours: Colours) -> Section:
    """Best-of-N beside its controls and the oracle."""
    first = next(iter(models.values()))
    rows = [
        [
            f"N = {n}",
            *map(cell(share, "table", str(n), "model"), models.values()),
            *(cell(share, "table", str(n), choice)(first) for choice in _OTHERS),
        ]
        for n in _counts(models)
    ]
    findings = []
    for model, result in models.items():
        strongest, line = result["strongest"], result["table"][str(result["max_n"])]
        above, room = line[f"model above {strongest}"], line["oracle"]["value"] - line[strongest]["value"]
        control = "a random choice" if strongest == "random" else f"the {strongest} program, which is the best control"
        of_room = (
            f", {above['value'] / room:.0%} of what a perfect choice would gain" if room > 0 < above["value"] else ""
        )
        findings.append(
            f"{model}: best of {result['max_n']} solves {line['model']['value']:.3f}, {gain(above)} above {control}"
            f"{of_room}{doubt(above)}"
        )
    lines: Lines = [
        ("problems", cell(count, "problems")),
        ("left out, too few candidates", cell(count, "left_out")),
        ("candidates", cell(count, "candidates")),
        ("without valid code", cell(count, "invalid")),
        ("without a score", cell(count, "unscored")),
        ("left out, no verdict of the tests", cell(count, "without_verdict", missing="0")),
        ("pairs of a problem in order", cell(share, "pair_accuracy")),
    ]
    text = (
        "The share of problems whose chosen candidate passes, among N drawn without replacement: the unbiased mean "
        "over all draws. The oracle picks a passing candidate if there is one."
    )
    solved = Table(["", *models, *_OTHERS], rows, "Problems solved")
    plots = [("Problems solved by N", partial(_plot_curves, models=models, colours=colours))]
    return Section(title, text, findings, [solved, side_by_side(models, lines)], plots)


def _counts(models: Models) -> list[int]:
    return sorted(map(int, keys_of(models, "table")))


def _plot_curves(axes: Any, models: Models, colours: Colours) -> None:
    first = next(iter(models.values()))
    for choice, dash in zip(_OTHERS, (":", "-.", "--", "-"), strict=True):
        curve = first["curves"][choice]
        axes.plot(range(1, len(curve) + 1), curve, dash, color=SHADE, label=choice, linewidth=1.8)
    for model, result in models.items():
        curve = result["curves"]["model"]
        axes.plot(range(1, len(curve) + 1), curve, color=colours[model], label=short(model), linewidth=2.4)
        means = [line["model"] for line in result["table"].values()]
        values = [mean["value"] for mean in means]
        below = [max(0.0, mean["value"] - mean["low"]) for mean in means]
        above = [max(0.0, mean["high"] - mean["value"]) for mean in means]
        ns = list(map(int, result["table"]))
        axes.errorbar(ns, values, [below, above], fmt="none", color=colours[model], alpha=0.5, capsize=3)
    counts = _counts(models)
    axes.set_xscale("log", base=2)
    axes.set_xticks(counts, [str(n) for n in counts])
    axes.set(xlabel="N, candidates to choose from", ylabel="problems solved", title="Best of N", ylim=(0, 1))
    axes.legend(ncols=2)


def calibration_section(title: str, models: Models, _: Colours) -> Section:
    """Calibrations of margins."""
    lines: Lines = [
        ("examples", cell(count, "examples")),
        ("problems", cell(count, "problems")),
        ("right", cell(decimals, "accuracy")),
        "Does a threshold carry across problems?",
        ("pairs of one problem in order", cell(decimals, "paired")),
        ("pairs across problems in order", cell(decimals, "pooled")),
    ]
    findings = []
    for model, result in models.items():
        name, best = min(result["methods"].items(), key=lambda item: item[1]["error"])
        margin, reliable = result["margin_for"]["0.9"], result["reliable"]["0.9"]
        interval = f"{reliable['share']:.3f} ({reliable['low']:.3f} to {reliable['high']:.3f})"
        right = f"{interval} right on {reliable['problems']} problems"
        if margin is not None and reliable["low"] >= 0.9:
            finding = f"a margin of {margin:.2f} or more is 90% reliable: {right} not fitted on"
        elif reliable["examples"]:
            taken = f"of {result['examples']} examples {reliable['examples']} would be taken for it"
            finding = f"no margin is shown to be 90% reliable: {taken}, {right}"
        else:
            taken = f"none of {result['examples']} examples would be taken for it"
            finding = f"no margin is shown to be 90% reliable: {taken}"
        off = f"probabilities by {_MAPS.get(name, name)} are off by {best['error']:.3f} on average"
        findings.append(f"{model}: {finding}; {off}.")
    text = (
        "From a margin to the probability that the program in front is right. All numbers are of problems that the "
        "map was not fitted on. The share right counts each problem once, with Wilson's 95% interval. " + MARGIN_NOTE
    )
    tables = [side_by_side(models, lines)]
    for model, result in models.items():
        tables += [_maps(model, result), _margins(model, result)]
    plots = [
        (f"Reliability: {model}", partial(_plot_reliability, model=model, result=result))
        for model, result in models.items()
    ]
    return Section(title, text, findings, tables, plots)


def _maps(model: str, result: Result) -> Table:
    rows = [
        [_MAPS.get(name, name), f"{method['error']:.3f}", f"{method['brier']:.3f}"]
        for name, method in result["methods"].items()
    ]
    head = ("map to a probability", "calibration error", "Brier score")
    return Table(head, rows, f"{model}: how far the probabilities are off")


def _margins(model: str, result: Result) -> Table:
    rows = []
    for probability, margin in result["margin_for"].items():
        reliable = result["reliable"][probability]
        measured = ["-", "-"]
        if reliable["examples"]:
            measured = [f"{reliable['share']:.3f}", f"{reliable['low']:.3f} to {reliable['high']:.3f}"]
        needed = "never reached" if margin is None else f"{margin:.3f}"
        rows.append([probability, needed, *measured, f"{reliable['problems']:,}"])
    head = ("probability", "needs a margin of", "share right", "95% interval", "problems")
    return Table(head, rows, f"{model}: margins, and what came of them")


def _plot_reliability(axes: Any, model: str, result: Result) -> None:
    axes.plot([0, 1], [0, 1], color="black", linestyle=":", linewidth=1)
    for (name, method), colour in zip(result["methods"].items(), (SHADE, *COLOURS), strict=False):
        probabilities, right = ([bin_[key] for bin_ in method["bins"]] for key in ("probability", "right"))
        axes.plot(probabilities, right, color=colour, label=f"{name} ({method['error']:.3f})")
        sizes = [8 + 150 * bin_["count"] / result["examples"] for bin_ in method["bins"]]  # few examples, small dot
        axes.scatter(probabilities, right, sizes, color=colour)
    axes.set(xlim=(0, 1), ylim=(0, 1.02), xlabel="probability said (in brackets: error)", ylabel="share right")
    axes.set_title(short(model))
    legend_below(axes, 3)


def latency_section(title: str, models: Models, colours: Colours) -> Section:
    """Time and accuracy of the strategies, as `benchmarks/bench_latency.py` measures them."""
    head = ("strategy", "accuracy", "wall ms p50", "p95", "CPU ms p50", "p95", "programs run", "runs that time out")
    tables, findings = [], []
    for model, result in models.items():
        rows = []
        for strategy, row in result["strategies"].items():
            timeouts = cell(percent, "share_of_runs_that_time_out")(row)
            times = [
                f"{row[f'{clock}_ms_{percentile}']:.1f}" for clock in ("wall", "cpu") for percentile in ("p50", "p95")
            ]
            rows.append([strategy, f"{row['accuracy']:.3f}", *times, f"{row['programs_run']:.2f}", timeouts])
        tables.append(Table(head, rows, f"A problem with {model}"))
        alone, multiples = result["strategies"]["reward model"], result["multiple_of_reward_model"]["cpu"]
        findings += [
            f"{model}: {row['accuracy']:.3f} solved by {strategy}, in {multiples[strategy]['median']:.2f} times the "
            f"CPU of the reward model alone, which solves {alone['accuracy']:.3f} (the median problem)."
            for strategy, row in result["strategies"].items()
            if strategy != "reward model"
        ]
    conditions = []
    for name in keys_of(models, "conditions"):
        values = [result["conditions"].get(name, "-") for result in models.values()]
        conditions.append([name.replace("_", " "), *("none" if value is None else str(value) for value in values)])
    tables.append(Table(["condition", *models], conditions, "Conditions"))
    text = (
        "The best of the same candidates, a problem at a time: by the reward model alone, by tests in the order given "
        "until one passes, and by a cascade. Below 1 times, tests are the faster ones. The paper states 10x lower "
        "latency than unit tests; its protocol is not public, and that figure is the paper's."
    )
    plots = [("Accuracy by CPU time", partial(_plot_costs, models=models, colours=colours))]
    return Section(title, text, findings, tables, plots)


def _plot_costs(axes: Any, models: Models, colours: Colours) -> None:
    markers = dict(zip(keys_of(models, "strategies"), cycle("osD^"), strict=False))
    for model, result in models.items():
        for strategy, row in result["strategies"].items():
            label = strategy if len(models) == 1 else f"{short(model)}: {strategy}"
            milliseconds = max(row["cpu_ms_mean"], 0.01)  # as the figures are rounded; a log axis has no 0
            axes.plot(
                milliseconds, row["accuracy"], markers[strategy], color=colours[model], markersize=8, label=label
            )
    axes.set_xscale("log")
    axes.set(xlabel="CPU ms a problem, mean", ylabel="problems solved", title="What a choice costs", ylim=(0, 1.02))
    axes.legend(loc="best", fontsize="small")
