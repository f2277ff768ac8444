"""One completion -> the block that counts, or a sentence that says why there is none."""

import re
from dataclasses import dataclass, replace

from codescaler_plugin.extraction.blocks import Block, find_blocks, tagged_blocks
from codescaler_plugin.extraction.fences import TooComplexError, fence_lines
from codescaler_plugin.extraction.languages import ANY, LANGUAGES, info_language, is_installed, language_of, languages
from codescaler_plugin.extraction.limits import MAX_CODE_CHARS, MAX_COMPLETION_CHARS
from codescaler_plugin.extraction.opening import begun
from codescaler_plugin.extraction.reasoning import Content, TooManyMarksError, without_reasoning
from codescaler_plugin.extraction.validity import Budget, check
from codescaler_plugin.records import Extraction, Status
from codescaler_plugin.text.turns import without_end_marks

_MAX_READ_CHARS = MAX_CODE_CHARS * 5 // 2  # of one completion, in all the blocks that are tried
_INFO = re.compile(r"[\w+#.-]{1,20}(?:[ \t]+\w+=\S+)*[ \t]*")


@dataclass(frozen=True)
class Reading:
    """The settings of `extract_code`; `language` is canonical."""

    language: str
    extraction: str
    reasoning_marks: str | None
    thinking_prefilled: bool
    fence_prefilled: bool


def read(text: str, reading: Reading, opening: str = "") -> Extraction:
    """The extraction of one completion, behind the text that its prompt has opened."""
    whole = begun(opening, text)
    lines_before = 0 if whole is text else -opening.count("\n")
    text = whole
    if len(text) > MAX_COMPLETION_CHARS:
        sentence = f"The completion has {len(text):,} characters; at most {MAX_COMPLETION_CHARS:,} are read."
        language = "" if reading.language == ANY else reading.language
        return Extraction("", language, Status.TOO_LONG, sentence)
    return _Reader(reading, text, lines_before).read()


