"""The pages hold every number, need nothing from outside, and take hostile names as text."""

import base64
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from codescaler_plugin.errors import ConfigError, DataError
from codescaler_plugin.evaluation.best_of_n import Candidates, evaluate_candidates
from codescaler_plugin.evaluation.pairwise import evaluate_pairs
from codescaler_plugin.evaluation.rm_bench import bench_numbers
from codescaler_plugin.evaluation.robustness import evaluate_robustness
from codescaler_plugin.records import PreferencePair
from codescaler_plugin.report.document import (
    Summary,
    read_summaries,
    sections,
    write_report,
    write_summary,
)
from codescaler_plugin.selection.calibration import evaluate_calibration
from codescaler_plugin.testing import FakeScorer
from tests.samples import hashed

pytest.importorskip("matplotlib")
pytest.importorskip("sklearn")

PAIRS = [
    PreferencePair(
        f"P{n}", f"def f(a):\n    b = a + {n}\n    return b\n", f"def f(a):\n    return a - {n}\n", "rollout", str(n)
    )
    for n in range(12)
]
GROUPS = [
    Candidates(str(n), f"P{n}", ("a = 1", "b = 22", "c = 333", ""), (n % 2 == 0, True, False, False)) for n in range(6)
]


def measured(shift: str = "") -> dict[str, dict[str, Any]]:
    scorer = FakeScorer(lambda problem, code: hashed(problem + shift, code))
    margins = [hashed(shift, str(n)) for n in range(40)]
    right = [float(hashed("right", str(n)) < 0.8) for n in range(40)]
    return {
        "pairs": evaluate_pairs(PAIRS, scorer, human_bugs=PAIRS[:3]),
        "rm-bench": {
            "rows": 2,
            "answers": "raw",
            "unscored": 0,
            **bench_numbers([[1.0, 2, 3, 1, 1.5, 9], [5.0, 5, 5, 1, 1, 1]], ["code", "chat"], ["cpp", ""]),
        },
        "candidates": evaluate_candidates(GROUPS, scorer),
        "calibration": evaluate_calibration(margins, right, range(40)),
        "robustness": evaluate_robustness(PAIRS, scorer),
    }


def kept(folder: Path, model: str, results: dict[str, dict[str, Any]], name: str = "data") -> Path:
    for evaluation, result in results.items():
        write_summary(
            folder, Summary(evaluation, name, model, result, {"command": f"codescaler evaluate {evaluation}"})
        )
    return folder


