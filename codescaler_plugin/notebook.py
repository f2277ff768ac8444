"""HTML of records in notebooks: one self-contained element, with no script, style sheet or address.

All text is escaped by `safety.html_text`, because completions, reasons and problems are untrusted.
"""

from collections.abc import Iterable, Mapping, Sequence

from codescaler_plugin.safety import html_text

MAX_SHOWN = 20_000
"""Characters of a program or a text that are shown."""

_BOX = "border:1px solid #8886;border-radius:6px;padding:.5em .8em;margin:.3em 0;max-width:60em"
_PRE = "margin:.5em 0 0;max-height:24em;overflow:auto;white-space:pre-wrap;overflow-wrap:anywhere;text-align:left"
_CELL = "text-align:left;padding:.15em .6em;vertical-align:top;overflow-wrap:anywhere"


def element(title: str, facts: Mapping[str, object], sentence: str = "", code: str = "", inner: str = "") -> str:
    """A box with a title, named values, a sentence, a program, and `inner`, which is HTML of this module.

    Example:
        >>> element("ok", {"score": 0.5}, "The block is a python program.", "x = 1 < 2")[-24:]
        'x = 1 &lt; 2</pre></div>'
    """
    values = "".join(f" · {html_text(name)} {html_text(number(value))}" for name, value in facts.items())
    parts = [f'<div style="{_BOX}"><div><strong>{html_text(title)}</strong>{values}</div>']
    if sentence:
        parts.append(f"<div>{html_text(cut(sentence))}</div>")
    if code:
        parts.append(f'<pre style="{_PRE}">{html_text(cut(code))}</pre>')
    return "".join([*parts, inner, "</div>"])


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A table of text and numbers.

    Example:
        >>> table(["score"], [[None]]).count("<td")
        1
    """
    lines = [f"<tr>{''.join(f'<th style={_CELL!r}>{html_text(name)}</th>' for name in head)}</tr>"]
    for row in rows:
        cells = "".join(f'<td style="{_CELL}">{html_text(cut(number(value)))}</td>' for value in row)
        lines.append(f"<tr>{cells}</tr>")
    return f"<table>{''.join(lines)}</table>"


def number(value: object) -> str:
    """A value for a cell: four decimals of a fraction, a dash for None.

    Example:
        >>> number(0.123456), number(None), number(3)
        ('0.1235', '–', '3')
    """
    if value is None:
        return "–"
    return f"{value:.4f}" if isinstance(value, float) else str(value)


def cut(text: str, limit: int = MAX_SHOWN) -> str:
    r"""The text, or its first `limit` characters and how many are left out.

    Example:
        >>> cut("abcdef", 4)
        'abcd\n[2 more characters]'
    """
    return text if len(text) <= limit else f"{text[:limit]}\n[{len(text) - limit:,} more characters]"
