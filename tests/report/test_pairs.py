"""Accuracy on pairs is compared with every control."""

from dataclasses import replace
from pathlib import Path
from time import perf_counter
from typing import Any

import pytest

from codescaler_plugin.evaluation.pair_result import Control, ControlName
from codescaler_plugin.evaluation.pairwise import evaluate_pairs
from codescaler_plugin.evaluation.summary import Summary, sections, write_report
from codescaler_plugin.evaluation.worst_pairs import worst_pair
from codescaler_plugin.intervals import Mean
from codescaler_plugin.records import PreferencePair
from codescaler_plugin.testing import FakeScorer
from tests.report.written import PAIRS, Page, kept, measured
from tests.samples import hashed

pytest.importorskip("matplotlib")
pytest.importorskip("sklearn")


def test_a_model_of_length_is_told_to_be_one() -> None:
    pairs = [PreferencePair(f"P{n}", "x = 1\n" * (n % 5 + 1), "y\n", "rollout", str(n)) for n in range(20)]
    result = evaluate_pairs(pairs, FakeScorer(lambda _, code: len(code)))
    (section,) = sections([Summary("data", "length", result)])
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
    shown = " ".join(Page(page.read_text()).text.split())
    assert "not measured: --base-model MODEL" in shown
    assert "Bugs that people made" in shown
    both = kept(tmp_path / "two", "whole", {"pairs": measured()["pairs"]})
    text = write_report([tmp_path / "one", both], tmp_path / "both.html")[1]
    (line,) = (line for line in text.read_text().splitlines() if line.startswith("| accuracy | not measured"))
    assert " to " in line.split("|")[3]


@pytest.mark.parametrize("strongest", ["longer", "shorter", "shallow", "log_probability"])
def test_the_headline_and_the_plot_compare_with_the_strongest_control(tmp_path: Path, strongest: ControlName) -> None:
    said = {
        "longer": "“the longer is right”",
        "shorter": "“the shorter is right”",
        "shallow": "length and style, fitted",
        "log_probability": "mean log-probability",
    }
    result = evaluate_pairs(PAIRS, FakeScorer(hashed))
    controls = {**result.controls, "log_probability": result.controls["longer"]}
    gain = Mean(-0.923, -0.95, -0.9, 12, 12)  # below what any control of these pairs gives
    controls[strongest] = replace(controls[strongest], gain=gain, macro_gain=gain)
    result = replace(result, controls=controls)
    assert result.strongest == strongest
    [section] = sections([Summary("x", "m", result)])
    [headline] = section.findings
    assert f"-0.923 (-0.950 to -0.900) above the best of 4 controls, {said[strongest]}: it is worse." in headline
    rows = [row[0] for row in section.tables[0].rows]
    assert {*said.values(), *(f"over {one}" for one in said.values())} <= set(rows)
    drawn: list[str] = []

    class Axes:
        def set_yticks(self, _: Any, names: list[str]) -> None:
            drawn.extend(names)

        def __getattr__(self, _: str) -> Any:
            return lambda *_, **__: None

    section.plots[0].draw(Axes())
    assert len(drawn) == 5  # four controls and the model


def test_a_run_with_little_above_style_is_not_praised_for_what_it_has_above_length() -> None:
    """0.787 against 0.775 of a fitted rule: what it has above length, 0.200, is not in the headline."""

    def mean(value: float, low: float, high: float) -> Mean:
        return Mean(value, low, high, 500, 120)

    def control(macro: float, above: float, spread: float) -> Control:
        of_rule, of_gain = mean(macro, macro - 0.04, macro + 0.04), mean(above, above - spread, above + spread)
        return Control(of_rule, of_rule, mean(0.787, 0.74, 0.83), of_gain, of_gain)

    result = replace(
        evaluate_pairs(PAIRS, FakeScorer(hashed)),
        macro=mean(0.787, 0.74, 0.83),
        controls={
            "longer": control(0.587, 0.200, 0.06),
            "shorter": control(0.413, 0.374, 0.06),
            "shallow": control(0.775, 0.012, 0.03),
        },
    )
    [headline] = result.section("m").findings
    assert headline == (
        "m: 0.787 of a problem's pairs in the right order, +0.012 (-0.018 to +0.042) above the best of 3 controls, "
        "length and style, fitted: the interval holds 0, so this may be chance."
    )
    assert "0.200" not in headline


