r"""Templated text -> what a user or an assistant said in it.

Hosts hand over prompts as text that a chat template has made (OpenRLHF, verl, slime, rollout logs, TRL with prompts
that are templated already). Two sources say how to undo it:

- `_FAMILIES`, a table of the marks of public model families. No tokenizer is needed.
- `template_of`, which derives the marks from the policy's own tokenizer or Jinja template: it renders conversations of
  known words and reads off what stands around them.

A text is cut into turns from the left. A header counts only where a turn may begin: at the start of the text, or right
behind the mark that ends the turn before. So a problem may mention the marks of its own template. What stays:

- A problem that holds the end of a turn and the next header, as `<|im_end|>\n<|im_start|>user\n`, looks like turns. It
  is refused where the turns then make no conversation (two user turns or two replies in a row, a user turn without a
  reply), and read as turns where they do.
- Families without an end of a user's turn (GLM, DeepSeek, Mistral) have such a text with a single header in it.
- A system text that a template puts in front of the user's text without marks (Gemma 3, Mistral up to v3) belongs to
  the problem: nothing divides the two.
- White space next to a mark that some templates of a family write and others do not (`[INST]`, `[|user|]`,
  `<|user|>`) is the mark's.
- Text without its special tokens is recognised where what is left still divides the turns, as in Qwen and Llama 3.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from codescaler_plugin.errors import ConfigError, DataError

Message = dict[str, Any]
Render = Callable[..., str]

_NEVER = r"(?!)"
_PADDING_MARKS = (  # what begins a text besides turns, and what hosts (OpenRLHF up to 0.5) pad with on the left
    r"<(?:/?s|bos|eos|pad|unk|sop|PAD|BOS_TOKEN|EOS_TOKEN|seed:pad|begin_of_document|"
    r"\|(?:begin_?of_?text|end_?of_?text|startoftext|eot_id|eot|im_end|finetune_right_pad(?:_id)?|pad|bos|eos)\||"
    r"｜(?:hy_)?(?:begin▁of▁sentence|end▁of▁sentence|▁pad▁)｜)>|\[(?:PAD|BOS|gMASK)\](?:sop)?|\]~!b\["
)
_GAP = r"\s{0,8}(?:(?:<s>|<bos>|<\|begin_of_text\|>|<｜begin▁of▁sentence｜>)\s{0,8})?"  # between two turns
_LAST = r"\s{0,8}(?:(?:</s>|<eos>|<\|endoftext\|>|<｜end▁of▁sentence｜>)\s{0,8})?\Z"  # a text without one ends so
_END_OF_LINE = r"\n?"
_PREFILL = (  # what a generation prompt may begin the answer with
    r"(?:\s{0,4}(?:</?(?:seed:)?think>|<seed:cot_budget_reflect>|<\|channel>thought\n<channel\|>|"
    r"<\|START_(?:RESPONSE|THINKING)\|>|<\|END_THINKING\|>)){0,4}\s{0,4}\Z"
)
_TAIL = 512  # characters in which a generation prompt is looked for


@dataclass(frozen=True)
class Template:
    """How the turns of one chat template look.

    Attributes:
        name: of the family, or the source it was derived from.
        padding: marks that may stand before the first turn.
        opening: first header of a text, behind the padding. Its group `user`, `reply`, `other` or `lead` (a system
            text without a header) names the turn.
        boundary: end of a turn with the next header (the same groups).
        last: end of the last turn, at the end of a text without a generation prompt.
        closing: a generation prompt, at the end of the text.
        reply: header of an assistant's turn, for texts that are cut from the left.
        system: a system text inside a user's turn, at its beginning.
        alternates: the template refuses two user turns in a row, so that a user's header in one is text.
        loose: a text that ends with a generation prompt may begin with anything.
        closed: only a text that ends with a generation prompt is of this template.
        prose: the marks are prose elsewhere: they say nothing about a text that is not of this template.
        ends: plain marks of this template that end an answer, besides the general ones.
        bare: what is left of the template when special tokens are not decoded.
        vague: a text without special tokens whose turns cannot be told apart.
    """

    name: str
    padding: re.Pattern[str]
    opening: re.Pattern[str]
    boundary: re.Pattern[str]
    last: re.Pattern[str]
    closing: re.Pattern[str]
    reply: re.Pattern[str]
    system: re.Pattern[str] | None = None
    alternates: bool = False
    loose: bool = False
    closed: bool = False
    prose: bool = False
    ends: tuple[str, ...] = ()
    bare: "Template | None" = None
    vague: re.Pattern[str] | None = None


def _padding(marks: str) -> re.Pattern[str]:
    return re.compile(rf"\s*+(?:(?:{marks})\s*+)*+")


_PADDING = _padding(_PADDING_MARKS)


def _family(
    name: str,
    user: str,
    reply: str,
    end: str = "",
    other: str = _NEVER,
    *,
    lead: str = _NEVER,
    before: str = "",
    needs: str = "",
    system: str | None = None,
    alternates: bool = False,
    loose: bool = False,
    prose: bool = False,
) -> Template:
    """A row of the table. All texts but `name` are regular expressions.

    Args:
        name: of the family.
        user: header of a user's turn.
        reply: header of an assistant's turn.
        end: mark that must end a turn; none: a header alone divides turns, and what ends an answer does not matter.
        other: header of another turn.
        lead: what a system text without a header stands behind.
        before: what must stand before the first header.
        needs: what must follow the first header somewhere, for marks that other families or prose have too.
        system: see `Template`, as the two below.
        alternates: see `Template`.
        loose: see `Template`.
        prose: the marks are prose elsewhere. Without `needs`, only a text with a generation prompt is of the family.
    """
    headers = rf"(?P<user>{user})|(?P<reply>{reply})|(?P<other>{other})"
    needed = rf"(?=[\s\S]*?(?:{needs}))" if needs else ""
    return Template(
        name=name,
        padding=_PADDING,
        opening=re.compile(rf"{before}(?:{headers}|(?P<lead>{lead})){needed}"),
        boundary=re.compile(rf"(?:{end}){_GAP}(?:{headers})" if end else headers),
        last=re.compile(rf"(?:{end or _END_OF_LINE}){_LAST}"),
        closing=re.compile(rf"(?:{reply}){_PREFILL}"),
        reply=re.compile(reply),
        system=re.compile(system) if system else None,
        alternates=alternates,
        loose=loose,
        closed=prose and not needs,
        prose=prose,
    )


_ROLE = r"(?!(?:user|assistant|model)\b)[\w.-]{1,40}"
_FAMILIES = (
    _family(
        "phi-4",
        r"<\|im_start\|>user<\|im_sep\|>",
        r"<\|im_start\|>assistant<\|im_sep\|>",
        r"<\|im_end\|>",
        rf"<\|im_start\|>{_ROLE}<\|im_sep\|>",
    ),
    _family(  # Qwen, Yi, InternLM 2, LFM2, SmolLM3, OLMo 3, Nemotron 3, MiMo: a tool's answer is in a user's turn
        "chatml",
        r"<\|im_start\|>user\n(?!<tool_response>)",
        r"<\|im_start\|>assistant(?:\n|\Z)",
        r"<\|im_end\|>",
        rf"<\|im_start\|>(?:{_ROLE}|user)\n",
    ),
    _family(
        "llama 3",
        r"<\|start_header_id\|>user<\|end_header_id\|>\n\n?",
        r"<\|start_header_id\|>assistant<\|end_header_id\|>\n\n?",
        r"<\|(?:eot_id|eom_id)\|>",
        rf"<\|start_header_id\|>{_ROLE}<\|end_header_id\|>\n\n?",
    ),
    _family(
        "llama 4",
        r"<\|header_start\|>user<\|header_end\|>\n\n",
        r"<\|header_start\|>assistant<\|header_end\|>\n\n",
        r"<\|(?:eot|eom)\|>",
        rf"<\|header_start\|>{_ROLE}<\|header_end\|>\n\n",
    ),
    _family(
        "gemma",
        r"<start_of_turn>user\n",
        r"<start_of_turn>model\n",
        r"<end_of_turn>",
        rf"<start_of_turn>{_ROLE}\n",
        alternates=True,
    ),
    _family("gemma 4", r"<\|turn>user\n", r"<\|turn>model\n", r"<turn\|>", rf"<\|turn>{_ROLE}\n"),
    _family(
        "llama 2, mistral",
        r"\[INST\] ?",
        r" ?\[/INST\]",
        other=r"\[/?(?:SYSTEM_PROMPT|AVAILABLE_TOOLS|MODEL_SETTINGS)\]",
        lead=r"<<SYS>>\n",
        needs=r"\[/INST\]",
        system=r"\A<<SYS>>\n[\s\S]*?\n<</SYS>>\n\n",
        alternates=True,
    ),
    _family(
        "deepseek",
        r"<｜User｜>",
        r"<｜Assistant｜>",
        lead=r"(?<=<｜begin▁of▁sentence｜>)",
        loose=True,
    ),
    _family(
        "deepseek 2",
        r"(?:(?<=<｜begin▁of▁sentence｜>)|(?<=<｜end▁of▁sentence｜>)|(?<=\n\n))User: ",
        r"\n\nAssistant:",
        lead=r"(?<=<｜begin▁of▁sentence｜>)",
        alternates=True,
        prose=True,
    ),
    _family(  # GLM 4.5 may write `/nothink` behind the problem
        "glm",
        r"<\|user\|>\n ?",
        r"(?:/nothink)?<\|assistant\|>\n?",
        other=r"<\|(?:system|observation)\|>\n?",
        before=r"(?:(?<=sop>)|(?<=\]sop))",
    ),
    _family(
        "phi-3",
        r"<\|user\|>\n?",
        r"<\|assistant\|>\n?",
        r"<\|end\|>",
        r"<\|(?:system|tool|tool_response)\|>\n?",
        needs=r"<\|end\|>\s{0,2}(?:<|\Z)",
    ),
    _family(
        "zephyr",
        r"<\|user\|>\n",
        r"<\|assistant\|>\n",
        r"</s>",
        r"<\|system\|>\n",
        needs=r"</s>\s{0,2}(?:<|\Z)",
    ),
    _family(  # Tulu, Falcon 3, Granite Code, Moxin, GLM Edge
        "olmo",
        r"<\|user\|>\n ?",
        r"\n?<\|assistant\|>\n?",
        other=r"<\|(?:system|observation)\|>\n?",
        needs=r"<\|assistant\|>",
    ),
    _family(  # gpt-oss, Muse
        "harmony",
        r"<\|start\|>user<\|message\|>",
        r"<\|start\|>assistant(?:[^<]{0,80}(?:<\|channel\|>[^<]{0,80})?<\|message\|>)?",
        r"<\|(?:end|return|call|eot)\|>",
        rf"<\|start\|>{_ROLE}[^<]{{0,80}}(?:<\|channel\|>[^<]{{0,80}})?<\|message\|>",
    ),
    _family(
        "granite",
        r"<\|start_of_role\|>user<\|end_of_role\|>",
        r"<\|start_of_role\|>assistant[^<]{0,80}<\|end_of_role\|>",
        r"<\|end_of_text\|>",
        rf"<\|start_of_role\|>{_ROLE}[^<]{{0,80}}<\|end_of_role\|>",
    ),
    _family(
        "cohere",
        r"<\|START_OF_TURN_TOKEN\|><\|USER_TOKEN\|>",
        r"<\|START_OF_TURN_TOKEN\|><\|CHATBOT_TOKEN\|>(?:<\|START_RESPONSE\|>)?",
        r"<\|END_OF_TURN_TOKEN\|>",
        r"<\|START_OF_TURN_TOKEN\|><\|SYSTEM_TOKEN\|>",
    ),
    _family(
        "kimi",
        r"<\|im_user\|>[^<\n]{1,60}<\|im_middle\|>",
        r"<\|im_assistant\|>[^<\n]{1,60}<\|im_middle\|>",
        r"<\|im_end\|>",
        r"<\|im_system\|>[^<\n]{1,60}<\|im_middle\|>",
    ),
    _family("seed", r"<seed:bos>user\n", r"<seed:bos>assistant\n?", r"<seed:eos>", r"<seed:bos>(?:system|tool)\n?"),
    _family("minimax 2", r"\]~b\]user\n", r"\]~b\]ai\n", r"\[e~\[", rf"\]~b\]{_ROLE}\n"),
    _family(
        "minimax 1",
        r"<beginning_of_sentence>user[^<\n]{0,60}\n",
        r"<beginning_of_sentence>ai[^<\n]{0,60}\n",
        r"<end_of_sentence>",
        r"<beginning_of_sentence>(?:system|tool)[^<\n]{0,60}\n",
    ),
    _family(
        "exaone",
        r"\[\|user\|\]\n?",
        r"(?:\[\|endofturn\|\])?\n?\[\|assistant\|\]\n?",
        other=r"\[\|(?:system|tool)\|\]",
        needs=r"\[\|assistant\|\]",
    ),
    _family(
        "hunyuan",
        r"(?:<｜hy_place▁holder▁no▁3｜>)?<｜hy_User｜>",
        r"<｜hy_Assistant｜>",
        lead=r"(?<=<｜hy_begin▁of▁sentence｜>)",
        loose=True,
    ),
    _family(  # the mark that ends a user's turn is the header of the answer
        "hunyuan a13b",
        r"(?<=<\|startoftext\|>)",
        r"<\|extra_0\|>",
        needs=r"<\|extra_0\|>",
        system=r"\A[\s\S]*?<\|extra_4\|>",
        alternates=True,
    ),
    _family(  # Nemotron 4, Nemotron Nano 2
        "nemotron",
        r"<(?:extra_id_1|SPECIAL_11)>User\n",
        r"\n?<(?:extra_id_1|SPECIAL_11)>Assistant\n",
        other=r"<(?:extra_id_0|SPECIAL_10)>System\n",
    ),
    _family("baichuan", r"<reserved_10[26]>", r"<reserved_10[37]>"),
    _family("internlm 1", r"<\|User\|>:", r"<\|Bot\|>:", r"<eo[ah]>", r"<\|System\|>:"),
    _family(
        "megrez",
        r"<\|role_start\|>user<\|role_end\|>",
        r"<\|role_start\|>assistant<\|role_end\|>",
        r"<\|turn_end\|>",
        rf"<\|role_start\|>{_ROLE}<\|role_end\|>",
    ),
    _family(
        "apertus",
        r"<\|user_start\|>",
        r"<\|assistant_start\|>",
        r"<\|(?:user|assistant|system|developer)_end\|>",
        r"<\|(?:system|developer)_start\|>",
    ),
    _family(
        "dots", r"<\|userprompt\|>", r"<\|response\|>", r"<\|endof(?:userprompt|response|system)\|>", r"<\|system\|>"
    ),
    _family(
        "ling",
        r"<role>HUMAN</role>",
        r"(?:<\|role_end\|>)?<role>ASSISTANT</role>",
        other=r"<role>(?:SYSTEM|OBSERVATION)</role>",
    ),
    _family("minicpm", r"<用户>", r"<AI>", before=r"(?=<用户>)", prose=True),
    _family(
        "openchat",
        r"GPT4 Correct User: ",
        r"GPT4 Correct Assistant:",
        r"<\|end_of_turn\|>",
        r"GPT4 Correct System: ",
        needs=r"<\|end_of_turn\|>",
        prose=True,
    ),
    _family(  # Idefics 3, SmolVLM
        "idefics",
        r"(?:<\|im_start\|>)?User: ?",
        r"Assistant:",
        r"<end_of_utterance>",
        r"(?:<\|im_start\|>)?System: ?",
        needs=r"<end_of_utterance>\n",
        prose=True,
    ),
    _family(  # DeepSeek Coder, Alpaca
        "instruction",
        r"(?:(?<![^\n])|(?<=</s>))### Instruction:\n",
        r"\n{1,2}### Response:\n?",
        lead="",
        alternates=True,
        prose=True,
    ),
)

# Without special tokens: `system\n...\nuser\n...\nassistant\n` is ChatML, `system\n\n...user\n\n...` is Llama 3.
_BARE = tuple(
    (
        re.compile(rf"\A\s*(?:system|user){after}"),
        re.compile(rf"(?:\A\s*|{before})user{after}"),
        re.compile(rf"{before}(?:assistant|model){after}"),
        re.compile(rf"{before}(?:assistant|model){after}(?:<think>\s{{0,4}}(?:</think>\s{{0,4}})?)?\Z"),
    )
    for before, after in (("\n", "\n(?!\n)"), ("", "\n\n"))
)

_MARK = r"(?:<\|[A-Za-z][\w.:/-]{0,39}\|>|<｜[^<>｜\s]{1,40}｜>|\[\|[a-z_]{2,30}\|\])"
_ROLE_WORD = r"(?:system|user|human|assistant|developer|prompter|tool|model|chatbot|bot|ai)"
_ROLE_MARK = rf"[<\[][|｜](?:\w{{1,20}}_)?(?i:{_ROLE_WORD})(?:_\w{{1,20}})?[|｜][>\]]"
_UNKNOWN_START = re.compile(
    rf"(?P<mark>{_ROLE_MARK})(?=\n|[^\s.,;:'\"`)])|(?P<other>{_MARK})(?:\n|{_MARK}|(?i:{_ROLE_WORD})(?:\s{{0,4}}{_MARK}|\s?\n|:))"
)
_UNKNOWN_END = re.compile(
    rf"(?:\A|(?<=\S)|(?<=\n))(?P<mark>[<\[][|｜](?:\w{{1,20}}_)?(?i:assistant|chatbot|bot|model|ai)(?:_\w{{1,20}})?[|｜][>\]]"
    rf"|{_MARK}(?i:assistant|chatbot|bot|model|ai)(?:{_MARK}|\n|\Z)){_PREFILL}"
)

_END_MARKS = re.compile(
    r"(?:(?:<\|[\w.:/-]{1,40}\|>|<｜[^<>｜\s]{1,40}｜>|\[\|[a-z_]{2,30}\|\]|</s>|<(?:eo[shmapd]|EOD|pad|PAD|unk)>|"
    r"<end_of_(?:turn|utterance|sentence|text)>|<turn\|>|<channel\|>|<end_code>|<EOS_TOKEN>|<seed:(?:eos|pad)>|"
    r"<(?:reserved_|unused|extra_id_|SPECIAL_)\d{1,4}>|\[(?:EOS|PAD|/INST)\]|\[e~\[)\s*+)++\Z"
)
_SEARCHED = 256  # characters at a time
_SHARED = 24  # characters of the prompt's end that find it in a query
_TRIES = 64  # places of a query where that end is looked at: a prompt ends with its generation prompt


def user_turn(text: str, offender: str = "prompt", template: Template | None = None) -> str:
    """The last user turn of a templated prompt, or the text as it stands if it does not begin as a template does.

    Args:
        text: the prompt.
        offender: what an error message calls it.
        template: the policy's own. The families known here are tried behind it.

    Raises:
        DataError: the prompt was cut from the left, holds the marks of its template inside a turn, so that the turns
            cannot be told apart, or begins or ends with the marks of no template known.
    """
    own = [form for form in (template, template and template.bare) if form is not None]
    start = _start(text, _PADDING)
    for candidate in (*own, *_FAMILIES):
        begin = start if candidate.padding is _PADDING else _start(text, candidate.padding)
        if (turn := _last_user_turn(text, begin, candidate, offender)) is not None:
            return turn
    if template is not None and template.vague is not None and template.vague.match(text):
        raise DataError(
            f"{offender} is of {template.name} without its special tokens, and what is left does not divide the "
            "turns: hand over the prompt with special tokens, as messages, or the problem in a column"
        )
    _refuse_unknown_marks(_UNKNOWN_START.match(text, start), "begins", offender, template)
    tail = text[-_TAIL:]
    for candidate in (*own, *_FAMILIES):
        if not candidate.prose and (closing := candidate.closing.search(tail)) and not _spaced(tail, closing.start()):
            raise DataError(f"{offender} has no user turn and ends as a chat template does: it was cut from the left")
    for opening, user, reply, last in _BARE:
        if opening.match(text) and (closing := last.search(tail)):
            said = text[: len(text) - len(tail) + closing.start()]
            if header := user.search(said, max((mark.end() for mark in reply.finditer(said)), default=0)):
                return said[header.end() :]
    _refuse_unknown_marks(_UNKNOWN_END.search(tail), "ends", offender, template)
    return text


def response(query: str, prompt: str, template: Template | None = None) -> str:
    """The policy's answer in a text of prompt and answer, as OpenRLHF hands it to a reward.

    The prompt is taken off if the text begins with it, or with the end of it (a prompt too long for the policy is cut
    from the left in `query`, not in `prompt`). Else what follows the last assistant mark of a template is the answer:
    of the given template, of the prompt's, or of any known one. Else all of it. The marks behind it, which end the
    turn or (up to OpenRLHF 0.5) pad the batch, are no part of it.
    """
    if prompt and query.startswith(prompt):
        return _without(query[len(prompt) :], template)
    if (cut := _end_of_cut_prompt(query, prompt)) is not None:
        return _without(query[cut:], template)
    start = _start(prompt or query, _PADDING)
    families = [family for family in _FAMILIES if family.opening.match(prompt or query, start)]
    templates = [template] if template else families or _FAMILIES
    ends = [mark.end() for t in templates if not t.prose for mark in t.reply.finditer(query)]
    return _without(query[max(ends) :] if ends else query, template)


def without_end_marks(text: str) -> str:
    """A text without the marks of a chat's end (`<|im_end|>`, `</s>`) and of padding that a decoder left behind it."""
    end = len(text)
    while marks := _END_MARKS.search(text, max(0, end - _SEARCHED), end):
        end = marks.start()
    return text[:end]


