"""Sections of the evaluations on pairs: accuracy beside its controls, RM-Bench, and robustness."""

from functools import partial
from typing import Any

from codescaler_plugin.evaluation.pairwise import SCORE_GAPS, bin_names
from codescaler_plugin.evaluation.rm_bench import STYLES
from codescaler_plugin.report.plots import SHADE, guide, legend_below, short
from codescaler_plugin.report.sections import (
    Cell,
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
    sized_share,
)

_CONTROLS = {
    "longer": "“the longer is right”",
    "shorter": "“the shorter is right”",
    "shallow": "length and style, fitted",
    "log_probability": "mean log-probability",
}
_control = partial(cell, share, "controls")
_CONTROL_LINES: Lines = [
    "Controls: what needs no reward model, each problem once",
    *(
        (label, _control(name, "macro", missing="not measured: --base-model MODEL"))
        for name, label in _CONTROLS.items()
    ),
    ("the reward model on the pairs of the log-probability", _control("log_probability", "model")),
    "Gain over each, pair by pair, each problem once",
    *((f"over {label}", cell(gain, "above", name, "macro")) for name, label in _CONTROLS.items()),
    "Of two right programs (0.5 wanted)",
    ("prefers the longer", _control("prefers longer", missing="not measured: no problem has two")),
    ("prefers the rewritten", _control("prefers rewritten", missing="not measured: none can be rewritten")),
    "Bugs that people made",
    ("accuracy", _control("human_bugs", missing="not measured: --human-bugs FILE")),
    ("longer is right", _control("human_bugs", "longer")),
]
_MEASURES = {
    "before": "accuracy",
    "attacked": "accuracy, wrong side edited",
    "both": "accuracy, both edited",
    "right only": "accuracy, right side edited",
    "prefers edited": "prefers the edited (0.5 wanted)",
    "shift right": "change of score, right side",
    "shift wrong": "change of score, wrong side",
}


def pairs_section(title: str, models: Models, colours: Colours) -> Section:
    """Accuracy on pairs, beside its controls."""
    findings = []
    for model, result in models.items():
        above, own = result["above"][result["strongest"]]["macro"], result["macro"]["value"]
        if result["strongest"] == "log_probability":  # on a draw of the pairs
            own = result["controls"]["log_probability"]["model"]["value"]
        findings.append(
            f"{model}: {own:.3f} of a problem's pairs in the right order, {gain(above)} above the best of "
            f"{len(result['above'])} controls, {_CONTROLS[result['strongest']]}{doubt(above)}"
        )
    text = (
        "How often the right program of a pair scores higher; a tie is half. In brackets the 95% interval of a "
        "bootstrap over problems. A model that is not clearly above the controls has shown no more than they know."
    )
    plots = [
        ("Accuracy", partial(_plot_accuracy, models=models, colours=colours)),
        ("Accuracy by gap of scores", partial(_plot_by_gap, models=models, colours=colours)),
    ]
    return Section(title, text, findings, [side_by_side(models, _accuracy_lines(models) + _CONTROL_LINES)], plots)


def _accuracy_lines(models: Models) -> Lines:
    lines: Lines = [
        ("pairs", cell(count, "accuracy", "rows")),
        ("problems", cell(count, "accuracy", "problems")),
        ("without a score", cell(count, "unscored")),
        ("ties", cell(count, "ties")),
        "Accuracy",
        ("all pairs", cell(share, "accuracy")),
        ("each problem once", cell(share, "macro")),
    ]
    kinds = keys_of(models, "kinds")
    if len(kinds) > 1:
        lines += [(f"kind: {kind}", cell(sized_share, "kinds", kind)) for kind in kinds]
    for key, name in (("pass_rate_gap", "pass rates"), ("score_gap", "scores")):
        lines.append(f"Accuracy by gap of {name}")
        lines += [(bin_, cell(sized_share, key, bin_)) for bin_ in keys_of(models, key) if bin_ != "unknown"]
    return lines


def _plot_accuracy(axes: Any, models: Models, colours: Colours) -> None:
    first = next(iter(models.values()))
    bars = [(_CONTROLS[name], first["controls"][name]["macro"], SHADE) for name in first["above"]]
    bars += [(model, result["macro"], colours[model]) for model, result in models.items()]
    for row, (_, mean, colour) in enumerate(bars):
        axes.barh(row, mean["value"], color=colour, height=0.6)
        axes.plot([mean["low"], mean["high"]], [row, row], color="black", linewidth=1.5)
    axes.set_yticks(range(len(bars)), [short(name) for name, _, _ in bars])
    guide(axes, 0.5, vertical=True)
    best = first["controls"][first["strongest"]]["macro"]["value"]
    axes.axvline(best, color="black", linestyle="--", linewidth=1)
    axes.set(xlim=(0, 1), xlabel="share of a problem's pairs in order (dashed: best control)")
    axes.set_title("Accuracy, 95% interval")


def _plot_by_gap(axes: Any, models: Models, colours: Colours) -> None:
    measured = keys_of(models, "score_gap")
    bins = [name for name in bin_names(SCORE_GAPS) if name in measured]
    for model, result in models.items():
        colour = colours[model]
        xs = [x for x, name in enumerate(bins) if name in result["score_gap"]]
        means = [result["score_gap"][bins[x]] for x in xs]
        axes.plot(xs, [mean["value"] for mean in means], "o-", color=colour, label=short(model))
        lows, highs = ([mean[end] for mean in means] for end in ("low", "high"))
        axes.fill_between(xs, lows, highs, color=colour, alpha=0.15)
    names = [name.replace("below ", "< ").replace(" to ", "-").replace(" and more", "+") for name in bins]
    axes.set_xticks(range(len(names)), names, rotation=30, ha="right")
    guide(axes, 0.5)
    axes.set(ylim=(0, 1.02), xlabel="gap of scores", title="Accuracy by gap of scores")
    axes.legend(loc="lower right")


