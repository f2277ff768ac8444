"""One completion -> the block that counts, or a sentence that says why there is none."""

import re
from dataclasses import dataclass

from codescaler_plugin.extraction.blocks import Block, find_blocks, tagged_blocks
from codescaler_plugin.extraction.fences import TooComplexError, fence_lines
from codescaler_plugin.extraction.languages import (
    ANY,
    LANGUAGES,
    info_language,
    is_installed,
    wheel,
)
from codescaler_plugin.extraction.opening import begun
from codescaler_plugin.extraction.reasoning import Answer, TooManyMarksError, without_reasoning
from codescaler_plugin.extraction.validity import MAX_CODE_CHARS, Budget, check
from codescaler_plugin.records import Extraction, Status
from codescaler_plugin.text.templates import without_end_marks

MAX_COMPLETION_CHARS = 1_000_000
"""Longest completion that is read at all: about 250k tokens, above any generation limit in use."""
_MAX_READ_CHARS = MAX_CODE_CHARS * 5 // 2  # of one completion, in all the blocks that are tried
_READ_TAGS = ("javascript", "typescript", "php")  # their grammars read tags as programs
_INFO = re.compile(r"[\w+#.-]{1,20}(?:[ \t]+\w+=\S+)*[ \t]*")

_Found = tuple[str, str, Status, str]  # code, its language, status, a sentence that explains the status


@dataclass(frozen=True)
class Reading:
    """How completions are read; see `extract_code`."""

    language: str
    extraction: str
    reasoning_marks: str | None
    thinking_prefilled: bool
    fence_prefilled: bool
    explain: bool


def read(text: str, reading: Reading) -> Extraction:
    """What a completion holds."""
    if len(text) > MAX_COMPLETION_CHARS:
        sentence = f"The completion has {len(text):,} characters; at most {MAX_COMPLETION_CHARS:,} are read."
        found: _Found = "", "" if reading.language == ANY else reading.language, Status.TOO_LONG, sentence
    else:
        found = _Reader(reading, text).read()
    code, language, status, sentence = found
    return Extraction(code if status is Status.OK else "", language, status, sentence if reading.explain else "")


