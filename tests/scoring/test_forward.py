"""A row of shared prefixes gives the scores and gradients of single sequences, in every family."""

from pathlib import Path

import pytest
import torch

from codescaler_plugin.scoring import attention, families, forward
from codescaler_plugin.scoring.forward import padded_logits, row_logits, tree_attention, tree_logits
from codescaler_plugin.scoring.prefix_tree import plan_rows
from tests.scoring.decoders import CASES, WINDOWS, items, logits, model_of, single_logits
from tests.scoring.programs import handle


@pytest.mark.parametrize("max_tokens", [10_000, 150, 1])
@pytest.mark.parametrize(("family", "window"), CASES)
def test_scores_of_a_row_equal_those_of_single_sequences(family: str, window: str | None, max_tokens: int) -> None:
    model = model_of(family, window=window)
    single = single_logits(model)
    assert max(single) - min(single) > 0.5, "samples must differ for a leak between them to show"
    assert logits(tree_logits(model, items(), max_tokens=max_tokens)) == pytest.approx(single, abs=1e-5, rel=0)


def test_scores_without_the_flash_kernel_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    model = model_of("qwen3")
    fast = logits(tree_logits(model, items(), max_tokens=10_000))
    monkeypatch.setattr(attention, "_kernel", lambda *_, **__: attention._node_by_node)
    assert logits(tree_logits(model, items(), max_tokens=10_000)) == pytest.approx(fast, abs=1e-5, rel=0)


def test_a_window_that_no_sequence_fills_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(WINDOWS, "wide", {"sliding_window": 1000})
    model = model_of("mistral", window="wide")
    single = logits(padded_logits(model_of("mistral"), items(), max_tokens=1))
    assert logits(tree_logits(model, items(), max_tokens=10_000)) == pytest.approx(single, abs=1e-5, rel=0)


@pytest.mark.parametrize("kernel", ["fast", "plain"])
@pytest.mark.parametrize(
    ("family", "window"),
    [
        *((one, None) for one in families.SHARED[:6]),
        *((one, "window of all layers") for one in ("mistral", "qwen2_moe")),
    ],
)
def test_gradients_of_a_row_equal_those_of_single_sequences(
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


def test_bf16_scores_are_near_those_of_single_sequences() -> None:
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


@pytest.mark.parametrize(("free_mb", "tokens"), [(0, 1024), (8, 1674), (100_000, forward.MAX_TOKENS)])
def test_token_budget_follows_the_free_memory(
    tiny_rm_dir: Path, free_mb: int, tokens: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    import psutil

    class Memory:
        available = free_mb * 1_000_000

    monkeypatch.setattr(psutil, "virtual_memory", Memory)
    model, _ = handle(tiny_rm_dir)
    assert forward.fitting_tokens(model) == pytest.approx(tokens, rel=0.5)
