"""Token ids -> raw logits, by forward passes of a classifier of transformers.

`tree_logits` computes shared prefixes once (`prefix_tree.py`, `attention.py`). `padded_logits` works for every model
and computes each sequence in full. Both pool at the known last token and apply the head in float32.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from codescaler_plugin.scoring import families
from codescaler_plugin.scoring.compat import attention_implementation, brings_code
from codescaler_plugin.scoring.loading import text_config
from codescaler_plugin.scoring.prefix_tree import Row, plan_rows

MAX_TOKENS = 16_384
"""Default for the most tokens of a forward pass: enough to saturate a GPU."""
_MIN_TOKENS = 1024
_BACKEND = "inductor"
PADDED_TOKENS = 8192
"""Most tokens of a padded batch: beyond it a CPU gets slower and a GPU no faster."""


@dataclass(frozen=True)
class Pass:
    """The result of one forward pass: (item index, logit) pairs, the tokens computed, and the padding among them."""

    logits: list[tuple[int, float]]
    tokens: int
    padding: int


def tree_logits(model: Any, items: Sequence[list[int]], *, max_tokens: int) -> Iterator[Pass]:
    """Yield each item's logit once, in the order of the plan. Only for models without a `reason_not_to_share`.

    Items are token ids, none empty. One above `max_tokens`, the tokens of a forward pass, gets a pass of its own.
    """
    import torch

    from codescaler_plugin.scoring import forward_cpu

    for row in plan_rows(items, max_tokens=max_tokens):
        read = [last for _, last in row.lasts]
        with tree_attention(model), forward_cpu.faster(model, read), torch.inference_mode():
            logits = row_logits(model, row).tolist()
        pairs = [(item, logit) for (item, _), logit in zip(row.lasts, logits, strict=True)]
        yield Pass(pairs, len(row.tokens), 0)


def row_logits(model: Any, row: Row) -> Any:
    """Return the logits of a row's items as a float32 tensor [items], in the order of `row.lasts`."""
    import torch

    from codescaler_plugin.scoring import attention

    device, tree = model.device, attention.Tree(row.nodes)
    hidden = model.base_model(
        input_ids=torch.tensor([row.tokens], device=device),
        position_ids=torch.tensor([row.positions], device=device),
        use_cache=False,
        tree=tree.paths(device) if can_compile(model) else tree,
    ).last_hidden_state[0]
    return _head(model, hidden[torch.tensor([last for _, last in row.lasts], device=device)])


def can_compile(model: Any) -> bool:
    """Return True if one compilation serves rows of all lengths: on a GPU with `varlen_attn`, in half precision."""
    from codescaler_plugin.scoring import attention

    return attention.takes_paths(model.device, model.dtype, head_width(model.config))


def head_width(config: Any) -> int:
    """The size of a query, key or value of one head."""
    return int(getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads)


def compile_layers(model: Any) -> None:
    """Fuse the work of the layers between matrix products (`torch.compile`). Only for a model that `can_compile`.

    The first pass after it takes seconds. Scores change by the rounding of the model's precision.
    """
    import torch

    for layer in model.base_model.layers:
        layer.forward = torch.compile(layer.forward, dynamic=True, backend=_BACKEND)


def uncompile_layers(model: Any) -> None:
    """Undo `compile_layers`."""
    for layer in model.base_model.layers:
        vars(layer).pop("forward", None)


def padded_logits(model: Any, items: Sequence[list[int]], *, max_tokens: int) -> Iterator[Pass]:
    """Yield each item's logit once, longest first, in batches of similar length; `max_tokens` includes padding.

    Models with code of their own, or without a linear head on a token's hidden state (such as encoders), keep their
    own pooling. They get batches of one if they have no pad token. Encoder-decoders always do: the token that T5Gemma
    reads depends on the padding.
    """
    import torch

    device = model.device
    linear = _has_linear_head(model)
    pad = getattr(text_config(model), "pad_token_id", None)
    batched = linear or (pad is not None and not model.config.is_encoder_decoder)
    budget = min(max_tokens, PADDED_TOKENS) if batched else 1
    fill = 0 if linear else pad or 0  # masked in the attention, and the linear head reads the known last token
    order = sorted(range(len(items)), key=lambda index: len(items[index]), reverse=True)
    while order:
        width = len(items[order[0]])
        size = max(1, budget // width)
        batch, order = order[:size], order[size:]
        lengths = torch.tensor([len(items[index]) for index in batch], device=device)
        ids = torch.tensor([items[index] + [fill] * (width - len(items[index])) for index in batch], device=device)
        mask = (torch.arange(width, device=device) < lengths[:, None]).long()
        with torch.inference_mode():
            if linear:
                hidden = model.base_model(input_ids=ids, attention_mask=mask, use_cache=False).last_hidden_state
                logits = _head(model, hidden[torch.arange(len(batch), device=device), lengths - 1])
            else:
                logits = model(input_ids=ids, attention_mask=mask).logits.float().squeeze(-1)
        tokens = width * len(batch)
        yield Pass(list(zip(batch, logits.tolist(), strict=True)), tokens, tokens - int(lengths.sum()))


def reason_not_to_share(model: Any) -> str | None:
    """Return why a model cannot use `tree_logits`; None for a decoder of `families.SHARED` with a linear head."""
    if not _has_linear_head(model):
        return "it has no linear head on a token's hidden state, or brings code of its own"
    return families.unsupported_reason(model.config, decoder=model.base_model)


def fitting_tokens(model: Any) -> int:
    """Return the tokens of a forward pass whose activations take a quarter of the free memory."""
    import psutil
    import torch

    config = text_config(model)
    hidden = config.hidden_size
    wide = getattr(config, "intermediate_size", None) or 4 * hidden
    # Residual stream and norms in two precisions, both halves of the MLP and their product, queries to values twice.
    per_token = model.get_input_embeddings().weight.element_size() * (8 * hidden + 3 * wide + 6 * hidden)
    cuda = model.device.type == "cuda"
    free = torch.cuda.mem_get_info(model.device)[0] if cuda else psutil.virtual_memory().available
    return int(min(MAX_TOKENS, max(_MIN_TOKENS, free // 4 // per_token)))


def out_of_memory(error: Exception) -> bool:
    """Return True for an error of an allocation that failed, on a GPU or a CPU."""
    import torch

    return isinstance(error, torch.cuda.OutOfMemoryError) or "can't allocate memory" in str(error)


def _has_linear_head(model: Any) -> bool:
    import torch

    # Code of its own might do anything between the hidden state and the head.
    return not brings_code(model) and isinstance(getattr(model, "score", None), torch.nn.Linear)


def _head(model: Any, hidden: Any) -> Any:
    import torch

    bias = None if model.score.bias is None else model.score.bias.float()
    return torch.nn.functional.linear(hidden.float(), model.score.weight.float(), bias).squeeze(-1)


@contextmanager
def tree_attention(model: Any) -> Iterator[None]:
    """Inside, the model attends along the tree of its `tree=` argument. Only for one thread at a time."""
    from codescaler_plugin.scoring import attention

    before = attention_implementation(model)
    model.set_attn_implementation(attention.register())
    try:
        yield
    finally:
        model.set_attn_implementation(before)
