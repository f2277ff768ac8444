"""The routes. Bodies in, samples to a backend, answers out as each host reads them."""

import asyncio
import base64
import hmac
import json
import logging
import math
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, MutableMapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from itertools import count
from typing import Any

from fastapi import FastAPI, HTTPException, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, PlainTextResponse, RedirectResponse
from fastapi_offline import FastAPIOffline
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from codescaler_plugin import __version__
from codescaler_plugin.config import CodeScalerConfig
from codescaler_plugin.errors import ConfigError, DataError
from codescaler_plugin.records import Judgement
from codescaler_plugin.serving import MAX_BODY
from codescaler_plugin.serving.backend import Backend
from codescaler_plugin.serving.batching import UnavailableError
from codescaler_plugin.serving.bodies import (
    Classified,
    Classify,
    ClassifyRow,
    GetReward,
    OneOrMany,
    Problem,
    Rewards,
    ScoreItems,
    Scores,
    SlimeSample,
    assistant_said,
    user_said,
)
from codescaler_plugin.serving.judging import Item, item_of, label_problem
from codescaler_plugin.serving.metrics import Metrics
from codescaler_plugin.text.messages import USER

logger = logging.getLogger(__name__)

BODIES_BYTES = 256 << 20
"""Bytes of bodies that are held at a time, from their arrival to the answer; four of the greatest if that is more."""
RETRY_AFTER = 1  # seconds; OpenRLHF asks again after one, whatever it is told
_STATIC = "/static-offline-docs/"  # script and style of /docs, from this machine: many clusters see no other
_WITHOUT_KEY = frozenset({"/", "/health", "/docs", "/openapi.json"})  # they say nothing of what was sent
_REASONS = {
    400: "The body is no JSON.",
    401: "The API key is missing or wrong.",
    408: "The body did not come in time.",
    413: "The body is too large.",
    422: "The body has another form or exceeds a limit, or with `--on-failure error` no try gives a sample a reward.",
    503: "The queue is full, the model has never been ready, or with `--on-failure error` a sample has no reward; "
    "Retry-After says when to ask again.",
}
_RESPONSES: dict[int | str, dict[str, Any]] = {
    code: {"model": Problem, "description": text} for code, text in _REASONS.items()
}
_Scope = MutableMapping[str, Any]
_Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
_Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]


@dataclass(frozen=True)
class ServingConfig:
    """How the routes behave.

    Attributes:
        api_key: ASCII; asked of every caller (`Authorization: Bearer KEY`, or `http://any:KEY@host` in a URL), before
            the body is read, but not for `/health` and the documentation; None: no key.
        fallback: reward of a sample that should have one and has not. Default: that of invalid code. None: answer 503,
            or 422 where another try would fail as well.
        extra_logs: send `extra_logs` to OpenRLHF; 0.8.5 to 0.9.0 crash on them.
        log_bodies: write bodies to the log.
        max_body: bytes of a body; see `BODIES_BYTES` for all at a time.
        receive_seconds: within which a body, and a connection's first request, must have come.

    Raises:
        ConfigError: an empty key or one that a header cannot hold, a fallback that is no finite number.
    """

    api_key: str | None = None
    fallback: float | None = 0.0
    extra_logs: bool = False
    log_bodies: bool = False
    max_body: int = MAX_BODY
    receive_seconds: float = 60.0

    def __post_init__(self) -> None:
        if self.api_key is not None and not (self.api_key.isascii() and self.api_key.strip() == self.api_key != ""):
            raise ConfigError(
                "api_key must be ASCII text without spaces around it, and not empty: give another, or none"
            )
        if self.fallback is not None and not math.isfinite(self.fallback):
            raise ConfigError(f"fallback is {self.fallback}: expected a finite number")


