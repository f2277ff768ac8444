"""Train a code reward model with TRL: what is scored is what was trained on.

`CodeScalerRewardTrainer` is TRL's `RewardTrainer` with the project's extraction and rendering, negatives from other
problems, margins from pass rates, metrics by set and by kind, and batches that compute what the sides of a pair share
only once. Everything else (PEFT, accelerate, DeepSpeed, checkpoints, the hub) is the host's.
"""

import logging
import re
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from math import isfinite
from pathlib import Path
from random import Random
from typing import Any

import torch
from datasets import Dataset
from transformers import AutoConfig, AutoTokenizer, TrainerCallback
from transformers.modeling_outputs import SequenceClassifierOutput
from trl import RewardConfig, RewardTrainer
from trl.trainer.reward_trainer import DataCollatorForPreference

from codescaler_plugin import __version__
from codescaler_plugin.builtin import BUILTIN, reward_model
from codescaler_plugin.data.outputs import write_text
from codescaler_plugin.data.pairs import TRAIN, split_of
from codescaler_plugin.errors import ConfigError, DataError
from codescaler_plugin.preference.mutations import PRESERVING, mutate_both
from codescaler_plugin.preference.preparation import NOT_TRAIN, is_of_split, prepare_preference_dataset
from codescaler_plugin.pretrained import pretrained
from codescaler_plugin.scoring import attention, families
from codescaler_plugin.scoring.forward import tree_attention
from codescaler_plugin.scoring.prefix_tree import plan_rows
from codescaler_plugin.scoring.rendering import Renderer, Unscorable

logger = logging.getLogger(__name__)

UNALIGNED = "unaligned"


@dataclass
class CodeScalerRewardConfig(RewardConfig):  # type: ignore[misc]
    """TRL's `RewardConfig` with other defaults and a few more settings.

    The paper does not give its settings of RM training; the defaults are those of its nearest public peer (AceCoder).

    Attributes:
        learning_rate: peak.
        max_length: tokens of the longest side. Longer pairs lose the middle of their problem, on both sides alike.
        language: that the code must be in, or `any`.
        unaligned_ratio: share of pairs that bring a second one in which the rejected side is right code for another
            problem of the batch, drawn anew in each epoch. 0.3 is inferred from the name of an artefact of the
            paper's authors; 0 turns it off.
        rewrite_ratio: share of pairs of which training sees both sides written anew, by the same draws of one of
            `rewrite_kinds`, drawn anew in each epoch; Python only. 0: none. Its effect is not measured here.
        rewrite_kinds: names of `mutations.PRESERVING`.
        margin_scale: target margin of the loss per unit of a pair's `margin`, the gap of the pass rates; 0: none.
        label_smoothing: probability that a label is wrong, for tests that are noisy; in [0, 0.5).
        share_prefixes: compute what the sides of a batch share once; exact, and only for models that can
            (`families.SHARED`).
    """

    learning_rate: float = field(default=1e-5, metadata={"help": "Peak learning rate."})
    max_length: int | None = field(default=4096, metadata={"help": "Tokens of the longest side of a pair."})
    language: str = field(default="python", metadata={"help": "Language of the code, or 'any'."})
    unaligned_ratio: float = field(
        default=0.3, metadata={"help": "Share of pairs that bring one with right code for another problem."}
    )
    rewrite_ratio: float = field(default=0.0, metadata={"help": "Share of pairs seen with both sides written anew."})
    rewrite_kinds: list[str] = field(
        default_factory=lambda: ["padding", "rename", "reformat"], metadata={"help": "How: see `codescaler augment`."}
    )
    margin_scale: float = field(default=0.0, metadata={"help": "Target margin per unit of pass-rate gap; 0: none."})
    label_smoothing: float = field(default=0.0, metadata={"help": "Probability that a label is wrong."})
    share_prefixes: bool = field(default=True, metadata={"help": "Compute what the sides of a batch share once."})

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("unaligned_ratio", "rewrite_ratio"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"{name} is {getattr(self, name)}: expected a share in [0, 1]")
        if not self.rewrite_kinds or not set(self.rewrite_kinds) <= set(PRESERVING):
            raise ConfigError(f"rewrite_kinds is {self.rewrite_kinds}: expected some of {', '.join(PRESERVING)}")
        if self.rewrite_ratio and self.language != "python":
            raise ConfigError(f"rewrite_ratio is {self.rewrite_ratio} for language {self.language!r}: only for python")
        if not 0 <= self.label_smoothing < 0.5:
            raise ConfigError(f"label_smoothing is {self.label_smoothing}: expected a probability in [0, 0.5)")
        if self.margin_scale < 0:
            raise ConfigError(f"margin_scale is {self.margin_scale}: expected at least 0")


