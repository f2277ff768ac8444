"""All that was measured of any number of reward models, side by side: one HTML file without a network, and Markdown.

`codescaler evaluate` leaves `<evaluation>.<name>.summary.json` in a folder for each model. What was measured on the
same data under the same name stands in one table. `benchmarks/bench_latency.py --output` leaves one too.
"""

import base64
import io
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import cycle
from pathlib import Path
from typing import Any

from codescaler_plugin import __version__
from codescaler_plugin.data.outputs import (
    check_folder,
    check_output,
    check_own,
    write_output,
    write_text,
)
from codescaler_plugin.errors import ConfigError, DataError
from codescaler_plugin.extras import require
from codescaler_plugin.safety import PLAIN_PLOTS, html_text, markdown, markdown_table, one_line

EVALUATIONS = {
    "pairs": "Pairs",
    "rm-bench": "RM-Bench",
    "candidates": "Best of N",
    "calibration": "Calibration",
    "robustness": "Robustness",
    "latency": "Latency",
}
_STRONGEST = ("pairs", "candidates")  # their results name the control to compare with
CARRY = (
    "A margin compares two programs of one problem. Scores have no common zero across problems, so a fixed threshold "
    "on a single score does not carry from one problem to the next."
)

_COLOURS = ("#1f6feb", "#d1582b", "#2a8f5d", "#8957b0", "#b08a00", "#c2427c", "#4a7a8c", "#6b6b6b")
_SHADE = "#9aa0a6"
_STYLES = ("concise", "detailed", "markdown")
_CONTROLS = {
    "longer": "“the longer is right”",
    "shorter": "“the shorter is right”",
    "shallow": "length and style, fitted",
    "log_probability": "mean log-probability",
}


_Models = Mapping[str, Mapping[str, Any]]  # label -> result


@dataclass(frozen=True)
class Summary:
    """The result of one evaluation of one model, as its file holds it."""

    evaluation: str
    name: str
    model: str
    result: Mapping[str, Any]
    facts: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Table:
    """Lines of text cells; the first cell of a line names it. A line with one cell alone is a heading.

    With `prose` the cells are sentences more than numbers, and stand to the left.
    """

    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    caption: str = ""
    prose: bool = False


@dataclass(frozen=True)
class Section:
    """One evaluation on one data set."""

    title: str
    text: str
    findings: Sequence[str]
    tables: Sequence[Table]
    plots: Sequence[tuple[str, Callable[[Any], None]]] = ()  # what it shows, and what draws it on axes


def write_summary(folder: Path, summary: Summary) -> Path:
    """Write `<evaluation>.<name>.summary.json` and return it; one of the same model and data is written anew.

    Raises:
        ConfigError: the folder cannot be written, or a summary of another model or other data is there.
        DataError: what is there is no summary.
    """
    path = summary_file(folder, summary.evaluation, summary.name)
    check_summary(path, summary.model, summary.facts.get("data_sha256"))
    row = {
        "evaluation": summary.evaluation,
        "name": summary.name,
        "model": summary.model,
        "version": __version__,
        **summary.facts,
        "result": summary.result,
    }
    check_folder(folder)
    write_text(path, json.dumps(row, indent=1, allow_nan=False) + "\n")
    return path


def summary_file(folder: Path, evaluation: str, name: str) -> Path:
    """Where the summary of an evaluation is kept."""
    return folder / f"{evaluation}.{name}.summary.json"


def check_summary(path: Path, model: str, data_sha256: str | None) -> None:
    """Raise where a summary of another model or other data would be written over.

    Raises:
        ConfigError: one is there.
        DataError: what is there is no summary.
    """
    if not path.exists():
        return
    there = _read_summary(path)
    if (there.model, there.facts.get("data_sha256")) != (model, data_sha256):
        raise ConfigError(
            f"{path} is of the model {there.model} on {there.facts.get('data', 'its data')}, not of {model} on the "
            "data given now. Give another --output or --name, or delete it"
        )


def read_summaries(folders: Sequence[Path]) -> list[Summary]:
    """All summaries in folders, in the order of the folders.

    Raises:
        ConfigError: a folder that is not there or holds no summary.
        DataError: a file that is no summary; it is named.
    """
    found: list[Summary] = []
    for folder in folders:
        if not folder.is_dir():
            raise ConfigError(f"no folder {folder}: give the --output folders of `codescaler evaluate`")
        files = sorted(folder.glob("*.summary.json"))
        if not files:
            raise ConfigError(f"{folder} holds no *.summary.json: give the --output folders of `codescaler evaluate`")
        found += map(_read_summary, files)
    return found


