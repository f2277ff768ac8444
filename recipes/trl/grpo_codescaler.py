r"""GRPO of a code policy with CodeScaler as the reward: with tests where there are any, without them elsewhere.

Hardware: as the configuration says; `grpo_cpu_smoke.yaml` needs a CPU and a minute or two.
Versions: TRL 1.9 or newer; tested with TRL 1.16, transformers 5.23, torch 2.13.

    pip install -e ".[trl]"
    python recipes/trl/grpo_codescaler.py --config recipes/trl/grpo_8gpu.yaml --estimate
    accelerate launch --config_file recipes/trl/accelerate/zero3.yaml \
        recipes/trl/grpo_codescaler.py --config recipes/trl/grpo_8gpu.yaml

`--problems` are sets with tests (every format of `codescaler verify`), which CodeScalerTestsReward runs: a completion
is worth 1 if all pass, else 0. With `--tests false` they are not run, and the reward model judges these problems, too.
`--synthetic` are sets without tests (KodCode and the like: any rows with a problem, question or prompt). `--audit`
problems are held out: every `eval_steps` the policy answers them, their tests are run, and RewardHackingMonitor
compares. Every field of `GRPOConfig` can stand in the configuration or follow it on the command line, which wins.
`--estimate` prints the memory per GPU and stops; `--prepare FOLDER` writes the rows for TRL's own command line
(`grpo_cli.yaml`) and stops.

Expect: `hacking/invalid_share` falls within the first tens of steps; `reward` rises slowly; the audit's pass rate
rises with it, and if it does not, the monitor says so.
"""

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from glob import glob
from pathlib import Path
from random import Random
from typing import Any

from datasets import Dataset
from memory import Step, estimate, shape_of, table
from rich.console import Console
from transformers import AutoTokenizer
from trl import GRPOConfig, GRPOTrainer, ModelConfig, TrlParser, get_peft_config

from codescaler_plugin import CodeScalerConfig, CodeScalerReward, CodeScalerTestsReward, RewardHackingMonitor
from codescaler_plugin.data.outputs import write_text
from codescaler_plugin.data.problems import read_problems
from codescaler_plugin.data.rollouts import read_problem_texts
from codescaler_plugin.errors import CodeScalerError, ConfigError, DataError
from codescaler_plugin.generation.prompts import prompt_for, prompt_of
from codescaler_plugin.pretrained import pretrained
from codescaler_plugin.records import Problem


@dataclass
class Arguments:
    """What is trained on, what is held out, and how many GPUs the configuration was written for."""

    problems: list[str] = field(
        default_factory=list, metadata={"help": "Files, folders or hub datasets of problems with tests."}
    )
    synthetic: list[str] = field(
        default_factory=list, metadata={"help": "Files, folders or hub datasets of problems without tests."}
    )
    synthetic_size: int | None = field(default=None, metadata={"help": "Problems without tests, drawn with the seed."})
    audit: str | None = field(default=None, metadata={"help": "Problems with tests that are held out."})
    audit_size: int = field(default=64, metadata={"help": "Problems of the audit, drawn with the seed."})
    tests: bool = field(default=True, metadata={"help": "Run the tests of `problems` for their reward."})
    minimum_tests: int = field(default=1, metadata={"help": "Problems with fewer tests are left out."})
    instruct: bool = field(default=True, metadata={"help": "Ask for one program in a python block."})
    max_prompt_length: int = field(default=4096, metadata={"help": "Longer prompts are left out (tokens)."})
    gpus: int = field(default=1, metadata={"help": "Processes that the batch sizes were chosen for."})
    zero_stage: int = field(default=0, metadata={"help": "DeepSpeed ZeRO stage, for the estimate."})
    gpu_gb: float = field(default=80.0, metadata={"help": "Memory of a GPU in GB, for the estimate."})
    estimate: bool = field(default=False, metadata={"help": "Print the memory per GPU, train nothing."})
    prepare: str | None = field(default=None, metadata={"help": "Write the rows to this folder, train nothing."})


def row_of(text: str, key: str, prompt: str) -> dict[str, Any]:
    """A row of training: the prompt, and the problem alone, which is what the reward model reads."""
    return {"prompt": [{"role": "user", "content": prompt}], "problem": text, "problem_id": key}


def problem_rows(problems: Sequence[Problem], *, instruct: bool) -> list[dict[str, Any]]:
    """Rows of problems with tests."""
    return [row_of(problem.text, problem.id, prompt_for(problem, instruct=instruct)) for problem in problems]


def read(arguments: Arguments, seed: int) -> tuple[list[Problem], list[str], list[Problem]]:
    """Problems with tests, problem texts without, and the audit, from which nothing is trained on."""
    rng = Random(seed)
    held = distinct(problems_of([arguments.audit] if arguments.audit else []), "audit", without=set())
    held = rng.sample(held, min(arguments.audit_size, len(held)))
    kept_out = {problem.text for problem in held}
    given = distinct(problems_of(arguments.problems), "problem", without=kept_out)
    tested = [problem for problem in given if len(problem.tests) >= arguments.minimum_tests]
    known = kept_out | {problem.text for problem in given}
    texts = [text for path in paths(arguments.synthetic) for text in read_problem_texts(path)]
    bare = [text for text in dict.fromkeys(texts) if text not in known]
    if arguments.synthetic_size is not None:
        bare = rng.sample(bare, min(arguments.synthetic_size, len(bare)))
    few = len(given) - len(tested)
    print(json.dumps({"tested": len(tested), "too_few_tests": few, "without_tests": len(bare), "audit": len(held)}))
    if not tested and not bare:
        raise DataError("nothing to train on: give --problems, --synthetic or both")
    return tested, bare, held


