"""Times four ways to the same scores for one model on one machine, to measure the gain of shared prefixes.

`ours` is `TransformersScorer`. `single` computes one sequence at a time. `batches_of_8` is the usual loop.
`one_forward` is one padded forward pass over the whole call, as in TRL's GRPOTrainer for a model given as a reward
function. The times cover forward passes only: CPU time on one CPU thread, which other work on the machine hardly
changes, else wall time.
"""

import os
import platform
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from statistics import median
from time import perf_counter, process_time
from typing import Any

import torch

from codescaler_plugin.errors import ConfigError
from codescaler_plugin.scoring import forward, forward_cpu
from codescaler_plugin.scoring.loading import text_config
from codescaler_plugin.scoring.prefix_tree import plan_rows

WAYS = ("ours", "single", "batches_of_8", "one_forward")
SIGMA = 0.4  # standard deviation of the logarithm of the completions' lengths
_PEAK_SIZE, _PEAK_REPETITIONS = 1024, 5


@dataclass(frozen=True)
class Bench:
    """Results by way. The dicts lack ways that were left out or ran out of memory."""

    samples: int  # sequences scored in one repetition
    real_tokens: int  # of all sequences, each in full
    computed_tokens: int  # put through the model by `ours`
    seconds: dict[str, float]  # median over the repetitions
    ratio: dict[str, float]  # median over the repetitions of a way's seconds divided by those of `ours`
    max_difference: dict[str, float]  # largest absolute difference of a score from that of `single`
    peak_mb: dict[str, float | None]  # peak of memory above that before; None where the system does not report it
    peak_fraction: float  # share of the machine's measured matrix product rate that `ours` reaches
    out_of_memory: tuple[str, ...] = ()  # ways that ran out of GPU memory