def _read_summary(file: Path) -> Summary:
    try:
        row = json.loads(file.read_text(encoding="utf-8"))
        evaluation, name, model, result = (row.pop(key) for key in ("evaluation", "name", "model", "result"))
    except (ValueError, KeyError, AttributeError) as error:
        raise DataError(f"{file} is no summary of `codescaler evaluate`: {error}") from error
    if evaluation not in EVALUATIONS or not isinstance(result, dict):
        raise DataError(f"{file} is no summary of `codescaler evaluate`: evaluation {evaluation!r}")
    if evaluation in _STRONGEST and "strongest" not in result:
        raise DataError(f"{file} is of an older version and names no strongest control: run its command again")
    return Summary(evaluation, name, model, result, row)


def write_report(folders: Sequence[Path], output: Path, *, title: str = "Reward models") -> tuple[Path, Path]:
    """Write what was measured in folders as a page, see `write_page`.

    Raises:
        ConfigError: nothing to report, or a path that cannot be written.
        DataError: a summary that cannot be read, or two of one model under one name.
        MissingExtraError: matplotlib is not installed.
    """
    check_page(output)
    summaries = read_summaries(folders)
    return write_page(output, title, sections(summaries), Table(_MADE, list(_made(summaries))))


def write_page(output: Path, title: str, found: Sequence[Section], made: Table) -> tuple[Path, Path]:
    """Write `output` (HTML, everything inside) and the same as Markdown beside it, with its plots in a folder.

    Args:
        output: the page; its ending becomes `.html`.
        title: of the page.
        found: what it says, in order.
        made: how that was measured; the last table.

    Raises:
        ConfigError: a path that cannot be written.
        MissingExtraError: matplotlib is not installed.
    """
    check_page(output)
    page, text = _pages(output)
    plots = [[_svg(draw) for _, draw in section.plots] for section in found]
    write_text(page, _html(title, found, made, plots))
    pictures = output.with_name(f"{output.stem}_plots")
    names: list[list[str]] = []
    for number, drawn in enumerate(plots):
        names.append([f"{pictures.name}/{number}_{place}.svg" for place in range(len(drawn))])
        for name, plot in zip(names[-1], drawn, strict=True):
            check_folder(pictures)
            with write_output(pictures / Path(name).name, binary=True) as file:
                file.write(plot)
    write_text(text, _markdown(title, found, made, names))
    return page, text


def check_page(output: Path) -> None:
    """Raise what would keep `write_page` from writing, before the work.

    Raises:
        MissingExtraError: matplotlib is not installed.
        ConfigError: a path that cannot be written, or a Markdown file that belongs to no earlier page.
    """
    require("the report", "report", "matplotlib")
    page, text = _pages(output)
    check_folder(page.parent)
    check_output(page)
    check_output(text)
    for file in (page, text):
        check_own(file, f"codescaler-plugin {__version__.split('.')[0]}.")


def _pages(output: Path) -> tuple[Path, Path]:
    return output.with_suffix(".html"), output.with_suffix(".md")


def sections(summaries: Sequence[Summary]) -> list[Section]:
    """What the report says, evaluation by evaluation and data by data.

    Raises:
        DataError: two summaries of one model, evaluation and name.
    """
    groups: dict[tuple[str, str], dict[str, Mapping[str, Any]]] = {}
    for summary in summaries:
        models = groups.setdefault((summary.evaluation, summary.name), {})
        if summary.model in models:
            raise DataError(
                f"two summaries of {summary.evaluation} {summary.name!r} for {summary.model}: leave one folder out"
            )
        models[summary.model] = summary.result
    labels = _labels([summary.model for summary in summaries])
    colours = dict(zip(labels.values(), cycle(_COLOURS), strict=False))
    writers = (_pairs, _rm_bench, _candidates, _calibration, _robustness, _latency)
    found = []
    for (evaluation, heading), write in zip(EVALUATIONS.items(), writers, strict=True):
        for (one, name), models in groups.items():
            if one == evaluation:
                named = {labels[model]: result for model, result in models.items()}
                found.append(write(f"{heading}: {name}", named, colours))
    return found


def _labels(models: Sequence[str]) -> dict[str, str]:
    """The last part of each model's name, or all of it where two share that."""
    short = {model: Path(model).name or model for model in models}
    return {model: one if list(short.values()).count(one) == 1 else model for model, one in short.items()}


_Cell = Callable[[Mapping[str, Any]], str]
_count, _decimals, _percent = "{:,}".format, "{:.3f}".format, "{:.1%}".format


def _cell(write: Callable[[Any], str], *path: str, missing: str = "-") -> _Cell:
    """A model's cell: what its result holds at a path, written; `missing` where it holds nothing there."""

    def cell(result: Mapping[str, Any]) -> str:
        place: Any = result
        for key in path:
            place = (place or {}).get(key)
        return missing if place is None else write(place)

    return cell


def _share(found: Mapping[str, Any]) -> str:
    return f"{found['value']:.3f} ({found['low']:.3f} to {found['high']:.3f})"


