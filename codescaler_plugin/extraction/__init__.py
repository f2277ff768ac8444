"""Completion text -> the code in it, or the reason why there is none. Paper §4; pitfalls by issues 2 and 3."""

from collections.abc import Sequence
from dataclasses import dataclass

from codescaler_plugin.errors import ConfigError, DataError
from codescaler_plugin.extraction.blocks import Block, find_blocks, tagged_blocks
from codescaler_plugin.extraction.fences import TooComplexError
from codescaler_plugin.extraction.languages import (
    ANY,
    LANGUAGES,
    checked_language,
    info_language,
    is_installed,
    wheel,
)
from codescaler_plugin.extraction.reasoning import (
    Answer,
    TooManyMarksError,
    checked_marks,
    opening_of,
    prefilled,
    without_reasoning,
)
from codescaler_plugin.extraction.validity import MAX_CODE_CHARS, Budget, check
from codescaler_plugin.records import Extraction, Status
from codescaler_plugin.text.templates import without_end_marks

POLICIES = ("single", "last", "first", "bare")

MAX_COMPLETION_CHARS = 1_000_000
"""Longest completion that is read at all: about 250k tokens, above any generation limit in use."""
_MAX_INFO = 200  # characters at a prompt's end in which a fence may open
_MAX_READ_CHARS = MAX_CODE_CHARS * 5 // 2  # of one completion, in all the blocks that are tried


def extract_code(
    text: str,
    *,
    language: str = "python",
    policy: str = "single",
    reasoning_marks: str | None = None,
    thinking_prefilled: bool = False,
    fence_prefilled: bool = False,
    explain: bool = False,
) -> Extraction:
    r"""The code of a completion, if it is a usable program. Nothing of the text is executed.

    Reasoning (`<think>` and the marks of other families, see `extraction.reasoning`) is taken off first. A block is in
    the language of its info string, else in the caller's; with `any`, an untagged block is in the first installed
    language that reads it.

    Args:
        text: the completion, any length; above `MAX_COMPLETION_CHARS` the status is `too_long`.
        language: one of `LANGUAGES` or a usual name for it (`c++`, `js`); or `any`. A block in another language has
            the status `wrong_language`.
        policy: which fenced block counts.
            `single`: exactly one block, and it is closed (paper §4; for RL).
            `last`, `first`: the last or first block that is usable; if none is, the status of the last or first.
            `bare`: the whole text, or what stands before its first fence (the prompt may have opened one), if that is
            a program; else as `last`.
        reasoning_marks: further marks of reasoning, opening and closing in turn, such as `<plan> </plan>`.
        thinking_prefilled: the prompt has opened the reasoning, so that a completion without a closing mark was cut
            inside of it. Who has the prompt puts its `prompt_opening` before the completion instead.
        fence_prefilled: the prompt has opened the fence. A completion that is no program so is read without it.
        explain: also say in a sentence why the status is what it is.

    Returns:
        An `Extraction`; `code` is empty unless `status` is `ok`. Its language is the block's, empty if unknown.

    Raises:
        DataError: the text is not a `str`.
        ConfigError: an unknown language or policy, a language whose grammar is not installed, or marks that are not
            in pairs.

    Example:
        >>> extract_code("<think>Easy.</think>\n```python\nx = 1\n```").code
        'x = 1\n'
    """
    [extraction] = extract_all(
        [text],
        language=language,
        policy=policy,
        reasoning_marks=reasoning_marks,
        thinking_prefilled=thinking_prefilled,
        fence_prefilled=fence_prefilled,
        explain=explain,
    )
    return extraction


