"""The application: the routes of every protocol, health, metrics and documentation."""

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse, PlainTextResponse
from fastapi_offline import FastAPIOffline
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from pydantic import BaseModel

from codescaler_plugin import __version__
from codescaler_plugin.config import CodeScalerConfig
from codescaler_plugin.errors import ConfigError, DataError
from codescaler_plugin.serving.backend import Backend
from codescaler_plugin.serving.config import ServingConfig
from codescaler_plugin.serving.handler import Handler, unavailable
from codescaler_plugin.serving.middleware import STATIC, LimitsMiddleware
from codescaler_plugin.serving.page import RecentSamples
from codescaler_plugin.serving.protocols import PROTOCOLS

logger = logging.getLogger(__name__)


class ErrorBody(BaseModel):
    """The body of every answer but 200."""

    detail: Any


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
    code: {"model": ErrorBody, "description": text} for code, text in _REASONS.items()
}
_PAGE_HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
}


def create_app(
    backend: Backend,
    config: CodeScalerConfig,
    serving: ServingConfig | None = None,
    *,
    fatal: Callable[[ConfigError], None] | None = None,
) -> FastAPI:
    """Build the application. It starts and stops the backend with its own lifespan.

    Args:
        backend: judges samples.
        config: settings of the pipeline. They name the model and the shape of the reward.
        serving: key, limits, fallback reward, and the samples of the page at `/`. The default is `ServingConfig()`.
        fatal: called if the model cannot be loaded at all. The default logs the error.

    Raises:
        ConfigError: a setting that has no effect on a server, see `CodeScalerConfig.check_host`.

    Example:
        >>> from codescaler_plugin import CodeScalerConfig
        >>> from codescaler_plugin.serving.backend import LocalBackend
        >>> config = CodeScalerConfig(model="builtin")
        >>> app = create_app(LocalBackend(config), config)  # for uvicorn, or any other ASGI server
        >>> sorted(app.openapi()["paths"])
        ['/classify', '/get_reward', '/health', '/metrics', '/slime', '/v1/score']
    """
    settings = serving or ServingConfig()
    config.check_host("server")

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        await backend.start(fatal or (lambda error: logger.error("%s", error)))
        yield
        await backend.stop()

    app = FastAPIOffline(
        static_url=STATIC.rstrip("/"),
        title="codescaler",
        version=__version__,
        summary="An execution-free reward for code.",
        redoc_url=None,
        lifespan=lifespan,
        responses=_RESPONSES,
    )
    recent = RecentSamples(settings.recent)
    app.state.handler = Handler(backend, settings, config.model, recent)
    app.add_middleware(LimitsMiddleware, settings=settings, metrics=backend.metrics)
    app.add_exception_handler(RequestValidationError, _unprocessable)
    app.add_exception_handler(DataError, _unreadable)
    for router in PROTOCOLS:
        app.include_router(router)

    @app.get("/", include_in_schema=False)
    async def start() -> Response:
        """A page of the last judged samples. It shows what was sent, so it needs the key, as the other routes do."""
        page = await asyncio.to_thread(recent.page, recent.kept(), config.model, backend.state, backend.metrics)
        return HTMLResponse(page, headers=_PAGE_HEADERS)

    @app.get("/health", responses={503: _RESPONSES[503]})
    async def health() -> dict[str, str]:
        """200 once a warm-up was scored."""
        if backend.state:
            raise unavailable(backend.state)
        return {"status": "ready", "model": config.model}

    @app.get("/metrics", response_class=PlainTextResponse)
    async def metrics() -> Response:
        """For Prometheus."""
        return Response(generate_latest(backend.metrics.registry), media_type=CONTENT_TYPE_LATEST)

    return app


async def _unprocessable(_: Request, error: Exception) -> Response:
    """Answer with the faults of a body, without the body: it may be long, secret, or no valid Unicode."""
    assert isinstance(error, RequestValidationError)  # noqa: S101 - it is registered for nothing else
    faults = error.errors()
    # function-after[...] of pydantic and [str] of `protocols.fields` name alternatives, which no caller wrote.
    details = [
        {"loc": [part for part in fault["loc"] if "[" not in str(part)], "msg": fault["msg"]} for fault in faults[:20]
    ]
    is_json = all(fault["type"] != "json_invalid" for fault in faults)
    return Response(json.dumps({"detail": details}), 422 if is_json else 400, media_type="application/json")


async def _unreadable(_: Request, error: Exception) -> Response:
    return JSONResponse({"detail": str(error)}, 422)
