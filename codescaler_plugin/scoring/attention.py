"""Attention over a row of `prefix_tree.py`, as an attention function of transformers (`AttentionInterface`).

Each token attends to the path from a root to it, which is its own sample up to it. On CUDA in half precision that is
one call a layer of torch's attention for sequences of varying length (`varlen_attn`, torch 2.11): the queries of a
node over the keys of its path, gathered by an index that is made once for all layers. On a CPU the parts of a path are
merged without a copy (`attention_cpu.py`). Everywhere else, and where a kernel fails its probe, it is one call of
`scaled_dot_product_attention` a node. All three are exact, and gradients flow, for training.

Which layers see a window is taken from the masks of transformers: the mask function registered here makes no mask, and
hands the window on instead. What layers themselves pass to their attention is not the same for all families.
"""

import logging
from collections.abc import Callable, Sequence
from functools import cache, cached_property
from typing import Any, NamedTuple

import numpy as np
import torch

from codescaler_plugin.scoring import attention_cpu
from codescaler_plugin.scoring.prefix_tree import Node

logger = logging.getLogger(__name__)

IMPLEMENTATION = "codescaler_tree"
"""Name under which the function is registered."""


class Paths(NamedTuple):
    """The nodes of a row as sequences of varying length: a node's queries over the keys of its path from a root.

    The queries stand in the row one node after the other.

    Attributes:
        keys: [keys] their places in the row, path by path.
        row_ends: [nodes + 1] int32, 0 and the running sum of the numbers of queries.
        key_ends: likewise for keys.
        most_rows: of a node.
        most_keys: of a path.
    """

    keys: torch.Tensor
    row_ends: torch.Tensor
    key_ends: torch.Tensor
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

    def paths(self, device: torch.device) -> Paths:
        """The nodes for `varlen_attn`."""
        if device not in self._paths:
            rows = [node.end - node.start for node in self.nodes]
            keys = [len(path) for path in self.places]
            row_ends, key_ends = (
                torch.tensor(np.cumsum([0, *sizes]), dtype=torch.int32, device=device) for sizes in (rows, keys)
            )
            places = torch.tensor(np.concatenate(self.places), device=device)
            self._paths[device] = Paths(places, row_ends, key_ends, max(rows), max(keys))
        return self._paths[device]


@cache
def register() -> str:
    """Make the functions known to transformers; the name for `set_attn_implementation`."""
    from transformers import AttentionInterface, AttentionMaskInterface

    AttentionInterface.register(IMPLEMENTATION, tree_attention)
    AttentionMaskInterface.register(IMPLEMENTATION, window_of)
    return IMPLEMENTATION


def window_of(*_: Any, local_size: int | None = None, **__: Any) -> int | None:
    """In place of a mask: the tokens that a token sees, itself one of them; None: all before it."""
    return local_size


def takes_paths(device: torch.device, dtype: torch.dtype, width: int) -> bool:
    """Whether layers get plain tensors as `tree`, which can be compiled: where there is `varlen_attn`."""
    return all(_kernel(device.type, dtype, width, windowed=windowed) is _varlen for windowed in (False, True))


def tree_attention(
    module: Any,  # noqa: ARG001
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: int | None,
    *,
    scaling: float,
    tree: Tree | Paths,
    **_: Any,  # the interface of transformers
) -> tuple[torch.Tensor, None]:
    """Attention of one row.

    Args:
        module: the layer; not used.
        query: [1, heads, tokens, head_dim].
        key: [1, key heads, tokens, head_dim]; key heads divide heads.
        value: as key.
        attention_mask: of `window_of`, for the tree is the mask.
        scaling: factor of the dot products.
        tree: of the row, or its paths, for `varlen_attn`.

    Returns:
        [1, tokens, heads, head_dim], and no weights.
    """
    if not query.dtype == key.dtype == value.dtype:  # under autocast norms and rotations are float32; SDPA casts too
        query, key = query.to(value.dtype), key.to(value.dtype)
    if isinstance(tree, Paths):
        return _over_paths(query[0], key[0], value[0], tree, scaling, attention_mask)[None], None
    window = attention_mask if attention_mask is not None and attention_mask < tree.longest else None
    attend = _kernel(query.device.type, query.dtype, query.shape[-1], windowed=window is not None)
    return attend(query[0], key[0], value[0], tree, scaling, window)[None], None


Attend = Callable[..., torch.Tensor]
"""(q [heads, tokens, head_dim], k and v [key heads, ...], tree, scale, window) -> [tokens, heads, head_dim]."""


