r"""Templated text -> what a user or an assistant said in it.

Hosts hand over prompts as text that a chat template has made (OpenRLHF, verl, slime, rollout logs, TRL with prompts
that are templated already). Two sources say how to undo it:

- `_FAMILIES`, a table of the marks of public model families. No tokenizer is needed.
- `text.derivation`, which reads the marks off what the policy's own tokenizer or Jinja template renders.

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
from dataclasses import dataclass
from typing import Any

from codescaler_plugin.errors import DataError

_NEVER = r"(?!)"
PADDING_MARKS = (  # what begins a text besides turns, and what hosts (OpenRLHF up to 0.5) pad with on the left
    r"<(?:/?s|bos|eos|pad|unk|sop|PAD|BOS_TOKEN|EOS_TOKEN|seed:pad|begin_of_document|"
    r"\|(?:begin_?of_?text|end_?of_?text|startoftext|eot_id|eot|im_end|finetune_right_pad(?:_id)?|pad|bos|eos)\||"
    r"｜(?:hy_)?(?:begin▁of▁sentence|end▁of▁sentence|▁pad▁)｜)>|\[(?:PAD|BOS|gMASK)\](?:sop)?|\]~!b\["
)
_GAP = r"\s{0,8}(?:(?:<s>|<bos>|<\|begin_of_text\|>|<｜begin▁of▁sentence｜>)\s{0,8})?"  # between two turns
LAST = r"\s{0,8}(?:(?:</s>|<eos>|<\|endoftext\|>|<｜end▁of▁sentence｜>)\s{0,8})?\Z"  # a text without one ends so
_END_OF_LINE = r"\n?"
PREFILL = (  # what a generation prompt may begin the answer with
    r"(?:\s{0,4}(?:</?(?:seed:)?think>|<seed:cot_budget_reflect>|<\|channel>thought\n<channel\|>|"
    r"<\|START_(?:RESPONSE|THINKING)\|>|<\|END_THINKING\|>)){0,4}\s{0,4}\Z"
)
END_MARKS = (
    r"<\|[\w.:/-]{1,40}\|>|<｜[^<>｜\s]{1,40}｜>|\[\|[a-z_]{2,30}\|\]|</s>|<(?:eo[shmapdct]|EO[DT]|eot_id|end_of_message|pad|PAD|unk)>|"
    r"<end_of_(?:turn|utterance|sentence|text)>|<turn\|>|<channel\|>|<end_code>|<EOS_TOKEN>|<seed:(?:eos|pad)>|"
    r"<(?:reserved_|unused|extra_id_|SPECIAL_)\d{1,4}>|\[(?:EOS|PAD|/INST)\]|\[e~\["
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
        ends: marks at the end of a text that are no part of an answer.
        needs: what must follow the first header somewhere, for marks that other templates or prose have too.
        system: a system text inside a user's turn, at its beginning.
        shy: its marks stand in prose, too: a text without a mark of its beginning must end with a generation prompt.
        alternates: the template refuses two user turns in a row, so that a user's header in one is text.
        loose: a text that ends with a generation prompt may begin with anything.
        closed: only a text that ends with a generation prompt is of this template.
        prose: the marks are prose elsewhere: they say nothing about a text that is not of this template.
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
    ends: re.Pattern[str]
    needs: re.Pattern[str] | None = None
    system: re.Pattern[str] | None = None
    shy: bool = False
    alternates: bool = False
    loose: bool = False
    closed: bool = False
    prose: bool = False
    bare: "Template | None" = None
    vague: re.Pattern[str] | None = None


def padding_of(marks: str) -> re.Pattern[str]:
    """What may stand before the first turn, of a regular expression of its marks."""
    return re.compile(rf"\s*+(?:(?:{marks})\s*+)*+")


def ends_of(marks: str) -> re.Pattern[str]:
    """What may stand behind an answer, of a regular expression of its marks."""
    return re.compile(rf"(?:(?:{marks})\s*+)++\Z")


_PADDING = padding_of(PADDING_MARKS)
_ENDS = ends_of(END_MARKS)


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
    system: str = "",
    prose: bool = False,
    **flags: Any,
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
        needs: see `Template`.
        system: see `Template`.
        prose: the marks are prose elsewhere. Without `needs`, only a text with a generation prompt is of the family.
        **flags: `shy`, `alternates` and `loose` of `Template`.
    """
    headers = rf"(?P<user>{user})|(?P<reply>{reply})|(?P<other>{other})"
    return Template(
        name=name,
        padding=_PADDING,
        opening=re.compile(rf"{before}(?:{headers}|(?P<lead>{lead}))"),
        boundary=re.compile(rf"(?:{end}){_GAP}(?:{headers})" if end else headers),
        last=re.compile(rf"(?:{end or _END_OF_LINE}){LAST}"),
        closing=re.compile(rf"(?:{reply}){PREFILL}"),
        reply=re.compile(reply),
        ends=_ENDS,
        needs=re.compile(needs) if needs else None,
        system=re.compile(system) if system else None,
        closed=prose and not needs,
        prose=prose,
        **flags,
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
        shy=True,
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
        r"<\|user\|>(?:\n ?)?",
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
        r"(?:<\|endof(?:text|turn)\|>)?\n?<\|assistant\|>\n?",
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
        shy=True,
    ),
    _family("monarch", r"(?<=<s>)user\n", r"(?<=<s>)assistant\n", r"</s>", r"(?<=<s>)system\n"),
    _family("baichuan", r"<reserved_10[26]>", r"<reserved_10[37]>", shy=True),
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
        shy=True,
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