_STOCK_ABOUT = re.compile(
    r"This model is a fine-tuned version of .*?(?=^## Training procedure)", re.DOTALL | re.MULTILINE
)
"""Of trl 1.16, `templates/rm_model_card.md`: the base model (`None` for a folder) and a use without chat template."""

_ABOUT = """\
This reward model scores a program for a programming problem; higher is better, and only scores of one problem compare.
It was trained from {base} on {pairs:,} pairs of a right and a wrong program, by `CodeScalerRewardTrainer` of
codescaler-plugin {version}.

## Quick start

```python
from codescaler_plugin import CodeScaler, load_scorer

scaler = CodeScaler(load_scorer("{model}"))
completion = "```python\\ndef solve(xs):\\n    return sum(xs)\\n```"
[judgement] = scaler.judge(["Write solve(xs): return the sum of the list xs."], [completion])
print(judgement.status, judgement.score, judgement.reward)
```

As a reward in TRL: `GRPOTrainer(..., reward_funcs=[CodeScalerReward(model="{model}")])`.

"""


def _base_name(name: str) -> str:
    """The model that training began from, for its card: an id as a link, a folder by its name."""
    if not name:
        return "a model that was given as an object"
    if Path(name).is_dir() or not re.fullmatch(r"[\w.-]+/[\w.-]+", name):
        return f"`{Path(name).name}`"
    return f"[{name}](https://huggingface.co/{name})"


