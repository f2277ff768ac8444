"""A reward model in this process, with the fastest exact way to its logits and the fallbacks from it.

Shared prefixes are checked against single sequences before their first use. On a GPU the layers are compiled after
`COMPILE_AFTER` tokens. A pass that runs out of memory is repeated in smaller ones. `TransformersScorer` adds model
names, duplicates and known scores.
"""

import logging
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from time import perf_counter
from typing import Any

from codescaler_plugin.scoring.cache import ScoreCache
from codescaler_plugin.scoring.forward import (
    Pass,
    compile_layers,
    out_of_memory,
    padded_logits,
    tree_logits,
    uncompile_layers,
)
from codescaler_plugin.scoring.rendering import Renderer

logger = logging.getLogger(__name__)

COMPILE_AFTER = 1_000_000
"""Tokens computed on a GPU before the layers of a named model are compiled. A long run earns that time back."""

_COMPARED = 8  # sequences scored before and after compilation
_TOLERANCE = {"float32": 1e-4, "float16": 0.05, "bfloat16": 0.1}  # of both checks, relative above 1
_GIVEN_UP = "padded batches are used instead. Please report the model and the versions of torch and transformers."


@dataclass
class ScorerStats:
    """Totals over all calls of a scorer."""

    items: int = 0  # (problem, code) pairs
    unique: int = 0  # distinct pairs, counted per call
    unscorable: int = 0  # distinct pairs without a score: too long, a control token, or a logit that is not finite
    cache_hits: int = 0  # distinct pairs whose score was known
    real_tokens: int = 0  # of the distinct pairs that were computed, each in full
    computed_tokens: int = 0  # put through the model, padding included; fewer where prefixes are shared
    padded_tokens: int = 0  # padding among the computed tokens
    encode_seconds: float = 0.0  # rendering and tokenising, mostly in parallel with the forward passes
    forward_seconds: float = 0.0


