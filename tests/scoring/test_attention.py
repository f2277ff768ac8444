"""Kernels are probed before use, and get the paths of the tree."""

import pytest
import torch
from torch.nn.attention import varlen

from codescaler_plugin.scoring import attention, attention_cpu
from codescaler_plugin.scoring.compat import flash_backward, flash_forward
from codescaler_plugin.scoring.forward import row_logits, tree_attention
from codescaler_plugin.scoring.prefix_tree import plan_rows
from tests.scoring.decoders import WINDOW, items, model_of, plain_varlen


def chosen(windowed: bool = False) -> attention.Attend:
    return attention._kernel("cpu", torch.float32, 16, windowed=windowed)


def test_kernel_of_this_cpu_is_the_fast_one() -> None:
    assert chosen() is attention._merged
    assert chosen(windowed=True) is attention._node_by_node


@pytest.fixture
def no_probe_yet():
    attention._kernel.cache_clear()
    yield
    attention._kernel.cache_clear()


@pytest.mark.usefixtures("no_probe_yet")
@pytest.mark.parametrize("broken", [RuntimeError("no such operator"), AttributeError("gone")])
def test_kernel_that_fails_its_probe_is_not_used(broken: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    def kernel(*_: object) -> None:
        raise broken

    monkeypatch.setattr(attention_cpu, "flash_forward", kernel)
    assert chosen() is attention._node_by_node


@pytest.mark.usefixtures("no_probe_yet")
def test_kernel_that_gives_other_numbers_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    def kernel(*given):
        out, lse = flash_forward(*given)
        return out, lse + 1 if given[3] else lse

    monkeypatch.setattr(attention_cpu, "flash_forward", kernel)
    assert chosen() is attention._node_by_node


@pytest.mark.usefixtures("no_probe_yet")
def test_kernel_with_other_gradients_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    def kernel(*given):
        dq, dk, dv = flash_backward(*given)
        return dq, 2 * dk, dv

    monkeypatch.setattr(attention_cpu, "flash_backward", kernel)
    assert chosen() is attention._node_by_node


@pytest.mark.parametrize("window", [None, WINDOW])
def test_paths_given_to_the_kernel_of_cuda_are_those_of_the_tree(
    window: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it is called with is checked here, its numbers on a GPU (`test_gpu.py`)."""
    calls = []

    def counted(*given, **options):
        calls.append(options["window_size"])
        return plain_varlen(*given, **options)

    monkeypatch.setattr(varlen, "varlen_attn", counted)
    (row,) = plan_rows(items(), max_tokens=10_000)
    tree = attention.Tree(row.nodes)
    generator = torch.Generator().manual_seed(0)
    q, k, v, grad = (torch.randn(heads, len(row.tokens), 16, generator=generator) for heads in (6, 2, 2, 6))
    given = [one.requires_grad_() for one in (q, k, v)]
    results = []
    kernels: tuple[attention.Attend, ...] = (attention._varlen, attention._node_by_node)
    for attend in kernels:
        out = attend(*given, tree, 0.3, window)
        results.append((out, *torch.autograd.grad(out, given, grad.transpose(0, 1))))
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)
    assert calls == [(-1 if window is None else window - 1, 0)], "one call for all nodes"


def test_kernel_of_cuda_takes_the_arguments_and_gives_the_shapes() -> None:
    """By torch's own description of it, on tensors without numbers."""
    q, k, v = (
        torch.empty(heads, 30, 16, device="meta", dtype=torch.bfloat16, requires_grad=True) for heads in (4, 2, 2)
    )
    out = attention._varlen(q, k, v, attention._PROBE, 0.3, None)
    assert (out.shape, out.dtype) == ((30, 4, 16), torch.bfloat16)
    shares = torch.autograd.grad(out, (q, k, v), torch.empty_like(out))
    assert [share.shape for share in shares] == [q.shape, k.shape, v.shape]


@pytest.mark.usefixtures("no_probe_yet")
def test_probe_inside_of_a_checkpointed_layer_does_not_count() -> None:
    """It comes first in the forward pass; the layer that is run again finds the kernel known."""
    model = model_of("qwen3").train()
    model.gradient_checkpointing_enable({"use_reentrant": False})
    (row,) = plan_rows(items(), max_tokens=10_000)
    with tree_attention(model):
        row_logits(model, row).sum().backward()
    assert model.score.weight.grad is not None
