"""A prompt or completion, as hosts and data sets hold it -> its text.

It is a string or a list of messages. The content of a message is a string, a list of parts (`{"type": "text", "text":
...}` beside images), or None beside tool calls. Lists may be numpy arrays, as in rows of parquet files. ShareGPT's
`from` and `value` are read as well.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from codescaler_plugin.errors import DataError
from codescaler_plugin.text.templates import Template
from codescaler_plugin.text.turns import begun_reply, user_turn

Text = str | Sequence[Mapping[str, Any]]
"""A plain string or a list of chat messages."""

USER = ("user", "human")
ASSISTANT = ("assistant", "model", "gpt")
_OTHERS = ("system", "developer", "tool", "function", "observation", "ipython")
_NOT_CONTENT = ("think", "reason", "redacted", "summary", "tool", "function")  # beginnings of part types
_PROBLEM_NAMES = ("problem", "question", "question_content")


def problem_text(
    problem: Text, offender: str = "problem", template: Template | None = None, *, is_stated: bool = False
) -> str:
    """The problem in a prompt: the last user turn of messages or of templated text, else the whole text.

    With `is_stated`, a string is the problem itself. `offender` names the prompt in errors.

    Raises:
        DataError: another type, no user message with text, marks of an unknown template, or invalid Unicode.

    Example:
        >>> problem_text([{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Double n."}])
        'Double n.'
    """
    messages = _messages(problem, offender)
    if not isinstance(messages, str):
        text = user_text(messages, offender)
        if not text:
            raise DataError(f"{offender} has no user message with text")
    else:
        text = messages if is_stated else user_turn(messages, offender, template)
    if not text.strip():
        raise DataError(f"{offender} is empty")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise DataError(f"{offender} is no valid Unicode text: {error.reason} at {error.start}") from error
    return text


def has_text(prompt: Text) -> bool:
    """Whether a prompt holds text of a user. True as well for a prompt that cannot be read."""
    try:
        messages = _messages(prompt, "prompt")
        return bool((messages if isinstance(messages, str) else user_text(messages)).strip())
    except DataError:
        return True


def user_text(messages: Sequence[Mapping[str, Any]], offender: str = "prompt") -> str:
    """The text of the last user turn with text; empty if there is none, as in a prompt of an image alone."""
    return _last(messages, USER, offender)


def completion_text(completion: Text | None, offender: str = "completion") -> str:
    """The text of a completion: the string, or the last assistant turn with text; empty if there is none.

    Raises:
        DataError: another type, or a message with an unknown role and none of the assistant.
    """
    if completion is None:  # a generation that was lost: a completion without code, not a broken row
        return ""
    messages = _messages(completion, offender)
    return messages if isinstance(messages, str) else _last(messages, ASSISTANT, offender)


def begun_text(prompt: Text, offender: str = "prompt", template: Template | None = None) -> tuple[str, bool]:
    """The text that the policy continues, and whether that is the beginning of the reply.

    A prompt of no known template is returned whole.
    """
    messages = _messages(prompt, offender)
    if isinstance(messages, str):
        reply = begun_reply(messages, template)
        return (messages, False) if reply is None else (reply, True)
    for message in reversed(messages):
        if _role(message) not in ASSISTANT:
            break
        if text := _content(message, offender):
            return text, True
    return "", True


def stated_problem(label: object) -> str | None:
    """The problem in a dataset's label: the field `problem`, `question` or `question_content` of a dict or its JSON.

    Any other label, such as a solution or a list of tests, gives None. A field `input` is not read, because in a test
    it is the program's stdin.
    """
    if isinstance(label, str) and label.lstrip().startswith("{"):
        try:
            label = json.loads(label)
        except (ValueError, RecursionError):
            return None
    if not isinstance(label, Mapping):
        return None
    for name in _PROBLEM_NAMES:
        value = _plain(label.get(name))
        if isinstance(value, str) and value.strip():
            return value
        if isinstance(value, list | tuple) and value and isinstance(value[0], Mapping):
            return user_text(_messages(value, f"{name} of the label"), f"{name} of the label")  # type: ignore[arg-type]
    return None


def _plain(value: Any) -> Any:
    """The list of a numpy array; any other value unchanged."""
    return value.tolist() if hasattr(value, "tolist") else value


def _messages(value: Any, offender: str) -> str | Sequence[Mapping[str, Any]]:
    value = _plain(value)
    if isinstance(value, str):
        return value
    if isinstance(value, list | tuple):
        value = [message for message in value if message is not None]  # Arrow pads lists with null
    if not isinstance(value, list) or not all(isinstance(message, Mapping) for message in value):
        raise DataError(f"{offender} is {type(value).__name__}: expected a string or a list of messages")
    if value and not any({"role", "from"} & message.keys() for message in value) and "type" in value[0]:
        return "".join(_part(part, offender) for part in value)  # the parts of one message
    return value


def _last(messages: Sequence[Mapping[str, Any]], roles: Sequence[str], offender: str) -> str:
    for message in reversed(messages):
        role = _role(message)
        if role in roles and (text := _content(message, offender)):
            return text
        if role not in (*USER, *ASSISTANT, *_OTHERS):
            raise DataError(
                f"{offender} has a message with the role {role!r}: expected one of "
                f"{', '.join((*USER, *ASSISTANT, *_OTHERS))}"
            )
    return ""


def _role(message: Mapping[str, Any]) -> str:
    return next((str(message[name]).lower() for name in ("role", "from") if message.get(name) is not None), "")


def _content(message: Mapping[str, Any], offender: str) -> str:
    content = _plain(message["content"] if message.get("content") is not None else message.get("value"))
    if content is None:
        return ""
    if isinstance(content, str):
        return content
    if isinstance(content, Mapping):
        content = [content]
    if not isinstance(content, list | tuple):
        raise DataError(f"{offender}: content is {type(content).__name__}: expected a string or a list of parts")
    return "".join(_part(part, offender) for part in content if part is not None)


def _part(part: Any, offender: str) -> str:
    """The text of a part; empty for an image, a tool call or reasoning."""
    if isinstance(part, str):
        return part
    if not isinstance(part, Mapping):
        raise DataError(f"{offender}: a part of the content is {type(part).__name__}: expected an object with a type")
    kind = str(part.get("type") or "text")
    if kind.startswith(_NOT_CONTENT):
        return ""
    texts = (part.get(name) for name in ("text", "content"))
    return next((text for text in texts if isinstance(text, str)), "")
