"""The pages hold every number, need nothing from outside, and take hostile names as text."""

import base64
import re
from pathlib import Path
from xml.etree import ElementTree

import pytest

from codescaler_plugin.errors import DataError
from codescaler_plugin.evaluation.summary import read_summaries, sections, write_report
from tests.report.written import Page, kept, measured

pytest.importorskip("matplotlib")
pytest.importorskip("sklearn")


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
            f"{results['pairs'].macro.value:.3f}",
            f"{results['pairs'].controls['longer'].macro.value:.3f}",
            f"{results['candidates'].table[4].choices['model'].value:.3f}",
            f"{results['calibration'].maps['platt'].error:.3f}",
            f"{results['robustness'].edits['praise'].attacked.value:.3f}",
            "66.7%",
            f"{results['generation'].average.value:.1%}",
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
    assert len(pictures) == 9  # two of pairs, one for each model where they do not fit in one
    for place, picture in zip(("0_0", "0_1", "1_0", "1_1", "2_0", "3_0", "3_1", "4_0", "5_0"), pictures, strict=True):
        svg = base64.b64decode(picture.removeprefix("data:image/svg+xml;base64,"))
        assert ElementTree.fromstring(svg).tag.endswith("svg")
        assert (tmp_path / "report_plots" / f"{place}.svg").read_bytes() == svg
        assert f"(report_plots/{place}.svg)" in text.read_text()
    again = write_report([tmp_path / "one", tmp_path / "two"], tmp_path / "again.html")[0]
    assert again.read_text() == written  # equal numbers, equal page


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
