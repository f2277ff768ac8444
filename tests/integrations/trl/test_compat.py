"""The private parts of TRL, transformers and accelerate that `compat.py` relies on, in the releases installed here.

A failure says which release changed what. `tests/contract/test_trl_trainer.py` has the trainer that is built on them.
"""

import re
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from transformers import AutoModelForSequenceClassification, AutoTokenizer

trl = pytest.importorskip("trl")

from trl import RewardConfig, RewardTrainer  # noqa: E402

from codescaler_plugin.integrations.trl import compat  # noqa: E402
from codescaler_plugin.scoring import families  # noqa: E402

IDS = Dataset.from_dict({"chosen_ids": [[5, 6, 7], [5, 8]], "rejected_ids": [[5, 9], [5, 6, 9]], "extra": ["a", "b"]})


def changed(host: str, change: str) -> str:
    return f"{host} {version(host)} {change}; mend codescaler_plugin/integrations/trl/compat.py"


class Hooked(compat.RewardTrainerHooks, RewardTrainer):  # type: ignore[misc]  # TRL is Any to mypy
    """Keeps the names and the tokenizers that it is asked to prepare a dataset with."""

    def __init__(self, *args: Any, **settings: Any) -> None:
        self.prepared: list[tuple[str, bool]] = []
        super().__init__(*args, **settings)

    def prepare_pairs(self, dataset: Any, tokenizer: Any, args: Any, name: str) -> Any:
        self.prepared.append((name, tokenizer.pad_token is not None and args.max_length is not None))
        return dataset


@pytest.fixture
def trainer(tiny_rm_dir: Path, tmp_path: Path) -> Any:
    return Hooked(
        model=str(tiny_rm_dir),
        args=RewardConfig(
            output_dir=str(tmp_path / "run"),
            use_cpu=True,
            bf16=False,
            report_to="none",
            gradient_checkpointing=False,
            remove_unused_columns=False,
            max_steps=1,
            logging_steps=1,
            save_strategy="no",
        ),
        train_dataset=IDS,
        eval_dataset={"first": IDS, "second": IDS},
    )


def batch_of(trainer: Any) -> dict[str, Any]:
    batch: dict[str, Any] = trainer.data_collator([trainer.train_dataset[row] for row in range(2)])
    return batch


def test_every_dataset_passes_the_hook_by_its_name_when_the_tokenizer_is_ready(trainer: Any) -> None:
    names = [name for name, _ in trainer.prepared]
    assert names == ["train", "first", "second"], changed(
        "trl",
        f"calls RewardTrainer._prepare_dataset for {names} in __init__, once called for each dataset by its name",
    )
    assert all(ready for _, ready in trainer.prepared), changed(
        "trl", "calls RewardTrainer._prepare_dataset before the tokenizer has a padding token"
    )


def test_evaluate_passes_a_new_dataset_to_the_hook(trainer: Any) -> None:
    trainer.prepared.clear()
    trainer.evaluate(IDS)
    assert [name for name, _ in trainer.prepared] == ["eval"], changed(
        "trl", f"prepares {trainer.prepared} in RewardTrainer.evaluate, once the dataset that it is given as 'eval'"
    )


def test_all_columns_reach_the_collator_that_stands_in_for_the_stock_one(trainer: Any) -> None:
    seen: list[set[str]] = []
    stock = trainer.data_collator
    trainer.data_collator = lambda examples: seen.append(set(examples[0])) or stock(examples)
    trainer.train()
    assert "extra" in set().union(*seen), changed(
        "transformers", f"hands a collator the columns {seen} with remove_unused_columns=False, once all columns"
    )


def test_metrics_are_lists_by_mode_that_a_log_averages_and_clears(trainer: Any) -> None:
    assert isinstance(getattr(trainer, "_metrics", None), dict), changed("trl", "has no dict RewardTrainer._metrics")
    for mode in ("train", "eval"):
        trainer.model.train(mode == "train")
        trainer.compute_loss(trainer.model, batch_of(trainer))
        assert "accuracy" in trainer.pending_metrics, changed("trl", f"does not keep {mode} in RewardTrainer._metrics")
        trainer.pending_metrics["accuracy/some"] += [0.0, 1.0, 1.0, 0.0]
        logs = {"loss": 1.0} if mode == "train" else {"eval_loss": 1.0}
        trainer.log(logs)
        name = "accuracy/some" if mode == "train" else "eval_accuracy/some"
        assert logs.get(name) == 0.5, changed("trl", f"logs {logs} of RewardTrainer._metrics, once also {name} 0.5")
        assert not trainer.pending_metrics, changed("trl", "does not clear RewardTrainer._metrics in log")


def test_an_evaluation_without_metrics_of_trl_is_logged(trainer: Any) -> None:
    trainer.model.eval()
    trainer.pending_metrics.clear()
    logs = {"eval_first_loss": 1.0}
    trainer.log(logs)
    assert not [name for name in logs if "accuracy" in name], changed(
        "trl", f"logs {logs} though no metric is pending"
    )


