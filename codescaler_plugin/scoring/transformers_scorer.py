"""A scalar reward model of transformers in this process, which computes neither duplicates nor known scores.

Any `AutoModelForSequenceClassification` checkpoint with one label works, on one device and not sharded.
"""

import logging
from collections import Counter
from collections.abc import Sequence
from threading import Lock
from time import perf_counter
from typing import Any

from codescaler_plugin.errors import ConfigError, ScorerError
from codescaler_plugin.prefetch import grouped_chunks, prefetch
from codescaler_plugin.scoring.cache import CACHE_SIZE, ScoreCache, content_key, fingerprint
from codescaler_plugin.scoring.compat import update_count
from codescaler_plugin.scoring.forward import can_compile, fitting_tokens, reason_not_to_share
from codescaler_plugin.scoring.loaded_model import LoadedModel, ScorerStats
from codescaler_plugin.scoring.loading import checked_handle, load_classifier, text_config
from codescaler_plugin.scoring.rendering import Renderer, Unscorable
from codescaler_plugin.threads import fitting_threads

logger = logging.getLogger(__name__)

_CHUNK = 128  # items rendered and tokenised while the chunk before is in the model
_ADVICE = {
    Unscorable.TOO_LONG: "%d of %d programs get no score: they are too long for %s tokens; raise max_length",
    Unscorable.CONTROL_TOKEN: "%d of %d programs (limit: %s tokens) get no score: they hold control tokens",
}


