"""Runs the code of one OpenRLHF release; the release's folder is first on PYTHONPATH. Last line of stdout: JSON.

python openrlhf_host.py parse MODULE FLAG...       the release's own parser and its checks
python openrlhf_host.py reward RELEASE JOB         rewards through the client and the experience maker of the
                                                   release; JOB is a JSON file, its `ways` are URLs, a .py file, or
                                                   `agent FILE`
python openrlhf_host.py prompts TOKENIZER FLAG...  [prompt, label] of each row that FLAGs name, by the release's dataset
python openrlhf_host.py ray JOB                    one rollout of 0.11.2 on a real Ray, with the engines and the dataset
                                                   that JOB's flags describe; vLLM is what PYTHONPATH has
"""

import asyncio
import inspect
import json
import os
import runpy
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import MagicMock

sys.path.insert(0, str(Path(__file__).parent))
import openrlhf_stubs

openrlhf_stubs.install(real=("ray", "vllm") if sys.argv[1:2] == ["ray"] else ())

import torch  # noqa: E402


class Parsed(BaseException):
    """Raised in the place of training."""

    def __init__(self, args: Any) -> None:
        self.args_ = args


def parse(module: str, flags: list[str]) -> Any:
    """What the release makes of the flags, after all its checks."""
    import openrlhf.utils

    def reached(args: Any) -> None:
        raise Parsed(args)

    openrlhf.utils.get_strategy = reached
    sys.argv = [module, *flags]
    try:
        runpy.run_module(module, run_name="__main__")
    except Parsed as parsed:
        return parsed.args_
    raise RuntimeError(f"{module} came to its end without training")


class Engine:
    """Generates the given answers, one per call, ended by EOS as vLLM does."""

    def __init__(self, tokenizer: Any, answers: dict[str, list[str]]) -> None:
        self.tokenizer = tokenizer
        self.answers = {prompt: iter(texts) for prompt, texts in answers.items()}

    async def generate(self, prompt_token_ids: list[int], sampling_params: Any, **_: Any) -> Any:
        text = next(self.answers[self.tokenizer.decode(prompt_token_ids, skip_special_tokens=False)])
        ids = self.tokenizer(text, add_special_tokens=False)["input_ids"] + [self.tokenizer.eos_token_id]
        one = SimpleNamespace(token_ids=ids, text=text, finish_reason="stop", logprobs=None)
        return SimpleNamespace(outputs=[one])


def by_samples(way: list[str], job: dict[str, Any], tokenizer: Any, args: Any) -> dict[str, Any]:
    """0.9.1 and later: an executor in each engine, then the generator and the experience maker."""
    import openrlhf.trainer.ppo_utils.experience_maker as maker_module
    from openrlhf.trainer.ray.vllm_engine import _load_agent_executor
    from openrlhf.utils.agent import SingleTurnAgentExecutor

    try:
        from openrlhf.trainer.ppo_utils.samples_generator import SamplesGenerator
    except ImportError:
        SamplesGenerator = maker_module.SamplesGenerator
    executor = _load_agent_executor(way[1]) if way[0] == "agent" else SingleTurnAgentExecutor(way[0].split(","))
    answers: dict[str, list[str]] = {}
    for prompt, answer in zip(job["prompts"], job["answers"], strict=True):
        answers.setdefault(prompt, []).append(answer)
    engine = Engine(tokenizer, answers)
    sampling = SimpleNamespace(max_tokens=512, logprobs=None)

    async def run() -> list[Any]:
        return await asyncio.gather(
            *(
                executor.execute(
                    prompt=prompt, label=label, sampling_params=sampling, max_length=2048, hf_tokenizer=tokenizer,
                    llm_engine=engine,
                )
                for prompt, label in zip(job["prompts"], job["labels"], strict=True)
            )
        )  # fmt: skip

    outputs = asyncio.run(run())
    strategy = SimpleNamespace(args=args)
    generator = SamplesGenerator.__new__(SamplesGenerator)
    experiences = [
        generator._process_response_into_experience(output, max_len=2048, prompt_max_len=1024, max_new_tokens=1024)
        for output in outputs
    ]
    maker = maker_module.RemoteExperienceMaker(None, None, None, None, SimpleNamespace(value=0.0), strategy, tokenizer)
    batches = maker.split_rollout_samples(experiences)
    for batch in batches:
        batch.kl = torch.zeros_like(batch.action_mask, dtype=torch.float32)
    logs = [log for output in outputs for log in [output["extra_logs"]]]
    made = maker.compute_advantages_and_returns(batches)
    return {
        "rewards": torch.cat([one.rewards.flatten() for one in experiences]).tolist(),
        "scores": torch.cat([one.scores.flatten() for one in experiences]).tolist(),
        "logs": sorted({name for log in logs for name in log}),
        "advantages": [
            float(row[mask.bool()].mean())
            for one in made
            for row, mask in zip(one.advantages, one.action_mask, strict=True)
        ],
    }


