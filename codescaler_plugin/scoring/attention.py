"""Attention over a row of `prefix_tree.py`, as an attention function of transformers (`AttentionInterface`).

Each token attends to the path from a root to it, which is its own sample up to it. On CUDA in half precision that is
one call a layer of torch's attention for sequences of varying length (`varlen_attn`, torch 2.11): the queries of a
node over the keys of its path, gathered by an index that is made once for all layers. On a CPU the parts of a path are
merged without a copy (`attention_cpu.py`). Everywhere else, and where a kernel fails its probe, it is one call of
`scaled_dot_product_attention` a node. All three are exact, and gradients flow, for training.
"""

from collections.abc import Callable, Sequence
from functools import cache, cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from codescaler_plugin.scoring import attention_cpu
from codescaler_plugin.scoring.prefix_tree import Node

if TYPE_CHECKING:
    import torch

IMPLEMENTATION = "codescaler_tree"
"""Name under which the function is registered."""


class Paths(NamedTuple):
    """The nodes of a row as sequences of varying length: a node's queries over the keys of its path from a root.

    The queries stand in the row one node after the other.

    Attributes:
        keys: [keys] their places in the row, path by path; None: each path is its node, as the row stands.
        row_ends: [nodes + 1] int32, 0 and the running sum of the numbers of queries.
        key_ends: likewise for keys.
        most_rows: of a node.
        most_keys: of a path.
    """

    keys: "torch.Tensor | None"
    row_ends: "torch.Tensor"
    key_ends: "torch.Tensor"
    most_rows: int
    most_keys: int


class Tree:
    """What the layers of a model ask of a row's nodes. Each answer is made once, for all layers.

    Args:
        nodes: of the row, in its order.
    """

    def __init__(self, nodes: Sequence[Node]) -> None:
        self.nodes = [node for node in nodes if node.end > node.start]
        self._paths: dict[torch.device, Paths] = {}

    @cached_property
    def places(self) -> list[np.ndarray]:
        """For each node the places in the row of its path from a root, its own last."""
        above: list[Node] = []
        found = []
        for node in self.nodes:
            while above and above[-1].subtree_end <= node.start:
                above.pop()
            above.append(node)
            found.append(np.concatenate([np.arange(one.start, one.end) for one in above]))
        return found

    @cached_property
    def longest(self) -> int:
        """Tokens of the longest path."""
        return max(map(len, self.places))

    @cached_property
    def segments(self) -> list[attention_cpu.Segment]:
        """The parts that are merged on a CPU."""
        return attention_cpu.segments(self.nodes)

    def paths(self, device: "torch.device") -> Paths:
        """The nodes for `varlen_attn`."""
        import torch

        if device not in self._paths:
            rows = [node.end - node.start for node in self.nodes]
            keys = [len(path) for path in self.places]
            row_ends, key_ends = (
                torch.tensor(np.cumsum([0, *sizes]), dtype=torch.int32, device=device) for sizes in (rows, keys)
            )
            places = None if rows == keys else torch.tensor(np.concatenate(self.places), device=device)
            self._paths[device] = Paths(places, row_ends, key_ends, max(rows), max(keys))
        return self._paths[device]


@cache
def register() -> str:
    """Make the function known to transformers; the name for `set_attn_implementation`."""
    from transformers import AttentionInterface

    AttentionInterface.register(IMPLEMENTATION, tree_attention)
    return IMPLEMENTATION


def layout(nodes: Sequence[Node], device: "torch.device", dtype: "torch.dtype", width: int) -> "Tree | Paths":
    """What a model's layers get as `tree`; a device with `varlen_attn` gets plain tensors, which can be compiled.

    Args:
        nodes: of a row, in its order.
        device: of the model.
        dtype: of its queries, keys and values.
        width: of its heads.
    """
    tree = Tree(nodes)
    is_varlen = all(_kernel(device.type, dtype, width, windowed=windowed) is _varlen for windowed in (False, True))
    return tree.paths(device) if is_varlen else tree


