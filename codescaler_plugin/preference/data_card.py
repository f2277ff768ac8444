"""The data card of a set of pairs: contents, origin, and how well shallow baselines predict the label.

It reports what the card of the paper's data leaves out: duplicates, pairs per problem, pass rates of the rejected
programs, contamination, and the accuracy of length, style and likelihood alone.
"""

import hashlib
import json
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import fmean, quantiles
from typing import IO, Any

from codescaler_plugin import __version__
from codescaler_plugin.data.outputs import (
    check_folder,
    check_output,
    check_own,
    locked_folder,
    write_output,
    write_text,
)
from codescaler_plugin.errors import ConfigError
from codescaler_plugin.extras import require
from codescaler_plugin.preference.baselines import log_probability_accuracy, shallow_accuracies
from codescaler_plugin.records import PreferencePair
from codescaler_plugin.safety import PLAIN_PLOTS, markdown, markdown_block, markdown_table, one_line

_SHOWN = 20  # steps of a source, and matches with evaluation sets


def write_data_card(
    pairs: Sequence[PreferencePair],
    folder: Path,
    *,
    title: str = "Preference pairs",
    reports: Sequence[Mapping[str, Any]] = (),
    inputs: Sequence[Path] = (),
    outputs: Sequence[Path] = (),
    model: str | None = None,
) -> Path:
    """Write `README.md`, `data_card.json` and `data_card.png` into a folder; returns the path of the page.

    Args:
        pairs: n pairs, at least one.
        folder: folder for the files. It is made if it does not exist.
        title: title of the page.
        reports: reports of the stages in their order: `MiningReport` and `AugmentationReport` as dicts, each with the
            `command` that ran it if known.
        inputs: files that the pairs were made from. The card holds their names and SHA-256.
        outputs: files that hold the pairs.
        model: hub id or directory of a causal language model whose log-probability is measured as a baseline. The
            default is none.

    Raises:
        ConfigError: there are no pairs, or the folder cannot be written.
        MissingExtraError: matplotlib or scikit-learn is not installed.

    Example:
        >>> import tempfile
        >>> from codescaler_plugin.records import PreferencePair
        >>> pairs = [PreferencePair("Add.", "x = 1", "x = 2", "rollout")]
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     print(write_data_card(pairs, Path(folder), title="Mine").read_text().splitlines()[0])
        # Mine
    """
    check_card(folder, inputs)
    if not pairs:
        raise ConfigError("no pairs: there is nothing to describe in a data card")
    facts = card_facts(pairs, reports=reports, inputs=inputs, outputs=outputs, model=model)
    from matplotlib import rc_context

    page = folder / "README.md"
    with locked_folder(folder):
        write_text(folder / "data_card.json", json.dumps(facts, indent=2) + "\n")
        with write_output(folder / "data_card.png", binary=True) as file, rc_context(PLAIN_PLOTS):
            _plot(pairs, facts, file)
        write_text(page, _markdown(title, facts))
    return page


def check_card(folder: Path, inputs: Sequence[str | Path] = ()) -> None:
    """Check that `write_data_card` can write into `folder`, before the pairs are made."""
    require("the data card", "report", "matplotlib", "sklearn")
    check_folder(folder)
    for name in ("README.md", "data_card.json", "data_card.png"):
        check_output(folder / name, [path for path in inputs if Path(path).is_file()])
    check_own(folder / "README.md", "Made by codescaler-plugin")


