"""vLLM's contract, for hosts that expect it, such as verl's reward model workers: `POST /classify`.

curl localhost:8000/classify --json '{"input": "<prompt and completion>"}'
{"id": "classify-0", "object": "list", "created": 1760000000, "model": "LARK-Lab/CodeScaler-8B",
"data": [{"index": 0, "label": "LABEL_0", "probs": [0.73], "num_classes": 1}]}
"""

import time
from itertools import count
from typing import Annotated

from fastapi import APIRouter, Request
from pydantic import BaseModel, Field, Tag, model_validator

from codescaler_plugin.serving.handler import CurrentHandler
from codescaler_plugin.serving.protocols.fields import Messages, TaggedText, Texts, by_type, completion_of, problem_of
from codescaler_plugin.serving.samples import Sample
from codescaler_plugin.text.messages import ASSISTANT, USER

router = APIRouter()
_ids = count()


class Classify(BaseModel):
    """vLLM's body. Text must be prompt and completion as a known chat template writes them."""

    model: str | None = None
    input: Annotated[TaggedText | Annotated[Texts, Tag("[list]")], by_type("text, or a list of texts")] | None = None
    messages: Messages | None = None
    use_activation: bool = Field(True, description="true: a value in [0, 1]; false: the shaped reward.")

    @model_validator(mode="after")
    def _one_of_two(self) -> "Classify":
        if (self.input is None) == (self.messages is None):
            raise ValueError("expected either input (text, no token ids) or messages")
        roles = {turn.role for turn in self.messages or []}
        if self.messages is not None and not (roles & set(USER) and roles & set(ASSISTANT)):
            names = ", ".join(sorted(roles)) or "none"
            raise ValueError(f"messages need a user turn and an assistant turn: their roles are {names}")
        return self

    def samples(self) -> list[Sample]:
        """The inputs as samples."""
        if self.messages is not None:
            return [Sample("completion", problem_of(self.messages), completion_of(self.messages))]
        texts = [self.input] if isinstance(self.input, str) else self.input or []
        return [Sample("query", "", text) for text in texts]


class ClassifyRow(BaseModel):
    """The result of one input."""

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


@router.post("/classify")
async def classify(body: Classify, request: Request, handler: CurrentHandler) -> Classified:
    """The route of vLLM, for hosts that expect it, such as verl's reward model workers."""
    rewards = await handler.rewards(body.samples(), request)
    values = [judgement.probability if body.use_activation else reward for reward, judgement in rewards]
    return Classified(
        id=f"classify-{next(_ids)}",
        created=int(time.time()),
        model=handler.model,
        data=[ClassifyRow(index=index, probs=[value]) for index, value in enumerate(values)],
    )
