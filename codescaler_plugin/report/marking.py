"""Where the program stands in a completion, and which part of a long completion is shown."""

import re
from dataclasses import dataclass, replace

from codescaler_plugin.extraction import extract_code
from codescaler_plugin.records import Status
from codescaler_plugin.report.judged_rows import Judged

_BEFORE, _CODE, _AFTER = 1_500, 12_000, 1_000  # characters shown around a program and of it
_HEAD, _TAIL = 3_000, 1_500  # characters shown of a completion in which no program is marked
_QUOTED_LINES, _QUOTED_CHARS = 200, 20_000  # of a program and its completion in which it is looked for line by line


@dataclass(frozen=True)
class Part:
    """A part of a completion: `text`, `code` (the program), or `gap` (how much is left out)."""

    kind: str
    text: str


def parts_of(judged: Judged) -> list[Part]:
    r"""The completion in parts of bounded length, with the program marked where it stands.

    A program that does not stand in the completion letter by letter follows behind it.

    Example:
        >>> [part.kind for part in parts_of(Judged("p", "So:\n```\nx = 1\n```", "ok", code="x = 1\n"))]
        ['text', 'code', 'text']
    """
    text = judged.completion.replace("\r\n", "\n").replace("\r", "\n")
    start, end = _span(text, judged.code)
    if end > start:
        parts = _end_of(text[:start], _BEFORE) + _start_of(text[start:end], _CODE, "code")
        return parts + _start_of(text[end:], _AFTER)
    if len(text) > _HEAD + _TAIL:
        gap = Part("gap", _characters(len(text) - _HEAD - _TAIL))
        parts = [Part("text", text[:_HEAD]), gap, Part("text", text[-_TAIL:])]
    else:
        parts = [Part("text", text)] if text else []
    if judged.code and judged.code != judged.completion:
        parts += [Part("gap", "the program:"), *_start_of(judged.code, _CODE, "code")]
    return parts


def read_again(judged: Judged) -> Judged:
    r"""The completion with the program and explanation that its row lacks, if extraction gives the same status.

    Example:
        >>> read_again(Judged("p", "```python\nx = 1\n```", "ok")).code
        'x = 1\n'
    """
    if not judged.status or judged.failure or (judged.explanation and (judged.code or judged.status != Status.OK)):
        return judged
    for selection in ("single", "last"):
        found = extract_code(judged.completion, language="any", extraction=selection)
        if found.status == judged.status:
            return replace(judged, code=judged.code or found.code, explanation=judged.explanation or found.explanation)
    return judged


def _span(text: str, code: str) -> tuple[int, int]:
    """Start and end of the program in a text; equal if it is not found. The last one counts: drafts come first."""
    stripped = code.strip("\n")
    if not stripped.strip():
        return 0, 0
    start = text.rfind(stripped)
    if start >= 0:
        end = start + len(stripped)
        return start, end + text.startswith("\n", end)
    lines = stripped.split("\n")
    if len(lines) > _QUOTED_LINES or len(text) > _QUOTED_CHARS:
        return 0, 0
    # A block in a list or quote has marks before each line.
    pattern = r"\n".join(rf"[ \t>]*+{re.escape(line)}[ \t]*+" if line.strip() else r"[ \t>]*+" for line in lines)
    match = re.search(rf"^{pattern}$", text, re.MULTILINE)
    return match.span() if match else (0, 0)


def _end_of(text: str, limit: int) -> list[Part]:
    if len(text) <= limit:
        return [Part("text", text)] if text else []
    return [Part("gap", _characters(len(text) - limit)), Part("text", text[-limit:])]


def _start_of(text: str, limit: int, kind: str = "text") -> list[Part]:
    if len(text) <= limit:
        return [Part(kind, text)] if text else []
    return [Part(kind, text[:limit]), Part("gap", _characters(len(text) - limit))]


def _characters(count: int) -> str:
    return f"{count:,} characters left out"
