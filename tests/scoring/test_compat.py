"""The private parts of torch and transformers are as `compat.py` expects; else a sentence says what changed."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
import transformers
from transformers import AutoModelForSequenceClassification
from transformers.integrations import deepspeed

from codescaler_plugin.scoring import compat

TORCH, TRANSFORMERS = f"torch {torch.__version__}", f"transformers {transformers.__version__}"


@contextmanager
def unchanged(sentence: str) -> Iterator[None]:
    """Any error inside fails the test with the sentence."""
    try:
        yield
    except Exception as error:  # noqa: BLE001 - a private part may be missing, renamed, or compute something else
        pytest.fail(f"{sentence}: {type(error).__name__}: {error}")


def close(computed: torch.Tensor, expected: torch.Tensor) -> None:
    torch.testing.assert_close(computed, expected, rtol=1e-4, atol=1e-5)


def attention_inputs() -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(1, 2, 5, 8, generator=generator, requires_grad=True) for _ in range(3)]


def test_flash_attention_on_a_cpu_returns_the_output_and_the_log_sum_exp() -> None:
    q, k, v = (tensor.detach() for tensor in attention_inputs())
    with unchanged(
        f"{TORCH} changed aten::_scaled_dot_product_flash_attention_for_cpu (attention_cpu.py needs its lse)"
    ):
        for causal in (False, True):
            out, lse = compat.flash_forward(q, k, v, causal, 0.3)
            products = q @ k.transpose(-1, -2) * 0.3
            if causal:
                products = products.masked_fill(torch.ones(5, 5).triu(1).bool(), float("-inf"))
            close(out, products.softmax(-1) @ v)
            close(lse, products.logsumexp(-1))


def test_flash_attention_on_a_cpu_has_a_backward_pass() -> None:
    q, k, v = attention_inputs()
    grad = torch.randn(1, 2, 5, 8, generator=torch.Generator().manual_seed(1))
    expected = torch.autograd.grad((q @ k.transpose(-1, -2) * 0.3).softmax(-1) @ v, (q, k, v), grad)
    with unchanged(f"{TORCH} changed aten::_scaled_dot_product_flash_attention_for_cpu_backward"), torch.no_grad():
        out, lse = compat.flash_forward(q, k, v, False, 0.3)
        for computed, right in zip(compat.flash_backward(grad, q, k, v, out, lse, False, 0.3), expected, strict=True):
            close(computed, right)


def test_varlen_attention_takes_fewer_key_heads_than_heads() -> None:
    q, k, v = (torch.empty(7, heads, 16, device="meta", dtype=torch.bfloat16) for heads in (4, 2, 2))
    ends = torch.empty(3, device="meta", dtype=torch.int32)
    with unchanged(f"{TORCH} changed torch.nn.attention.varlen.varlen_attn, the kernel of attention.py on CUDA"):
        out = compat.varlen_attention(q, k, v, ends, ends, 4, 4, scale=0.3, window_size=(-1, 0))
        assert out.shape == q.shape


@pytest.mark.parametrize("bias", [None, torch.randn(12)])
def test_onednn_has_the_product_of_a_linear_layer(bias: torch.Tensor | None) -> None:
    rows, weight = torch.randn(64, 8), torch.randn(12, 8)
    with unchanged(f"{TORCH} changed mkldnn::_linear_pointwise, the fast product of forward_cpu.py"):
        close(compat.onednn_linear(rows, weight, bias), torch.nn.functional.linear(rows, weight, bias))


def test_updates_in_place_are_counted() -> None:
    weight = torch.ones(3)
    with unchanged(
        f"{TORCH} no longer counts in-place updates in Tensor._version: old scores would stay in the cache"
    ):
        before = compat.update_count(weight)
        weight.mul_(2)
        assert compat.update_count(weight) > before


def test_the_attention_of_a_model_is_read_as_its_setter_takes_it(tiny_rm_dir: Path) -> None:
    model = AutoModelForSequenceClassification.from_pretrained(tiny_rm_dir)
    with unchanged(f"{TRANSFORMERS} changed config._attn_implementation: tree_attention cannot restore a model"):
        for name in ("eager", "sdpa"):
            model.set_attn_implementation(name)
            assert compat.attention_implementation(model) == name


def test_code_of_a_model_is_imported_into_one_package(tiny_rm_dir: Path, tmp_path: Path, monkeypatch: Any) -> None:
    from transformers.dynamic_module_utils import get_class_from_dynamic_module

    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "modules"))
    monkeypatch.syspath_prepend(str(tmp_path / "modules"))
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "own.py").write_text("class Own: ...\n")
    with unchanged(f"{TRANSFORMERS} imports trusted code elsewhere: its models would be scored as plain decoders"):
        assert compat.brings_code(get_class_from_dynamic_module("own.Own", str(tmp_path / "own"))())
        assert not compat.brings_code(AutoModelForSequenceClassification.from_pretrained(tiny_rm_dir))


def test_the_deepspeed_configuration_of_a_trainer_is_found() -> None:
    class Config:  # in place of HfDeepSpeedConfig, which needs DeepSpeed
        config: ClassVar = {"zero_optimization": {"stage": 3}}

    config = Config()
    with unchanged(
        f"{TRANSFORMERS} changed deepspeed._hf_deepspeed_config_weak_ref: a reward model may load in parts"
    ):
        assert compat.deepspeed_config() is None
        deepspeed.set_hf_deepspeed_config(config)
        try:
            assert compat.deepspeed_config() is config
        finally:
            deepspeed.unset_hf_deepspeed_config()
        assert compat.deepspeed_config() is None
