"""What the stages of `benchmarks/gpu.sh` share: arguments, models at true shapes, timing, and the file of results."""

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import torch
from transformers import Qwen3Config, Qwen3ForCausalLM, Qwen3ForSequenceClassification

from codescaler_plugin.scoring.bench import conditions

SHAPES = {  # of Qwen3: hidden, intermediate, layers, heads, key heads
    "0.6B": (1024, 3072, 28, 16, 8),
    "1.7B": (2048, 6144, 28, 16, 8),
    "4B": (2560, 9728, 36, 32, 8),
    "8B": (4096, 12_288, 36, 32, 8),
    "tiny": (64, 128, 2, 4, 2),
}
HEAD_DIM, VOCABULARY = 128, 151_936


def arguments(description: str | None) -> argparse.Namespace:
    """The arguments of a stage: device, tiny, output."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--tiny", action="store_true", help="small models and few repetitions: shows that it runs")
    parser.add_argument("--output", type=Path, help="file of JSON lines to append to; default: print alone")
    return parser.parse_args()


def dtype_of(device: str) -> Any:
    """bfloat16, but float32 on a CPU, where products in bfloat16 are many times slower."""
    return torch.float32 if device == "cpu" else torch.bfloat16


def random_model(size: str, device: str, *, causal: bool = False, vocabulary: int = 0) -> Any:
    """A Qwen3 of a published size with random weights, made on the device: a reward model, or a policy if `causal`."""
    hidden, intermediate, layers, heads, key_heads = SHAPES[size]
    config = Qwen3Config(
        vocab_size=vocabulary or (1000 if size == "tiny" else VOCABULARY),
        hidden_size=hidden,
        intermediate_size=intermediate,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=key_heads,
        head_dim=16 if size == "tiny" else HEAD_DIM,
        num_labels=1,
        pad_token_id=0,
        tie_word_embeddings=size != "8B",
        max_position_embeddings=40_960,
    )
    torch.manual_seed(0)
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype_of(device))
    try:
        with torch.device(device):
            model = (Qwen3ForCausalLM if causal else Qwen3ForSequenceClassification)(config)
    finally:
        torch.set_default_dtype(before)
    if not causal:
        torch.nn.init.normal_(model.score.weight, std=hidden**-0.5)  # scores spread by about 1
    return model.eval()


def wait(device: str) -> None:
    """Until the device has done what it was given."""
    if device != "cpu":
        torch.cuda.synchronize()


def timed(
    functions: dict[str, Callable[[], Any]], device: str, *, repetitions: int, seconds: float = 60.0
) -> dict[str, list[float]]:
    """Wall seconds of each function, in turn within each repetition, after one call of each that does not count.

    Args:
        functions: by name.
        device: waited for before and after each call.
        repetitions: at most.
        seconds: after which no further repetition begins.
    """
    times: dict[str, list[float]] = {name: [] for name in functions}
    for function in functions.values():
        function()
    begun = perf_counter()
    for repetition in range(repetitions):
        names = list(functions) if repetition % 2 == 0 else list(functions)[::-1]
        for name in names:
            wait(device)
            started = perf_counter()
            functions[name]()
            wait(device)
            times[name].append(perf_counter() - started)
        if perf_counter() - begun > seconds:
            break
    return times


def paired(times: dict[str, list[float]], base: str) -> dict[str, float]:
    """Median over the repetitions of each one's seconds by those of `base`; above 1 `base` is faster."""
    return {
        name: round(median(one / other for one, other in zip(values, times[base], strict=True)), 3)
        for name, values in times.items()
    }


def product_rate(device: str, *, tiny: bool = False) -> float:
    """Operations a second of a large matrix product of random numbers: the machine's peak, measured."""
    size = 512 if tiny else 8192
    one, other = (torch.randn(size, size, device=device, dtype=dtype_of(device)) for _ in range(2))
    times = timed({"product": lambda: [one @ other for _ in range(5)]}, device, repetitions=5)["product"]
    return 5 * 2.0 * size**3 / min(times)


def peak_memory_gb(function: Callable[[], Any], device: str) -> float | None:
    """Peak of the allocator during a call, above what was in use before; None on a CPU."""
    if device == "cpu":
        function()
        return None
    wait(device)
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    function()
    wait(device)
    return round((torch.cuda.max_memory_allocated() - before) / 1e9, 3)


def record(output: Path | None, stage: str, model: Any, **values: Any) -> None:
    """Append a line to the results, and print it: an interrupted run keeps what it has."""
    line = json.dumps({"stage": stage, **values, "conditions": {**conditions(model), "argv": sys.argv[1:]}})
    print(line, flush=True)
    if output is not None:
        with output.open("a", encoding="utf-8") as file:
            file.write(line + "\n")


def milliseconds(times: Sequence[float]) -> float:
    """Median, in milliseconds."""
    return round(median(times) * 1e3, 3)
