"""OpenRLHF 0.4 to 0.11.2: `POST /get_reward`.

curl localhost:8000/get_reward --json '{"query": ["<prompt and completion>"], "prompts": ["<prompt>"]}'
{"rewards": [1.31], "scores": [0.73]}
"""

from typing import Annotated, Any

from fastapi import APIRouter, Request
from pydantic import BaseModel, Field, model_validator

from codescaler_plugin.serving.handler import CurrentHandler
from codescaler_plugin.serving.protocols.fields import MAX_ITEMS, Texts
from codescaler_plugin.serving.samples import Sample

router = APIRouter()


class GetReward(BaseModel):
    """OpenRLHF's body. 0.4 sends `query` alone, 0.5 adds `prompts`, 0.6 adds `labels`."""

    query: Texts = Field(description="Prompt and completion, templated, with special tokens.")
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
    """The answer that OpenRLHF reads."""

    rewards: list[float] = Field(description="Shaped; the fallback for a sample without a reward of its own.")
    scores: list[float] = Field(description="In [0, 1]: 1 / (1 + e^-logit), 0 for invalid code and for a fallback.")
    extra_logs: dict[str, list[float]] | None = Field(None, description="Only with --extra-logs.")


@router.post("/get_reward", response_model_exclude_none=True)
async def get_reward(body: GetReward, request: Request, handler: CurrentHandler) -> Rewards:
    """OpenRLHF 0.4 to 0.11.2."""
    prompts = body.prompts or [""] * len(body.query)
    labels = body.labels or [None] * len(body.query)
    samples = list(map(Sample.from_query, body.query, prompts, labels))
    rewards = await handler.rewards(samples, request)
    logs = [judgement.logs() for _, judgement in rewards] if handler.settings.extra_logs else []
    return Rewards(
        rewards=[reward for reward, _ in rewards],
        scores=[judgement.probability for _, judgement in rewards],
        extra_logs={name: [log[name] for log in logs] for name in logs[0]} if logs else None,
    )
