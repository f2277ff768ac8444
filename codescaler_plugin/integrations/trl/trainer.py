"""A trainer of code reward models for TRL. The model is trained on the very strings that it scores later.

PEFT, accelerate, DeepSpeed, checkpoints and the hub work as in TRL.
"""

import logging
import re
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from math import isfinite
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from transformers import AutoConfig, AutoTokenizer
from transformers.modeling_outputs import SequenceClassifierOutput
from trl import RewardTrainer

from codescaler_plugin import __version__
from codescaler_plugin.builtin import BUILTIN, reward_model
from codescaler_plugin.data.outputs import write_text
from codescaler_plugin.data.pairs import TRAIN, split_of
from codescaler_plugin.errors import ConfigError, DataError
from codescaler_plugin.integrations.trl import compat
from codescaler_plugin.integrations.trl.pair_collator import UNALIGNED, EpochCallback, PairCollator
from codescaler_plugin.integrations.trl.trainer_config import CodeScalerRewardConfig
from codescaler_plugin.preference.preparation import NOT_TRAIN, is_of_split, prepare_preference_dataset
from codescaler_plugin.pretrained import pretrained
from codescaler_plugin.records import PreferencePair
from codescaler_plugin.scoring import attention, families
from codescaler_plugin.scoring.forward import tree_attention
from codescaler_plugin.scoring.prefix_tree import plan_rows

logger = logging.getLogger(__name__)


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
    """The base model for its card: a hub id as a link, a folder by its name."""
    if not name:
        return "a model that was given as an object"
    if Path(name).is_dir() or not re.fullmatch(r"[\w.-]+/[\w.-]+", name):
        return f"`{Path(name).name}`"
    return f"[{name}](https://huggingface.co/{name})"


class CodeScalerRewardTrainer(compat.RewardTrainerHooks, RewardTrainer):  # type: ignore[misc]
    """TRL's `RewardTrainer` for pairs of programs, with the same signature.

    `args` must be a `CodeScalerRewardConfig`. `model` may also be a path or `builtin`. `train_dataset` and
    `eval_dataset` hold pairs in any of the columns that `data.pairs` reads, or the result of
    `prepare_preference_dataset`; or they are lists of `PreferencePair`, as `mine_pairs` gives. They are checked before
    the first step.

    If the training set has a column `split`, only its rows of `train` are trained on. The others become the evaluation
    set if none is given. An evaluation set that holds both loses its rows of `train`. A warning counts what is left
    out.

    The loss is TRL's, over the pairs and the unaligned pairs: -log sigmoid(chosen - rejected - margin), and its
    centring. Each evaluation set logs its metrics under its own name, and `accuracy/<kind>` is logged besides TRL's.

    Raises:
        ConfigError: a dataset streams, or a setting does not fit.
        DataError: see `prepare_preference_dataset`; or a dataset holds ids alone and unaligned or rewritten pairs are
            asked for.

    Example:
        >>> import tempfile
        >>> from codescaler_plugin.testing import save_tiny_reward_model
        >>> folder = tempfile.mkdtemp()
        >>> pairs = [
        ...     {"problem": f"Add {n}.", "chosen": f"def f(x): return x + {n}", "rejected": f"def f(x): return {n}"}
        ...     for n in range(4)
        ... ]
        >>> trainer = CodeScalerRewardTrainer(
        ...     save_tiny_reward_model(Path(folder)),
        ...     CodeScalerRewardConfig(folder, max_steps=1, use_cpu=True, bf16=False, report_to="none"),
        ...     train_dataset=Dataset.from_list(pairs),
        ... )
        >>> trainer.train().global_step  # doctest: +ELLIPSIS
        {'train_runtime': ...
        1
    """

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
        if isinstance(model, Path) or model == BUILTIN:
            model = reward_model(str(model))
        if args is not None and not isinstance(args, CodeScalerRewardConfig):
            raise ConfigError(f"args is a {type(args).__name__}: expected a CodeScalerRewardConfig")
        if args is None:
            name = model if isinstance(model, str) else model.config.name_or_path
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
        args.remove_unused_columns = False  # the collator draws from columns that TRL would remove
        self._kinds = [UNALIGNED]
        self._prefix = "eval"
        self._has_train = False
        train_dataset, eval_dataset = _dataset(train_dataset), _dataset(eval_dataset)
        if eval_dataset is None and len(_splits(train_dataset)) > 1:
            eval_dataset = train_dataset  # each takes its own rows of it, see `prepare_pairs`
        super().__init__(model, args, data_collator, train_dataset, eval_dataset, *rest, **settings)
        if data_collator is None:
            stock = self.data_collator  # type: ignore[has-type]
            self.data_collator = PairCollator(stock, self.processing_class, args, self._kinds)
            self.add_callback(EpochCallback(self.data_collator))
        bare = self._bare(self.model)  # its head may be in a wrapper of PEFT
        reason = families.unsupported_reason(bare.config, decoder=bare.base_model, training=True)
        self._shares = args.share_prefixes and reason is None and compat.has_score_head(bare)
        if args.share_prefixes and reason is not None:
            logger.info("prefixes are not shared in training: %s", reason)

    def prepare_pairs(self, dataset: Any, tokenizer: Any, args: Any, name: str) -> Any:
        """The pairs of a dataset as token ids, with the columns that the collator draws from."""
        is_train = name == "train" and not self._has_train  # an evaluation set may have this name, too
        self._has_train |= is_train
        splits = _splits(dataset)
        split = TRAIN if is_train else NOT_TRAIN if splits - {TRAIN} else None
        if not {"chosen_ids", "rejected_ids"} <= set(dataset.column_names or ()):
            with args.main_process_first(desc=f"preparing {name}"):
                dataset = prepare_preference_dataset(
                    dataset,
                    tokenizer,
                    max_length=args.max_length,
                    language=args.language,
                    margin_scale=args.margin_scale,
                    name=name,
                    min_pairs=2 if is_train else 1,
                    split=split,
                )
        elif splits:
            dataset = dataset.select([row for row, own in enumerate(dataset["split"]) if is_of_split(own, split)])
        for row, margin in enumerate(dataset["margin"] if "margin" in dataset.column_names else ()):
            if margin is None or not isfinite(margin):  # one makes every parameter NaN, and the loss log 0.0
                raise DataError(f"row {row} of {name}: margin is {margin!r}: expected a number, or no column margin")
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

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """TRL's loss; see the class."""
        kinds = inputs.pop("kinds", None)
        margin = inputs.get("margin", 0.0)
        scored = SharedPrefixes(model, self._bare(model)) if self._shares else model
        with compat.gathers_unequal(self.accelerator):
            loss, outputs = super().compute_loss(scored, inputs, True, num_items_in_batch)
        chosen, rejected = torch.chunk(outputs.logits.squeeze(-1), chunks=2)
        if self.args.label_smoothing > 0:  # -log sigmoid(-x) = -log sigmoid(x) + x
            loss = loss + self.args.label_smoothing * (chosen - rejected - margin).mean()
        if kinds is not None:
            self._count_kinds(kinds, chosen.detach() > rejected.detach())
        return (loss, outputs) if return_outputs else loss

    def training_step(self, *args: Any, **kwargs: Any) -> Any:
        """One step of TRL. The prefix tree stays until the gradients exist, since checkpointing runs layers again."""
        with tree_attention(self._bare(self.model)) if self._shares else nullcontext():
            return super().training_step(*args, **kwargs)

    def evaluate(self, eval_dataset: Any = None, ignore_keys: Any = None, metric_key_prefix: str = "eval") -> Any:
        """TRL's evaluation, with all metrics under the name of the set."""
        self._prefix = metric_key_prefix
        return super().evaluate(eval_dataset, ignore_keys, metric_key_prefix)

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """TRL's log, in which the metrics of each evaluation set carry its name instead of one name for all."""
        if not self.model.training and any(key.startswith(f"{self._prefix}_") for key in logs):
            metrics = self.pending_metrics
            logs.update({f"{self._prefix}_{key}": sum(values) / len(values) for key, values in metrics.items()})
            metrics.clear()
        super().log(logs, start_time)

    def create_model_card(self, *args: Any, **kwargs: Any) -> None:
        """TRL's card, with a description and an example for a reward model of code."""
        super().create_model_card(*args, **kwargs)
        if not self.is_world_process_zero():
            return
        card = Path(self.args.output_dir, "README.md")
        about = _ABOUT.format(
            base=_base_name(self.model.config.name_or_path),
            pairs=len(self.train_dataset),
            version=__version__,
            model=self.hub_model_id or self.args.output_dir,  # where `save_model` puts it
        )
        write_text(card, compat.replace_about(card.read_text(encoding="utf-8"), about))

    def _count_kinds(self, kinds: Any, right: Any) -> None:
        if self.model.training:  # no end to cut off: unaligned pairs are not rows of the dataset
            with compat.gathers_unequal(self.accelerator):
                kinds, right = self.accelerator.gather(kinds), self.accelerator.gather(right)
        else:
            kinds, right = self.accelerator.gather_for_metrics((kinds, right))
        for kind in kinds.unique().tolist():
            self.pending_metrics[f"accuracy/{self._kinds[kind]}"] += right[kinds == kind].float().tolist()

    def _bare(self, model: Any) -> Any:
        """The classifier inside the wrappers of accelerate and PEFT."""
        inner = self.accelerator.unwrap_model(model)
        return inner.get_base_model() if hasattr(inner, "get_base_model") else inner


