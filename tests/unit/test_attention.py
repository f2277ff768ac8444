from itertools import pairwise

import pytest
import torch
from transformers import (
    Gemma2Config,
    LlamaConfig,
    LlamaForSequenceClassification,
    MistralConfig,
    MistralForSequenceClassification,
    Qwen2Config,
    Qwen2ForSequenceClassification,
    Qwen3Config,
    Qwen3ForSequenceClassification,
)

from codescaler_plugin.scoring import attention
from codescaler_plugin.scoring.forward import padded_logits, row_logits, tree_attention, tree_logits
from codescaler_plugin.scoring.prefix_tree import plan_rows

SIZES = {
    "vocab_size": 300,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "num_labels": 1,
    "pad_token_id": 0,
}
FAMILIES = {
    "qwen3": (Qwen3ForSequenceClassification, Qwen3Config(**SIZES, head_dim=16)),
    "qwen2": (Qwen2ForSequenceClassification, Qwen2Config(**SIZES)),
    "llama": (LlamaForSequenceClassification, LlamaConfig(**SIZES)),
    "mistral": (MistralForSequenceClassification, MistralConfig(**SIZES, sliding_window=None)),
}


def model_of(family: str, dtype: torch.dtype = torch.float32, device: str = "cpu"):
    kind, config = FAMILIES[family]
    torch.manual_seed(0)
    model = kind(config).eval()
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


@pytest.mark.parametrize("max_tokens", [10_000, 150, 1])
@pytest.mark.parametrize("family", FAMILIES)
def test_scores_of_a_row_equal_those_of_single_samples(family: str, max_tokens: int) -> None:
    model = model_of(family)
    single = logits(padded_logits(model, items(), max_tokens=1))
    assert max(single) - min(single) > 0.5, "samples must differ for a leak between them to show"
    assert logits(tree_logits(model, items(), max_tokens=max_tokens)) == pytest.approx(single, abs=1e-5, rel=0)


def test_scores_without_the_flash_kernel_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    model = model_of("qwen3")
    fast = logits(tree_logits(model, items(), max_tokens=10_000))
    monkeypatch.setattr(attention, "_kernel", lambda *_: attention._PLAIN)
    assert logits(tree_logits(model, items(), max_tokens=10_000)) == pytest.approx(fast, abs=1e-5, rel=0)


def test_kernel_of_this_cpu_is_the_fast_one() -> None:
    assert attention._kernel("cpu", "float32") is attention._FLASH["cpu"]


