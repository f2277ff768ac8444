"""JSON over HTTP to one of several equal servers, with pooled connections, one retry policy and bounded waits.

Nothing else in the package retries a request. A caller that repeats part of a request itself, such as the items that a
server could not score in time, counts that against the same `Attempts`.
"""

import json
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import urllib3
from urllib3.exceptions import HTTPError, LocationValueError

from codescaler_plugin.errors import ConfigError, HttpError
from codescaler_plugin.safety import one_line

CONNECT_SECONDS = 5.0
READ_SECONDS = 120.0
ATTEMPTS = 8
PATIENCE = 60.0
_FIRST_PAUSE = 0.25  # seconds; doubles
_LONGEST_PAUSE = 30.0  # seconds, also for `Retry-After`
_SHOWN = 300  # characters of a server's message in an error


@dataclass(frozen=True)
class RetryPolicy:
    """The limits of retries after transient failures (`HttpError.is_transient`).

    A request ends after `attempts` tries at each server, or after `seconds` plus the time of one response from each.
    """

    attempts: int = ATTEMPTS  # at each server, the first included
    seconds: float = PATIENCE  # from the first try, in which another may begin


class Attempts:
    """The tries and the time that a policy still allows one request."""

    def __init__(self, retry: RetryPolicy) -> None:
        self._left = retry.attempts - 1
        self._end = time.monotonic() + retry.seconds
        self._pause = _FIRST_PAUSE

    def again(self, retry_after: float = 0.0) -> bool:
        """Wait for the next try, at least `retry_after` seconds, and return True; False at once if none is left."""
        pause = max(self._pause * random.uniform(0.8, 1.2), min(retry_after, _LONGEST_PAUSE))
        if self._left <= 0 or time.monotonic() + pause > self._end:
            return False
        time.sleep(pause)
        self._left -= 1
        self._pause = min(2 * self._pause, _LONGEST_PAUSE)
        return True


class HttpClient:
    """A thread-safe client of one or more equal servers.

    `urls` are base URLs `http://host:port` (or https), separated by commas. A response may take `read_seconds`. The
    `api_key` is sent as a bearer token.

    Raises:
        ConfigError: a URL has no scheme or host.
    """

    def __init__(
        self,
        urls: str,
        *,
        read_seconds: float = READ_SECONDS,
        retry: RetryPolicy | None = None,
        api_key: str | None = None,
    ) -> None:
        self.urls = [url.strip().rstrip("/") for url in urls.split(",") if url.strip()]
        for url in self.urls:
            if not url.startswith(("http://", "https://")) or not _host(url) or set("?#") & set(url):
                raise ConfigError(f"{url!r} is no server's address: expected http://host:port")
        if not self.urls:
            raise ConfigError("no server's address: expected http://host:port, several divided by commas")
        self.retry = retry or RetryPolicy()
        self._http = urllib3.PoolManager(
            maxsize=32,
            headers={} if api_key is None else {"Authorization": f"Bearer {api_key}"},
            timeout=urllib3.Timeout(connect=CONNECT_SECONDS, read=read_seconds),
            retries=urllib3.Retry(None, connect=0, read=0, redirect=2, status=0, other=0),
        )

    def get(self, path: str, url: str) -> Any:
        """Return the JSON at a path of one server; see `post`."""
        return self._request("GET", path, None, [url], Attempts(self.retry), lambda answer: answer)

    def post(
        self,
        path: str,
        body: Any,
        *,
        affinity: int = 0,
        urls: list[str] | None = None,
        attempts: Attempts | None = None,
        read: Callable[[Any], Any] = lambda answer: answer,
    ) -> Any:
        """Post a JSON body and return the JSON of the response.

        Tries the server at index `affinity` (modulo their number) first, then the others in turn. Repeats the round as
        the retry policy allows, without servers whose failure is not transient.

        Requests with one `affinity` share a server, and so its caches. `attempts` are the tries left for a larger
        request that this is a part of. `read` converts the JSON, and may raise an `HttpError` for it.

        Raises:
            HttpError: a server refuses the body (`is_refusal`; the others are not tried), or no server succeeds. The
                message names each server and its failure.
        """
        order = urls or self.urls
        first = affinity % len(order)
        return self._request("POST", path, body, order[first:] + order[:first], attempts or Attempts(self.retry), read)

    def _request(
        self, method: str, path: str, body: Any, urls: list[str], attempts: Attempts, read: Callable[[Any], Any]
    ) -> Any:
        errors: dict[str, HttpError] = {}
        while True:
            for url in [url for url in urls if url not in errors or errors[url].is_transient]:
                try:
                    return read(self._send(method, url + path, body))
                except HttpError as error:
                    if error.is_refusal:
                        raise
                    errors[url] = error
            transient = [error for error in errors.values() if error.is_transient]
            if not transient or not attempts.again(min(error.retry_after for error in transient)):
                break
        last = transient[0] if transient else next(iter(errors.values()))
        raise HttpError("; ".join(map(str, errors.values())), last.status) from last

    def _send(self, method: str, url: str, body: Any) -> Any:
        try:
            response = self._http.request(method, url, json=body) if body else self._http.request(method, url)
        except HTTPError as error:
            reason = str(getattr(error, "reason", None) or error)
            raise HttpError(f"{url} cannot be reached: {reason}; is the server up, and the address right?") from error
        except ValueError as error:  # half a surrogate pair in a text, or a key that no header can hold
            raise HttpError(f"{url}: the request cannot be sent: {error}", 400) from error
        text = response.data.decode("utf-8", "replace")
        if response.status != 200:
            after = response.headers.get("Retry-After", "")
            raise HttpError(
                f"{url} answered {response.status}: {_message(text)}{_hint(response.status)}",
                response.status,
                float(after) if after.isascii() and after.isdigit() else 0.0,  # no server here sends a date
            )
        try:
            return json.loads(text)
        except (ValueError, RecursionError):
            raise HttpError(
                f"{url} answered what is no JSON: {text[:_SHOWN]!r}; is the address that of the right server?",
                None if text.startswith(("{", "[")) else 200,  # an incomplete response is transient
            ) from None


def _host(url: str) -> str | None:
    try:
        return urllib3.util.parse_url(url).host
    except LocationValueError:  # a port above 65535, a space
        return None


def _hint(status: int) -> str:
    if status in (401, 403):
        return "; it wants a key: give the server's key as api_key (CODESCALER_API_KEY)"
    return "; its log says why" if status >= 500 else ""


def _message(text: str) -> str:
    """The message of an error response on one line: in the form of vLLM or FastAPI, else the whole text."""
    try:
        body = json.loads(text)
    except (ValueError, RecursionError):
        return one_line(text, _SHOWN)
    if isinstance(body, dict):
        error = body.get("error", body.get("detail", body.get("message", body)))
        body = error.get("message", error) if isinstance(error, dict) else error
    return one_line(str(body), _SHOWN)
