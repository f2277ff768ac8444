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
    def kernel(q, k, v, causal, scale):
        out, lse = attention._PLAIN.forward(q, k, v, causal, scale)
        return out, lse + 1

    monkeypatch.setitem(attention._FLASH, "cpu", attention._FLASH["cpu"]._replace(forward=kernel))
    attention._kernel.cache_clear()
    try:
        assert attention._kernel("cpu", "float32") is attention._PLAIN
    finally:
        attention._kernel.cache_clear()


def test_kernel_with_other_gradients_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    def kernel(*given):
        dq, dk, dv = attention._PLAIN.backward(*given)
        return dq, 2 * dk, dv

    monkeypatch.setitem(attention._FLASH, "cpu", attention._FLASH["cpu"]._replace(backward=kernel))
    attention._kernel.cache_clear()
    try:
        assert attention._kernel("cpu", "float32") is attention._PLAIN
    finally:
        attention._kernel.cache_clear()


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