def _without(text: str, template: Template | None) -> str:
    """`without_end_marks`, and without those of the given template."""
    ends = template.ends if template else ()
    while True:
        text = without_end_marks(text)
        if not (mark := next((mark for mark in ends if text.rstrip().endswith(mark)), None)):
            return text
        text = text.rstrip().removesuffix(mark)


def _end_of_cut_prompt(query: str, prompt: str) -> int | None:
    """Where the answer begins in a query that begins with the last part of the prompt."""
    tail = prompt[-_SHARED:]
    at = query.find(tail) if len(tail) == _SHARED else -1
    for _ in range(_TRIES):
        if at < 0 or at + _SHARED > len(prompt):
            return None
        if prompt.endswith(query[: at + _SHARED]):
            return at + _SHARED
        at = query.find(tail, at + 1)
    return None


def _start(text: str, padding: re.Pattern[str]) -> int:
    """Where the first turn may begin."""
    marks = padding.match(text)
    return marks.end() if marks else 0


def _last_user_turn(text: str, start: int, template: Template, offender: str) -> str | None:
    """The last user turn, or None if the text is not of this template. Its padding ends at `start`.

    Raises:
        DataError: the turns make no conversation, or there is no user turn.
    """
    tail = len(text) - _TAIL if len(text) > _TAIL else 0
    closing = template.closing.search(text, tail)
    if template.closed and not closing:
        return None
    opening = template.opening.match(text, start)
    if not opening and not (template.loose and closing):
        return None
    role, begin = (opening.lastgroup, opening.end()) if opening else ("lead", 0)
    led, last = role == "lead", None
    for mark in template.boundary.finditer(text, begin):
        follows = mark.lastgroup
        if role == "user":
            if follows == "user" and template.alternates:
                continue
            if follows in ("user", "other"):
                raise _ambiguous(offender, template, mark.group())
            last = text[begin : mark.start()]
        if role == follows == "reply" and closing and mark.end() > closing.start():
            raise _ambiguous(offender, template, mark.group())
        role, begin, led = follows, mark.end(), led and not follows
    if role == "user":
        stop = closing or template.last.search(text, max(begin, tail))
        last = text[begin : stop.start() if stop and stop.start() >= begin else len(text)]
    if last is not None:
        return template.system.sub("", last) if template.system else last
    if led or not opening or template.prose:
        return None
    raise DataError(
        f"{offender} has no user turn and ends as a chat template does: it was cut from the left"
        if closing
        else f"{offender} begins as a chat template does ({opening.group()!r}) and has no user turn"
    )


