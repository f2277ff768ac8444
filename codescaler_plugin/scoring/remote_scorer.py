"""A reward model behind another codescaler server (`codescaler serve`, `POST /v1/score`). Its only client."""

import logging
from collections.abc import Sequence
from functools import partial
from typing import Any

from codescaler_plugin.errors import DataError, Failure, FailureKind, HttpError, ScorerError
from codescaler_plugin.http_client import Attempts, HttpClient, RetryPolicy
from codescaler_plugin.records import Judgement
from codescaler_plugin.scoring.fan_out import Outcome, fan_out, scores_of

logger = logging.getLogger(__name__)

_PATH = "/v1/score"
_LARGEST = 1e38  # a logit is a float32
_ADDRESS = "expected a codescaler server: http://host:port without a path, started by `codescaler serve`"
_ITEMS = 64  # of a request; groups stay together


class RemoteScorer:
    """Raw logits from codescaler servers with the same model.

    The server renders, shares prefixes and caches. Pickles as its settings.

    Args:
        urls: `http://host:port`, several divided by commas; a problem's samples go to one of them.
        api_key: sent as a bearer token; None: none.
        retry: of requests, and of samples that a server fails on in passing.

    Raises:
        ConfigError: a URL without scheme or host.

    Example:
        >>> scorer = RemoteScorer("http://rm:9000", api_key="secret")
    """

    def __init__(self, urls: str, *, api_key: str | None = None, retry: RetryPolicy | None = None) -> None:
        self._settings: dict[str, Any] = {"urls": urls, "api_key": api_key, "retry": retry}
        self._client = HttpClient(urls, api_key=api_key, retry=retry)

    def __reduce__(self) -> tuple[Any, ...]:
        return partial(RemoteScorer, **self._settings), ()

    def ensure_loaded(self) -> None:
        """Reach every server, by asking each for the scores of no program.

        Raises:
            ScorerError: one does not answer well; it is named. The cause is an `HttpError`.
        """
        for url in self._client.urls:
            try:
                _outcomes(self._client.post(_PATH, {"items": []}, urls=[url]), 0, url)
            except HttpError as error:
                raise ScorerError(_told(error)) from error

    def score(self, items: Sequence[tuple[str, str]]) -> list[float | None]:
        """Raw logits of (problem, code) pairs; same length, same order; None where the model has none.

        Raises:
            ScorerError: a server could not be reached, answered something else, refuses an item or failed on it; it
                names the server and the item, and holds the scores and the failures of all.
        """
        unique = list(dict.fromkeys(items))

        def send(chunk: list[int]) -> list[Outcome]:
            return self._asked([unique[index] for index in chunk], affinity=chunk[0])

        outcomes = fan_out(send, [problem for problem, _ in unique], _ITEMS)
        if missing := outcomes.count(None):
            urls = ", ".join(self._client.urls)
            logger.warning("%s: no score for %d of %d programs; the log there says why", urls, missing, len(outcomes))
        by_item = dict(zip(unique, outcomes, strict=True))
        return scores_of(items, [by_item[item] for item in items])

    def _asked(self, items: Sequence[tuple[str, str]], *, affinity: int) -> list[Outcome]:
        """Outcomes of one chunk. What a server fails on in passing is asked for again."""
        outcomes: dict[int, Outcome] = {}
        left = list(range(len(items)))
        attempts = Attempts(self._client.retry)
        while True:
            body = {"items": [{"problem": items[index][0], "code": items[index][1]} for index in left]}
            read = partial(_outcomes, count=len(left), urls=", ".join(self._client.urls))
            try:
                found = self._client.post(_PATH, body, read=read, affinity=affinity, attempts=attempts)
            except HttpError as error:
                if not outcomes:
                    raise HttpError(_told(error), error.status) from error
                break
            outcomes.update(zip(left, found, strict=True))
            failed = ((index, outcomes[index]) for index in left)
            left = [index for index, one in failed if isinstance(one, Failure) and one.kind.is_transient]
            if not left or not attempts.again():
                break
        return [outcomes[index] for index in range(len(items))]


def _told(error: HttpError) -> str:
    return f"{error}; {_ADDRESS}" if error.status in (404, 405) else str(error)


def _outcomes(answer: Any, count: int, urls: str) -> list[Outcome]:
    """What a server says of each item.

    Raises:
        HttpError: it is no answer of a codescaler server.
    """
    judgements = answer.get("judgements") if isinstance(answer, dict) else None
    if not isinstance(judgements, list):
        raise HttpError(f"{urls}: expected judgements, got {str(answer)[:100]!r}; is it a codescaler server?", 200)
    if len(judgements) != count:
        raise HttpError(f"{urls}: expected {count} judgements, got {len(judgements)}")
    return [_outcome(judgement, urls) for judgement in judgements]


def _outcome(values: Any, urls: str) -> Outcome:
    try:
        judgement = Judgement.from_json(values)
    except DataError as error:
        raise HttpError(f"{urls}: {error}; is it a codescaler server of this release?", 200) from error
    if judgement.failure is not None:
        return None if judgement.failure.kind is FailureKind.NO_SCORE else judgement.failure
    if judgement.score is None or not abs(judgement.score) < _LARGEST:
        return Failure(FailureKind.NO_SCORE, f"{urls}: {judgement.score!r} is no score")
    return judgement.score
