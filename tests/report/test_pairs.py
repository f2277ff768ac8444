"""Accuracy on pairs is compared with every control."""

from pathlib import Path
from typing import Any

import pytest

from codescaler_plugin.evaluation.pairwise import evaluate_pairs
from codescaler_plugin.records import PreferencePair
from codescaler_plugin.report.document import sections, write_report
from codescaler_plugin.report.summary import Summary
from codescaler_plugin.testing import FakeScorer
from tests.report.written import PAIRS, Page, kept, measured
from tests.samples import hashed

pytest.importorskip("matplotlib")
pytest.importorskip("sklearn")


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