class _Reader:
    """Reads one completion; holds what all its blocks share: the language asked for and the limits."""

    def __init__(self, reading: Reading, text: str) -> None:
        self.reading = reading
        self.asked = "" if reading.language == ANY else reading.language
        self.budget = Budget()
        self.chars_left = _MAX_READ_CHARS
        self.text = text.replace("\r\n", "\n").replace("\r", "\n") if "\r" in text else text
        self.lines_before = 0  # lines of the completion above the answer, less that of a fence put before it
        if reading.fence_prefilled:
            fence = "```" if _info_word(self.text) else "```\n"
            whole = begun(fence, self.text)
            self.lines_before = -1 if whole != self.text and fence.endswith("\n") else 0
            self.text = whole

    def read(self) -> _Found:
        try:
            found = without_reasoning(
                self.text, self.reading.reasoning_marks, prefilled=self.reading.thinking_prefilled
            )
            answer = without_end_marks(found.text).removeprefix("\ufeff")
            blocks = find_blocks(answer) or tagged_blocks(answer)
        except TooManyMarksError:
            return "", self.asked, Status.TOO_COMPLEX, "The completion has too many marks of reasoning to be read."
        except TooComplexError:
            return "", self.asked, Status.TOO_COMPLEX, "The Markdown of the answer has too many marks to be read."
        self.lines_before += self.text.count("\n", 0, found.start)
        if self.reading.extraction == "single":
            return self._single(found, answer, blocks)
        if self.reading.extraction == "bare":
            return self._bare(found, answer, blocks)
        return self._best(found, answer, blocks if self.reading.extraction == "first" else blocks[::-1])

    def _place(self, line: int) -> str:
        if line + self.lines_before < 1:
            return "that the prompt opened"
        whole = "completion" if self.lines_before else "answer"
        return f"at line {line + self.lines_before} of the {whole}"

    def _single(self, found: Answer, answer: str, blocks: list[Block]) -> _Found:
        if len(blocks) > 1 and _is_fence_alone(blocks[-1]):
            blocks = blocks[:-1]  # a fence too many, at the end, opens nothing
        if len(blocks) > 1:
            lines = ", ".join(str(block.line + self.lines_before) for block in blocks[:5])
            whose = "at lines {} of the completion" if self.lines_before else "at its lines {}"
            places = whose.format(lines + (", ..." if len(blocks) > 5 else ""))
            sentence = f"The answer has {len(blocks)} fenced blocks ({places}); exactly one is expected."
            return "", self.asked, Status.MULTIPLE_BLOCKS, sentence
        if blocks and _is_fence_alone(blocks[0]) and (reason := self._misplaced_fence(answer, blocks[0].line)):
            return "", self.asked, Status.UNCLOSED, reason
        return self._block(blocks[0]) if blocks else self._no_block(found, answer)

    def _misplaced_fence(self, answer: str, before: int) -> str:
        """What keeps a line above a fence from opening a block; empty if no such line is there."""
        for number, line in enumerate(answer.split("\n")[: before - 1], 1):
            if "```" in line or "~~~" in line:
                if line.lstrip()[:3] in ("```", "~~~"):
                    reason = "is indented by four spaces or more, which makes it plain text: indent it less"
                else:
                    reason = "stands behind other text: it opens a block at the start of its own line alone"
                return f"The fence {self._place(number)} {reason}."
        return ""

    def _best(self, found: Answer, answer: str, blocks: list[Block]) -> _Found:
        """The first of the blocks that is valid, else what is wrong with the first."""
        if not blocks:
            return self._no_block(found, answer)
        chief = self._block(blocks[0])
        for block in blocks[1:]:
            if chief[2] is Status.OK:
                break
            other = self._block(block)
            if other[2] is Status.OK:
                return other
        return chief

    def _bare(self, found: Answer, answer: str, blocks: list[Block]) -> _Found:
        if found.had_reasoning and self.asked not in _READ_TAGS:
            raw = self._program(without_end_marks(self.text), self.asked or "python", "The text")
            if raw[2] is Status.OK:  # what looked like marks of reasoning stands in the program's strings
                return raw
        if not answer.strip():
            return self._no_block(found, answer)
        name = "The text without its reasoning" if found.had_reasoning else "The text"
        whole = self._program(*self._without_info_word(answer), name)
        if whole[2] is Status.OK or not blocks:
            return whole
        bare = [fence.start for fence in fence_lines(answer) if fence.is_plain]
        ends = {"first": blocks[0].line - 1, "last": answer.count("\n", 0, bare[-1]) if bare else 0}
        for which, line in ends.items():
            before = "\n".join(answer.split("\n")[:line])
            if before.strip():
                head = self._program(*self._without_info_word(before + "\n"), f"The text before the {which} fence")
                if head[2] is Status.OK:
                    return head
        return self._best(found, answer, blocks[::-1])

    def _without_info_word(self, text: str) -> tuple[str, str]:
        """A program and its language, where the prompt has ended with the fence and the text begins with the rest."""
        bare = text.lstrip("\n")
        tagged = _info_word(bare)
        if tagged and is_installed(tagged) and self.asked in ("", tagged):
            return bare.partition("\n")[2], tagged
        return text, self.asked

    def _no_block(self, found: Answer, answer: str) -> _Found:
        whose = "The answer behind the reasoning" if found.had_reasoning else "The answer"
        if found.is_cut and not answer.strip():
            sentence = "The completion ends inside its thinking, or nothing follows it."
        elif found.had_reasoning and not answer.strip():
            sentence = "Nothing follows the reasoning."
        elif not answer.strip():
            sentence = "The completion is empty."
        elif reason := self._misplaced_fence(answer, answer.count("\n") + 2):
            is_inside = "stands behind" in reason or re.search(r"^ *(```|~~~).*\1", answer, re.MULTILINE)
            sentence = (
                f"{whose} has backticks but no fenced block: a fence stands at the start of its own line."
                if is_inside
                else reason
            )
        else:
            sentence = f"{whose} has no fenced block."
        return "", self.asked, Status.NO_BLOCK, sentence

    def _block(self, block: Block) -> _Found:
        name = f"The block {self._place(block.line)}"
        tagged = info_language(block.info)
        if not block.closed:
            reason = (
                "ends with the list or quote around it: its lines need the indentation of the fence"
                if block.is_left
                else "never closes, as after a length limit"
            )
            return "", tagged or self.asked, Status.UNCLOSED, f"{name} {reason}."
        if tagged and self.asked and tagged != self.asked:
            return "", tagged, Status.WRONG_LANGUAGE, f"{name} is tagged {tagged!r}; {self.asked} is expected."
        if tagged and tagged not in LANGUAGES:
            return "", tagged, Status.WRONG_LANGUAGE, f"{name} is tagged {tagged!r}, a language without a rule here."
        if tagged and not is_installed(tagged):
            sentence = f"{name} is {tagged}, whose grammar is not installed: pip install {wheel(tagged)}."
            return "", tagged, Status.WRONG_LANGUAGE, sentence
        return self._program(block.text, tagged or self.asked, name)

    def _program(self, code: str, language: str, name: str) -> _Found:
        if len(code) <= MAX_CODE_CHARS:
            if len(code) > self.chars_left:
                sentence = (
                    f"{name} comes after others that took all of the {_MAX_READ_CHARS:,} characters that are tried."
                )
                return "", language, Status.TOO_COMPLEX, sentence
            self.chars_left -= len(code)
        if language:
            status, clause = check(code, language, self.budget)
            return code, language, status, f"{name} {clause or 'is a ' + language + ' program'}."
        idle: _Found | None = None
        for candidate in filter(is_installed, LANGUAGES):
            status, clause = check(code, candidate, self.budget)
            if status is Status.OK:
                return code, candidate, status, f"{name} names no language and reads as {candidate}."
            if status is Status.TOO_LONG:
                return "", "", status, f"{name} {clause}."
            if status is Status.TRIVIAL and idle is None:
                idle = "", candidate, status, f"{name} {clause}."
        return idle or ("", "", Status.SYNTAX_ERROR, f"{name} names no language, and no installed grammar reads it.")


def _info_word(text: str) -> str:
    """The language that a text's first line names, where the prompt has ended with the fence and no info string."""
    word, end, _ = text.partition("\n")
    tagged = info_language(word) if end and _INFO.fullmatch(word) else ""
    return tagged if tagged in LANGUAGES else ""


def _is_fence_alone(block: Block) -> bool:
    """A fence at the end that nothing follows: a fence too many."""
    return not (block.closed or block.info or block.text.strip())
