"""Reasoning or a fence that a prompt opens, put before the completion that continues it."""

from codescaler_plugin.extraction.blocks import find_blocks
from codescaler_plugin.extraction.fences import TooComplexError, fence_lines
from codescaler_plugin.extraction.reasoning import TooManyMarksError, opening_of, without_reasoning

_MAX_INFO = 200  # characters at a prompt's end in which a fence may open
_MAX_REPLY = 100_000  # characters of a reply that a prompt has begun


def prompt_opening(prompt: str, reasoning_marks: str | None = None, *, is_reply: bool = False) -> str:
    r"""The text at the end of a prompt that opens reasoning or a fenced block; empty if there is none.

    In a whole prompt the opening must stand at the very end. With `is_reply`, the text is only the beginning of the
    reply, such as the assistant turn that ends a conversation.

    Example:
        >>> prompt_opening("<|im_start|>assistant\n<think>\n")
        '<think>\n'
    """
    if is_reply:
        return prompt if _is_open(prompt[-_MAX_REPLY:], reasoning_marks) else ""
    if mark := opening_of(prompt, reasoning_marks):
        return mark
    line = prompt[prompt.rstrip().rfind("\n") + 1 :]
    if len(line) > _MAX_INFO or not line.lstrip().startswith(("```", "~~~")):
        return ""
    try:
        blocks = find_blocks(prompt)
    except TooComplexError:
        return ""
    return line if blocks and not blocks[-1].closed and not blocks[-1].text.strip() else ""


def begun(opening: str, completion: str) -> str:
    """A completion behind the text that its prompt has opened.

    A completion that opens a fence of its own stands alone if the prompt ends in a fence, because prompts also end in
    fences that do not begin the reply.
    """
    if not opening:
        return completion
    try:
        stands_alone = _opens_block(opening) and not without_reasoning(opening).is_cut and _opens_own(completion)
    except (TooManyMarksError, TooComplexError):
        stands_alone = False
    return completion if stands_alone else opening + completion


def _is_open(reply: str, reasoning_marks: str | None) -> bool:
    try:
        return without_reasoning(reply, reasoning_marks).is_cut or _opens_block(reply)
    except (TooManyMarksError, TooComplexError):
        return False


def _opens_block(text: str) -> bool:
    blocks = find_blocks(text)
    return bool(blocks) and not blocks[-1].closed


def _opens_own(completion: str) -> bool:
    """The first fence of a completion opens a block: it names a language, or another fence closes it."""
    lines = list(fence_lines(completion.replace("\r\n", "\n")))
    return bool(lines) and (bool(lines[0].info) or len(lines) % 2 == 0)
