"""What a prompt has opened for its completion, reasoning or a fence, put before the completion to make it whole."""

from codescaler_plugin.extraction.blocks import find_blocks
from codescaler_plugin.extraction.fences import TooComplexError, fence_lines
from codescaler_plugin.extraction.reasoning import TooManyMarksError, opening_of, without_reasoning

_MAX_INFO = 200  # characters at a prompt's end in which a fence may open
_MAX_REPLY = 100_000  # characters of an answer that a prompt has begun


def prompt_opening(prompt: str, reasoning_marks: str | None = None, *, is_reply: bool = False) -> str:
    r"""What a prompt has opened for its completion: reasoning, or a fenced block; empty if nothing.

    `begun` puts it before the completion.

    Args:
        prompt: the text that the policy continues.
        reasoning_marks: see `extract_code`.
        is_reply: the text is nothing but the beginning of the answer, such as the assistant's turn that ends a
            conversation. Else what is opened must stand at the very end.

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
    """A completion with what its prompt has opened before it.

    Where that is a fence and the completion opens one of its own, the completion stands alone: prompts also end in
    fences that are no beginning of an answer.
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
    """A completion's first fence opens a block: it names a language, or one of the others closes it."""
    lines = list(fence_lines(completion.replace("\r\n", "\n")))
    return bool(lines) and (bool(lines[0].info) or len(lines) % 2 == 0)
