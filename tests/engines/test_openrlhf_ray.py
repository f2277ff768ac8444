"""One rollout of OpenRLHF 0.11.2 on a real Ray of 2 CPUs: its dataset, its engines (two `RolloutRayActor`), its
`SamplesGenerator` and its `RemoteExperienceMaker`, by the flags of the recipe. Stood in for: the policy's
log-probabilities, and what only a GPU has: vLLM (`scripted/vllm.py`), deepspeed and the rest of
`tests/contract/openrlhf_stubs.py`. `tests/engines/install_openrlhf.sh` makes the environment.
"""

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoTokenizer

from codescaler_plugin import CodeScaler, CodeScalerConfig
from tests.contract.test_openrlhf import (
    POLICY,
    flags_of,
    run,
    server,  # noqa: F401 - a fixture
)
from tests.samples import fenced

pytestmark = [
    pytest.mark.engine,
    pytest.mark.timeout(900),
    pytest.mark.skipif("OPENRLHF_PYTHON" not in os.environ, reason="OPENRLHF_PYTHON names no Python with OpenRLHF"),
]
SCRIPTED = Path(__file__).with_name("scripted")
ENGINES = 2
SAMPLES = 2  # of a prompt
BATCH = 4  # of two prompts of different lengths, so that rows are padded
ANSWERS = {
    "Write solve(n) that returns n + 1.": (fenced("def solve(n):\n    return n + 1"), "I cannot."),
    "Write solve(xs): for a list xs of integers, return the sum.": (
        fenced("def solve(xs):\n    return sum(xs)"),
        fenced("def solve(xs):\n    return 0"),
    ),
    "Write solve(s) that returns the string s reversed.": (
        fenced("def solve(s):\n    return s[::-1]"),
        fenced("def solve(s):\n    return s"),
    ),
    "Write solve(n) that returns whether n is even.": (
        fenced("def solve(n):\n    return n % 2 == 0"),
        fenced("def solve(n):\n    return n ="),
    ),
}  # fmt: skip
INVALID = ["I cannot.", fenced("def solve(n):\n    return n =")]
FLAGS = (
    *("--vllm.num_engines", str(ENGINES), "--actor.num_gpus_per_node", "1", "--data.label_key", "label"),
    *("--rollout.batch_size", str(len(ANSWERS)), "--rollout.n_samples_per_prompt", str(SAMPLES)),
    *("--rollout.micro_batch_size", str(BATCH)),
)


@pytest.mark.parametrize("way", ["server", "file", "agent"])
def test_rollout_has_the_rewards_of_direct_scoring(server: str, tmp_path: Path, way: str) -> None:  # noqa: F811
    """By the server; by the file with a model in each engine; by the agent as a client of the server."""
    tokenizer = AutoTokenizer.from_pretrained(POLICY)
    rows, script, problems = tmp_path / "prompts.jsonl", tmp_path / "answers.json", {}
    for problem in ANSWERS:
        turns = [{"role": "user", "content": problem}]
        problems[tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)] = problem
    labels = ["", json.dumps({"problem": list(ANSWERS)[1]}), "7", ""]
    rows.write_text(
        "".join(
            json.dumps({"problem": problem, "label": label}) + "\n"
            for problem, label in zip(ANSWERS, labels, strict=True)
        )
    )
    script.write_text(json.dumps({prompt: ANSWERS[problem] for prompt, problem in problems.items()}))
    url = f"{server}/get_reward"
    settings = {"server": {}, "file": {"CODESCALER_MODEL": "builtin"}, "agent": {"CODESCALER_MODEL": server}}[way]
    flags = flags_of(
        "train_ppo.sh", tmp_path, *FLAGS, URL=url, REWARD=way, POLICY=str(POLICY), PROMPTS=str(rows), **settings
    )
    job = tmp_path / "job.json"
    job.write_text(json.dumps({"flags": flags}))
    output = run(
        [SCRIPTED], "ray", str(job), python=os.environ["OPENRLHF_PYTHON"], VLLM_ANSWERS=str(script),
        RAY_USAGE_STATS_ENABLED="0", RAY_worker_niceness="0", **settings,
    )  # fmt: skip
    batches = json.loads(output.strip().splitlines()[-1])

    samples = [
        {"problem": problems[prompt], "answer": answer.removesuffix(tokenizer.eos_token), "reward": reward}
        for batch in batches
        for prompt, answer, reward in zip(batch["prompts"], batch["answers"], batch["rewards"], strict=True)
    ]
    assert sorted((one["problem"], one["answer"]) for one in samples) == sorted(
        (problem, answer) for problem, answers in ANSWERS.items() for answer in answers
    )
    direct = CodeScaler(config=CodeScalerConfig(model="builtin")).judge(
        [one["problem"] for one in samples], [one["answer"] for one in samples]
    )
    invalid = [one["answer"] for one, judgement in zip(samples, direct, strict=True) if judgement.score is None]
    assert sorted(invalid) == sorted(INVALID)
    rewards = [judgement.reward for judgement in direct]
    assert [one["reward"] for one in samples] == pytest.approx(rewards, rel=1e-4)
    scores = [0.0 if one.score is None else torch.tensor(one.score).sigmoid().item() for one in direct]
    assert joined(batches, "scores") == pytest.approx(scores, rel=1e-4)

    assert [batch["shape"] for batch in batches] == [[BATCH, 1] if way == "server" else [BATCH]] * 2
    groups = torch.tensor(rewards).reshape(-1, SAMPLES)  # a prompt's samples stand together
    assert all(samples[place]["problem"] == samples[place + 1]["problem"] for place in range(0, len(samples), SAMPLES))
    normed = ((groups - groups.mean(-1, keepdim=True)) / (groups.std(-1, keepdim=True) + 1e-9)).flatten().tolist()
    for name in ("advantages", "returns"):
        for row, mask, advantage in zip(joined(batches, name), joined(batches, "mask"), normed, strict=True):
            assert sum(mask) > 0
            of_answer = [value for value, on in zip(row, mask, strict=True) if on]
            assert of_answer == pytest.approx([advantage] * sum(mask), rel=1e-3)
    assert [value for batch in batches for value in batch["logged"]["reward"]] == pytest.approx(rewards, rel=1e-4)
    if way != "server":
        assert [value for batch in batches for value in batch["logged"]["codescaler_fallback"]] == [0.0] * len(samples)


def joined(batches: list[dict[str, Any]], name: str) -> list[Any]:
    return [row for batch in batches for row in batch[name]]
