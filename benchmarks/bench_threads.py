"""What one CPU thread costs a small model alone, and saves it beside a busy process.

    python benchmarks/bench_threads.py                 scoring by model size, one thread against all (two minutes)
    python benchmarks/bench_threads.py --quickstart 3  the quickstart, alone against beside a process that burns a core

The first table shows what `threads.SMALL` trades. The second holds paired times: alone, busy, alone, busy ...; the
ratio is the median over the pairs. The last line is JSON.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

SHAPES = {"1M": (128, 5, 4), "7M": (256, 6, 4), "16M": (384, 6, 6), "38M": (512, 8, 8)}  # hidden, layers, heads
VOCABULARY = 4096


@contextmanager
def burner() -> Iterator[None]:
    """A process that keeps one core busy."""
    process = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        yield
    finally:
        process.kill()
        process.wait()


def scoring(repetitions: int) -> list[dict[str, Any]]:
    """Seconds of one group's scoring with all threads over those with one, paired; alone and busy."""
    import torch
    from transformers import Qwen3Config, Qwen3ForSequenceClassification

    from codescaler_plugin.scoring.bench import synthetic_items
    from codescaler_plugin.scoring.forward import tree_logits

    every = torch.get_num_threads()
    rows = []
    for name, (hidden, layers, heads) in SHAPES.items():
        config = Qwen3Config(
            vocab_size=VOCABULARY,
            hidden_size=hidden,
            intermediate_size=4 * hidden,
            num_hidden_layers=layers,
            num_attention_heads=heads,
            num_key_value_heads=heads,
            head_dim=hidden // heads,
            num_labels=1,
            pad_token_id=0,
        )
        torch.manual_seed(0)
        model = Qwen3ForSequenceClassification(config).eval()
        items = synthetic_items(model, groups=1, group=8, prompt=100, completion=60)

        def seconds(threads: int, model: Any = model, items: Any = items) -> float:
            torch.set_num_threads(threads)
            started = time.perf_counter()
            for _ in range(3):
                list(tree_logits(model, items, max_tokens=16_384))
            return time.perf_counter() - started

        def ratio() -> float:
            seconds(1), seconds(every)  # warm
            return median(seconds(every) / seconds(1) for _ in range(repetitions))

        row = {"model": name, "parameters": sum(one.numel() for one in model.parameters()), "alone": ratio()}
        with burner():
            row["busy"] = ratio()
        rows.append(row)
        print(f"{name:>4}  {every} threads over 1: alone {row['alone']:.2f}, beside a busy process {row['busy']:.2f}")
    return rows


def quickstart(pairs: int, steps: int | None) -> dict[str, Any]:
    """Seconds of the quickstart, alone and beside a busy process."""

    def seconds() -> float:
        with tempfile.TemporaryDirectory() as folder:
            command = [sys.executable, "-m", "codescaler_plugin", "quickstart", "--json", "--output", folder]
            command += [] if steps is None else ["--steps", str(steps)]
            started = time.perf_counter()
            subprocess.run(command, check=True, capture_output=True, env={**os.environ, "HF_HUB_OFFLINE": "1"})
            return time.perf_counter() - started

    alone, busy = [], []
    for number in range(pairs):
        alone.append(seconds())
        with burner():
            busy.append(seconds())
        print(f"pair {number + 1}: alone {alone[-1]:.0f} s, beside a busy process {busy[-1]:.0f} s", flush=True)
    ratios = [slow / fast for slow, fast in zip(busy, alone, strict=True)]
    return {"alone": alone, "busy": busy, "ratio": median(ratios)}


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quickstart", type=int, metavar="PAIRS", help="measure the quickstart in so many pairs")
    parser.add_argument("--steps", type=int, help="of the quickstart; default: its own")
    parser.add_argument("--repetitions", type=int, default=5, help="of the scoring")
    parser.add_argument("--output", type=Path, help="write the JSON here too")
    arguments = parser.parse_args()
    if arguments.quickstart:
        result: dict[str, Any] = {"quickstart": quickstart(arguments.quickstart, arguments.steps)}
        print(f"ratio of the times, median of {arguments.quickstart}: {result['quickstart']['ratio']:.2f}")
    else:
        result = {"scoring": scoring(arguments.repetitions)}
    line = json.dumps({**result, "cores": os.cpu_count()})
    if arguments.output is not None:
        arguments.output.write_text(line + "\n", encoding="utf-8")
    print(line)


if __name__ == "__main__":
    main()