def _sized_share(found: Mapping[str, Any]) -> str:
    return f"{_share(found)}, n={found['rows']:,}"


def _gain(found: Mapping[str, Any]) -> str:
    return f"{found['value']:+.3f} ({found['low']:+.3f} to {found['high']:+.3f})"


def _side_by_side(models: _Models, lines: Sequence[tuple[str, _Cell] | str]) -> Table:
    """A line for each measure that a model has, a column for each model; a line that is text alone is a heading."""
    rows: list[list[str]] = []
    for line in lines:
        row = [line] if isinstance(line, str) else [line[0], *(line[1](result) for result in models.values())]
        if set(row[1:]) != {"-"}:
            rows.append(row)
    kept = [row for row, after in zip(rows, [*rows[1:], [""]], strict=True) if len(row) > 1 or len(after) > 1]
    return Table(["", *models], kept)


def _names(models: _Models, *path: str) -> list[str]:
    """The keys below a path, over all models, in their order."""
    names: dict[str, None] = {}
    for result in models.values():
        place: Any = result
        for key in path:
            place = place.get(key) or {}
        names |= dict.fromkeys(place)
    return list(names)


def _verdict(gain: Mapping[str, Any]) -> str:
    return (
        ""
        if gain["low"] > 0
        else "the interval holds 0, so this may be chance"
        if gain["high"] >= 0
        else "it is worse"
    )


# What each evaluation says


def _pairs(title: str, models: _Models, colours: Mapping[str, str]) -> Section:
    findings = []
    for model, result in models.items():
        gain, own = result["above"][result["strongest"]]["macro"], result["macro"]["value"]
        if result["strongest"] == "log_probability":  # on a draw of the pairs
            own = result["controls"]["log_probability"]["model"]["value"]
        said = _verdict(gain)
        findings.append(
            f"{model}: {own:.3f} of a problem's pairs in the right order, {_gain(gain)} above the best of "
            f"{len(result['above'])} controls, {_CONTROLS[result['strongest']]}" + (f": {said}." if said else ".")
        )
    controls = [name for name in _CONTROLS if any(name in result["above"] for result in models.values())]
    lines: list[tuple[str, _Cell] | str] = [
        ("pairs", _cell(_count, "accuracy", "rows")),
        ("problems", _cell(_count, "accuracy", "problems")),
        ("without a score", _cell(_count, "unscored")),
        ("ties", _cell(_count, "ties")),
        "Accuracy",
        ("all pairs", _cell(_share, "accuracy")),
        ("each problem once", _cell(_share, "macro")),
    ]
    kinds = _names(models, "kinds")
    if len(kinds) > 1:
        lines += [(f"kind: {kind}", _cell(_sized_share, "kinds", kind)) for kind in kinds]
    rates = [name for name in _names(models, "pass_rate_gap") if name != "unknown"]
    if rates:
        lines.append("Accuracy by gap of pass rates")
        lines += [(name, _cell(_sized_share, "pass_rate_gap", name)) for name in rates]
    lines.append("Accuracy by gap of scores")
    lines += [(name, _cell(_sized_share, "score_gap", name)) for name in _names(models, "score_gap")]
    lines.append("Controls: what needs no reward model, each problem once")
    base = "not measured: --base-model MODEL"
    lines += [(said, _cell(_share, "controls", name, "macro", missing=base)) for name, said in _CONTROLS.items()]
    lines += [
        (
            "the reward model on the pairs of the log-probability",
            _cell(_share, "controls", "log_probability", "model"),
        ),
        "Gain over each, pair by pair, each problem once",
        *((f"over {_CONTROLS[name]}", _cell(_gain, "above", name, "macro")) for name in controls),
        "Of two right programs (0.5 wanted)",
        *(
            (f"prefers the {kind}", _cell(_share, "controls", f"prefers {kind}", missing=f"not measured: {why}"))
            for kind, why in (("longer", "no problem has two"), ("rewritten", "none can be rewritten"))
        ),
        "Bugs that people made",
        ("accuracy", _cell(_share, "controls", "human_bugs", missing="not measured: --human-bugs FILE")),
        ("longer is right", _cell(_share, "controls", "human_bugs", "longer")),
    ]

    def shares(bars: Any) -> None:
        rows: list[tuple[str, Mapping[str, Any], str]] = []
        first = next(iter(models.values()))
        rows += [(_CONTROLS[name], first["controls"][name]["macro"], _SHADE) for name in first["above"]]
        rows += [(model, result["macro"], colours[model]) for model, result in models.items()]
        for place, (_, one, colour) in enumerate(rows):
            bars.barh(place, one["value"], color=colour, height=0.6)
            bars.plot([one["low"], one["high"]], [place, place], color="black", linewidth=1.5)
        bars.set_yticks(range(len(rows)), [_short(name) for name, _, _ in rows])
        bars.axvline(0.5, color="black", linestyle=":", linewidth=1)
        best = first["controls"][first["strongest"]]["macro"]["value"]
        bars.axvline(best, color="black", linestyle="--", linewidth=1)
        bars.set(xlim=(0, 1), xlabel="share of a problem's pairs in order (dashed: best control)")
        bars.set_title("Accuracy, 95% interval")

    def by_gap(gaps: Any) -> None:
        from codescaler_plugin.evaluation.pairwise import SCORE_GAPS, bin_names

        found = _names(models, "score_gap")
        names = [name for name in bin_names(SCORE_GAPS) if name in found]
        for model, result in models.items():
            colour = colours[model]
            there = [name for name in names if name in result["score_gap"]]
            at = [names.index(name) for name in there]
            values = [result["score_gap"][name] for name in there]
            gaps.plot(at, [one["value"] for one in values], "o-", color=colour, label=_short(model))
            gaps.fill_between(
                at, [one["low"] for one in values], [one["high"] for one in values], color=colour, alpha=0.15
            )
        gaps.set_xticks(range(len(names)), [_bare(name) for name in names], rotation=30, ha="right")
        gaps.axhline(0.5, color="black", linestyle=":", linewidth=1)
        gaps.set(ylim=(0, 1.02), xlabel="gap of scores", title="Accuracy by gap of scores")
        gaps.legend(loc="lower right")

    text = (
        "How often the right program of a pair scores higher; a tie is half. In brackets the 95% interval of a "
        "bootstrap over problems. A model that is not clearly above the controls has shown no more than they know."
    )
    return Section(
        title,
        text,
        findings,
        [_side_by_side(models, lines)],
        [("Accuracy", shares), ("Accuracy by gap of scores", by_gap)],
    )