def card_facts(
    pairs: Sequence[PreferencePair],
    *,
    reports: Sequence[Mapping[str, Any]] = (),
    inputs: Sequence[Path] = (),
    outputs: Sequence[Path] = (),
    model: str | None = None,
) -> dict[str, Any]:
    """The contents of the card as JSON types; for the arguments see `write_data_card`."""
    per_problem = Counter((pair.problem_id, pair.problem) for pair in pairs)
    rates = [1 - pair.margin for pair in pairs if pair.margin is not None]
    steps: dict[str, Counter[str]] = defaultdict(Counter)
    kinds: dict[str, Counter[str]] = defaultdict(Counter)
    for pair in pairs:
        steps[pair.source or "unknown"][str(pair.step) if pair.step is not None else "unknown"] += 1
        kinds[pair.kind][pair.split] += 1
    baselines = {name: asdict(accuracy) for name, accuracy in shallow_accuracies(pairs).items()}
    if model is not None:
        baselines[f"log-probability of {Path(model).name}"] = asdict(log_probability_accuracy(pairs, model))
    return {
        "version": __version__,
        "commands": [report["command"] for report in reports if report.get("command")],
        "inputs": [_file(path) for path in inputs],
        "outputs": [_file(path) for path in outputs],
        "pairs": len(pairs),
        "problems": len(per_problem),
        "splits": dict(sorted(Counter(pair.split for pair in pairs).items(), reverse=True)),  # train first
        "kinds": {kind: dict(counts) for kind, counts in kinds.items()},
        "sources": {source: dict(counts) for source, counts in steps.items()},
        "pairs_per_problem": _spread(list(per_problem.values())),
        "pass_rate_of_rejected": {
            "tenths": [sum(min(int(rate * 10 + 1e-9), 9) == tenth for rate in rates) for tenth in range(10)],
            "unknown": len(pairs) - len(rates),
            "near_misses": sum(rate >= 0.5 for rate in rates),
        },
        "characters": {
            name: _spread([len(getattr(pair, name)) for pair in pairs]) for name in ("problem", "chosen", "rejected")
        },
        "baselines": baselines,
        "reports": [dict(report) for report in reports],
    }


def _file(path: Path) -> dict[str, Any]:
    """Name (without the folder), size and hash of a file; of a folder, those of its files in the order of names."""
    digest, size = hashlib.sha256(), 0
    files = sorted(file for file in path.iterdir() if file.is_file()) if path.is_dir() else [path]
    for file in files:
        if not file.is_file():  # a hub id
            return {"name": str(path), "bytes": None, "sha256": None}
        with file.open("rb") as stream:
            hashlib.file_digest(stream, lambda: digest)
            size += stream.tell()
    return {"name": path.name, "bytes": size, "sha256": digest.hexdigest()}


def _spread(values: Sequence[int]) -> dict[str, float]:
    cuts = quantiles(values, n=20, method="inclusive") if len(values) > 1 else [float(values[0])] * 19
    return {
        "min": min(values),
        "5%": round(cuts[0], 1),
        "median": round(cuts[9], 1),
        "mean": round(fmean(values), 1),
        "95%": round(cuts[18], 1),
        "max": max(values),
    }


# The page