def test_card_names_the_paper_and_has_the_section_to_replace(trainer: Any, tmp_path: Path) -> None:
    trainer.create_model_card(model_name="some")
    card = (tmp_path / "run" / "README.md").read_text()
    for name, words in (("_tag_names", "- codescaler\n"), ("_name", "Cite CodeScaler as"), ("_paper", "2602.17684")):
        assert words in card, changed("trl", f"does not print RewardTrainer.{name} on the model card")
    about = "This reward model is ours.\n\n"
    replaced = compat.replace_about(card, about)
    assert replaced.count(about) == 1, changed(
        "trl", "has another card: the section from 'This model is a fine-tuned version of' to '## Training procedure'"
    )
    before, after = replaced.split(about)
    assert card.startswith(before)
    assert card.endswith(after)
    assert re.match(r"## Training procedure\n", after)
    assert not re.search(r"fine-tuned version|pipeline", replaced)


class Accelerator:
    """An accelerator of two processes, of which the other one has `other`."""

    num_processes = 2

    def __init__(self, *others: torch.Tensor) -> None:
        self.others = list(others)

    def gather(self, tensor: torch.Tensor) -> torch.Tensor:
        return torch.cat([torch.atleast_1d(tensor), torch.atleast_1d(self.others.pop(0))])


def test_the_loss_gathers_logits_through_the_accelerator(trainer: Any) -> None:
    stock, shapes = trainer.accelerator.gather, []
    trainer.accelerator.gather = lambda tensor: shapes.append(tuple(tensor.shape)) or stock(tensor)
    trainer.compute_loss(trainer.model, batch_of(trainer))
    del trainer.accelerator.gather
    assert (4, 1) in shapes, changed(
        "trl", f"gathers tensors of the shapes {shapes} by self.accelerator.gather in compute_loss, once the logits"
    )


def test_gather_is_exchanged_and_back_afterwards() -> None:
    ours = torch.tensor([[1.0], [2.0], [3.0]])
    others = (torch.tensor([1]), torch.tensor([[4.0], [0.0], [0.0]]), torch.tensor(6.0))
    accelerator = Accelerator(*others)
    with compat.gathers_unequal(accelerator):
        assert accelerator.gather(ours).tolist() == [[1.0], [2.0], [3.0], [4.0]]
        assert accelerator.gather(torch.tensor(5.0)).tolist() == [5.0, 6.0]
    assert "gather" not in vars(accelerator)


def test_the_loss_calls_the_model_with_both_sides_padded_on_the_right(trainer: Any) -> None:
    calls: list[dict[str, Any]] = []

    def model(**inputs: Any) -> Any:
        calls.append(inputs)
        return trainer.model(**inputs)

    trainer.compute_loss(model, batch_of(trainer))
    keywords = set(calls[0]) if calls else set()
    assert {"input_ids", "attention_mask", "use_cache"} <= keywords, changed(
        "trl", f"calls the model with {sorted(keywords)}, once with input_ids, attention_mask and use_cache"
    )
    lengths = calls[0]["attention_mask"].sum(-1).tolist()
    sides = [ids[:length] for ids, length in zip(calls[0]["input_ids"].tolist(), lengths, strict=True)]
    assert sides == [*IDS["chosen_ids"], *IDS["rejected_ids"]], changed(
        "trl", "lays a batch out in another way than the chosen sides first, then the rejected, padded on the right"
    )


@pytest.mark.parametrize("family", sorted(families.SHARED))
def test_the_head_is_named_score_and_sees_every_token(family: str) -> None:
    from transformers import AutoConfig

    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    try:
        config = AutoConfig.for_model(family, vocab_size=32, num_key_value_heads=1, head_dim=8, num_labels=1, **sizes)
        config.pad_token_id = 0
        model = AutoModelForSequenceClassification.from_config(config)
    except ValueError:
        pytest.skip(f"transformers {version('transformers')} has no classifier of {family}")
    assert compat.has_score_head(model), changed("transformers", f"has no head named score in {type(model).__name__}")
    with compat.scores_of_all_tokens(model) as outputs, torch.no_grad():
        logits = model(input_ids=torch.tensor([[5, 6, 7]])).logits
    assert [tuple(output.shape) for output in outputs] == [(1, 3, 1)], changed(
        "transformers", f"applies the head of {type(model).__name__} to {outputs}, once to all tokens"
    )
    torch.testing.assert_close(outputs[0][:, -1], logits)
    assert not model.score._forward_hooks


def test_one_process_gathers_its_own_value_and_needs_no_accelerate() -> None:
    assert compat.gathered(("a", 1)) == [("a", 1)]
    from accelerate import state

    assert callable(getattr(state, "is_initialized", None)), changed("accelerate", "has no state.is_initialized")
    script = (
        "import sys; from codescaler_plugin.integrations.trl.compat import gathered; "
        "print(gathered(1), 'accelerate' in sys.modules, 'torch' in sys.modules, 'trl' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["[1]", "False", "False", "False"]


def test_the_name_of_the_model_is_public(tiny_rm_dir: Path) -> None:
    model = AutoModelForSequenceClassification.from_pretrained(tiny_rm_dir)
    assert model.config.name_or_path == str(tiny_rm_dir), changed("transformers", "does not keep config.name_or_path")
    assert AutoTokenizer.from_pretrained(tiny_rm_dir).pad_token is not None
