r"""Templated text -> the text of a user or an assistant in it.

Hosts hand over prompts as text that a chat template has made (OpenRLHF, verl, slime, rollout logs, TRL with prompts
that are templated already).

A text is cut into turns from the left. A header counts only where a turn may begin: at the start of the text, or right
behind the mark that ends the turn before. So a problem may mention the marks of its own template. The limits:

- A problem that holds the end of a turn and the next header, as `<|im_end|>\n<|im_start|>user\n`, looks like turns. It
  is refused if the turns then make no conversation (two user turns or two replies in a row, a user turn without a
  reply), and read as turns if they do.
- In families without an end of a user's turn (GLM, DeepSeek, Mistral), a single header in the problem has that effect.
- A system text that a template puts before the user's text without marks (Gemma 3, Mistral up to v3) belongs to the
  problem, because nothing divides the two.
- White space next to a mark that some templates of a family write and others do not (`[INST]`, `[|user|]`,
  `<|user|>`) belongs to the mark.
- Text without its special tokens is recognised if the rest still divides the turns, as in Qwen and Llama 3.
"""

import re
from collections.abc import Iterator

from codescaler_plugin.errors import DataError
from codescaler_plugin.text.families import FAMILIES
from codescaler_plugin.text.templates import ENDS, PADDING, PREFILL, Template, start_of

_TAIL = 512  # characters in which a generation prompt is looked for

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
_SHARED = 24  # characters of the prompt's end that locate it in a query
_TRIES = 64  # occurrences of that end in a query, which may be a generation prompt


def user_turn(text: str, offender: str = "prompt", template: Template | None = None) -> str:
    r"""The last user turn of a templated prompt, or the whole text if it does not begin as a template does.

    The template of the policy is tried before `FAMILIES`. `offender` names the prompt in errors.

    Raises:
        DataError: the prompt was cut from the left, holds the marks of its template inside a turn, so that the turns
            cannot be told apart, or begins or ends with the marks of an unknown template.

    Example:
        >>> user_turn("<|im_start|>user\nDouble n.<|im_end|>\n<|im_start|>assistant\n")
        'Double n.'
    """
    for form, start in _forms(text, template):
        if (turn := _last_user_turn(text, start, form, offender)) is not None:
            return turn
    if template is not None and template.vague is not None and template.vague.match(text):
        raise DataError(
            f"{offender} is of {template.name} without its special tokens, and what is left does not divide the "
            "turns: hand over the prompt with special tokens, as messages, or the problem in a column"
        )
    start = start_of(text, PADDING)
    begins = _UNKNOWN_START.match(text, start) or _UNKNOWN_BOTH.match(text, start)
    _refuse_unknown_marks(begins, "begins", offender, template)
    tail = text[-_TAIL:]
    for form, _ in _forms(text, template):
        closing = None if form.prose else form.closing.search(tail)
        if closing and not tail.endswith(" ", 0, closing.start()):  # prose writes a space before a mark
            raise DataError(f"{offender} has no user turn and ends as a chat template does: it was cut from the left")
    for opening, user, reply, last in _BARE:
        if opening.match(text) and (closing := last.search(tail)):
            turns = text[: len(text) - len(tail) + closing.start()]
            if header := user.search(turns, max((mark.end() for mark in reply.finditer(turns)), default=0)):
                return turns[header.end() :]
    _refuse_unknown_marks(_UNKNOWN_END.search(tail), "ends", offender, template)
    return text


def response(query: str, prompt: str, template: Template | None = None) -> str:
    """The completion in a text of prompt and completion, as OpenRLHF hands it to a reward.

    If the text begins with the prompt, or with the end of a prompt that was cut from the left, the rest is the
    completion. Else it is the text behind the last assistant header of a template: the policy's, the prompt's, or any
    of `FAMILIES`. Without such a header it is the whole text. Marks at its end that close the turn or (up to OpenRLHF
    0.5) pad the batch are taken off. The prompt is whole, or empty if unknown.
    """
    marks = template.ends if template else ENDS
    if prompt and query.startswith(prompt):
        return _without(query[len(prompt) :], marks)
    if (cut := _end_of_cut_prompt(query, prompt)) is not None:
        return _without(query[cut:], marks)
    start = start_of(prompt or query, PADDING)
    if template:
        forms = [form for form in template.forms if form.opening.match(query, start)] or [template]
    else:
        forms = [family for family in FAMILIES if _opening(prompt or query, start, family)] or [*FAMILIES]
        forms = [form for form in forms if not form.prose]
    ends = [mark.end() for form in forms for mark in form.reply.finditer(query)]
    return _without(query[max(ends) :] if ends else query, marks)


def begun_reply(prompt: str, template: Template | None = None) -> str | None:
    """The beginning of the reply that a templated prompt holds, such as `<think>`; None if it has no template."""
    for form, start in _forms(prompt, template):
        if _opening(prompt, start, form) and (not (form.prose or form.closed) or form.closing.search(prompt[-_TAIL:])):
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
    """A text without the marks behind it that end a turn (`<|im_end|>`, `</s>`) or pad a batch."""
    return _without(text, ENDS)


def _without(text: str, ends: re.Pattern[str]) -> str:
    end = len(text)
    while marks := ends.search(text, max(0, end - _SEARCHED), end):
        end = marks.start()
    return text[:end]


def _end_of_cut_prompt(query: str, prompt: str) -> int | None:
    """The offset of the completion in a query that begins with the end of the prompt; None if it does not."""
    tail = prompt[-_SHARED:]
    offset = query.find(tail) if len(tail) == _SHARED else -1
    for _ in range(_TRIES):
        if offset < 0 or offset + _SHARED > len(prompt):
            return None
        if prompt.endswith(query[: offset + _SHARED]):
            return offset + _SHARED
        offset = query.find(tail, offset + 1)
    return None


def _forms(text: str, template: Template | None) -> Iterator[tuple[Template, int]]:
    """The templates that a text may have, the policy's first, and the offset at which its first turn may begin."""
    start = start_of(text, PADDING)
    for form in (*(template.forms if template else ()), *FAMILIES):
        yield form, start if form.padding is PADDING else start_of(text, form.padding)


def _opening(text: str, start: int, template: Template) -> re.Match[str] | None:
    """The first header of a text that has the template."""
    opening = template.opening.match(text, start)
    return opening if opening and (not template.needs or template.needs.search(text, opening.end())) else None


def _last_user_turn(text: str, start: int, template: Template, offender: str) -> str | None:
    """The last user turn, or None if the text does not have this template. Its padding ends at `start`."""
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


def _refuse_unknown_marks(marks: re.Match[str] | None, verb: str, offender: str, template: Template | None) -> None:
    """Raise a DataError for control marks of an unknown template with which a text begins or ends (`verb`)."""
    if marks:
        other = f" and is not of {template.name}" if template else ""
        raise DataError(
            f"{offender} {verb} with the control mark {marks.group(1)!r} of no chat template known here{other}: set "
            "prompt_template to the policy's tokenizer (a hub id, a directory or a Jinja file), or hand over the "
            "problem in a column"
        )
