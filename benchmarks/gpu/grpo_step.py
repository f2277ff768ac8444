"""The share of a GRPO step that the reward takes: this package's reward, and TRL's own way with the same model.

    python benchmarks/gpu/grpo_step.py [--device cuda] [--tiny] [--output FILE]

Real steps of TRL's `GRPOTrainer`, each with one prompt of about 480 tokens and 16 completions of 216: a policy in the
shape of Qwen3-0.6B generates them with transformers' `generate` and is trained, a reward model in the shape of
Qwen3-1.7B scores them. Both are in bfloat16 with random weights, which changes no time. Random text holds no program,
and a reward for it would be free; so the reward gets valid programs of about as many tokens, all different and fenced,
in place of the policy's completions. The policy is trained on its own completions with those rewards.

In every step the reward is asked in two ways, in turns: `ours` is `CodeScalerReward` (finding the code, rendering,
tokenising, scoring with shared prefixes), `trl` the model itself in `reward_funcs` (rendering, tokenising, one padded
forward pass over the group; it scores the whole answer, fence and all). Each share is of a step with that way alone:
the other's seconds are taken out. With an engine for generation, vLLM say, a step is shorter and the share larger:
`share_without_generation` is its upper end.

The tokenizer is that of the embedded models. Its vocabulary is small, so texts are as long as the counts of tokens
ask for; the models have the true vocabulary.
"""

import logging
from contextlib import ExitStack
from random import Random
from statistics import median
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Any

import torch
from common import arguments, dtype_of, random_model, record, wait
from datasets import Dataset
from transformers import AutoTokenizer, TrainerCallback
from trl import GRPOConfig, GRPOTrainer

from codescaler_plugin.builtin import POLICY
from codescaler_plugin.integrations.trl.reward import CodeScalerReward
from codescaler_plugin.pretrained import pretrained
from codescaler_plugin.scoring.transformers_scorer import TransformersScorer

GROUP, PROMPT, COMPLETION = 16, 480, 216
STEPS, SECONDS = 3, 40.0  # after one that warms up; beyond that time no other begins
OPERATIONS = ("+", "-", "*", "//", "%", "&", "|", "^")


def line_of(rng: Random) -> str:
    """A statement of a program."""
    one, other, number = rng.choice("abcdef"), rng.choice("abcdef"), rng.randint(1, 999)
    return rng.choice(
        [
            f"    {one} = {other} {rng.choice(OPERATIONS)} {number}\n",
            f"    if {one} > {number}:\n        {other} = {one} - {number}\n",
            f"    for i in range({number}):\n        {one} += i {rng.choice(OPERATIONS)} {number}\n",
            f"    {one} = max({one}, {other}, {number})\n",
        ]
    )


def program(words: Any, tokens: int, rng: Random) -> str:
    """A valid program of about as many tokens."""
    code = "def solve(n):\n    a = b = c = d = e = f = n\n"
    tail = "    return a + b + c + d + e + f\n"
    while True:
        line = line_of(rng)
        if len(words(code + line + tail)["input_ids"]) > tokens:
            return code + tail
        code += line


def problem(words: Any, tokens: int, rng: Random) -> str:
    """A problem of about as many tokens."""
    text = "Write solve(n)."
    while True:
        more = f" If n is greater than {rng.randint(1, 999)}, then add {rng.randint(1, 999)} to the number."
        if len(words(text + more)["input_ids"]) > tokens:
            return text
        text += more


class Timed(GRPOTrainer):  # type: ignore[misc]
    """The trainer with the reward asked in both ways, each timed, for programs in place of completions."""

    reward_funcs: list[Any]
    reward_processing_classes: list[Any]
    reward_func_names: list[str]

    def prepare(self, device: str, answers: list[str]) -> None:
        """Where to wait, and what the reward gets."""
        self.where, self.answers = device, iter(answers)
        self.seconds: dict[str, list[float]] = {"step": [], "generation": [], "ours": [], "trl": []}
        self.lengths: list[int] = []
        self.both = list(zip(self.reward_funcs, self.reward_processing_classes, self.reward_func_names, strict=True))

    def _generate_single_turn(self, *args: Any, **keywords: Any) -> Any:
        wait(self.where)
        started = perf_counter()
        result = super()._generate_single_turn(*args, **keywords)
        wait(self.where)
        self.seconds["generation"].append(perf_counter() - started)
        self.lengths += map(len, result[0])
        return result

    def _calculate_rewards(self, inputs: Any, prompts: Any, completions: Any, completion_ids_list: Any) -> Any:
        written = [[{"role": "assistant", "content": next(self.answers)}] for _ in completions]
        found = {}
        order = ("ours", "trl") if len(self.seconds["ours"]) % 2 == 0 else ("trl", "ours")
        for name in order:
            one = self.both[0 if name == "ours" else 1]
            self.reward_funcs, self.reward_processing_classes, self.reward_func_names = ([part] for part in one)
            wait(self.where)
            started = perf_counter()
            found[name] = super()._calculate_rewards(inputs, prompts, written, completion_ids_list)
            wait(self.where)
            self.seconds[name].append(perf_counter() - started)
        self.reward_funcs, self.reward_processing_classes, self.reward_func_names = map(
            list, zip(*self.both, strict=True)
        )
        return torch.cat([found["ours"], found["trl"]], dim=1)


