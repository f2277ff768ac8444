"""CodeScalerRewardTrainer on the real TRL, on CPU, with tiny random models."""

import json
import logging
import math
import os
import re
import runpy
import signal
import subprocess
import sys
from inspect import signature
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from transformers import AutoTokenizer, TrainerCallback
from trl import RewardConfig, RewardTrainer
from trl.trainer.reward_trainer import DataCollatorForPreference

from codescaler_plugin import ConfigError, DataError, PreferencePair, load_scorer
from codescaler_plugin.integrations.trl.trainer import CodeScalerRewardTrainer
from codescaler_plugin.integrations.trl.trainer_config import CodeScalerRewardConfig
from codescaler_plugin.preference.preparation import prepare_preference_dataset
from codescaler_plugin.scoring.rendering import Renderer
from codescaler_plugin.scoring.transformers_scorer import TransformersScorer
from tests.processes import untraced

ROOT = Path(__file__).parents[2]
PROBLEMS = [f"Write a function solve(n) that returns n plus {number}. " * 3 for number in range(8)]
PAIRS: list[dict[str, Any]] = [
    {
        "problem": problem,
        "chosen": f"def solve(n):\n    return n + {number}\n",
        "rejected": f"def solve(n):\n    return n - {number}\n",
        "kind": "rollout" if number % 2 else "near_miss",
        "margin": 0.25 + number / 16,
    }
    for number, problem in enumerate(PROBLEMS)
]


def arguments(folder: Path, **settings: Any) -> CodeScalerRewardConfig:
    defaults = {
        "per_device_train_batch_size": 4,
        "per_device_eval_batch_size": 4,
        "max_steps": 2,
        "learning_rate": 1e-3,
        "logging_steps": 1,
        "report_to": "none",
        "use_cpu": True,
        "bf16": False,
        "gradient_checkpointing": False,
        "save_strategy": "no",
        "max_length": 200,
    }
    return CodeScalerRewardConfig(output_dir=str(folder), **{**defaults, **settings})


def trainer_of(model: Path, folder: Path, rows: list[dict[str, Any]] = PAIRS, **settings: Any) -> Any:
    evaluation = settings.pop("eval_dataset", None)
    return CodeScalerRewardTrainer(
        model=str(model),
        args=arguments(folder, **settings),
        train_dataset=Dataset.from_list(rows),
        eval_dataset=evaluation,
    )


def test_training_sees_the_token_ids_that_the_scorer_builds(tiny_rm_dir: Path, tmp_path: Path) -> None:
    trainer = trainer_of(tiny_rm_dir, tmp_path)
    renderer = Renderer(AutoTokenizer.from_pretrained(tiny_rm_dir), 200)
    for side in ("chosen", "rejected"):
        expected = renderer.encode([(row["problem"], row[side]) for row in PAIRS])
        assert trainer.train_dataset[f"{side}_ids"] == expected


def test_ids_are_those_that_the_stock_trainer_makes_of_the_messages(tiny_rm_dir: Path, tmp_path: Path) -> None:
    rows = [
        {
            "chosen": [{"role": "user", "content": row["problem"]}, {"role": "assistant", "content": row["chosen"]}],
            "rejected": [
                {"role": "user", "content": row["problem"]},
                {"role": "assistant", "content": row["rejected"]},
            ],
        }
        for row in PAIRS
    ]
    stock = RewardTrainer(
        model=str(tiny_rm_dir),
        args=RewardConfig(output_dir=str(tmp_path), use_cpu=True, bf16=False, report_to="none"),
        train_dataset=Dataset.from_list(rows),
    )
    ours = trainer_of(tiny_rm_dir, tmp_path, rows)
    assert ours.train_dataset["chosen_ids"] == stock.train_dataset["chosen_ids"]
    assert ours.train_dataset["rejected_ids"] == stock.train_dataset["rejected_ids"]


