r"""Lines of a Markdown text that may open or close a fenced block.

Models glue fences to tags and marks on the same line: `<answer>```python`, `\boxed{```python`, "```</answer>",
"```<|im_end|>". A renderer sees no fence there. `unglued` takes the tags off.
"""

import re
from bisect import bisect_left
from collections.abc import Iterator
from typing import NamedTuple

MAX_FENCES = 4_000
"""Most lines with fences in one text; a text with more is hostile."""

_RUN = re.compile(r"`+|~+")
_MARKERS = re.compile(r"[ \t>*+\-.)\d]*+")  # before a fence: indentation, quote and list markers
_MAX_TAG = 100  # characters
# A tag or mark: `<answer>`, `<|message|>`, `[PYTHON]`, `\boxed{`, `$`. Looked for right before a fence.
_TAG_BEFORE = re.compile(
    r"(?:[\u200b\u2060\ufeff]|<[^<>`\n]{1,100}>|\[/?(?:[A-Za-z_]{2,30}|[A-Z][A-Z _]{1,30})\]|▷|assistantfinal|"
    r"\\boxed\{|\\[(\[]|\$)[ \t]*\Z"
)
_TAG_AFTER = re.compile(
    r"[ \t]*(?:[\u200b\u2060\ufeff]|assistantfinal|<[/|｜!\[A-Za-z0]|◁|\[\|?/?[A-Za-z]|\}|\$|\\[)\]])"
)


class TooComplexError(Exception):
    """The Markdown has more structure than is parsed; never leaves this package."""


class FenceLine(NamedTuple):  # made for every completion: a frozen dataclass sets its fields one by one
    """A line that may be a fence."""

    start: int  # offsets of the line, without its line end
    end: int
    mark: int  # offset of the fence's first character
    length: int  # characters of the fence
    sign: str  # a backtick or a tilde
    info: str  # stripped text behind the fence; empty if that is a tag glued to the fence
    is_behind_tag: bool  # a tag stands right before the fence: the line may open a block and never closes one
    is_before_tag: bool
    opens: bool  # the line can open a block
    is_plain: bool  # only white space or a glued tag follows, so the line can close a block

    @property
    def is_glued(self) -> bool:
        """A tag stands right before or behind the fence."""
        return self.is_behind_tag or self.is_before_tag

    def closes(self, opened: "FenceLine") -> bool:
        """The line closes the block that `opened` opened, if no line in between does."""
        return self.is_plain and not self.is_behind_tag and self.sign == opened.sign and self.length >= opened.length


def fence_lines(text: str) -> Iterator[FenceLine]:
    r"""The lines of a text that may be fences; `TooComplexError` above `MAX_FENCES`. The only line end is `\n`."""
    count = 0
    ticks, tildes = text.find("```"), text.find("~~~")  # `str.find` is far faster than a pattern of both
    while ticks >= 0 or tildes >= 0:
        mark = min(ticks, tildes) if ticks >= 0 and tildes >= 0 else max(ticks, tildes)
        after = _RUN.match(text, mark).end()  # type: ignore[union-attr]
        count += 1
        if count > MAX_FENCES:
            raise TooComplexError
        start = text.rfind("\n", 0, mark) + 1
        end = text.find("\n", after)
        end = len(text) if end < 0 else end
        # Only the first run of a line can be a fence.
        ticks = text.find("```", end) if 0 <= ticks < end else ticks
        tildes = text.find("~~~", end) if 0 <= tildes < end else tildes
        is_behind_tag = start != mark and _after_markers(text, start, mark) != mark
        if is_behind_tag and _TAG_BEFORE.search(text, max(start, mark - _MAX_TAG), mark) is None:
            continue
        tail = text[after:end]
        info = tail.strip()
        is_tag = bool(info) and _TAG_AFTER.match(tail) is not None
        opens, is_plain = text[mark] == "~" or "`" not in tail, not info or is_tag
        info = "" if is_tag else info
        yield FenceLine(start, end, mark, after - mark, text[mark], info, is_behind_tag, is_tag, opens, is_plain)


def unglued(text: str, fences: list[FenceLine]) -> str:
    """The text without the tags and marks on the lines of its `fence_lines`."""
    kept, done = [], 0
    opened: FenceLine | None = None
    balance = Balance(fences)
    for index, fence in enumerate(fences):
        if opened is not None:
            # A fence and a tag may be text inside a program's string: then the fences behind them do not pair up.
            if not fence.closes(opened) or (fence.is_before_tag and not balance.is_even[index + 1]):
                continue
            opened = None
        elif fence.opens and not (fence.is_behind_tag and (fence.is_before_tag or balance.opens_next(index + 1))):
            opened = fence
        else:
            continue
        if fence.is_glued:
            head = text[fence.start : _after_markers(text, fence.start, fence.mark)]
            kept += [text[done : fence.start], head, fence.sign * fence.length, fence.info]
            done = fence.end
    return "".join([*kept, text[done:]])


def _after_markers(text: str, start: int, end: int) -> int:
    markers = _MARKERS.match(text, start, end)
    return start if markers is None else markers.end()


class Balance:
    """Tells whether the fence lines of a text pair up as blocks, from each of them to the end."""

    def __init__(self, fences: list[FenceLine]) -> None:
        self.fences = fences
        self.bare = [index for index, fence in enumerate(fences) if not fence.info]
        count = len(fences)
        self.is_even = [False] * count + [True]
        for index in range(count - 1, -1, -1):
            closing = self._next_bare(index + 1)
            self.is_even[index] = closing < count and self.is_even[closing + 1]

    def _next_bare(self, index: int) -> int:
        position = bisect_left(self.bare, index)
        return self.bare[position] if position < len(self.bare) else len(self.fences)

    def opens_next(self, index: int) -> bool:
        """The fence at an index names a language, so it opens a block."""
        return index < len(self.fences) and bool(self.fences[index].info)

    def is_outside(self, index: int) -> bool:
        """Fences pair up from an index on if no block is open there, and do not if one is."""
        closing = self._next_bare(index)
        is_inside = closing < len(self.fences) and self.is_even[closing + 1]
        return self.is_even[index] and not is_inside
