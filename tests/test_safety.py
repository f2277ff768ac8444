"""Text of others on terminals and pages: shown, never obeyed."""

import io
import json
import re
from pathlib import Path

import pytest
import typer
from markdown_it import MarkdownIt
from rich.panel import Panel
from rich.table import Table

from codescaler_plugin.cli.terminal import Skipped, Terminal, print_counts, reported
from codescaler_plugin.errors import DataError
from codescaler_plugin.preference.data_card import write_data_card
from codescaler_plugin.records import PreferencePair
from codescaler_plugin.safety import html_text, markdown, markdown_block, one_line, printable

HOSTILE = [
    "![x](http://evil.example/a.png)",
    "[click](https://evil.example)",
    "<img src=http://evil.example/x>",
    "<script>alert(1)</script>",
    "<http://evil.example>",
    "<!-- hidden",
    "&lt;b&gt;",
    "`code` ``more``",
    "**bold** __bold__ *it* _it_ ~~gone~~ __init__",
    "a | b | c",
    "line\n\n# heading\n- item\n```\nfence",
    "back\\slash\\",
    "[ref]: http://evil.example",
]


@pytest.mark.parametrize("text", HOSTILE)
def test_markdown_shows_the_text_and_makes_nothing_of_it(text: str) -> None:
    for page in (f"{markdown(text)}\n", f"| head |\n|---|\n| {markdown(text)} |\n"):
        made = MarkdownIt("commonmark").enable(["table", "strikethrough"]).render(page)
        assert set(re.findall(r"<(\w+)", made)) <= {"p", "table", "thead", "tbody", "tr", "th", "td"}
        shown = re.findall(r"<(?:p|td)>(.*?)</", made, re.DOTALL)
        assert len(shown) == 1
        assert shown[0] == html_text(" ".join(text.split())).replace("&#x27;", "'")


@pytest.mark.parametrize(
    "text", ["http://evil.example", "www.evil.example", "mailto:a@evil.example", "a@evil.example"]
)
def test_markdown_makes_no_link_of_an_address(text: str) -> None:
    """As GitHub's autolinks tell them: a scheme, `www.` or an `@`, none of which stands in the page as it is."""
    made = markdown(text)
    assert not re.search(r"https?:|www\.|mailto:|@", made)


def test_a_block_cannot_be_closed_from_within() -> None:
    page = markdown_block("codescaler mine\n```\n<img src=x>\n````", "bash")
    made = MarkdownIt("commonmark").render(page + "\nafter")
    assert "<img" not in made
    assert made.endswith("</code></pre>\n<p>after</p>\n")


def test_nothing_steers_a_terminal() -> None:
    text = "\x1b]0;T\x07\x1b[2J\x9b31m\u202ecba\u2066\r\x08\u200bé漢\tok"
    shown = printable(text)
    assert not [letter for letter in shown if not letter.isprintable() and letter != "\t"]
    assert shown.endswith("é漢\tok")
    assert "\n" not in one_line("one\nerror: two")
    assert len(one_line("x" * 1000)) == 100


def test_every_print_of_the_console_is_plain() -> None:
    sink = io.StringIO()
    console = Terminal(file=sink, force_terminal=True, color_system=None, width=200)
    table = Table("[b]head[/b]", box=None)
    table.add_row("[/x]")
    table.add_row("\x1b[31m[link=http://evil.example]l[/link] :smile:")
    for piece in ("[/x] \x1b]0;T\x07 \u202e", table, Panel("[/y]\x9b")):
        console.print(piece)
    shown = sink.getvalue()
    for words in ("[/x]", "[b]head[/b]", "[link=http://evil.example]l[/link] :smile:", "[/y]"):
        assert words in shown
    assert not {"\x1b", "\x07", "\x9b", "\u202e"} & set(shown)


def test_names_in_counts_are_plain(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    sink = io.StringIO()
    monkeypatch.setattr("codescaler_plugin.cli.terminal.errors", Terminal(file=sink, width=100))
    print_counts("[/t]", {"failed: [/x]": 2, "failed: a\nb": 1})
    assert "[/t]" in sink.getvalue()
    assert "failed: [/x]" in sink.getvalue()
    assert "failed: a b" in sink.getvalue()


def test_a_data_card_of_hostile_names_holds_no_image_link_or_tag(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    evil = "![x](http://evil.example/a.png) <img src=x> [l](http://evil.example) $\\frac{"
    pairs = [
        PreferencePair(f"P{n}", f"x = {n}", f"y = {n}", f"{evil} {n % 2}", f"p{n}", 0.5, n, "train", f"{evil} run")
        for n in range(6)
    ]
    report = {
        "command": "codescaler mine\n```\n<img src=x>",
        "settings": {"evaluation": {evil: 3}},
        "rows": 1,
        "invalid": {evil: 1},
        "dropped": {evil: 1},
        "problems": {evil: 1},
        "near_clusters": [],
        "contamination": [{"problem": evil, "evaluation": evil, "kind": evil, "value": 0.5}],
    }
    page = write_data_card(pairs, tmp_path, title=evil, reports=[report], outputs=[Path(evil.replace("/", "_"))])
    made = MarkdownIt("commonmark").enable("table").render(page.read_text())
    assert re.findall(r"<img[^>]*>", made) == ['<img src="data_card.png" alt="Overview" />']
    assert "<a " not in made
    assert json.loads((tmp_path / "data_card.json").read_text())["reports"][0]["problems"] == {evil: 1}  # kept raw


def test_a_skipped_row_is_one_bounded_line(capsys: pytest.CaptureFixture[str]) -> None:
    """A column or a server may be called by ten megabytes, or by what looks like a line of ours."""
    Skipped()("a\nerror: b " + "x" * 10_000_000)
    said = capsys.readouterr().err
    assert said.startswith("skipped a error: b x")
    assert len(said) < 5000


def test_an_error_is_bounded(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(typer.Exit), reported():
        raise DataError("first " + "x" * 10_000_000 + " last")
    said = capsys.readouterr().err
    assert "error: first x" in said
    assert "x last" in said
    assert len(said) < 5000
