"""Lines of a text as Python's parser and Markdown count them, which is not as `str.splitlines` does."""

import re

_LINE = re.compile(r"[^\r\n]*(?:\r\n|\r|\n)|[^\r\n]+")


def lines_with_ends(text: str) -> list[str]:
    r"""The lines with what ends them. Only `\n`, `\r\n` and `\r` end a line: a form feed or U+2028 does not."""
    return _LINE.findall(text)


def lines_of(text: str) -> list[str]:
    """The lines without what ends them; see `lines_with_ends`."""
    return [line.rstrip("\r\n") for line in lines_with_ends(text)]


def folded(text: str) -> str:
    """The text with each run of white space as one space: what makes two problem texts the same."""
    return " ".join(text.split())
