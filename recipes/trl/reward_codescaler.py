r"""Train a code reward model on pairs of programs, with CodeScalerRewardTrainer.

Hardware: as the configuration says; `reward_cpu_smoke.yaml` needs a CPU and a minute.
Versions: TRL 1.9 or newer; tested with TRL 1.16, transformers 5.23, torch 2.13.

    pip install -e ".[trl]"
    accelerate launch --config_file recipes/trl/accelerate/zero3.yaml \
        recipes/trl/reward_codescaler.py --config recipes/trl/reward_8b.yaml --pairs pairs.jsonl

`--pairs` is a file, folder or hub dataset of pairs: what `codescaler mine` writes, or LARK-Lab/CodeScalerPair-51K.
Every field of `CodeScalerRewardConfig` can stand in the configuration or follow it on the command line, which wins:
`--learning_rate 5e-6 --unaligned_ratio 0`. `--dry_run` checks and renders all pairs, prints what training would see,
and stops.

Expect: `eval_rollout_accuracy` above 0.5 from the first evaluation on and rising; `accuracy/unaligned` soon near 1,
for these are easy; a loss that falls below 0.3 in a few hundred steps means pairs that are told apart by their style.
The paper does not give its settings; the configurations follow the nearest public peer and say so at their head.
"""

import json
import sys
from dataclasses import asdict, dataclass, field

from datasets import Dataset
from trl import ModelConfig, TrlParser, get_peft_config

from codescaler_plugin import CodeScalerRewardConfig, CodeScalerRewardTrainer
from codescaler_plugin.data.pairs import read_pairs
from codescaler_plugin.errors import CodeScalerError, DataError
from codescaler_plugin.records import PreferencePair


@dataclass
class Arguments:
    """What is trained on, and what is held out."""

    pairs: str = field(metadata={"help": "File, folder or hub dataset of pairs."})
    held_out_share: float = field(
        default=0.05, metadata={"help": "Share of problems to evaluate on, where the pairs name no held-out split."}
    )
    dry_run: bool = field(default=False, metadata={"help": "Check and render the pairs, train nothing."})


def main() -> None:
    """Read, split by problem, train, evaluate, save."""
    parser = TrlParser((Arguments, CodeScalerRewardConfig, ModelConfig))
    arguments, config, model = parser.parse_args_and_config()
    train, held_out = split_by_problem(list(read_pairs(arguments.pairs)), arguments.held_out_share)
    by_kind = {kind: rows_of(held_out, kind) for kind in sorted({pair.kind for pair in held_out})}
    trainer = CodeScalerRewardTrainer(
        model=model.model_name_or_path,
        args=config,
        train_dataset=Dataset.from_list([asdict(pair) for pair in train]),
        eval_dataset=by_kind or None,
        peft_config=get_peft_config(model),
    )
    lengths = trainer.train_dataset["length"]
    held = {kind: len(rows) for kind, rows in (trainer.eval_dataset or {}).items()}
    seen = {"train": len(lengths), "held_out": held, "tokens_longest": max(lengths)}
    print(json.dumps({**seen, "tokens_mean": sum(lengths) / len(lengths)}))
    if arguments.dry_run:
        return
    trainer.train(resume_from_checkpoint=config.resume_from_checkpoint)
    if by_kind:
        print(json.dumps(trainer.evaluate()))
    trainer.save_model(config.output_dir)
    if model.use_peft and trainer.is_world_process_zero():
        print(f"{config.output_dir} holds an adapter: reward_merge.py, beside this file, makes a whole model of it")
    if config.push_to_hub:
        trainer.push_to_hub()


def split_by_problem(pairs: list[PreferencePair], share: float) -> tuple[list[PreferencePair], list[PreferencePair]]:
    """The split that the pairs name; without one, every n-th problem is held out."""
    if any(pair.split == "held_out" for pair in pairs):
        return [pair for pair in pairs if pair.split == "train"], [pair for pair in pairs if pair.split != "train"]
    problems = list(dict.fromkeys(pair.problem for pair in pairs))
    if share <= 0:
        return pairs, []
    if len(problems) < 2:
        raise DataError(f"{len(problems)} problems cannot be split: give more, or --held_out_share 0")
    chosen = set(problems[:: max(2, round(1 / share))])
    return [pair for pair in pairs if pair.problem not in chosen], [pair for pair in pairs if pair.problem in chosen]


def rows_of(pairs: list[PreferencePair], kind: str) -> Dataset:
    """The pairs of a kind as rows."""
    return Dataset.from_list([asdict(pair) for pair in pairs if pair.kind == kind])


if __name__ == "__main__":
    try:
        main()
    except (CodeScalerError, OSError) as error:  # OSError: how transformers says that there is no such model
        sys.exit(f"error: {error}")