class Steps(TrainerCallback):  # type: ignore[misc]
    """Times each step, from its batch to the new weights, and ends a training that takes too long."""

    def __init__(self, trainer: Timed) -> None:
        self.trainer = trainer
        self.begun = perf_counter()

    def on_step_begin(self, *_: Any, **__: Any) -> None:
        """Start the clock."""
        wait(self.trainer.where)
        self.started = perf_counter()

    def on_step_end(self, _: Any, state: Any, control: Any, **__: Any) -> Any:
        """Stop it."""
        wait(self.trainer.where)
        self.trainer.seconds["step"].append(perf_counter() - self.started)
        if state.global_step > 1:
            control.should_training_stop |= perf_counter() - self.begun > SECONDS
        return control


def main() -> None:
    """Train, then a line."""
    options = arguments(__doc__)
    logging.basicConfig(level=logging.WARNING)
    cpu = options.device == "cpu"
    if cpu:
        torch.set_num_threads(1)  # of small products, two threads on a busy machine make one wait for the other
    group, prompt, completion = (4, 96, 64) if options.tiny else (GROUP, PROMPT, COMPLETION)
    sizes = ("tiny", "tiny") if options.tiny else ("0.6B", "1.7B")
    words = pretrained(AutoTokenizer, POLICY)
    vocabulary = len(words) if options.tiny else 0
    policy = random_model(sizes[0], options.device, causal=True, vocabulary=vocabulary)
    model = random_model(sizes[1], options.device, vocabulary=vocabulary)
    scorer = TransformersScorer(model, tokenizer=words)
    reward = CodeScalerReward(scorer=scorer, name="ours")
    rng = Random(0)
    turns = [[{"role": "user", "content": problem(words, prompt, rng)}] for _ in range(STEPS + 1)]
    codes = [program(words, completion, rng) for _ in range(group * (STEPS + 1))]
    padded: list[int] = []  # tokens of TRL's forward passes; ours calls what is inside the model
    model.register_forward_pre_hook(lambda _, __, inputs: padded.append(inputs["input_ids"].numel()), with_kwargs=True)
    with ExitStack() as stack:
        trainer = Timed(
            model=policy,
            reward_funcs=[reward, model],
            reward_processing_classes=[None, words],
            processing_class=pretrained(AutoTokenizer, POLICY, padding_side="left"),
            train_dataset=Dataset.from_dict({"prompt": turns}),
            args=GRPOConfig(
                output_dir=stack.enter_context(TemporaryDirectory()),
                use_cpu=cpu,
                bf16=not cpu,
                per_device_train_batch_size=group,
                num_generations=group,
                max_completion_length=completion,
                generation_kwargs={"min_new_tokens": completion},
                reward_weights=[1.0, 0.0],
                max_steps=STEPS + 1,
                learning_rate=1e-6,
                use_vllm=False,
                save_strategy="no",
                report_to="none",
                disable_tqdm=True,
            ),
        )
        trainer.prepare(options.device, [f"```python\n{code}```" for code in codes])
        trainer.add_callback(Steps(trainer))
        if not cpu:
            torch.cuda.reset_peak_memory_stats()
        trainer.train()
    seconds = {name: values[1:] for name, values in trainer.seconds.items()}
    ways: dict[str, Any] = {}
    for name, other in (("ours", "trl"), ("trl", "ours")):
        alone = [step - out for step, out in zip(seconds["step"], seconds[other], strict=True)]
        rest = [step - made for step, made in zip(alone, seconds["generation"], strict=True)]
        ways[name] = {
            "reward_seconds": round(median(seconds[name]), 4),
            "step_seconds": round(median(alone), 4),
            "share": round(median(call / step for call, step in zip(seconds[name], alone, strict=True)), 4),
            "share_without_generation": round(
                median(call / step for call, step in zip(seconds[name], rest, strict=True)), 4
            ),
        }
    stats = scorer.stats
    assert scorer.shares_prefixes is not None
    record(
        options.output,
        "grpo_step",
        model,
        sizes={"policy": sizes[0], "reward_model": sizes[1]},
        dtypes={
            "policy": str(dtype_of(options.device)).removeprefix("torch."),
            "products": "bf16" if not cpu else "fp32",
        },
        group=group,
        steps=len(seconds["step"]),
        ways=ways,
        trl_by_ours=round(median(out / own for out, own in zip(seconds["trl"], seconds["ours"], strict=True)), 3),
        generation_seconds=round(median(seconds["generation"]), 4),
        seconds={name: [round(value, 4) for value in values] for name, values in trainer.seconds.items()},
        first_step="in `seconds` alone: it warms up",
        generation="transformers generate",
        gradient_checkpointing=trainer.args.gradient_checkpointing,
        tokens={
            "prompt": len(words.apply_chat_template(turns[0], add_generation_prompt=True)["input_ids"]),
            "generated_least": min(trainer.lengths),
            "generated_most": max(trainer.lengths),
            "program": round(sum(len(words(code)["input_ids"]) for code in codes) / len(codes), 1),
            "a_sample_of_ours": round(stats.real_tokens / max(1, stats.unique - stats.cache_hits), 1),
            "a_group_computed_by_ours": round(stats.computed_tokens / len(padded)),
            "a_group_computed_by_trl": round(sum(padded) / len(padded)),
        },
        different_programs=len(set(codes)),
        programs_scored_by_ours=stats.items - stats.unscorable,
        scores_known_before=stats.cache_hits,
        prefixes_are_shared=scorer.shares_prefixes,
        peak_memory_gb=None if cpu else round(torch.cuda.max_memory_allocated() / 1e9, 2),
    )


if __name__ == "__main__":
    main()