def _ambiguous(offender: str, template: Template, mark: str) -> DataError:
    return DataError(
        f"{offender} holds {mark.strip()!r}, a mark of its own chat template ({template.name}), inside a turn, or has "
        "two turns of one role in a row: where the problem ends cannot be told. Hand over the prompt as messages, or "
        "the problem in a column"
    )


def _spaced(text: str, at: int) -> bool:
    """Whether a mark stands behind a space, as prose writes it."""
    return at > 0 and text[at - 1] == " "


def _refuse_unknown_marks(found: re.Match[str] | None, does: str, offender: str, template: Template | None) -> None:
    """Refuse a text that `does` (begins or ends) with the control marks of a template that is not known.

    Raises:
        DataError: such marks were found.
    """
    if found:
        mark = next(filter(None, found.groups()))
        other = f" and is not of {template.name}" if template else ""
        raise DataError(
            f"{offender} {does} with the control mark {mark!r} of no chat template known here{other}: set "
            "prompt_template to the policy's tokenizer (a hub id, a directory or a Jinja file), or hand over the "
            "problem in a column"
        )


_USER, _REPLY, _LATER, _SYSTEM = "QzUSERFIRSTzQ", "QzREPLYzQ", "QzUSERLATERzQ", "QzSYSTEMzQ"
_BOS, _EOS = "QzBOSzQ", "QzEOSzQ"  # what stands for the special tokens that a Jinja file alone does not tell
_THINKING: tuple[dict[str, bool], ...] = (
    {},
    {"enable_thinking": True},
    {"enable_thinking": False},
    {"thinking": True},
    {"thinking": False},
)
_PIECE = re.compile(r"<[^<>\s]{1,60}>|\[[^\[\]\s]{1,40}\]|\s|[^<\[\s]+|[<\[]")
_WORDS = re.compile(r"[\w\s.,:;!?#*'\"()/-]+")
_ANY_MARK = r"(?:<[^<>\s]{1,40}>|\[[^\[\]\s]{1,20}\])?"