def _bare(name: str) -> str:
    return name.replace("below ", "< ").replace(" to ", "-").replace(" and more", "+")


def _rm_bench(title: str, models: _Models, _: Mapping[str, str]) -> Section:
    def both(*path: str) -> _Cell:
        average, hard = (_cell(_percent, *path, level) for level in ("average", "hard"))
        return lambda result: f"{average(result)}; {hard(result)}"

    lines: list[tuple[str, _Cell] | str] = [
        ("rows", _cell(_count, "rows")),
        ("answers scored", _cell(str, "answers")),
        ("without a score", _cell(_count, "unscored")),
        "Overall",
        *((name, _cell(_percent, name)) for name in ("average", "easy", "normal", "hard")),
    ]
    for heading, key in (("Domains", "domains"), ("Languages", "languages")):
        names = _names(models, key)
        if len(names) > 1 or (key == "languages" and names):
            lines.append(f"{heading} (average; hard)")
            lines += [(name, both(key, name)) for name in names]
    matrices = [
        Table(
            [f"{model}: right \\ wrong", *_STYLES],
            [[style, *map(_percent, line)] for style, line in zip(_STYLES, result["matrix"], strict=True)],
        )
        for model, result in models.items()
    ]
    findings = [
        f"{model}: {result['average']:.1%} overall; {result['hard']:.1%} where the wrong answer is the fancier one "
        f"(Hard), {result['easy']:.1%} where the right one is (Easy)"
        + (": style counts for more than correctness." if result["hard"] < 0.5 <= result["easy"] else ".")
        for model, result in models.items()
    ]

    def matrix(axes: Any, model: str) -> None:
        axes.imshow(models[model]["matrix"], vmin=0, vmax=1, cmap="RdYlGn")
        for right, line in enumerate(models[model]["matrix"]):
            for wrong, share in enumerate(line):
                axes.text(wrong, right, f"{share:.0%}", ha="center", va="center", fontsize=13)
        axes.set_xticks(range(3), _STYLES)
        axes.set_yticks(range(3), _STYLES, rotation=90, va="center")
        axes.grid(visible=False)
        axes.set(title=_short(model), xlabel="style of the wrong answer", ylabel="style of the right answer")

    plots = [(f"Accuracy by styles: {model}", partial(matrix, model=model)) for model in models]
    text = (
        "RM-Bench (arXiv 2410.16184): a right answer wins with a strictly higher score. Hard is above the diagonal of "
        "the matrix, Normal on it, Easy below it; overall numbers are means over domains."
    )
    return Section(title, text, findings, [_side_by_side(models, lines), *matrices], plots)