@pytest.mark.parametrize("broken", [RuntimeError("no such operator"), AttributeError("gone")])
def test_kernel_that_fails_its_probe_is_not_used(broken: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    def kernel(*_: object) -> None:
        raise broken

    monkeypatch.setitem(attention._FLASH, "cpu", attention._FLASH["cpu"]._replace(forward=kernel))
    attention._kernel.cache_clear()
    try:
        assert attention._kernel("cpu", "float32") is attention._PLAIN
    finally:
        attention._kernel.cache_clear()


def test_kernel_that_gives_other_numbers_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    def kernel(*given):
        for rows, out, lse in attention._PLAIN.forward(*given):
            yield rows, out, lse + 1

    monkeypatch.setitem(attention._FLASH, "cpu", attention._FLASH["cpu"]._replace(forward=kernel))
    attention._kernel.cache_clear()
    try:
        assert attention._kernel("cpu", "float32") is attention._PLAIN
    finally:
        attention._kernel.cache_clear()


def test_kernel_with_other_gradients_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    def kernel(*given):
        for rows, keys, (dq, dk, dv) in attention._PLAIN.backward(*given):
            yield rows, keys, (dq, 2 * dk, dv)

    monkeypatch.setitem(attention._FLASH, "cpu", attention._FLASH["cpu"]._replace(backward=kernel))
    attention._kernel.cache_clear()
    try:
        assert attention._kernel("cpu", "float32") is attention._PLAIN
    finally:
        attention._kernel.cache_clear()


def sequences(ends: torch.Tensor) -> list[slice]:
    return [slice(start, end) for start, end in pairwise(ends.tolist())]


def varlen(q, k, v, row_ends, key_ends, most_rows, most_keys, dropout, causal, debug, *, scale):
    """What the kernel for sequences of varying length computes, in plain products."""
    assert most_rows == int(row_ends.diff().max())
    assert most_keys == int(key_ends.diff().max())
    k, v = (one.repeat_interleave(q.shape[1] // one.shape[1], 1) for one in (k, v))
    out, lse = torch.empty_like(q), torch.empty(q.shape[1], q.shape[0])
    for rows, keys in zip(sequences(row_ends), sequences(key_ends), strict=True):
        heads = (one.transpose(0, 1)[None] for one in (q[rows], k[keys], v[keys]))
        one, lse[:, rows] = (part[0] for part in attention._plain_forward(*heads, causal, scale))
        out[rows] = one.transpose(0, 1)
    return out, lse, None, None, None


def varlen_backward(grad, q, k, v, out, lse, row_ends, key_ends, most_rows, most_keys, dropout, causal, *_, scale):
    shared = q.shape[1] // k.shape[1]
    dq, dk, dv = torch.empty_like(q), torch.empty_like(k), torch.empty_like(v)
    k, v = (one.repeat_interleave(shared, 1) for one in (k, v))
    for rows, keys in zip(sequences(row_ends), sequences(key_ends), strict=True):
        parts = (one.transpose(0, 1)[None] for one in (grad[rows], q[rows], k[keys], v[keys], out[rows]))
        shares = attention._plain_backward(*parts, lse[None, :, rows], causal, scale)
        dq[rows], wide_dk, wide_dv = (share[0].transpose(0, 1) for share in shares)
        dk[keys], dv[keys] = (one.unflatten(1, (-1, shared)).sum(2) for one in (wide_dk, wide_dv))
    return dq, dk, dv


def test_levels_given_to_a_kernel_for_varying_lengths_are_those_of_the_tree(monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel of CUDA in half precision; what it is called with is checked here, its numbers on a GPU."""
    calls = []

    def counted(*given, **options):
        calls.append(given[8])
        return varlen(*given, **options)

    monkeypatch.setattr(torch.ops.aten, "_flash_attention_forward", counted)
    monkeypatch.setattr(torch.ops.aten, "_flash_attention_backward", varlen_backward)
    (row,) = plan_rows(items(), max_tokens=10_000)
    tree = attention.segments(row.nodes)
    generator = torch.Generator().manual_seed(0)
    q, k, v, grad = (torch.randn(2, heads, len(row.tokens), 16, generator=generator) for heads in (3, 1, 1, 3))
    expected = out, lse = attention._forward(q, k, v, tree, 0.3, attention._PLAIN)
    torch.testing.assert_close(attention._forward(q, k, v, tree, 0.3, attention._FLASH["cuda"]), expected)
    assert calls == [True, False, False], "one call for all nodes, and one for each depth with something below"
    given = (grad, q, k, v, out, lse, tree, 0.3)
    shares = (attention._backward(*given, attention._FLASH["cuda"]), attention._backward(*given, attention._PLAIN))
    torch.testing.assert_close(*shares, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_kernels_of_cuda_take_the_arguments_and_give_the_shapes(dtype: torch.dtype) -> None:
    """By torch's own description of them, on tensors without numbers."""
    kernel = attention._FLASH["cuda"] if dtype == torch.bfloat16 else attention._EFFICIENT["cuda"]
    tree = attention.segments(attention._PROBE)
    q, k, v, grad = (torch.empty(2, heads, 30, 16, device="meta", dtype=dtype) for heads in (2, 1, 1, 2))
    out, lse = attention._forward(q, k, v, tree, 0.3, kernel)
    assert (out.shape, out.dtype, lse.shape, lse.dtype) == (q.shape, dtype, (2, 2, 30), torch.float32)
    shares = attention._backward(grad, q, k, v, out, lse, tree, 0.3, kernel)
    assert [share.shape for share in shares] == [q.shape, k.shape, v.shape]


@pytest.mark.parametrize("kernel", ["flash", "plain"])
@pytest.mark.parametrize("family", FAMILIES)
def test_gradients_of_a_row_equal_those_of_single_samples(
    family: str, kernel: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if kernel == "plain":
        monkeypatch.setattr(attention, "_kernel", lambda *_: attention._PLAIN)
    model = model_of(family)
    weights = torch.randn(len(items()), generator=torch.Generator().manual_seed(1))
    sum(
        weight * model(input_ids=torch.tensor([item])).logits.squeeze()
        for weight, item in zip(weights, items(), strict=True)
    ).backward()
    expected = {name: weight.grad for name, weight in model.named_parameters()}
    model.zero_grad()
    (row,) = plan_rows(items(), max_tokens=10_000)
    with tree_attention(model):
        (row_logits(model, row) * weights[[item for item, _ in row.lasts]]).sum().backward()
    for name, weight in model.named_parameters():
        scale = expected[name].abs().max().item()
        torch.testing.assert_close(weight.grad, expected[name], rtol=1e-4, atol=1e-5 * scale, msg=name)


def test_bf16_scores_are_near_those_of_single_samples() -> None:
    model = model_of("qwen3", torch.bfloat16)
    single = logits(padded_logits(model, items(), max_tokens=1))
    shared = logits(tree_logits(model, items(), max_tokens=10_000))
    spread = torch.tensor(single).std().item()
    assert shared == pytest.approx(single, abs=0.1 * spread, rel=0)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_scores_on_a_gpu_equal_those_of_single_samples(dtype: torch.dtype) -> None:
    model = model_of("qwen3", dtype, "cuda")
    assert attention._kernel("cuda", str(dtype).removeprefix("torch.")) is not attention._PLAIN
    single = logits(padded_logits(model, items(), max_tokens=1))
    spread = torch.tensor(single).std().item()
    tolerance = 1e-4 if dtype == torch.float32 else 0.1 * spread
    assert logits(tree_logits(model, items(), max_tokens=10_000)) == pytest.approx(single, abs=tolerance, rel=0)


def test_model_is_left_as_it_was_found() -> None:
    model = model_of("qwen3")
    before = model.config.to_dict(), model.config._attn_implementation, model.training
    list(tree_logits(model, items(), max_tokens=10_000))
    assert (model.config.to_dict(), model.config._attn_implementation, model.training) == before
    assert model(input_ids=torch.tensor([[5, 6, 7]])).logits.shape == (1, 1)


def test_model_is_left_as_it_was_found_after_an_error() -> None:
    model = model_of("qwen3")
    before = model.config._attn_implementation

    def fail(*_: object) -> None:
        raise RuntimeError("broken")

    handle = model.model.layers[1].register_forward_pre_hook(fail)
    with pytest.raises(RuntimeError, match="broken"):
        list(tree_logits(model, items(), max_tokens=10_000))
    handle.remove()
    assert model.config._attn_implementation == before


@pytest.mark.parametrize(
    "config",
    [
        MistralConfig(**SIZES, sliding_window=32),
        Qwen3Config(**SIZES, use_sliding_window=True, sliding_window=32, max_window_layers=1),
        Gemma2Config(**SIZES, head_dim=16),
        LlamaConfig(**SIZES, rope_parameters={"rope_type": "dynamic", "factor": 2.0, "rope_theta": 10_000.0}),
    ],
    ids=["sliding window", "some sliding layers", "another family", "positions that depend on the length"],
)
def test_models_of_another_attention_are_recognised(config) -> None:
    assert not attention.is_eligible(config)


@pytest.mark.parametrize("family", FAMILIES)
def test_models_with_full_attention_are_eligible(family: str) -> None:
    assert attention.is_eligible(FAMILIES[family][1])
