"""A completion without its reasoning. What the policy thought is not part of its content.

Each model family writes its own marks. `FAMILIES` has one row for each, and the setting `reasoning_marks` adds rows. A
mark counts where a model puts it: not inside a fenced program, a string or inline code, and not as a word of a
sentence. Upper and lower case are the same.
"""

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

from codescaler_plugin.errors import ConfigError
from codescaler_plugin.extraction.fences import Balance, FenceLine, fence_lines

MAX_MARKS = 500
"""Reasoning marks of one completion; a text with more is hostile."""


@dataclass(frozen=True)
class Mark:
    """A text that opens or closes reasoning."""

    text: str  # its beginning in lower case, for most marks the whole
    rest: str = ""  # regular expression of the text that must follow
    is_at_start: bool = False  # the mark counts in lower case at the very start of a completion alone


@dataclass(frozen=True)
class Family:
    """The marks of a model family that open reasoning, and those that close it, which the content follows."""

    opening: tuple[Mark, ...]
    closing: tuple[Mark, ...]


def _tags(opening: str, closing: str) -> Family:
    return Family((Mark(opening.lower()),), (Mark(closing.lower()),))


_MESSAGE = r"(?:[^<\n]|<\|constrain\|>){0,100}+<\|message\|>"

FAMILIES = (
    _tags("<think>", "</think>"),  # Qwen, DeepSeek, GLM, MiniMax, Granite, Hunyuan, Phi-4, Kimi K2 and most others
    _tags("<thinking>", "</thinking>"),
    _tags("<thought>", "</thought>"),  # EXAONE Deep
    _tags("<reasoning>", "</reasoning>"),
    _tags("<seed:think>", "</seed:think>"),  # Seed-OSS
    _tags("<longcat_think>", "</longcat_think>"),  # LongCat-Flash
    _tags("<think:opensource>", "</think:opensource>"),
    _tags("[THINK]", "[/THINK]"),  # Mistral
    _tags("<|START_THINKING|>", "<|END_THINKING|>"),  # Cohere
    _tags("<|begin_of_thought|>", "<|end_of_thought|>"),  # OpenThinker, Sky-T1
    _tags("◁think▷", "◁/think▷"),  # Kimi
    _tags("<unused94>thought", "<unused95>"),  # MedGemma
    _tags("<|channel>thought", "<channel|>"),  # Gemma 4
    Family(  # gpt-oss (harmony)
        (Mark("<|channel|>", f"(?:analysis|commentary){_MESSAGE}"),),
        (Mark("<|channel|>", f"final{_MESSAGE}"),),
    ),
    Family(  # gpt-oss, decoded without special tokens: only the words of its headers are left
        (
            Mark("analysis", r"(?=[^\s\d_.,:;!?)\]=\-'’/&<|：，。—…])", True),
            Mark("analysis", r"(?=[ \t]*\n|[\s\S]*assistantfinal)", True),
            Mark("assistantanalysis", r"(?=\S)", True),
        ),
        (Mark("assistantfinal"), Mark("final", "(?=[A-Z#*`])", True)),
    ),
)
_ANY = -1  # in place of a family: the mark of any family closes
_LINE = 2_000  # characters in which the beginning of a mark's line is looked for
_WINDOW = 120  # characters on each side of a mark that tell whether it is quoted
_INVISIBLE = "\ufeff\u200b\u200c\u200d\u200e\u200f\u2060\0"
_SENTENCE_ENDS = ".!?:>]▷。！？：…"
_GO_ON = re.compile(r"[,;.:)]|[ \t]+[^\sA-Z`~#*<\[]")  # follows a mark that is a word of a sentence
_ITEM = re.compile(r"\s*(?:[-*+>|]|\d{1,9}[.)])[ \t]+")  # markers of lists, quotes and table cells
_HEADER = re.compile(r"(?:<\|\w{1,30}\|>(?:assistant)?)+\Z")  # control tokens of a chat before a mark
_QUOTE_PREFIX = re.compile(r"(?:\A|\W)[rbfuRBFU]{1,2}\Z")
_QUOTE_SIGN = re.compile(r"`+|\\.?|[\"']")