@dataclass
class LoadedModel:
    """A loaded sequence classifier of transformers and the state of its scoring."""

    name: str  # in messages
    model: Any
    renderer: Renderer
    cache: ScoreCache
    fingerprint: bytes  # of the model, in the keys of the cache; empty without a cache on disk
    max_tokens: int  # of a forward pass
    shares: bool  # prefixes
    device: Any  # where it computes; an offloaded model is elsewhere between calls
    compiles: bool  # its layers are still to be compiled
    stats: ScorerStats  # counted here
    compiled: bool = False  # its layers are compiled
    checked: bool = False  # sharing was compared with single sequences
    weights: int = 0  # changes with every in-place update of a parameter

    def logits(self, rows: dict[bytes, list[int]]) -> Iterator[dict[bytes, float]]:
        """Yield the finite logits of token ids by key, pass by pass.

        Lack of memory halves `max_tokens`, down to the longest row. Other errors of the model are raised.
        """
        left = dict(rows)
        while left:
            keys, ids = list(left), list(left.values())
            try:
                for done in self._passes(ids):
                    self.stats.real_tokens += sum(len(ids[index]) for index, _ in done.logits)
                    for index, _ in done.logits:
                        del left[keys[index]]
                    yield {keys[index]: logit for index, logit in done.logits if math.isfinite(logit)}
            except Exception as error:  # compiled code raises more kinds; all but lack of memory go on
                if self.compiled and not out_of_memory(error):  # such as a row that needed another compilation
                    self._uncompile(str(error))
                    continue
                longest = max(map(len, left.values()))
                if not out_of_memory(error) or self.max_tokens <= longest:
                    raise
                self.max_tokens = max(self.max_tokens // 2, longest)
                logger.warning("out of memory: forward passes of %s now hold %d tokens", self.name, self.max_tokens)
                _free(self.model.device)

    @contextmanager
    def evaluating(self) -> Iterator[None]:
        """Inside, the model has no dropout and computes in its own dtype; each module returns to its mode after."""
        import torch

        training = [module for module in self.model.modules() if module.training]
        self.model.eval()
        try:
            with torch.autocast(self.model.device.type, enabled=False):
                yield
        finally:
            for module in training:
                module.training = True

    def offload(self) -> None:
        """Move the model to CPU memory and return its GPU memory to the device."""
        device = self.model.device
        self.model.to("cpu")
        _free(device)

    def _passes(self, rows: list[list[int]]) -> Iterator[Pass]:
        if self.shares and not self.checked:
            self._check(rows)
        if self.shares and self.compiles and self.stats.computed_tokens >= COMPILE_AFTER:
            self._compile(rows)
        logits = tree_logits if self.shares else padded_logits
        passes = logits(self.model, rows, max_tokens=self.max_tokens)
        while True:
            started = perf_counter()
            done = next(passes, None)
            self.stats.forward_seconds += perf_counter() - started
            if done is None:
                return
            self.stats.computed_tokens += done.tokens
            self.stats.padded_tokens += done.padding
            yield done

    def _check(self, rows: list[list[int]]) -> None:
        """Compare shared prefixes with single sequences, once. If the scores differ, sharing is given up."""
        longest = max(rows, key=len)
        half = len(longest) // 2  # for a third row, so that a prefix is shared even if only one row is given
        compared = [min(rows, key=len), longest, longest[:half] + longest[half:][::-1]]
        fault = ""
        try:
            shared = self._shared_logits(compared)
        except Exception as error:  # a model may raise anything here, and padded batches can still score it
            if out_of_memory(error):
                raise
            fault = f"shared prefixes fail: {error}"
        else:
            alone = _in_order(padded_logits(self.model, compared, max_tokens=1))
            if difference := _difference(self.model, shared, alone):
                fault = f"scores {shared} with shared prefixes differ from {alone} of single sequences by {difference}"
        self.checked = True
        if fault:
            self.shares = False
            logger.warning("%s: %s; %s", self.name, fault, _GIVEN_UP)

    def _compile(self, rows: list[list[int]]) -> None:
        """Compile the layers and compare the scores of a few rows. After any failure the layers stay uncompiled."""
        logger.info("compiling the layers of %s, once; this takes some seconds", self.name)
        compared = rows[:_COMPARED]
        before = self._shared_logits(compared)
        self.compiled = True
        try:
            compile_layers(self.model)
            after = self._shared_logits(compared)
            difference = _difference(self.model, after, before, roundings=2)  # each has its own
            if difference is not None:
                self._uncompile(f"scores differ by {difference}")
        except BaseException as error:  # of the compiler, Triton, or the C compiler that it needs
            if not isinstance(error, Exception) or out_of_memory(error):
                uncompile_layers(self.model)
                self.compiled = False
                raise
            self._uncompile(str(error))
        self.compiles = False

    def _uncompile(self, reason: str) -> None:
        uncompile_layers(self.model)
        self.compiled = self.compiles = False
        logger.warning("%s: its layers stay uncompiled, and slower: %s", self.name, reason)

    def _shared_logits(self, rows: list[list[int]]) -> list[float]:
        return _in_order(tree_logits(self.model, rows, max_tokens=self.max_tokens))


def _in_order(passes: Iterator[Pass]) -> list[float]:
    return [logit for _, logit in sorted(pair for done in passes for pair in done.logits)]


def _difference(model: Any, logits: list[float], expected: list[float], *, roundings: int = 1) -> str | None:
    """The largest difference beyond the rounding of the model's precision, for a message; None if there is none."""
    tolerance = roundings * _TOLERANCE.get(str(model.dtype).removeprefix("torch."), 0.1)
    gaps = [abs(logit - right) / max(1.0, abs(right)) for logit, right in zip(logits, expected, strict=True)]
    if all(gap <= tolerance for gap in gaps):  # nan compares as false
        return None
    return f"up to {max(gaps):.2g} (allowed: {tolerance:.2g})"


def _free(device: Any) -> None:
    import torch

    if device.type == "cuda":
        torch.cuda.empty_cache()
