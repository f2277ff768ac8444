"""Models small enough for a unit test, and scorers that need no model."""

from collections.abc import Callable, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    PreTrainedTokenizerFast,
    Qwen3Config,
    Qwen3ForCausalLM,
    Qwen3ForSequenceClassification,
)

from codescaler_plugin.errors import ScorerError

CORPUS = [
    "def solve(n):\n    return n + 1\n",
    "for i in range(10):\n    total += i * i\nprint(total)\n",
    "Write a function solve(n) that returns the sum of the first n numbers.",
]
WORDS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
SIZES = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}


def fenced(code: str) -> str:
    return f"Here it is.\n\n```python\n{code}\n```\n"


def tokenizer() -> PreTrainedTokenizerFast:
    """Byte-level BPE with the Qwen3 template that TRL ships, so that no hub is needed."""
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    bpe.train_from_iterator(
        CORPUS, trainers.BpeTrainer(vocab_size=400, initial_alphabet=alphabet, special_tokens=WORDS)
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        pad_token="<|endoftext|>",
        eos_token="<|im_end|>",
        chat_template=(files("trl") / "chat_templates" / "qwen3.jinja").read_text(),
    )


def save_policy(folder: Path, **settings: Any) -> Path:
    return _save(folder, Qwen3ForCausalLM, _qwen3(**settings))


def save_reward_model(folder: Path, *, num_labels: int = 1) -> Path:
    return _save(folder, Qwen3ForSequenceClassification, _qwen3(num_labels=num_labels))


def save_encoder(folder: Path) -> Path:
    return _save(folder, BertForSequenceClassification, BertConfig(**vocabulary(), **SIZES, num_labels=1))


def _qwen3(**settings: Any) -> Qwen3Config:
    return Qwen3Config(**vocabulary(), **SIZES, num_key_value_heads=1, head_dim=16, **settings)


def vocabulary() -> dict[str, int]:
    words = tokenizer()
    return {"vocab_size": len(words), "pad_token_id": words.pad_token_id, "eos_token_id": words.eos_token_id}


def _save(folder: Path, kind: Any, config: Any) -> Path:
    return save(folder, lambda: kind(config))


def save(folder: Path, make: Callable[[], Any]) -> Path:
    """A model with its tokenizer."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = make()
        # Fresh weights of 0.02 give logits so alike that a mix-up of samples would stay below any tolerance.
        for name, weight in model.named_parameters():
            if weight.dim() > 1 and "embed" not in name:
                torch.nn.init.normal_(weight, std=0.3)
    model.save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    return folder


class LengthScorer:
    """Scores by the length of the code, and keeps what it was asked."""

    def __init__(self) -> None:
        self.calls: list[list[tuple[str, str]]] = []

    def score(self, items: Sequence[tuple[str, str]]) -> list[float | None]:
        self.calls.append(list(items))
        return [float(len(code)) for _, code in items]


class FailingScorer:
    """A reward model that always fails, or from a call on; before, it scores by length."""

    def __init__(self, after: int = 0) -> None:
        self.calls, self.after = 0, after

    def score(self, items: Sequence[tuple[str, str]]) -> list[float | None]:
        self.calls += 1
        if self.calls <= self.after:
            return [float(len(code)) for _, code in items]
        raise ScorerError("out of memory; try a smaller max_tokens")
