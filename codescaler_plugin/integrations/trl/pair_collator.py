"""The batches that `CodeScalerRewardTrainer` trains on: pairs, rewritten pairs and unaligned pairs."""

from collections.abc import Callable, Iterator
from random import Random
from typing import Any

import torch
from transformers import TrainerCallback

from codescaler_plugin.integrations.trl.trainer_config import CodeScalerRewardConfig
from codescaler_plugin.preference.mutations import mutate_both
from codescaler_plugin.scoring.rendering import Renderer, Unscorable

UNALIGNED = "unaligned"


class PairCollator:
    """Rewrites some pairs of a batch, adds unaligned ones, and leaves the padding to TRL's collator.

    The draws depend on seed, epoch and row alone, so a resumed run repeats them. A batch holds as `kinds` the index of
    each pair's kind in the names `kinds`.
    """

    def __init__(
        self,
        collator: Callable[[list[dict[str, Any]]], dict[str, Any]],
        tokenizer: Any,
        args: CodeScalerRewardConfig,
        kinds: list[str],
    ) -> None:
        self.collator = collator
        self.renderer = Renderer(tokenizer, args.max_length)
        self.args = args
        self.kinds = kinds
        self.epoch = torch.tensor(0)
        self.epoch.share_memory_()  # type: ignore[no-untyped-call]  # workers that outlive an epoch see it change

    def __call__(self, examples: list[dict[str, Any]]) -> dict[str, Any]:
        """A padded batch of the examples, which are rows of a prepared dataset."""
        examples = [*self.rewritten(examples), *self.unaligned(examples)]
        batch = self.collator(examples)
        if "kind" in examples[0]:
            batch["kinds"] = torch.tensor([self.kinds.index(example["kind"]) for example in examples])
        return batch

    def _rng(self, purpose: str, example: dict[str, Any]) -> Random:
        return Random(f"{purpose} {self.args.seed} {int(self.epoch)} {example['row']}")

    def rewritten(self, examples: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
        """The examples, some of them with both sides rewritten; only those of the training set, which have a `row`."""
        for example in examples:
            sides = None
            if "row" in example:
                rng = self._rng("rewrite", example)
                if rng.random() < self.args.rewrite_ratio:
                    kind = rng.choice(self.args.rewrite_kinds)
                    sides = mutate_both(kind, example["chosen"], example["rejected"], rng)
            if sides is None:
                yield example
                continue
            chosen, rejected = self.renderer.encode([(example["problem"], code) for code in sides])
            fits = not isinstance(chosen, Unscorable) and not isinstance(rejected, Unscorable)
            yield {**example, "chosen_ids": chosen, "rejected_ids": rejected} if fits else example

    def unaligned(self, examples: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
        """New pairs whose rejected side is right code for another problem of the batch."""
        for example in examples:
            if "row" not in example:
                continue
            rng = self._rng("unaligned", example)
            others = [other["chosen"] for other in examples if other["problem"] != example["problem"]]
            if not others or rng.random() >= self.args.unaligned_ratio:
                continue
            [ids] = self.renderer.encode([(example["problem"], rng.choice(others))])
            if not isinstance(ids, Unscorable):  # too long for this problem
                yield {**example, "rejected_ids": ids, "kind": UNALIGNED, "margin": self.args.margin_scale}


class EpochCallback(TrainerCallback):  # type: ignore[misc]
    """Tells a `PairCollator` the epoch."""

    def __init__(self, collator: PairCollator) -> None:
        self.collator = collator

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:  # noqa: ARG002 - the host's names
        """Set the epoch that the draws depend on."""
        self.collator.epoch.fill_(int(state.epoch or 0))