def _candidates(title: str, models: _Models, colours: Mapping[str, str]) -> Section:
    first = next(iter(models.values()))
    others = ("random", "shortest", "longest", "oracle")
    counts = sorted({int(count) for result in models.values() for count in result["table"]})
    rows = [
        [
            f"N = {count}",
            *map(_cell(_share, "table", str(count), "model"), models.values()),
            *(_cell(_share, "table", str(count), choice)(first) for choice in others),
        ]
        for count in counts
    ]
    findings = []
    for model, result in models.items():
        most = str(result["most"])
        line = result["table"][most]
        strongest = result["strongest"]
        gain, room = line[f"model above {strongest}"], line["oracle"]["value"] - line[strongest]["value"]
        said = _verdict(gain)
        chosen = "a random choice" if strongest == "random" else f"the {strongest} program, which is the best control"
        findings.append(
            f"{model}: best of {most} solves {line['model']['value']:.3f}, {_gain(gain)} above {chosen}"
            + (f", {gain['value'] / room:.0%} of what a perfect choice would gain" if room > 0 < gain["value"] else "")
            + (f": {said}." if said else ".")
        )
    lines = [
        ("problems", _cell(_count, "problems")),
        ("left out, too few candidates", _cell(_count, "left_out")),
        ("candidates", _cell(_count, "candidates")),
        ("without valid code", _cell(_count, "invalid")),
        ("without a score", _cell(_count, "unscored")),
        ("left out, no verdict of the tests", _cell(_count, "unjudged", missing="0")),
        ("pairs of a problem in order", _cell(_share, "pair_accuracy")),
    ]

    def curves(axes: Any) -> None:
        for choice, dash in zip(others, (":", "-.", "--", "-"), strict=True):
            curve = first["curves"][choice]
            axes.plot(range(1, len(curve) + 1), curve, dash, color=_SHADE, label=choice, linewidth=1.8)
        for model, result in models.items():
            colour = colours[model]
            curve = result["curves"]["model"]
            axes.plot(range(1, len(curve) + 1), curve, color=colour, label=_short(model), linewidth=2.4)
            table = {int(count): line["model"] for count, line in result["table"].items()}
            values = [one["value"] for one in table.values()]
            below = [max(0.0, one["value"] - one["low"]) for one in table.values()]
            above = [max(0.0, one["high"] - one["value"]) for one in table.values()]
            axes.errorbar(list(table), values, [below, above], fmt="none", color=colour, alpha=0.5, capsize=3)
        axes.set_xscale("log", base=2)
        axes.set_xticks(counts, [str(count) for count in counts])
        axes.set(xlabel="N, candidates to choose from", ylabel="problems solved", title="Best of N", ylim=(0, 1))
        axes.legend(ncols=2)

    text = (
        "The share of problems whose chosen candidate passes, among N drawn without replacement: the unbiased mean "
        "over all draws. The oracle picks a passing candidate if there is one."
    )
    best = Table(["", *models, *others], rows, "Problems solved")
    return Section(title, text, findings, [best, _side_by_side(models, lines)], [("Problems solved by N", curves)])


def _calibration(title: str, models: _Models, _: Mapping[str, str]) -> Section:
    lines: list[tuple[str, _Cell] | str] = [
        ("examples", _cell(_count, "examples")),
        ("problems", _cell(_count, "problems")),
        ("right", _cell(_decimals, "accuracy")),
        "Does a threshold carry across problems?",
        ("pairs of one problem in order", _cell(_decimals, "paired")),
        ("pairs across problems in order", _cell(_decimals, "pooled")),
    ]
    findings = []
    for model, result in models.items():
        name, best = min(result["methods"].items(), key=lambda one: one[1]["error"])
        margin, held = result["margin_for"]["0.9"], result["reliable"]["0.9"]
        right = f"{held['share']:.3f} ({held['low']:.3f} to {held['high']:.3f}) right on {held['problems']} problems"
        if margin is not None and held["low"] >= 0.9:
            said = f"a margin of {margin:.2f} or more is 90% reliable: {right} not fitted on"
        else:
            taken = f"of {result['examples']} examples {held['examples']} would be taken for it, {right}"
            if not held["examples"]:
                taken = f"none of {result['examples']} examples would be taken for it"
            said = f"no margin is shown to be 90% reliable: {taken}"
        off = f"probabilities by {_MAPS.get(name, name)} are off by {best['error']:.3f} on average"
        findings.append(f"{model}: {said}; {off}.")

    def reliable(axes: Any, model: str) -> None:
        axes.plot([0, 1], [0, 1], color="black", linestyle=":", linewidth=1)
        for (name, one), colour in zip(models[model]["methods"].items(), (_SHADE, *_COLOURS), strict=False):
            bins = one["bins"]
            at, right = [each["probability"] for each in bins], [each["right"] for each in bins]
            axes.plot(at, right, color=colour, label=f"{name} ({one['error']:.3f})")
            sizes = [8 + 150 * each["count"] / models[model]["examples"] for each in bins]  # few examples, small dot
            axes.scatter(at, right, sizes, color=colour)
        axes.set(xlim=(0, 1), ylim=(0, 1.02), xlabel="probability said (in brackets: error)", ylabel="share right")
        axes.set_title(_short(model))
        _legend_below(axes, 3)

    plots = [(f"Reliability: {model}", partial(reliable, model=model)) for model in models]
    text = (
        "From a margin to the probability that the program in front is right. All numbers are of problems that the "
        "map was not fitted on. The share right counts each problem once, with Wilson's 95% interval. " + CARRY
    )
    tables = [_side_by_side(models, lines)]
    for model, result in models.items():
        tables += [_maps(model, result), _margins(model, result)]
    return Section(title, text, findings, tables, plots)