def extract_all(
    texts: Sequence[str],
    *,
    language: str = "python",
    policy: str = "single",
    reasoning_marks: str | None = None,
    thinking_prefilled: bool = False,
    fence_prefilled: bool = False,
    explain: bool = False,
) -> list[Extraction]:
    """`extract_code` of many completions; same length, same order. Equal texts are read once.

    Args:
        texts: n completions.
        language: see `extract_code`, as for the others.
        policy: as there.
        reasoning_marks: as there.
        thinking_prefilled: as there.
        fence_prefilled: as there.
        explain: as there.

    Raises:
        DataError: a text is not a `str`; the message names its index. Or `texts` is one.
        ConfigError: see `extract_code`.
    """
    if policy not in POLICIES:
        raise ConfigError(f"policy is {policy!r}: expected one of {', '.join(POLICIES)}")
    language = checked_language(language)
    checked_marks(reasoning_marks)
    if isinstance(texts, str):
        raise DataError("texts is one str: expected a list of them; extract_code takes one")
    reading = _Reading(language, policy, reasoning_marks, thinking_prefilled, fence_prefilled, explain)
    known: dict[str, Extraction] = {}
    for index, text in enumerate(texts):
        if not isinstance(text, str):
            raise DataError(f"completion {index} is {type(text).__name__}: expected str")
        if text not in known:
            known[text] = _extract(text, reading)
    return [known[text] for text in texts]


def prompt_opening(prompt: str, reasoning_marks: str | None = None) -> str:
    r"""What a prompt's very end opens for the completion: reasoning, or a fenced block; empty if nothing.

    With it before the completion, `extract_code` sees what the policy saw.

    Args:
        prompt: the text that the policy continues, or of a conversation the assistant's turn that it continues.
        reasoning_marks: see `extract_code`.

    Example:
        >>> prompt_opening("<|im_start|>assistant\n<think>\n")
        '<think>\n'
    """
    if mark := opening_of(prompt, reasoning_marks):
        return mark
    if "```" not in prompt[-_MAX_INFO:] and "~~~" not in prompt[-_MAX_INFO:]:
        return ""
    try:
        blocks = find_blocks(prompt)
    except TooComplexError:
        return ""
    if not blocks or blocks[-1].closed or blocks[-1].text.strip():
        return ""
    return prompt[prompt.rstrip().rfind("\n") + 1 :]


@dataclass(frozen=True)
class _Reading:
    """How completions are read; see `extract_code`."""

    language: str
    policy: str
    reasoning_marks: str | None
    thinking_prefilled: bool
    fence_prefilled: bool
    explain: bool


def _extract(text: str, reading: _Reading) -> Extraction:
    if len(text) > MAX_COMPLETION_CHARS:
        sentence = f"The completion has {len(text):,} characters; at most {MAX_COMPLETION_CHARS:,} are read."
        found: _Found = "", _Reader(reading).asked, Status.TOO_LONG, sentence
    else:
        if reading.thinking_prefilled:
            text = prefilled(text, reading.reasoning_marks) + text
        found = _Reader(reading).read(
            ("```\n" if _info_word(text) == "" else "```") + text if reading.fence_prefilled else text
        )
        if reading.fence_prefilled and found[2] is not Status.OK:
            plain = _Reader(reading).read(text)
            found = plain if plain[2] is Status.OK else found
    code, language, status, sentence = found
    return Extraction(code if status is Status.OK else "", language, status, sentence if reading.explain else "")


def _info_word(text: str) -> str:
    """The language that a text's first line names, where the prompt has ended with the fence and no info string."""
    word, end, _ = text.partition("\n")
    tagged = info_language(word) if end and word.strip().isalnum() else ""
    return tagged if tagged in LANGUAGES else ""


def _is_fence_alone(block: Block) -> bool:
    """A fence at the end that nothing follows: a fence too many."""
    return not (block.closed or block.info or block.text.strip())


def _misplaced_fence(answer: str, before: int) -> int:
    """The first line above another with a fence's characters in it; 0 if there is none."""
    lines = answer.split("\n")[: before - 1]
    return next((number for number, line in enumerate(lines, 1) if "```" in line or "~~~" in line), 0)


_Found = tuple[str, str, Status, str]  # code, its language, status, a sentence that explains the status


