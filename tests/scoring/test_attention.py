from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch.nn.attention import varlen
from transformers import (
    CONFIG_MAPPING,
    AutoConfig,
    AutoModelForSequenceClassification,
    Gemma2Config,
    LlamaConfig,
    Qwen3Config,
)

from codescaler_plugin.scoring import attention, attention_cpu, families
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
    "bos_token_id": 1,
    "eos_token_id": 2,
}
MORE: dict[str, dict[str, Any]] = {
    "qwen3": {"head_dim": 16},
    "qwen3_moe": {"num_experts": 4, "moe_intermediate_size": 32, "num_experts_per_tok": 2},
    "qwen2_moe": {"num_experts": 4, "moe_intermediate_size": 32, "shared_expert_intermediate_size": 32},
    "mistral": {"sliding_window": None},
    "mixtral": {"num_local_experts": 4, "sliding_window": None},
    "gemma3_text": {"head_dim": 16, "layer_types": ["sliding_attention", "sliding_attention", "full_attention"]},
    **{one: {"head_dim": 16} for one in ("gemma", "glm", "glm4", "helium", "ministral", "hunyuan_v1_dense")},
}
WINDOW = 24
"""Shorter than the samples and than their prompts."""
WINDOWS: dict[str, dict[str, Any]] = {
    "window": {"sliding_window": WINDOW},
    "window of the first layers": {"sliding_window": WINDOW, "use_sliding_window": True, "max_window_layers": 2},
    "window of all layers": {"sliding_window": WINDOW, "use_sliding_window": True, "max_window_layers": 0},
    "window by layer": {
        "sliding_window": WINDOW,
        "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
    },
}
"""Ways in which a config can say it; families differ in which they heed."""
CASES = [(family, said) for family in families.SHARED for said in (None, *WINDOWS)]


def config_of(family: str, window: str | None = None) -> Any:
    if family not in CONFIG_MAPPING:
        pytest.skip(f"this transformers has no {family}")
    return type(AutoConfig.for_model(family))(**{**SIZES, **MORE.get(family, {}), **WINDOWS.get(str(window), {})})


def model_of(family: str, dtype: torch.dtype = torch.float32, device: str = "cpu", window: str | None = None) -> Any:
    config = config_of(family, window)
    torch.manual_seed(0)
    model = AutoModelForSequenceClassification.from_config(config).eval()
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
@pytest.mark.parametrize(("family", "window"), CASES)
def test_scores_of_a_row_equal_those_of_single_samples(family: str, window: str | None, max_tokens: int) -> None:
    model = model_of(family, window=window)
    try:
        single = logits(padded_logits(model, items(), max_tokens=1))
    except ValueError as error:
        pytest.skip(f"transformers itself refuses this: {error}")
    assert max(single) - min(single) > 0.5, "samples must differ for a leak between them to show"
    assert logits(tree_logits(model, items(), max_tokens=max_tokens)) == pytest.approx(single, abs=1e-5, rel=0)


def test_scores_without_the_flash_kernel_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    model = model_of("qwen3")
    fast = logits(tree_logits(model, items(), max_tokens=10_000))
    monkeypatch.setattr(attention, "_kernel", lambda *_, **__: attention._node_by_node)
    assert logits(tree_logits(model, items(), max_tokens=10_000)) == pytest.approx(fast, abs=1e-5, rel=0)


def test_a_window_that_no_sample_fills_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(WINDOWS, "wide", {"sliding_window": 1000})
    model = model_of("mistral", window="wide")
    single = logits(padded_logits(model_of("mistral"), items(), max_tokens=1))
    assert logits(tree_logits(model, items(), max_tokens=10_000)) == pytest.approx(single, abs=1e-5, rel=0)


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
    right = attention_cpu.flash_forward

    def kernel(*given):
        out, lse = right(*given)
        return out, lse + 1 if given[3] else lse

    monkeypatch.setattr(attention_cpu, "flash_forward", kernel)
    assert chosen() is attention._node_by_node


@pytest.mark.usefixtures("no_probe_yet")
def test_kernel_with_other_gradients_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    right = attention_cpu.flash_backward

    def kernel(*given):
        dq, dk, dv = right(*given)
        return dq, 2 * dk, dv

    monkeypatch.setattr(attention_cpu, "flash_backward", kernel)
    assert chosen() is attention._node_by_node


def sequences(ends: torch.Tensor) -> list[slice]:
    return [slice(start, end) for start, end in pairwise(ends.tolist())]