_MAPS = {"as trained": "the margin's sigmoid", "isotonic": "isotonic", "platt": "Platt"}


def _maps(model: str, result: Mapping[str, Any]) -> Table:
    rows = [
        [_MAPS.get(name, name), f"{one['error']:.3f}", f"{one['brier']:.3f}"]
        for name, one in result["methods"].items()
    ]
    return Table(
        ("map to a probability", "calibration error", "Brier score"),
        rows,
        f"{model}: how far the probabilities are off",
    )


def _margins(model: str, result: Mapping[str, Any]) -> Table:
    rows = []
    for wanted, margin in result["margin_for"].items():
        held = result["reliable"][wanted]
        came = [f"{held['share']:.3f}", f"{held['low']:.3f} to {held['high']:.3f}"] if held["examples"] else ["-", "-"]
        rows.append([wanted, "never reached" if margin is None else f"{margin:.3f}", *came, f"{held['problems']:,}"])
    return Table(
        ("probability", "needs a margin of", "share right", "95% interval", "problems"),
        rows,
        f"{model}: margins, and what came of them",
    )


def _robustness(title: str, models: _Models, colours: Mapping[str, str]) -> Section:
    kinds = _names(models, "kinds")
    measures = {
        "before": "accuracy",
        "attacked": "accuracy, wrong side edited",
        "both": "accuracy, both edited",
        "right only": "accuracy, right side edited",
        "prefers edited": "prefers the edited (0.5 wanted)",
        "shift right": "change of score, right side",
        "shift wrong": "change of score, wrong side",
    }
    lines: list[tuple[str, _Cell] | str] = [
        ("pairs", _cell(_count, "pairs")),
        ("without a score", _cell(_count, "unscored")),
    ]
    for kind in kinds:
        lines.append(kind.replace("_", " "))
        for measure, said in measures.items():
            lines.append((said, _cell(_gain if "shift" in measure else _share, "kinds", kind, measure)))
    lines += [
        "Others",
        ("accuracy against another problem's program", _cell(_share, "unaligned")),
        ("spread of a score under edits", _cell(_decimals, "spread", "mean")),
        ("mean gap of a pair's scores", _cell(_decimals, "spread", "gap")),
        ("gap as a teller of the right order", _cell(_decimals, "uncertainty", "gap")),
        ("gap over spread as one", _cell(_decimals, "uncertainty", "gap over spread")),
    ]
    findings = []
    for model, result in models.items():
        losses = {kind: one["before"]["value"] - one["attacked"]["value"] for kind, one in result["kinds"].items()}
        if losses:
            worst = max(losses, key=lambda kind: losses[kind])
            one = result["kinds"][worst]
            findings.append(
                f"{model}: weakest against {worst.replace('_', ' ')}: {one['before']['value']:.3f} of pairs in order, "
                f"{one['attacked']['value']:.3f} when the wrong side is edited."
            )

    def attacks(axes: Any) -> None:
        width = 0.8 / len(models)
        for number, (model, result) in enumerate(models.items()):
            colour = colours[model]
            for place, kind in enumerate(kinds):
                if kind not in result["kinds"]:
                    continue
                one = result["kinds"][kind]
                at = place + (number - (len(models) - 1) / 2) * width
                label = None if place else _short(model)
                axes.bar(at, one["attacked"]["value"], width * 0.92, color=colour, label=label)
                axes.plot([at, at], [one["attacked"]["low"], one["attacked"]["high"]], color="black", linewidth=1.2)
                axes.plot([at - width / 2, at + width / 2], [one["before"]["value"]] * 2, color="black", linewidth=2)
        axes.axhline(0.5, color="black", linestyle=":", linewidth=1)
        axes.set_xticks(range(len(kinds)), [kind.replace("_", " ") for kind in kinds])
        axes.set(ylim=(0, 1), ylabel="pairs in order", title="Wrong side edited (bar); before (line)")
        _legend_below(axes, 2)

    plots = [("Accuracy under attack", attacks)] if kinds else []
    text = (
        "Edits that change nothing of what a program does. As an attack the wrong program is edited, the right one is "
        "not: whatever accuracy is lost then was won by style."
    )
    return Section(title, text, findings, [_side_by_side(models, lines)], plots)


