"""Types of the bodies' fields, with their limits, and the text of conversations."""

from typing import Annotated, Any

from pydantic import AliasChoices, BaseModel, BeforeValidator, ConfigDict, Discriminator, Field, Tag

from codescaler_plugin.extraction import begun, prompt_opening
from codescaler_plugin.serving.samples import valid_text
from codescaler_plugin.text.messages import begun_text, completion_text, user_text

MAX_ITEMS = 16_384  # samples of one request; OpenRLHF before 0.9.1 sends a rollout batch at once
MAX_CHARS = 4_000_000  # of one text; a completion above a million is judged `too_long`


def by_type(expected: str) -> Discriminator:
    """Choose a union's member by the value's type, so that an error tells of that member alone."""
    return Discriminator(
        lambda value: f"[{type(value).__name__}]",  # brackets: see `app._unprocessable`
        custom_error_type="form",
        custom_error_message=f"expected {expected}",
    )


_VALID = BeforeValidator(lambda value: valid_text(value) if isinstance(value, str) else value)
Text = Annotated[str, _VALID, Field(max_length=MAX_CHARS)]
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
    """The problem in a prompt: a text as it is, or the last user turn with text; empty if there is none."""
    return prompt if isinstance(prompt, str) else user_text([turn.model_dump() for turn in prompt])


def completion_of(completion: str | list[Message], prompt: str | list[Message] = "") -> str:
    """The text of a completion: a text as it is, or the last assistant turn with text; empty if there is none.

    A prompt that is a conversation may end in an assistant's turn, which the completion continues.
    """
    text = completion_text(completion if isinstance(completion, str) else [turn.model_dump() for turn in completion])
    if isinstance(prompt, str):
        return text
    start, is_reply = begun_text([turn.model_dump() for turn in prompt])
    return begun(prompt_opening(start, is_reply=is_reply), text)
