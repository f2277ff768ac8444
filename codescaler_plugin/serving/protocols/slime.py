"""slime's contract (`--rm-type remote_rm`): `POST /slime`. The answer is the reward alone.

curl localhost:8000/slime --json '{"prompt": "<templated prompt>", "response": "<completion>"}'
1.31
"""

from typing import Any

from fastapi import APIRouter, HTTPException, Request
from pydantic import BaseModel

from codescaler_plugin.serving.handler import CurrentHandler
from codescaler_plugin.serving.protocols.fields import Text, TextOrMessages, completion_of, problem_of
from codescaler_plugin.serving.samples import Sample, problem_in_label
from codescaler_plugin.text.messages import USER

router = APIRouter()


class SlimeSample(BaseModel):
    """slime's body (`--rm-type remote_rm`)."""

    prompt: TextOrMessages
    response: Text
    label: Any = None


@router.post("/slime")
async def slime(body: SlimeSample, request: Request, handler: CurrentHandler) -> float:
    """For slime's `--rm-type remote_rm`. The answer is the reward alone."""
    if isinstance(body.prompt, str):
        sample = Sample.from_query(body.prompt + body.response, body.prompt, body.label)
    else:
        problem = problem_in_label(body.label) or problem_of(body.prompt)
        if not problem and not any(turn.role in USER for turn in body.prompt):
            raise HTTPException(422, "prompt has no user turn")
        sample = Sample("completion", problem, completion_of(body.response, body.prompt))
    [(reward, _)] = await handler.rewards([sample], request)
    return reward