def _latency(title: str, models: _Models, colours: Mapping[str, str]) -> Section:
    head = ("way", "accuracy", "wall ms p50", "p95", "CPU ms p50", "p95", "programs run", "runs that time out")
    tables, findings = [], []
    for model, result in models.items():
        rows = []
        for way, one in result["ways"].items():
            late = _cell(_percent, "share_of_runs_that_time_out")(one)
            times = [f"{one[f'{clock}_ms_{place}']:.1f}" for clock in ("wall", "cpu") for place in ("p50", "p95")]
            rows.append([way, f"{one['accuracy']:.3f}", *times, f"{one['programs_run']:.2f}", late])
        tables.append(Table(head, rows, f"A problem with {model}"))
        scored = result["ways"]["reward model"]
        findings += [
            f"{model}: {one['accuracy']:.3f} solved by {way}, in "
            f"{result['multiple_of_reward_model']['cpu'][way]['median']:.2f} times the CPU of the reward model alone, "
            f"which solves {scored['accuracy']:.3f} (the median problem)."
            for way, one in result["ways"].items()
            if way != "reward model"
        ]

    rows = []
    for name in _names(models, "conditions"):
        found = [result["conditions"].get(name, "-") for result in models.values()]
        rows.append([name.replace("_", " "), *("none" if value is None else str(value) for value in found)])
    tables.append(Table(["condition", *models], rows, "Conditions"))

    def costs(axes: Any) -> None:
        markers = dict(zip(_names(models, "ways"), cycle("osD^"), strict=False))
        for model, result in models.items():
            for way, one in result["ways"].items():
                label = way if len(models) == 1 else f"{_short(model)}: {way}"
                spent = max(one["cpu_ms_mean"], 0.01)  # as the figures are rounded; a log axis has no 0
                axes.plot(spent, one["accuracy"], markers[way], color=colours[model], markersize=8, label=label)
        axes.set_xscale("log")
        axes.set(
            xlabel="CPU ms a problem, mean", ylabel="problems solved", title="What a choice costs", ylim=(0, 1.02)
        )
        axes.legend(loc="best", fontsize="small")

    text = (
        "The best of the same candidates, a problem at a time: by the reward model alone, by tests in the order given "
        "until one passes, and by a cascade. Below 1 times, tests are the faster ones. The paper states 10x lower "
        "latency than unit tests; its protocol is not public, and that figure is the paper's."
    )
    return Section(title, text, findings, tables, [("Accuracy by CPU time", costs)])


# Pictures


def _short(name: str) -> str:
    name = one_line(name)
    return name if len(name) <= 24 else f"{name[:11]}…{name[-11:]}"


def _legend_below(axes: Any, columns: int) -> None:
    """Where it hides nothing that is drawn."""
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=columns, frameon=False)


def _svg(draw: Callable[[Any], None]) -> bytes:
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    written = io.BytesIO()
    # equal numbers, equal files
    with rc_context({"svg.hashsalt": "codescaler", "svg.fonttype": "path", **PLAIN_PLOTS}):
        figure = Figure(figsize=(5.4, 4.0), layout="constrained")
        axes = figure.subplots()
        axes.grid(alpha=0.3)
        axes.set_axisbelow(True)
        draw(axes)
        figure.savefig(written, format="svg", metadata={"Date": None})
    return written.getvalue()


# The two pages


def _made(summaries: Sequence[Summary]) -> Iterator[list[str]]:
    labels = _labels([summary.model for summary in summaries])
    for one in summaries:
        yield [
            labels[one.model],
            f"{EVALUATIONS[one.evaluation]}: {one.name}",
            str(one.facts.get("command", "")),
            str(one.facts.get("data_sha256", ""))[:12],
        ]


_MADE = ("model", "evaluation", "command", "SHA-256 of the data")


def _markdown(title: str, found: Sequence[Section], made: Table, plots: Sequence[Sequence[str]]) -> str:
    parts = [f"# {markdown(title)}\n"]
    for section in found:
        parts += [f"- **{markdown(section.title)}**, {markdown(finding)}" for finding in section.findings]
    parts.append("")
    for section, names in zip(found, plots, strict=True):
        parts += [f"## {markdown(section.title)}\n", section.text + "\n"]
        parts += [f"![{markdown(said)}]({name})\n" for (said, _), name in zip(section.plots, names, strict=True)]
        parts += [_markdown_table(table) for table in section.tables]
    parts += ["## How it was measured\n", _markdown_table(made)]
    parts.append(f"codescaler-plugin {__version__}\n")
    return "\n".join(parts)


def _markdown_table(table: Table) -> str:
    caption = f"**{markdown(table.caption)}**\n\n" if table.caption else ""
    return caption + markdown_table(table.head, table.rows, prose=table.prose)