_MARK = r"(?:<\|[A-Za-z][\w.:/-]{0,39}\|>|<｜[^<>｜\s]{1,40}｜>)"
_ASSISTANT = r"(?i:assistant|chatbot|bot|model|ai|gpt|response)"
_SPEAKER = rf"[<\[][|｜](?:\w{{1,20}}_)?{_ASSISTANT}(?:_\w{{1,20}})?[|｜][>\]]"
# Prose writes a space or a full stop behind a mark at its beginning, and a space before one at its end.
_UNKNOWN_START = re.compile(
    rf"({_MARK}|\[\|(?:system|user|human|prompter)\|\])(?=\n|[^\s.,;:!?'\"`()\[\]{{}}/\\|*+-])"
)
_UNKNOWN_BOTH = re.compile(rf"({_MARK})(?=[\s\S]*{_SPEAKER}\s{{0,4}}\Z)")
_UNKNOWN_END = re.compile(rf"(?<![ ])({_SPEAKER}|{_MARK}{_ASSISTANT}(?:{_MARK}|\n|\Z)){PREFILL}")

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
    start = start_of(text, _PADDING)
    for candidate in (*own, *_FAMILIES):
        begin = start if candidate.padding is _PADDING else start_of(text, candidate.padding)
        if (turn := _last_user_turn(text, begin, candidate, offender)) is not None:
            return turn
    if template is not None and template.vague is not None and template.vague.match(text):
        raise DataError(
            f"{offender} is of {template.name} without its special tokens, and what is left does not divide the "
            "turns: hand over the prompt with special tokens, as messages, or the problem in a column"
        )
    begins = _UNKNOWN_START.match(text, start) or _UNKNOWN_BOTH.match(text, start)
    _refuse_unknown_marks(begins, "begins", offender, template)
    tail = text[-_TAIL:]
    for candidate in (*own, *_FAMILIES):
        closing = None if candidate.prose else candidate.closing.search(tail)
        if closing and not tail.endswith(" ", 0, closing.start()):  # prose writes a space before a mark
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
    marks = template.ends if template else _ENDS
    if prompt and query.startswith(prompt):
        return _without(query[len(prompt) :], marks)
    if (cut := _end_of_cut_prompt(query, prompt)) is not None:
        return _without(query[cut:], marks)
    start = start_of(prompt or query, _PADDING)
    if template:
        forms = [form for form in (template, template.bare) if form and form.opening.match(query, start)] or [template]
    else:
        forms = [family for family in _FAMILIES if _opening(prompt or query, start, family)] or [*_FAMILIES]
        forms = [form for form in forms if not form.prose]
    ends = [mark.end() for form in forms for mark in form.reply.finditer(query)]
    return _without(query[max(ends) :] if ends else query, marks)


def begun_reply(prompt: str, template: Template | None = None) -> str | None:
    """What a templated prompt has already written of the answer, such as `<think>`; None if it is of no template.

    Args:
        prompt: the text that the policy goes on from.
        template: the policy's own; None: those known here.
    """
    start = start_of(prompt, _PADDING)
    own = [form for form in (template, template and template.bare) if form is not None]
    for form in (*own, *_FAMILIES):
        is_its = _opening(prompt, start_of(prompt, form.padding) if form in own else start, form)
        if is_its and (not (form.prose or form.closed) or form.closing.search(prompt[-_TAIL:])):
            headers = list(form.reply.finditer(prompt))
            if not headers:
                return ""
            # Harmony's header holds the channel, and so the mark that opens the reasoning.
            channel = prompt.find("<|channel|>", headers[-1].start(), headers[-1].end())
            return prompt[channel if channel >= 0 else headers[-1].end() :]
    for opening, _, reply, last in _BARE:
        if opening.match(prompt) and last.search(prompt[-_TAIL:]):
            return prompt[max(header.end() for header in reply.finditer(prompt)) :]
    return None


def without_end_marks(text: str) -> str:
    """A text without the marks of a chat's end (`<|im_end|>`, `</s>`) and of padding that a decoder left behind it."""
    return _without(text, _ENDS)


def _without(text: str, ends: re.Pattern[str]) -> str:
    end = len(text)
    while marks := ends.search(text, max(0, end - _SEARCHED), end):
        end = marks.start()
    return text[:end]


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


def start_of(text: str, padding: re.Pattern[str]) -> int:
    """Where the first turn may begin."""
    marks = padding.match(text)
    return marks.end() if marks else 0


def _opening(text: str, start: int, template: Template) -> re.Match[str] | None:
    """The first header of a text that is of the template."""
    opening = template.opening.match(text, start)
    return opening if opening and (not template.needs or template.needs.search(text, opening.end())) else None


def _last_user_turn(text: str, start: int, template: Template, offender: str) -> str | None:
    """The last user turn, or None if the text is not of this template. Its padding ends at `start`.

    Raises:
        DataError: the turns make no conversation, or there is no user turn.
    """
    tail = len(text) - _TAIL if len(text) > _TAIL else 0
    closing = template.closing.search(text, tail)
    if not closing and (template.closed or (template.shy and not text[:start].strip())):
        return None
    opening = _opening(text, start, template)
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
        role, begin, led = follows, mark.end(), False
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


def _refuse_unknown_marks(found: re.Match[str] | None, does: str, offender: str, template: Template | None) -> None:
    """Refuse a text that `does` (begins or ends) with the control marks of a template that is not known.

    Raises:
        DataError: such marks were found.
    """
    if found:
        other = f" and is not of {template.name}" if template else ""
        raise DataError(
            f"{offender} {does} with the control mark {found.group(1)!r} of no chat template known here{other}: set "
            "prompt_template to the policy's tokenizer (a hub id, a directory or a Jinja file), or hand over the "
            "problem in a column"
        )
