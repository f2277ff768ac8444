"""Types of the bodies' fields, with their limits, and the text of conversations."""

from typing import Annotated, Any

from pydantic import AliasChoices, BaseModel, BeforeValidator, ConfigDict, Discriminator, Field, Tag

from codescaler_plugin.extraction import begun, prompt_opening
from codescaler_plugin.text.messages import begun_text, completion_text, user_text

MAX_ITEMS = 16_384
"""Samples of one request. OpenRLHF before 0.9.1 sends a rollout batch at once."""
MAX_CHARS = 4_000_000
"""Characters of one text. A completion above a million is judged `too_long`."""


def _valid_unicode(value: Any) -> Any:
    """A text with lone surrogates replaced: JSON may hold them, and no model reads them."""
    if not isinstance(value, str) or value.isascii():  # ASCII without a copy: a body may fill much of the memory
        return value
    return value.encode("utf-8", "replace").decode()


def by_type(expected: str) -> Discriminator:
    """Choose a union's member by the value's type, so that an error tells of that member alone."""
    return Discriminator(
        lambda value: f"[{type(value).__name__}]",  # brackets: see `app._unprocessable`
        custom_error_type="form",
        custom_error_message=f"expected {expected}",
    )


Text = Annotated[str, BeforeValidator(_valid_unicode), Field(max_length=MAX_CHARS)]
Texts = Annotated[list[Text], Field(max_length=MAX_ITEMS)]
TaggedText = Annotated[Text, Tag("[str]")]


class Message(BaseModel):
    """A turn of a conversation. Its content is text, a list of parts (`{"type": "text", "text": ...}`), or null."""

    model_config = ConfigDict(extra="allow")

    role: str = Field("", validation_alias=AliasChoices("role", "from"))
    content: (
        Annotated[
            TaggedText | Annotated[list[Any], Tag("[list]")] | Annotated[dict[str, Any], Tag("[dict]")],
            by_type("text, a list of parts, an object or null"),
        ]
        | None
    ) = Field(None, validation_alias=AliasChoices("content", "value"))


Messages = Annotated[list[Message], Field(max_length=MAX_ITEMS)]
TextOrMessages = Annotated[TaggedText | Annotated[Messages, Tag("[list]")], by_type("text, or messages in a list")]


def problem_of(prompt: str | list[Message]) -> str:
    """The problem in a prompt: a text as it is, or the last user turn with text; empty if there is none.

    Raises:
        DataError: an unknown role, and no user turn.
    """
    return prompt if isinstance(prompt, str) else user_text([turn.model_dump() for turn in prompt])


def completion_of(completion: str | list[Message], prompt: str | list[Message] = "") -> str:
    """The text of a completion: a text as it is, or the last assistant turn with text; empty if there is none.

    Args:
        completion: text or a conversation.
        prompt: text, or a conversation that may end in an assistant's turn, which the completion continues.

    Raises:
        DataError: an unknown role, and no assistant turn.
    """
    text = completion_text(completion if isinstance(completion, str) else [turn.model_dump() for turn in completion])
    if isinstance(prompt, str):
        return text
    start, is_reply = begun_text([turn.model_dump() for turn in prompt])
    return begun(prompt_opening(start, is_reply=is_reply), text)