def test_the_worst_pairs_are_shown_with_the_reason_and_their_diff(tmp_path: Path) -> None:
    right = "def f(a):\n    return a + 1\n"
    pairs = [
        PreferencePair("Add <b>one</b>.", right, right.replace("+", "-"), "operator", "one", margin=0.25),
        PreferencePair("Add two.", right, right * 3 + "# ```\n# <script>alert(1)</script>\n", "rollout", "two"),
        PreferencePair("Add three.", right, "return 3\n" * 200, "unaligned", "three"),
        PreferencePair("Add four.", right, "x = 4\n", "rollout", "four"),
    ]
    scores = {pair.rejected.strip(): score for pair, score in zip(pairs, (2.0, 3.0, 1.5, 0.0), strict=True)}
    result = evaluate_pairs(pairs, FakeScorer({right.strip(): 1.0, **scores}))
    assert [(worst.problem_id, worst.gap) for worst in result.worst] == [("two", 2.0), ("one", 1.0), ("three", 0.5)]
    two, one, three = result.worst
    assert "longer: " in two.reason
    assert "The mutation “operator” broke it. They differ in one line. Their lengths are equal." in one.reason
    assert "passes 75% of the tests" in one.reason
    assert one.diff.splitlines()[3:] == [" def f(a):", "-    return a - 1", "+    return a + 1"]
    assert "solves another problem. They have little in common." in three.reason
    assert len(three.diff.splitlines()) == 61
    assert three.diff.endswith("… 144 more lines")
    page, text = write_report([kept(tmp_path / "one", "m", {"pairs": result})], tmp_path / "report.html")
    parsed = Page(page.read_text())
    assert parsed.open == []
    assert sum(tag == "details" for tag, _ in parsed.tags) == 4  # one for the model, with three inside
    assert "m: the 3 pairs that it gets most wrong, and why that may be" in parsed.text
    for shown in (parsed.text, text.read_text()):
        assert "1. two: wrong +3.00, right +1.00 (rollout)" in shown
        assert "-    return a - 1" in shown
    assert "<script" not in page.read_text()
    assert "````diff" in text.read_text()  # a fence longer than the one in the program


def test_no_pair_is_called_worst_where_none_is_wrong() -> None:
    right = evaluate_pairs(PAIRS, FakeScorer(lambda _, code: float("b = " in code)))
    tied = evaluate_pairs(PAIRS, FakeScorer(lambda *_: 0.0))
    assert right.worst == tied.worst == ()
    [fold] = right.section("m").folds
    assert (fold.title, fold.folds) == ("m: no wrong program scores above its right one", ())
    assert len(evaluate_pairs(PAIRS, FakeScorer(lambda _, code: -float("b = " in code))).worst) == 10


def test_programs_of_many_equal_lines_are_compared_in_bounded_time() -> None:
    right, wrong = "a = 1\n" * 100_000, "a = 1\nb = 1\n" * 50_000
    start = perf_counter()
    worst = worst_pair(PreferencePair("P", right, wrong, "rollout"), 0.0, 1.0, False)
    assert perf_counter() - start < 30  # cubic: hours
    assert (worst.chosen_characters, worst.rejected_characters) == (600_000, 600_000)
    assert len(worst.diff) < 61 * 161


def test_the_diff_of_long_programs_begins_where_they_differ() -> None:
    above = "".join(f"x{n} = {n}\n" for n in range(5000))
    pair = worst_pair(
        PreferencePair("p", f"{above}y = 1\n", f"{above}y = 2\n", "rollout"), 0.0, 1.0, shallow_agrees=False
    )
    assert pair.diff.splitlines()[2:] == [
        "@@ line 4998 @@",
        " x4997 = 4997",
        " x4998 = 4998",
        " x4999 = 4999",
        "-y = 2",
        "+y = 1",
    ]
    assert pair.reason.startswith("They differ in one line.")