class CodeScalerRewardTrainer(RewardTrainer):  # type: ignore[misc]
    """TRL's `RewardTrainer` for pairs of programs; same signature.

    `train_dataset` and `eval_dataset` hold pairs in any of the columns that `preference.pairs` reads, or what
    `prepare_preference_dataset` gives. Checked before the first step.

    Of a training set with a column `split`, only the rows of `train` are trained on. The others are the evaluation
    set where none is given. An evaluation set that holds both loses its rows of `train`. A warning counts what is
    left out.

    The loss is TRL's, of the pairs and the unaligned ones: -log sigmoid(chosen - rejected - margin), and its centring.
    Logged besides TRL's metrics: `accuracy/<kind>`; each evaluation set has its metrics under its own name.

    Raises:
        ConfigError: a dataset streams, or a setting does not fit.
        DataError: see `prepare_preference_dataset`; or unaligned pairs are asked for and a dataset holds ids alone.
    """

    _tag_names = ("trl", "reward-trainer", "codescaler")
    _name = "CodeScaler"
    _paper = {  # noqa: RUF012 - the host's form
        "title": "CodeScaler: Scaling Code LLM Training and Test-Time Inference via Execution-Free Reward Models",
        "id": "2602.17684",
        "citation": textwrap.dedent("""\
            @article{codescaler2026,
                title  = {{CodeScaler: Scaling Code LLM Training and Test-Time Inference via Execution-Free Reward
                          Models}},
                year   = 2026,
                eprint = {arXiv:2602.17684},
            }"""),
    }

    def __init__(
        self,
        model: Any,
        args: CodeScalerRewardConfig | None = None,
        data_collator: Any = None,
        train_dataset: Any = None,
        eval_dataset: Any = None,
        *rest: Any,
        **settings: Any,
    ) -> None:
        """As TRL's; `args` must be a `CodeScalerRewardConfig`, and `model` may be a path or `builtin`."""
        if isinstance(model, Path) or model == BUILTIN:
            model = reward_model(str(model))
        if args is not None and not isinstance(args, CodeScalerRewardConfig):
            raise ConfigError(f"args is a {type(args).__name__}: expected a CodeScalerRewardConfig")
        if args is None:
            name = model if isinstance(model, str) else model.config._name_or_path
            args = CodeScalerRewardConfig(f"{name.rstrip('/').split('/')[-1]}-CodeScaler")
        if args.unaligned_ratio and args.train_batch_size < 2 and data_collator is None:
            raise ConfigError(
                f"unaligned_ratio is {args.unaligned_ratio}, drawn from the other problems of a batch, but "
                "per_device_train_batch_size is 1: give 2 or more, or unaligned_ratio=0"
            )
        if isinstance(model, str):  # else a broken folder would be the host's error, after its own work
            pretrained(AutoConfig, model, trust_remote_code=args.trust_remote_code)
            if settings.get("processing_class") is None and not any(rest):
                pretrained(AutoTokenizer, model, trust_remote_code=args.trust_remote_code)
        self._kinds = [UNALIGNED]
        self._prefix = "eval"
        self._has_train = False
        if eval_dataset is None and len(_splits(train_dataset)) > 1:
            eval_dataset = train_dataset  # each takes its own rows of it, see `_prepare_dataset`
        super().__init__(model, args, data_collator, train_dataset, eval_dataset, *rest, **settings)
        if data_collator is None:
            stock: DataCollatorForPreference = self.data_collator  # type: ignore[has-type]
            self.data_collator = _PairCollator(stock, self.processing_class, args, self._kinds)
            self.add_callback(_EpochOf(self.data_collator))
        bare = self._bare(self.model)  # its head may be in a wrapper of PEFT
        reason = families.unsupported_reason(bare.config, decoder=bare.base_model, training=True)
        self._shares = args.share_prefixes and reason is None and hasattr(bare, "score")
        if args.share_prefixes and reason is not None:
            logger.info("prefixes are not shared in training: %s", reason)

    def _prepare_dataset(self, dataset: Any, processing_class: Any, args: Any, dataset_name: str) -> Any:
        """Pairs as ids, with what the collator needs; TRL calls this for every dataset, also in `evaluate`."""
        is_train = dataset_name == "train" and not self._has_train  # an evaluation set may have this name, too
        self._has_train |= is_train
        splits = _splits(dataset)
        split = TRAIN if is_train else NOT_TRAIN if splits - {TRAIN} else None
        if not {"chosen_ids", "rejected_ids"} <= set(dataset.column_names or ()):
            with args.main_process_first(desc=f"preparing {dataset_name}"):
                dataset = prepare_preference_dataset(
                    dataset,
                    processing_class,
                    max_length=args.max_length,
                    language=args.language,
                    margin_scale=args.margin_scale,
                    name=dataset_name,
                    min_pairs=2 if is_train else 1,
                    split=split,
                )
        elif splits:
            rows = [number for number, one in enumerate(dataset["split"]) if is_of_split(one, split)]
            dataset = dataset.select(rows)
        for number, margin in enumerate(dataset["margin"] if "margin" in dataset.column_names else ()):
            if margin is None or not isfinite(margin):  # one makes every parameter NaN, and the loss log 0.0
                raise DataError(
                    f"row {number} of {dataset_name}: margin is {margin!r}: expected a number, or no column margin"
                )
        if "kind" in dataset.column_names:
            self._kinds += sorted(set(dataset.unique("kind")) - set(self._kinds))
        if not is_train or args.unaligned_ratio == args.rewrite_ratio == 0:
            return dataset
        if not {"problem", "chosen", "rejected"} <= set(dataset.column_names):
            raise DataError(
                "train has token ids without problem, chosen and rejected, which unaligned and rewritten pairs need: "
                "make it by prepare_preference_dataset, or set unaligned_ratio=0 and rewrite_ratio=0"
            )
        return dataset.add_column("row", list(range(len(dataset)))) if "row" not in dataset.column_names else dataset

    def _set_signature_columns_if_needed(self) -> None:
        super()._set_signature_columns_if_needed()
        self._signature_columns += ["problem", "chosen", "rejected", "kind", "row", "length"]

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """TRL's loss; see the class."""
        kinds = inputs.pop("kinds", None)
        margin = inputs.get("margin", 0.0)
        scored = SharedPrefixes(model, self._bare(model)) if self._shares else model
        with _gathers_unequal(self.accelerator):
            loss, outputs = super().compute_loss(scored, inputs, True, num_items_in_batch)
        chosen, rejected = torch.chunk(outputs.logits.squeeze(-1), chunks=2)
        if self.args.label_smoothing > 0:  # -log sigmoid(-x) = -log sigmoid(x) + x
            loss = loss + self.args.label_smoothing * (chosen - rejected - margin).mean()
        if kinds is not None:
            self._count_kinds(kinds, chosen.detach() > rejected.detach())
        return (loss, outputs) if return_outputs else loss

    def training_step(self, *args: Any, **kwargs: Any) -> Any:  # the host's arguments
        """One step. The tree is in force until gradients are there: checkpointing runs layers again."""
        with tree_attention(self._bare(self.model)) if self._shares else nullcontext():
            return super().training_step(*args, **kwargs)

    def evaluate(self, eval_dataset: Any = None, ignore_keys: Any = None, metric_key_prefix: str = "eval") -> Any:
        """TRL's, with all metrics under the set's own name."""
        self._prefix = metric_key_prefix
        return super().evaluate(eval_dataset, ignore_keys, metric_key_prefix)

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """TRL's; metrics of an evaluation carry the name of its set, where TRL has one name for all."""
        if not self.model.training and any(key.startswith(f"{self._prefix}_") for key in logs):
            metrics = self._metrics["eval"]
            logs.update({f"{self._prefix}_{key}": sum(values) / len(values) for key, values in metrics.items()})
            metrics.clear()
        super().log(logs, start_time)

    def create_model_card(self, *args: Any, **kwargs: Any) -> None:  # the host's arguments
        """TRL's card; what the model is and how it is used are said for a reward model of code."""
        super().create_model_card(*args, **kwargs)
        if not self.is_world_process_zero():
            return
        page = Path(self.args.output_dir, "README.md")
        about = _ABOUT.format(
            base=_base_name(self.model.config._name_or_path),
            pairs=len(self.train_dataset),
            version=__version__,
            model=self.hub_model_id or self.args.output_dir,  # where `save_model` puts it
        )
        text, found = _STOCK_ABOUT.subn(lambda _: about, page.read_text(encoding="utf-8"))
        if found:
            write_text(page, text)

    def _count_kinds(self, kinds: Any, right: Any) -> None:
        if self.model.training:  # unaligned pairs are no rows of the dataset: nothing is to be cut at its end
            with _gathers_unequal(self.accelerator):
                kinds, right = self.accelerator.gather(kinds), self.accelerator.gather(right)
        else:
            kinds, right = self.accelerator.gather_for_metrics((kinds, right))
        metrics = self._metrics["train" if self.model.training else "eval"]
        for kind in kinds.unique().tolist():
            metrics[f"accuracy/{self._kinds[kind]}"] += right[kinds == kind].float().tolist()

    def _bare(self, model: Any) -> Any:
        """The classifier inside whatever accelerate and PEFT have put around it."""
        inner = self.accelerator.unwrap_model(model)
        return inner.get_base_model() if hasattr(inner, "get_base_model") else inner


