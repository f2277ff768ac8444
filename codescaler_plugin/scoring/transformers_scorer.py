"""A scalar reward model of transformers in this process: shared prefixes once, known scores not at all.

Any `AutoModelForSequenceClassification` checkpoint with one label. Decoders of `families.SHARED` compute a prefix that
samples share once; all others go through padded batches of similar length. It uses one device and does not shard.
"""

import logging
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from threading import Lock
from time import perf_counter
from typing import Any

from codescaler_plugin.errors import ConfigError, ScorerError
from codescaler_plugin.prefetch import grouped_chunks, prefetch
from codescaler_plugin.scoring.cache import CACHE_SIZE, ScoreCache, content_key, fingerprint
from codescaler_plugin.scoring.forward import (
    Pass,
    can_compile,
    compile_layers,
    fitting_tokens,
    out_of_memory,
    padded_logits,
    reason_not_to_share,
    tree_logits,
    uncompile_layers,
)
from codescaler_plugin.scoring.loading import checked_handle, load_classifier, text_config
from codescaler_plugin.scoring.rendering import Renderer, Unscorable
from codescaler_plugin.threads import fitting_threads

logger = logging.getLogger(__name__)

COMPILE_AFTER = 1_000_000
"""Tokens computed on a GPU before the layers of a named model are compiled: a long run gets that time back."""

_COMPARED = 8  # samples scored before and after
_CHUNK = 128  # items rendered and tokenised while the chunk before is in the model
_TOLERANCE = {"float32": 1e-4, "float16": 0.05, "bfloat16": 0.1}  # of the self-check, relative above 1
_GIVEN_UP = "padded batches are used instead. Please report the model and the versions of torch and transformers."
_ADVICE = {
    Unscorable.TOO_LONG: "%d of %d samples get no score: their code is too long for %s tokens; raise max_length",
    Unscorable.CONTROL_TOKEN: "%d of %d samples (limit: %s tokens) get no score: they hold control tokens",
}


@dataclass
class ScorerStats:
    """Sums over all calls of a scorer.

    Attributes:
        items: (problem, code) pairs asked for.
        unique: distinct ones, call by call.
        unscorable: distinct ones without a score: too long, control tokens, a logit that is not finite.
        cache_hits: distinct ones whose score was known.
        real_tokens: of the distinct samples that were computed, each in full.
        computed_tokens: put through the model; fewer than real ones where prefixes are shared.
        padded_tokens: those among the computed that are padding.
        encode_seconds: rendering and tokenising, mostly beside the forward passes.
        forward_seconds: forward passes.
    """

    items: int = 0
    unique: int = 0
    unscorable: int = 0
    cache_hits: int = 0
    real_tokens: int = 0
    computed_tokens: int = 0
    padded_tokens: int = 0
    encode_seconds: float = 0.0
    forward_seconds: float = 0.0


@dataclass
class _Engine:
    """A loaded model with all that scoring needs.

    `weights` changes with every in-place update of a parameter; `compiles`: its layers are to be compiled;
    `compiled`: they are.
    """

    model: Any
    renderer: Renderer
    cache: ScoreCache
    fingerprint: bytes
    max_tokens: int
    tree: bool
    device: Any
    compiles: bool
    compiled: bool = False
    checked: bool = False
    weights: int = 0