def create_app(
    backend: Backend,
    config: CodeScalerConfig,
    serving: ServingConfig | None = None,
    *,
    fatal: Callable[[ConfigError], None] | None = None,
) -> FastAPI:
    """The application over a backend, which lives as long as it.

    Args:
        backend: judges.
        config: names the model and the shape of the rewards.
        serving: limits, key and what a failure is worth.
        fatal: called if the model cannot be had at all.

    Raises:
        ConfigError: see `CodeScalerConfig.check_host`.
    """
    settings = serving or ServingConfig()
    config.check_host("server")

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        await backend.start(fatal or (lambda error: logger.error("%s", error)))
        yield
        await backend.stop()

    app = FastAPIOffline(
        static_url=_STATIC.rstrip("/"),
        title="codescaler",
        version=__version__,
        summary="An execution-free reward for code.",
        redoc_url=None,
        lifespan=lifespan,
        responses=_RESPONSES,
    )
    app.add_middleware(_Door, settings=settings, metrics=backend.metrics)
    app.add_exception_handler(RequestValidationError, _unprocessable)
    app.add_exception_handler(DataError, _unreadable)
    desk = _Desk(backend, settings)
    numbers = count()

    @app.post("/get_reward", response_model_exclude_none=True)
    async def get_reward(body: GetReward, request: Request) -> Rewards:
        """OpenRLHF 0.4 to 0.11.2."""
        prompts = body.prompts or [""] * len(body.query)
        labels = body.labels or [None] * len(body.query)
        items = [item_of(*sample) for sample in zip(body.query, prompts, labels, strict=True)]
        rewarded = await desk.rewarded(items, request)
        logs = [judgement.logs() for _, judgement in rewarded] if settings.extra_logs else []
        return Rewards(
            rewards=[reward for reward, _ in rewarded],
            scores=[judgement.probability for _, judgement in rewarded],
            extra_logs={name: [log[name] for log in logs] for name in logs[0]} if logs else None,
        )

    @app.post("/v1/score")
    async def score(body: OneOrMany, request: Request) -> Scores:
        """Raw logits of programs, judgements of completions; nothing is put in the place of what fails."""
        sent = body.items if isinstance(body, ScoreItems) else [body]
        items = [
            Item("completion", user_said(one.problem), assistant_said(one.completion, one.problem))
            if one.code is None and one.completion is not None
            else Item("code", user_said(one.problem), one.code or "")
            for one in sent
        ]
        judgements = await desk.judgements(items, request)
        failures = [judgement.failure for judgement in judgements if judgement.failure is not None]
        if items and len(failures) == len(items) and any(failure.kind.is_transient for failure in failures):
            raise _unavailable(str(failures[0]))
        return Scores(scores=[judgement.score for judgement in judgements], judgements=judgements)

    @app.post("/classify")
    async def classify(body: Classify, request: Request) -> Classified:
        """The route of vLLM, for what expects it, as verl's reward model workers."""
        if body.messages is not None:
            items = [Item("completion", user_said(body.messages), assistant_said(body.messages))]
        else:
            texts = [body.input] if isinstance(body.input, str) else body.input or []
            items = [Item("query", "", text) for text in texts]
        rewarded = await desk.rewarded(items, request)
        values = [judgement.probability if body.use_activation else reward for reward, judgement in rewarded]
        return Classified(
            id=f"classify-{next(numbers)}",
            created=int(time.time()),
            model=config.model,
            data=[ClassifyRow(index=index, probs=[value]) for index, value in enumerate(values)],
        )

    @app.post("/slime")
    async def slime(body: SlimeSample, request: Request) -> float:
        """For slime's `--rm-type remote_rm`: the whole answer is the reward."""
        if isinstance(body.prompt, str):
            item = item_of(body.prompt + body.response, body.prompt, body.label)
        else:
            problem = label_problem(body.label) or user_said(body.prompt)
            if not problem and not any(turn.role in USER for turn in body.prompt):
                raise HTTPException(422, "prompt has no user turn")
            item = Item("completion", problem, assistant_said(body.response, body.prompt))
        [(reward, _)] = await desk.rewarded([item], request)
        return reward

    @app.get("/", include_in_schema=False)
    async def start() -> Response:
        """For whoever opens the address in a browser."""
        return RedirectResponse("/docs")

    @app.get("/health", responses={503: _RESPONSES[503]})
    async def health() -> dict[str, str]:
        """200 once a warm-up was scored."""
        if backend.state:
            raise _unavailable(backend.state)
        return {"status": "ready", "model": config.model}

    @app.get("/metrics", response_class=PlainTextResponse)
    async def metrics() -> Response:
        """For Prometheus."""
        return Response(generate_latest(backend.metrics.registry), media_type=CONTENT_TYPE_LATEST)

    return app


class _Desk:
    """What all routes share: samples to the backend, counts, logs, the fallback."""

    def __init__(self, backend: Backend, settings: ServingConfig) -> None:
        self.backend = backend
        self.settings = settings

    async def judgements(self, items: list[Item], request: Request) -> list[Judgement]:
        """The backend's judgements.

        Raises:
            HTTPException: 503, there is no room, or the model has never been ready.
        """
        if self.settings.log_bodies:
            logger.info("%s: %s", request.url.path, items)
        try:
            judgements = await _while_connected(self.backend.submit(items), request)
        except UnavailableError as error:
            self.backend.metrics.failures.labels(error.cause).inc(len(items))
            raise _unavailable(str(error)) from error
        self.backend.metrics.count(judgements)
        if failures := [judgement.failure for judgement in judgements if judgement.failure is not None]:
            fate = "are answered with an error" if self.settings.fallback is None else "get the fallback reward"
            fate = "get no score" if request.url.path == "/v1/score" else fate
            logger.error("%d of %d samples %s: %s", len(failures), len(items), fate, failures[0])
        return judgements

    async def rewarded(self, items: list[Item], request: Request) -> list[tuple[float, Judgement]]:
        """A reward for each sample, the fallback for failures, with its judgement.

        Raises:
            HTTPException: 503, there is no room; or a sample failed and there is no fallback: 503 if another try may
                succeed, else 422.
        """
        found = []
        for judgement in await self.judgements(items, request):
            if judgement.failure is not None and self.settings.fallback is None:
                if judgement.failure.kind.is_transient:
                    raise _unavailable(str(judgement.failure))
                raise HTTPException(422, str(judgement.failure))
            found.append((judgement.reward_or(self.settings.fallback), judgement))
        return found