def synthetic_items(
    model: Any, *, groups: int, group: int, prompt: int, completion: int, seed: int = 0
) -> list[list[int]]:
    """Return the token ids of `groups` x `group` sequences: one prompt per group, completions of log-normal length.

    `prompt` counts tokens. `completion` is a mean: each has between a quarter and three times as many tokens.

    Raises:
        ConfigError: the sequences are too long for the model.
    """
    config = text_config(model)
    limit = getattr(config, "max_position_embeddings", None)
    if limit is not None and prompt + 3 * completion > limit:
        raise ConfigError(
            f"sequences of up to {prompt} + 3 x {completion} tokens do not fit the model's {limit}: give shorter ones"
        )
    rng = Random(seed)
    # The upper half may hold control tokens, and a model's own head skips a pad token at the end of a sequence.
    lower = model.get_input_embeddings().num_embeddings // 2
    words = [index for index in range(lower) if index != config.pad_token_id]
    items = []
    for _ in range(groups):
        shared = rng.choices(words, k=prompt)
        for _ in range(group):
            length = int(completion * rng.lognormvariate(-(SIGMA**2) / 2, SIGMA))
            items.append(shared + rng.choices(words, k=max(completion // 4, 1, min(length, 3 * completion))))
    return items


def run_bench(
    model: Any,
    items: Sequence[list[int]],
    *,
    ways: Sequence[str] = WAYS,
    repetitions: int = 5,
    max_tokens: int = forward.MAX_TOKENS,
    progress: Callable[[], None] | None = None,
) -> Bench:
    """Score n lists of token ids in every way, the ways in turn within each repetition.

    The model is in evaluation mode and has a pad token, which ends no item. `ours` is always timed, and `single` is
    always scored once for comparison. `progress` is called after each way of each repetition.
    """
    functions: dict[str, Callable[[], tuple[list[float], int]]] = {
        "ours": lambda: shared_scores(model, items, max_tokens),
        "single": lambda: padded_scores(model, items, 1),
        "batches_of_8": lambda: padded_scores(model, items, 8),
        "one_forward": lambda: padded_scores(model, items, len(items)),
    }
    chosen = [way for way in WAYS if way in ways or way == "ours"]
    clock = process_time if model.device.type == "cpu" and torch.get_num_threads() == 1 else perf_counter
    expected, _ = functions["single"]()
    shared_scores(model, items[:1], max_tokens)  # probes its kernel
    times: dict[str, list[float]] = {way: [] for way in chosen}
    differences: dict[str, float] = {}
    peaks: dict[str, float | None] = {}
    computed = 0
    for repetition in range(repetitions):
        for way in chosen[:] if repetition % 2 == 0 else chosen[::-1]:
            peak = _watched_memory(model.device) if repetition == 0 else None  # first ours, in fresh memory
            started = clock()
            try:
                scores, tokens = functions[way]()
            except RuntimeError as error:
                if way == "ours" or not forward.out_of_memory(error):
                    raise
                chosen.remove(way)
                for results in (times, differences, peaks):
                    results.pop(way, None)
                continue
            times[way].append(clock() - started)
            if peak is not None:
                peaks[way] = peak()
                differences[way] = max(abs(score - right) for score, right in zip(scores, expected, strict=True))
            if way == "ours":
                computed = tokens
            if progress is not None:
                progress()
    seconds = {way: median(values) for way, values in times.items()}
    ratio = {
        way: median(other / ours for other, ours in zip(times[way], times["ours"], strict=True)) for way in chosen
    }
    rate = useful_operations(model, items, computed) / seconds["ours"]
    return Bench(
        len(items),
        sum(map(len, items)),
        computed,
        seconds,
        ratio,
        differences,
        peaks,
        rate / _product_rate(model, clock),
        tuple(way for way in WAYS if way in ways and way not in chosen),
    )


def conditions(model: Any) -> dict[str, Any]:
    """Return the conditions of a measurement: versions, device, cores, threads and the load of the machine."""
    import transformers

    cuda = model.device.type == "cuda"
    return {
        "dtype": str(model.dtype).removeprefix("torch."),
        "device": torch.cuda.get_device_name(model.device) if cuda else _processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "load": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "python": platform.python_version(),
    }


def _processor() -> str:
    name = re.search(r"^model name\s*: (.+)$", forward_cpu.processor(), re.M)
    return name[1] if name else platform.processor() or platform.machine()


def shared_scores(model: Any, items: Sequence[list[int]], max_tokens: int) -> tuple[list[float], int]:
    """Score as `TransformersScorer` does; return the scores in the order of the items, and the tokens computed."""
    scores = [0.0] * len(items)
    tokens = 0
    logits = forward.tree_logits if forward.reason_not_to_share(model) is None else forward.padded_logits
    for done in logits(model, items, max_tokens=max_tokens):
        tokens += done.tokens
        for index, logit in done.logits:
            scores[index] = logit
    return scores, tokens


def padded_scores(model: Any, items: Sequence[list[int]], size: int) -> tuple[list[float], int]:
    """As `shared_scores`, by padded batches in the given order, through the model's own head and settings."""
    pad = text_config(model).pad_token_id
    scores: list[float] = []
    tokens = 0
    with torch.inference_mode():
        for start in range(0, len(items), size):
            batch = items[start : start + size]
            width = max(map(len, batch))
            ids = torch.tensor([row + [pad or 0] * (width - len(row)) for row in batch], device=model.device)
            mask = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in batch], device=model.device)
            scores += model(input_ids=ids, attention_mask=mask).logits.float().squeeze(-1).tolist()
            tokens += width * len(batch)
    return scores, tokens


def useful_operations(model: Any, items: Sequence[list[int]], computed: int) -> float:
    """Return the floating-point operations that `ours` needs: linear layers, and attention over each path."""
    layers = [module for module in model.base_model.modules() if isinstance(module, torch.nn.Linear)]
    weights = sum(layer.weight.numel() for layer in layers)
    # The last MLP computes last tokens only.
    if model.device.type == "cpu" and forward.reason_not_to_share(model) is None:
        weights -= sum(
            part.numel() for mlp, is_last in forward_cpu.mlps(model) if is_last for part in mlp.parameters()
        )
    config = text_config(model)
    rows = plan_rows(items, max_tokens=forward.MAX_TOKENS)
    contexts = sum(position + 1 for row in rows for position in row.positions)
    attention = 4 * config.num_attention_heads * forward.head_width(config) * config.num_hidden_layers * contexts
    return float(2 * weights * computed + attention)


def _product_rate(model: Any, clock: Callable[[], float]) -> float:
    """Operations per second of a large matrix product as in `ours`, in the model's dtype: the best of several."""
    on_cpu = model.device.type == "cpu" and model.dtype is torch.float32
    product = forward_cpu.by_onednn if on_cpu and forward_cpu.takes_onednn() else torch.nn.functional.linear
    left, right = (torch.randn(_PEAK_SIZE, _PEAK_SIZE, device=model.device, dtype=model.dtype) for _ in range(2))
    seconds = []
    for _ in range(_PEAK_REPETITIONS):
        started = clock()
        for _ in range(4):
            product(left, right)[0, 0].item()  # waits for the device
        seconds.append((clock() - started) / 4)
    return 2.0 * _PEAK_SIZE**3 / min(seconds)


def _watched_memory(device: Any) -> Callable[[], float | None]:
    """A function of the peak from now on, in MB above what is in use: CUDA's allocator's, else resident on Linux."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        allocated = torch.cuda.memory_allocated(device)
        return lambda: (torch.cuda.max_memory_allocated(device) - allocated) / 1e6
    reset = Path("/proc/self/clear_refs")
    if not reset.exists():
        return lambda: None
    reset.write_text("5")  # proc(5): resets the peak of resident memory
    resident = _status_mb("VmRSS")
    return lambda: max(0.0, _status_mb("VmHWM") - resident)


def _status_mb(name: str) -> float:
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    (value,) = (line.split()[1] for line in lines if line.startswith(f"{name}:"))
    return int(value) * 1024 / 1e6