class _UnreadableError(Exception):
    """A template did not render what was expected. The text says what came."""


@lru_cache(maxsize=16)
def template_of(source: str) -> Template:
    """The template of a policy, read off its own tokenizer or Jinja template.

    Args:
        source: a hub id, a directory with a tokenizer or a `chat_template.jinja`, or a Jinja file.

    Raises:
        ConfigError: there is no such tokenizer or template, it does not render, or what it renders has no marks.
    """
    policy = _policy(source)
    try:
        return _derived(source, _read(policy.render), policy)
    except _UnreadableError as error:
        raise ConfigError(
            f"prompt_template {source!r} cannot be read: {error}. Give a template that writes marks around a user's "
            "text, or none and the problem in a column"
        ) from error


@dataclass(frozen=True)
class _Policy:
    """What renders messages, its special tokens and those that pad or begin a text (none known for a Jinja file)."""

    render: Render
    special: tuple[str, ...] = ()
    pads: tuple[str, ...] = ()


def _policy(source: str) -> _Policy:
    """The policy's tokenizer or its Jinja template alone.

    Raises:
        ConfigError: there is no such template, or the tokenizer has none.
    """
    path = Path(source)
    if path.is_dir() and not (path / "tokenizer_config.json").exists() and not (path / "tokenizer.json").exists():
        path /= "chat_template.jinja"
    if path.is_file() or source.endswith(".jinja") or path.name == "chat_template.jinja":
        return _Policy(_file_renderer(path))
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(source)
        if not tokenizer.chat_template:
            raise ValueError("it has no chat_template")
    except Exception as error:
        raise ConfigError(
            f"prompt_template {source!r} is no tokenizer with a chat template ({error}): expected a hub id, a "
            "directory with a tokenizer or a Jinja file"
        ) from error

    def render(messages: list[Message], add_generation_prompt: bool = True, **settings: bool) -> str:
        return str(
            tokenizer.apply_chat_template(
                messages, tokenize=False, add_generation_prompt=add_generation_prompt, **settings
            )
        )

    added = [str(token) for token in tokenizer.added_tokens_decoder.values() if token.special]
    pads = (tokenizer.bos_token, tokenizer.eos_token, tokenizer.pad_token, tokenizer.unk_token)
    return _Policy(
        render,
        tuple(dict.fromkeys([*map(str, tokenizer.all_special_tokens), *added])),
        tuple(str(token) for token in dict.fromkeys(pads) if token),
    )