def tree_attention(
    module: Any,  # noqa: ARG001
    query: "torch.Tensor",
    key: "torch.Tensor",
    value: "torch.Tensor",
    attention_mask: None,  # noqa: ARG001
    *,
    scaling: float,
    tree: Tree | Paths,
    sliding_window: int | None = None,
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
        tree: of the row, or its paths, for `varlen_attn`.
        sliding_window: tokens that a token sees, itself one of them; None: all.

    Returns:
        [1, tokens, heads, head_dim], and no weights.
    """
    if not query.dtype == key.dtype == value.dtype:  # under autocast norms and rotations are float32; SDPA casts too
        query, key = query.to(value.dtype), key.to(value.dtype)
    if isinstance(tree, Paths):
        return _over_paths(query[0], key[0], value[0], tree, scaling, sliding_window)[None], None
    window = sliding_window if sliding_window is not None and sliding_window < tree.longest else None
    attend = _kernel(query.device.type, query.dtype, query.shape[-1], windowed=window is not None)
    return attend(query[0], key[0], value[0], tree, scaling, window)[None], None


Attend = Callable[..., "torch.Tensor"]
"""(q [heads, tokens, head_dim], k and v [key heads, ...], tree, scale, window) -> [tokens, heads, head_dim]."""


@cache
def _kernel(device: str, dtype: "torch.dtype", width: int, *, windowed: bool) -> Attend:
    """The fastest that this device has, probed once, both ways."""
    import torch

    if device == "cpu" and not windowed:
        kernel: Attend = _merged
    elif device == "cuda" and dtype in (torch.float16, torch.bfloat16):
        kernel = _varlen
    else:
        return _node_by_node
    window = 8 if windowed else None

    def of(attend: Attend) -> tuple["torch.Tensor", ...]:
        generator = torch.Generator(device).manual_seed(0)
        q, k, v, grad = (
            torch.randn(heads, _PROBE.nodes[0].subtree_end, width, device=device, generator=generator).to(dtype)
            for heads in (4, 2, 2, 4)
        )
        given = [one.requires_grad_() for one in (q, k, v)]
        with torch.inference_mode(False), torch.enable_grad():
            out = attend(*given, _PROBE, width**-0.5, window)
            return out, *torch.autograd.grad(out, given, grad.transpose(0, 1))

    # Checkpointing counts what a layer saves, and must not count what the probe does inside its first one.
    not_counted = torch.autograd.graph.saved_tensors_hooks(lambda one: one, lambda one: one)
    with torch.inference_mode(False), not_counted:
        try:
            for one, other in zip(of(kernel), of(_node_by_node), strict=True):
                torch.testing.assert_close(one.float(), other.float(), rtol=3e-2, atol=3e-2)
        except (ImportError, AttributeError, RuntimeError, TypeError, ValueError, AssertionError):
            return _node_by_node
    return kernel


# A prompt, under it a leaf and a node with two leaves of their own.
_PROBE = Tree([Node(0, 9, 30, 0), Node(9, 12, 12, 1), Node(12, 19, 30, 1), Node(19, 24, 24, 2), Node(24, 30, 30, 2)])


def _varlen(
    q: "torch.Tensor", k: "torch.Tensor", v: "torch.Tensor", tree: Tree, scale: float, window: int | None
) -> "torch.Tensor":
    return _over_paths(q, k, v, tree.paths(q.device), scale, window)


def _over_paths(
    q: "torch.Tensor", k: "torch.Tensor", v: "torch.Tensor", paths: Paths, scale: float, window: int | None
) -> "torch.Tensor":
    from torch.nn.attention.varlen import varlen_attn

    q, k, v = (one.transpose(0, 1) for one in (q, k, v))
    if paths.keys is not None:
        k, v = _gather(k, paths.keys), _gather(v, paths.keys)
    before = -1 if window is None else window - 1
    # torch 2.13 wants to be told that a key head serves several heads; 2.11 knows it, and has no such argument.
    grouped = {"enable_gqa": True} if "enable_gqa" in (varlen_attn.__kwdefaults__ or {}) else {}
    out: torch.Tensor = varlen_attn(q, k, v, *paths[1:], scale=scale, window_size=(before, 0), **grouped)  # type: ignore[arg-type, assignment]
    return out


def _gather(one: "torch.Tensor", places: "torch.Tensor") -> "torch.Tensor":
    """Rows of [tokens, ...] by their places, with gradients that add up in float32."""
    import torch

    if torch.is_grad_enabled() and one.requires_grad:
        out: torch.Tensor = _gather_function().apply(one, places)
        return out
    return one.index_select(0, places)


@cache
def _gather_function() -> Any:
    """The autograd function; made on first use, for the module is imported without torch."""
    import torch

    class Gather(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, one: Any, places: Any) -> Any:
            ctx.save_for_backward(places)
            ctx.tokens = len(one)
            return one.index_select(0, places)

        @staticmethod
        def backward(ctx: Any, grad: Any) -> Any:
            total = torch.zeros(ctx.tokens, *grad.shape[1:], device=grad.device, dtype=torch.float32)
            return total.index_add_(0, ctx.saved_tensors[0], grad.float()).to(grad.dtype), None

    return Gather


def _by_key_head(
    q: "torch.Tensor", k: "torch.Tensor", v: "torch.Tensor"
) -> tuple["torch.Tensor", "torch.Tensor", "torch.Tensor"]:
    """Heads that share a key head stand beside it: q [key heads, heads per key head, tokens, head_dim]."""
    return q.view(len(k), -1, *q.shape[1:]), k.unsqueeze(1), v.unsqueeze(1)


def _merged(
    q: "torch.Tensor",
    k: "torch.Tensor",
    v: "torch.Tensor",
    tree: Tree,
    scale: float,
    window: int | None,  # noqa: ARG001
) -> "torch.Tensor":
    q, k, v = _by_key_head(q, k, v)
    return attention_cpu.attend(q, k, v, tree.segments, scale).flatten(0, 1).transpose(0, 1)


def _node_by_node(
    q: "torch.Tensor", k: "torch.Tensor", v: "torch.Tensor", tree: Tree, scale: float, window: int | None
) -> "torch.Tensor":
    import torch

    q, k, v = _by_key_head(q, k, v)
    k, v = (one.expand(-1, q.shape[1], -1, -1) for one in (k, v))
    outs = []
    for node, places in zip(tree.nodes, tree.places, strict=True):
        keys = torch.as_tensor(places, device=q.device)
        rows = torch.arange(len(places) - (node.end - node.start), len(places), device=q.device)[:, None]
        before = rows - torch.arange(len(places), device=q.device)  # how far a key stands before a query
        seen = (before >= 0) & (before < (window or len(places)))
        outs.append(
            torch.nn.functional.scaled_dot_product_attention(
                q[:, :, node.start : node.end], k[:, :, keys], v[:, :, keys], seen, scale=scale
            )
        )
    return torch.cat(outs, dim=2).flatten(0, 1).transpose(0, 1)