@pytest.mark.parametrize("settings", [{}, {"margin_scale": 2.0}, {"center_rewards_coefficient": 0.1}])
@pytest.mark.parametrize("share", [True, False])
def test_loss_and_gradients_equal_the_stock_trainers(
    tiny_rm_dir: Path, tmp_path: Path, settings: dict[str, Any], share: bool
) -> None:
    ours = trainer_of(tiny_rm_dir, tmp_path, share_prefixes=share, unaligned_ratio=0.0, **settings)
    stock = RewardTrainer(
        model=str(tiny_rm_dir),
        args=RewardConfig(
            output_dir=str(tmp_path),
            use_cpu=True,
            bf16=False,
            report_to="none",
            gradient_checkpointing=False,
            center_rewards_coefficient=settings.get("center_rewards_coefficient"),
        ),
        train_dataset=ours.train_dataset,
    )
    examples = [ours.train_dataset[index] for index in range(6)]
    batch = DataCollatorForPreference(pad_token_id=stock.processing_class.pad_token_id)(examples)
    assert ("margin" in batch) == ("margin_scale" in settings)
    losses = {}
    for name, trainer in (("ours", ours), ("stock", stock)):
        trainer.model.train()
        losses[name] = trainer.compute_loss(trainer.model, {key: value.clone() for key, value in batch.items()})
        losses[name].backward()
    assert losses["ours"].item() == pytest.approx(losses["stock"].item(), rel=1e-6)
    for (name, mine), theirs in zip(ours.model.named_parameters(), stock.model.parameters(), strict=True):
        scale = theirs.grad.abs().max().item()
        torch.testing.assert_close(mine.grad, theirs.grad, rtol=1e-4, atol=1e-5 * scale, msg=name)


def test_shared_prefixes_are_really_used(tiny_rm_dir: Path, tmp_path: Path) -> None:
    trainer = trainer_of(tiny_rm_dir, tmp_path, unaligned_ratio=0.0)
    shapes = []
    handle = trainer.model.model.register_forward_pre_hook(
        lambda _module, inputs: shapes.append(tuple(inputs[0].shape))
    )
    trainer.train()
    handle.remove()
    sides = [len(ids) for name in ("chosen_ids", "rejected_ids") for ids in trainer.train_dataset[name]]
    assert len(shapes) == 2
    assert all(batch == 1 for batch, _ in shapes)
    assert sum(tokens for _, tokens in shapes) < 0.75 * sum(sides)


@pytest.mark.parametrize("checkpointing", [True, False])
def test_training_learns_and_the_saved_model_scores_as_it_ended(
    tiny_rm_dir: Path, tmp_path: Path, checkpointing: bool
) -> None:
    trainer = trainer_of(
        tiny_rm_dir, tmp_path, max_steps=30, gradient_checkpointing=checkpointing, unaligned_ratio=0.5
    )
    trainer.train()
    losses = [row["loss"] for row in trainer.state.log_history if "loss" in row]
    assert sum(losses[-5:]) / 5 < 0.5 * math.log(2)  # half of what a model that knows nothing has
    trainer.save_model(str(tmp_path / "saved"))
    scores = load_scorer(str(tmp_path / "saved")).score(
        [(row["problem"], row[side]) for side in ("chosen", "rejected") for row in PAIRS]
    )
    assert all(right > wrong for right, wrong in zip(scores[:8], scores[8:], strict=True))


def test_metrics_have_the_name_of_their_set_and_of_their_kind(tiny_rm_dir: Path, tmp_path: Path) -> None:
    sets = {"clean": Dataset.from_list(PAIRS[:4]), "other": Dataset.from_list(PAIRS[4:])}
    trainer = trainer_of(tiny_rm_dir, tmp_path, eval_dataset=sets, eval_strategy="steps", eval_steps=1)
    trainer.train()
    logged = {key for row in trainer.state.log_history for key in row}
    for name in ("clean", "other"):
        for metric in ("loss", "accuracy", "margin", "accuracy/rollout", "accuracy/near_miss"):
            assert f"eval_{name}_{metric}" in logged
    assert "eval_accuracy" not in logged
    assert {"accuracy/rollout", "accuracy/near_miss"} <= logged
    result = trainer.evaluate(Dataset.from_list(PAIRS), metric_key_prefix="fresh")
    assert {"fresh_accuracy", "fresh_accuracy/rollout"} <= result.keys()


