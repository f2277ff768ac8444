"""What sharing prefixes is worth for one model on one machine: four ways to the same scores, timed in turn.

`one_forward` is how TRL's GRPOTrainer scores with a model given as a reward function (one padded forward pass over the
whole call), `batches_of_8` the usual loop, `single` one sample at a time, `ours` what `TransformersScorer` does. Times
are of forward passes alone: CPU time on one CPU thread, so that other work on the machine counts little, else wall
time.
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
from codescaler_plugin.scoring import forward_cpu
from codescaler_plugin.scoring.forward import (
    MAX_TOKENS,
    head_width,
    out_of_memory,
    padded_logits,
    reason_not_to_share,
    tree_logits,
)
from codescaler_plugin.scoring.loading import text_config
from codescaler_plugin.scoring.prefix_tree import plan_rows

WAYS = ("ours", "single", "batches_of_8", "one_forward")
SIGMA = 0.4  # of the log-normal lengths of completions
_PEAK_SIZE, _PEAK_REPETITIONS = 1024, 5


@dataclass(frozen=True)
class Bench:
    """Results by way of scoring; ways that were left out or ran out of memory are missing.

    Attributes:
        samples: scored in one repetition.
        real_tokens: of all samples, each in full.
        computed_tokens: put through the model by our way.
        seconds: median over the repetitions.
        ratio: median over the repetitions of a way's seconds by ours; above 1 ours is faster.
        max_difference: largest absolute difference of a score from that of the single sample.
        peak_mb: peak of resident memory above that before, in MB; None where the system cannot tell.
        peak_fraction: share of the machine's measured matrix product rate that our way reaches.
        out_of_memory: ways that the memory of a GPU did not suffice for.
    """

    samples: int
    real_tokens: int
    computed_tokens: int
    seconds: dict[str, float]
    ratio: dict[str, float]
    max_difference: dict[str, float]
    peak_mb: dict[str, float | None]
    peak_fraction: float
    out_of_memory: tuple[str, ...] = ()


def synthetic_items(
    model: Any, *, groups: int, group: int, prompt: int, completion: int, seed: int = 0
) -> list[list[int]]:
    """Token ids of `groups` x `group` samples: equal prompts within a group, log-normal completions.

    Args:
        model: gives the vocabulary and the greatest length.
        groups: number of problems.
        group: samples per problem; neighbours.
        prompt: tokens shared by a group.
        completion: mean tokens of the rest, clipped to a quarter and to three times of it.
        seed: of the ids and lengths.

    Raises:
        ConfigError: the samples are too long for the model.
    """
    config = text_config(model)
    limit = getattr(config, "max_position_embeddings", None)
    if limit is not None and prompt + 3 * completion > limit:
        raise ConfigError(
            f"samples of up to {prompt} + 3 x {completion} tokens do not fit the model's {limit}: give shorter ones"
        )
    rng = Random(seed)
    # The upper end may hold control tokens, and a model's own head does not read a pad token at the end of a sample.
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
    max_tokens: int = MAX_TOKENS,
    progress: Callable[[], None] | None = None,
) -> Bench:
    """Score the items in every way, the ways in turn within each repetition.

    Args:
        model: a sequence classifier in evaluation mode, with a pad token.
        items: n lists of token ids, none of which ends in it.
        ways: of `WAYS`; `ours` is always measured, `single` always scored once, as what the others must equal.
        repetitions: of the timing.
        max_tokens: of our forward passes.
        progress: called after each way of each repetition.
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
                if way == "ours" or not out_of_memory(error):
                    raise
                chosen.remove(way)
                for results in (times, differences, peaks):
                    results.pop(way, None)
                continue
            times[way].append(clock() - started)
            if peak is not None:
                peaks[way] = peak()
                differences[way] = max(abs(one - other) for one, other in zip(scores, expected, strict=True))
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