class TooManyMarksError(Exception):
    """More than `MAX_MARKS`; never leaves this package."""


@dataclass(frozen=True)
class Content:
    """A completion without its reasoning; OpenAI-compatible servers call the two `content` and `reasoning_content`."""

    text: str
    start: int = 0  # its offset in the completion, in characters
    is_cut: bool = False  # the completion ends inside its reasoning
    had_reasoning: bool = False


def checked_marks(setting: str | None) -> tuple[Family, ...]:
    """The families that the setting `reasoning_marks` adds; a mark must not be a word of a sentence."""
    marks = (setting or "").split()
    if len(marks) % 2 or any(len(mark) < 3 or mark.isalnum() for mark in marks):
        raise ConfigError(
            f"reasoning_marks is {setting!r}: expected opening and closing marks in turn, divided by spaces, such as "
            "'<plan> </plan>'"
        )
    return tuple(_tags(*pair) for pair in zip(marks[::2], marks[1::2], strict=True))


def opening_of(prompt: str, reasoning_marks: str | None = None) -> str:
    """The mark at the very end of a prompt that opens reasoning, with the white space behind it; empty if none."""
    tail = prompt[-_WINDOW:]
    end = len(tail.rstrip())
    for mark in _marks(reasoning_marks).find(tail):
        if mark.opens and mark.end == end:
            before = tail[: mark.start].rstrip(" \t")
            if mark.offset != mark.start or not before or before[-1] in "\n" + _SENTENCE_ENDS:
                return tail[mark.offset :]
    return ""


def without_reasoning(text: str, reasoning_marks: str | None = None, *, prefilled: bool = False) -> Content:
    r"""The content of a completion that has `\n` as its only line end.

    The text behind closed reasoning is the content, also where the prompt opened the reasoning and only the closing
    mark is in the completion. If reasoning never closes, the content is the text before it. If reasoning stands
    between two parts and no fence follows it, both parts are the content. A `prefilled` completion begins inside
    reasoning, which the mark of any family closes.

    Raises:
        TooManyMarksError: more than `MAX_MARKS` marks.
        TooComplexError: more lines with fences than are read.
    """
    marks = _marks(reasoning_marks).find(text)
    return _Walk(text, prefilled).content(marks) if marks or prefilled else Content(text)


class _MarkInText(NamedTuple):
    """A mark in a text: it begins at `offset`, the control tokens of a chat before it at `start`."""

    start: int
    end: int
    family: int
    opens: bool
    offset: int


@dataclass(frozen=True)
class _Marks:
    """The marks of all families, those of the setting first, in a form that is fast to search for."""

    words: tuple[str, ...]  # every text that holds a mark, except at its very start, holds one of them
    starts: tuple[str, ...]  # beginnings of the marks that count at the very start alone
    all: tuple[tuple[str, re.Pattern[str], int, bool, bool], ...]  # text, rest, family, `opens` and `is_at_start`

    def find(self, text: str) -> list[_MarkInText]:
        lower = text.replace("\u0130", "I").lower()  # the one letter that would become two
        if not any(word in lower for word in self.words) and not lower.lstrip().startswith(self.starts):
            return []
        marks, count = set(), 0
        for mark, rest, family, opens, is_at_start in self.all:
            offset = lower.find(mark)
            if is_at_start and offset >= 0 and (lower[:offset].strip() or not text.startswith(mark, offset)):
                continue
            while offset >= 0:
                count += 1
                if count > MAX_MARKS:
                    raise TooManyMarksError
                if match := rest.match(text, offset + len(mark)):
                    header = _HEADER.search(text, max(0, offset - _WINDOW), offset)
                    start = header.start() if header else offset
                    marks.add(_MarkInText(start, match.end(), family, opens, offset))
                offset = -1 if is_at_start else lower.find(mark, offset + len(mark))
        return sorted(marks)


