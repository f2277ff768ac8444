"""A page shows folds inside folds, with every text escaped."""

from pathlib import Path

import pytest

from codescaler_plugin.report.page import write_page
from codescaler_plugin.report.sections import Fold, Plot, Section, Table
from tests.report.written import Page

pytest.importorskip("jinja2")
pytest.importorskip("matplotlib")


def test_folds_are_closed_in_html_and_headings_in_markdown(tmp_path: Path) -> None:
    inner = Fold("<b>one</b>", "Why & how", "--- a\n+++ b\n@@ line 1 @@\n same\n-<i>old</i>\n+new\x1b[2J", "diff")
    section = Section(
        "Title",
        "Text",
        [],
        [],
        [Plot("A plot", lambda axes: axes.plot([0, 1]))],
        [Fold("outer", folds=[inner, Fold("two", code="x = 1\n", language="python")])],
    )
    page, text = write_page(tmp_path / "p.html", "T", [section], Table(["what"], [["that"]]))
    written, parsed = page.read_text(), Page(page.read_text())
    assert parsed.open == []
    assert [tag for tag, _ in parsed.tags].count("details") == 3
    assert not any(tag == "details" and "open" in values for tag, values in parsed.tags)
    classes = [values.get("class") for tag, values in parsed.tags if tag == "span"]
    assert classes == ["minus", "plus", "place", "", "minus", "plus", None]
    assert "&lt;b&gt;one&lt;/b&gt;" in written
    assert "-&lt;i&gt;old&lt;/i&gt;" in written
    assert "\x1b" not in written + text.read_text()
    lines = text.read_text().splitlines()
    assert lines[lines.index("### outer") + 2] == "#### &lt;b&gt;one&lt;/b&gt;"
    assert "Why &amp; how" in lines
    assert lines[lines.index("```diff") + 5] == "-<i>old</i>"
    assert lines[lines.index("```python") + 1] == "x = 1"
