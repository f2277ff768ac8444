"""Attention over a row of `prefix_tree.py`, as an attention function of transformers (`AttentionInterface`).

Each token attends to its path from a root, which is its own sequence up to it. Three kernels compute that, all exact
and with gradients for training. On CUDA in half precision, each layer makes one call of torch's attention for
sequences of varying length (`varlen_attn`, torch 2.11). On a CPU, the parts of a path are merged without a copy
(`attention_cpu.py`). Elsewhere, and where a kernel fails its probe, each node gets a call of
`scaled_dot_product_attention`.

The window of a layer comes through the masks of transformers: the mask function registered here returns the window
instead of a mask. The arguments that layers pass to their attention directly differ between families.
"""

import logging
from collections.abc import Callable, Sequence
from functools import cache, cached_property
from typing import Any, NamedTuple

import numpy as np
import torch

from codescaler_plugin.scoring import attention_cpu
from codescaler_plugin.scoring.compat import varlen_attention
from codescaler_plugin.scoring.prefix_tree import Node

logger = logging.getLogger(__name__)

IMPLEMENTATION = "codescaler_tree"


class Paths(NamedTuple):
    """The nodes of a row, in order, as sequences of varying length: a node's queries over the keys of its path."""

    keys: torch.Tensor  # [keys] indices into the row, path by path
    query_ends: torch.Tensor  # [nodes + 1] int32: 0 and the running sum of the numbers of queries
    key_ends: torch.Tensor  # [nodes + 1] int32: 0 and the running sum of the numbers of keys
    most_queries: int  # of a node
    most_keys: int  # of a path


class Tree:
    """The nodes of a row in the forms that attention needs. Each form is computed once, for all layers."""

    def __init__(self, nodes: Sequence[Node]) -> None:
        self.nodes = [node for node in nodes if node.end > node.start]
        self._paths: dict[torch.device, Paths] = {}

    @cached_property
    def path_indices(self) -> list[np.ndarray]:
        """For each node, the indices into the row of its path from a root; the node's own tokens are last."""
        path: list[Node] = []
        indices = []
        for node in self.nodes:
            while path and path[-1].subtree_end <= node.start:
                path.pop()
            path.append(node)
            indices.append(np.concatenate([np.arange(part.start, part.end) for part in path]))
        return indices

    @cached_property
    def longest(self) -> int:
        """Tokens of the longest path."""
        return max(map(len, self.path_indices))

    @cached_property
    def segments(self) -> list[attention_cpu.Segment]:
        """The parts that a CPU merges."""
        return attention_cpu.segments(self.nodes)

    def paths(self, device: torch.device) -> Paths:
        """The nodes for `varlen_attn`."""
        if device not in self._paths:
            queries = [node.end - node.start for node in self.nodes]
            keys = [len(path) for path in self.path_indices]
            query_ends, key_ends = (
                torch.tensor(np.cumsum([0, *sizes]), dtype=torch.int32, device=device) for sizes in (queries, keys)
            )
            indices = torch.tensor(np.concatenate(self.path_indices), device=device)
            self._paths[device] = Paths(indices, query_ends, key_ends, max(queries), max(keys))
        return self._paths[device]


@cache
def register() -> str:
    """Register the functions with transformers and return the name for `set_attn_implementation`."""
    from transformers import AttentionInterface, AttentionMaskInterface

    AttentionInterface.register(IMPLEMENTATION, row_attention)
    AttentionMaskInterface.register(IMPLEMENTATION, window_of)
    return IMPLEMENTATION


def window_of(*_: Any, local_size: int | None = None, **__: Any) -> int | None:
    """Return, in place of a mask, the number of tokens that a token sees, with itself; None for all up to it."""
    return local_size


def takes_paths(device: torch.device, dtype: torch.dtype, width: int) -> bool:
    """Return True if `varlen_attn` works. Layers then take `Paths` as their `tree`: plain tensors that compile."""
    return all(_kernel(device.type, dtype, width, windowed=windowed) is _varlen for windowed in (False, True))