def test_accuracy_of_a_kind_counts_each_pair_once_in_whatever_batch(tiny_rm_dir: Path, tmp_path: Path) -> None:
    rows = [{**row, "kind": "odd" if number in (0, 4, 5, 6) else "rest"} for number, row in enumerate(PAIRS)]
    rows[0] = {**rows[0], "chosen": PAIRS[0]["rejected"], "rejected": PAIRS[0]["chosen"]}
    trainer = trainer_of(tiny_rm_dir, tmp_path, eval_dataset=Dataset.from_list(rows))
    scorer = load_scorer(str(tiny_rm_dir))
    sides = [
        scorer.score([(row["problem"], row[side]) for row in rows if row["kind"] == "odd"])
        for side in ("chosen", "rejected")
    ]
    right = [one > two for one, two in zip(*sides, strict=True)]
    assert right[0] not in right[1:]
    assert trainer.evaluate()["eval_accuracy/odd"] == pytest.approx(sum(right) / 4)


def test_unaligned_pairs_are_counted_by_name_and_only_in_training(tiny_rm_dir: Path, tmp_path: Path) -> None:
    evaluation = Dataset.from_list(PAIRS)
    trainer = trainer_of(tiny_rm_dir, tmp_path, eval_dataset=evaluation, unaligned_ratio=1.0, eval_strategy="steps", eval_steps=1)  # fmt: skip
    trainer.train()
    logged = {key for row in trainer.state.log_history for key in row}
    assert "accuracy/unaligned" in logged
    assert "eval_accuracy/unaligned" not in logged


def test_smoothed_labels_give_the_mean_of_both_losses(tiny_rm_dir: Path, tmp_path: Path) -> None:
    smooth = trainer_of(tiny_rm_dir, tmp_path, label_smoothing=0.1, unaligned_ratio=0.0)
    batch = smooth.data_collator([smooth.train_dataset[index] for index in range(6)])
    loss, outputs = smooth.compute_loss(smooth.model, batch, return_outputs=True)
    chosen, rejected = torch.chunk(outputs.logits.squeeze(-1), 2)
    both = [-torch.nn.functional.logsigmoid(sign * (chosen - rejected)).mean() for sign in (1, -1)]
    assert loss.item() == pytest.approx((0.9 * both[0] + 0.1 * both[1]).item(), rel=1e-5)


RESUMED: dict[str, Any] = {"max_steps": 6, "save_strategy": "steps", "save_steps": 1, "unaligned_ratio": 0.5, "per_device_train_batch_size": 3}  # fmt: skip


class Kill(TrainerCallback):  # type: ignore[misc]  # transformers is Any to mypy
    """Kills the process after its fifth step, before that is saved."""

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.global_step == 5:
            os.kill(os.getpid(), signal.SIGKILL)


_KILLED = """
import sys
from pathlib import Path
from tests.contract.test_trl_trainer import RESUMED, Kill, trainer_of

trainer = trainer_of(Path(sys.argv[1]), Path(sys.argv[2]), **RESUMED)
trainer.add_callback(Kill())
trainer.train()
"""