class TransformersScorer:
    """Raw logits of one reward model.

    A named model loads on the first call, outside any DeepSpeed ZeRO-3 context, onto the device of this process, so
    the object is cheap to make and pickles as its settings. Calls from several threads are scored one after the other.
    On first use the shared-prefix path is checked against single samples; if they differ, a warning says so and
    padded batches take over. On a GPU the layers of a named model are compiled (`torch.compile`) after
    `COMPILE_AFTER` tokens, and checked likewise; `TORCH_COMPILE_DISABLE=1` turns that off.

    Args:
        model: a directory, a hub id, or a loaded sequence classifier, PEFT's too. A loaded one is used where it is, in
            its own dtype whatever autocast says, and left as it was found: device, modes, attention and settings.
        tokenizer: of a loaded model; not used with a name.
        max_length: tokens of the longest sample, see `Renderer.encode`; None: the model's own limit.
        max_tokens: tokens of a forward pass; None: what fits a quarter of the free memory, at most
            `forward.MAX_TOKENS`. After running out of memory it is halved, with a warning.
        device: torch device; None: that of `accelerate` if it is in use, else the current GPU, else the CPU.
        cache_size: scores remembered across calls; 0: none. Updating the weights of a loaded model in place forgets
            them (assigning to `.data` is not seen).
        cache_dir: folder of a score file shared by processes (extra `cache`); None: none.
        offload: move the model to CPU memory after each call, so that a policy on the same GPU can have the room.
        trust_remote_code: of a named model: run code that its folder brings, in this process, with all that it may do
            here. Such a model keeps its own pooling and head.

    Raises:
        ConfigError: on first use, if the model cannot be had, brings code and is not trusted, is not a one-label
            classifier, has no trained head, or its tokenizer does not fit or has no chat template; at once, if a
            loaded model comes without a tokenizer or is to be moved.
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
        self.model = model
        self.tokenizer = tokenizer
        self.max_length = max_length
        self.max_tokens = max_tokens
        self.device = device
        self.cache_size = cache_size
        self.cache_dir = cache_dir
        self.offload_after_call = offload
        self.trust_remote_code = trust_remote_code
        self.stats = ScorerStats()
        self._name = model if isinstance(model, str) else type(model).__name__
        self._engine: _Engine | None = None
        self._lock = Lock()

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name not in ("_engine", "_lock")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state, _engine=None, _lock=Lock())

    def score(self, items: Sequence[tuple[str, str]]) -> list[float | None]:
        """Raw logits of (problem, code) pairs; same length, same order.

        None stands for a sample that cannot be scored (`Unscorable`: its code is too long, or holds a control token
        that could not be broken up) or whose logit is not finite; each kind is counted in a warning.

        Raises:
            ConfigError: see the class.
            ScorerError: the forward pass failed, for example for lack of memory; `scores` holds what was done.
        """
        if not items:
            return []
        with self._lock:
            engine = self._ready()
            unique = list(dict.fromkeys(items))
            self.stats.items += len(items)
            self.stats.unique += len(unique)
            scores: dict[tuple[str, str], float | None] = dict.fromkeys(unique)
            try:
                with _evaluating(engine.model), fitting_threads(engine.model):
                    self._score(engine, unique, scores)
            except RuntimeError as error:
                done = [scores[item] for item in items]
                raise ScorerError(
                    f"{self._name} failed on {len(items)} samples: {error}; try a smaller max_tokens", done
                ) from error
            finally:
                if self.offload_after_call:
                    _offload(engine)
        return [scores[item] for item in items]

    def ensure_loaded(self) -> None:
        """Load the model if that was not done yet.

        Raises:
            ConfigError: see the class.
        """
        with self._lock:
            if self._engine is None:
                self._engine = self._loaded()
                if self.offload_after_call:
                    _offload(self._engine)

    def offload(self) -> None:
        """Move the model to CPU memory and give its GPU memory back; the next call moves it in again.

        Raises:
            ConfigError: the model was given loaded.
        """
        if not isinstance(self.model, str):
            raise ConfigError("a loaded reward model stays where it is: move it yourself")
        with self._lock:
            if self._engine is not None:
                _offload(self._engine)

    def _ready(self) -> _Engine:
        """The engine, with the model on its device and no score of older weights."""
        if self._engine is None:
            self._engine = self._loaded()
        engine = self._engine
        if isinstance(self.model, str):
            engine.model.to(engine.device)
        else:
            weights = hash(tuple((id(one), one._version, one.dtype) for one in engine.model.parameters()))
            if weights != engine.weights:
                engine.weights = weights
                engine.cache.clear()
                if self.cache_dir is not None:
                    engine.fingerprint = fingerprint(engine.model, engine.renderer.tokenizer.chat_template)
        return engine

    def _loaded(self) -> _Engine:
        cache = ScoreCache(self.cache_size, self.cache_dir)  # before the weights, which may take minutes
        if isinstance(self.model, str):
            model, tokenizer = load_classifier(self.model, self.device, trust_remote_code=self.trust_remote_code)
        else:
            model, tokenizer = checked_handle(self.model, self.tokenizer), self.tokenizer
        limit = self.max_length or getattr(text_config(model), "max_position_embeddings", None)
        template = str(tokenizer.chat_template)
        shares = reason_not_to_share(model) is None
        return _Engine(
            model,
            Renderer(tokenizer, limit),
            cache,
            fingerprint(model, template) if self.cache_dir is not None else b"",
            self.max_tokens or fitting_tokens(model),
            shares,
            model.device,
            isinstance(self.model, str) and shares and can_compile(model),
        )

    def _score(
        self,
        engine: _Engine,
        items: list[tuple[str, str]],
        scores: dict[tuple[str, str], float | None],
    ) -> None:
        """Fill in the scores of distinct items."""
        unscorable: Counter[Unscorable] = Counter()

        def encode(chunk: list[int]) -> tuple[list[tuple[str, str]], list[list[int] | Unscorable], float]:
            started = perf_counter()
            part = [items[index] for index in chunk]
            return part, engine.renderer.encode(part), perf_counter() - started

        lost = 0
        for part, rows, seconds in prefetch(encode, grouped_chunks([problem for problem, _ in items], _CHUNK)):
            self.stats.encode_seconds += seconds
            keys: dict[bytes, list[tuple[str, str]]] = {}
            wanted: dict[bytes, list[int]] = {}
            for item, row in zip(part, rows, strict=True):
                if isinstance(row, Unscorable):
                    unscorable[row] += 1
                    continue
                key = content_key(engine.fingerprint, row)
                known = engine.cache.get(key)
                if known is not None:
                    scores[item] = known
                    self.stats.cache_hits += 1
                else:
                    keys.setdefault(key, []).append(item)
                    wanted[key] = row
            for found in self._forward(engine, wanted):
                for key, logit in found.items():
                    for item in keys[key]:
                        scores[item] = logit
                engine.cache.put(found)
            lost += sum(scores[item] is None for same in keys.values() for item in same)
        self.stats.unscorable += lost + unscorable.total()
        for reason, count in unscorable.items():
            logger.warning(_ADVICE[reason], count, len(items), engine.renderer.limit)
        if lost:
            logger.warning("%s gave %d logits that are not finite; these samples get no score", self._name, lost)

    def _forward(self, engine: _Engine, wanted: dict[bytes, list[int]]) -> Iterator[dict[bytes, float]]:
        """Finite logits by key, as they come. Halves the token budget for as long as memory runs out."""
        left = dict(wanted)
        while left:
            keys, rows = list(left), list(left.values())
            try:
                for done in self._passes(engine, rows):
                    self.stats.real_tokens += sum(len(rows[index]) for index, _ in done.logits)
                    for index, _ in done.logits:
                        del left[keys[index]]
                    yield {keys[index]: logit for index, logit in done.logits if math.isfinite(logit)}
            except Exception as error:  # compiled code raises more kinds; all others but lack of memory go on
                if engine.compiled and not out_of_memory(error):  # a row that needed to be compiled anew, say
                    self._uncompile(engine, str(error))
                    continue
                longest = max(map(len, left.values()))
                if not out_of_memory(error) or engine.max_tokens <= longest:
                    raise
                engine.max_tokens = max(engine.max_tokens // 2, longest)
                logger.warning("out of memory: forward passes of %s now hold %d tokens", self._name, engine.max_tokens)
                _free(engine.model.device)

    def _passes(self, engine: _Engine, rows: list[list[int]]) -> Iterator[Pass]:
        """Forward passes over rows, timed and counted."""
        if engine.tree and not engine.checked:
            self._check(engine, rows)
        if engine.tree and engine.compiles and self.stats.computed_tokens >= COMPILE_AFTER:
            self._compile(engine, rows)
        logits = tree_logits if engine.tree else padded_logits
        passes = logits(engine.model, rows, max_tokens=engine.max_tokens)
        while True:
            started = perf_counter()
            done = next(passes, None)
            self.stats.forward_seconds += perf_counter() - started
            if done is None:
                return
            self.stats.computed_tokens += done.tokens
            self.stats.padded_tokens += done.padding
            yield done

    def _check(self, engine: _Engine, rows: list[list[int]]) -> None:
        """Shared prefixes against single samples, once, on up to three samples; on a difference they are given up.

        The shortest, the longest, and one made of the longest, so that a prefix is shared whatever comes first.
        """
        longest = max(rows, key=len)
        half = len(longest) // 2
        sample = [min(rows, key=len), longest, longest[:half] + longest[half:][::-1]]
        fault = ""
        try:
            shared = _in_order(tree_logits(engine.model, sample, max_tokens=engine.max_tokens))
        except Exception as error:  # whatever a model of a family raises, padded batches can score
            if out_of_memory(error):
                raise
            fault = f"shared prefixes fail: {error}"
        else:
            alone = _in_order(padded_logits(engine.model, sample, max_tokens=1))
            if difference := _difference(engine.model, shared, alone):
                fault = (
                    f"scores with shared prefixes {shared} differ from those of single samples {alone} by {difference}"
                )
        engine.checked = True
        if fault:
            engine.tree = False
            logger.warning("%s: %s; %s", self._name, fault, _GIVEN_UP)

    def _compile(self, engine: _Engine, rows: list[list[int]]) -> None:
        """Compile the layers, and compare the scores of a few samples; whatever goes wrong, they stay uncompiled."""
        logger.info("compiling the layers of %s, once; this takes some seconds", self._name)
        sample = rows[:_COMPARED]
        before = _in_order(tree_logits(engine.model, sample, max_tokens=engine.max_tokens))
        engine.compiled = True
        try:
            compile_layers(engine.model)
            after = _in_order(tree_logits(engine.model, sample, max_tokens=engine.max_tokens))
            difference = _difference(engine.model, after, before, roundings=2)  # each has its own
            if difference is not None:
                self._uncompile(engine, f"scores differ by {difference}")
        except BaseException as error:  # of the compiler, Triton, or the C compiler that it needs
            if not isinstance(error, Exception) or out_of_memory(error):
                uncompile_layers(engine.model)
                engine.compiled = False
                raise
            self._uncompile(engine, str(error))
        engine.compiles = False

    def _uncompile(self, engine: _Engine, reason: str) -> None:
        uncompile_layers(engine.model)
        engine.compiled = engine.compiles = False
        logger.warning("%s: its layers stay uncompiled, and slower: %s", self._name, reason)


def _in_order(passes: Iterator[Pass]) -> list[float]:
    """Logits in the order of the items."""
    return [logit for _, logit in sorted(pair for done in passes for pair in done.logits)]


def _difference(model: Any, ours: list[float], right: list[float], *, roundings: int = 1) -> str | None:
    """What is said of logits that differ by more than the rounding of the model's precision; None if none does."""
    tolerance = roundings * _TOLERANCE.get(str(model.dtype).removeprefix("torch."), 0.1)
    gaps = [abs(one - other) / max(1.0, abs(other)) for one, other in zip(ours, right, strict=True)]
    if all(gap <= tolerance for gap in gaps):  # nan compares as false
        return None
    return f"up to {max(gaps):.2g} (allowed: {tolerance:.2g})"


@contextmanager
def _evaluating(model: Any) -> Iterator[None]:
    """Without dropout and in the model's own dtype inside; each module in the mode it was in after."""
    import torch

    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        with torch.autocast(model.device.type, enabled=False):
            yield
    finally:
        for module in training:
            module.training = True


def _offload(engine: _Engine) -> None:
    device = engine.model.device
    engine.model.to("cpu")
    _free(device)


def _free(device: Any) -> None:
    import torch

    if device.type == "cuda":
        torch.cuda.empty_cache()
