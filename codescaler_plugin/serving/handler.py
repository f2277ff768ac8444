"""The part that all protocols share: samples to the backend, counts, logs, and the fallback reward."""

import asyncio
import logging
from collections.abc import Coroutine
from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import Depends, HTTPException, Request

from codescaler_plugin.records import Judgement
from codescaler_plugin.serving.backend import Backend
from codescaler_plugin.serving.batching import UnavailableError
from codescaler_plugin.serving.config import ServingConfig
from codescaler_plugin.serving.page import RecentSamples
from codescaler_plugin.serving.samples import Sample

logger = logging.getLogger(__name__)

RETRY_AFTER = {"Retry-After": "1"}  # seconds; OpenRLHF always asks again after one


@dataclass(frozen=True)
class Handler:
    """The judgements and rewards of a request's samples."""

    backend: Backend
    settings: ServingConfig
    model: str
    recent: RecentSamples

    async def judge(self, samples: list[Sample], request: Request) -> list[Judgement]:
        """One judgement per sample, in order. 503 if the queue is full or the model has never been ready."""
        if self.settings.log_bodies:
            logger.info("%s: %s", request.url.path, samples)
        try:
            judgements = await _while_connected(self.backend.submit(samples), request)
        except UnavailableError as error:
            self.backend.metrics.failures.labels(error.cause).inc(len(samples))
            raise unavailable(str(error)) from error
        self.backend.metrics.count(judgements)
        self.recent.add(request.url.path, samples, judgements)
        if failures := [judgement.failure for judgement in judgements if judgement.failure is not None]:
            fate = "are answered with an error" if self.settings.fallback is None else "get the fallback reward"
            fate = "get no score" if request.url.path == "/v1/score" else fate
            logger.error("%d of %d samples %s: %s", len(failures), len(samples), fate, failures[0])
        return judgements

    async def rewards(self, samples: list[Sample], request: Request) -> list[tuple[float, Judgement]]:
        """A reward per sample, in order, with its judgement. A failed sample gets the fallback.

        Without a fallback, it is 503 if another try may succeed, else 422.
        """
        rewards = []
        for judgement in await self.judge(samples, request):
            if judgement.failure is not None and self.settings.fallback is None:
                if judgement.failure.kind.is_transient:
                    raise unavailable(str(judgement.failure))
                raise HTTPException(422, str(judgement.failure))
            rewards.append((judgement.reward_or(self.settings.fallback), judgement))
        return rewards


def _handler(request: Request) -> Any:
    return request.app.state.handler


CurrentHandler = Annotated[Handler, Depends(_handler)]  # of the application, as a parameter of a route


def unavailable(reason: str) -> HTTPException:
    """A 503 with Retry-After."""
    return HTTPException(503, reason, headers=RETRY_AFTER)


async def _while_connected(work: Coroutine[Any, Any, list[Judgement]], request: Request) -> list[Judgement]:
    """The result of `work`, which is cancelled when the caller disconnects. Only the log sees the 499."""

    async def disconnected() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass

    working, watching = asyncio.create_task(work), asyncio.create_task(disconnected())
    try:
        await asyncio.wait({working, watching}, return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise HTTPException(499, "the caller went away")
        return working.result()
    finally:
        watching.cancel()
        if not working.done():
            working.cancel()