async def _while_connected(work: Coroutine[Any, Any, list[Judgement]], request: Request) -> list[Judgement]:
    """The result of `work`, which is cancelled when the caller goes away.

    Raises:
        HTTPException: 499, for nobody but the log.
    """

    async def gone() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass

    working, watching = asyncio.create_task(work), asyncio.create_task(gone())
    try:
        await asyncio.wait({working, watching}, return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise HTTPException(499, "the caller went away")
        return working.result()
    finally:
        watching.cancel()
        if not working.done():
            working.cancel()


def _unavailable(reason: str) -> HTTPException:
    return HTTPException(503, reason, headers={"Retry-After": str(RETRY_AFTER)})


async def _unprocessable(_: Request, error: Exception) -> Response:
    """What is wrong with a body, without the body: it may be long, secret, or no valid Unicode."""
    assert isinstance(error, RequestValidationError)  # noqa: S101 - it is registered for nothing else
    details = [  # function-after[...] of pydantic and [str] of `bodies` name alternatives and are no part of a place
        {"loc": [part for part in one["loc"] if "[" not in str(part)], "msg": one["msg"]}
        for one in error.errors()[:20]
    ]
    broken = any(one["type"] == "json_invalid" for one in error.errors())
    return Response(json.dumps({"detail": details}), 400 if broken else 422, media_type="application/json")


async def _unreadable(_: Request, error: Exception) -> Response:
    return JSONResponse({"detail": str(error)}, 422)


def _given_key(authorization: str) -> str:
    """The key of a bearer token, or the password of basic authentication: hosts put it into the URL."""
    kind, _, value = authorization.partition(" ")
    if kind.lower() == "bearer":
        return value.strip()
    if kind.lower() == "basic":
        with suppress(ValueError):
            return base64.b64decode(value).decode("utf-8", "replace").partition(":")[2]
    return ""


class _Door:
    """Asks for the key; bounds a body's size and time to arrive, and the size of all. Counts and times requests."""

    def __init__(
        self, app: Callable[[_Scope, _Receive, _Send], Awaitable[None]], settings: ServingConfig, metrics: Metrics
    ) -> None:
        self.app = app
        self.settings = settings
        self.metrics = metrics
        self.max_held = max(BODIES_BYTES, 4 * settings.max_body)
        self._held = 0

    async def __call__(self, scope: _Scope, receive: _Receive, send: _Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        read = 0
        is_complete = False
        started = time.perf_counter()
        deadline = asyncio.get_running_loop().time() + self.settings.receive_seconds

        async def bounded() -> MutableMapping[str, Any]:
            nonlocal read, is_complete
            try:
                async with asyncio.timeout_at(None if is_complete else deadline):
                    message = await receive()
            except TimeoutError:
                detail = f"the body did not come within {self.settings.receive_seconds:g} s: {read} bytes came"
                raise HTTPException(408, detail, headers={"Connection": "close"}) from None
            is_complete = not message.get("more_body", False)
            size = len(message.get("body", b""))
            read += size
            self._hold(size)
            if read > self.settings.max_body:
                raise HTTPException(413, f"the body has more than {self.settings.max_body} bytes")
            if self._held > self.max_held:
                raise _unavailable(self._full())
            return message

        async def counted(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                route = getattr(scope.get("route"), "path", "other")
                self.metrics.requests.labels(route, str(message["status"])).inc()
                self.metrics.request_seconds.labels(route).observe(time.perf_counter() - started)
            await send(message)

        refusal = self._refusal(scope["path"], {name.lower(): value for name, value in scope["headers"]})
        if refusal is not None:
            await refusal(scope, receive, counted)
            return
        try:
            await self.app(scope, bounded, counted)
        finally:
            self._hold(-read)

    def _hold(self, size: int) -> None:
        self._held += size
        self.metrics.body_bytes.set(self._held)

    def _full(self) -> str:
        return f"bodies of {self._held} bytes are read or wait already, at most {self.max_held} may: ask again later"

    def _refusal(self, path: str, headers: dict[bytes, bytes]) -> Response | None:
        key = self.settings.api_key
        if key is not None and path not in _WITHOUT_KEY and not path.startswith(_STATIC):
            given = _given_key(headers.get(b"authorization", b"").decode("latin-1"))
            if not hmac.compare_digest(given.encode(), key.encode()):
                detail = "the API key is missing or wrong: send Authorization: Bearer KEY"
                return JSONResponse({"detail": detail}, 401, {"WWW-Authenticate": "Bearer"})
        length = headers.get(b"content-length", b"0")
        if length.isdigit() and int(length) > self.settings.max_body:
            limit = self.settings.max_body
            return JSONResponse({"detail": f"the body has {int(length)} bytes, at most {limit} are read"}, 413)
        if length.isdigit() and self._held + int(length) > self.max_held:
            return JSONResponse({"detail": self._full()}, 503, {"Retry-After": str(RETRY_AFTER)})
        return None
