"""Memory of a GRPO step per GPU, from the shapes of the models and the settings: an estimate, made without a GPU.

Counted: weights, gradients and Adam's states as the precision and ZeRO stage lay them out; vLLM's share; with
checkpointing, one residual per layer, the inside of one layer, and the logits in training; the reward model's weights
and its largest forward pass. Not counted: CUDA contexts, fragmentation, communication buffers (leave 10% free).
"""

import re
from dataclasses import dataclass
from typing import Any

from rich.table import Table
from transformers import AutoConfig

GIB = 2**30
# The published configurations, so that an estimate needs no hub: hidden, MLP, layers, heads, key-value heads, tied.
QWEN3 = {
    "0.6B": (1024, 3072, 28, 16, 8, True),
    "1.7B": (2048, 6144, 28, 16, 8, True),
    "4B": (2560, 9728, 36, 32, 8, True),
    "8B": (4096, 12288, 36, 32, 8, False),
    "14B": (5120, 17408, 40, 40, 8, False),
}
RM_TOKENS = 16_384  # of the scorer's largest forward pass
LOGIT_BYTES = 10  # bf16, its float32 copy, and the gradient


@dataclass(frozen=True)
class Shape:
    """What memory depends on."""

    hidden: int
    wide: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    vocabulary: int
    tied: bool

    def parameters(self, *, head: bool = True) -> int:
        """Number of parameters; `head`: with the output embedding of a language model."""
        attention = self.hidden * self.head_dim * (2 * self.heads + 2 * self.kv_heads) + 2 * self.head_dim
        layer = attention + 3 * self.hidden * self.wide + 2 * self.hidden
        embeddings = self.vocabulary * self.hidden * (2 if head and not self.tied else 1)
        return self.layers * layer + embeddings + self.hidden

    def inside(self) -> int:
        """Bytes per token of what one layer computes, in bf16."""
        return 2 * (14 * self.hidden + 3 * self.wide)


@dataclass(frozen=True)
class Step:
    """The settings of a run that memory depends on; lengths in tokens."""

    gpus: int
    zero_stage: int
    float32: bool
    micro_batch: int
    prompt: int
    completion: int
    vllm_share: float
    vllm_sleeps: bool
    gpu_gb: float


def shape_of(name: str) -> Shape:
    """The shape of a Qwen3 or of any decoder whose configuration can be read.

    Raises:
        OSError: the configuration cannot be had.
    """
    if size := re.search(r"(?:Qwen3|CodeScaler)-(\d+(?:\.\d)?B)", name):
        hidden, wide, layers, heads, kv_heads, tied = QWEN3[size[1]]
        return Shape(hidden, wide, layers, heads, kv_heads, 128, 151_936, tied)
    config: Any = AutoConfig.from_pretrained(name, trust_remote_code=False)
    return Shape(
        config.hidden_size,
        config.intermediate_size,
        config.num_hidden_layers,
        config.num_attention_heads,
        config.num_key_value_heads,
        getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads,
        config.vocab_size,
        config.tie_word_embeddings,
    )


def estimate(policy: Shape, reward_model: Shape | None, step: Step) -> dict[str, dict[str, float]]:
    """GiB per GPU of each part in the three phases of a step; `reward_model` None: it has its own server."""
    count = policy.parameters()
    weights, gradients, optimiser = (4, 4, 8) if step.float32 else (2, 2, 12 if step.zero_stage else 4)
    divided = {0: (1, 1, 1), 1: (1, 1, step.gpus), 2: (1, step.gpus, step.gpus), 3: (step.gpus,) * 3}[step.zero_stage]
    held = [count * size / by for size, by in zip((weights, gradients, optimiser), divided, strict=True)]
    tokens = step.micro_batch * (step.prompt + step.completion)
    gathered = 2 * 2 * count / policy.layers if step.zero_stage == 3 else 0  # two layers' weights at a time
    residuals = tokens * 2 * policy.hidden * policy.layers + 2 * tokens * policy.inside() + gathered
    logits = step.micro_batch * step.completion * policy.vocabulary * LOGIT_BYTES
    engine = step.vllm_share * step.gpu_gb * 1e9
    judge = 2 * reward_model.parameters(head=False) if reward_model else 0
    judging = RM_TOKENS * reward_model.inside() if reward_model else 0
    awake = 0 if step.vllm_sleeps else engine
    parts = {
        "policy: weights": (held[0],) * 3,
        "policy: optimiser": (held[2],) * 3,
        "policy: gradients": (0, 0, held[1]),
        "vLLM: weights and cache": (engine, awake, awake),
        "reward model: weights": (judge,) * 3,
        "reward model: forward pass": (0, judging, 0),
        "activations": (0, 0, residuals),
        "logits": (0, 0, logits),
    }
    rows = {name: _phases(values) for name, values in parts.items()}
    return {**rows, "sum": _phases([sum(values) for values in zip(*parts.values(), strict=True)])}


def _phases(values: Any) -> dict[str, float]:
    return {name: value / GIB for name, value in zip(("generate", "score", "train"), values, strict=True)}


def table(rows: dict[str, dict[str, float]], step: Step) -> Table:
    """The estimate for a terminal of 80 columns."""
    shown = Table(title=f"GiB per GPU, {step.gpus} x {step.gpu_gb:g} GB, ZeRO stage {step.zero_stage}")
    shown.add_column("")
    for phase in ("generate", "score", "train"):
        shown.add_column(phase, justify="right")
    for name, phases in rows.items():
        shown.add_row(name, *(f"{value:.1f}" for value in phases.values()), end_section=name == "logits")
    return shown