def _file_renderer(path: Path) -> Render:
    """What renders messages by a Jinja file, in the sandbox of transformers: the file may be anybody's.

    Raises:
        ConfigError: there is no such file, or it is no text.
    """
    from transformers.utils.chat_template_utils import render_jinja_template

    try:
        template = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"prompt_template {str(path)!r} cannot be read ({error}): expected a hub id, a directory with a tokenizer "
            "or a Jinja file"
        ) from error

    def render(messages: list[Message], add_generation_prompt: bool = True, **settings: bool) -> str:
        texts, _ = render_jinja_template(
            [messages],
            chat_template=template,
            add_generation_prompt=add_generation_prompt,
            bos_token=_BOS,
            eos_token=_EOS,
            **settings,
        )
        return str(texts[0])

    return render


@dataclass(frozen=True)
class _Marks:
    """Texts that a template writes.

    Attributes:
        prefix: before the only user turn.
        prefixes: the same with every setting.
        system: before a system text, and between it and the user's; None where the template refuses or moves it.
        answer: between a user's text and the answer to it.
        later: between an answer and the user's next text.
        closings: behind the last user's text, with the generation prompts of every setting.
        plain: behind the last user's text, without a generation prompt.
        alternates: two user turns in a row are refused.
    """

    prefix: str
    prefixes: tuple[str, ...]
    system: tuple[str, str] | None
    answer: str
    later: str
    closings: tuple[str, ...]
    plain: str
    alternates: bool

    def without(self, special: tuple[str, ...]) -> "_Marks":
        """The same as a decoder leaves it that drops special tokens."""
        tokens = re.compile("|".join(map(re.escape, sorted(special, key=len, reverse=True))))
        system = self.system and (tokens.sub("", self.system[0]), tokens.sub("", self.system[1]))
        return _Marks(
            prefix=tokens.sub("", self.prefix),
            prefixes=tuple(dict.fromkeys(tokens.sub("", prefix) for prefix in self.prefixes)),
            system=system,
            answer=tokens.sub("", self.answer),
            later=tokens.sub("", self.later),
            closings=tuple(dict.fromkeys(tokens.sub("", closing) for closing in self.closings)),
            plain=tokens.sub("", self.plain),
            alternates=True,  # a line `user` of a problem is likelier than two user turns
        )


