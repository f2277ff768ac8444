"""Templated text -> what a user or an assistant said in it, without the tokenizer that made it.

Hosts log prompts as text that a chat template has made (OpenRLHF, verl, the reference recipe). Known here: the marks
of Qwen (ChatML), Llama 2 and 3, Mistral, DeepSeek and Gemma, and the two forms that are left of ChatML and Llama 3
when a host decodes without special tokens, as verl does. A text that does not begin with such a mark is no template's.
"""

import json
import re
from dataclasses import dataclass

from codescaler_plugin.errors import DataError


@dataclass(frozen=True)
class _Template:
    """Marks of one chat template: what a text of it begins with, what opens a user's turn, what ends it."""

    start: re.Pattern[str]
    user: re.Pattern[str]
    end: re.Pattern[str]
    reply: re.Pattern[str]


def _template(start: str, user: str, end: str, reply: str) -> _Template:
    return _Template(*(re.compile(pattern) for pattern in (start, user, end, reply)))


_BOS = (  # with what OpenRLHF up to 0.5 pads with on the left
    r"\A\s*(?:<s>|</s>|<bos>|<eos>|<pad>|<unk>|<\|(?:begin_of_text|end_?of_?text|eot_id|im_end|finetune_right_pad_id)\|>|"
    r"<｜(?:begin▁of▁sentence|end▁of▁sentence|▁pad▁)｜>)*\s*"
)

_TEMPLATES = (
    _template(
        _BOS + r"<\|im_start\|>",
        r"<\|im_start\|>user\n",
        r"<\|im_end\|>\s*(?=<\|im_start\|>|\Z)|(?=<\|im_start\|>assistant)",
        r"<\|im_start\|>assistant\n",
    ),
    _template(
        _BOS + r"<\|start_header_id\|>",
        r"<\|start_header_id\|>user<\|end_header_id\|>\n\n",
        r"<\|eot_id\|>\s*(?=<\|start_header_id\|>|\Z)",
        r"<\|start_header_id\|>assistant<\|end_header_id\|>\n\n",
    ),
    _template(
        _BOS + r"<start_of_turn>",
        r"<start_of_turn>user\n",
        r"<end_of_turn>\s*(?=<start_of_turn>|\Z)",
        r"<start_of_turn>model\n",
    ),
    _template(  # Gemma 4
        _BOS + r"<\|turn>", r"<\|turn>user\n", r"<turn\|>\s*(?=<\|turn>|\Z)", r"<\|turn>model\n"
    ),
    _template(
        _BOS + r"(?:\[SYSTEM_PROMPT\]|\[INST\])",
        r"\[INST\]\s*",
        r"\s*\[/INST\]",
        r"\[/INST\]",
    ),
    _template(  # a system text may stand before the first mark
        r"\A\s*(?:<｜(?:end▁of▁sentence|▁pad▁)｜>)*(?:<｜begin▁of▁sentence｜>|<｜User｜>)",
        r"<｜User｜>",
        r"(?=<｜Assistant｜>)",
        r"<｜Assistant｜>",
    ),
)
_LLAMA2_SYSTEM = re.compile(r"\A<<SYS>>\n.*?\n<</SYS>>\n\n", re.DOTALL)
# Without special tokens: `system\n...\nuser\n...\nassistant\n` is ChatML, `system\n\n...user\n\n...` is Llama 3.
_BARE = tuple(
    (
        re.compile(rf"\A\s*(?:system|user){after}"),
        re.compile(rf"(?:\A\s*|{before})user{after}"),
        re.compile(rf"{before}(?:assistant|model){after}"),
        re.compile(rf"{before}(?:assistant|model){after}(?:<think>\s*(?:</think>\s*)?)?\Z"),
    )
    for before, after in (("\n", "\n(?!\n)"), ("", "\n\n"))
)
_END_MARKS = re.compile(
    r"(?:(?:<\|\w{1,30}\|>|<｜[\w▁]{1,30}｜>|</s>|<eos>|<pad>|<unk>|<end_of_turn>|<turn\|>)\s*+)++\Z"
)
_SEARCHED = 256  # characters at a time
_PROBLEM_NAMES = ("problem", "question", "question_content")
_CUT = re.compile(
    r"(?:<\|im_start\|>assistant\n|<\|start_header_id\|>assistant<\|end_header_id\|>\n\n|<start_of_turn>model\n|"
    r"<\|turn>model\n|\[/INST\]|<｜Assistant｜>)\s*(?:<think>\s*(?:</think>\s*)?)?\Z"
)


def user_turn(text: str, offender: str = "prompt") -> str:
    """The last user turn of a templated prompt, or the text as it stands if it does not begin as a template does.

    A turn's content that holds the marks of its own template is read as turns: the marks cannot tell.

    Raises:
        DataError: the prompt ends as a template does and has no user turn: it was cut from the left.
    """
    for template in _TEMPLATES:
        if template.start.match(text):
            headers = list(template.user.finditer(text))
            if not headers:
                break
            rest = text[headers[-1].end() :]
            end = template.end.search(rest)
            return _LLAMA2_SYSTEM.sub("", rest[: end.start()] if end else rest)
    if _CUT.search(text):
        raise DataError(f"{offender} has no user turn and ends as a chat template does: it was cut from the left")
    for start, user, reply, closing in _BARE:
        if start.match(text) and (last := closing.search(text)):
            turn = reply.split(text[: last.start()])[-1]
            if header := user.search(turn):
                return turn[header.end() :]
    return text


def response(query: str, prompt: str) -> str:
    """The policy's answer in a text of prompt and answer, as OpenRLHF hands it to a reward.

    The prompt is taken off if the text begins with it; else what follows the last assistant mark of a known template
    is the answer (a prompt too long for the policy is cut from the left in `query`, not in `prompt`); else all of it.
    The marks behind it, which end the turn or (up to OpenRLHF 0.5) pad the batch, are no part of it.
    """
    if prompt and query.startswith(prompt):
        return without_end_marks(query[len(prompt) :])
    ends = [match.end() for template in _TEMPLATES for match in template.reply.finditer(query)]
    return without_end_marks(query[max(ends) :] if ends else query)


def without_end_marks(text: str) -> str:
    """A text without the marks of a chat's end (`<|im_end|>`, `</s>`) and of padding that a decoder left behind it."""
    end = len(text)
    while marks := _END_MARKS.search(text, max(0, end - _SEARCHED), end):
        end = marks.start()
    return text[:end]


def stated_problem(label: object) -> str | None:
    """The problem in a dataset's label: in a dict or its JSON, the text named problem, question or question_content.

    None for any other label, such as an answer or a list of tests. A name such as `input` is not looked for: in a test
    it is what the program reads.
    """
    if isinstance(label, str) and label.lstrip().startswith("{"):
        try:
            label = json.loads(label)
        except (ValueError, RecursionError):
            return None
    if not isinstance(label, dict):
        return None
    texts = [label.get(name) for name in _PROBLEM_NAMES]
    return next((text for text in texts if isinstance(text, str) and text.strip()), None)
