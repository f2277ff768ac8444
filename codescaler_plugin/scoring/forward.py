"""Token ids -> raw logits, by forward passes of a classifier of transformers.

`tree_logits` computes shared prefixes once (`prefix_tree.py`, `attention.py`); `padded_logits` works for every model
and computes each sample in full. Both pool at the known last token and apply the head in float32. They leave the
model's settings as they found them, and do not catch what the model raises.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from codescaler_plugin.scoring import families
from codescaler_plugin.scoring.loading import text_config
from codescaler_plugin.scoring.prefix_tree import Row, plan_rows

MAX_TOKENS = 16_384
"""Most tokens of a forward pass unless a caller says otherwise: enough to saturate a GPU."""
_MIN_TOKENS = 1024

_BACKEND = "inductor"

PADDED_TOKENS = 8192
"""Most tokens of a padded batch: beyond it a CPU gets slower and a GPU no faster."""


@dataclass(frozen=True)
class Pass:
    """What one forward pass computed: (item, logit) pairs, the tokens put through the model, and those of padding."""

    logits: list[tuple[int, float]]
    tokens: int
    padding: int


def tree_logits(model: Any, items: Sequence[list[int]], *, max_tokens: int) -> Iterator[Pass]:
    """Each item's logit once, in the order of the plan. Only for models that can (`reason_not_to_share`).

    Args:
        model: a sequence classifier with a linear head `score`.
        items: n lists of token ids, none empty.
        max_tokens: of a forward pass; one longer item goes alone.
    """
    import torch

    from codescaler_plugin.scoring import forward_cpu

    for row in plan_rows(items, max_tokens=max_tokens):
        read = [last for _, last in row.lasts]
        with tree_attention(model), forward_cpu.faster(model, read), torch.inference_mode():
            logits = row_logits(model, row)
        values = logits.tolist()
        pairs = [(item, value) for (item, _), value in zip(row.lasts, values, strict=True)]
        yield Pass(pairs, len(row.tokens), 0)


def row_logits(model: Any, row: Row) -> Any:
    """The logits of a row's items as a float32 tensor [items], in the order of `row.lasts`."""
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
    """Whether `compile_layers` serves rows of all lengths: on a GPU with `varlen_attn`, in half precision."""
    from codescaler_plugin.scoring import attention

    return attention.takes_paths(model.device, model.dtype, head_width(model.config))


def head_width(config: Any) -> int:
    """Of a query, a key or a value of one head."""
    width: int = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    return width


def compile_layers(model: Any) -> None:
    """Fuse what the layers of a decoder that `can_compile` do between matrix products (`torch.compile`).

    All layers share what is compiled, and so do rows of all lengths. The first pass after it takes seconds. Scores
    differ by the rounding of the model's precision.
    """
    import torch

    for layer in model.base_model.layers:
        layer.forward = torch.compile(layer.forward, dynamic=True, backend=_BACKEND)


def uncompile_layers(model: Any) -> None:
    """As before `compile_layers`."""
    for layer in model.base_model.layers:
        vars(layer).pop("forward", None)


def padded_logits(model: Any, items: Sequence[list[int]], *, max_tokens: int) -> Iterator[Pass]:
    """Each item's logit once, longest first, in batches of similar length.

    Models without a linear head on a token's hidden state, encoders say, or with code of their own keep their own
    pooling. They score one sample at a time if that goes by a pad token and there is none, and encoder-decoders
    always: which token T5Gemma reads depends on the padding.

    Args:
        model: a sequence classifier.
        items: n lists of token ids, none empty.
        max_tokens: of a batch, padding included; one longer item goes alone.
    """
    import torch

    device = model.device
    linear = _has_linear_head(model)
    pad = getattr(text_config(model), "pad_token_id", None)
    batched = linear or (pad is not None and not model.config.is_encoder_decoder)
    budget = min(max_tokens, PADDED_TOKENS) if batched else 1
    fill = 0 if linear else pad or 0  # attention masks it, and the linear head is put on the last token by length
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
    """Why `tree_logits` does not work for a model; None if it does: a decoder of `families.SHARED`, a linear head."""
    if not _has_linear_head(model):
        return "it has no linear head on a token's hidden state, or brings code of its own"
    return families.reason_not_to_share(model.config, decoder=model.base_model)


def fitting_tokens(model: Any) -> int:
    """Tokens of a forward pass whose activations take a quarter of the free memory."""
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
    """Whether torch could not get the memory that it asked for."""
    import torch

    return isinstance(error, torch.cuda.OutOfMemoryError) or "can't allocate memory" in str(error)


def _has_linear_head(model: Any) -> bool:
    """Whether the model scores the hidden state of a token, as the decoders of transformers do.

    Of a model with code of its own nobody knows what it does between the two.
    """
    import torch
    from transformers.dynamic_module_utils import TRANSFORMERS_DYNAMIC_MODULE_NAME

    is_own = type(model).__module__.partition(".")[0] == TRANSFORMERS_DYNAMIC_MODULE_NAME
    return not is_own and isinstance(getattr(model, "score", None), torch.nn.Linear)


def _head(model: Any, hidden: Any) -> Any:
    import torch

    bias = None if model.score.bias is None else model.score.bias.float()
    return torch.nn.functional.linear(hidden.float(), model.score.weight.float(), bias).squeeze(-1)


@contextmanager
def tree_attention(model: Any) -> Iterator[None]:
    """The model attends by the tree inside, and as before after. Not for two threads at once."""
    from codescaler_plugin.scoring import attention

    before = model.config._attn_implementation
    model.set_attn_implementation(attention.register())
    try:
        yield
    finally:
        model.set_attn_implementation(before)