class _Reader:
    """Reads one completion; holds what all its blocks share: the language asked for and the limits."""

    def __init__(self, reading: _Reading) -> None:
        self.wanted = reading.language
        self.asked = "" if reading.language == ANY else reading.language
        self.policy = reading.policy
        self.reasoning_marks = reading.reasoning_marks
        self.budget = Budget()
        self.chars_left = _MAX_READ_CHARS

    def read(self, text: str) -> _Found:
        text = without_end_marks(text)
        if "\r" in text:
            text = text.replace("\r\n", "\n").replace("\r", "\n")
        try:
            found = without_reasoning(text, self.reasoning_marks)
            answer = found.text.removeprefix("\ufeff")
            blocks = find_blocks(answer) or tagged_blocks(answer)
        except TooManyMarksError:
            return "", self.asked, Status.TOO_COMPLEX, "The completion has too many marks of reasoning to be read."
        except TooComplexError:
            return "", self.asked, Status.TOO_COMPLEX, "The Markdown of the answer has too many marks to be read."
        if self.policy == "single":
            return self._single(found, answer, blocks)
        if self.policy == "bare":
            return self._bare(found, text, answer, blocks)
        return self._best(found, answer, blocks if self.policy == "first" else blocks[::-1])

    def _single(self, found: Answer, answer: str, blocks: list[Block]) -> _Found:
        if len(blocks) > 1 and _is_fence_alone(blocks[-1]):
            blocks = blocks[:-1]  # a fence too many, at the end, opens nothing
        if len(blocks) > 1:
            lines = ", ".join(str(block.line) for block in blocks[:5]) + (", ..." if len(blocks) > 5 else "")
            sentence = f"The answer has {len(blocks)} fenced blocks (at its lines {lines}); exactly one is expected."
            return "", self.asked, Status.MULTIPLE_BLOCKS, sentence
        if blocks and _is_fence_alone(blocks[0]) and (line := _misplaced_fence(answer, blocks[0].line)):
            sentence = (
                f"The fence at line {line} of the answer stands behind other text: it opens a block at the start of "
                "its own line alone."
            )
            return "", self.asked, Status.UNCLOSED, sentence
        return self._block(blocks[0]) if blocks else self._no_block(found, answer)

    def _best(self, found: Answer, answer: str, blocks: list[Block]) -> _Found:
        """The first of the blocks that is usable, else what is wrong with the first."""
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

    def _bare(self, found: Answer, text: str, answer: str, blocks: list[Block]) -> _Found:
        if found.had_reasoning and self.wanted in (ANY, "python"):
            raw = self._program(text, "python", "The text")
            if raw[2] is Status.OK:  # what looked like marks of reasoning stands in the program's strings
                return raw
        code, language = self._without_info_word(answer)
        whole = self._program(code, language, "The text without its reasoning")
        if whole[2] is Status.OK or not blocks:
            return self._no_block(found, answer) if found.is_cut and not answer.strip() else whole
        before = "\n".join(answer.split("\n")[: blocks[0].line - 1])
        if before.strip():
            code, language = self._without_info_word(before + "\n")
            head = self._program(code, language, "The text before the first fence")
            if head[2] is Status.OK:
                return head
        return self._best(found, answer, blocks[::-1])

    def _without_info_word(self, text: str) -> tuple[str, str]:
        """A program and its language, where the prompt has ended with the fence and the text begins with the rest."""
        text = text.lstrip("\n") if _info_word(text.lstrip("\n")) else text
        tagged = _info_word(text)
        if tagged and is_installed(tagged) and self.asked in ("", tagged):
            return text.partition("\n")[2], tagged
        return text, self.asked

    def _no_block(self, found: Answer, answer: str) -> _Found:
        if found.had_reasoning and not answer.strip():
            sentence = "The completion ends inside its thinking, or nothing follows it."
        elif "```" in answer:
            sentence = "The answer has backticks but no fenced block: a fence stands at the start of its own line."
        else:
            sentence = "The answer has no fenced block."
        return "", self.asked, Status.NO_BLOCK, sentence

    def _block(self, block: Block) -> _Found:
        name = f"The block at line {block.line} of the answer"
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