def rm_bench_section(title: str, models: Models, _: Colours) -> Section:
    """Accuracy by style, difficulty, domain and language."""

    def average_and_hard(*path: str) -> Cell:
        average, hard = (cell(percent, *path, level) for level in ("average", "hard"))
        return lambda result: f"{average(result)}; {hard(result)}"

    lines: Lines = [
        ("rows", cell(count, "rows")),
        ("completions scored", cell(str, "completions")),
        ("without a score", cell(count, "unscored")),
        "Overall",
        *((name, cell(percent, name)) for name in ("average", "easy", "normal", "hard")),
    ]
    for heading, key in (("Domains", "domains"), ("Languages", "languages")):
        names = keys_of(models, key)
        if len(names) > 1 or (key == "languages" and names):
            lines.append(f"{heading} (average; hard)")
            lines += [(name, average_and_hard(key, name)) for name in names]
    matrices = [
        Table(
            [f"{model}: right \\ wrong", *STYLES],
            [[style, *map(percent, shares)] for style, shares in zip(STYLES, result["matrix"], strict=True)],
        )
        for model, result in models.items()
    ]
    findings = [
        f"{model}: {result['average']:.1%} overall; {result['hard']:.1%} where the wrong answer is the fancier one "
        f"(Hard), {result['easy']:.1%} where the right one is (Easy)"
        + (": style counts for more than correctness." if result["hard"] < 0.5 <= result["easy"] else ".")
        for model, result in models.items()
    ]
    text = (
        "RM-Bench (arXiv 2410.16184): a right answer wins with a strictly higher score. Hard is above the diagonal of "
        "the matrix, Normal on it, Easy below it; overall numbers are means over domains."
    )
    plots = [
        (f"Accuracy by styles: {model}", partial(_plot_matrix, model=model, result=result))
        for model, result in models.items()
    ]
    return Section(title, text, findings, [side_by_side(models, lines), *matrices], plots)


def _plot_matrix(axes: Any, model: str, result: Result) -> None:
    axes.imshow(result["matrix"], vmin=0, vmax=1, cmap="RdYlGn")
    for right, shares in enumerate(result["matrix"]):
        for wrong, accuracy in enumerate(shares):
            axes.text(wrong, right, f"{accuracy:.0%}", ha="center", va="center", fontsize=13)
    axes.set_xticks(range(3), STYLES)
    axes.set_yticks(range(3), STYLES, rotation=90, va="center")
    axes.grid(visible=False)
    axes.set(title=short(model), xlabel="style of the wrong answer", ylabel="style of the right answer")


def robustness_section(title: str, models: Models, colours: Colours) -> Section:
    """Accuracy and score under edits that change nothing."""
    kinds = keys_of(models, "kinds")
    lines: Lines = [("pairs", cell(count, "pairs")), ("without a score", cell(count, "unscored"))]
    for kind in kinds:
        lines.append(kind.replace("_", " "))
        for measure, label in _MEASURES.items():
            lines.append((label, cell(gain if "shift" in measure else share, "kinds", kind, measure)))
    lines += [
        "Others",
        ("accuracy against another problem's program", cell(share, "unaligned")),
        ("spread of a score under edits", cell(decimals, "spread", "mean")),
        ("mean gap of a pair's scores", cell(decimals, "spread", "gap")),
        ("gap as a teller of the right order", cell(decimals, "uncertainty", "gap")),
        ("gap over spread as one", cell(decimals, "uncertainty", "gap over spread")),
    ]
    findings = []
    for model, result in models.items():
        accuracies = {
            kind: (measures["before"]["value"], measures["attacked"]["value"])
            for kind, measures in result["kinds"].items()
        }
        if accuracies:
            worst, (before, attacked) = max(accuracies.items(), key=lambda item: item[1][0] - item[1][1])
            findings.append(
                f"{model}: weakest against {worst.replace('_', ' ')}: {before:.3f} of pairs in order, "
                f"{attacked:.3f} when the wrong side is edited."
            )
    text = (
        "Edits that change nothing of what a program does. As an attack the wrong program is edited, the right one is "
        "not: whatever accuracy is lost then was won by style."
    )
    plots = [("Accuracy under attack", partial(_plot_attacks, models=models, colours=colours))] if kinds else []
    return Section(title, text, findings, [side_by_side(models, lines)], plots)


def _plot_attacks(axes: Any, models: Models, colours: Colours) -> None:
    kinds = keys_of(models, "kinds")
    width = 0.8 / len(models)
    for number, (model, result) in enumerate(models.items()):
        for group, kind in enumerate(kinds):
            if kind not in result["kinds"]:
                continue
            before, attacked = (result["kinds"][kind][measure] for measure in ("before", "attacked"))
            x = group + (number - (len(models) - 1) / 2) * width
            label = None if group else short(model)
            axes.bar(x, attacked["value"], width * 0.92, color=colours[model], label=label)
            axes.plot([x, x], [attacked["low"], attacked["high"]], color="black", linewidth=1.2)
            axes.plot([x - width / 2, x + width / 2], [before["value"]] * 2, color="black", linewidth=2)
    guide(axes, 0.5)
    axes.set_xticks(range(len(kinds)), [kind.replace("_", " ") for kind in kinds])
    axes.set(ylim=(0, 1), ylabel="pairs in order", title="Wrong side edited (bar); before (line)")
    legend_below(axes, 2)
