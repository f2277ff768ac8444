"""Attention over a tree on a CPU: each node over itself, then over the nodes above it, merged by log-sum-exp.

A CPU has no fast kernel for sequences of varying length, but its flash kernel returns the log-sum-exp.
"""

from dataclasses import dataclass
from typing import Any

import torch

from codescaler_plugin.scoring.compat import flash_backward, flash_forward
from codescaler_plugin.scoring.prefix_tree import Node


@dataclass(frozen=True)
class Segment:
    """Queries [start, end) over keys [key_start, key_end) of a row; causal for a node over itself, else unmasked."""

    start: int
    end: int
    key_start: int
    key_end: int
    causal: bool


def segments(nodes: list[Node]) -> list[Segment]:
    """Return each node over itself, then, by depth, all tokens below a node over that node."""
    own = [Segment(node.start, node.end, node.start, node.end, causal=True) for node in nodes]
    below = [
        Segment(node.end, node.subtree_end, node.start, node.end, causal=False)
        for node in sorted(nodes, key=lambda node: node.depth)
        if node.subtree_end > node.end
    ]
    return own + below


def attend(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, parts: list[Segment], scale: float) -> torch.Tensor:
    """Return the output for q [key heads, heads per key head, tokens, head_dim], and k and v with one head per key."""
    if torch.is_grad_enabled() and any(tensor.requires_grad for tensor in (q, k, v)):
        out: torch.Tensor = _TreeAttention.apply(q, k, v, parts, scale)  # type: ignore[no-untyped-call]
        return out
    return forward(q, k, v, parts, scale)[0]


def forward(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, parts: list[Segment], scale: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return an output like q, and the log-sum-exp of each query over all its keys in float32."""
    out, lse = q.new_empty(q.shape), q.new_empty(q.shape[:3], dtype=torch.float32)
    k, v = (tensor.expand(-1, q.shape[1], -1, -1) for tensor in (k, v))
    for part in parts:
        rows, keys = slice(part.start, part.end), slice(part.key_start, part.key_end)
        more, more_lse = flash_forward(q[:, :, rows], k[:, :, keys], v[:, :, keys], part.causal, scale)
        if part.causal:
            out[:, :, rows], lse[:, :, rows] = more, more_lse
            continue
        old, old_lse = out[:, :, rows], lse[:, :, rows]
        weight = torch.sigmoid(more_lse - old_lse).unsqueeze(-1)  # e^b / (e^a + e^b)
        out[:, :, rows] = torch.lerp(old.float(), more.float(), weight).to(out.dtype)
        lse[:, :, rows] = torch.logaddexp(old_lse, more_lse)
    return out, lse


def backward(
    grad: torch.Tensor,
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    out: torch.Tensor,
    lse: torch.Tensor,
    parts: list[Segment],
    scale: float,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return the gradients of q, k and v: with the log-sum-exp over all keys, those of the parts add up."""
    dq, dk, dv = (torch.zeros(tensor.shape, device=q.device, dtype=torch.float32) for tensor in (q, k, v))
    wide_k, wide_v = (tensor.expand(-1, q.shape[1], -1, -1) for tensor in (k, v))
    for part in parts:
        rows, keys = slice(part.start, part.end), slice(part.key_start, part.key_end)
        grad_, q_, out_, lse_ = (tensor[:, :, rows] for tensor in (grad, q, out, lse))
        k_, v_ = wide_k[:, :, keys], wide_v[:, :, keys]
        shares = flash_backward(grad_, q_, k_, v_, out_, lse_, part.causal, scale)
        dq[:, :, rows] += shares[0]
        dk[:, :, keys] += shares[1].sum(1, keepdim=True)
        dv[:, :, keys] += shares[2].sum(1, keepdim=True)
    return dq.to(q.dtype), dk.to(k.dtype), dv.to(v.dtype)


class _TreeAttention(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, q: Any, k: Any, v: Any, parts: list[Segment], scale: float) -> Any:
        out, lse = forward(q, k, v, parts, scale)
        ctx.save_for_backward(q, k, v, out, lse)
        ctx.rest = parts, scale
        return out

    @staticmethod
    def backward(ctx: Any, grad: Any) -> Any:
        return (*backward(grad.contiguous(), *ctx.saved_tensors, *ctx.rest), None, None)