_STYLE = """
:root { --ink: #1b1f24; --soft: #59636e; --line: #d8dee4; --wash: #f6f8fa; }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1rem; max-width: 70rem; color: var(--ink); background: #fff;
  font: 16px/1.5 system-ui, -apple-system, "Segoe UI", sans-serif; }
h1 { font-size: 1.6rem; line-height: 1.2; }
h2 { font-size: 1.25rem; margin: 2.2rem 0 .4rem; overflow-wrap: anywhere; }
p { max-width: 48rem; margin: .4rem 0 .8rem; } .soft { color: var(--soft); }
ul.findings { background: var(--wash); border-left: 4px solid #1f6feb; margin: 1rem 0;
  padding: .7rem 1rem .7rem 2rem; }
ul.findings li { margin: .25rem 0; overflow-wrap: anywhere; }
.wide { overflow-x: auto; margin: .8rem 0; border: 1px solid var(--line); border-radius: 6px; }
table { border-collapse: separate; border-spacing: 0; width: 100%; font-size: .875rem;
  font-variant-numeric: tabular-nums; }
.held { white-space: nowrap; color: var(--soft); font-size: .93em; }
th, td { padding: .35rem .6rem; border-bottom: 1px solid var(--line); text-align: right; vertical-align: top; }
tr:last-child > * { border-bottom: 0; }
th:first-child, td:first-child { text-align: left; position: sticky; left: 0; background: #fff; min-width: 6.5rem; }
thead th, thead th:first-child { background: var(--wash); }
tr.heading th { background: var(--wash); font-weight: 600; text-align: left; }
table.made td, table.made th, table.prose td, table.prose th { text-align: left; }
table.made td:nth-child(3) { font-family: ui-monospace, monospace; font-size: .75rem;
  min-width: 16rem; overflow-wrap: anywhere; }
caption { text-align: left; font-weight: 600; padding: .4rem .6rem; }
td { min-width: 4rem; }
.plots { display: flex; flex-wrap: wrap; gap: .5rem 1rem; }
.plots img { flex: 0 1 32rem; min-width: 0; max-width: 100%; height: auto; }
@media (max-width: 600px) { body { font-size: 15px; padding: .8rem; } table { font-size: .78rem; }
  th, td { padding: .35rem .35rem; } th:first-child, td:first-child { min-width: 5.2rem; } }
@media print { body { max-width: none; font-size: 10pt; padding: 0; } .wide { overflow: visible; border: 0; }
  h2, h2 + p { break-after: avoid; } img, tr, .plots { break-inside: avoid; } table { font-size: 8pt; }
  .plots img { flex-basis: 45%; }
  th:first-child, td:first-child { position: static; } td, th:first-child { min-width: 0; }
  table.made td:nth-child(3) { min-width: 0; } }
"""


def _html(title: str, found: Sequence[Section], made: Table, plots: Sequence[Sequence[bytes]]) -> str:
    write = html_text
    findings = "".join(
        f"<li><strong>{write(section.title)}</strong>, {write(finding)}</li>"
        for section in found
        for finding in section.findings
    )
    parts = [
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{write(title)}</title><style>{_STYLE}</style></head><body>",
        f"<h1>{write(title)}</h1>",
        f'<ul class="findings">{findings}</ul>' if findings else "",
    ]
    for section, drawn in zip(found, plots, strict=True):
        parts += [f"<h2>{write(section.title)}</h2>", f"<p>{write(section.text)}</p>", '<div class="plots">']
        for (said, _), plot in zip(section.plots, drawn, strict=True):
            data = base64.b64encode(plot).decode()
            parts.append(f'<img alt="{write(said)}" src="data:image/svg+xml;base64,{data}">')
        parts.append("</div>")
        parts += [_html_table(table) for table in section.tables]
    parts += [
        "<h2>How it was measured</h2>",
        _html_table(made, "made"),
        f'<p class="soft">codescaler-plugin {write(__version__)}</p></body></html>\n',
    ]
    return "\n".join(parts)


def _html_table(table: Table, kind: str = "") -> str:
    write = html_text
    kind = kind or "prose" * table.prose
    lines = ['<div class="wide"><table' + (f' class="{kind}"' if kind else "") + ">"]
    if table.caption:
        lines.append(f"<caption>{write(table.caption)}</caption>")
    lines.append(
        "<thead><tr>" + "".join(f'<th scope="col">{write(cell)}</th>' for cell in table.head) + "</tr></thead>"
    )
    for row in table.rows:
        if len(row) == 1:
            lines.append(
                f'<tr class="heading"><th scope="rowgroup" colspan="{len(table.head)}">{write(row[0])}</th></tr>'
            )
        else:
            lines.append(f"<tr>{''.join(f'<td>{_held(write(cell))}</td>' for cell in row)}</tr>")
    return "\n".join([*lines, "</table></div>"])


def _held(cell: str) -> str:
    """An interval that is not torn over two lines."""
    return re.sub(r"\([-+.\d]+ to [-+.\d]+\)", r'<span class="held">\g<0></span>', cell)