def problems_of(patterns: Sequence[str]) -> list[Problem]:
    """The problems of all files."""
    return [problem for path in paths(patterns) for problem in read_problems(path)]


def distinct(problems: Sequence[Problem], source: str, *, without: set[str]) -> list[Problem]:
    """Each text once, numbered: files of one name have rows of one id."""
    found = {problem.text: problem for problem in problems if problem.text not in without}
    return [replace(problem, id=f"{source}/{number}") for number, problem in enumerate(found.values())]


def paths(patterns: Sequence[str]) -> list[str]:
    """Files and folders that match, in order; what matches nothing is left as it is, for it may be a hub id."""
    return [path for pattern in patterns for path in sorted(glob(pattern)) or [pattern]]  # noqa: PTH207


def fitting(rows: list[dict[str, Any]], model: str, longest: int) -> list[dict[str, Any]]:
    """The rows whose prompt has at most `longest` tokens; TRL itself has no such limit."""
    tokenizer = pretrained(AutoTokenizer, model)
    texts = [tokenizer.apply_chat_template(row["prompt"], tokenize=False, add_generation_prompt=True) for row in rows]
    lengths = [len(ids) for ids in tokenizer(texts, add_special_tokens=False)["input_ids"]]
    kept = [row for row, length in zip(rows, lengths, strict=True) if length <= longest]
    print(json.dumps({"rows": len(kept), "too_long": len(rows) - len(kept), "longest_prompt": max(lengths)}))
    if not kept:
        raise DataError(f"all {len(rows)} prompts are longer than max_prompt_length, {longest} tokens")
    return kept


def show_estimate(arguments: Arguments, config: GRPOConfig, model: ModelConfig) -> None:
    """The table, and its sums as the last line."""
    reward_model = CodeScalerConfig.from_env().model
    step = Step(
        gpus=arguments.gpus,
        zero_stage=arguments.zero_stage,
        float32=model.dtype == "float32",
        micro_batch=config.per_device_train_batch_size,
        prompt=arguments.max_prompt_length,
        completion=config.max_completion_length,
        vllm_share=config.vllm_gpu_memory_utilization if config.use_vllm and config.vllm_mode == "colocate" else 0.0,
        vllm_sleeps=config.vllm_enable_sleep_mode,
        gpu_gb=arguments.gpu_gb,
    )
    judge = None if "://" in reward_model else shape_of(reward_model)
    rows = estimate(shape_of(model.model_name_or_path), judge, step)
    Console(highlight=False).print(table(rows, step))
    print(json.dumps({phase: round(value, 1) for phase, value in rows["sum"].items()}))


def main() -> None:
    """Read the problems, put the rewards together, train under the monitor, save."""
    parser = TrlParser((Arguments, GRPOConfig, ModelConfig))
    given = sys.argv[1:]
    if "--estimate" in given:
        given += ["--use_cpu", "true"]  # an estimate for GPUs is made anywhere
    arguments, config, model = parser.parse_args_and_config(given)
    if arguments.estimate:
        show_estimate(arguments, config, model)
        return
    tested, bare, held = read(arguments, config.seed)
    ask = arguments.instruct
    rows = problem_rows(tested, instruct=ask)
    rows += [row_of(text, f"synthetic/{number}", prompt_of(text) if ask else text) for number, text in enumerate(bare)]
    if arguments.prepare:
        folder = Path(arguments.prepare)
        folder.mkdir(parents=True, exist_ok=True)
        kept = fitting(rows, model.model_name_or_path, arguments.max_prompt_length)
        lines = "".join(json.dumps(row) + "\n" for row in kept)
        write_text(folder / "train.jsonl", lines)
        return
    if config.world_size != arguments.gpus:
        raise ConfigError(
            f"{config.world_size} processes, but the batch sizes are for {arguments.gpus}: launch as many, or scale "
            "gradient_accumulation_steps and steps_per_generation and set gpus"
        )
    rows = fitting(rows, model.model_name_or_path, arguments.max_prompt_length)
    if model.dtype not in (None, "auto"):
        config.model_init_kwargs = {"dtype": model.dtype, **(config.model_init_kwargs or {})}
    judge = CodeScalerReward(problem_column="problem")
    rewards: list[Any] = [judge]
    if arguments.tests and tested:
        tests = CodeScalerTestsReward(tested, problem_column="problem")
        rewards = [tests.elsewhere(judge), tests]
    trainer = GRPOTrainer(
        model=model.model_name_or_path,
        reward_funcs=rewards,
        args=config,
        train_dataset=Dataset.from_list(rows),
        eval_dataset=Dataset.from_list(problem_rows(held, instruct=ask)) if held else None,
        callbacks=[RewardHackingMonitor(judge, held)],
        peft_config=get_peft_config(model),
    )
    trainer.train(resume_from_checkpoint=config.resume_from_checkpoint)
    trainer.save_model(config.output_dir)
    if config.push_to_hub:
        trainer.push_to_hub()


if __name__ == "__main__":
    try:
        main()
    except CodeScalerError as error:
        sys.exit(f"error: {error}")
