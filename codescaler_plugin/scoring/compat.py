"""The private and version-dependent parts of torch and transformers, each used in one function here.

Each docstring names the part and the versions it was seen in. If a release changes it, `tests/scoring/test_compat.py`
fails with a sentence that names the library and the change.
"""

from typing import Any


def flash_forward(q: Any, k: Any, v: Any, causal: bool, scale: float) -> tuple[Any, Any]:
    """Flash attention on a CPU: the output [a, b, queries, head_dim], and the log-sum-exp [a, b, queries] in float32.

    `aten::_scaled_dot_product_flash_attention_for_cpu`, torch 2.4 to 2.13: torch's public attention does not return
    the log-sum-exp. `causal` needs as many keys as queries.
    """
    import torch

    out, lse = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(q, k, v, 0.0, causal, scale=scale)
    return out, lse


def flash_backward(
    grad: Any, q: Any, k: Any, v: Any, out: Any, lse: Any, causal: bool, scale: float
) -> tuple[Any, Any, Any]:
    """Gradients of q, k and v, given that of the output of `flash_forward`.

    `aten::_scaled_dot_product_flash_attention_for_cpu_backward`, torch 2.4 to 2.13.
    """
    import torch

    dq, dk, dv = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward(
        grad, q, k, v, out, lse, 0.0, causal, scale=scale
    )
    return dq, dk, dv


def varlen_attention(q: Any, k: Any, v: Any, *lengths: Any, scale: float, window_size: tuple[int, int]) -> Any:
    """`torch.nn.attention.varlen.varlen_attn` (torch 2.11) with key heads that each serve several query heads.

    torch 2.13 needs `enable_gqa` for that; 2.11 and 2.12 have no such argument and do not need it.
    """
    from torch.nn.attention.varlen import varlen_attn

    grouped = {"enable_gqa": True} if "enable_gqa" in (varlen_attn.__kwdefaults__ or {}) else {}
    return varlen_attn(q, k, v, *lengths, scale=scale, window_size=window_size, **grouped)  # type: ignore[arg-type]


def onednn_linear(rows: Any, weight: Any, bias: Any) -> Any:
    """`torch.nn.functional.linear` of float32 [rows, in] by oneDNN, without gradients.

    `mkldnn::_linear_pointwise`, torch 2.1 to 2.13: there is no public way to choose oneDNN over MKL.
    """
    import torch

    return torch.ops.mkldnn._linear_pointwise(rows, weight, bias, "none", [], "")


def update_count(tensor: Any) -> int:
    """The number of in-place updates of a tensor, without assignments to `.data`: `_version`, torch 2.4 to 2.13."""
    return int(tensor._version)


def attention_implementation(model: Any) -> str:
    """The argument of `model.set_attn_implementation` that is in effect; only the setter is public.

    `config._attn_implementation`, transformers 4.56 to 5.24.
    """
    name: str = model.config._attn_implementation
    return name


def brings_code(model: Any) -> bool:
    """Return True if the class of a model comes from its own folder or hub repository (`trust_remote_code`).

    The package that transformers 4.56 to 5.24 import such code into.
    """
    from transformers.dynamic_module_utils import TRANSFORMERS_DYNAMIC_MODULE_NAME

    return str(type(model).__module__).startswith(f"{TRANSFORMERS_DYNAMIC_MODULE_NAME}.")


def deepspeed_config() -> Any:
    """The `HfDeepSpeedConfig` that a trainer has set for the process, else None; only the setters are public.

    `transformers.integrations.deepspeed._hf_deepspeed_config_weak_ref`, transformers 4.56 to 5.24.
    """
    from transformers.integrations import deepspeed

    reference = deepspeed._hf_deepspeed_config_weak_ref
    return None if reference is None else reference()
