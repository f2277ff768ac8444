"""One claim: a training step of the reward model is faster when what the sides of a pair share is computed once.

    python benchmarks/gpu/training.py --device cuda

A Qwen3 classifier of 1.7B with random weights in bfloat16, batches of 8 random pairs, in two ways: `padded` is what
TRL's `RewardTrainer` does (its collator, a padded batch of all sides, its loss), `shared` the same loss by
`CodeScalerRewardTrainer`'s shared prefixes. A step is forward and backward pass without an optimiser, whose time and
memory do not depend on the way. Both recompute activations (gradient checkpointing), as `RewardTrainer` does by
default.

By way: milliseconds of a step, pairs a second, the ratio to `shared` paired within a repetition, tokens put through
the model, and the peak of memory in a step (gradients included) above that of the weights. Gradients are compared by
the norm of a difference over that of what it is taken from, over all weights and for the worst weight: of `shared`
from `padded`, and of each from the gradients of the same weights in float32 by the padded batch. A way that runs out
of memory is named in `out_of_memory` and has no numbers. Exit code 1 if ours does, or if its gradients are more than
twice as far from those in float32 as those of `padded`.
"""

import copy
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from common import arguments, milliseconds, paired, peak_memory_gb, random_model, record, timed
from trl.trainer.reward_trainer import DataCollatorForPreference

sys.path.insert(0, str(Path(__file__).parents[1]))
from bench_training import loss_of

from codescaler_plugin.integrations.trl.trainer import SharedPrefixes
from codescaler_plugin.scoring.bench import synthetic_items
from codescaler_plugin.scoring.forward import out_of_memory, tree_attention
from codescaler_plugin.scoring.prefix_tree import plan_rows

CELLS = [(480, 216, 8), (1024, 256, 8)]  # tokens of the problem, mean tokens of a program, pairs
TINY_CELLS = [(48, 24, 3)]
REPETITIONS, SECONDS = 10, 6.0

Steps = dict[str, Callable[[], Any]]
"""By way: a step, which returns its loss."""


def padded_step(model: Any, batch: dict[str, Any]) -> Any:
    """Loss of a padded batch; gradients are left in the model."""
    model.zero_grad()
    loss = loss_of(model, batch)
    loss.backward()
    return loss.detach()


def shared_step(model: Any, batch: dict[str, Any]) -> Any:
    """The same with shared prefixes; the tree is in force until gradients are there, as in the trainer."""
    model.zero_grad()
    with tree_attention(model):
        loss = loss_of(SharedPrefixes(model, model), batch)
        loss.backward()
    return loss.detach()


def gradients_of(model: Any, step: Callable[[], Any]) -> tuple[float, dict[str, Any]]:
    """Loss, and gradients by name, which the model no longer holds."""
    loss = step().item()
    gradients = {name: weight.grad for name, weight in model.named_parameters()}
    model.zero_grad()
    return loss, gradients


def distance(one: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    """Norm of the difference by that of `other`: over all weights, and for the worst weight."""
    norms = {
        name: ((one[name].float() - value.float()).norm().item(), value.float().norm().item())
        for name, value in other.items()
    }
    whole = [sum(norm[side] ** 2 for norm in norms.values()) ** 0.5 for side in (0, 1)]
    worst = max(norms, key=lambda name: norms[name][0] / max(norms[name][1], 1e-30))
    return {
        "all": float(f"{whole[0] / whole[1]:.3g}"),
        "worst": float(f"{norms[worst][0] / norms[worst][1]:.3g}"),
        "worst_weight": worst,
    }


def batch_of(model: Any, items: list[list[int]], device: str) -> dict[str, Any]:
    """What TRL's collator makes of pairs: neighbours are the sides of one."""
    rows = [{"chosen_ids": one, "rejected_ids": other} for one, other in zip(items[::2], items[1::2], strict=True)]
    batch = DataCollatorForPreference(pad_token_id=model.config.pad_token_id)(rows)
    return {name: one.to(device) for name, one in batch.items()}


def measure(model: Any, steps: Steps, pairs: int, device: str, repetitions: int) -> dict[str, Any]:
    """Times and memory of the steps; those that run out of memory are taken out of `steps`."""
    peaks: dict[str, float | None] = {}
    for way in list(steps):
        try:
            steps[way]()  # as the first step of a run: nothing has been probed or compiled
            model.zero_grad()
            peaks[way] = peak_memory_gb(steps[way], device)
        except RuntimeError as error:
            if not out_of_memory(error):
                raise
            del steps[way]
        model.zero_grad()
        free(device)
    times = timed(dict(steps), device, repetitions=repetitions, seconds=SECONDS)
    return {
        "step_ms": {way: milliseconds(values) for way, values in times.items()},
        "pairs_per_second": {way: round(pairs * 1e3 / milliseconds(values), 3) for way, values in times.items()},
        "ratio": paired(times, "shared") if "shared" in times else {},
        "peak_gb": peaks,
        "repetitions": len(next(iter(times.values()), [])),
    }


def compare(model: Any, batch: dict[str, Any], steps: Steps) -> dict[str, Any]:
    """Losses and gradients of both ways, against each other and against float32."""
    losses, gradients = {}, {}
    for way, step in steps.items():
        losses[way], gradients[way] = gradients_of(model, step)
    found = {"gradient_shared_from_padded": distance(gradients["shared"], gradients["padded"])}
    try:
        exact = copy.deepcopy(model).float()
        losses["float32"], reference = gradients_of(exact, partial(padded_step, exact, batch))
        found["gradient_from_float32"] = {way: distance(one, reference)["all"] for way, one in gradients.items()}
    except RuntimeError as error:
        if not out_of_memory(error):
            raise
    return {"loss": losses, **found}


def free(device: str) -> None:
    """Give the device back what nobody holds."""
    if device != "cpu":
        torch.cuda.empty_cache()


def main() -> None:
    """Two lines of results per cell: times and memory, then gradients."""
    given = arguments(__doc__)
    model = random_model("tiny" if given.tiny else "1.7B", given.device).train()
    model.gradient_checkpointing_enable({"use_reentrant": False})
    failed = False
    for prompt, completion, pairs in TINY_CELLS if given.tiny else CELLS:
        say = partial(record, given.output, "training", model, cell=f"P={prompt} C={completion}, {pairs} pairs")
        items = synthetic_items(model, groups=pairs, group=2, prompt=prompt, completion=completion)
        batch = batch_of(model, items, given.device)
        (row,) = plan_rows(items, max_tokens=sum(map(len, items)))
        steps: Steps = {"shared": partial(shared_step, model, batch), "padded": partial(padded_step, model, batch)}
        found = measure(model, steps, pairs, given.device, 2 if given.tiny else REPETITIONS)
        tokens = {"shared": len(row.tokens), "padded": batch["input_ids"].numel()}
        say(**found, tokens=tokens, checkpointing=True, out_of_memory=[way for way in tokens if way not in steps])
        failed |= "shared" not in steps
        if len(steps) == 2:
            found = compare(model, batch, steps)
            say(**found)
            off = found.get("gradient_from_float32", {"shared": 0.0, "padded": 0.0})
            failed |= not off["shared"] <= 2 * off["padded"] + 1e-3
        free(given.device)
    sys.exit(failed)


if __name__ == "__main__":
    main()