def _read(render: Render) -> _Marks:
    """The marks, by rendering conversations of known words.

    Raises:
        _UnreadableError: a conversation does not render, or its words are not in the text once and in order.
    """
    alone, dialogue = [("user", _USER)], [("user", _USER), ("assistant", _REPLY), ("user", _LATER)]
    rendered: list[tuple[dict[str, bool], list[str], list[str]]] = []
    faults: list[Exception] = []
    for settings in _THINKING:
        try:
            rendered.append((settings, _cut(render, alone, **settings), _cut(render, dialogue, **settings)))
        except Exception as error:  # noqa: BLE001 - a template raises what it likes; one that needs a setting does
            faults.append(error)
    if not rendered:
        raise _UnreadableError(str(faults[0]))
    settings, (prefix, _), (_, answer, later, _) = rendered[0]
    with_system = _tried(render, [("system", _SYSTEM), ("user", _USER)], **settings)
    plain = _tried(render, alone, add_generation_prompt=False, **settings)
    return _Marks(
        prefix=prefix,
        prefixes=tuple(dict.fromkeys(first[0] for _, *both in rendered for first in both)),
        system=(with_system[0], with_system[1]) if with_system and _visible(with_system[1]) else None,
        answer=answer,
        later=later,
        closings=tuple(dict.fromkeys(parts[-1] for _, *both in rendered for parts in both)),
        plain=plain[-1] if plain else "",
        alternates=_tried(render, [*dialogue[:1], *dialogue[::-1]], **settings) is None,
    )