@lru_cache(64)
def _marks(setting: str | None) -> _Marks:
    families = (*checked_marks(setting), *FAMILIES)
    marks = [
        (mark.text, re.compile(mark.rest), index, opens, mark.is_at_start)
        for index, family in enumerate(families)
        for opens, row in ((True, family.opening), (False, family.closing))
        for mark in row
    ]
    starts = {mark for mark, *_, is_at_start in marks if is_at_start}
    anywhere = {mark for mark, *_, is_at_start in marks if not is_at_start}
    # Few and short words, because a search for all marks takes as long as finding the fences.
    longest = {max(re.findall(r"[a-z]{3,}", mark), key=len, default=mark) for mark in anywhere}
    words = tuple(word for word in sorted(longest) if not any(other in word for other in longest - {word}))
    return _Marks(words, tuple(starts), tuple(marks))


class _Walk:
    """Goes through the marks and fences of a completion once, in order."""

    def __init__(self, text: str, prefilled: bool) -> None:
        self.text = text
        self.fences = list(fence_lines(text))
        self.last_fence = self.fences[-1].mark if self.fences else -1
        self.balance = Balance(self.fences)
        self.next_fence = 0
        self.fence: FenceLine | None = None  # the open one
        self.named_inside: set[int] = set()  # families whose opening mark stands in that fence
        self.has_block = False  # a fence has closed since the content began
        self.start = 0  # of the content
        self.before: list[str] = []  # parts of the content that stand before closed reasoning
        self.family: int | None = _ANY if prefilled else None  # of the reasoning that is open
        self.opened = self.opened_end = 0
        self.spoken_line = -2  # where the line begins that mentions an opening mark, less one

    def content(self, marks: list[_MarkInText]) -> Content:
        changed = False
        for mark in marks:
            self._go_to(mark.start)
            if mark.start >= self.start:
                changed |= self._open(mark) if mark.opens else self._close(mark)
        if self.family is not None:
            return Content("".join([*self.before, self.text[self.start : self.opened]]), self.start, True, True)
        rest = self.text[self.start :]
        if self.before and self.last_fence < self.start:
            return Content("".join([*self.before, rest]), 0, False, changed)
        return Content(rest, self.start, False, changed)

    def _go_to(self, offset: int) -> None:
        while self.next_fence < len(self.fences) and self.fences[self.next_fence].mark < offset:
            fence = self.fences[self.next_fence]
            self.next_fence += 1
            if self.fence is None:
                self.fence = fence if fence.opens else None
            elif fence.closes(self.fence):
                self.fence = None
                self.named_inside.clear()
                self.has_block = True

    def _open(self, mark: _MarkInText) -> bool:
        if self.fence is not None:
            self.named_inside.add(mark.family)
        elif self.family is not None:
            # Not where a template and the policy both open it, and not one message of harmony behind another.
            if mark.offset == mark.start and self.text[self.opened_end : mark.start].strip():
                self.spoken_line = self._line(mark)
        elif self._is_quoted(mark) or not self._begins_reasoning(mark):
            self.spoken_line = self._line(mark)
        else:
            self.family, self.opened, self.opened_end = mark.family, mark.start, mark.end
            return True
        return False

    def _close(self, mark: _MarkInText) -> bool:
        if self.family not in (None, _ANY, mark.family) or self._is_text(mark):
            return False
        if self.family is not None:
            part = self.text[self.start : self.opened]
            self.before += [part] if part.strip() else []
        else:
            self.before = []
        self.family, self.fence, self.has_block, self.start = None, None, False, mark.end
        self.named_inside.clear()
        return True

    def _is_text(self, mark: _MarkInText) -> bool:
        """A closing mark that ends no reasoning: it is in a program or in quotes, or is a word of a sentence."""
        if self.fence is not None:
            if self.balance.opens_next(self.next_fence):  # so no fence is open: a draft was never closed
                return self._is_quoted(mark)
            if mark.family in self.named_inside:
                return True
            is_at_edge = not all(part.strip() for part in self._around(mark))
            return not (is_at_edge and self.balance.is_outside(self.next_fence)) or self._is_quoted(mark)
        if self._is_quoted(mark):
            return True
        before, after = self._around(mark)
        is_named = self._line(mark) == self.spoken_line and mark.start != self.opened
        is_spoken = _is_mid_sentence(before)
        if self.family is not None:
            return bool(after.strip()) and (is_named or (is_spoken and _GO_ON.match(after) is not None))
        if is_named:
            return True
        is_last = self.last_fence < mark.end
        if self.start and self.has_block and is_last:
            return True  # the reasoning is closed, a program has followed, and none follows this mark
        goes_on = _GO_ON.match(after) is not None
        if self.has_block and is_last and goes_on and (not before.strip() or before.endswith("(")):
            return True  # a sentence about the mark, behind the program
        return bool(self.has_block or self.start) and is_spoken and (bool(after.strip()) or is_last)

    def _line(self, mark: _MarkInText) -> int:
        return self.text.rfind("\n", max(0, mark.start - _LINE), mark.start)

    def _around(self, mark: _MarkInText) -> tuple[str, str]:
        """The text before and after a mark on its line, at most `_WINDOW` characters each."""
        start = max(self._line(mark) + 1, mark.start - _WINDOW)
        end = self.text.find("\n", mark.end, mark.end + _WINDOW)
        return self.text[start : mark.start], self.text[mark.end : end if end >= 0 else mark.end + _WINDOW]

    def _begins_reasoning(self, mark: _MarkInText) -> bool:
        """An opening mark stands where a model opens reasoning, and is not a word of a sentence."""
        before, after = self._around(mark)
        if _ITEM.fullmatch(before) and _GO_ON.match(after):
            return False
        before = before.rstrip("*_")
        last = "" if before.strip().lower() == "assistant" else before.rstrip().rstrip(_INVISIBLE)[-1:]
        if not last or last in _SENTENCE_ENDS:
            return bool(not last or before[-1:] != " " or last != ":" or not after.strip())
        if not after.strip() and not self.has_block and not last.isalnum():
            return True  # on its own at a line's end, behind a comma, a list's mark, an emoji
        return before[-1] == last and (last.isalnum() or last in ";)，、")

    def _is_quoted(self, mark: _MarkInText) -> bool:
        """A mark is in quotes or code on its line. Reasoning is full of single quotes, so there they must touch it."""
        before, after = self._around(mark)
        quote = _open_quote(before)
        if not quote or not re.search(rf"(?<!{quote[0]}){quote}(?!{quote[0]})", after):
            return False
        return self.family is None or mark.opens or before.endswith(quote) or after.startswith(quote)


def _is_mid_sentence(before: str) -> bool:
    """Words, a comma or a list marker and a space stand before a mark."""
    last = before.rstrip()[-1:]
    return bool(last) and before[-1].isspace() and (last not in _SENTENCE_ENDS or _ITEM.fullmatch(before) is not None)


def _open_quote(line: str) -> str:
    """The quote or run of backticks that is open at the end of a line's beginning; empty if none."""
    quote = ""
    for sign in _QUOTE_SIGN.finditer(line):
        if quote:
            quote = "" if sign[0] == quote else quote
        elif sign[0][0] == "\\" or len(sign[0]) > 2:  # escaped, or a fence
            continue
        elif sign[0] != "'" or _opens_string(line[max(0, sign.start() - 3) : sign.start()]):
            quote = sign[0]
    return quote


def _opens_string(before: str) -> bool:
    """An apostrophe after a word belongs to the word, unless the word is the prefix of a string."""
    return not before[-1:].isalnum() or bool(_QUOTE_PREFIX.search(before))
