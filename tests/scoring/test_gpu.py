"""The path of CUDA on a card: exactness, gradients, memory. `pytest -m gpu -n 0 --no-cov tests/scoring/test_gpu.py`."""

import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from codescaler_plugin import load_scorer
from codescaler_plugin.scoring import attention, loaded_model
from codescaler_plugin.scoring.forward import padded_logits, row_logits, tree_attention, tree_logits
from codescaler_plugin.scoring.prefix_tree import plan_rows
from codescaler_plugin.scoring.transformers_scorer import TransformersScorer
from tests.scoring.decoders import CASES, items, logits, model_of, single_logits
from tests.scoring.programs import GROUP as ITEMS

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU"),
]
HALF = [  # each first use of a kernel loads it, which takes seconds
    ("qwen3", None, torch.bfloat16),
    ("qwen3", None, torch.float16),
    ("llama", None, torch.bfloat16),
    ("mistral", "window", torch.bfloat16),
    ("gemma3_text", "window by layer", torch.bfloat16),
]
ROUNDING = 1.5
"""Our error over that of plain single samples in the same precision, both against float32; 1 is no more at all."""


def rms(values: Any) -> float:
    return float(torch.as_tensor(values).double().square().mean().sqrt())


@pytest.mark.parametrize(
    ("width", "dtype", "windowed"),
    [(128, torch.bfloat16, False), (128, torch.bfloat16, True), (256, torch.bfloat16, False)],
)
def test_kernel_is_the_one_for_varying_lengths(width: int, dtype: torch.dtype, windowed: bool) -> None:
    assert attention._kernel("cuda", dtype, width, windowed=windowed) is attention._varlen


@pytest.mark.parametrize(("family", "window"), CASES)
def test_scores_in_float32_equal_those_of_single_sequences(family: str, window: str | None) -> None:
    model = model_of(family, device="cuda", window=window)
    single = single_logits(model)
    for max_tokens in (10_000, 150):
        assert logits(tree_logits(model, items(), max_tokens=max_tokens)) == pytest.approx(single, abs=1e-5, rel=1e-5)


@pytest.mark.parametrize(("family", "window", "dtype"), HALF)
def test_scores_in_half_precision_are_no_less_exact_than_a_plain_forward_pass(
    family: str, window: str | None, dtype: torch.dtype
) -> None:
    model = model_of(family, dtype, "cuda", window)
    plain = torch.tensor(logits(padded_logits(model, items(), max_tokens=1)))
    shared = torch.tensor(logits(tree_logits(model, items(), max_tokens=10_000)))
    right = torch.tensor(logits(padded_logits(model.float(), items(), max_tokens=1)))
    assert 0 < rms(shared - right) <= ROUNDING * rms(plain - right)


@pytest.mark.parametrize(("family", "window", "dtype"), HALF)
def test_gradients_in_half_precision_are_no_less_exact_than_those_of_a_plain_backward_pass(
    family: str, window: str | None, dtype: torch.dtype
) -> None:
    model = model_of(family, dtype, "cuda", window)
    weights = torch.randn(len(items()), generator=torch.Generator().manual_seed(1)).tolist()

    def gradients() -> torch.Tensor:
        return torch.cat([weight.grad.float().flatten() for weight in model.parameters() if weight.grad is not None])

    def plain() -> torch.Tensor:
        model.zero_grad()
        for weight, item in zip(weights, items(), strict=True):
            (weight * model(input_ids=torch.tensor([item], device="cuda")).logits.squeeze()).backward()
        return gradients()

    def shared() -> torch.Tensor:
        model.zero_grad()
        (row,) = plan_rows(items(), max_tokens=10_000)
        with tree_attention(model):
            (
                row_logits(model, row) * torch.tensor([weights[item] for item, _ in row.lasts], device="cuda")
            ).sum().backward()
        return gradients()

    ours, theirs = shared(), plain()
    model.float()
    right = plain()
    assert 0 < rms(ours - right) <= ROUNDING * rms(theirs - right)


def test_gradients_in_float32_equal_those_of_a_plain_backward_pass() -> None:
    model = model_of("qwen3", device="cuda")
    (row,) = plan_rows(items(), max_tokens=10_000)
    with tree_attention(model):
        row_logits(model, row).sum().backward()
    found = {name: weight.grad.clone() for name, weight in model.named_parameters()}
    model.zero_grad()
    for item in items():
        model(input_ids=torch.tensor([item], device="cuda")).logits.sum().backward()
    for name, weight in model.named_parameters():
        scale = weight.grad.abs().max().item()
        torch.testing.assert_close(found[name], weight.grad, rtol=1e-4, atol=1e-5 * scale, msg=name)


def test_builtin_model_scores_as_on_a_cpu() -> None:
    """There in float32, here in the half precision of its file."""
    on_cpu, on_gpu = (load_scorer("builtin", device=device).score(ITEMS) for device in ("cpu", "cuda"))
    assert on_gpu == pytest.approx(on_cpu, abs=0.05, rel=0)


def saved_in_bfloat16(folder: Path, to: Path) -> Path:
    AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.bfloat16).save_pretrained(to)
    AutoTokenizer.from_pretrained(folder).save_pretrained(to)
    return to


def test_self_check_holds_for_a_model_in_bfloat16(
    tiny_rm_dir: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    scorer = TransformersScorer(str(saved_in_bfloat16(tiny_rm_dir, tmp_path)), device="cuda")
    with caplog.at_level(logging.WARNING, logger="codescaler_plugin"):
        scorer.score(ITEMS)
    assert scorer._loaded is not None
    assert (scorer._loaded.checked, scorer._loaded.shares, caplog.text) == (True, True, "")


def test_compiled_layers_give_the_scores_of_plain_ones(
    tiny_rm_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(loaded_model, "COMPILE_AFTER", 1)
    scorer = TransformersScorer(str(saved_in_bfloat16(tiny_rm_dir, tmp_path)), device="cuda", cache_size=0)
    before = scorer.score(ITEMS)
    with caplog.at_level(logging.WARNING, logger="codescaler_plugin"):
        assert scorer.score(ITEMS) == pytest.approx(before, abs=0.05, rel=0)
    assert caplog.text == ""
    assert scorer._loaded is not None
    assert "forward" in vars(scorer._loaded.model.model.layers[0])


def test_offload_gives_the_memory_of_a_gpu_back(tiny_rm_dir: Path) -> None:
    before = torch.cuda.memory_allocated()
    scorer = TransformersScorer(str(tiny_rm_dir), device="cuda")
    first = scorer.score(ITEMS)
    scorer.offload()
    assert torch.cuda.memory_allocated() == before
    assert scorer.score(ITEMS) == first


def test_running_out_of_memory_halves_the_passes_and_goes_on(
    tiny_rm_dir: Path, caplog: pytest.LogCaptureFixture
) -> None:
    items = [(f"Problem {number}. " * 30, f"x = {number}\n" * 60) for number in range(200)]
    expected = TransformersScorer(str(tiny_rm_dir), device="cuda").score(items)
    scorer = TransformersScorer(str(tiny_rm_dir), device="cuda", max_tokens=1_000_000)
    scorer.score(items[:1])
    torch.cuda.empty_cache()
    allowed = torch.cuda.memory_reserved() + 64_000_000
    torch.cuda.set_per_process_memory_fraction(allowed / torch.cuda.get_device_properties(0).total_memory)
    try:
        with caplog.at_level(logging.WARNING, logger="codescaler_plugin"):
            assert scorer.score(items) == pytest.approx(expected, abs=1e-4, rel=0)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert "out of memory: forward passes of" in caplog.text
