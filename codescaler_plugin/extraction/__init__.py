"""Completion text -> the code in it, or the reason why there is none. Paper §4; pitfalls by issue 2 and 3."""

from codescaler_plugin.config import LANGUAGES, POLICIES
from codescaler_plugin.errors import ConfigError, DataError
from codescaler_plugin.extraction.blocks import find_blocks, strip_thinking
from codescaler_plugin.extraction.validity import python_status
from codescaler_plugin.records import Extraction, Status

MAX_COMPLETION_CHARS = 1_000_000
"""Longest completion that is read at all: about 250k tokens, above any generation limit in use."""


def extract_code(text: str, *, language: str = "python", policy: str = "single") -> Extraction:
    """The code of a completion under the paper's policy: exactly one fenced block, and it is a valid program.

    Thinking spans (`<think>`) are taken off first. A block counts as Python if its info string says so or is empty.
    Nothing of the text is executed.

    Args:
        text: the completion, any length.
        language: only `python`.
        policy: only `single`.

    Returns:
        An `Extraction`; `code` is empty unless `status` is `ok`.

    Raises:
        DataError: the text is not a `str`.
        ConfigError: an unknown language or policy.
    """
    if not isinstance(text, str):
        raise DataError(f"completion is {type(text).__name__}: expected str")
    if language not in LANGUAGES or policy not in POLICIES:
        raise ConfigError(
            f"language {language!r} with policy {policy!r}: expected language {' or '.join(LANGUAGES)} "
            f"and policy {' or '.join(POLICIES)}"
        )
    code, status = _single_python(text)
    return Extraction(code if status is Status.OK else "", language, status)


def _single_python(text: str) -> tuple[str, Status]:
    if len(text) > MAX_COMPLETION_CHARS:
        return "", Status.TOO_LONG
    blocks = find_blocks(strip_thinking(text))
    if len(blocks) != 1:
        return "", Status.MULTIPLE_BLOCKS if blocks else Status.NO_BLOCK
    (block,) = blocks
    if not block.closed:
        return "", Status.UNCLOSED
    if not (block.language.startswith("python") or block.language in ("", "py", "py3")):
        return "", Status.WRONG_LANGUAGE
    return block.text, python_status(block.text)
