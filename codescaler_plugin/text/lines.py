"""Lines as Python's parser and Markdown count them, unlike `str.splitlines`."""

import re

_LINE = re.compile(r"[^\r\n]*(?:\r\n|\r|\n)|[^\r\n]+")


def lines_with_ends(text: str) -> list[str]:
    r"""The lines of a text with their ends, which are `\n`, `\r\n` or `\r`. A form feed or U+2028 ends no line."""
    return _LINE.findall(text)


def lines_of(text: str) -> list[str]:
    """The `lines_with_ends` of a text without their ends."""
    return [line.rstrip("\r\n") for line in lines_with_ends(text)]


def folded(text: str) -> str:
    """The text with one space for each run of white space. Problems are equal if these are."""
    return " ".join(text.split())