def _table(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    return markdown_table(
        head, [[f"{cell:,}" if isinstance(cell, int) else str(cell) for cell in row] for row in rows]
    )


def _percent(part: float, whole: float) -> str:
    return f"{part / whole:.1%}" if whole else "-"


def _markdown(title: str, facts: Mapping[str, Any]) -> str:
    total, rates = facts["pairs"], facts["pass_rate_of_rejected"]
    known = total - rates["unknown"]
    sizes = {"pairs per problem": facts["pairs_per_problem"]}
    sizes |= {f"characters: {name}": spread for name, spread in facts["characters"].items()}
    tenths = {f"{tenth * 10}% to {tenth * 10 + 10}%": count for tenth, count in enumerate(rates["tenths"])}
    tenths["unknown"] = rates["unknown"]
    parts = [
        f"# {markdown(title)}\n",
        f"{total:,} pairs of a right and a wrong program over {facts['problems']:,} problems; "
        f"{_percent(rates['near_misses'], known)} of the rejected programs of known pass rate pass at least half of "
        f"their tests. "
        f"Made by codescaler-plugin {facts['version']}"
        + (":\n\n" + markdown_block("\n".join(facts["commands"]), "bash") if facts["commands"] else ".\n"),
        "![Overview](data_card.png)\n",
        "## Kinds and splits\n",
        "`rollout`: both programs come from a policy. For the other kinds see `codescaler augment --help`.\n",
        _kinds(facts, total),
        "## Sources and steps\n",
        _sources(facts),
        "## Sizes\n",
        _table(["", *facts["pairs_per_problem"]], [[name, *spread.values()] for name, spread in sizes.items()]),
        "## Pass rates of the rejected programs\n",
        _table(
            ["tests passed", "pairs", "share"],
            [[name, count, _percent(count, total)] for name, count in tenths.items() if count],
        ),
        "## Shallow baselines\n",
        "Share of pairs whose right program the baseline ranks first, on problems it was not fitted on; a tie counts "
        "half. A baseline at 0.5 predicts nothing. A reward model that is not clearly above the best may have learned "
        "no more than it. `all` is a logistic regression on the features above it, `all: <kind>` one on the "
        "pairs of that kind.\n",
        _table(
            ["baseline", "accuracy", "95% interval", "pairs"],
            [
                [name, f"{result['share']:.3f}", f"{result['low']:.3f} to {result['high']:.3f}", result["pairs"]]
                for name, result in facts["baselines"].items()
            ],
        ),
    ]
    for number, report in enumerate(facts["reports"], start=1):
        parts += _report(number, report)
    if facts["inputs"] or facts["outputs"]:
        parts += [
            "## Files\n",
            _table(
                ["file", "bytes", "SHA-256"],
                [
                    [f"{side}: {file['name']}", "-" if file["bytes"] is None else file["bytes"], file["sha256"] or "-"]
                    for side in ("inputs", "outputs")
                    for file in facts[side]
                ],
            ),
        ]
    return "\n".join(parts)


def _kinds(facts: Mapping[str, Any], total: int) -> str:
    splits = list(facts["splits"])
    rows = [
        [kind, *(counts.get(split, 0) for split in splits), _percent(sum(counts.values()), total)]
        for kind, counts in facts["kinds"].items()
    ]
    return _table(["kind", *splits, "share"], [*rows, ["all", *facts["splits"].values(), "100.0%"]])


def _sources(facts: Mapping[str, Any]) -> str:
    rows = []
    for source, counts in sorted(facts["sources"].items(), key=lambda item: -sum(item[1].values())):
        steps = sorted(int(step) for step in counts if step != "unknown")
        if len(counts) > _SHOWN:
            shown = f"{steps[0]} to {steps[-1]} ({len(steps)} steps)" + (", unknown" if "unknown" in counts else "")
            rows.append([source, shown, sum(counts.values())])
        else:
            order = [str(step) for step in steps] + ["unknown"] * ("unknown" in counts)
            rows += [[source, step, counts[step]] for step in order]
    return _table(["source", "step", "pairs"], rows)


def _report(number: int, report: Mapping[str, Any]) -> list[str]:
    """The section of a stage."""
    given = report.get("settings", {})
    settings = markdown(", ".join(f"{name} = {json.dumps(value)}" for name, value in given.items()))
    if "executed" in report:
        names = list(dict.fromkeys(name for counts in report["kinds"].values() for name in counts))
        return [
            f"## Stage {number}: augmentation\n",
            f"Settings: {settings}. {report['executed']:,} programs were executed. Of {report['pairs']:,} input pairs "
            f"{report['no_tests']:,} had no tests and {report['not_python']:,} were not Python.\n",
            _table(
                ["kind", *names],
                [[kind, *(counts.get(name, 0) for name in names)] for kind, counts in report["kinds"].items()],
            ),
        ]
    parts = [
        f"## Stage {number}: mining\n",
        f"Settings: {settings}.\n",
        _table(
            ["rows", "count"],
            [
                ["read", report["rows"]],
                *([f"invalid: {status}", count] for status, count in report["invalid"].items()),
                *([f"dropped: {reason}", count] for reason, count in report["dropped"].items()),
            ],
        ),
        _table(["problems", "count"], [[name, count] for name, count in report["problems"].items()]),
    ]
    if clusters := report["near_clusters"]:
        parts.append(
            f"Groups of nearly identical problem texts, each on one side of the split: {len(clusters):,}, the largest "
            f"of {clusters[0]:,}.\n"
        )
    sets = given.get("evaluation") or {}
    if not sets:
        return [*parts, "Contamination: not checked against any evaluation set.\n"]
    matches = report["contamination"]
    against = ", ".join(f"{markdown(name)} ({count:,} problems)" for name, count in sets.items())
    parts.append(f"Contamination: {len(matches):,} problems removed, checked against {against}.\n")
    if matches:
        rows = [
            [match["problem"][:60], match["evaluation"], match["kind"], f"{match['value']:.2f}"] for match in matches
        ]
        parts.append(_table(["removed problem", "evaluation set", "match", "similarity"], rows[:_SHOWN]))
        if len(rows) > _SHOWN:
            parts.append(f"And {len(rows) - _SHOWN:,} more in `data_card.json`.\n")
    return parts


# The plots


def _plot(pairs: Sequence[PreferencePair], facts: Mapping[str, Any], file: IO[bytes]) -> None:
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    last = max(3.6, 0.25 * len(facts["baselines"]))  # inches; a line of text each
    figure = Figure(figsize=(12, 7.4 + last), layout="constrained")
    rows = figure.subplots(3, 2, height_ratios=(3.7, 3.7, last))
    (kinds, rates), (lengths, problems), (steps, baselines) = rows

    names = list(facts["kinds"])[::-1]
    left = [0] * len(names)
    for split, colour in zip(facts["splits"], ("tab:blue", "tab:orange", "tab:green"), strict=False):
        counts = [facts["kinds"][name].get(split, 0) for name in names]
        kinds.barh(range(len(names)), counts, height=0.7, left=left, color=colour, label=split.replace("_", " "))
        left = [before + count for before, count in zip(left, counts, strict=True)]
    kinds.set(title="Kinds and splits", xlabel="pairs", ylim=(-1, len(names)))
    kinds.set_yticks(range(len(names)), [one_line(name, 60) for name in names])
    kinds.legend(loc="lower right", ncols=len(facts["splits"]))

    tenths = facts["pass_rate_of_rejected"]["tenths"]
    rates.bar([tenth / 10 + 0.05 for tenth in range(10)], tenths, width=0.092, color="tab:red")
    rates.axvline(0.5, color="black", linestyle=":", label="near misses: right of this line")
    unknown = facts["pass_rate_of_rejected"]["unknown"]
    rates.set(title="Pass rates of the rejected programs" + (f" ({unknown:,} unknown)" if unknown else ""))
    rates.set(xlabel="share of tests", ylabel="pairs", xlim=(0, 1))
    rates.legend(loc="upper center")

    sides = [[len(pair.chosen) for pair in pairs], [len(pair.rejected) for pair in pairs]]
    top = max(*(spread["95%"] for name, spread in facts["characters"].items() if name != "problem"), 1) * 1.3
    bins = [top * edge / 40 for edge in range(41)]
    for values, name, colour in zip(sides, ("chosen", "rejected"), ("tab:green", "tab:red"), strict=True):
        lengths.hist(values, bins=bins, histtype="step", color=colour, linewidth=1.6, label=name)
    beyond = sum(value > top for values in sides for value in values)
    lengths.set(title=f"Lengths ({beyond:,} programs are longer than shown)", xlabel="characters", ylabel="programs")
    lengths.legend()

    each = list(Counter((pair.problem_id, pair.problem) for pair in pairs).values())
    width = max(1, -(-max(each) // 30))
    problems.hist(
        each, bins=[edge - 0.5 for edge in range(1, max(each) + width + 1, width)], color="tab:blue", rwidth=0.9
    )
    problems.set(title="Pairs per problem", xlabel="pairs", ylabel="problems")
    problems.xaxis.set_major_locator(MaxNLocator(integer=True))

    known = [(source, sorted(set(counts) - {"unknown"}, key=int)) for source, counts in facts["sources"].items()]
    known = [(source, order) for source, order in known if order]
    for source, order in known[:8]:
        counts = [facts["sources"][source][step] for step in order]
        steps.plot(list(map(int, order)), counts, "o-", markersize=3, label=one_line(source, 60))
    steps.set(title="Pairs by training step", xlabel="step of the policy", ylabel="pairs")
    if known:
        steps.set_ylim(bottom=0)
        steps.xaxis.set_major_locator(MaxNLocator(integer=True))
        steps.legend()
    else:
        steps.text(0.5, 0.5, "no step is known", ha="center", va="center", transform=steps.transAxes)

    shown = list(facts["baselines"].items())[::-1]
    for height, (_, result) in enumerate(shown):
        baselines.plot([result["low"], result["high"]], [height, height], color="tab:gray")
        baselines.plot(result["share"], height, "o", color="tab:purple")
    baselines.axvline(0.5, color="black", linestyle=":")
    baselines.set_yticks(range(len(shown)), [one_line(name, 60) for name, _ in shown], fontsize=8)
    baselines.set(title="Shallow baselines", xlabel="pair accuracy", xlim=(0, 1.02))

    for axes in (kinds, rates, lengths, problems, steps, baselines):
        axes.grid(alpha=0.3)
        axes.set_axisbelow(True)
    figure.savefig(file, dpi=100)
