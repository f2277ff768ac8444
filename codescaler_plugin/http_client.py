"""JSON over HTTP to one of several equal servers: pooled connections, retries with back-off, no wait without end."""

import json
from typing import Any

import urllib3
from urllib3.exceptions import HTTPError, LocationValueError

from codescaler_plugin.errors import ConfigError, RefusedError, ScorerError
from codescaler_plugin.text.safety import one_line

CONNECT_SECONDS = 5.0
READ_SECONDS = 120.0
RETRIES = 3
_BACK_OFF = 0.25  # seconds before the second retry; doubles
_LONGEST_WAIT = 30.0  # seconds, whatever `Retry-After` asks for
_RETRIED = frozenset({408, 429, 500, 502, 503, 504})
_SHOWN = 300  # characters of a server's message


class _Retry(urllib3.Retry):
    def get_retry_after(self, response: urllib3.BaseHTTPResponse) -> float | None:
        seconds = super().get_retry_after(response)
        return None if seconds is None else min(seconds, _LONGEST_WAIT)


class HttpClient:
    """A thread-safe client.

    Args:
        urls: base URLs, `http://host:port` or https, divided by commas.
        read_seconds: longest wait for an answer.
        retries: further attempts at one server after an answer that may pass (408, 429, 5xx; `Retry-After` is heeded,
            up to half a minute)
            or a broken connection.
        headers: sent with each request.
        api_key: sent as a bearer token; None: none.

    Raises:
        ConfigError: a URL without scheme or host.
    """

    def __init__(
        self,
        urls: str,
        *,
        read_seconds: float = READ_SECONDS,
        retries: int = RETRIES,
        headers: dict[str, str] | None = None,
        api_key: str | None = None,
    ) -> None:
        self.urls = [url.strip().rstrip("/") for url in urls.split(",") if url.strip()]
        for url in self.urls:
            if not url.startswith(("http://", "https://")) or not _host(url):
                raise ConfigError(f"{url!r} is no server's address: expected http://host:port")
        if not self.urls:
            raise ConfigError("no server's address: expected http://host:port, several divided by commas")
        self._http = urllib3.PoolManager(
            maxsize=32,
            headers=(headers or {}) | ({} if api_key is None else {"Authorization": f"Bearer {api_key}"}),
            timeout=urllib3.Timeout(connect=CONNECT_SECONDS, read=read_seconds),
            retries=_Retry(
                total=retries,
                backoff_factor=_BACK_OFF,
                backoff_jitter=_BACK_OFF,
                status_forcelist=_RETRIED,
                allowed_methods=None,  # scoring twice does no harm, so a POST may be repeated
                raise_on_status=False,
            ),
        )

    def get(self, path: str, url: str) -> Any:
        """The JSON at a path of one server; see `post` for what is raised."""
        return self._request("GET", url + path, None)

    def post(self, path: str, body: Any, *, affinity: int = 0) -> Any:
        """The JSON that answers a JSON body.

        Asks the server at place `affinity` (modulo their number) first, so that a caller can keep what belongs
        together together, and the others in turn if that one cannot be reached or does not answer well.

        Raises:
            RefusedError: a server will not take this body; others are not asked.
            ScorerError: no server gave a good answer; it names each and what it said.
        """
        first = affinity % len(self.urls)
        failures = []
        for url in self.urls[first:] + self.urls[:first]:
            try:
                return self._request("POST", url + path, body)
            except RefusedError:
                raise
            except ScorerError as error:
                failures.append(str(error))
        raise ScorerError("; ".join(failures))

    def _request(self, method: str, url: str, body: Any) -> Any:
        try:
            response = self._http.request(method, url, json=body) if body else self._http.request(method, url)
        except HTTPError as error:
            reason = str(getattr(error, "reason", None) or error)
            raise ScorerError(
                f"{url} cannot be reached: {reason}; is the server up, and the address right?"
            ) from error
        text = response.data.decode("utf-8", "replace")
        if response.status != 200:
            kind = RefusedError if response.status in (400, 413, 422) else ScorerError
            hint = "; give the server's key as api_key" if response.status in (401, 403) else ""
            hint = "; its log says why" if response.status >= 500 else hint
            raise kind(f"{url} answered {response.status}: {_message(text)}{hint}")
        try:
            return json.loads(text)
        except (ValueError, RecursionError):
            raise ScorerError(
                f"{url} answered what is no JSON: {text[:_SHOWN]!r}; is the address that of the right server?"
            ) from None


def _host(url: str) -> str | None:
    try:
        return urllib3.util.parse_url(url).host
    except LocationValueError:  # a port above 65535, a space
        return None


def _message(text: str) -> str:
    """What a server says of its error, in vLLM's form, FastAPI's form, or as it stands; on one line."""
    try:
        body = json.loads(text)
    except (ValueError, RecursionError):
        return one_line(text, _SHOWN)
    if isinstance(body, dict):
        error = body.get("error", body.get("detail", body.get("message", body)))
        body = error.get("message", error) if isinstance(error, dict) else error
    return one_line(str(body), _SHOWN)