def by_batches_8(way: list[str], job: dict[str, Any], tokenizer: Any, args: Any) -> dict[str, Any]:
    """0.8: an actor with the whole batch, and its merge into samples."""
    del tokenizer
    from openrlhf.trainer.ppo_utils.experience_maker import Experience, update_samples_with_rewards
    from openrlhf.utils.remote_rm_utils import RemoteRewardModel

    model = RemoteRewardModel.remote(args, way[0].split(","))
    info = model.get_rewards.remote(job["queries"], job["prompts"], job["labels"])
    samples = [Experience(sequences=torch.zeros(2, 4)) for _ in range(len(job["queries"]) // 2)]
    for sample in samples:
        sample.info = {}  # the constructor takes no empty one
    update_samples_with_rewards(info, samples)
    return {
        "rewards": torch.cat([one.rewards for one in samples]).tolist(),
        "scores": torch.cat([one.scores for one in samples]).tolist(),
        "logs": sorted(set(samples[0].info) - {"reward", "score"}),
    }


def by_batches_7(way: list[str], job: dict[str, Any], tokenizer: Any, args: Any) -> dict[str, Any]:
    """0.7: the experience maker asks for all at once."""
    from openrlhf.trainer.ppo_utils.experience_maker import RemoteExperienceMaker, Samples

    ids = [tokenizer(query, add_special_tokens=False, return_tensors="pt")["input_ids"] for query in job["queries"]]
    known = list(inspect.signature(Samples).parameters)
    samples = [
        Samples(**{
            name: value
            for name, value in {
                "sequences": row, "attention_mask": torch.ones_like(row), "action_mask": torch.ones_like(row[:, 1:]),
                "response_length": torch.ones(1), "total_length": torch.ones(1), "prompts": [prompt],
                "labels": [label],
            }.items()
            if name in known
        })
        for row, prompt, label in zip(ids, job["prompts"], job["labels"], strict=True)
    ]  # fmt: skip
    actor = MagicMock()
    actor.async_run_method_batch.return_value = [[torch.zeros(1, row.shape[1] - 1)] for row in ids]
    maker = RemoteExperienceMaker(
        actor, None, None, None, tokenizer, 1024, MagicMock(value=0.0), SimpleNamespace(args=args), way[0].split(",")
    )
    made = maker.make_experience(samples)
    return {"rewards": torch.cat([one.info["reward"] for one in made]).tolist()}


def by_batches_5(way: list[str], job: dict[str, Any], tokenizer: Any, args: Any) -> dict[str, Any]:
    """0.5: the experience maker asks for a micro batch."""
    from openrlhf.trainer.ppo_utils.experience_maker import NaiveExperienceMaker, Samples

    target = way[0].split(",")
    made = []
    for query, prompt in zip(job["queries"], job["prompts"], strict=True):
        row = tokenizer(query, add_special_tokens=False, return_tensors="pt")["input_ids"]
        log_probs = torch.zeros(1, row.shape[1] - 1)
        model = MagicMock(return_value=log_probs)
        maker = NaiveExperienceMaker(
            model, None, None, model, tokenizer, 1024, MagicMock(), SimpleNamespace(args=args),
            target if target[0].endswith(".py") else target[0], None,
        )  # fmt: skip
        sample = Samples(
            row, torch.ones_like(row), torch.ones_like(row[:, 1:]), row.shape[1] - 1, None, torch.ones(1),
            torch.ones(1), [prompt],
        )  # fmt: skip
        made.append(maker.make_experience(sample))
    return {"rewards": torch.cat([one.info["reward"] for one in made]).tolist()}


def by_ray(job: dict[str, Any]) -> list[dict[str, Any]]:
    """One entry per micro batch of a rollout, made as `PPOTrainer` makes it, with log-probabilities of 0 for a policy.

    Logical GPUs and one CPU each are what `create_vllm_engines` asks for.
    """
    import ray

    engines = 2
    variables = {
        name: text for name, text in os.environ.items() if name.startswith(("CODESCALER_", "VLLM_", "PYTHON"))
    }
    ray.init(
        num_cpus=engines, num_gpus=engines, include_dashboard=False, object_store_memory=100_000_000,
        runtime_env={"env_vars": variables},
    )  # fmt: skip
    args = parse("openrlhf.cli.train_ppo_ray", job["flags"])
    from openrlhf.trainer.ppo_trainer import prepare_datasets
    from openrlhf.trainer.ppo_utils.experience_maker import RemoteExperienceMaker
    from openrlhf.trainer.ppo_utils.kl_controller import FixedKLController
    from openrlhf.trainer.ppo_utils.samples_generator import SamplesGenerator
    from openrlhf.trainer.ray import create_vllm_engines
    from openrlhf.utils import get_tokenizer
    from torch.utils.data import DataLoader

    policy = args.actor.model_name_or_path
    tokenizer = get_tokenizer(policy, None)
    strategy = SimpleNamespace(
        args=args, print=print, is_rank_0=lambda: True,
        setup_dataloader=lambda rows, size, pin, shuffle, collate, **_: DataLoader(rows, size, collate_fn=collate),
    )  # fmt: skip
    prompts, _, _ = prepare_datasets(strategy, tokenizer)
    workers = create_vllm_engines(
        args.vllm.num_engines, args.vllm.tensor_parallel_size, policy, args.train.seed, False,
        args.vllm.enable_prefix_caching, args.vllm.enforce_eager, args.data.max_len,
        agent_func_path=args.train.agent_func_path, remote_rm_url=args.reward.remote_url,
    )  # fmt: skip
    assert len(workers) == engines
    samples, *_ = SamplesGenerator(strategy, prompts, None, tokenizer, workers).generate_samples(
        max_len=args.data.max_len, max_new_tokens=args.rollout.max_new_tokens, temperature=args.rollout.temperature,
        top_p=args.rollout.top_p,
    )  # fmt: skip
    actor = SimpleNamespace(
        async_run_method_batch=lambda action_mask, **_: [ray.put([torch.zeros(mask.shape) for mask in action_mask])],
        async_run_method=lambda **_: [ray.put(None)],
    )
    controller = FixedKLController(args.algo.kl.init_coef)
    maker = RemoteExperienceMaker(actor, None, None, None, controller, strategy, tokenizer)
    made = [
        {
            "prompts": batch.prompts,
            "answers": [
                tokenizer.decode(row[1:][mask.bool()])
                for row, mask in zip(batch.sequences, batch.action_mask, strict=True)
            ],
            "shape": list(batch.rewards.shape),
            "rewards": batch.rewards.flatten().tolist(),
            "scores": batch.scores.flatten().tolist(),
            "logged": {name: value.float().flatten().tolist() for name, value in batch.info.items()},
            "mask": batch.action_mask.long().tolist(),
            "advantages": batch.advantages.tolist(),
            "returns": batch.returns.tolist(),
        }
        for batch in maker.make_experience_batch(samples)
    ]
    ray.shutdown()
    return made


def prompts(tokenizer: str, flags: list[str]) -> list[list[str]]:
    """Prompts and labels as the release hands them to its engines."""
    from transformers import AutoTokenizer

    args = parse("openrlhf.cli.train_ppo_ray", flags)
    from openrlhf.datasets import PromptDataset
    from openrlhf.datasets.utils import blending_datasets

    is_dotted = hasattr(args, "data")
    strategy = SimpleNamespace(args=args, print=print, is_rank_0=lambda: True)
    rows = blending_datasets(
        args.data.prompt_dataset if is_dotted else args.prompt_data, None, strategy, 42, max_count=1000,
        dataset_split=args.data.prompt_split if is_dotted else args.prompt_split,
    )  # fmt: skip
    template = args.data.input_template if is_dotted else args.input_template
    read = PromptDataset(rows, AutoTokenizer.from_pretrained(tokenizer), strategy, input_template=template)
    return [list(read[place][1:3]) for place in range(len(read))]


def dataset(file: str, model: str, flags: list[str]) -> list[list[int]]:
    """Token ids of the chosen sides as train_rm reads them."""
    from datasets import load_dataset
    from transformers import AutoTokenizer

    args = parse("openrlhf.cli.train_rm", flags)
    from openrlhf.datasets import RewardDataset

    rows = load_dataset("json", data_files=file, split="train")
    tokenizer = AutoTokenizer.from_pretrained(model)
    read = RewardDataset(rows, tokenizer, args.data.max_len, SimpleNamespace(args=args), num_processors=None)
    return [read[place][0][0].tolist() for place in range(len(read))]


def save(model: str, folder: str, head: str) -> list[float]:
    """A checkpoint as train_rm saves it, after an evaluation; returns what the host scores with it."""
    from openrlhf.models.model import _get_reward_model
    from transformers import AutoConfig, AutoTokenizer, Qwen3Model, Qwen3PreTrainedModel

    config = AutoConfig.from_pretrained(model)
    config.num_labels = 2  # as that of a language model: transformers leaves the number out of the file
    kind = _get_reward_model(Qwen3PreTrainedModel, Qwen3Model, head)
    config.normalize_reward = False
    torch.manual_seed(0)
    made = kind(config).eval()
    for name, weight in made.named_parameters():
        if weight.dim() > 1 and "embed" not in name:
            torch.nn.init.normal_(weight, std=0.3)
    tokenizer = AutoTokenizer.from_pretrained(model)
    texts = [
        tokenizer.apply_chat_template(
            [{"role": "user", "content": problem}, {"role": "assistant", "content": code}], tokenize=False
        ).rstrip("\n")
        for problem, code in (("One.", "x = 1\n"), ("Two.", "y = 2\n"))
    ]
    scores = []
    for text in texts:
        row = tokenizer(text, add_special_tokens=False, return_tensors="pt")
        assert row["input_ids"][0, -1] == tokenizer.eos_token_id
        with torch.no_grad():
            scores.append(made(row["input_ids"], attention_mask=row["attention_mask"]).item())
    made.config.value_head_prefix = head
    made.config.mean, made.config.std = 1.5, 2.0
    made.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return scores


def main() -> None:
    if sys.argv[1] == "parse":
        args = parse(sys.argv[2], sys.argv[3:])
        sys.stdout.write(json.dumps({"args": str(args)}))
        return
    if sys.argv[1] == "ray":
        batches = by_ray(json.loads(Path(sys.argv[2]).read_text()))
        sys.stdout.write(f"\n{json.dumps(batches)}\n")
        return
    if sys.argv[1] == "prompts":
        sys.stdout.write(f"\n{json.dumps(prompts(sys.argv[2], sys.argv[3:]))}\n")
        return
    if sys.argv[1] == "dataset":
        made = dataset(sys.argv[2], sys.argv[3], sys.argv[4:])
        sys.stdout.write(f"\n{json.dumps(made)}\n")
        return
    if sys.argv[1] == "save":
        saved = save(sys.argv[2], sys.argv[3], sys.argv[4])
        sys.stdout.write(f"\n{json.dumps(saved)}\n")
        return
    from transformers import AutoTokenizer

    release, job = sys.argv[2], json.loads(Path(sys.argv[3]).read_text())
    tokenizer = AutoTokenizer.from_pretrained(job["tokenizer"])
    args = parse("openrlhf.cli.train_ppo_ray", job["flags"])
    run: Any = {"0.5": by_batches_5, "0.7": by_batches_7, "0.8": by_batches_8}.get(
        release.rpartition(".")[0], by_samples
    )
    rewards = [run(way.split(" "), job, tokenizer, args) for way in job["ways"]]
    sys.stdout.write(f"\n{json.dumps(rewards)}\n")


if __name__ == "__main__":
    main()
