"""A reward model behind another codescaler server (`codescaler serve`, `POST /v1/score`)."""

import logging
from collections.abc import Sequence
from functools import partial
from typing import Any

from codescaler_plugin.errors import DataError, Failure, FailureKind, HttpError, ScorerError
from codescaler_plugin.http_client import Attempts, HttpClient, RetryPolicy
from codescaler_plugin.records import Judgement
from codescaler_plugin.scoring.fan_out import ScoreResult, fan_out, scores_of

logger = logging.getLogger(__name__)

_PATH = "/v1/score"
_LARGEST = 1e38  # a logit is a float32
_ADDRESS = "expected a codescaler server: http://host:port without a path, started by `codescaler serve`"
_ITEMS = 64  # least items of a request; groups stay together


class RemoteScorer:
    """Raw logits from codescaler servers with the same model, which render, share prefixes and cache.

    All programs for a problem go to one server. Items with a transient failure are sent again. The object pickles as
    its settings, which are those of `HttpClient`.
    """

    def __init__(self, urls: str, *, api_key: str | None = None, retry: RetryPolicy | None = None) -> None:
        self._settings: dict[str, Any] = {"urls": urls, "api_key": api_key, "retry": retry}
        self._client = HttpClient(urls, api_key=api_key, retry=retry)

    def __reduce__(self) -> tuple[Any, ...]:
        return partial(RemoteScorer, **self._settings), ()

    def ensure_loaded(self) -> None:
        """Raise a `ScorerError` unless every server answers a request without items; its cause is an `HttpError`."""
        for url in self._client.urls:
            try:
                _results(self._client.post(_PATH, {"items": []}, urls=[url]), 0, url)
            except HttpError as error:
                raise ScorerError(_with_advice(error)) from error

    def score(self, items: Sequence[tuple[str, str]]) -> list[float | None]:
        """Return the raw logits of (problem, code) pairs, in order; None where the model has none.

        Raises:
            ScorerError: a server is unreachable, sends another form of response, refuses an item or fails on it. The
                message names server and item; the error holds all scores and failures.
        """
        unique = list(dict.fromkeys(items))

        def send(chunk: list[int]) -> list[ScoreResult]:
            return self._request([unique[index] for index in chunk], affinity=chunk[0])

        results = fan_out(send, [problem for problem, _ in unique], _ITEMS)
        if missing := results.count(None):
            urls = ", ".join(self._client.urls)
            logger.warning("%s: no score for %d of %d programs; the log there says why", urls, missing, len(results))
        by_item = dict(zip(unique, results, strict=True))
        return scores_of(items, [by_item[item] for item in items])

    def _request(self, items: Sequence[tuple[str, str]], *, affinity: int) -> list[ScoreResult]:
        results: dict[int, ScoreResult] = {}
        left = list(range(len(items)))
        attempts = Attempts(self._client.retry)
        while True:
            body = {"items": [{"problem": items[index][0], "code": items[index][1]} for index in left]}
            read = partial(_results, count=len(left), urls=", ".join(self._client.urls))
            try:
                received = self._client.post(_PATH, body, read=read, affinity=affinity, attempts=attempts)
            except HttpError as error:
                if not results:
                    raise HttpError(_with_advice(error), error.status) from error
                break
            results.update(zip(left, received, strict=True))
            tried = [(index, results[index]) for index in left]
            left = [index for index, result in tried if isinstance(result, Failure) and result.kind.is_transient]
            if not left or not attempts.again():
                break
        return [results[index] for index in range(len(items))]


def _with_advice(error: HttpError) -> str:
    return f"{error}; {_ADDRESS}" if error.status in (404, 405) else str(error)


def _results(body: Any, count: int, urls: str) -> list[ScoreResult]:
    judgements = body.get("judgements") if isinstance(body, dict) else None
    if not isinstance(judgements, list):
        raise HttpError(f"{urls}: expected judgements, got {str(body)[:100]!r}; is it a codescaler server?", 200)
    if len(judgements) != count:
        raise HttpError(f"{urls}: expected {count} judgements, got {len(judgements)}")
    return [_result(judgement, urls) for judgement in judgements]


def _result(values: Any, urls: str) -> ScoreResult:
    try:
        judgement = Judgement.from_json(values)
    except DataError as error:
        raise HttpError(f"{urls}: {error}; is it a codescaler server of this release?", 200) from error
    if judgement.failure is not None:
        return None if judgement.failure.kind is FailureKind.NO_SCORE else judgement.failure
    if judgement.score is None or not abs(judgement.score) < _LARGEST:
        return Failure(FailureKind.NO_SCORE, f"{urls}: {judgement.score!r} is no score")
    return judgement.score
