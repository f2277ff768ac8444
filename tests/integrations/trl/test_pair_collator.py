"""The pairs that the collator draws for a batch; `tests/contract/test_trl_trainer.py` has the training."""

from pathlib import Path
from typing import Any

from transformers import AutoTokenizer

from codescaler_plugin.scoring.rendering import Renderer
from tests.contract.test_trl_trainer import PAIRS, trainer_of


def unaligned_of(trainer: Any, epoch: int) -> list[tuple[list[int], list[int]]]:
    collator = trainer.data_collator
    collator.epoch.fill_(epoch)
    examples = [trainer.train_dataset[index] for index in range(8)]
    return [(made["chosen_ids"], made["rejected_ids"]) for made in collator.unaligned(examples)]


def test_unaligned_pairs_are_right_code_of_another_problem_drawn_again_in_each_epoch(
    tiny_rm_dir: Path, tmp_path: Path
) -> None:
    trainer = trainer_of(tiny_rm_dir, tmp_path, unaligned_ratio=0.5)
    renderer = Renderer(AutoTokenizer.from_pretrained(tiny_rm_dir), 200)
    right = {tuple(ids): row["problem"] for ids, row in zip(trainer.train_dataset["chosen_ids"], PAIRS, strict=True)}
    wrong = {
        tuple(ids)
        for row in PAIRS
        for ids in renderer.encode([(row["problem"], other["chosen"]) for other in PAIRS if other is not row])
    }
    epochs = [unaligned_of(trainer, epoch) for epoch in range(6)]
    assert all(tuple(chosen) in right and tuple(rejected) in wrong for made in epochs for chosen, rejected in made)
    assert len({str(made) for made in epochs}) == 6
    assert 0.25 < sum(map(len, epochs)) / (6 * 8) < 0.75
    assert unaligned_of(trainer, 0) == epochs[0]


def test_rewritten_pairs_are_the_same_pairs_in_another_dress_drawn_again_in_each_epoch(
    tiny_rm_dir: Path, tmp_path: Path
) -> None:
    trainer = trainer_of(
        tiny_rm_dir, tmp_path, rewrite_ratio=0.5, rewrite_kinds=["padding"], unaligned_ratio=0.0, max_length=2000
    )
    tokenizer = AutoTokenizer.from_pretrained(tiny_rm_dir)
    rows = [trainer.train_dataset[index] for index in range(8)]
    collator = trainer.data_collator
    seen = []
    for epoch in (0, 1, 0):
        collator.epoch.fill_(epoch)
        seen.append(list(collator.rewritten(rows)))
    assert seen[0] == seen[2] != seen[1]
    changed = [(old, new) for old, new in zip(rows, seen[0], strict=True) if old != new]
    assert 1 <= len(changed) < 8
    for old, new in changed:
        chosen, rejected = (tokenizer.decode(new[side]) for side in ("chosen_ids", "rejected_ids"))
        body = old["chosen"].splitlines()[-1].strip()
        assert body in chosen
        assert body not in rejected
        assert "#" in chosen
        assert chosen.replace(body, "") == rejected.replace(old["rejected"].splitlines()[-1].strip(), "")
    trainer.train()
