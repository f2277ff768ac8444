"""A reward model behind vLLM (`vllm serve MODEL --runner pooling`), reached through `POST /classify`.

The client renders, tokenises and sends token ids, so that neither the server's chat template nor its special tokens
can change the input. Programs for one problem go out together, for hits in the server's prefix cache. Requests have
`use_activation: false` for raw logits; the first call detects a server that applies its activation anyway.
"""

import logging
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass
from threading import Lock
from typing import Any

from codescaler_plugin.errors import ConfigError, Failure, FailureKind, HttpError, ScorerError
from codescaler_plugin.http_client import HttpClient, RetryPolicy
from codescaler_plugin.pretrained import pretrained
from codescaler_plugin.scoring.cache import CACHE_SIZE, ScoreCache, content_key
from codescaler_plugin.scoring.fan_out import ScoreResult, fan_out, scores_of
from codescaler_plugin.scoring.rendering import Renderer, Unscorable

logger = logging.getLogger(__name__)

_ITEMS = 32  # least items of a request; groups stay together
_START = "start it with: vllm serve MODEL --runner pooling"


@dataclass(eq=False, repr=False)  # a repr would show the key
class VllmScorer:
    """Raw logits from vLLM servers with the same model. Connects on the first call, and pickles as its settings.

    Raises:
        ConfigError: a URL has no scheme or host. On first use, if the tokenizer is not available.
    """

    urls: str  # separated by commas; all programs for a problem go to one server
    _: KW_ONLY
    model: str | None = None  # the id that every server must serve; None: the one model that all serve
    tokenizer: str | None = None  # directory or hub id; None: where the server has loaded the model from
    max_length: int | None = None  # tokens of the longest rendered sequence; None: the server's limit
    cache_size: int = CACHE_SIZE  # scores remembered across calls; 0 for none
    api_key: str | None = None
    retry: RetryPolicy | None = None

    def __post_init__(self) -> None:
        self._client = HttpClient(self.urls, api_key=self.api_key, retry=self.retry)
        self._cache = ScoreCache(self.cache_size)
        self._ready: tuple[str, Renderer] | None = None
        self._lock = Lock()

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if not name.startswith("_")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        VllmScorer.__init__(self, **state)

    def ensure_loaded(self) -> None:
        """Check every server and load the tokenizer, unless that is done. The errors are those of `score`."""
        self._model_and_renderer()

    def score(self, items: Sequence[tuple[str, str]]) -> list[float | None]:
        """Return the raw logits of (problem, code) pairs, in order; None for `Unscorable` programs, with a warning.

        Raises:
            ConfigError: see the class.
            ScorerError: a server is down or slow, serves another model, sends another form of response, or refuses an
                item. The message names the server and the next step; the error holds all scores and failures.
        """
        if not items:
            return []
        try:
            model, renderer = self._model_and_renderer()
        except ScorerError as error:  # the same for every item
            cause = error.__cause__
            failure = cause.failure if isinstance(cause, HttpError) else Failure(FailureKind.CONFIG, str(error))
            raise ScorerError(str(error), failures=dict.fromkeys(range(len(items)), failure)) from error
        unique = list(dict.fromkeys(items))
        rows = renderer.encode(unique)
        for reason, count in Counter(row for row in rows if isinstance(row, Unscorable)).items():
            logger.warning("%d of %d programs get no score: %s", count, len(rows), reason.value)
        results: dict[tuple[str, str], ScoreResult] = dict.fromkeys(unique)
        unknown: list[tuple[tuple[str, str], list[int], bytes]] = []
        for item, row in zip(unique, rows, strict=True):
            if isinstance(row, Unscorable):
                continue
            key = content_key(model.encode(), row)
            with self._lock:
                results[item] = self._cache.get(key)
            if results[item] is None:
                unknown.append((item, row, key))

        def send(chunk: list[int]) -> list[ScoreResult]:
            return self._logits(model, [unknown[index][1] for index in chunk], affinity=chunk[0])

        received = fan_out(send, [problem for (problem, _), _, _ in unknown], _ITEMS)
        with self._lock:
            self._cache.put(
                {key: logit for (_, _, key), logit in zip(unknown, received, strict=True) if isinstance(logit, float)}
            )
        results.update({item: result for (item, _, _), result in zip(unknown, received, strict=True)})
        return scores_of(items, [results[item] for item in items])

    def _model_and_renderer(self) -> tuple[str, Renderer]:
        with self._lock:
            if self._ready is None:
                try:
                    self._ready = self._connected()
                except HttpError as error:
                    raise ScorerError(str(error)) from error
            return self._ready

    def _connected(self) -> tuple[str, Renderer]:
        served = [self._served(url) for url in self._client.urls]
        names = sorted({str(card.get("id")) for card in served})
        if len(names) > 1:
            raise ScorerError(f"{self.urls} serve different models: {', '.join(names)}; expected one and the same")
        card = served[0]
        limits = [limit for limit in (self.max_length, card.get("max_model_len")) if isinstance(limit, int)]
        renderer = Renderer(_tokenizer(self.tokenizer or str(card.get("root")), self.urls), min(limits, default=None))
        self._probe(names[0], renderer)
        return names[0], renderer

    def _served(self, url: str) -> dict[str, Any]:
        body = self._client.get("/v1/models", url)
        cards = body.get("data") if isinstance(body, dict) else None
        if not isinstance(cards, list) or not all(isinstance(card, dict) for card in cards):
            raise ScorerError(f"{url}/v1/models is not vLLM's: {str(body)[:100]!r}")
        fitting = [card for card in cards if self.model in (None, card.get("id"))]
        if not fitting:
            raise ScorerError(
                f"{url} serves {', '.join(str(card.get('id')) for card in cards)}, not {self.model!r}: start it with "
                "that model, or give the id that it serves"
            )
        return dict(fitting[0])

    def _probe(self, model: str, renderer: Renderer) -> None:
        """Check that every server heeds `use_activation`: one program must score differently with and without it."""
        (row,) = renderer.encode([("Return n.", "def solve(n):\n    return n\n")])
        if isinstance(row, Unscorable):
            raise ScorerError(f"{self.urls} with {renderer.limit} tokens has no room for the shortest program")
        for index, url in enumerate(self._client.urls):
            (raw,), (activated,) = (
                self._logits(model, [row], affinity=index, activation=activation) for activation in (False, True)
            )
            if raw == activated:
                raise ScorerError(
                    f"{url} gives {raw} with and without its activation: raw logits cannot be had from it. Use vLLM "
                    "0.11 or newer, and start it without a pooler configuration that sets an activation"
                )

    def _logits(
        self, model: str, rows: list[list[int]], *, affinity: int, activation: bool = False
    ) -> list[ScoreResult]:
        request = {"model": model, "input": rows, "use_activation": activation}
        try:
            body = self._client.post("/classify", request, affinity=affinity)
        except HttpError as error:
            if error.status == 404:
                raise HttpError(f"{error}; {_START}", error.status) from error
            raise
        urls = ", ".join(self._client.urls)
        data = body.get("data") if isinstance(body, dict) else None
        if not isinstance(data, list) or len(data) != len(rows):
            came = f"{len(data)} rows" if isinstance(data, list) else repr(str(body)[:100])
            raise HttpError(f"{urls}: expected {len(rows)} rows from /classify, got {came}; {_START}", 200)
        logits: list[ScoreResult] = [None] * len(rows)
        for row in data:
            fields: dict[str, Any] = row if isinstance(row, dict) else {}
            probs, index = fields.get("probs"), fields.get("index", -1)
            if not isinstance(probs, list) or len(probs) != 1 or index not in range(len(rows)):
                raise HttpError(f"{urls}: {str(row)[:100]!r} is no row of a reward model with one label", 200)
            if type(probs[0]) not in (int, float) or not math.isfinite(probs[0]):
                logits[index] = Failure(FailureKind.NO_SCORE, f"{urls} gave {probs[0]!r}, which is no finite logit")
            else:
                logits[index] = float(probs[0])
        if None in logits:
            raise HttpError(f"{urls}: item {logits.index(None)} got no row", 200)
        return logits


def _tokenizer(name: str, urls: str) -> Any:
    from transformers import AutoTokenizer

    advice = "Give its directory or hub id as `tokenizer` (CODESCALER_TOKENIZER)."
    tokenizer = pretrained(AutoTokenizer, name, f"the tokenizer {name!r} of {urls}", advice=advice)
    if tokenizer.chat_template is None:
        raise ConfigError(f"the tokenizer {name} has no chat template: give one that has as `tokenizer`")
    return tokenizer