class _Reader:
    """Reads one completion."""

    def __init__(self, reading: Reading, text: str, lines_before: int) -> None:
        self.reading = reading
        self.asked = "" if reading.language == ANY else reading.language
        self.registered = self.asked not in LANGUAGES
        self.known = languages(self.registered)
        self.budget = Budget()
        self.chars_left = _MAX_READ_CHARS
        self.text = text.replace("\r\n", "\n").replace("\r", "\n") if "\r" in text else text
        self.lines_before = lines_before  # of the completion before its content, less those of what was put before it
        if reading.fence_prefilled:
            fence = "```" if self._info_word(self.text) else "```\n"
            whole = begun(fence, self.text)
            self.lines_before -= whole != self.text and fence.endswith("\n")
            self.text = whole

    def read(self) -> Extraction:
        try:
            content = without_reasoning(
                self.text, self.reading.reasoning_marks, prefilled=self.reading.thinking_prefilled
            )
            text = without_end_marks(content.text).removeprefix("\ufeff")
            blocks = find_blocks(text) or tagged_blocks(text)
        except TooManyMarksError:
            return self._nothing(Status.TOO_COMPLEX, "The completion has too many marks of reasoning to be read.")
        except TooComplexError:
            return self._nothing(Status.TOO_COMPLEX, "The Markdown of the completion has too many marks to be read.")
        content = replace(content, text=text)
        self.lines_before += self.text.count("\n", 0, content.start)
        if self.reading.extraction == "single":
            return self._single(content, blocks)
        if self.reading.extraction == "bare":
            return self._bare(content, blocks)
        return self._best(content, blocks if self.reading.extraction == "first" else blocks[::-1])

    def _nothing(self, status: Status, sentence: str) -> Extraction:
        return Extraction("", self.asked, status, sentence)

    def _location(self, line: int) -> str:
        line += self.lines_before
        return f"at line {line} of the completion" if line > 0 else "that the prompt opened"

    def _single(self, content: Content, blocks: list[Block]) -> Extraction:
        if len(blocks) > 1 and _is_fence_alone(blocks[-1]):
            blocks = blocks[:-1]  # a fence too many, at the end, opens nothing
        if len(blocks) > 1:
            lines = ", ".join(str(block.line + self.lines_before) for block in blocks[:5])
            lines += ", ..." if len(blocks) > 5 else ""
            sentence = f"The completion has {len(blocks)} fenced blocks (at lines {lines}); exactly one is expected."
            return self._nothing(Status.MULTIPLE_BLOCKS, sentence)
        if blocks and _is_fence_alone(blocks[0]) and (reason := self._misplaced_fence(content.text, blocks[0].line)):
            return self._nothing(Status.UNCLOSED, reason)
        return self._block(blocks[0]) if blocks else self._no_block(content)

    def _misplaced_fence(self, text: str, before: int) -> str:
        """The reason why a fence above a line opens no block; empty if there is no such fence."""
        for number, line in enumerate(text.split("\n")[: before - 1], 1):
            if "```" in line or "~~~" in line:
                if line.lstrip()[:3] in ("```", "~~~"):
                    reason = "is indented by four spaces or more, which makes it plain text: indent it less"
                else:
                    reason = "stands behind other text: it opens a block at the start of its own line alone"
                return f"The fence {self._location(number)} {reason}."
        return ""

    def _best(self, content: Content, blocks: list[Block]) -> Extraction:
        if not blocks:
            return self._no_block(content)
        chief = self._block(blocks[0])
        for block in blocks[1:]:
            if chief.status is Status.OK:
                break
            other = self._block(block)
            if other.status is Status.OK:
                return other
        return chief

    def _bare(self, content: Content, blocks: list[Block]) -> Extraction:
        if content.had_reasoning and not (self.asked and language_of(self.asked).reads_tags):
            raw = self._program(without_end_marks(self.text), self.asked or "python", "The text")
            if raw.status is Status.OK:  # the marks of reasoning stand in the program's strings
                return raw
        text = content.text
        if not text.strip():
            return self._no_block(content)
        name = "The text without its reasoning" if content.had_reasoning else "The text"
        whole = self._program(*self._without_info_word(text), name)
        if whole.status is Status.OK or not blocks:
            return whole
        bare = [fence.start for fence in fence_lines(text) if fence.is_plain]
        ends = {"first": blocks[0].line - 1, "last": text.count("\n", 0, bare[-1]) if bare else 0}
        for which, line in ends.items():
            before = "\n".join(text.split("\n")[:line])
            if before.strip():
                head = self._program(*self._without_info_word(before + "\n"), f"The text before the {which} fence")
                if head.status is Status.OK:
                    return head
        return self._best(content, blocks[::-1])

    def _info_word(self, text: str) -> str:
        """The language that the first line of a text names, where the prompt ended with the fence alone."""
        word, end, _ = text.partition("\n")
        tagged = info_language(word, self.registered) if end and _INFO.fullmatch(word) else ""
        return tagged if tagged in self.known else ""

    def _without_info_word(self, text: str) -> tuple[str, str]:
        """A program and its language, without a first line that names the language."""
        bare = text.lstrip("\n")
        tagged = self._info_word(bare)
        if tagged and is_installed(tagged) and self.asked in ("", tagged):
            return bare.partition("\n")[2], tagged
        return text, self.asked

    def _no_block(self, content: Content) -> Extraction:
        behind = " behind its reasoning" if content.had_reasoning else ""
        if content.is_cut and not content.text.strip():
            sentence = "The completion ends inside its thinking, or nothing follows it."
        elif content.had_reasoning and not content.text.strip():
            sentence = "Nothing follows the reasoning."
        elif not content.text.strip():
            sentence = "The completion is empty."
        elif reason := self._misplaced_fence(content.text, content.text.count("\n") + 2):
            is_inside = "stands behind" in reason or re.search(r"^ *(```|~~~).*\1", content.text, re.MULTILINE)
            rule = "a fence stands at the start of its own line"
            sentence = f"The completion has backticks but no fenced block{behind}: {rule}." if is_inside else reason
        else:
            sentence = f"The completion has no fenced block{behind}."
        return self._nothing(Status.NO_BLOCK, sentence)

    def _block(self, block: Block) -> Extraction:
        name = f"The block {self._location(block.line)}"
        tagged = info_language(block.info, self.registered)
        if not block.closed:
            reason = "never closes, as after a length limit"
            if block.is_left:
                reason = "ends with the list or quote around it: its lines need the indentation of the fence"
            return Extraction("", tagged or self.asked, Status.UNCLOSED, f"{name} {reason}.")
        if tagged and self.asked and tagged != self.asked:
            sentence = f"{name} is tagged {tagged!r}; {self.asked} is expected."
        elif tagged and tagged not in self.known:
            sentence = f"{name} is tagged {tagged!r}, a language without a rule here."
        elif tagged and not is_installed(tagged):
            sentence = f"{name} is {tagged}, whose grammar is not installed: pip install {language_of(tagged).wheel}."
        else:
            return self._program(block.text, tagged or self.asked, name)
        return Extraction("", tagged, Status.WRONG_LANGUAGE, sentence)

    def _program(self, code: str, language: str, name: str) -> Extraction:
        if len(code) <= MAX_CODE_CHARS:
            if len(code) > self.chars_left:
                reason = f"comes after others that took all of the {_MAX_READ_CHARS:,} characters that are tried"
                return Extraction("", language, Status.TOO_COMPLEX, f"{name} {reason}.")
            self.chars_left -= len(code)
        if language:
            status, clause = check(code, language, self.budget)
            sentence = f"{name} {clause or f'is a {language} program'}."
            return Extraction(code if status is Status.OK else "", language, status, sentence)
        idle: Extraction | None = None
        for candidate in filter(is_installed, self.known):
            status, clause = check(code, candidate, self.budget)
            if status is Status.OK:
                sentence = f"{name} names no language and reads as {candidate}."
                return Extraction(code, candidate, status, sentence)
            if status is Status.TOO_LONG:
                return Extraction("", "", status, f"{name} {clause}.")
            if status is Status.TRIVIAL and idle is None:
                idle = Extraction("", candidate, status, f"{name} {clause}.")
        sentence = f"{name} names no language, and no installed grammar reads it."
        return idle or Extraction("", "", Status.SYNTAX_ERROR, sentence)


def _is_fence_alone(block: Block) -> bool:
    return not (block.closed or block.info or block.text.strip())
