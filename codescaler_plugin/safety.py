"""Text of others, such as a program's exception names, on a terminal, a page or a plot: shown, never obeyed.

All that the commands print passes `printable`; all that pages show passes `markdown` or `html_text`. JSON keeps the
text as it is. Plots are drawn under `PLAIN_PLOTS`.
"""

import html
import re
from collections.abc import Iterable, Sequence

PLAIN_PLOTS = {"text.parse_math": False}
"""Settings of matplotlib under which `$` in a label begins no formula, which may be broken."""

_MARKUP = re.compile(r"[\\`*\[\]|~$]|(?<=\])\(|!(?=\[)|(?<![^\W_])_|_(?![^\W_])")
_TICKS = re.compile(r"`+")


def printable(text: str) -> str:
    """The text with U+FFFD for what would steer a terminal, hide or reorder what it shows; lines and tabs stay."""
    return "".join(letter if letter.isprintable() or letter in "\n\t" else "\ufffd" for letter in text)


def one_line(text: str, width: int = 100) -> str:
    """The text on one line of at most `width` characters, so that it cannot pass for lines of the program's own."""
    line = printable(" ".join(text.split()))
    return line if len(line) <= width else line[: width - 3] + "..."


def markdown(text: str) -> str:
    """The text for a line or a table's cell of Markdown, without links, images, autolinks, HTML, emphasis or lines."""
    plain = _MARKUP.sub(lambda found: "\\" + found[0], printable(" ".join(text.split())))
    plain = plain.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").replace("@", "&#64;")
    return re.sub(r"(?i)\b(www)\.", r"\1\\.", re.sub(r":(?=//)|(?i:(?<=mailto)|(?<=xmpp)):", r"\\:", plain))


def markdown_table(head: Sequence[str], rows: Iterable[Sequence[str]], *, prose: bool = False) -> str:
    """A table of Markdown whose cells are texts for `markdown`; all columns but the first are to the right.

    Args:
        head: n cells.
        rows: n cells each; a row of one cell is a heading within the table.
        prose: all columns are to the left.
    """
    lines = ["| " + " | ".join(map(markdown, head)) + " |", "|---|" + ("---|" if prose else "---:|") * (len(head) - 1)]
    for row in rows:
        cells = [f"**{markdown(row[0])}**", *[""] * (len(head) - 1)] if len(row) == 1 else map(markdown, row)
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def markdown_block(text: str, language: str = "") -> str:
    """The text as a fenced block of Markdown that nothing in it can close."""
    fence = "`" * max(3, 1 + max(map(len, _TICKS.findall(text)), default=0))
    return f"{fence}{language}\n{printable(text)}\n{fence}\n"


def html_text(text: str) -> str:
    """The text for HTML, in an element or in an attribute within quotes."""
    return html.escape(printable(text))