def row_attention(
    module: Any,  # noqa: ARG001
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: int | None,
    *,
    scaling: float,
    tree: Tree | Paths,
    **_: Any,  # arguments that families add
) -> tuple[torch.Tensor, None]:
    """Return the attention [1, tokens, heads, head_dim] of one row, and None in place of weights.

    `query` is [1, heads, tokens, head_dim]; `key` and `value` have a number of heads that divides that of the query.
    `attention_mask` is the result of `window_of`; the tree takes the place of a mask.
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
    """The fastest kernel of the device, after one probe of its output and gradients."""
    if device == "cpu" and not windowed:
        kernel: Attend = _merged
    elif device == "cuda" and dtype in (torch.float16, torch.bfloat16):
        kernel = _varlen
    else:
        return _node_by_node
    window = 8 if windowed else None

    def probe(attend: Attend) -> tuple[torch.Tensor, ...]:
        generator = torch.Generator(device).manual_seed(0)
        q, k, v, grad = (
            torch.randn(heads, _PROBE.nodes[0].subtree_end, width, device=device, generator=generator).to(dtype)
            for heads in (4, 2, 2, 4)
        )
        inputs = [tensor.requires_grad_() for tensor in (q, k, v)]
        with torch.inference_mode(False), torch.enable_grad():
            out = attend(*inputs, _PROBE, width**-0.5, window)
            return out, *torch.autograd.grad(out, inputs, grad.transpose(0, 1))

    # Checkpointing counts what a layer saves, and must not count what the probe saves inside the first layer.
    not_counted = torch.autograd.graph.saved_tensors_hooks(lambda tensor: tensor, lambda tensor: tensor)
    with torch.inference_mode(False), not_counted:
        try:
            for computed, expected in zip(probe(kernel), probe(_node_by_node), strict=True):
                torch.testing.assert_close(computed.float(), expected.float(), rtol=3e-2, atol=3e-2)
        except torch.cuda.OutOfMemoryError:
            raise  # not a fault of the kernel
        except (ImportError, AttributeError, RuntimeError, TypeError, ValueError, AssertionError) as error:
            logger.warning(
                "attention on %s in %s is slower than it could be: a kernel fails: %s", device, dtype, error
            )
            return _node_by_node
    return kernel


# A prompt; below it a leaf, and a node with two leaves.
_PROBE = Tree([Node(0, 9, 30, 0), Node(9, 12, 12, 1), Node(12, 19, 30, 1), Node(19, 24, 24, 2), Node(24, 30, 30, 2)])


def _varlen(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, tree: Tree, scale: float, window: int | None
) -> torch.Tensor:
    return _over_paths(q, k, v, tree.paths(q.device), scale, window)


def _over_paths(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, paths: Paths, scale: float, window: int | None
) -> torch.Tensor:
    q, k, v = (tensor.transpose(0, 1) for tensor in (q, k, v))
    k, v = _gather(k, paths.keys), _gather(v, paths.keys)
    before = -1 if window is None else window - 1
    out: torch.Tensor = varlen_attention(q, k, v, *paths[1:], scale=scale, window_size=(before, 0))
    return out


def _gather(tensor: torch.Tensor, indices: torch.Tensor) -> torch.Tensor:
    """Rows of [tokens, ...], with gradients that add up in float32."""
    if torch.is_grad_enabled() and tensor.requires_grad:
        out: torch.Tensor = _Gather.apply(tensor, indices)  # type: ignore[no-untyped-call]
        return out
    return tensor.index_select(0, indices)


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, tensor: Any, indices: Any) -> Any:
        ctx.save_for_backward(indices)
        ctx.tokens = len(tensor)
        return tensor.index_select(0, indices)

    @staticmethod
    def backward(ctx: Any, grad: Any) -> Any:
        total = torch.zeros(ctx.tokens, *grad.shape[1:], device=grad.device, dtype=torch.float32)
        return total.index_add_(0, ctx.saved_tensors[0], grad.float()).to(grad.dtype), None


def _by_key_head(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The queries grouped by key head, [key heads, heads per key head, ...], and k and v with an axis of 1 there."""
    return q.view(len(k), -1, *q.shape[1:]), k.unsqueeze(1), v.unsqueeze(1)


def _merged(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, tree: Tree, scale: float, _window: int | None
) -> torch.Tensor:
    q, k, v = _by_key_head(q, k, v)
    return attention_cpu.attend(q, k, v, tree.segments, scale).flatten(0, 1).transpose(0, 1)


def _node_by_node(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, tree: Tree, scale: float, window: int | None
) -> torch.Tensor:
    q, k, v = _by_key_head(q, k, v)
    k, v = (tensor.expand(-1, q.shape[1], -1, -1) for tensor in (k, v))
    outs = []
    for node, path in zip(tree.nodes, tree.path_indices, strict=True):
        above = len(path) - (node.end - node.start)
        for first in range(node.start, node.end, _QUERIES):  # keeps the masks small
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
