"""Completion -> the program in it, or the reason why there is none (paper §4)."""

from collections.abc import Sequence

from codescaler_plugin.errors import ConfigError, DataError
from codescaler_plugin.extraction.languages import checked_language
from codescaler_plugin.extraction.limits import MAX_COMPLETION_CHARS
from codescaler_plugin.extraction.opening import begun, prompt_opening
from codescaler_plugin.extraction.reader import Reading, read
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
) -> Extraction:
    r"""Extract the code of a completion, if it is a valid program. Nothing is executed.

    Reasoning is removed first: `<think>` and the marks of other families, see `extraction.reasoning`. The language of
    a block is that of its info string, else the caller's. With `any`, an untagged block is in the first installed
    language that reads it.

    Args:
        text: completion. Above `MAX_COMPLETION_CHARS` the status is `too_long`.
        language: name of a language (`extraction.languages.LANGUAGES`, and those of entry points), a common name for
            it (`c++`, `js`), or `any`. A block in another language has the status `wrong_language`.
        extraction: block selection.
            `single`: exactly one block, which is closed (paper §4; for RL).
            `last`, `first`: the last or first valid block; if none is valid, the status of the last or first.
            `bare`: the whole text, or the text before its first fence (the prompt may have opened one), if that is a
            program; else as `last`.
        reasoning_marks: further marks of reasoning, opening and closing in turn, such as `<plan> </plan>`.
        thinking_prefilled: the prompt has opened the reasoning, so a completion without a closing mark was cut inside
            it. If you have the prompt, put its `prompt_opening` before the completion with `begun` instead.
        fence_prefilled: the prompt has opened the fence. A completion that opens its own fence is read alone.

    Raises:
        DataError: the text is not a `str`.
        ConfigError: an unknown language or block selection, a missing grammar, or marks that are not in pairs.

    Example:
        >>> extract_code("<think>Easy.</think>\n```python\nx = 1\n```").code
        'x = 1\n'
    """
    return extract_all(
        [text],
        language=language,
        extraction=extraction,
        reasoning_marks=reasoning_marks,
        thinking_prefilled=thinking_prefilled,
        fence_prefilled=fence_prefilled,
    )[0]


def extract_all(
    texts: Sequence[str],
    *,
    language: str = "python",
    extraction: str = "single",
    reasoning_marks: str | None = None,
    thinking_prefilled: bool = False,
    fence_prefilled: bool = False,
    openings: Sequence[str] | None = None,
) -> list[Extraction]:
    r"""Extract the code of n completions, in order, with the settings of `extract_code`. Equal ones are read once.

    Args:
        texts: n completions.
        language: see `extract_code`.
        extraction: see `extract_code`.
        reasoning_marks: see `extract_code`.
        thinking_prefilled: see `extract_code`.
        fence_prefilled: see `extract_code`.
        openings: n texts that the prompts have opened, see `prompt_opening`, each read before its completion as
            `begun` puts it there. Explanations count the lines of the completion alone.

    Raises:
        DataError: a completion is not a `str`, whose index the message names, or `texts` is one `str`; or `openings`
            has another length.
        ConfigError: see `extract_code`.

    Example:
        >>> [str(extraction.status) for extraction in extract_all(["```python\nx = 1\n```", "I cannot."])]
        ['ok', 'no_block']
    """
    if extraction not in BLOCK_SELECTIONS:
        raise ConfigError(f"extraction is {extraction!r}: expected one of {', '.join(BLOCK_SELECTIONS)}")
    language = checked_language(language)
    checked_marks(reasoning_marks)
    if isinstance(texts, str):
        raise DataError("texts is one str: expected a list of them; extract_code takes one")
    reading = Reading(language, extraction, reasoning_marks, thinking_prefilled, fence_prefilled)
    if openings is None:
        openings = [""] * len(texts)
    elif len(openings) != len(texts):
        raise DataError(f"{len(openings)} openings for {len(texts)} texts: expected one each")
    known: dict[tuple[str, str], Extraction] = {}
    for index, (opening, text) in enumerate(zip(openings, texts, strict=True)):
        if not isinstance(text, str):
            raise DataError(f"completion {index} is {type(text).__name__}: expected str")
        if (opening, text) not in known:
            known[opening, text] = read(text, reading, opening)
    return [known[key] for key in zip(openings, texts, strict=True)]
