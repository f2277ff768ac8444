"""The checks that every request passes before its route: the API key, and the limits of bodies."""

import asyncio
import base64
import hmac
import time
from collections.abc import Awaitable, Callable, MutableMapping
from contextlib import suppress
from typing import Any

from fastapi import HTTPException, Response
from fastapi.responses import JSONResponse

from codescaler_plugin.serving.config import ServingConfig
from codescaler_plugin.serving.handler import RETRY_AFTER, unavailable
from codescaler_plugin.serving.metrics import Metrics

MAX_HELD = 256 << 20  # bytes of all bodies from arrival to answer; four times `max_body` if that is more
STATIC = "/static-offline-docs/"  # script and style of /docs come from this machine: many clusters see no other
_WITHOUT_KEY = frozenset({"/health", "/docs", "/openapi.json"})  # nothing there tells what was sent
_Scope = MutableMapping[str, Any]
_Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
_Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]


class LimitsMiddleware:
    """Checks the key, bounds a body's size and time to arrive and the size of all bodies, and counts requests."""

    def __init__(
        self, app: Callable[[_Scope, _Receive, _Send], Awaitable[None]], settings: ServingConfig, metrics: Metrics
    ) -> None:
        self.app = app
        self.settings = settings
        self.metrics = metrics
        self.max_held = max(MAX_HELD, 4 * settings.max_body)
        self._held = 0

    async def __call__(self, scope: _Scope, receive: _Receive, send: _Send) -> None:
        """Handle one ASGI request."""
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
                raise unavailable(self._full())
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
        if key is not None and path not in _WITHOUT_KEY and not path.startswith(STATIC):
            sent = _key(headers.get(b"authorization", b"").decode("latin-1"))
            if not hmac.compare_digest(sent.encode(), key.encode()):
                detail = "the API key is missing or wrong: send Authorization: Bearer KEY"
                scheme = 'Basic realm="codescaler"' if path == "/" else "Bearer"  # with Basic, a browser asks for it
                return JSONResponse({"detail": detail}, 401, {"WWW-Authenticate": scheme})
        length = headers.get(b"content-length", b"0")
        if length.isdigit() and int(length) > self.settings.max_body:
            limit = self.settings.max_body
            return JSONResponse({"detail": f"the body has {int(length)} bytes, at most {limit} are read"}, 413)
        if length.isdigit() and self._held + int(length) > self.max_held:
            return JSONResponse({"detail": self._full()}, 503, RETRY_AFTER)
        return None


def _key(authorization: str) -> str:
    """The key of a bearer token, or the password of basic authentication, since hosts put it into the URL."""
    kind, _, value = authorization.partition(" ")
    if kind.lower() == "bearer":
        return value.strip()
    if kind.lower() == "basic":
        with suppress(ValueError):
            return base64.b64decode(value).decode("utf-8", "replace").partition(":")[2]
    return ""
