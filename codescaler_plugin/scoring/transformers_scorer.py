"""A scalar reward model of transformers, scored in padded micro-batches.

Any `AutoModelForSequenceClassification` checkpoint with one label. For decoder models the hidden state at the known
last token goes through the head in float32; the pad id plays no part. Encoder models keep their own pooling. It does
not share prefixes, cache, or use more than one device.
"""

import logging
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from threading import Lock
from typing import Any

from codescaler_plugin.errors import ConfigError, ScorerError
from codescaler_plugin.scoring.rendering import render

logger = logging.getLogger(__name__)


class TransformersScorer:
    """Raw logits of one reward model.

    The model loads on the first call, so the object is cheap to make and pickles as its settings. Calls from several
    threads are scored one after the other.

    Args:
        model: a directory or a hub id.
        batch_size: sequences per forward pass.
        max_length: tokens of the longest sample that is scored; None: the model's own limit.
        device: torch device; None: the current CUDA device if there is one, else the CPU.

    Raises:
        ConfigError: on first use, if the model cannot be had, is not a one-label classifier, has no trained head, or
            its tokenizer has no chat template.
    """

    def __init__(
        self, model: str, *, batch_size: int = 8, max_length: int | None = None, device: str | None = None
    ) -> None:
        self.model = model
        self.batch_size = batch_size
        self.max_length = max_length
        self.device = device
        self._loaded: tuple[Any, Any] | None = None
        self._lock = Lock()

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name not in ("_loaded", "_lock")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state, _loaded=None, _lock=Lock())

    def score(self, items: Sequence[tuple[str, str]]) -> list[float | None]:
        """Raw logits of (problem, code) pairs; same length, same order.

        None stands for a sample that is longer than `max_length` (it is never cut) or whose logit is not finite; each
        kind is counted in a warning.

        Raises:
            ConfigError: see the class.
            ScorerError: the forward pass failed, for example for lack of memory.
        """
        if not items:
            return []
        with self._lock:
            if self._loaded is None:
                self._loaded = _load(self.model, self.device)
            model, tokenizer = self._loaded
            texts = [render(tokenizer, problem, code) for problem, code in items]
            rows: list[list[int]] = tokenizer(texts, add_special_tokens=False)["input_ids"]
            limit = self.max_length or getattr(model.config, "max_position_embeddings", None) or math.inf
            fitting = [index for index, row in enumerate(rows) if len(row) <= limit]
            if len(fitting) < len(rows):
                longest = max(map(len, rows))
                logger.warning(
                    "%d of %d samples are longer than %s tokens (longest: %d) and get no score; raise max_length",
                    *(len(rows) - len(fitting), len(rows), limit, longest),
                )
            scores: list[float | None] = [None] * len(rows)
            try:
                for batch in self._batches(fitting, rows):
                    logits = _forward(model, [rows[index] for index in batch])
                    for index, logit in zip(batch, logits, strict=True):
                        scores[index] = logit if math.isfinite(logit) else None
            except RuntimeError as error:
                raise ScorerError(f"{self.model} failed on {len(items)} samples: {error}; try batch_size=1") from error
        lost = sum(scores[index] is None for index in fitting)
        if lost:
            logger.warning("%s gave %d logits that are not finite; these samples get no score", self.model, lost)
        return scores

    def _batches(self, indices: list[int], rows: list[list[int]]) -> Iterator[list[int]]:
        by_length = sorted(indices, key=lambda index: len(rows[index]), reverse=True)
        for start in range(0, len(by_length), self.batch_size):
            yield by_length[start : start + self.batch_size]


def _load(name: str, device: str | None) -> tuple[Any, Any]:
    import torch
    from safetensors import SafetensorError
    from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer

    name = _checked(name)
    try:
        config = AutoConfig.from_pretrained(name)
        if config.num_labels != 1:
            kind = ", ".join(config.architectures or ["a model of unknown kind"])
            raise ConfigError(
                f"{name} is {kind} with {config.num_labels} labels: a reward model is a sequence classifier with one"
            )
        tokenizer = AutoTokenizer.from_pretrained(name)
        place = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        # bf16 matrix products are many times slower than fp32 on most CPUs; elsewhere the checkpoint's dtype stands.
        dtype = torch.float32 if place.type == "cpu" else "auto"
        model, report = AutoModelForSequenceClassification.from_pretrained(name, dtype=dtype, output_loading_info=True)
    except ConfigError:
        raise
    except (OSError, ValueError, SafetensorError) as error:  # no such model, a config of no model, broken weights
        raise ConfigError(
            f"reward model {name!r} cannot be loaded: {error}\n"
            "Give a directory or a hub id that can be reached, or model='builtin' for the small embedded model, "
            "which needs no network."
        ) from error
    if report["missing_keys"]:
        raise ConfigError(
            f"{name} is no trained reward model: it lacks {', '.join(sorted(report['missing_keys']))}. "
            "Train it with TRL's RewardTrainer first, or give another model."
        )
    if tokenizer.chat_template is None:
        raise ConfigError(f"the tokenizer of {name} has no chat template: save one beside the model")
    if not tokenizer("code", add_special_tokens=False)["input_ids"]:
        raise ConfigError(f"{name} has no tokenizer files: save the model's tokenizer beside it")
    rows = model.get_input_embeddings().num_embeddings
    if len(tokenizer) > rows:
        raise ConfigError(
            f"the tokenizer of {name} has {len(tokenizer)} tokens for {rows} embeddings: they do not match"
        )
    return model.to(place).eval(), tokenizer


def _checked(name: str) -> str:
    """The name with `~` expanded. A path that does not exist would be looked up as a hub id and misreported."""
    path = Path(name).expanduser()
    looks_like_path = path.is_absolute() or name.startswith((".", "~")) or name.count("/") > 1
    if looks_like_path and not path.is_dir():
        raise ConfigError(f"reward model directory {name} does not exist: give a directory, a hub id, or 'builtin'")
    return str(path) if looks_like_path else name


def _forward(model: Any, rows: list[list[int]]) -> list[float]:
    """Logits of at most a batch of token rows."""
    import torch

    lengths = torch.tensor([len(row) for row in rows], device=model.device)
    width = max(map(len, rows))
    # Any id may fill up: attention masks it, and pooling goes by length.
    ids = torch.tensor([row + [0] * (width - len(row)) for row in rows], device=model.device)
    mask = (torch.arange(width, device=model.device) < lengths[:, None]).long()
    head = getattr(model, "score", None)
    with torch.inference_mode():
        if not isinstance(head, torch.nn.Linear):
            logits = model(input_ids=ids, attention_mask=mask).logits.float()
        else:
            hidden = model.base_model(input_ids=ids, attention_mask=mask, use_cache=False).last_hidden_state
            last = hidden[torch.arange(len(rows), device=model.device), lengths - 1].float()
            bias = None if head.bias is None else head.bias.float()
            logits = torch.nn.functional.linear(last, head.weight.float(), bias)
    values: list[float] = logits.squeeze(-1).tolist()
    return values
