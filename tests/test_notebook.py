"""Records as notebooks show them: everything in one element, nothing that runs, every text escaped and bounded."""

from dataclasses import replace

import pytest

from codescaler_plugin import CodeScaler, Judgement, Status, best_of_n
from codescaler_plugin.errors import Failure, FailureKind
from codescaler_plugin.notebook import MAX_SHOWN, number
from codescaler_plugin.records import Fault, Verdict
from codescaler_plugin.selection.records import Outcome, Selection
from codescaler_plugin.testing import FakeScorer
from tests.hostile import HOSTILE, check_harmless
from tests.report.written import Page
from tests.samples import fenced

SCALER = CodeScaler(FakeScorer())


def test_a_judgement_shows_status_reward_score_explanation_and_code() -> None:
    [judgement] = SCALER.judge(["p"], [fenced("x = 1 < 2")])
    page = Page(judgement._repr_html_())
    assert page.open == []
    for part in (
        "ok",
        "reward 10.0000",
        "score 10.0000",
        "The block at line 3 of the completion is a python program.",
        "x = 1 < 2",
    ):
        assert part in page.text.replace("\n", " ")
    assert not {"script", "style", "link", "img"} & {tag for tag, _ in page.tags}


def test_a_judgement_without_a_status_says_why() -> None:
    failed = Judgement(None, None, None, "", Failure(FailureKind.DATA, "no user turn"))._repr_html_()
    assert "no status" in failed
    assert "There is no reward (data): no user turn." in failed
    assert "<pre" not in failed


def test_hostile_text_of_a_judgement_is_text_and_bounded() -> None:
    judgement = Judgement(1.0, 0.5, Status.OK, HOSTILE, explanation=HOSTILE)
    check_harmless(judgement._repr_html_())
    check_harmless(replace(judgement, failure=Failure(FailureKind.SCORER, HOSTILE))._repr_html_())
    long = replace(judgement, code="y" * (MAX_SHOWN + 5))._repr_html_()
    assert "[5 more characters]" in long
    assert len(long) < MAX_SHOWN + 5_000


def test_a_selection_shows_its_outcome_its_winner_and_a_ranked_table() -> None:
    selection = best_of_n(SCALER, "p", ["No.", fenced("x = 1"), fenced("x = 22"), fenced("x = 22")])
    html = selection._repr_html_()
    page = Page(html)
    assert page.open == []
    assert "chosen" in page.text
    assert selection.explanation in page.text
    rows = html.split("<tr>")[2:]
    assert [row.split("</td>")[1].rpartition(">")[2] for row in rows] == ["2", "3", "1", "0"]
    assert "candidate 2" in rows[1]
    assert "The completion has no fenced block." in rows[3]
    assert html.index("x = 22") < html.index("<table>")


@pytest.mark.parametrize(
    ("verdict", "words"),
    [
        (None, "not run"),
        (Verdict(passed=True), "passed"),
        (Verdict(passed=False), "failed"),
        (Verdict(passed=False, fault=Fault.TIMEOUT), "no verdict (timeout)"),
    ],
)
def test_a_selection_shows_verdicts(verdict: Verdict | None, words: str) -> None:
    [first] = best_of_n(SCALER, "p", [fenced("x = 1")]).ranked
    html = Selection((replace(first, verdict=verdict),), Outcome.CHOSEN)._repr_html_()
    assert f">{words}</td>" in html


def test_a_selection_is_bounded_and_hostile_text_in_it_is_text() -> None:
    [first] = best_of_n(SCALER, "p", [fenced("x = 1")]).ranked
    hostile = replace(first, judgement=replace(first.judgement, code=HOSTILE, explanation=HOSTILE))
    html = Selection((hostile,) * 100, Outcome.CHOSEN, explanation=HOSTILE)._repr_html_()
    check_harmless(html)
    assert "and 80 more candidates" in html
    assert html.count("<tr>") == 21
    assert "none_valid" in Selection((), Outcome.NONE_VALID)._repr_html_()


def test_a_number_has_four_decimals_and_a_missing_one_is_a_dash() -> None:
    assert [number(value) for value in (0.123456, 3, None, "a")] == ["0.1235", "3", "–", "a"]
