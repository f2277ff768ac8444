"""Completion text -> the code in it, or the reason why there is none. Paper §4; pitfalls by issues 2 and 3."""

from collections.abc import Sequence

from codescaler_plugin.errors import ConfigError, DataError
from codescaler_plugin.extraction.blocks import Block, TooComplexError, find_blocks, strip_thinking
from codescaler_plugin.extraction.languages import (
    ANY,
    LANGUAGES,
    checked_language,
    info_language,
    is_installed,
    wheel,
)
from codescaler_plugin.extraction.validity import MAX_CODE_CHARS, Budget, check
from codescaler_plugin.records import Extraction, Status

POLICIES = ("single", "last", "first", "bare")

MAX_COMPLETION_CHARS = 1_000_000
"""Longest completion that is read at all: about 250k tokens, above any generation limit in use."""
_MAX_READ_CHARS = MAX_CODE_CHARS * 3 // 2  # of one completion, in all the blocks that are tried


def extract_code(text: str, *, language: str = "python", policy: str = "single", explain: bool = False) -> Extraction:
    """The code of a completion, if it is a usable program. Nothing of the text is executed.

    Thinking spans (`<think>`) are taken off first. A block is in the language of its info string, else in the
    caller's; with `any`, an untagged block is in the first installed language that reads it.

    Args:
        text: the completion, any length; above `MAX_COMPLETION_CHARS` the status is `too_long`.
        language: one of `LANGUAGES` or a usual name for it (`c++`, `js`); or `any`. A block in another language has
            the status `wrong_language`.
        policy: which fenced block counts.
            `single`: exactly one block, and it is closed (paper §4; for RL).
            `last`, `first`: the last or first block that is usable; if none is, the status of the last or first.
            `bare`: the whole text, or what stands before its first fence (the prompt may have opened one), if that is
            a program; else as `last`.
        explain: also say in a sentence why the status is what it is.

    Returns:
        An `Extraction`; `code` is empty unless `status` is `ok`. Its language is the block's, empty if unknown.

    Raises:
        DataError: the text is not a `str`.
        ConfigError: an unknown language or policy, or a language whose grammar is not installed.
    """
    return extract_all([text], language=language, policy=policy, explain=explain)[0]


def extract_all(
    texts: Sequence[str], *, language: str = "python", policy: str = "single", explain: bool = False
) -> list[Extraction]:
    """`extract_code` of many completions; same length, same order. Equal texts are read once.

    Raises:
        DataError: a text is not a `str`; the message names its index. Or `texts` is one.
        ConfigError: see `extract_code`.
    """
    if policy not in POLICIES:
        raise ConfigError(f"policy is {policy!r}: expected one of {', '.join(POLICIES)}")
    language = checked_language(language)
    if isinstance(texts, str):
        raise DataError("texts is one str: expected a list of them; extract_code takes one")
    known: dict[str, Extraction] = {}
    for index, text in enumerate(texts):
        if not isinstance(text, str):
            raise DataError(f"completion {index} is {type(text).__name__}: expected str")
        if text not in known:
            known[text] = _extract(text, language, policy, explain)
    return [known[text] for text in texts]


def _extract(text: str, language: str, policy: str, explain: bool) -> Extraction:
    code, found, status, sentence = _Reader(language).read(text, policy)
    return Extraction(code if status is Status.OK else "", found, status, sentence if explain else "")


_Found = tuple[str, str, Status, str]  # code, its language, status, a sentence that explains the status


class _Reader:
    """Reads one completion; holds what all its blocks share: the language asked for and the limits."""

    def __init__(self, language: str) -> None:
        self.wanted = language
        self.asked = "" if language == ANY else language
        self.budget = Budget()
        self.chars_left = _MAX_READ_CHARS

    def read(self, text: str, policy: str) -> _Found:
        if len(text) > MAX_COMPLETION_CHARS:
            sentence = f"The completion has {len(text):,} characters; at most {MAX_COMPLETION_CHARS:,} are read."
            return "", self.asked, Status.TOO_LONG, sentence
        answer = strip_thinking(text).removeprefix("\ufeff")
        try:
            blocks = find_blocks(answer)
        except TooComplexError:
            return "", self.asked, Status.TOO_COMPLEX, "The Markdown of the answer has too many marks to be read."
        if policy == "single":
            return self._single(text, answer, blocks)
        if policy == "bare":
            return self._bare(text, answer, blocks)
        return self._best(text, answer, blocks if policy == "first" else blocks[::-1])

    def _single(self, text: str, answer: str, blocks: list[Block]) -> _Found:
        if len(blocks) > 1 and not (blocks[-1].closed or blocks[-1].info or blocks[-1].text.strip()):
            blocks = blocks[:-1]  # a fence too many, at the end, opens nothing
        if len(blocks) > 1:
            lines = ", ".join(str(block.line) for block in blocks[:5]) + (", ..." if len(blocks) > 5 else "")
            sentence = f"The answer has {len(blocks)} fenced blocks (at its lines {lines}); exactly one is expected."
            return "", self.asked, Status.MULTIPLE_BLOCKS, sentence
        return self._block(blocks[0]) if blocks else self._no_block(text, answer)

    def _best(self, text: str, answer: str, blocks: list[Block]) -> _Found:
        """The first of the blocks that is usable, else what is wrong with the first."""
        if not blocks:
            return self._no_block(text, answer)
        chief = self._block(blocks[0])
        for block in blocks[1:]:
            if chief[2] is Status.OK:
                break
            found = self._block(block)
            if found[2] is Status.OK:
                return found
        return chief

    def _bare(self, text: str, answer: str, blocks: list[Block]) -> _Found:
        whole = self._program(answer, self.asked, "The text without its thinking")
        if whole[2] is Status.OK or not blocks:
            return whole
        before = "\n".join(answer.splitlines()[: blocks[0].line - 1])
        if before.strip():
            head = self._program(before + "\n", self.asked, "The text before the first fence")
            if head[2] is Status.OK:
                return head
        return self._best(text, answer, blocks[::-1])

    def _no_block(self, text: str, answer: str) -> _Found:
        if len(answer) < len(text) and not answer.strip():
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
            return "", tagged or self.asked, Status.UNCLOSED, f"{name} never closes, as after a length limit."
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
