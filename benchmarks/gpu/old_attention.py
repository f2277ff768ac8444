"""Attention over a row of `prefix_tree.py`, as an attention function of transformers (`AttentionInterface`).

Each token attends to its own node causally and to all of every ancestor; the parts are merged by their log-sum-exp,
which is exact. On a CPU the parts go one by one through torch's flash kernel, which returns the log-sum-exp. On CUDA
all parts of one depth go through one call of the flash kernel for sequences of varying length (float16, bfloat16), or
one by one through the memory-efficient kernel (float32). Elsewhere, and where a kernel fails its probe, they go
through plain matrix products. Gradients flow, for training. The CUDA kernels have not been run by this project's CI,
which has no GPU: there their arguments and shapes alone are checked. `pytest -m gpu -n 0 --no-cov` checks their
numbers on a machine with one.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cache
from itertools import accumulate
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    import torch

from codescaler_plugin.scoring.prefix_tree import Node

IMPLEMENTATION = "codescaler_merge"
"""Name under which the function is registered."""

FAMILIES = ("qwen3", "qwen2", "llama", "mistral")


@dataclass(frozen=True)
class Segment:
    """Queries [start, end) over keys [key_start, key_end) of a row."""

    start: int
    end: int
    key_start: int
    key_end: int


@dataclass(frozen=True)
class Level:
    """Segments of which no two share a query or a key, so that one call of a kernel can take them all.

    Attributes:
        parts: each with queries and keys.
        causal: each part is a node over itself; else all its queries see all its keys.
    """

    parts: tuple[Segment, ...]
    causal: bool
    _packed: "dict[torch.device, Packed]" = field(default_factory=dict, compare=False, repr=False)

    def packed(self, device: "torch.device") -> "Packed":
        """The parts end to end; made once, for all layers of a model."""
        if device not in self._packed:
            self._packed[device] = _pack(self.parts, device)
        return self._packed[device]


class Packed(NamedTuple):
    """Segments end to end, as kernels for sequences of varying length take them.

    Attributes:
        rows: [queries] their places in the row.
        keys: [keys] likewise.
        row_ends: [parts + 1] int32, 0 and the running sum of the numbers of queries.
        key_ends: likewise for keys.
        most_rows: of a part.
        most_keys: of a part.
    """

    rows: "torch.Tensor"
    keys: "torch.Tensor"
    row_ends: "torch.Tensor"
    key_ends: "torch.Tensor"
    most_rows: int
    most_keys: int


def _pack(parts: tuple[Segment, ...], device: "torch.device") -> Packed:
    import torch

    def places(ranges: list[range]) -> tuple["torch.Tensor", "torch.Tensor"]:
        sizes = accumulate(map(len, ranges), initial=0)
        return (
            torch.tensor([place for one in ranges for place in one], device=device),
            torch.tensor(list(sizes), dtype=torch.int32, device=device),
        )

    rows = [range(part.start, part.end) for part in parts]
    keys = [range(part.key_start, part.key_end) for part in parts]
    (row_places, row_ends), (key_places, key_ends) = places(rows), places(keys)
    return Packed(row_places, key_places, row_ends, key_ends, max(map(len, rows)), max(map(len, keys)))


TreeT = list[Level]
"""Nodes over themselves, each token once; then, by the depth of the node, what stands below a node over the node."""


def segments(nodes: list[Node]) -> "TreeT":
    """The parts of attention over a row with these nodes."""
    filled = [node for node in nodes if node.end > node.start]
    tree = [Level(tuple(Segment(node.start, node.end, node.start, node.end) for node in filled), causal=True)]
    for depth in sorted({node.depth for node in filled}):
        parts = tuple(
            Segment(node.end, node.subtree_end, node.start, node.end)
            for node in filled
            if node.depth == depth and node.subtree_end > node.end
        )
        if parts:
            tree.append(Level(parts, causal=False))
    return tree


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
    tree: "TreeT",
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

    if not query.dtype == key.dtype == value.dtype:  # under autocast norms and rotations are float32; SDPA casts too
        query, key = query.to(value.dtype), key.to(value.dtype)
    key_heads, tokens, width = key.shape[1:]
    # Query heads that share a key head stand beside it: [key heads, heads per key head, tokens, head_dim].
    q = query[0].view(key_heads, -1, tokens, width)
    k, v = key[0].unsqueeze(1), value[0].unsqueeze(1)
    kernel = _kernel(q.device.type, str(q.dtype).removeprefix("torch."))
    if torch.is_grad_enabled() and any(tensor.requires_grad for tensor in (q, k, v)):
        out: torch.Tensor = _function().apply(q, k, v, tree, scaling, kernel)
    else:
        out = _forward(q, k, v, tree, scaling, kernel)[0]
    return out.reshape(1, -1, tokens, width).transpose(1, 2), None


class Kernel(NamedTuple):
    """Attention over the parts of a level; q, k and v as in `_forward`.

    Attributes:
        forward: (q, k, v, level, scale) -> queries' places, output, log-sum-exp in float32, for some parts at a time.
        backward: (gradient, q, k, v, output, log-sum-exp, level, scale) -> queries' places, keys' places, gradients of
            q, k, v there, for some parts at a time.
    """

    forward: Callable[..., Iterator[tuple[Any, Any, Any]]]
    backward: Callable[..., Iterator[tuple[Any, Any, tuple[Any, Any, Any]]]]


def _forward(
    q: "torch.Tensor", k: "torch.Tensor", v: "torch.Tensor", tree: "TreeT", scale: float, kernel: Kernel
) -> tuple["torch.Tensor", "torch.Tensor"]:
    """Output and log-sum-exp of q [key heads, heads per key head, tokens, head_dim]; k and v have one head per key."""
    import torch

    out, lse = q.new_empty(q.shape), q.new_empty(q.shape[:3], dtype=torch.float32)
    for level in tree:
        for rows, more, more_lse in kernel.forward(q, k, v, level, scale):
            if level.causal:
                out[:, :, rows], lse[:, :, rows] = more, more_lse
                continue
            old, old_lse = out[:, :, rows], lse[:, :, rows]
            weight = torch.sigmoid(more_lse - old_lse).unsqueeze(-1)  # e^b / (e^a + e^b)
            out[:, :, rows] = torch.lerp(old.float(), more.float(), weight).to(out.dtype)
            lse[:, :, rows] = torch.logaddexp(old_lse, more_lse)
    return out, lse


def _backward(
    grad: "torch.Tensor",
    q: "torch.Tensor",
    k: "torch.Tensor",
    v: "torch.Tensor",
    out: "torch.Tensor",
    lse: "torch.Tensor",
    tree: "TreeT",
    scale: float,
    kernel: Kernel,
) -> tuple["torch.Tensor", "torch.Tensor", "torch.Tensor"]:
    """Gradients of q, k and v.

    With the log-sum-exp over all keys in place of a part's own, a kernel's backward pass gives that part's share of
    the whole gradient; the shares add up.
    """
    import torch

    dq, dk, dv = (torch.zeros(one.shape, device=q.device, dtype=torch.float32) for one in (q, k, v))
    for level in tree:
        for rows, keys, shares in kernel.backward(grad, q, k, v, out, lse, level, scale):
            for total, where, share in zip((dq, dk, dv), (rows, keys, keys), shares, strict=True):
                total[:, :, where] += share
    return dq.to(q.dtype), dk.to(k.dtype), dv.to(v.dtype)


@cache
def _function() -> Any:
    """The autograd function; made on first use, for the module is imported without torch."""
    import torch

    class TreeAttention(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, q: Any, k: Any, v: Any, tree: "TreeT", scale: float, kernel: Kernel) -> Any:
            out, lse = _forward(q, k, v, tree, scale, kernel)
            ctx.save_for_backward(q, k, v, out, lse)
            ctx.rest = tree, scale, kernel
            return out

        @staticmethod
        def backward(ctx: Any, grad: Any) -> Any:
            return (*_backward(grad.contiguous(), *ctx.saved_tensors, *ctx.rest), None, None, None)

    return TreeAttention


@cache
def _kernel(device: str, dtype: str) -> Kernel:
    """The kernel of a device, probed once, both ways: those of torch are its internals."""
    import torch

    kernel = _FLASH.get(device) if device == "cpu" or dtype in ("float16", "bfloat16") else _EFFICIENT.get(device)
    if kernel is None:
        return _PLAIN
    generator = torch.Generator(device).manual_seed(0)
    q, k, v, grad = (
        torch.randn(2, heads, _PROBE[0].subtree_end, 16, device=device, generator=generator).to(getattr(torch, dtype))
        for heads in (2, 1, 1, 2)
    )
    tree = segments(_PROBE)
    try:
        expected = out, lse = _forward(q, k, v, tree, 0.3, _PLAIN)
        _assert_close(_forward(q, k, v, tree, 0.3, kernel), expected)
        given = (grad, q, k, v, out, lse, tree, 0.3)
        _assert_close(_backward(*given, kernel), _backward(*given, _PLAIN))
    except (AttributeError, RuntimeError, TypeError, AssertionError):
        return _PLAIN
    return kernel


# A prompt, under it a leaf and a node with two leaves of their own.
_PROBE = [Node(0, 9, 30, 0), Node(9, 12, 12, 1), Node(12, 19, 30, 1), Node(19, 24, 24, 2), Node(24, 30, 30, 2)]


def _assert_close(got: tuple[Any, ...], expected: tuple[Any, ...]) -> None:
    import torch

    for one, other in zip(got, expected, strict=True):
        torch.testing.assert_close(one.float(), other.float(), rtol=3e-2, atol=3e-2)


def _one_by_one(attend: Callable[..., Any], differentiate: Callable[..., Any]) -> Kernel:
    """A kernel from the attention of [a, b, queries, head_dim] over [a, b, keys, head_dim], and its gradients.

    Args:
        attend: (q, k, v, causal, scale) -> output, log-sum-exp [a, b, queries] in float32; causal: equal lengths.
        differentiate: (gradient, q, k, v, output, log-sum-exp, causal, scale) -> gradients of q, k, v.
    """

    def forward(q: Any, k: Any, v: Any, level: Level, scale: float) -> Iterator[tuple[Any, Any, Any]]:
        k, v = k.expand(-1, q.shape[1], -1, -1), v.expand(-1, q.shape[1], -1, -1)
        for part in level.parts:
            rows, keys = slice(part.start, part.end), slice(part.key_start, part.key_end)
            yield rows, *attend(q[:, :, rows], k[:, :, keys], v[:, :, keys], level.causal, scale)

    def backward(
        grad: Any, q: Any, k: Any, v: Any, out: Any, lse: Any, level: Level, scale: float
    ) -> Iterator[tuple[Any, Any, tuple[Any, Any, Any]]]:
        k, v = k.expand(-1, q.shape[1], -1, -1), v.expand(-1, q.shape[1], -1, -1)
        for part in level.parts:
            rows, keys = slice(part.start, part.end), slice(part.key_start, part.key_end)
            grad_, q_, out_, lse_ = (one[:, :, rows] for one in (grad, q, out, lse))
            k_, v_ = k[:, :, keys], v[:, :, keys]
            dq, dk, dv = differentiate(grad_, q_, k_, v_, out_, lse_, level.causal, scale)
            yield rows, keys, (dq, dk.sum(1, keepdim=True), dv.sum(1, keepdim=True))

    return Kernel(forward, backward)


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


def _varlen_forward(q: Any, k: Any, v: Any, level: Level, scale: float) -> Iterator[tuple[Any, Any, Any]]:
    import torch

    packed = level.packed(q.device)
    given = _end_to_end(q, packed.rows), _end_to_end(k, packed.keys), _end_to_end(v, packed.keys)
    out, lse, *_ = torch.ops.aten._flash_attention_forward(*given, *packed[2:], 0.0, level.causal, False, scale=scale)
    yield packed.rows, _by_heads(out, q), lse.unflatten(0, q.shape[:2])


def _varlen_backward(
    grad: Any, q: Any, k: Any, v: Any, out: Any, lse: Any, level: Level, scale: float
) -> Iterator[tuple[Any, Any, tuple[Any, Any, Any]]]:
    import torch

    packed = level.packed(q.device)
    grad_, q_, out_ = (_end_to_end(one, packed.rows) for one in (grad, q, out))
    k_, v_ = (_end_to_end(one, packed.keys) for one in (k, v))
    lse_ = lse.flatten(0, 1)[:, packed.rows].contiguous()
    unused = torch.zeros(2, dtype=torch.uint64, device=q.device)  # the state of a dropout that is off
    dq, dk, dv = torch.ops.aten._flash_attention_backward(
        grad_, q_, k_, v_, out_, lse_, *packed[2:], 0.0, level.causal, unused, unused, scale=scale
    )
    yield packed.rows, packed.keys, (_by_heads(dq, q), _by_heads(dk, k), _by_heads(dv, v))


def _end_to_end(one: Any, places: Any) -> Any:
    """[a, b, tokens, head_dim] -> [places, a * b, head_dim]."""
    return one.flatten(0, 1)[:, places].transpose(0, 1).contiguous()


def _by_heads(one: Any, like: Any) -> Any:
    """[places, a * b, head_dim] -> [a, b, places, head_dim]."""
    return one.transpose(0, 1).unflatten(0, like.shape[:2])


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


_PLAIN = _one_by_one(_plain_forward, _plain_backward)
_FLASH = {"cpu": _one_by_one(_cpu_forward, _cpu_backward), "cuda": Kernel(_varlen_forward, _varlen_backward)}
_EFFICIENT = {"cuda": _one_by_one(_cuda_efficient_forward, _plain_backward)}

Tree = segments
