"""One claim: a training step of the reward model is faster when what the sides of a pair share is computed once.

    python benchmarks/bench_training.py

Loss and gradients of one batch of random pairs, on a random Qwen3 classifier (hidden 256, 4 layers) in float32, one
thread, CPU time: TRL's loss over the padded batch, and the same loss with shared prefixes, in turn, five times; the
ratio is paired within a repetition. Both losses and all gradients are compared first. The last line is JSON.
"""

import json
import sys
from statistics import median
from time import process_time
from typing import Any

import torch
from bench_scoring import model_of
from trl.trainer.reward_trainer import DataCollatorForPreference

from codescaler_plugin.integrations.trl.trainer import SharedPrefixes
from codescaler_plugin.scoring.bench import conditions, synthetic_items

CELLS = {
    "P=512 C=128, 8 pairs": (512, 128, 8),
    "P=256 C=256, 8 pairs": (256, 256, 8),
    "P=64 C=512, 8 pairs": (64, 512, 8),
}
REPETITIONS = 5
GRADIENT_TOLERANCE = 1e-4  # of the largest of a weight


def loss_of(scored: Any, batch: dict[str, Any]) -> Any:
    """The pairwise loss of TRL's RewardTrainer."""
    chosen, rejected = torch.chunk(scored(**batch, use_cache=False).logits.squeeze(-1), 2)
    return -torch.nn.functional.logsigmoid(chosen - rejected).mean()


def measure(prompt: int, completion: int, pairs: int) -> dict[str, Any]:
    """Seconds of both ways, their paired ratio, and how far loss and gradients differ."""
    model = model_of("tiny").train()
    items = synthetic_items(model, groups=pairs, group=2, prompt=prompt, completion=completion)
    rows = [{"chosen_ids": one, "rejected_ids": other} for one, other in zip(items[::2], items[1::2], strict=True)]
    batch = DataCollatorForPreference(pad_token_id=0)(rows)
    ways = {"shared": SharedPrefixes(model, model), "padded": model}
    losses: dict[str, float] = {}
    gradients: dict[str, dict[str, Any]] = {}
    times: dict[str, list[float]] = {way: [] for way in ways}
    for repetition in range(REPETITIONS):
        for way in ways if repetition % 2 == 0 else reversed(ways):
            model.zero_grad()
            started = process_time()
            loss = loss_of(ways[way], batch)
            loss.backward()
            times[way].append(process_time() - started)
            losses[way] = loss.item()
            gradients[way] = {name: weight.grad.clone() for name, weight in model.named_parameters()}
    difference = max(
        ((one - gradients["padded"][name]).abs().max() / gradients["padded"][name].abs().max()).item()
        for name, one in gradients["shared"].items()
    )
    return {
        "ratio": median(padded / shared for padded, shared in zip(times["padded"], times["shared"], strict=True)),
        "seconds": {way: median(values) for way, values in times.items()},
        "loss_difference": abs(losses["shared"] - losses["padded"]),
        "gradient_difference": difference,
    }


def main() -> None:
    """Print a line per cell, then the JSON."""
    torch.set_num_threads(1)
    results = {}
    for name, cell in CELLS.items():
        results[name] = measure(*cell)
        print(f"{name}: {results[name]['ratio']:.2f}x, gradients differ by {results[name]['gradient_difference']:.1e}")
    print(json.dumps({"cells": results, **conditions(model_of("tiny"))}))
    sys.exit(any(cell["gradient_difference"] > GRADIENT_TOLERANCE for cell in results.values()))


if __name__ == "__main__":
    main()
