"""Bodies of the routes, with their limits."""

from typing import Annotated, Any

from pydantic import AliasChoices, BaseModel, BeforeValidator, ConfigDict, Discriminator, Field, Tag, model_validator

from codescaler_plugin.extraction import begun, prompt_opening
from codescaler_plugin.records import Judgement
from codescaler_plugin.text.messages import ASSISTANT, USER, begun_text, completion_text, user_text

MAX_ITEMS = 16_384
"""Samples of one request. OpenRLHF before 0.9.1 sends a rollout batch at once."""
MAX_CHARS = 4_000_000
"""Characters of one text. A completion above a million is judged `too_long`."""


def _valid_unicode(value: Any) -> Any:
    """A text with what is no character replaced: JSON may hold halves of a surrogate pair, which no model reads."""
    if not isinstance(value, str) or value.isascii():  # ASCII without a copy: a body may fill much of the memory
        return value
    return value.encode("utf-8", "replace").decode()


def _by_type(expected: str) -> Discriminator:
    """Take a value's type for the form that was meant, so that an error tells of that form alone."""
    return Discriminator(
        lambda value: f"[{type(value).__name__}]",  # brackets: see `_unprocessable`
        custom_error_type="form",
        custom_error_message=f"expected {expected}",
    )


Text = Annotated[str, BeforeValidator(_valid_unicode), Field(max_length=MAX_CHARS)]
Texts = Annotated[list[Text], Field(max_length=MAX_ITEMS)]
_TaggedText = Annotated[Text, Tag("[str]")]


class Message(BaseModel):
    """A turn of a conversation. Its content is text, a list of parts (`{"type": "text", "text": ...}`), or null."""

    model_config = ConfigDict(extra="allow")

    role: str = Field("", validation_alias=AliasChoices("role", "from"))
    content: (
        Annotated[
            _TaggedText | Annotated[list[Any], Tag("[list]")] | Annotated[dict[str, Any], Tag("[dict]")],
            _by_type("text, a list of parts, an object or null"),
        ]
        | None
    ) = Field(None, validation_alias=AliasChoices("content", "value"))


Messages = Annotated[list[Message], Field(max_length=MAX_ITEMS)]
TextOrMessages = Annotated[_TaggedText | Annotated[Messages, Tag("[list]")], _by_type("text, or messages in a list")]


def user_said(prompt: str | list[Message]) -> str:
    """The problem in a prompt: text as it stands, or what the last user turn with text says; empty if none has.

    Raises:
        ValueError: a role that nobody knows, and no user turn.
    """
    return prompt if isinstance(prompt, str) else user_text([turn.model_dump() for turn in prompt])


def assistant_said(completion: str | list[Message], prompt: str | list[Message] = "") -> str:
    """The text of a completion: as it stands, or what the last assistant turn with text says; empty if none has.

    Args:
        completion: text or a conversation.
        prompt: text, or a conversation that may end in an assistant's turn, which the completion goes on from.

    Raises:
        ValueError: a role that nobody knows, and no assistant turn.
    """
    given = completion if isinstance(completion, str) else [turn.model_dump() for turn in completion]
    text = completion_text(given)
    if isinstance(prompt, str):
        return text
    start, is_reply = begun_text([turn.model_dump() for turn in prompt])
    return begun(prompt_opening(start, is_reply=is_reply), text)


class GetReward(BaseModel):
    """OpenRLHF's body; 0.4 sends `query` alone, 0.5 adds `prompts`, 0.6 `labels`."""

    query: Texts = Field(description="Prompt and answer, templated, with special tokens.")
    prompts: Texts | None = Field(None, description="The prompts, templated; none, or one per query.")
    labels: Annotated[list[Any], Field(max_length=MAX_ITEMS)] | None = Field(
        None, description="None, or one per query; a dict or its JSON may hold the problem."
    )

    @model_validator(mode="after")
    def _equal_lengths(self) -> "GetReward":
        for name, values in (("prompts", self.prompts), ("labels", self.labels)):
            if values and len(values) != len(self.query):
                raise ValueError(f"{len(values)} {name} for {len(self.query)} queries: expected one each, or none")
        return self


class Rewards(BaseModel):
    """What OpenRLHF reads."""

    rewards: list[float] = Field(description="Shaped; the fallback for what has no reward of its own.")
    scores: list[float] = Field(description="In [0, 1]: 1 / (1 + e^-logit), 0 for unvalid code and for a fallback.")
    extra_logs: dict[str, list[float]] | None = Field(None, description="Only with --extra-logs.")


class ScoreItem(BaseModel):
    """A problem with a program, or with an answer that holds one. Problem and answer may be conversations."""

    model_config = ConfigDict(extra="forbid")

    problem: TextOrMessages
    code: Text | None = None
    completion: TextOrMessages | None = None

    @model_validator(mode="after")
    def _one_of_two(self) -> "ScoreItem":
        if (self.code is None) == (self.completion is None):
            raise ValueError("expected either code or completion")
        return self


class ScoreItems(BaseModel):
    """Many at once."""

    model_config = ConfigDict(extra="forbid")

    items: Annotated[list[ScoreItem], Field(max_length=MAX_ITEMS)]


OneOrMany = Annotated[
    Annotated[ScoreItems, Tag("[items]")] | Annotated[ScoreItem, Tag("[item]")],
    Discriminator(lambda body: "[items]" if isinstance(body, dict) and "items" in body else "[item]"),
]


class Scores(BaseModel):
    """One entry per item, same order."""

    scores: list[float | None] = Field(description="Raw logits; null for invalid code and for what failed.")
    judgements: list[Judgement] = Field(
        description="What the pipeline says of each. `failure` says why an item has no reward, and is null if it has "
        "one; `code` is empty for an item that came as a program."
    )


class Classify(BaseModel):
    """vLLM's body. Text must be prompt and answer as a known chat template writes them."""

    model: str | None = None
    input: Annotated[_TaggedText | Annotated[Texts, Tag("[list]")], _by_type("text, or a list of texts")] | None = None
    messages: Messages | None = None
    use_activation: bool = Field(True, description="true: a value in [0, 1]; false: the shaped reward.")

    @model_validator(mode="after")
    def _one_of_two(self) -> "Classify":
        if (self.input is None) == (self.messages is None):
            raise ValueError("expected either input (text, no token ids) or messages")
        roles = {turn.role for turn in self.messages or []}
        if self.messages is not None and not (roles & set(USER) and roles & set(ASSISTANT)):
            found = ", ".join(sorted(roles)) or "none"
            raise ValueError(f"messages need a user turn and an assistant turn: their roles are {found}")
        return self


class ClassifyRow(BaseModel):
    """One input's result."""

    index: int
    label: str = "LABEL_0"
    probs: list[float]
    num_classes: int = 1


class Classified(BaseModel):
    """vLLM's answer."""

    id: str
    object: str = "list"
    created: int
    model: str
    data: list[ClassifyRow]


class SlimeSample(BaseModel):
    """slime's body (`--rm-type remote_rm`)."""

    prompt: TextOrMessages
    response: Text
    label: Any = None


class Problem(BaseModel):
    """Any answer but 200."""

    detail: Any