def plain_varlen(q, k, v, row_ends, key_ends, most_rows, most_keys, *, scale, window_size, enable_gqa=False):
    """What `varlen_attn` computes, in plain products."""
    assert (row_ends.dtype, key_ends.dtype) == (torch.int32, torch.int32)
    assert most_rows == int(row_ends.diff().max())
    assert most_keys == int(key_ends.diff().max())
    k, v = (one.repeat_interleave(q.shape[1] // one.shape[1], 1) for one in (k, v))
    outs = []
    for rows, keys in zip(sequences(row_ends), sequences(key_ends), strict=True):
        products = torch.einsum("qhd,khd->hqk", q[rows], k[keys]) * scale
        last = torch.arange(products.shape[2] - products.shape[1], products.shape[2])[:, None]  # aligned at the end
        before = last - torch.arange(products.shape[2])
        hidden = (before < 0) | ((before > window_size[0]) if window_size[0] >= 0 else False)
        weights = products.masked_fill(hidden, float("-inf")).softmax(-1)
        outs.append(torch.einsum("hqk,khd->qhd", weights, v[keys]))
    return torch.cat(outs)


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
    for attend in (attention._varlen, attention._node_by_node):
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


@pytest.mark.parametrize("kernel", ["fast", "plain"])
@pytest.mark.parametrize(
    ("family", "window"),
    [
        *((one, None) for one in families.SHARED[:6]),
        *((one, "window of all layers") for one in ("mistral", "qwen2_moe")),
    ],
)
def test_gradients_of_a_row_equal_those_of_single_samples(
    family: str, window: str | None, kernel: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if kernel == "plain":
        monkeypatch.setattr(attention, "_kernel", lambda *_, **__: attention._node_by_node)
    model = model_of(family, window=window)
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


@pytest.mark.usefixtures("no_probe_yet")
def test_probe_inside_of_a_checkpointed_layer_does_not_count() -> None:
    """It comes first in the forward pass; the layer that is run again finds the kernel known."""
    model = model_of("qwen3").train()
    model.gradient_checkpointing_enable({"use_reentrant": False})
    (row,) = plan_rows(items(), max_tokens=10_000)
    with tree_attention(model):
        row_logits(model, row).sum().backward()
    assert model.score.weight.grad is not None


def test_bf16_scores_are_near_those_of_single_samples() -> None:
    model = model_of("qwen3", torch.bfloat16)
    single = logits(padded_logits(model, items(), max_tokens=1))
    shared = logits(tree_logits(model, items(), max_tokens=10_000))
    spread = torch.tensor(single).std().item()
    assert shared == pytest.approx(single, abs=0.1 * spread, rel=0)


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
    ("config", "reason"),
    [
        (Gemma2Config(**SIZES, head_dim=16), "it caps its attention scores"),
        (AutoConfig.for_model("gpt2"), "the family gpt2 is not known to be able to"),
        (
            Qwen3Config(**SIZES, layer_types=["full_attention", "chunked_attention", "full_attention"]),
            "layers of chun",
        ),
        (
            LlamaConfig(**SIZES, rope_parameters={"rope_type": "dynamic", "factor": 2.0, "rope_theta": 10_000.0}),
            "its positions depend on the length of the sample",
        ),
    ],
    ids=["caps", "another family", "chunks", "positions that depend on the length"],
)
def test_models_of_another_attention_are_recognised_with_the_reason(config, reason: str) -> None:
    assert reason in str(families.reason_not_to_share(config))


def test_positions_of_one_kind_of_layer_count_too() -> None:
    config = replace_rope(AutoConfig.for_model("gemma3_text"), "sliding_attention", "longrope")
    assert families.reason_not_to_share(config) == "its positions depend on the length of the sample"


def replace_rope(config: Any, layers: str, kind: str) -> Any:
    config.rope_parameters = {layers: {"rope_type": kind}, "full_attention": {"rope_type": "default"}}
    return config


@pytest.mark.parametrize(("family", "window"), CASES)
def test_models_that_see_all_or_a_window_can_share(family: str, window: str | None) -> None:
    assert families.reason_not_to_share(config_of(family, window)) is None


@pytest.mark.parametrize("family", families.SHARED)
@pytest.mark.parametrize(
    ("setting", "value", "reason"),
    [
        ("is_causal", False, "its tokens see those after them"),
        ("use_bidirectional_attention", True, "its tokens see those after them"),
        ("sliding_window", 0, "its window is empty"),
        ("layer_types", ["full_attention", "linear_attention"], "it has layers of linear_attention"),
        ("rope_scaling", {"type": "longrope"}, "its positions depend on the length of the sample"),
        ("rope_parameters", {"rope_type": "dynamic"}, "its positions depend on the length of the sample"),
    ],
)
def test_settings_that_no_family_can_have(family: str, setting: str, value: Any, reason: str) -> None:
    plain = dict.fromkeys(("rope_parameters", "rope_scaling", "layer_types"))
    config = SimpleNamespace(model_type=family, **{**plain, setting: value})
    assert families.reason_not_to_share(config) == reason


def test_decoder_that_hands_no_settings_on_is_refused() -> None:
    class Decoder:
        def forward(self, input_ids: Any, position_ids: Any = None) -> None: ...

    config = SimpleNamespace(model_type="qwen2_moe")
    assert families.reason_not_to_share(config) is None
    assert "does not hand the tree on" in str(families.reason_not_to_share(config, decoder=Decoder()))


def test_dropout_of_the_attention_counts_in_training_alone() -> None:
    config = SimpleNamespace(model_type="qwen3", attention_dropout=0.1)
    assert families.reason_not_to_share(config) is None
    assert families.reason_not_to_share(config, training=True) == "its attention has dropout"


def test_no_family_is_in_both_tables() -> None:
    assert not set(families.SHARED) & set(families.NOT_SHARED)