class TransformersScorer:
    """Raw logits of one reward model: a name, or a loaded sequence classifier with its tokenizer, of PEFT too.

    The object is cheap to make and pickles as its settings, which `CodeScalerConfig` describes. A named model loads on
    the first call, outside any DeepSpeed ZeRO-3 context, onto the device of this process. A loaded one is used on its
    device and in its own dtype whatever autocast says; its modes, attention and settings are left unchanged. In-place
    updates of its weights clear the cache (assigning to `.data` is not noticed). Calls from several threads are scored
    one after the other.

    The first call compares shared prefixes with single sequences. If the scores differ, the scorer logs a warning and
    uses padded batches. On a GPU the layers of a named model are compiled (`torch.compile`) after
    `loaded_model.COMPILE_AFTER` tokens, with the same comparison; `TORCH_COMPILE_DISABLE=1` turns that off.

    Raises:
        ConfigError: on first use, if the model cannot be used (`load_classifier`). At once, if a loaded model comes
            without a tokenizer, or with `device` or `offload`.
    """

    def __init__(
        self,
        model: Any,
        *,
        tokenizer: Any = None,
        max_length: int | None = None,
        max_tokens: int | None = None,
        device: str | None = None,
        cache_size: int = CACHE_SIZE,
        cache_dir: str | None = None,
        offload: bool = False,
        trust_remote_code: bool = False,
    ) -> None:
        if not isinstance(model, str) and tokenizer is None:
            raise ConfigError("a loaded reward model needs its tokenizer: pass tokenizer=...")
        if not isinstance(model, str) and (device is not None or offload):
            raise ConfigError("a loaded reward model stays where it is: give no device or offload, or give its name")
        self.model, self.tokenizer, self.trust_remote_code = model, tokenizer, trust_remote_code
        self.max_length, self.max_tokens = max_length, max_tokens
        self.device, self.offload_after_call = device, offload
        self.cache_size, self.cache_dir = cache_size, cache_dir
        self.stats = ScorerStats()
        self._name = model if isinstance(model, str) else type(model).__name__
        self._loaded: LoadedModel | None = None
        self._lock = Lock()

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name not in ("_loaded", "_lock")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state, _loaded=None, _lock=Lock())

    @property
    def shares_prefixes(self) -> bool | None:
        """True if shared prefixes were found exact, False if the model uses padded batches, None before scoring."""
        loaded = self._loaded
        return loaded.shares if loaded is not None and (loaded.checked or not loaded.shares) else None

    def score(self, items: Sequence[tuple[str, str]]) -> list[float | None]:
        """Return the raw logits of (problem, code) pairs, in order.

        None stands for a program that is `Unscorable` or whose logit is not finite; a warning has the numbers.

        Raises:
            ConfigError: see the class.
            ScorerError: the forward pass failed, for example for lack of memory. `scores` holds what was computed.
        """
        if not items:
            return []
        with self._lock:
            loaded = self._ready()
            unique = list(dict.fromkeys(items))
            self.stats.items += len(items)
            self.stats.unique += len(unique)
            scores: dict[tuple[str, str], float | None] = dict.fromkeys(unique)
            try:
                with loaded.evaluating(), fitting_threads(loaded.model):
                    self._score(loaded, unique, scores)
            except RuntimeError as error:
                raise ScorerError(
                    f"{self._name} failed on {len(items)} programs: {error}; try a smaller max_tokens",
                    [scores[item] for item in items],
                ) from error
            finally:
                if self.offload_after_call:
                    loaded.offload()
        return [scores[item] for item in items]

    def ensure_loaded(self) -> None:
        """Load the model unless it is loaded. The errors are those of the first call."""
        with self._lock:
            if self._loaded is None:
                self._loaded = self._load()
                if self.offload_after_call:
                    self._loaded.offload()

    def offload(self) -> None:
        """Move a named model to CPU memory and return its GPU memory. The next call moves it back."""
        if not isinstance(self.model, str):
            raise ConfigError("a loaded reward model stays where it is: move it yourself")
        with self._lock:
            if self._loaded is not None:
                self._loaded.offload()

    def _ready(self) -> LoadedModel:
        if self._loaded is None:
            self._loaded = self._load()
        loaded = self._loaded
        if isinstance(self.model, str):
            loaded.model.to(loaded.device)
            return loaded
        weights = hash(tuple((id(weight), update_count(weight), weight.dtype) for weight in loaded.model.parameters()))
        if weights != loaded.weights:
            loaded.weights = weights
            loaded.cache.clear()
            if self.cache_dir is not None:
                loaded.fingerprint = fingerprint(loaded.model, loaded.renderer.tokenizer.chat_template)
        return loaded

    def _load(self) -> LoadedModel:
        cache = ScoreCache(self.cache_size, self.cache_dir)  # before the weights, which may take minutes
        if isinstance(self.model, str):
            model, tokenizer = load_classifier(self.model, self.device, trust_remote_code=self.trust_remote_code)
        else:
            model, tokenizer = checked_handle(self.model, self.tokenizer), self.tokenizer
        limit = self.max_length or getattr(text_config(model), "max_position_embeddings", None)
        shares = reason_not_to_share(model) is None
        return LoadedModel(
            name=self._name,
            model=model,
            renderer=Renderer(tokenizer, limit),
            cache=cache,
            fingerprint=fingerprint(model, str(tokenizer.chat_template)) if self.cache_dir is not None else b"",
            max_tokens=self.max_tokens or fitting_tokens(model),
            shares=shares,
            device=model.device,
            compiles=isinstance(self.model, str) and shares and can_compile(model),
            stats=self.stats,
        )

    def _score(
        self, loaded: LoadedModel, items: list[tuple[str, str]], scores: dict[tuple[str, str], float | None]
    ) -> None:
        unscorable: Counter[Unscorable] = Counter()

        def encode(chunk: list[int]) -> tuple[list[tuple[str, str]], list[list[int] | Unscorable], float]:
            started = perf_counter()
            part = [items[index] for index in chunk]
            return part, loaded.renderer.encode(part), perf_counter() - started

        lost = 0
        for part, rows, seconds in prefetch(encode, grouped_chunks([problem for problem, _ in items], _CHUNK)):
            self.stats.encode_seconds += seconds
            by_key: dict[bytes, list[tuple[str, str]]] = {}
            unknown: dict[bytes, list[int]] = {}
            for item, row in zip(part, rows, strict=True):
                if isinstance(row, Unscorable):
                    unscorable[row] += 1
                    continue
                key = content_key(loaded.fingerprint, row)
                known = loaded.cache.get(key)
                if known is not None:
                    scores[item] = known
                    self.stats.cache_hits += 1
                else:
                    by_key.setdefault(key, []).append(item)
                    unknown[key] = row
            for logits in loaded.logits(unknown):
                for key, logit in logits.items():
                    for item in by_key[key]:
                        scores[item] = logit
                loaded.cache.put(logits)
            lost += sum(scores[item] is None for same in by_key.values() for item in same)
        self.stats.unscorable += lost + unscorable.total()
        for reason, count in unscorable.items():
            logger.warning(_ADVICE[reason], count, len(items), loaded.renderer.limit)
        if lost:
            logger.warning("%s gave %d logits that are not finite; these programs get no score", self._name, lost)