def bench_table(result: Bench) -> Any:
    """The result as a table of rich that fits 80 columns."""
    from rich.table import Table

    saved = 1 - result.computed_tokens / result.real_tokens
    table = Table(
        title=f"{result.samples} samples, {result.real_tokens:,} tokens; ours computes {saved:.0%} fewer",
        caption=f"ours reaches {result.peak_fraction:.0%} of this machine's rate of matrix products",
    )
    for column in ("", "tokens/s", "ours is", "max difference", "peak memory"):
        table.add_column(column, justify="right" if column else "left")
    for way, seconds in result.seconds.items():
        peak = result.peak_mb[way]
        table.add_row(
            way.replace("_", " "),
            f"{result.real_tokens / seconds:,.0f}",
            "" if way == "ours" else f"{result.ratio[way]:.2f}x as fast",
            f"{result.max_difference[way]:.1e}",
            "unknown" if peak is None else f"{peak:,.0f} MB",
        )
    for way in result.out_of_memory:
        table.add_row(way.replace("_", " "), "", "", "", "not enough")
    return table


def conditions(model: Any) -> dict[str, Any]:
    """What a figure depends on: versions, device, cores, threads and the load of the machine."""
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
    named = re.search(r"^model name\s*: (.+)$", forward_cpu.processor(), re.M)  # else Python knows
    return named[1] if named else platform.processor() or platform.machine()


def shared_scores(model: Any, items: Sequence[list[int]], max_tokens: int) -> tuple[list[float], int]:
    """As `TransformersScorer` does it: scores in the order of the items, and the tokens put through the model."""
    scores = [0.0] * len(items)
    tokens = 0
    logits = tree_logits if reason_not_to_share(model) is None else padded_logits
    for done in logits(model, items, max_tokens=max_tokens):
        tokens += done.tokens
        for index, logit in done.logits:
            scores[index] = logit
    return scores, tokens


def padded_scores(model: Any, items: Sequence[list[int]], size: int) -> tuple[list[float], int]:
    """As recipes do it: padded batches in the order that they came, through the model's own head and settings.

    Returns scores and tokens as `shared_scores`.
    """
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
    """Floating-point operations that our way needs: products of the linear layers, and attention over each path."""
    layers = [module for module in model.base_model.modules() if isinstance(module, torch.nn.Linear)]
    weights = sum(layer.weight.numel() for layer in layers)
    if model.device.type == "cpu" and reason_not_to_share(model) is None:  # the last MLP sees last tokens only
        weights -= sum(
            part.numel() for mlp, is_last in forward_cpu.mlps(model) if is_last for part in mlp.parameters()
        )
    config = text_config(model)
    contexts = sum(position + 1 for row in plan_rows(items, max_tokens=MAX_TOKENS) for position in row.positions)
    attention = 4 * config.num_attention_heads * head_width(config) * config.num_hidden_layers * contexts
    return float(2 * weights * computed + attention)


def _product_rate(model: Any, clock: Callable[[], float]) -> float:
    """Operations a second of a large matrix product in the model's dtype, as ours makes it: the best of several."""
    by_onednn = model.device.type == "cpu" and model.dtype is torch.float32
    by_onednn = by_onednn and forward_cpu.takes_onednn()
    product = forward_cpu.by_onednn if by_onednn else torch.nn.functional.linear
    one, other = (torch.randn(_PEAK_SIZE, _PEAK_SIZE, device=model.device, dtype=model.dtype) for _ in range(2))
    best = float("inf")
    for _ in range(_PEAK_REPETITIONS):
        started = clock()
        for _ in range(4):
            product(one, other)[0, 0].item()  # waits for the device
        best = min(best, (clock() - started) / 4)
    rate: float = 2.0 * _PEAK_SIZE**3 / best
    return rate


def _watched_memory(device: Any) -> Callable[[], float | None]:
    """What gives the peak from now on, in MB above what is in use: the allocator's on CUDA, else resident memory.

    None where the system cannot tell: elsewhere than on Linux.
    """
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
