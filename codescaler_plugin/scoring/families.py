"""The model families that can share prefixes (`attention.py`), and why others cannot."""

from collections.abc import Iterator
from inspect import Parameter, signature
from typing import Any

SHARED = (
    *("qwen2", "qwen2_moe", "qwen3", "qwen3_moe", "llama", "mistral", "mixtral", "ministral", "ministral3"),
    *("gemma", "gemma3_text", "phi", "phi3", "olmo", "olmo2", "olmo3", "smollm3", "starcoder2", "glm", "glm4"),
    *("seed_oss", "exaone4", "arcee", "helium", "hunyuan_v1_dense"),
)
"""Values of `model_type`: decoders whose layers attend to all earlier tokens or to a sliding window of them."""

NOT_SHARED = {
    "gemma2": "it caps its attention scores",
    "gpt_oss": "its attention has sinks",
    "bloom": "its positions are in the attention mask (ALiBi)",
    "mpt": "its positions are in the attention mask (ALiBi)",
    "falcon": "its positions may be in the attention mask (ALiBi)",
    "llama4": "its layers see chunks",
    **dict.fromkeys(("deepseek_v2", "deepseek_v3"), "its keys are wider than its values (MLA)"),
    **dict.fromkeys(("qwen3_next", "qwen3_5_text", "jamba", "mamba", "mamba2"), "it has layers without attention"),
    **dict.fromkeys(("gemma3", "qwen3_5", "qwen2_vl", "qwen2_5_vl", "qwen3_vl"), "it reads images, too"),
}
"""The reason by `model_type`. A family in neither table is unknown: nobody has compared its scores."""

_LAYERS = {"full_attention", "sliding_attention"}
_LENGTH_DEPENDENT = ("dynamic", "longrope")


def unsupported_reason(config: Any, *, decoder: Any = None, training: bool = False) -> str | None:
    """Return why a model with this config of its text model cannot share prefixes; None if it can.

    The `forward` of `decoder`, the model below the head, must pass keyword arguments on to its layers; that of
    `qwen2_moe` does since transformers 5. In `training`, dropout in the attention is a reason.
    """
    family = str(config.model_type)
    if family not in SHARED:
        return NOT_SHARED.get(family, f"the family {family} is not known to be able to")
    if not getattr(config, "is_causal", True) or getattr(config, "use_bidirectional_attention", False):
        return "its tokens see those after them"
    if getattr(config, "sliding_window", None) == 0 and getattr(config, "use_sliding_window", True):
        return "its window is empty"
    if decoder is not None and not any(
        parameter.kind is Parameter.VAR_KEYWORD for parameter in signature(decoder.forward).parameters.values()
    ):
        return "this version of transformers does not hand the tree on to its layers"
    if training and getattr(config, "attention_dropout", None):
        return "its attention has dropout"
    others = set(getattr(config, "layer_types", None) or ()) - _LAYERS
    if others:
        return f"it has layers of {', '.join(sorted(others))}"
    if any(kind in _LENGTH_DEPENDENT for kind in _rope_types(config)):
        return "its positions depend on the length of the sequence"
    return None


def _rope_types(config: Any) -> Iterator[str]:
    """The types of rotary positions: one for all layers, or one per type of layer."""
    rope = getattr(config, "rope_parameters", None) or getattr(config, "rope_scaling", None) or {}
    for settings in (rope, *(part for part in rope.values() if isinstance(part, dict))):
        yield settings.get("rope_type", settings.get("type", "default"))  # the latter in transformers 4