def _tried(render: Render, turns: list[tuple[str, str]], **settings: bool) -> list[str] | None:
    """`_cut`, or None where the template refuses the conversation."""
    try:
        return _cut(render, turns, **settings)
    except Exception:  # noqa: BLE001 - a template raises what it likes
        return None


def _cut(render: Render, turns: Sequence[tuple[str, str]], **settings: bool) -> list[str]:
    """What stands before, between and behind the texts of the turns.

    Raises:
        _UnreadableError: a text is not there exactly once, in order.
    """
    texts = [text for _, text in turns]
    shapes: list[Callable[[str], Any]] = [str, lambda text: [{"type": "text", "text": text}]]
    seen: list[str] = []
    for content in shapes:  # templates of models that see images may want a list
        try:
            seen.append(render([{"role": role, "content": content(text)} for role, text in turns], **settings))
        except Exception as error:  # noqa: BLE001 - a template raises what it likes
            seen.append(f"{type(error).__name__}: {error}")
        if re.findall("|".join(texts), seen[-1]) == texts:
            return re.split("|".join(texts), seen[-1])
    raise _UnreadableError(
        f"{' and '.join(texts)} of {', '.join(role for role, _ in turns)} rendered as {seen[0][:400]!r}, expected "
        "each text once and in order"
    )


def _derived(source: str, marks: _Marks, policy: _Policy) -> Template:
    """The template with these marks, and what is left of it without special tokens.

    Raises:
        _UnreadableError: there are no marks between turns.
    """
    # A token that begins every turn, as Seed's beginning of a text, is no padding.
    pads = [token for token in policy.pads if token not in marks.prefix or token not in marks.later]
    padding = _padding("|".join([_PADDING_MARKS, _BOS, *map(re.escape, pads)]))
    template = _built(source, marks, padding)
    less = marks.without(policy.special) if policy.special else marks
    if (less.prefix, less.answer, less.later) == (marks.prefix, marks.answer, marks.later):
        return template
    if all(map(_divides, (less.prefix, less.later, *_replies(less)))):
        return replace(template, bare=_built(f"{source} without special tokens", less, padding, bare=True))
    if not _visible(less.prefix) or not all(map(_visible, less.closings)):
        return template
    start, ends = _pattern(less.prefix.lstrip()), "|".join(map(_pattern, less.closings))
    return replace(template, vague=re.compile(rf"\s*+{start}[\s\S]*(?:{ends})\s{{0,4}}\Z"))