def _splits(dataset: Any) -> set[str]:
    """The splits that the rows of a dataset name; none if it streams or has no such column."""
    if not isinstance(dataset, Dataset) or "split" not in dataset.column_names:
        return set()
    return {split_of({"split": one}) for one in dataset.unique("split")}


@dataclass
class SharedPrefixes:
    """Stands for a model in TRL's loss: the same logits, what the rows of a padded batch share computed once.

    Attributes:
        model: what is trained, in whatever wrappers.
        bare: the classifier inside them.
    """

    model: Any
    bare: Any

    def __call__(self, *, input_ids: Any, attention_mask: Any, use_cache: bool, **_: Any) -> Any:  # the host's names
        """Logits [rows, 1] of a batch that is padded on the right."""
        lengths = attention_mask.sum(-1).tolist()
        items = [ids[:length] for ids, length in zip(input_ids.tolist(), lengths, strict=True)]
        (row,) = plan_rows(items, max_tokens=sum(lengths))
        device = input_ids.device
        with tree_attention(self.bare), _scores_of_all_tokens(self.model) as scores:
            self.model(  # through all wrappers, which hook into forward
                input_ids=torch.tensor([row.tokens], device=device),
                position_ids=torch.tensor([row.positions], device=device),
                tree=attention.Tree(row.nodes),
                use_cache=use_cache,
            )
        places = [last for _, last in sorted(row.lasts)]
        return SequenceClassifierOutput(logits=scores[0][0, torch.tensor(places, device=device)])


