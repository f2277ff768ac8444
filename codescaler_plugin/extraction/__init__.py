"""Completion text -> the code in it, or the reason why there is none. Paper §4; pitfalls by issues 2 and 3."""

from collections.abc import Sequence

from codescaler_plugin.errors import ConfigError, DataError
from codescaler_plugin.extraction.languages import checked_language
from codescaler_plugin.extraction.opening import begun, prompt_opening
from codescaler_plugin.extraction.reader import MAX_COMPLETION_CHARS, Reading, read
from codescaler_plugin.extraction.reasoning import checked_marks
from codescaler_plugin.records import Extraction

__all__ = ["BLOCK_SELECTIONS", "MAX_COMPLETION_CHARS", "begun", "extract_all", "extract_code", "prompt_opening"]

BLOCK_SELECTIONS = ("single", "last", "first", "bare")


def extract_code(
    text: str,
    *,
    language: str = "python",
    extraction: str = "single",
    reasoning_marks: str | None = None,
    thinking_prefilled: bool = False,
    fence_prefilled: bool = False,
    explain: bool = False,
) -> Extraction:
    r"""The code of a completion, if it is a valid program. Nothing of the text is executed.

    Reasoning (`<think>` and the marks of other families, see `extraction.reasoning`) is taken off first. A block is in
    the language of its info string, else in the caller's; with `any`, an untagged block is in the first installed
    language that reads it.

    Args:
        text: the completion, any length; above `MAX_COMPLETION_CHARS` the status is `too_long`.
        language: one of `LANGUAGES` or a usual name for it (`c++`, `js`); or `any`. A block in another language has
            the status `wrong_language`.
        extraction: which fenced block counts.
            `single`: exactly one block, and it is closed (paper §4; for RL).
            `last`, `first`: the last or first block that is valid; if none is, the status of the last or first.
            `bare`: the whole text, or what stands before its first fence (the prompt may have opened one), if that is
            a program; else as `last`.
        reasoning_marks: further marks of reasoning, opening and closing in turn, such as `<plan> </plan>`.
        thinking_prefilled: the prompt has opened the reasoning, so that a completion without a closing mark was cut
            inside of it. Who has the prompt puts its `prompt_opening` before the completion by `begun` instead.
        fence_prefilled: the prompt has opened the fence. A completion that opens one of its own is read alone.
        explain: also say in a sentence why the status is what it is.

    Returns:
        An `Extraction`; `code` is empty unless `status` is `ok`. Its language is the block's, empty if unknown.

    Raises:
        DataError: the text is not a `str`.
        ConfigError: an unknown language or block selection, a language whose grammar is not installed, or marks that
            are not in pairs.

    Example:
        >>> extract_code("<think>Easy.</think>\n```python\nx = 1\n```").code
        'x = 1\n'
    """
    [found] = extract_all(
        [text],
        language=language,
        extraction=extraction,
        reasoning_marks=reasoning_marks,
        thinking_prefilled=thinking_prefilled,
        fence_prefilled=fence_prefilled,
        explain=explain,
    )
    return found


def extract_all(
    texts: Sequence[str],
    *,
    language: str = "python",
    extraction: str = "single",
    reasoning_marks: str | None = None,
    thinking_prefilled: bool = False,
    fence_prefilled: bool = False,
    explain: bool = False,
) -> list[Extraction]:
    """`extract_code` of n completions, with its settings; same length, same order. Equal texts are read once.

    Raises:
        DataError: a text is not a `str`; the message names its index. Or `texts` is one.
        ConfigError: see `extract_code`.
    """
    if extraction not in BLOCK_SELECTIONS:
        raise ConfigError(f"extraction is {extraction!r}: expected one of {', '.join(BLOCK_SELECTIONS)}")
    language = checked_language(language)
    checked_marks(reasoning_marks)
    if isinstance(texts, str):
        raise DataError("texts is one str: expected a list of them; extract_code takes one")
    reading = Reading(language, extraction, reasoning_marks, thinking_prefilled, fence_prefilled, explain)
    known: dict[str, Extraction] = {}
    for index, text in enumerate(texts):
        if not isinstance(text, str):
            raise DataError(f"completion {index} is {type(text).__name__}: expected str")
        if text not in known:
            known[text] = read(text, reading)
    return [known[text] for text in texts]
