"""A reward model behind another codescaler server (`codescaler serve`, `POST /v1/score`)."""

import logging
import re
from collections.abc import Sequence
from typing import Any

from codescaler_plugin.ahead import grouped_chunks
from codescaler_plugin.errors import ScorerError
from codescaler_plugin.http_client import HttpClient
from codescaler_plugin.scoring.fan_out import fan_out

logger = logging.getLogger(__name__)

_LARGEST = 1e38  # a logit is a float32
_ADDRESS = "expected a codescaler server: http://host:port without a path, started by `codescaler serve`"
_ITEMS = 64  # of a request; groups stay together


class RemoteScorer:
    """Raw logits from codescaler servers with the same model.

    The server renders, shares prefixes and caches. Pickles as its addresses.

    Args:
        urls: `http://host:port`, several divided by commas; a problem's samples go to one of them.
        api_key: sent as a bearer token; None: none.

    Raises:
        ConfigError: a URL without scheme or host.
    """

    def __init__(self, urls: str, *, api_key: str | None = None) -> None:
        self._settings = {"urls": urls, "api_key": api_key}
        self._pool = HttpClient(urls, api_key=api_key)

    def __reduce__(self) -> tuple[Any, ...]:
        return _remade, (self._settings["urls"], self._settings["api_key"])

    def ensure_loaded(self) -> None:
        """Ask for the scores of no program.

        Raises:
            ScorerError: no server gave a good answer; it names each.
        """
        self._asked([], affinity=0)

    def score(self, items: Sequence[tuple[str, str]]) -> list[float | None]:
        """Raw logits of (problem, code) pairs; same length, same order; None where the server has none.

        Raises:
            ScorerError: a server could not be reached, answered something else, or refuses an item; it names the
                server and the item. `scores` holds what was answered.
        """
        unique = list(dict.fromkeys(items))
        chunks = list(grouped_chunks([problem for problem, _ in unique], _ITEMS))

        def send(chunk: list[int]) -> list[float | None]:
            return self._asked([unique[index] for index in chunk], affinity=chunk[0])

        def name(index: int) -> str:
            return f"item {items.index(unique[index])} (problem {unique[index][0][:60]!r})"

        scores, error = fan_out(send, chunks, len(unique), name)
        if error is None and (missing := scores.count(None)):
            urls = ", ".join(self._pool.urls)
            logger.warning("%s: no score for %d of %d programs; the log there says why", urls, missing, len(scores))
        by_item = dict(zip(unique, scores, strict=True))
        in_order = [by_item[item] for item in items]
        if error is not None:
            raise type(error)(str(error), in_order) from error
        return in_order

    def _asked(self, items: Sequence[tuple[str, str]], *, affinity: int) -> list[float | None]:
        body = {"items": [{"problem": problem, "code": code} for problem, code in items]}
        try:
            answer = self._pool.post("/v1/score", body, affinity=affinity)
        except ScorerError as error:
            hint = f"; {_ADDRESS}" if re.search(" answered 40[45]:", str(error)) else ""
            raise type(error)(f"{error}{hint}") from error
        return _scores(answer, len(items), self._pool.urls)


def _remade(urls: str, api_key: str | None) -> RemoteScorer:
    return RemoteScorer(urls, api_key=api_key)


def _scores(answer: Any, count: int, urls: list[str]) -> list[float | None]:
    scores = answer.get("scores") if isinstance(answer, dict) else None
    if not isinstance(scores, list) or len(scores) != count:
        came = f"{len(scores)} scores" if isinstance(scores, list) else f"{str(answer)[:100]!r}"
        raise ScorerError(f"{', '.join(urls)}: expected {count} scores, got {came}; is it a codescaler server?")
    for score in scores:
        if score is not None and not (type(score) in (int, float) and abs(score) < _LARGEST):
            raise ScorerError(f"{', '.join(urls)}: {score!r} is no score")
    return scores
