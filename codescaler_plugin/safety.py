"""Untrusted text, such as the exception names of a program, made safe for a terminal, a page or a plot.

Commands print text through `printable`, and pages show it through `markdown` or `html_text`. Plots are drawn with
`PLAIN_PLOTS`. JSON keeps the text as it is.
"""

import html
import re
from collections.abc import Iterable, Sequence

PLAIN_PLOTS = {"text.parse_math": False}
"""Settings of matplotlib with which `$` in a label is plain and not a formula, which may be broken."""

_MARKUP = re.compile(r"[\\`*\[\]|~$]|(?<=\])\(|!(?=\[)|(?<![^\W_])_|_(?![^\W_])")
_TICKS = re.compile(r"`+")


def printable(text: str) -> str:
    """The text with U+FFFD for characters that steer a terminal, or hide or reorder text. Lines and tabs stay."""
    return "".join(letter if letter.isprintable() or letter in "\n\t" else "\ufffd" for letter in text)


def one_line(text: str, width: int = 100) -> str:
    """The text on one line of at most `width` characters, so that it cannot pass for lines of the command's own."""
    line = printable(" ".join(text.split()))
    return line if len(line) <= width else line[: width - 3] + "..."


def markdown(text: str) -> str:
    """The text for a line or table cell of Markdown. Links, images, HTML, emphasis and line ends have no effect."""
    plain = _MARKUP.sub(lambda match: "\\" + match[0], printable(" ".join(text.split())))
    plain = plain.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").replace("@", "&#64;")
    return re.sub(r"(?i)\b(www)\.", r"\1\\.", re.sub(r":(?=//)|(?i:(?<=mailto)|(?<=xmpp)):", r"\\:", plain))


def markdown_table(head: Sequence[str], rows: Iterable[Sequence[str]], *, prose: bool = False) -> str:
    """A table of Markdown, whose rows of one text are headings. All columns but the first are right-aligned.

    In `prose`, all are left-aligned.
    """
    lines = ["| " + " | ".join(map(markdown, head)) + " |", "|---|" + ("---|" if prose else "---:|") * (len(head) - 1)]
    for row in rows:
        cells = [f"**{markdown(row[0])}**", *[""] * (len(head) - 1)] if len(row) == 1 else map(markdown, row)
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def markdown_block(text: str, language: str = "") -> str:
    """The text as a fenced block of Markdown, with a fence longer than any in the text."""
    fence = "`" * max(3, 1 + max(map(len, _TICKS.findall(text)), default=0))
    return f"{fence}{language}\n{printable(text)}\n{fence}\n"


def html_text(text: str) -> str:
    """The text for an element or a quoted attribute of HTML."""
    return html.escape(printable(text))
