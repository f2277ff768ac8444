"""Attention over a row of `prefix_tree.py`, as an attention function of transformers (`AttentionInterface`).

Each token attends to its own node causally and to all of every ancestor; the parts are merged by their log-sum-exp,
which is exact. On CPU and CUDA the parts go through torch's flash kernels, which return the log-sum-exp; where there
is none (another device, another torch), through plain matrix products. Gradients flow, for training. The CUDA kernels
have not been run by this project's CI, which has no GPU: `pytest -m gpu` checks them on a machine with one.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    import torch

from codescaler_plugin.scoring.prefix_tree import Node

IMPLEMENTATION = "codescaler_tree"
"""Name under which the function is registered."""

FAMILIES = ("qwen3", "qwen2", "llama", "mistral")


@dataclass(frozen=True)
class Segment:
    """Queries [start, end) over keys [key_start, key_end) of a row."""

    start: int
    end: int
    key_start: int
    key_end: int


Tree = tuple[list[Segment], list[Segment]]
"""Nodes over themselves (causal, each token once), and what stands below a node over the node (not causal)."""


def segments(nodes: list[Node]) -> Tree:
    """The parts of attention over a row with these nodes."""
    own = [Segment(node.start, node.end, node.start, node.end) for node in nodes if node.end > node.start]
    below = [
        Segment(node.end, node.subtree_end, node.start, node.end)
        for node in nodes
        if node.subtree_end > node.end > node.start
    ]
    return own, below


def is_eligible(config: Any) -> bool:
    """Whether every layer of a model attends causally to all earlier tokens, with static positions."""
    rope = getattr(config, "rope_parameters", None) or getattr(config, "rope_scaling", None) or {}
    kinds = set(getattr(config, "layer_types", None) or ["full_attention"])
    sliding = getattr(config, "sliding_window", None) if getattr(config, "use_sliding_window", True) else None
    return (
        config.model_type in FAMILIES
        and kinds == {"full_attention"}
        and sliding is None
        and rope.get("rope_type", "default") not in ("dynamic", "longrope")  # they depend on the row's length
    )


@cache
def register() -> str:
    """Make the function known to transformers; the name for `set_attn_implementation`."""
    from transformers import AttentionInterface

    AttentionInterface.register(IMPLEMENTATION, tree_attention)
    return IMPLEMENTATION


def tree_attention(
    module: Any,  # noqa: ARG001
    query: "torch.Tensor",
    key: "torch.Tensor",
    value: "torch.Tensor",
    attention_mask: None,  # noqa: ARG001
    *,
    scaling: float,
    tree: Tree,
    **_: Any,  # the interface of transformers
) -> tuple["torch.Tensor", None]:
    """Attention of one row.

    Args:
        module: the layer; not used.
        query: [1, heads, tokens, head_dim].
        key: [1, key heads, tokens, head_dim]; key heads divide heads.
        value: as key.
        attention_mask: None; the tree is the mask.
        scaling: factor of the dot products.
        tree: from `segments`.

    Returns:
        [1, tokens, heads, head_dim], and no weights.
    """
    import torch

    key_heads, tokens, width = key.shape[1:]
    # Query heads that share a key head stand beside it: [key heads, heads per key head, tokens, head_dim].
    q = query[0].view(key_heads, -1, tokens, width)
    k, v = key[0].unsqueeze(1), value[0].unsqueeze(1)
    if torch.is_grad_enabled() and any(tensor.requires_grad for tensor in (q, k, v)):
        out: torch.Tensor = _function().apply(q, k, v, tree, scaling)
    else:
        out = _forward(q, k, v, tree, scaling)[0]
    return out.reshape(1, -1, tokens, width).transpose(1, 2), None


def _forward(
    q: "torch.Tensor", k: "torch.Tensor", v: "torch.Tensor", tree: Tree, scale: float
) -> tuple["torch.Tensor", "torch.Tensor"]:
    """Output and log-sum-exp of [key heads, heads per key head, tokens, head_dim]; keys have one head per key head."""
    import torch

    own, inherited = tree
    attend = _kernel(q.device.type, str(q.dtype).removeprefix("torch.")).forward
    k, v = k.expand(-1, q.shape[1], -1, -1), v.expand(-1, q.shape[1], -1, -1)
    out, lse = q.new_empty(q.shape), q.new_empty(q.shape[:3], dtype=torch.float32)
    for part in own:
        rows = slice(part.start, part.end)
        out[:, :, rows], lse[:, :, rows] = attend(q[:, :, rows], k[:, :, rows], v[:, :, rows], True, scale)
    for part in inherited:
        rows, keys = slice(part.start, part.end), slice(part.key_start, part.key_end)
        more, more_lse = attend(q[:, :, rows], k[:, :, keys], v[:, :, keys], False, scale)
        _merge(out[:, :, rows], lse[:, :, rows], more, more_lse)
    return out, lse


def _backward(
    grad: "torch.Tensor",
    q: "torch.Tensor",
    k: "torch.Tensor",
    v: "torch.Tensor",
    out: "torch.Tensor",
    lse: "torch.Tensor",
    tree: Tree,
    scale: float,
) -> tuple["torch.Tensor", "torch.Tensor", "torch.Tensor"]:
    """Gradients of q, k and v.

    With the log-sum-exp over all keys in place of a part's own, a kernel's backward pass gives that part's share of
    the whole gradient; the shares add up.
    """
    import torch

    own, inherited = tree
    attend = _kernel(q.device.type, str(q.dtype).removeprefix("torch.")).backward
    wide_k, wide_v = k.expand(-1, q.shape[1], -1, -1), v.expand(-1, q.shape[1], -1, -1)
    dq, dk, dv = (torch.zeros(q.shape, device=q.device, dtype=torch.float32) for _ in range(3))
    parts = [(part, True) for part in own] + [(part, False) for part in inherited]
    for part, causal in parts:
        rows, keys = slice(part.start, part.end), slice(part.key_start, part.key_end)
        shares = attend(
            grad[:, :, rows],
            q[:, :, rows],
            wide_k[:, :, keys],
            wide_v[:, :, keys],
            out[:, :, rows],
            lse[:, :, rows],
            causal,
            scale,
        )
        for total, where, share in zip((dq, dk, dv), (rows, keys, keys), shares, strict=True):
            total[:, :, where] += share
    return dq.to(q.dtype), dk.sum(1, keepdim=True).to(k.dtype), dv.sum(1, keepdim=True).to(v.dtype)


@cache
def _function() -> Any:
    """The autograd function; made on first use, for the module is imported without torch."""
    import torch

    class TreeAttention(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, q: Any, k: Any, v: Any, tree: Tree, scale: float) -> Any:
            out, lse = _forward(q, k, v, tree, scale)
            ctx.save_for_backward(q, k, v, out, lse)
            ctx.tree, ctx.scale = tree, scale
            return out

        @staticmethod
        def backward(ctx: Any, grad: Any) -> Any:
            q, k, v, out, lse = ctx.saved_tensors
            return (*_backward(grad.contiguous(), q, k, v, out, lse, ctx.tree, ctx.scale), None, None)

    return TreeAttention


def _merge(out: "torch.Tensor", lse: "torch.Tensor", more: "torch.Tensor", more_lse: "torch.Tensor") -> None:
    """Attention over two disjoint sets of keys from attention over each, written to the first."""
    import torch

    weight = torch.sigmoid(more_lse - lse).unsqueeze(-1)  # e^b / (e^a + e^b)
    lse.copy_(torch.logaddexp(lse, more_lse))
    out.copy_(torch.lerp(out.float(), more.float(), weight))


class Kernel(NamedTuple):
    """Attention of [a, b, queries, head_dim] over [a, b, keys, head_dim], causal (equal lengths) or over all keys.

    Attributes:
        forward: (q, k, v, causal, scale) -> output, log-sum-exp [a, b, queries] in float32.
        backward: (gradient, q, k, v, output, log-sum-exp, causal, scale) -> gradients of q, k, v.
    """

    forward: Callable[..., tuple[Any, Any]]
    backward: Callable[..., tuple[Any, Any, Any]]


@cache
def _kernel(device: str, dtype: str) -> Kernel:
    """The kernel of a device, probed once, both ways: those of torch are its internals."""
    import torch

    kernel = _FLASH.get(device) if device == "cpu" or dtype in ("float16", "bfloat16") else _EFFICIENT.get(device)
    if kernel is None:
        return _PLAIN
    generator = torch.Generator(device).manual_seed(0)
    q, k, v, grad = (
        torch.randn(2, heads, 9, 16, device=device, generator=generator).to(getattr(torch, dtype))
        for heads in (2, 1, 1, 2)
    )
    k, v = k.expand(-1, 2, -1, -1), v.expand(-1, 2, -1, -1)
    try:
        for causal in (True, False):
            expected = out, lse = _PLAIN.forward(q, k, v, causal, 0.3)
            _assert_close(kernel.forward(q, k, v, causal, 0.3), expected)
            given = (grad, q, k, v, out, lse, causal, 0.3)
            _assert_close(kernel.backward(*given), _PLAIN.backward(*given))
    except (AttributeError, RuntimeError, TypeError, AssertionError):
        return _PLAIN
    return kernel


def _assert_close(got: tuple[Any, ...], expected: tuple[Any, ...]) -> None:
    import torch

    for one, other in zip(got, expected, strict=True):
        torch.testing.assert_close(one.float(), other.float(), rtol=3e-2, atol=3e-2)


def _cpu_forward(q: Any, k: Any, v: Any, causal: bool, scale: float) -> tuple[Any, Any]:
    import torch

    out, lse = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(q, k, v, 0.0, causal, scale=scale)
    return out, lse


def _cpu_backward(
    grad: Any, q: Any, k: Any, v: Any, out: Any, lse: Any, causal: bool, scale: float
) -> tuple[Any, Any, Any]:
    import torch

    dq, dk, dv = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward(
        grad, q, k, v, out, lse, 0.0, causal, scale=scale
    )
    return dq, dk, dv


def _cuda_flash_forward(q: Any, k: Any, v: Any, causal: bool, scale: float) -> tuple[Any, Any]:
    import torch

    out, lse, *_ = torch.ops.aten._scaled_dot_product_flash_attention(q, k, v, 0.0, causal, False, scale=scale)
    return out, lse[:, :, : q.shape[2]]


def _cuda_flash_backward(
    grad: Any, q: Any, k: Any, v: Any, out: Any, lse: Any, causal: bool, scale: float
) -> tuple[Any, Any, Any]:
    import torch

    unused = torch.zeros((), dtype=torch.int64, device=q.device)  # the state of a dropout that is off
    lengths = (None, None, q.shape[2], k.shape[2])
    dq, dk, dv = torch.ops.aten._scaled_dot_product_flash_attention_backward(
        grad, q, k, v, out, lse.contiguous(), *lengths, 0.0, causal, unused, unused, scale=scale
    )
    return dq, dk, dv


def _cuda_efficient_forward(q: Any, k: Any, v: Any, causal: bool, scale: float) -> tuple[Any, Any]:
    import torch

    out, lse, *_ = torch.ops.aten._scaled_dot_product_efficient_attention(
        q, k, v, None, True, 0.0, causal, scale=scale
    )
    return out, lse[:, :, : q.shape[2]]


def _plain_forward(q: Any, k: Any, v: Any, causal: bool, scale: float) -> tuple[Any, Any]:
    products = _products(q, k, causal, scale)
    lse = products.logsumexp(-1)
    return (products - lse.unsqueeze(-1)).exp().to(v.dtype) @ v, lse


def _plain_backward(
    grad: Any, q: Any, k: Any, v: Any, out: Any, lse: Any, causal: bool, scale: float
) -> tuple[Any, Any, Any]:
    weights = (_products(q, k, causal, scale) - lse.unsqueeze(-1)).exp()
    grad, out = grad.float(), out.float()
    change = weights * (grad @ v.float().transpose(-1, -2) - (grad * out).sum(-1, keepdim=True)) * scale
    return change @ k.float(), change.transpose(-1, -2) @ q.float(), weights.transpose(-1, -2) @ grad


def _products(q: Any, k: Any, causal: bool, scale: float) -> Any:
    import torch

    products = (q @ k.transpose(-1, -2)).float() * scale
    if causal:
        products.masked_fill_(torch.ones_like(products[0, 0], dtype=torch.bool).triu(1), float("-inf"))
    return products


_PLAIN = Kernel(_plain_forward, _plain_backward)
_FLASH = {"cpu": Kernel(_cpu_forward, _cpu_backward), "cuda": Kernel(_cuda_flash_forward, _cuda_flash_backward)}
_EFFICIENT = {"cuda": Kernel(_cuda_efficient_forward, _plain_backward)}