def _built(name: str, marks: _Marks, padding: re.Pattern[str], bare: bool = False) -> Template:
    """A template with these marks.

    Raises:
        _UnreadableError: what stands around a user's text does not divide turns.
    """
    replies = _replies(marks)
    around = {"before a user's text": [marks.prefix], "between turns": [marks.later], "behind a user's text": replies}
    for where, texts in around.items():
        if not all(_visible(text) or _BOS in text for text in texts):
            raise _UnreadableError(f"it writes {texts[0]!r} {where}, expected marks")
    prefix = _behind(padding, marks.prefix)
    prefixes = [_behind(padding, text) for text in marks.prefixes]
    headers = [_pattern(text) for text in prefixes if text] or [rf"(?<={re.escape(marks.prefix.strip())})"]
    later, loose = [marks.later], False
    if marks.system:
        before, between = _behind(padding, marks.system[0]), _pattern(marks.system[1])
        if before.startswith(prefix) and before != prefix:  # the system text is in the user's turn
            headers.insert(0, rf"{_pattern(before)}[\s\S]*?{between}")
        elif _visible(before):
            headers.append(rf"{_pattern(_first(before))}[\s\S]*?{between}")
        else:  # nothing but the beginning of the text stands before the system text
            later, loose = [marks.later, marks.system[1]], True
    header = _shared_end(prefix, marks.later)
    if _visible(header) and header != prefix:  # a system text of its own, with a date or an effort in it
        headers.append(rf"{_pattern(_first(prefix))}[\s\S]*?{_pattern(header)}")
    user, reply, closing = (
        "|".join(sorted(map(_pattern, texts), key=len, reverse=True)) for texts in (later, replies, marks.closings)
    )
    plain = _pattern(marks.plain) if _visible(marks.plain) else ""
    marked = any(_is_mark(piece) for text in replies for piece in _PIECE.findall(text))
    return Template(
        name=name,
        padding=padding,
        opening=re.compile(rf"(?P<user>{'|'.join(headers)})"),
        boundary=re.compile(rf"(?P<user>(?:{user})(?!<tool_response>))|(?P<reply>{reply})"),
        last=re.compile(rf"(?:{plain}){_LAST}"),
        closing=re.compile(rf"(?:{reply}){_PREFILL}|(?:{closing})\s{{0,4}}\Z"),
        reply=re.compile(reply),
        alternates=marks.alternates,
        loose=loose,
        closed=bare or not marked,
        prose=not marked,
        ends=tuple(piece for piece in _PIECE.findall(marks.later)[:1] if _is_mark(piece)),
    )


def _replies(marks: _Marks) -> list[str]:
    """What divides a user's text and an answer, whatever the answer then begins with."""
    shared = [(closing, _shared(marks.answer, closing)) for closing in marks.closings]
    return list(dict.fromkeys(text if _visible(text) else closing for closing, text in shared))


def _behind(padding: re.Pattern[str], text: str) -> str:
    """A text without the padding that it begins with."""
    return text[_start(text, padding) :]


def _visible(text: str) -> bool:
    return bool(text.replace(_BOS, "").replace(_EOS, "").strip())


def _divides(text: str) -> bool:
    """Whether a text can be told from the words around it: it holds a mark or the end of a line."""
    return _visible(text) and ("\n" in text or any(map(_is_mark, _PIECE.findall(text))))


def _is_mark(piece: str) -> bool:
    return not _WORDS.fullmatch(piece)


def _shared(one: str, other: str) -> str:
    """The beginning that two texts share, in whole marks and words."""
    return "".join(_same(_PIECE.findall(one), _PIECE.findall(other)))


def _shared_end(one: str, other: str) -> str:
    """The end that two texts share, in whole marks and words."""
    return "".join(_same(_PIECE.findall(one)[::-1], _PIECE.findall(other)[::-1])[::-1])


def _same(one: list[str], other: list[str]) -> list[str]:
    differs = next(
        (at for at, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other))
    )
    return one[:differs]


def _first(text: str) -> str:
    """The marks that a text begins with, or its first word with the white space behind it."""
    pieces = _PIECE.findall(text)
    marks = next((at for at, piece in enumerate(pieces) if not _is_mark(piece)), len(pieces))
    return "".join(pieces[: marks or 2])


def _pattern(text: str) -> str:
    """A text as a regular expression. A special token that only its tokenizer knows is any mark, or none."""
    return re.escape(text).replace(_BOS, _ANY_MARK).replace(_EOS, _ANY_MARK)
