"""The native contract: `POST /v1/score`, for one item or many.

curl localhost:8000/v1/score --json '{"problem": "Add 1 to n.", "code": "def add(n): return n + 1"}'
{"scores": [1.02], "judgements": [{"reward": 1.31, "score": 1.02, "status": "ok", "code": "", "failure": null,
"explanation": "It was sent as a program, whose validity is checked by the sender."}]}
"""

from typing import Annotated

from fastapi import APIRouter, Request
from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, model_validator

from codescaler_plugin.records import Judgement
from codescaler_plugin.serving.handler import CurrentHandler, unavailable
from codescaler_plugin.serving.protocols.fields import MAX_ITEMS, Text, TextOrMessages, completion_of, problem_of
from codescaler_plugin.serving.samples import Sample

router = APIRouter()


class ScoreItem(BaseModel):
    """A problem with a program, or with a completion that holds one. Both may be conversations."""

    model_config = ConfigDict(extra="forbid")

    problem: TextOrMessages
    code: Text | None = None
    completion: TextOrMessages | None = None

    @model_validator(mode="after")
    def _one_of_two(self) -> "ScoreItem":
        if (self.code is None) == (self.completion is None):
            raise ValueError("expected either code or completion")
        return self

    def sample(self) -> Sample:
        """The item as a sample."""
        if self.completion is None:
            return Sample("code", problem_of(self.problem), self.code or "")
        return Sample("completion", problem_of(self.problem), completion_of(self.completion, self.problem))


class ScoreItems(BaseModel):
    """Many items."""

    model_config = ConfigDict(extra="forbid")

    items: Annotated[list[ScoreItem], Field(max_length=MAX_ITEMS)]


OneOrMany = Annotated[
    Annotated[ScoreItems, Tag("[items]")] | Annotated[ScoreItem, Tag("[item]")],
    Discriminator(lambda body: "[items]" if isinstance(body, dict) and "items" in body else "[item]"),
]


class Scores(BaseModel):
    """One entry per item, in order."""

    scores: list[float | None] = Field(description="Raw logits; null for invalid code and for a failure.")
    judgements: list[Judgement] = Field(
        description="The pipeline's judgement of each. `failure` says why an item has no reward, and is null if it "
        "has one; `code` is empty for an item that came as a program. `explanation` is a sentence about the reason "
        "of the status, or about the failure."
    )


@router.post("/v1/score")
async def score(body: OneOrMany, request: Request, handler: CurrentHandler) -> Scores:
    """Raw logits of programs, judgements of completions. A failure gets no fallback reward."""
    items = body.items if isinstance(body, ScoreItems) else [body]
    judgements = await handler.judge([item.sample() for item in items], request)
    failures = [judgement.failure for judgement in judgements if judgement.failure is not None]
    if items and len(failures) == len(items) and any(failure.kind.is_transient for failure in failures):
        raise unavailable(str(failures[0]))
    return Scores(scores=[judgement.score for judgement in judgements], judgements=judgements)
