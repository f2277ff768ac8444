"""JSON over HTTP to one of several equal servers: pooled connections, one retry retry, no wait without end.

The only place that sends a request again. What a caller asks for again itself, such as the samples that a server could
not score in time, it counts against the same `Attempts`.
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
_LONGEST_PAUSE = 30.0  # seconds, whatever `Retry-After` asks for
_SHOWN = 300  # characters of a server's message


@dataclass(frozen=True)
class RetryPolicy:
    """How often, and for how long, a request is sent again that failed in passing (`HttpError.is_transient`).

    It ends after at most `attempts` requests to each server, and within `seconds` and the time in which each server
    answers once.

    Attributes:
        attempts: at each server, the first one included.
        seconds: from the first request, in which another one may begin.
    """

    attempts: int = ATTEMPTS
    seconds: float = PATIENCE


class Attempts:
    """What is left of a policy for one request."""

    def __init__(self, retry: RetryPolicy) -> None:
        self._left = retry.attempts - 1
        self._end = time.monotonic() + retry.seconds
        self._pause = _FIRST_PAUSE

    def again(self, retry_after: float = 0.0) -> bool:
        """Wait until the next attempt may begin; False, at once, if there is none left.

        Args:
            retry_after: seconds that a server asks for; at most half a minute is heeded.
        """
        pause = max(self._pause * random.uniform(0.8, 1.2), min(retry_after, _LONGEST_PAUSE))
        if self._left <= 0 or time.monotonic() + pause > self._end:
            return False
        time.sleep(pause)
        self._left -= 1
        self._pause = min(2 * self._pause, _LONGEST_PAUSE)
        return True


class HttpClient:
    """A thread-safe client.

    Args:
        urls: base URLs, `http://host:port` or https, divided by commas.
        read_seconds: longest wait for an answer.
        retry: of requests that fail in passing.
        api_key: sent as a bearer token; None: none.

    Raises:
        ConfigError: a URL without scheme or host.

    Example:
        >>> HttpClient("http://a:8000, http://b:8000/").urls
        ['http://a:8000', 'http://b:8000']
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
        """The JSON at a path of one server; see `post`."""
        return self._answer("GET", path, None, [url], Attempts(self.retry), lambda answer: answer)

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
        """The JSON that answers a JSON body.

        Asks the server at index `affinity` (modulo their number) first, so that a caller can keep what belongs
        together together, and the others in turn if that one cannot be reached or does not answer well. Asks all again
        as the policy says; a server whose answer would be the same again is left out then.

        Args:
            path: behind each server's base URL.
            body: anything that JSON can hold.
            affinity: which server is the first.
            urls: of the servers to ask; None: all.
            attempts: those that are left of a request of which this is a part; None: the policy's.
            read: makes what is returned of the JSON; it may raise an `HttpError`, as for an answer that broke off.

        Raises:
            HttpError: a server refuses the body (`is_refusal`; the others are not asked), or none gave a good answer;
                it names each and what it said.
        """
        order = urls or self.urls
        first = affinity % len(order)
        return self._answer("POST", path, body, order[first:] + order[:first], attempts or Attempts(self.retry), read)

    def _answer(
        self, method: str, path: str, body: Any, urls: list[str], attempts: Attempts, read: Callable[[Any], Any]
    ) -> Any:
        errors: dict[str, HttpError] = {}
        while True:
            for url in [url for url in urls if url not in errors or errors[url].is_transient]:
                try:
                    return read(self._asked(method, url + path, body))
                except HttpError as error:
                    if error.is_refusal:
                        raise
                    errors[url] = error
            passing = [error for error in errors.values() if error.is_transient]
            if not passing or not attempts.again(min(error.retry_after for error in passing)):
                break
        last = passing[0] if passing else next(iter(errors.values()))
        raise HttpError("; ".join(map(str, errors.values())), last.status) from last

    def _asked(self, method: str, url: str, body: Any) -> Any:
        try:
            response = self._http.request(method, url, json=body) if body else self._http.request(method, url)
        except HTTPError as error:
            reason = str(getattr(error, "reason", None) or error)
            raise HttpError(f"{url} cannot be reached: {reason}; is the server up, and the address right?") from error
        except ValueError as error:  # half a surrogate pair in a text, a key that no header can hold
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
                None if text.startswith(("{", "[")) else 200,  # it broke off
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
    """What a server says of its error, in vLLM's form, FastAPI's form, or as it stands; on one line."""
    try:
        body = json.loads(text)
    except (ValueError, RecursionError):
        return one_line(text, _SHOWN)
    if isinstance(body, dict):
        error = body.get("error", body.get("detail", body.get("message", body)))
        body = error.get("message", error) if isinstance(error, dict) else error
    return one_line(str(body), _SHOWN)