@contextmanager
def _scores_of_all_tokens(model: Any) -> Iterator[list[Any]]:
    """What the head gives for every token, [1, tokens, 1]; the model itself returns only that of the last."""
    found: list[Any] = []
    head = next(module for name, module in model.named_modules() if name.split(".")[-1] == "score")
    handle = head.register_forward_hook(lambda _module, _inputs, output: found.append(output))
    try:
        yield found
    finally:
        handle.remove()


@contextmanager
def _gathers_unequal(accelerator: Any) -> Iterator[None]:
    """Inside, `accelerator.gather` takes tensors with other numbers of rows in other processes.

    TRL gathers the logits of a batch for its metrics; each process draws its own number of unaligned pairs.
    """
    if accelerator.num_processes == 1:
        yield
        return
    stock = accelerator.gather

    def gather(tensor: Any) -> Any:
        if tensor.ndim == 0:
            return stock(tensor)
        sizes = stock(torch.tensor([len(tensor)], device=tensor.device)).tolist()
        missing = tensor.new_zeros(max(sizes) - len(tensor), *tensor.shape[1:])
        parts = stock(torch.cat([tensor, missing])).split(max(sizes))
        return torch.cat([part[:size] for part, size in zip(parts, sizes, strict=True)])

    accelerator.gather = gather
    try:
        yield
    finally:
        del accelerator.gather  # the method is back


class _PairCollator:
    """TRL's collator over the pairs of a batch, some written anew, and the unaligned ones drawn for them.

    What is drawn depends on seed, epoch and row alone, so that a run that was resumed draws the same.
    """

    def __init__(
        self, collator: DataCollatorForPreference, tokenizer: Any, args: CodeScalerRewardConfig, kinds: list[str]
    ) -> None:
        self.collator = collator
        self.renderer = Renderer(tokenizer, args.max_length)
        self.args = args
        self.kinds = kinds
        self.epoch = torch.tensor(0)  # that the draws are of
        self.epoch.share_memory_()  # type: ignore[no-untyped-call]  # workers that outlive an epoch see it change

    def __call__(self, examples: list[dict[str, Any]]) -> dict[str, Any]:
        examples = [*self._rewritten(examples), *self._unaligned(examples)]
        batch: dict[str, Any] = self.collator(examples)
        if "kind" in examples[0]:
            batch["kinds"] = torch.tensor([self.kinds.index(example["kind"]) for example in examples])
        return batch

    def _rng(self, purpose: str, example: dict[str, Any]) -> Random:
        return Random(f"{purpose} {self.args.seed} {int(self.epoch)} {example['row']}")

    def _rewritten(self, examples: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
        for example in examples:
            changed = None
            if "row" in example:
                rng = self._rng("rewrite", example)
                if rng.random() < self.args.rewrite_ratio:
                    kind = rng.choice(self.args.rewrite_kinds)
                    changed = mutate_both(kind, example["chosen"], example["rejected"], rng)
            if changed is None:
                yield example
                continue
            chosen, rejected = self.renderer.encode([(example["problem"], code) for code in changed])
            whole = not isinstance(chosen, Unscorable) and not isinstance(rejected, Unscorable)
            yield {**example, "chosen_ids": chosen, "rejected_ids": rejected} if whole else example

    def _unaligned(self, examples: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
        for example in examples:
            if "row" not in example:  # not of the training set
                continue
            rng = self._rng("unaligned", example)
            others = [other["chosen"] for other in examples if other["problem"] != example["problem"]]
            if not others or rng.random() >= self.args.unaligned_ratio:
                continue
            [ids] = self.renderer.encode([(example["problem"], rng.choice(others))])
            if not isinstance(ids, Unscorable):  # too long for this problem
                yield {**example, "rejected_ids": ids, "kind": UNALIGNED, "margin": self.args.margin_scale}


class _EpochOf(TrainerCallback):  # type: ignore[misc]
    """Tells the collator the epoch."""

    def __init__(self, collator: _PairCollator) -> None:
        self.collator = collator

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:  # noqa: ARG002 - the host's names
        self.collator.epoch.fill_(int(state.epoch or 0))