class Page(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, Any]]] = []
        self.open: list[str] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: Any) -> None:
        self.tags.append((tag, dict(attributes)))
        if tag not in ("meta", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data + "\n"


def test_both_pages_hold_every_model_and_number_and_nothing_from_outside(tmp_path: Path) -> None:
    one, two = measured(), measured("other")
    page, text = write_report(
        [kept(tmp_path / "one", "some/first", one), kept(tmp_path / "two", "second", two)], tmp_path / "report.html"
    )
    written = page.read_text()
    parsed = Page(written)
    assert parsed.open == []
    for results in (one, two):
        for number in (
            f"{results['pairs']['macro']['value']:.3f}",
            f"{results['pairs']['controls']['longer']['macro']['value']:.3f}",
            f"{results['candidates']['table']['4']['model']['value']:.3f}",
            f"{results['calibration']['methods']['platt']['error']:.3f}",
            f"{results['robustness']['kinds']['praise']['attacked']['value']:.3f}",
            "66.7%",
        ):
            assert number in parsed.text
            assert number in text.read_text()
    for label in ("first", "second"):
        assert sum(tag == "th" for tag, _ in parsed.tags) > 0
        assert f"| {label} |" in text.read_text()
    assert not re.search(r"(?:src|href)=\"(?!data:)", written)
    assert "url(" not in written
    assert "@import" not in written
    assert "<script" not in written
    assert ("meta", {"name": "viewport", "content": "width=device-width, initial-scale=1"}) in parsed.tags
    pictures = [values["src"] for tag, values in parsed.tags if tag == "img"]
    assert len(pictures) == 8  # two of pairs, one for each model where they do not fit in one
    for place, picture in zip(("0_0", "0_1", "1_0", "1_1", "2_0", "3_0", "3_1", "4_0"), pictures, strict=True):
        svg = base64.b64decode(picture.removeprefix("data:image/svg+xml;base64,"))
        assert ElementTree.fromstring(svg).tag.endswith("svg")
        assert (tmp_path / "report_plots" / f"{place}.svg").read_bytes() == svg
        assert f"(report_plots/{place}.svg)" in text.read_text()
    again = write_report([tmp_path / "one", tmp_path / "two"], tmp_path / "again.html")[0]
    assert again.read_text() == written  # equal numbers, equal page


def latency(cpu: float, accuracy: float) -> dict[str, Any]:
    """As benchmarks/bench_latency.py writes it."""

    def way(times: float, right: float, runs: float, late: float | None) -> dict[str, Any]:
        clocks = {
            f"{clock}_ms_{place}": cpu * times * more
            for clock, more in (("wall", 1.5), ("cpu", 1.0))
            for place in ("p50", "p95", "mean")
        }
        return {"accuracy": right, **clocks, "programs_run": runs, "share_of_runs_that_time_out": late}

    return {
        "ways": {
            "reward model": way(1, accuracy, 0, None),
            "tests, one process": way(0.25, 0.97, 3.75, 0.0125),
            "cascade": way(2, 0.96, 1.25, 0),
        },
        "multiple_of_reward_model": {
            "cpu": {"tests, one process": {"median": 0.24}, "cascade": {"median": 2.04}},
        },
        "conditions": {"timeout_seconds": 3.0, "gpu": None, "cage": "<bubblewrap>"},
    }


def test_latency_shows_every_way_with_its_conditions_and_what_it_costs(tmp_path: Path) -> None:
    results = {"some/first": latency(41.7, 0.613), "second": latency(0.0, 0.702)}
    for model, result in results.items():
        kept(tmp_path / model, model, {"latency": result}, "miniature")
    page, text = write_report([tmp_path / model for model in results], tmp_path / "report.html")
    written, parsed = text.read_text(), Page(page.read_text())
    assert "| reward model | 0.613 | 62.6 | 62.6 | 41.7 | 41.7 | 0.00 | - |" in written
    assert "| tests, one process | 0.970 | 15.6 | 15.6 | 10.4 | 10.4 | 3.75 | 1.2% |" in written
    assert "| gpu | none | none |" in written
    assert "| timeout seconds | 3.0 | 3.0 |" in written
    assert (
        "first: 0.970 solved by tests, one process, in 0.24 times the CPU of the reward model alone, which solves 0.613"
        in written
    )
    assert "that figure is the paper's" in written
    for said in ("Latency: miniature", "<bubblewrap>", "A problem with first", "A problem with second"):
        assert said in parsed.text
    assert sum(tag == "img" for tag, _ in parsed.tags) == 1
    (section,) = sections(read_summaries([tmp_path / model for model in results]))
    axes = pytest.importorskip("matplotlib.figure").Figure().subplots()
    section.plots[0][1](axes)
    points = [(float(x), float(y)) for line in axes.lines for x, y in line.get_xydata()]
    slow = [(41.7, 0.613), (41.7 * 0.25, 0.97), (41.7 * 2, 0.96)]
    assert points == [*slow, (0.01, 0.702), (0.01, 0.97), (0.01, 0.96)]  # a log axis has no 0
    assert axes.get_xscale() == "log"


def test_names_are_text(tmp_path: Path) -> None:
    name = "<script>alert(1)</script>|x"
    page, text = write_report([kept(tmp_path / "one", f"a/{name}", measured())], tmp_path / "report.html")
    assert "<script" not in page.read_text()
    assert "<script" not in text.read_text()
    for line in text.read_text().splitlines():
        if line.startswith("| pairs |"):
            assert line.count("|") == 3


def test_models_that_lack_an_evaluation_and_models_of_one_name(tmp_path: Path) -> None:
    results = measured()
    kept(tmp_path / "one", "a/model", results)
    kept(tmp_path / "two", "b/model", {"pairs": results["pairs"]})
    found = sections(read_summaries([tmp_path / "one", tmp_path / "two"]))
    assert list(found[0].tables[0].head) == ["", "a/model", "b/model"]
    assert list(found[1].tables[0].head) == ["", "a/model"]
    kept(tmp_path / "three", "a/model", {"pairs": results["pairs"]})
    with pytest.raises(DataError, match="a/model"):
        sections(read_summaries([tmp_path / "one", tmp_path / "three"]))


def test_what_was_measured_on_other_data_stands_apart(tmp_path: Path) -> None:
    kept(tmp_path / "one", "a", {"pairs": measured()["pairs"]}, "mbpp")
    kept(tmp_path / "one", "a", {"pairs": measured("x")["pairs"]}, "humaneval")
    assert [one.title for one in sections(read_summaries([tmp_path / "one"]))] == ["Pairs: humaneval", "Pairs: mbpp"]


def test_a_model_of_length_is_told_to_be_one() -> None:
    pairs = [PreferencePair(f"P{n}", "x = 1\n" * (n % 5 + 1), "y\n", "rollout", str(n)) for n in range(20)]
    result = evaluate_pairs(pairs, FakeScorer(lambda _, code: len(code)))
    (section,) = sections([Summary("pairs", "data", "length", result)])
    assert "may be chance" in section.findings[0]
    assert "longer is right" in section.findings[0]


def test_every_control_has_its_line_with_what_it_would_have_taken(tmp_path: Path) -> None:
    pairs = [PreferencePair(f"P{n}", f"x = {n}", f"y = {n}", "rollout", str(n)) for n in range(12)]
    page, text = write_report(
        [kept(tmp_path / "one", "bare", {"pairs": evaluate_pairs(pairs, FakeScorer(hashed))})],
        tmp_path / "report.html",
    )
    for line in (
        "| mean log-probability | not measured: --base-model MODEL |",
        "| prefers the longer | not measured: no problem has two |",
        "| prefers the rewritten | not measured: none can be rewritten |",
        "| accuracy | not measured: --human-bugs FILE |",
    ):
        assert line in text.read_text()
    shown = Page(page.read_text()).text
    assert "not measured: --base-model MODEL" in shown
    assert "Bugs that people made" in shown
    both = kept(tmp_path / "two", "whole", {"pairs": measured()["pairs"]})
    text = write_report([tmp_path / "one", both], tmp_path / "both.html")[1]
    (line,) = (line for line in text.read_text().splitlines() if line.startswith("| accuracy | not measured"))
    assert " to " in line.split("|")[3]


def test_a_margin_is_called_reliable_where_enough_examples_hold_it() -> None:
    def said(count: int, wrong: int) -> str:
        margins = [1.0 + n / count for n in range(count)]
        right = [float(n >= wrong) for n in range(count)]
        (section,) = sections(
            [Summary("calibration", "data", "m", evaluate_calibration(margins, right, range(count)))]
        )
        return section.findings[0]

    assert "a margin of 1.00 or more is 90% reliable: 1.000 (0.912 to 1.000) right on 40 problems" in said(40, 0)
    assert (
        "no margin is shown to be 90% reliable: of 20 examples 20 would be taken for it, 1.000 (0.839 to 1.000) right "
        "on 20 problems" in said(20, 0)
    )
    assert "no margin is shown to be 90% reliable: none of 20 examples would be taken for it" in said(20, 20)


def test_a_summary_of_another_model_or_other_data_is_not_overwritten(tmp_path: Path) -> None:
    first = Summary("rm-bench", "data", "one", {"rows": 1}, {"data_sha256": "a"})
    path = write_summary(tmp_path, first)
    write_summary(tmp_path, Summary("rm-bench", "data", "one", {"rows": 2}, {"data_sha256": "a"}))
    before = path.read_text()
    assert '"rows": 2' in before
    for model, data in (("two", "a"), ("one", "b")):
        with pytest.raises(ConfigError, match=r"rm-bench\.data\.summary\.json is of the model one .*--name"):
            write_summary(tmp_path, Summary("rm-bench", "data", model, {}, {"data_sha256": data}))
    assert path.read_text() == before


def test_what_is_no_folder_of_summaries(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="evaluate"):
        write_report([tmp_path], tmp_path / "report.html")
    (tmp_path / "x.summary.json").write_text('{"evaluation": "pairs"}')
    with pytest.raises(DataError, match=r"x\.summary\.json"):
        read_summaries([tmp_path])


@pytest.mark.parametrize("strongest", ["longer", "shorter", "shallow", "log_probability"])
def test_the_headline_and_the_plot_compare_with_the_strongest_control(tmp_path: Path, strongest: str) -> None:
    said = {
        "longer": "“the longer is right”",
        "shorter": "“the shorter is right”",
        "shallow": "length and style, fitted",
        "log_probability": "mean log-probability",
    }
    result = evaluate_pairs(PAIRS, FakeScorer(hashed))
    result["controls"]["log_probability"] = {
        "base": "b",
        "pairs": 12,
        **result["controls"]["longer"],
        "model": result["macro"],
    }
    result["above"]["log_probability"] = dict(result["above"]["longer"])
    gain = {"value": -0.123, "low": -0.2, "high": -0.1, "rows": 12, "problems": 12}
    result["above"][strongest] = {"all": gain, "macro": gain}
    result["strongest"] = strongest
    [section] = sections([Summary("pairs", "x", "m", result)])
    [headline] = section.findings
    assert f"-0.123 (-0.200 to -0.100) above the best of 4 controls, {said[strongest]}: it is worse." in headline
    rows = [row[0] for row in section.tables[0].rows]
    assert {*said.values(), *(f"over {one}" for one in said.values())} <= set(rows)
    drawn: list[str] = []

    class Axes:
        def set_yticks(self, _: Any, names: list[str]) -> None:
            drawn.extend(names)

        def __getattr__(self, _: str) -> Any:
            return lambda *_, **__: None

    section.plots[0][1](Axes())
    assert len(drawn) == 5  # four controls and the model


def test_best_of_n_is_compared_with_the_best_that_needs_no_model() -> None:
    groups = [Candidates(str(n), f"P{n}", ("a = 1", "b = 22", "c = 333"), (False, False, True)) for n in range(6)]
    result = evaluate_candidates(groups, FakeScorer(hashed))
    assert result["strongest"] == "longest"
    [section] = sections([Summary("candidates", "x", "m", result)])
    assert "above the longest program, which is the best control" in section.findings[0]


def test_a_summary_without_its_strongest_control_is_to_be_made_anew(tmp_path: Path) -> None:
    result = evaluate_pairs(PAIRS, FakeScorer(hashed))
    del result["strongest"]
    write_summary(tmp_path, Summary("pairs", "x", "m", result))
    with pytest.raises(DataError, match="run its command again"):
        read_summaries([tmp_path])


def test_a_calibration_is_read_line_by_line() -> None:
    [section] = sections([Summary("calibration", "x", "m", measured()["calibration"])])
    _, maps, margins = section.tables
    assert maps.head == ("map to a probability", "calibration error", "Brier score")
    assert [row[0] for row in maps.rows] == ["the margin's sigmoid", "isotonic", "Platt"]
    assert margins.head == ("probability", "needs a margin of", "share right", "95% interval", "problems")
    assert [row[0] for row in margins.rows] == ["0.8", "0.9", "0.95", "0.99"]
    assert all(len(row) == 5 and ";" not in "".join(row) for row in margins.rows)
