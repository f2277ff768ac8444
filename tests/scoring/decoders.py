"""A tiny decoder of every family, sequences that share prefixes, and the kernel of CUDA in plain products."""

from itertools import pairwise
from typing import Any

import pytest
import torch
from transformers import CONFIG_MAPPING, AutoConfig, AutoModelForSequenceClassification

from codescaler_plugin.scoring import families
from codescaler_plugin.scoring.forward import padded_logits

SIZES = {
    "vocab_size": 300,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "num_labels": 1,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
MORE: dict[str, dict[str, Any]] = {
    "qwen3": {"head_dim": 16},
    "qwen3_moe": {"num_experts": 4, "moe_intermediate_size": 32, "num_experts_per_tok": 2},
    "qwen2_moe": {"num_experts": 4, "moe_intermediate_size": 32, "shared_expert_intermediate_size": 32},
    "mistral": {"sliding_window": None},
    "mixtral": {"num_local_experts": 4, "sliding_window": None},
    "gemma3_text": {"head_dim": 16, "layer_types": ["sliding_attention", "sliding_attention", "full_attention"]},
    **{one: {"head_dim": 16} for one in ("gemma", "glm", "glm4", "helium", "ministral", "hunyuan_v1_dense")},
}
WINDOW = 24
"""Shorter than the samples and than their prompts."""
WINDOWS: dict[str, dict[str, Any]] = {
    "window": {"sliding_window": WINDOW},
    "window of the first layers": {"sliding_window": WINDOW, "use_sliding_window": True, "max_window_layers": 2},
    "window of all layers": {"sliding_window": WINDOW, "use_sliding_window": True, "max_window_layers": 0},
    "window by layer": {
        "sliding_window": WINDOW,
        "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
    },
}
"""Ways in which a config can say it; families differ in which they heed."""
CASES = [(family, said) for family in families.SHARED for said in (None, *WINDOWS)]


def config_of(family: str, window: str | None = None) -> Any:
    if family not in CONFIG_MAPPING:
        pytest.skip(f"this transformers has no {family}")
    return type(AutoConfig.for_model(family))(**{**SIZES, **MORE.get(family, {}), **WINDOWS.get(str(window), {})})


def model_of(family: str, dtype: torch.dtype = torch.float32, device: str = "cpu", window: str | None = None) -> Any:
    config = config_of(family, window)
    torch.manual_seed(0)
    model = AutoModelForSequenceClassification.from_config(config).eval()
    for name, weight in model.named_parameters():
        if weight.dim() > 1 and "embed" not in name:
            torch.nn.init.normal_(weight, std=0.2)
    return model.to(device, dtype)


def items() -> list[list[int]]:
    """Groups with shared prompts, shared first lines of code, prefixes of one another, duplicates, and strangers."""
    generator = torch.Generator().manual_seed(0)

    def some(count: int) -> list[int]:
        return torch.randint(1, 300, (count,), generator=generator).tolist()

    prompt, start, other = some(70), some(25), some(40)
    made = [[*prompt, *some(count)] for count in (1, 17, 60)]
    made += [[*prompt, *start, *some(count)] for count in (5, 30)] + [[*prompt, *start]] * 2 + [prompt]
    return [*made, [*other, *some(9)], [*other, *some(33)], some(3), [7]]


def logits(passes) -> list[float]:
    return [logit for _, logit in sorted(pair for done in passes for pair in done.logits)]


def single_logits(model: Any) -> list[float]:
    """The logits of `items()`, each in a forward pass of its own."""
    try:
        return logits(padded_logits(model, items(), max_tokens=1))
    except ValueError as error:
        pytest.skip(f"transformers itself refuses this: {error}")


def sequences(ends: torch.Tensor) -> list[slice]:
    return [slice(start, end) for start, end in pairwise(ends.tolist())]


def plain_varlen(q, k, v, row_ends, key_ends, most_rows, most_keys, *, scale, window_size, enable_gqa=False):
    """What `varlen_attn` computes, in plain products."""
    assert (row_ends.dtype, key_ends.dtype) == (torch.int32, torch.int32)
    assert most_rows == int(row_ends.diff().max())
    assert most_keys == int(key_ends.diff().max())
    k, v = (one.repeat_interleave(q.shape[1] // one.shape[1], 1) for one in (k, v))
    outs = []
    for rows, keys in zip(sequences(row_ends), sequences(key_ends), strict=True):
        products = torch.einsum("qhd,khd->hqk", q[rows], k[keys]) * scale
        last = torch.arange(products.shape[2] - products.shape[1], products.shape[2])[:, None]  # aligned at the end
        before = last - torch.arange(products.shape[2])
        hidden = (before < 0) | ((before > window_size[0]) if window_size[0] >= 0 else False)
        weights = products.masked_fill(hidden, float("-inf")).softmax(-1)
        outs.append(torch.einsum("hqk,khd->qhd", weights, v[keys]))
    return torch.cat(outs)
