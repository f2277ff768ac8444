"""A prompt or completion as hosts and data sets hold it -> its text.

It may be a string, or a list of messages whose content is a string, a list of parts (`{"type": "text", "text": ...}`
beside images), or None beside tool calls. Lists may be numpy arrays, as rows of parquet files have them. ShareGPT's
`from` and `value` are read, too.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from codescaler_plugin.errors import DataError
from codescaler_plugin.text.templates import Template, user_turn

Text = str | Sequence[Mapping[str, Any]]
"""A plain string or a list of chat messages."""

USER = ("user", "human")
ASSISTANT = ("assistant", "model", "gpt")
_OTHERS = ("system", "developer", "tool", "function", "observation", "ipython")
_TEXT_PARTS = ("text", "input_text", "output_text")  # of the chat and of the responses API
_PROBLEM_NAMES = ("problem", "question", "question_content")


def problem_text(problem: Text, offender: str = "problem", template: Template | None = None) -> str:
    """The problem in a prompt: the last user turn of messages or of text that a chat template has made, else the text.

    Args:
        problem: a string or messages.
        offender: what an error calls it.
        template: that of the policy; None: those that `text.templates` knows.

    Raises:
        DataError: another form, no user message with text, marks of no known template, or no valid Unicode.
    """
    messages = _messages(problem, offender)
    if isinstance(messages, str):
        text = user_turn(messages, offender, template)
    else:
        text = user_text(messages, offender)
        if not text:
            raise DataError(f"{offender} has no user message with text")
    if not text.strip():
        raise DataError(f"{offender} has no text")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise DataError(f"{offender} is no valid Unicode text: {error.reason} at {error.start}") from error
    return text


def user_text(messages: Sequence[Mapping[str, Any]], offender: str = "prompt") -> str:
    """The text of the last user turn that has text; empty if none has, as where a prompt holds an image alone.

    Raises:
        DataError: a message with a role that nobody knows and none of the user.
    """
    return _last(messages, USER, offender)


def completion_text(completion: Text | None, offender: str = "completion") -> str:
    """The text of a completion: the string, or the last assistant turn that has text; empty if there is none.

    None is a generation that was lost on the way: a completion without code, not a broken row.

    Raises:
        DataError: another form, or a message with a role that nobody knows and none of the assistant.
    """
    if completion is None:
        return ""
    messages = _messages(completion, offender)
    return messages if isinstance(messages, str) else _last(messages, ASSISTANT, offender)


def continued_text(prompt: Text, offender: str = "prompt") -> str:
    """What the policy goes on from: the prompt's text, or the assistant's turn that ends its messages; else empty."""
    messages = _messages(prompt, offender)
    if isinstance(messages, str):
        return messages
    if not messages or _role(messages[-1]) not in ASSISTANT:
        return ""
    return _content(messages[-1], offender)


def stated_problem(label: object) -> str | None:
    """The problem in a dataset's label: in a dict or its JSON, what is named problem, question or question_content.

    That may be text or messages; empty if the messages hold no text. None for any other label, such as an answer or a
    list of tests. A name such as `input` is not looked for: in a test it is what the program reads.

    Raises:
        DataError: messages with a role that nobody knows.
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
        if isinstance(value, Sequence) and not isinstance(value, str) and value and isinstance(value[0], Mapping):
            return user_text(value, f"{name} of the label")
    return None


def _plain(value: Any) -> Any:
    """A numpy array as a list."""
    return value.tolist() if hasattr(value, "tolist") else value


def _messages(value: Any, offender: str) -> str | Sequence[Mapping[str, Any]]:
    value = _plain(value)
    if isinstance(value, str):
        return value
    if not isinstance(value, list | tuple) or not all(isinstance(message, Mapping) for message in value):
        raise DataError(f"{offender} is {type(value).__name__}: expected a string or a list of messages")
    return value


def _last(messages: Sequence[Mapping[str, Any]], roles: Sequence[str], offender: str) -> str:
    """The text of the last message of a role that has text; empty if none has."""
    for message in reversed(messages):
        if _role(message) in roles and (text := _content(message, offender)):
            return text
    unknown = [_role(message) for message in messages if _role(message) not in (*USER, *ASSISTANT, *_OTHERS)]
    if unknown:
        raise DataError(
            f"{offender} has a message with the role {unknown[-1]!r} and none of {' or '.join(roles)} with text: "
            f"expected the roles {', '.join((*USER, *ASSISTANT, *_OTHERS))}"
        )
    return ""


def _role(message: Mapping[str, Any]) -> str:
    return str(message.get("role", message.get("from", "")))


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
    return "".join(_part(part, offender) for part in content)


def _part(part: Any, offender: str) -> str:
    """The text of a part; nothing for an image, a tool call or what the policy thought."""
    if isinstance(part, str):
        return part
    if not isinstance(part, Mapping):
        raise DataError(f"{offender}: a part of the content is {type(part).__name__}: expected an object with a type")
    text = part.get("text")
    return text if isinstance(text, str) and part.get("type", "text") in _TEXT_PARTS else ""