def test_killed_and_resumed_run_ends_as_the_undisturbed_one(tiny_rm_dir: Path, tmp_path: Path) -> None:
    whole = trainer_of(tiny_rm_dir, tmp_path / "whole", **RESUMED)
    whole.train()
    parts = tmp_path / "parts"
    killed = subprocess.run(
        [sys.executable, "-c", _KILLED, str(tiny_rm_dir), str(parts)],
        env=untraced(PYTHONPATH=str(ROOT)),
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr[-3000:]
    assert sorted(folder.name for folder in parts.glob("checkpoint-*")) == [f"checkpoint-{n}" for n in range(1, 5)]
    resumed = trainer_of(tiny_rm_dir, parts, **RESUMED)
    resumed.train(resume_from_checkpoint=True)
    for one, other in zip(whole.model.parameters(), resumed.model.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-7)


def test_workers_that_outlive_an_epoch_draw_anew(tiny_rm_dir: Path, tmp_path: Path) -> None:
    losses = []
    for workers in (0, 1):
        trainer = trainer_of(
            tiny_rm_dir,
            tmp_path,
            max_steps=8,  # four epochs
            unaligned_ratio=0.5,
            dataloader_num_workers=workers,
            dataloader_persistent_workers=workers > 0,
        )
        trainer.train()
        losses.append([row["loss"] for row in trainer.state.log_history if "loss" in row])
    assert losses[0] == losses[1]


_TWO = """
import json
import sys
from pathlib import Path
from tests.contract.test_trl_trainer import PAIRS, trainer_of

settings = {"per_device_train_batch_size": 2, "unaligned_ratio": 0.5, "max_steps": 6}
trainer = trainer_of(Path(sys.argv[1]), Path(sys.argv[2]), **settings)
counts = []
collate = trainer.data_collator.__call__
trainer.data_collator = lambda examples: counts.append(batch := collate(examples)) or batch
trainer.train()
sizes = [len(batch["kinds"]) for batch in counts]
logged = trainer.state.log_history[0]
weight = trainer.model.score.weight.sum().item()
seen = {"sizes": sizes, "same": [weight, logged["accuracy"], logged["max_reward"]]}
Path(sys.argv[2], f"rank{trainer.accelerator.process_index}.json").write_text(json.dumps(seen))
trainer.accelerator.end_training()  # ends the process group: its threads can abort an interpreter that ends before them
"""


def test_processes_that_draw_other_numbers_of_unaligned_pairs_train_one_model(
    tiny_rm_dir: Path, tmp_path: Path
) -> None:
    (tmp_path / "two.py").write_text(_TWO)
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    done = subprocess.run(
        [*launch, str(tmp_path / "two.py"), str(tiny_rm_dir), str(tmp_path)],
        env=untraced(PYTHONPATH=str(ROOT), OMP_NUM_THREADS="1", ACCELERATE_USE_CPU="1"),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    first, second = (json.loads((tmp_path / f"rank{rank}.json").read_text()) for rank in (0, 1))
    assert first["sizes"] != second["sizes"]
    assert first["same"] == second["same"]  # weights and metrics


def test_model_that_cannot_share_prefixes_is_trained_in_padded_batches(tmp_path: Path) -> None:
    from transformers import BertForSequenceClassification

    from tests.models import save_encoder

    if "kwargs" not in signature(BertForSequenceClassification.forward).parameters:
        pytest.skip("TRL hands use_cache to every model; an encoder takes it from transformers 5.0 on")
    folder = save_encoder(tmp_path / "encoder")
    trainer = trainer_of(folder, tmp_path / "run")
    trainer.train()
    assert trainer.state.global_step == 2


def test_adapter_is_trained_with_shared_prefixes(tiny_rm_dir: Path, tmp_path: Path) -> None:
    peft = pytest.importorskip("peft", reason="peft is not installed")
    trainer = CodeScalerRewardTrainer(
        model=str(tiny_rm_dir),
        args=arguments(tmp_path, unaligned_ratio=0.0),
        train_dataset=Dataset.from_list(PAIRS),
        peft_config=peft.LoraConfig(
            task_type="SEQ_CLS", modules_to_save=["score"], target_modules=["q_proj", "v_proj"]
        ),
    )
    assert trainer._shares
    before = {
        name: weight.detach().clone() for name, weight in trainer.model.named_parameters() if weight.requires_grad
    }
    trainer.train()
    changed = [name for name, weight in trainer.model.named_parameters() if name in before and not torch.equal(weight, before[name])]  # fmt: skip
    assert any("lora" in name for name in changed)
    assert any("score" in name for name in changed)
    trainer.save_model(str(tmp_path / "adapter"))
    merge = runpy.run_path(str(ROOT / "recipes" / "trl" / "reward_merge.py"))["merge"]
    merge(tmp_path / "adapter", tmp_path / "merged")
    items = [(row["problem"], row["chosen"]) for row in PAIRS]
    whole = load_scorer(str(tmp_path / "merged")).score(items)
    trained = TransformersScorer(trainer.model, tokenizer=trainer.processing_class).score(items)
    assert whole == pytest.approx(trained, abs=1e-5)
    assert whole != pytest.approx(load_scorer(str(tiny_rm_dir)).score(items), abs=1e-5)


def test_card_of_a_checkpoint_names_the_paper(tiny_rm_dir: Path, tmp_path: Path) -> None:
    trainer = trainer_of(tiny_rm_dir, tmp_path, save_strategy="steps", save_steps=2)
    trainer.train()
    card = (tmp_path / "README.md").read_text()
    assert "2602.17684" in card
    assert "codescaler" in card


def test_prepared_dataset_is_what_the_stock_trainer_takes(tiny_rm_dir: Path, tmp_path: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny_rm_dir)
    prepared = prepare_preference_dataset(PAIRS, tokenizer, margin_scale=1.0)
    prepared.save_to_disk(str(tmp_path / "pairs"))
    stock = RewardTrainer(
        model=str(tiny_rm_dir),
        args=RewardConfig(output_dir=str(tmp_path), max_steps=1, use_cpu=True, bf16=False, report_to="none"),
        train_dataset=Dataset.load_from_disk(str(tmp_path / "pairs")),
    )
    stock.train()
    assert stock.train_dataset["chosen_ids"] == prepared["chosen_ids"]


# Bad data


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"chosen": ""}, r"row 3: the chosen side is empty"),
        ({"rejected": PAIRS[3]["chosen"]}, r"row 3: .*the same program"),
        ({"chosen": "def solve(n:\n"}, r"row 3: the chosen side is no program \(syntax_error\)"),
        ({"chosen": "pass\n"}, r"row 3: the chosen side is no program \(trivial\)"),
        ({"problem": ""}, r"row 3: the problem is empty"),
    ],
)
def test_bad_row_is_named_before_any_step(
    tiny_rm_dir: Path, tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    rows = [*PAIRS[:3], {**PAIRS[3], **change}, *PAIRS[4:]]
    with pytest.raises(DataError, match=message):
        trainer_of(tiny_rm_dir, tmp_path, rows)


def test_missing_column_is_a_data_error(tiny_rm_dir: Path, tmp_path: Path) -> None:
    rows = [{"problem": row["problem"], "chosen": row["chosen"]} for row in PAIRS]
    with pytest.raises(DataError, match=r"8 of 8 rows of train.*\n  row 0: expected the columns"):
        trainer_of(tiny_rm_dir, tmp_path, rows)


def test_missing_margin_is_a_data_error_where_it_is_asked_for(tiny_rm_dir: Path, tmp_path: Path) -> None:
    rows = [{**row, "margin": None} if number == 5 else row for number, row in enumerate(PAIRS)]
    with pytest.raises(DataError, match="row 5: it has no margin"):
        trainer_of(tiny_rm_dir, tmp_path, rows, margin_scale=1.0)


@pytest.mark.parametrize("rows", [PAIRS[:1], []], ids=["one", "none"])
def test_too_few_pairs_are_a_data_error(tiny_rm_dir: Path, rows: list[dict[str, Any]]) -> None:
    with pytest.raises(DataError, match="expected at least 2"):
        prepare_preference_dataset(rows, AutoTokenizer.from_pretrained(tiny_rm_dir))


def test_one_pair_is_enough_to_evaluate_on(tiny_rm_dir: Path, tmp_path: Path) -> None:
    sets = {"few": Dataset.from_list(PAIRS[:1]), "many": Dataset.from_list(PAIRS[1:])}
    found = trainer_of(tiny_rm_dir, tmp_path, eval_dataset=sets).evaluate()
    assert found["eval_few_accuracy"] in (0, 1)


def test_unaligned_pairs_want_another_problem_in_the_batch(tiny_rm_dir: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="per_device_train_batch_size is 1"):
        trainer_of(tiny_rm_dir, tmp_path, per_device_train_batch_size=1)
    trainer_of(tiny_rm_dir, tmp_path, per_device_train_batch_size=1, unaligned_ratio=0.0)


def test_pairs_that_do_not_fit_or_cannot_be_scored_are_counted(
    tiny_rm_dir: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rows = [
        *PAIRS,
        {**PAIRS[0], "chosen": "x = 1\n" * 300},
        {**PAIRS[0], "rejected": "def solve(n:\n"},
        {**PAIRS[0], "problem": "word " * 300},
    ]
    with caplog.at_level(logging.WARNING, logger="codescaler_plugin"):
        prepared = prepare_preference_dataset(rows, AutoTokenizer.from_pretrained(tiny_rm_dir), max_length=200)
    assert len(prepared) == 9
    assert len(prepared[8]["chosen_ids"]) <= 200
    assert "1 of 11 pairs are left out, whose rejected side is no program" in caplog.text
    assert "1 of 11 pairs are left out, whose code is too long for 200 tokens" in caplog.text


def test_dataset_that_streams_is_refused(tiny_rm_dir: Path, tmp_path: Path) -> None:
    stream = Dataset.from_list(PAIRS).to_iterable_dataset()
    with pytest.raises(ConfigError, match="train streams"):
        CodeScalerRewardTrainer(model=str(tiny_rm_dir), args=arguments(tmp_path), train_dataset=stream)


@pytest.mark.parametrize("setting", [{"unaligned_ratio": 1.5}, {"label_smoothing": 0.5}, {"margin_scale": -1.0}])
def test_setting_out_of_range_is_a_config_error(tmp_path: Path, setting: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=next(iter(setting))):
        arguments(tmp_path, **setting)


def test_stock_arguments_are_refused(tiny_rm_dir: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="expected a CodeScalerRewardConfig"):
        CodeScalerRewardTrainer(str(tiny_rm_dir), RewardConfig(output_dir=str(tmp_path), use_cpu=True, bf16=False), train_dataset=Dataset.from_list(PAIRS))  # fmt: skip


def test_ids_alone_cannot_have_unaligned_pairs(tiny_rm_dir: Path, tmp_path: Path) -> None:
    prepared = prepare_preference_dataset(PAIRS, AutoTokenizer.from_pretrained(tiny_rm_dir))
    bare = prepared.select_columns(["chosen_ids", "rejected_ids"])
    with pytest.raises(DataError, match="unaligned_ratio=0"):
        CodeScalerRewardTrainer(str(tiny_rm_dir), arguments(tmp_path), train_dataset=bare)
    CodeScalerRewardTrainer(str(tiny_rm_dir), arguments(tmp_path, unaligned_ratio=0.0), train_dataset=bare).train()


# Splits


def halved(rows: list[dict[str, Any]] = PAIRS) -> list[dict[str, Any]]:
    """The pairs as `codescaler mine --held-out` writes them: one file, two splits; null is of `train`."""
    splits = ["train", "held_out", None, "held_out"]
    return [{**row, "split": splits[number % 4]} for number, row in enumerate(rows)]


def test_held_out_rows_are_not_trained_on_and_are_the_evaluation_set(
    tiny_rm_dir: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    trainer = trainer_of(tiny_rm_dir, tmp_path, halved())
    assert list(trainer.train_dataset["problem"]) == PROBLEMS[::2]
    assert list(trainer.eval_dataset["problem"]) == PROBLEMS[1::2]
    assert "train: 4 of 8 pairs are not trained on: 4 of the split 'held_out'" in caplog.text
    trainer.train()
    assert trainer.evaluate()["eval_accuracy"] >= 0


def test_a_given_evaluation_set_stays_and_loses_what_is_trained_on(
    tiny_rm_dir: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    own = Dataset.from_list(halved())
    trainer = trainer_of(tiny_rm_dir, tmp_path, halved(), eval_dataset={"own": own, "plain": Dataset.from_list(PAIRS)})
    assert list(trainer.eval_dataset["own"]["problem"]) == PROBLEMS[1::2]
    assert list(trainer.eval_dataset["plain"]["problem"]) == PROBLEMS
    assert "own: 4 of 8 pairs are not evaluated on: 4 of the split 'train'" in caplog.text


def test_a_training_set_that_is_all_held_out_is_an_error(tiny_rm_dir: Path, tmp_path: Path) -> None:
    rows = [{**row, "split": "held_out"} for row in PAIRS]
    with pytest.raises(DataError, match=r"train has no row of the split 'train', but 8 of the split 'held_out'"):
        trainer_of(tiny_rm_dir, tmp_path, rows)


def test_a_cpu_trains_under_autocast_with_shared_prefixes(tiny_rm_dir: Path, tmp_path: Path) -> None:
    trainer = trainer_of(tiny_rm_dir, tmp_path, bf16=True)  # TRL's default, also where only use_cpu is given
    assert trainer._shares
    trainer.train()
    assert all(math.isfinite(row["loss"]) for row in trainer.state.log_history if "loss" in row)


@pytest.mark.parametrize("given", ["path", "builtin"])
def test_a_model_is_named_as_everywhere_else(tiny_rm_dir: Path, tmp_path: Path, given: str) -> None:
    model = tiny_rm_dir if given == "path" else "builtin"
    trainer = CodeScalerRewardTrainer(model, arguments(tmp_path), train_dataset=Dataset.from_list(PAIRS))
    assert trainer.model.config.num_labels == 1


def test_a_folder_of_checkpoints_is_told_from_a_model(tiny_rm_dir: Path, tmp_path: Path) -> None:
    trainer_of(tiny_rm_dir, tmp_path, save_strategy="steps", save_steps=2).train()
    with pytest.raises(ConfigError, match=r"holds checkpoint-2 .* no model: give .*checkpoint-2.*trainer\.save_model"):
        load_scorer(str(tmp_path)).score([("p", "x = 1")])


def test_preparation_takes_one_split(tiny_rm_dir: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny_rm_dir)
    for rows in (halved(), Dataset.from_list(halved())):
        assert list(prepare_preference_dataset(rows, tokenizer)["problem"]) == PROBLEMS[::2]
        assert list(prepare_preference_dataset(rows, tokenizer, split="held_out")["problem"]) == PROBLEMS[1::2]
        assert list(prepare_preference_dataset(rows, tokenizer, split=None)["problem"]) == PROBLEMS
    with pytest.raises(
        DataError, match="no row of the split 'dev', but 4 of the split 'train', 4 of the split 'held_out'"
    ):
        prepare_preference_dataset(halved(), tokenizer, split="dev")


def test_a_bad_row_keeps_its_number_in_the_file(tiny_rm_dir: Path, tmp_path: Path) -> None:
    rows = halved()
    rows[6]["chosen"] = "no program ("
    with pytest.raises(DataError, match="row 6: the chosen side is no program"):
        trainer_of(tiny_rm_dir, tmp_path, rows)
    rows[6], rows[7]["chosen"] = halved()[6], "no program ("
    with pytest.raises(DataError, match=r"(?s)rows of eval cannot.*row 7: the chosen"):
        trainer_of(tiny_rm_dir, tmp_path, rows)


def test_ids_that_name_their_split_are_divided_too(tiny_rm_dir: Path, tmp_path: Path) -> None:
    ids = prepare_preference_dataset(PAIRS, AutoTokenizer.from_pretrained(tiny_rm_dir))
    named = ids.add_column("split", [row["split"] for row in halved()])
    trainer = CodeScalerRewardTrainer(model=str(tiny_rm_dir), args=arguments(tmp_path), train_dataset=named)
    assert list(trainer.train_dataset["problem"]) == PROBLEMS[::2]
    assert list(trainer.eval_dataset["problem"]) == PROBLEMS[1::2]


def test_the_card_says_what_was_trained_and_how_to_use_it(tiny_rm_dir: Path, tmp_path: Path) -> None:
    trainer = trainer_of(tiny_rm_dir, tmp_path / "my-model")
    for name, base in (
        (str(tiny_rm_dir), f"`{tiny_rm_dir.name}`"),
        ("some/model", "[some/model](https://huggingface.co/some/model)"),
        ("", "a model that was given as an object"),
    ):
        trainer.model.config._name_or_path = name
        trainer.create_model_card(model_name="my-model")
        card = (tmp_path / "my-model" / "README.md").read_text()
        assert f"It was trained from {base} on 8 pairs" in card
        assert "None" not in card
        assert "pipeline" not in card  # TRL's example scores bare text, without the chat template
    trainer.save_model(str(tmp_path / "my-model"))
    [block] = re.findall(r"```python\n(.*?)\n```\n", card, re.DOTALL)
    printed: list[Any] = []
    exec(block, {"print": lambda *values: printed.append(values)})
    assert printed[0][0] == "ok"


def test_a_split_that_is_no_text_is_refused(tiny_rm_dir: Path, tmp_path: Path) -> None:
    rows = [{**row, "split": row["split"] or "train"} for row in halved()]
    coded = Dataset.from_list(rows).class_encode_column("split")
    with pytest.raises(DataError, match=r"split is [01]: expected a text"):
        CodeScalerRewardTrainer(model=str(tiny_rm_dir), args=arguments(tmp_path), train_dataset=coded)
    rows = [{**row, "split": 0} for row in PAIRS]
    with pytest.raises(DataError, match=r"(?s)8 of 8 rows of dataset cannot be trained on:.*row 0: split is 0"):
        prepare_preference_dataset(rows, AutoTokenizer.from_pretrained(tiny_rm_dir))


def test_an_evaluation_set_may_be_called_train(tiny_rm_dir: Path, tmp_path: Path) -> None:
    trainer = trainer_of(tiny_rm_dir, tmp_path, halved(), eval_dataset={"train": Dataset.from_list(halved())})
    assert list(trainer.train_dataset["problem"]) == PROBLEMS[::2]
    assert list(trainer.eval_dataset["train"]["problem"]) == PROBLEMS[1::2]
    assert "row" not in trainer.eval_dataset["train"].column_names  # so no unaligned pairs are drawn for it


def test_a_list_of_pairs_is_a_dataset(tiny_rm_dir: Path, tmp_path: Path) -> None:
    pairs = [PreferencePair(f"Add {n}.", f"x = {n}", f"x = -{n}", "rollout") for n in range(1, 5)]
    config = CodeScalerRewardConfig(tmp_path, max_steps=1, use_cpu=True, bf16=False, report_to="none")
    trainer = CodeScalerRewardTrainer(str(tiny_rm_dir), config, train_dataset=pairs, eval_dataset=pairs[:2])
    assert (len(trainer.train_dataset), len(trainer.eval_dataset)) == (4, 2)
    with pytest.raises(DataError, match="pair 1 is dict: expected a PreferencePair; give rows as a Dataset"):
        CodeScalerRewardTrainer(str(tiny_rm_dir), config, train_dataset=[pairs[0], {"chosen": "x"}])
