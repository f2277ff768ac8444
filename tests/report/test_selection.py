"""Best-of-N, calibration and latency, line by line."""

from pathlib import Path

import pytest

from codescaler_plugin.evaluation.best_of_n import Candidates, evaluate_candidates
from codescaler_plugin.evaluation.calibration import evaluate_calibration
from codescaler_plugin.evaluation.latency import LatencyResult, Multiple, Strategy, Times
from codescaler_plugin.evaluation.summary import Summary, read_summaries, sections, write_report
from codescaler_plugin.testing import FakeScorer
from tests.report.written import Page, kept, measured
from tests.samples import hashed

pytest.importorskip("matplotlib")
pytest.importorskip("sklearn")


def latency(cpu: float, accuracy: float) -> LatencyResult:
    """As benchmarks/bench_latency.py writes it."""

    def strategy(
        times: float, right: float, runs: float, late: float | None, multiple: float | None = None
    ) -> Strategy:
        wall, of_cpu = (Times(cpu * times * more, cpu * times * more, cpu * times * more) for more in (1.5, 1.0))
        of_model = None if multiple is None else Multiple(multiple, multiple)
        return Strategy(right, wall, of_cpu, runs, late, of_model, of_model)

    return LatencyResult(
        {
            "reward model": strategy(1, accuracy, 0, None),
            "tests, one process": strategy(0.25, 0.97, 3.75, 0.0125, 0.24),
            "cascade": strategy(2, 0.96, 1.25, 0, 2.04),
        },
        {"timeout_seconds": 3.0, "gpu": None, "isolation": "<bubblewrap>"},
    )


def test_latency_shows_every_strategy_with_its_conditions_and_costs(tmp_path: Path) -> None:
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
    section.plots[0].draw(axes)
    points = [(float(x), float(y)) for line in axes.lines for x, y in line.get_xydata()]
    slow = [(41.7, 0.613), (41.7 * 0.25, 0.97), (41.7 * 2, 0.96)]
    assert points == [*slow, (0.01, 0.702), (0.01, 0.97), (0.01, 0.96)]  # a log axis has no 0
    assert axes.get_xscale() == "log"
    assert {"0.01", "1", "10"} <= {label.get_text() for label in axes.get_xticklabels()}
    assert not any("$" in label.get_text() for label in axes.get_xticklabels(which="both"))  # formulas are not drawn


def test_a_margin_is_called_reliable_where_enough_examples_hold_it() -> None:
    def said(count: int, wrong: int) -> str:
        margins = [1.0 + n / count for n in range(count)]
        right = [float(n >= wrong) for n in range(count)]
        (section,) = sections([Summary("data", "m", evaluate_calibration(margins, right, range(count)))])
        return section.findings[0]

    assert "a margin of 1.00 or more is 90% reliable: 1.000 (0.912 to 1.000) right on 40 problems" in said(40, 0)
    assert (
        "no margin is shown to be 90% reliable: of 20 examples 20 would be taken for it, 1.000 (0.839 to 1.000) right "
        "on 20 problems" in said(20, 0)
    )
    assert "no margin is shown to be 90% reliable: none of 20 examples would be taken for it" in said(20, 20)


def test_best_of_n_is_compared_with_the_best_that_needs_no_model() -> None:
    groups = [Candidates(str(n), f"P{n}", ("a = 1", "b = 22", "c = 333"), (False, False, True)) for n in range(6)]
    result = evaluate_candidates(groups, FakeScorer(hashed))
    assert result.strongest == "longest"
    [section] = sections([Summary("x", "m", result)])
    assert "above the longest program, which is the best control" in section.findings[0]


def test_a_calibration_is_read_line_by_line() -> None:
    [section] = sections([Summary("x", "m", measured()["calibration"])])
    _, maps, margins = section.tables
    assert maps.head == ("map to a probability", "calibration error", "Brier score")
    assert [row[0] for row in maps.rows] == ["the margin's sigmoid", "isotonic", "Platt"]
    assert margins.head == ("probability", "needs a margin of", "share right", "95% interval", "problems")
    assert [row[0] for row in margins.rows] == ["0.8", "0.9", "0.95", "0.99"]
    assert all(len(row) == 5 and ";" not in "".join(row) for row in margins.rows)