def _dataset(pairs: Any) -> Any:
    """A list of `PreferencePair` as a dataset; anything else as it is."""
    if not isinstance(pairs, list | tuple):
        return pairs
    for row, pair in enumerate(pairs):
        if not isinstance(pair, PreferencePair):
            raise DataError(f"pair {row} is {type(pair).__name__}: expected a PreferencePair; give rows as a Dataset")
    return Dataset.from_list([asdict(pair) for pair in pairs])


def _splits(dataset: Any) -> set[str]:
    """The splits that the rows of a dataset name. Empty if the dataset streams or has no such column."""
    if not isinstance(dataset, Dataset) or "split" not in dataset.column_names:
        return set()
    return {split_of({"split": split}) for split in dataset.unique("split")}


@dataclass
class SharedPrefixes:
    """Stands for a model in TRL's loss. Its logits are equal; it computes the shared prefixes of a batch once."""

    model: Any  # in any wrappers
    bare: Any  # the classifier inside them

    def __call__(self, *, input_ids: Any, attention_mask: Any, use_cache: bool, **_: Any) -> Any:
        """Logits [rows, 1] of a batch that is padded on the right."""
        lengths = attention_mask.sum(-1).tolist()
        items = [ids[:length] for ids, length in zip(input_ids.tolist(), lengths, strict=True)]
        (row,) = plan_rows(items, max_tokens=sum(lengths))
        device = input_ids.device
        with tree_attention(self.bare), compat.scores_of_all_tokens(self.model) as scores:
            self.model(  # through all wrappers, which hook into forward
                input_ids=torch.tensor([row.tokens], device=device),
                position_ids=torch.tensor([row.positions], device=device),
                tree=attention.Tree(row.nodes),
                use_cache=use_cache,
            )
        last_tokens = [last for _, last in sorted(row.lasts)]
        return SequenceClassifierOutput(logits=scores[0][0, torch.tensor(last_tokens, device=device)])