@cache
def _kernel(device: str, dtype: torch.dtype, width: int, *, windowed: bool) -> Attend:
    """The fastest that this device has, probed once, both ways."""
    if device == "cpu" and not windowed:
        kernel: Attend = _merged
    elif device == "cuda" and dtype in (torch.float16, torch.bfloat16):
        kernel = _varlen
    else:
        return _node_by_node
    window = 8 if windowed else None

    def of(attend: Attend) -> tuple[torch.Tensor, ...]:
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
        except torch.cuda.OutOfMemoryError:
            raise  # says nothing of the kernel
        except (ImportError, AttributeError, RuntimeError, TypeError, ValueError, AssertionError) as error:
            logger.warning(
                "attention on %s in %s is slower than it could be: a kernel fails: %s", device, dtype, error
            )
            return _node_by_node
    return kernel


# A prompt, under it a leaf and a node with two leaves of their own.
_PROBE = Tree([Node(0, 9, 30, 0), Node(9, 12, 12, 1), Node(12, 19, 30, 1), Node(19, 24, 24, 2), Node(24, 30, 30, 2)])


def _varlen(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, tree: Tree, scale: float, window: int | None
) -> torch.Tensor:
    return _over_paths(q, k, v, tree.paths(q.device), scale, window)


def _over_paths(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, paths: Paths, scale: float, window: int | None
) -> torch.Tensor:
    from torch.nn.attention.varlen import varlen_attn

    q, k, v = (one.transpose(0, 1) for one in (q, k, v))
    k, v = _gather(k, paths.keys), _gather(v, paths.keys)
    before = -1 if window is None else window - 1
    # torch 2.13 wants to be told that a key head serves several heads; 2.11 knows it, and has no such argument.
    grouped = {"enable_gqa": True} if "enable_gqa" in (varlen_attn.__kwdefaults__ or {}) else {}
    out: torch.Tensor = varlen_attn(q, k, v, *paths[1:], scale=scale, window_size=(before, 0), **grouped)  # type: ignore[arg-type, assignment]
    return out


def _gather(one: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
    """Rows of [tokens, ...] by their places, with gradients that add up in float32."""
    if torch.is_grad_enabled() and one.requires_grad:
        out: torch.Tensor = _Gather.apply(one, places)  # type: ignore[no-untyped-call]
        return out
    return one.index_select(0, places)


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, one: Any, places: Any) -> Any:
        ctx.save_for_backward(places)
        ctx.tokens = len(one)
        return one.index_select(0, places)

    @staticmethod
    def backward(ctx: Any, grad: Any) -> Any:
        total = torch.zeros(ctx.tokens, *grad.shape[1:], device=grad.device, dtype=torch.float32)
        return total.index_add_(0, ctx.saved_tensors[0], grad.float()).to(grad.dtype), None


def _by_key_head(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Heads that share a key head stand beside it: q [key heads, heads per key head, tokens, head_dim]."""
    return q.view(len(k), -1, *q.shape[1:]), k.unsqueeze(1), v.unsqueeze(1)


def _merged(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    tree: Tree,
    scale: float,
    window: int | None,  # noqa: ARG001
) -> torch.Tensor:
    q, k, v = _by_key_head(q, k, v)
    return attention_cpu.attend(q, k, v, tree.segments, scale).flatten(0, 1).transpose(0, 1)


def _node_by_node(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, tree: Tree, scale: float, window: int | None
) -> torch.Tensor:
    q, k, v = _by_key_head(q, k, v)
    k, v = (one.expand(-1, q.shape[1], -1, -1) for one in (k, v))
    outs = []
    for node, path in zip(tree.nodes, tree.places, strict=True):
        above = len(path) - (node.end - node.start)
        for first in range(node.start, node.end, _QUERIES):  # so that no mask is large
            last = min(first + _QUERIES, node.end)
            end = above + last - node.start
            begin = 0 if window is None else max(0, end - (last - first) - window + 1)
            keys = torch.as_tensor(path[begin:end], device=q.device)
            seen = torch.ones(last - first, end - begin, dtype=torch.bool, device=q.device)
            seen = seen.tril(diagonal := end - begin - (last - first))
            if window is not None:
                seen = seen.triu(diagonal - window + 1)
            outs.append(
                torch.nn.functional.scaled_dot_product_attention(
                    q[:, :, first:last], k[:, :, keys], v[:, :, keys], seen, scale=scale
                )
            )
    return torch.cat(outs, dim=2).flatten(0, 1).transpose(0, 1)


_QUERIES = 1024
