"""The real trainers of TRL, on a CPU, with models of some kilobytes."""

import json
import math
import shutil
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset

trl = pytest.importorskip("trl")

import pandas as pd  # noqa: E402 - comes with trl
from trl import GRPOConfig, GRPOTrainer, RLOOConfig, RLOOTrainer  # noqa: E402

from codescaler_plugin import (  # noqa: E402
    CodeScalerReward,
    ScorerError,
    Status,
    load_scorer,
    shape_reward,
)
from codescaler_plugin.testing import FakeScorer  # noqa: E402
from tests.processes import untraced  # noqa: E402
from tests.samples import fenced  # noqa: E402

ROOT = Path(__file__).parents[2]
SETTINGS: dict[str, Any] = {
    "use_cpu": True,
    "bf16": False,
    "gradient_checkpointing": False,
    "report_to": "none",
    "max_completion_length": 8,
    "disable_tqdm": True,
    "save_strategy": "no",
    "logging_steps": 1,
    "max_steps": 1,
    "per_device_train_batch_size": 4,
    "num_generations": 4,
}
CODES = ["x = 1", "xx = 1", "xxx = 1", "xxxx = 1"]
STANDARD = {"prompt": ["Write one.", "Write two."]}
CONVERSATIONAL = {
    "prompt": [
        [{"role": "system", "content": "You write Python."}, {"role": "user", "content": f"Write {number}."}]
        for number in ("one", "two")
    ],
    "statement": ["The first problem.", "The second problem."],
    "tests": [[[1, 1]], [[2, 2]]],
    "task_id": [1, 2],
}


class Ghostwriter:
    """A reward around a reward: hands in programs instead of what a random policy writes."""

    def __init__(self, reward: CodeScalerReward) -> None:
        self.reward, self.__name__ = reward, reward.__name__
        self.calls: list[dict[str, Any]] = []
        self.rewards: list[list[float | None]] = []

    def __call__(self, prompts: Any, completions: Any, **columns: Any) -> list[float | None]:
        self.calls.append({"prompts": prompts, "completions": completions, **columns})
        texts: list[Any] = [fenced(CODES[number % 4]) for number in range(len(completions))]
        if not isinstance(completions[0], str):
            texts = [[{"role": "assistant", "content": text}] for text in texts]
        self.rewards.append(self.reward(prompts, texts, **columns))
        return self.rewards[-1]


def train(kind: str, policy: Path, folder: Path, rewards: list[Any], data: dict[str, Any], **settings: Any) -> Any:
    trainer_class, config_class = {"grpo": (GRPOTrainer, GRPOConfig), "rloo": (RLOOTrainer, RLOOConfig)}[kind]
    trainer = trainer_class(
        str(policy),
        reward_funcs=rewards,
        args=config_class(output_dir=str(folder), **{**SETTINGS, **settings}),
        train_dataset=Dataset.from_dict(data),
    )
    trainer.train()
    return trainer


def step(trainer: Any) -> dict[str, float]:
    """The log of the only step."""
    first: dict[str, float]
    first, *_ = trainer.state.log_history
    return first


@pytest.mark.parametrize("data", [STANDARD, CONVERSATIONAL], ids=["standard", "conversational"])
@pytest.mark.parametrize("kind", ["grpo", "rloo"])
def test_one_step_with_the_model_as_the_reward(
    tiny_policy_dir: Path, tiny_rm_dir: Path, tmp_path: Path, kind: str, data: dict[str, Any]
) -> None:
    trainer = train(kind, tiny_policy_dir, tmp_path, [CodeScalerReward(model=str(tiny_rm_dir))], data)
    log = step(trainer)
    assert log["rewards/codescaler_reward/mean"] == log["reward"] == 0.0
    assert log["codescaler_reward/status/no_block"] == 1.0
    assert math.isfinite(log["loss"])


@pytest.fixture(scope="module")
def run(tiny_policy_dir: Path, tiny_rm_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """One GRPO step over valid programs, with two instances, extra columns and a table of completions."""
    folder = tmp_path_factory.mktemp("grpo")
    by_model = Ghostwriter(CodeScalerReward(model=str(tiny_rm_dir), name="by_model", problem_column="statement"))
    scorer = FakeScorer()
    by_length = Ghostwriter(CodeScalerReward(scorer=scorer, name="by_length", shaping="raw"))
    trainer = train(
        "grpo",
        tiny_policy_dir,
        folder,
        [by_model, by_length],
        CONVERSATIONAL,
        per_device_train_batch_size=8,
        log_completions=True,
        learning_rate=1e-3,
    )
    (table,) = (folder / "completions").glob("*.parquet")
    return {
        "log": step(trainer),
        "table": pd.read_parquet(table),
        "by_model": by_model,
        "by_length": by_length,
        "scorer": scorer,
    }


def test_two_instances_are_logged_under_their_own_names(run: dict[str, Any]) -> None:
    log = run["log"]
    assert log["rewards/by_length/mean"] == 7.5
    (rewards,) = run["by_model"].rewards
    assert log["rewards/by_model/mean"] == pytest.approx(sum(rewards) / len(rewards), rel=1e-5)


def test_a_working_scorer_logs_finite_numbers_only(run: dict[str, Any]) -> None:
    numbers = {name: value for name, value in run["log"].items() if isinstance(value, int | float)}
    assert {"reward", "reward_std", "loss", "grad_norm"} <= numbers.keys()
    assert [name for name, value in numbers.items() if not math.isfinite(value)] == []


def test_rewards_that_differ_give_a_gradient(run: dict[str, Any]) -> None:
    assert run["log"]["frac_reward_zero_std"] == 0.0
    assert run["log"]["grad_norm"] > 0


def test_share_of_every_status_is_logged(run: dict[str, Any]) -> None:
    shares = {status: run["log"][f"by_model/status/{status}"] for status in Status}
    assert shares == {status: float(status is Status.OK) for status in Status}


@pytest.mark.parametrize("metric", ["score/mean", "score/std", "unscored", "seconds"])
def test_metric_of_the_scores_is_logged(run: dict[str, Any], metric: str) -> None:
    expected = {"score/mean": 7.5, "score/std": pytest.approx(1.118033988749895), "unscored": 0.0}
    value = run["log"][f"by_length/{metric}"]
    assert value == expected[metric] if metric in expected else 0 <= value < 60


def test_table_of_completions_has_status_and_score(run: dict[str, Any]) -> None:
    table = run["table"]
    assert list(table["by_length/status"]) == ["ok"] * 8
    assert list(table["by_length/score"]) == [6.0, 7.0, 8.0, 9.0] * 2
    assert all(sentence.endswith("is a python program.") for sentence in table["by_length/explanation"])
    assert list(table["by_length"]) == [6.0, 7.0, 8.0, 9.0] * 2


def test_trainer_hands_over_every_column_of_the_dataset(run: dict[str, Any]) -> None:
    (call,) = run["by_length"].calls
    assert len(call["prompts"]) == 8
    assert {"statement", "tests", "task_id", "completion_ids", "trainer_state"} <= call.keys()


def test_problem_is_the_last_user_turn_of_the_prompt(run: dict[str, Any]) -> None:
    (items,) = run["scorer"].calls
    assert [problem for problem, _ in items] == [
        prompt[-1]["content"] for prompt in run["by_length"].calls[0]["prompts"]
    ]


def test_problem_column_takes_the_place_of_the_prompt(run: dict[str, Any], tiny_rm_dir: Path) -> None:
    (call,) = run["by_model"].calls
    (rewards,) = run["by_model"].rewards
    items = [(text, CODES[number % 4] + "\n") for number, text in enumerate(call["statement"])]
    expected = [shape_reward(score, Status.OK) for score in load_scorer(str(tiny_rm_dir)).score(items)]
    assert rewards == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("kind", ["grpo", "rloo"])
def test_training_goes_on_when_the_scorer_fails(tiny_policy_dir: Path, tmp_path: Path, kind: str) -> None:
    reward = Ghostwriter(CodeScalerReward(scorer=FakeScorer(fails_after=1)))
    trainer = train(kind, tiny_policy_dir, tmp_path, [reward], STANDARD, max_steps=3)
    assert reward.rewards[1:] == [[None] * 4] * 2
    assert trainer.state.global_step == 3
    assert all(parameter.isfinite().all() for parameter in trainer.model.parameters())
    assert trainer.state.log_history[1]["codescaler_reward/unscored"] == 4.0


@pytest.mark.parametrize("kind", ["grpo", "rloo"])
def test_training_ends_at_once_when_no_program_of_the_first_call_is_scored(
    tiny_policy_dir: Path, tmp_path: Path, kind: str, serve
) -> None:
    keyed = serve(lambda path, body: (401, {"detail": "the API key is missing or wrong"}))
    gone = serve(lambda path, body: (200, {}))
    gone.close()
    for url, said in ((gone.url, "is the server up"), (keyed.url, "api_key")):
        reward = Ghostwriter(CodeScalerReward(model=url))
        with pytest.raises(ScorerError, match=rf"none of the 4 valid programs of its first call.*{url}.*{said}"):
            train(kind, tiny_policy_dir, tmp_path, [reward], STANDARD, max_steps=2)


def test_training_ends_after_three_calls_in_a_row_that_are_mostly_unscored(
    tiny_policy_dir: Path, tmp_path: Path
) -> None:
    reward = Ghostwriter(CodeScalerReward(scorer=FakeScorer(fails_after=1)))
    with pytest.raises(ScorerError, match=r"4 of 4 .* max_unscored=0.5 for 3 calls in a row.*out of memory"):
        train("grpo", tiny_policy_dir, tmp_path, [reward], STANDARD, max_steps=9)
    assert len(reward.rewards) == 3  # the fourth call raised


def test_other_rewards_still_count_when_the_scorer_fails(tiny_policy_dir: Path, tmp_path: Path) -> None:
    failing = Ghostwriter(CodeScalerReward(scorer=FakeScorer(fails_after=1), name="failing"))
    working = Ghostwriter(CodeScalerReward(scorer=FakeScorer(), name="working", shaping="raw"))
    trainer = train("grpo", tiny_policy_dir, tmp_path, [failing, working], STANDARD, max_steps=2)
    log = trainer.state.log_history[1]
    assert log["reward"] == log["rewards/working/mean"] == 7.5
    assert log["grad_norm"] > 0


# Other processes: the command line, and two ranks.


TRL = ("-c", "from trl.cli import main; main()")  # what the `trl` script does, in this very environment


def in_process(*command: str, cwd: Path) -> str:
    environment = untraced(PYTHONPATH=str(ROOT), OMP_NUM_THREADS="1")
    done = subprocess.run(
        [sys.executable, *command], cwd=cwd, env=environment, capture_output=True, text=True, timeout=200, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def test_trl_command_takes_the_reward_from_a_yaml_file(
    tiny_policy_dir: Path, tiny_rm_dir: Path, tmp_path: Path
) -> None:
    data = tmp_path / "data"
    data.mkdir()
    rows = [{"prompt": text, "task_id": number} for number, text in enumerate(STANDARD["prompt"])]
    (data / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    settings = {
        **SETTINGS,
        "model_name_or_path": str(tiny_policy_dir),
        "dataset_name": str(data),
        "output_dir": str(tmp_path / "run"),
        "reward_funcs": ["codescaler_plugin.codescaler_reward"],  # TRL reads a bare string letter by letter
        "log_completions": True,
        "env": {"CODESCALER_MODEL": str(tiny_rm_dir), "CODESCALER_SHAPING": "raw"},
    }
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(json.dumps(settings))  # JSON is YAML
    in_process(*TRL, "grpo", "--config", str(recipe), cwd=tmp_path)
    (table,) = (tmp_path / "run" / "completions").glob("*.parquet")
    assert list(pd.read_parquet(table)["codescaler_reward/status"]) == ["no_block"] * 4


PARTS = {
    "prompt": [
        [
            {"role": "system", "content": [{"type": "text", "text": "You write Python."}]},
            {"role": "user", "content": [{"type": "text", "text": "Write "}, {"type": "text", "text": f"{number}."}]},
        ]
        for number in ("one", "two")
    ]
}


PARTS_TEMPLATE = (
    "{% for turn in messages %}<|im_start|>{{ turn.role }}\n{% if turn.content is string %}{{ turn.content }}"
    "{% else %}{% for part in turn.content %}{{ part.text }}{% endfor %}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


@pytest.fixture(scope="module")
def parts_policy(tiny_policy_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A policy whose chat template reads content parts, as those of Qwen3.5 and Gemma 3 do."""
    from transformers import AutoTokenizer

    folder = tmp_path_factory.mktemp("policy") / "parts"
    shutil.copytree(tiny_policy_dir, folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.chat_template = PARTS_TEMPLATE
    tokenizer.save_pretrained(folder)
    return folder


def in_parts(reward: CodeScalerReward) -> Ghostwriter:
    """Hands in programs as content parts."""

    class Parts(Ghostwriter):
        def __call__(self, prompts: Any, completions: Any, **columns: Any) -> list[float | None]:
            texts = [fenced(CODES[number % 4]) for number in range(len(completions))]
            parts = [[{"role": "assistant", "content": [{"type": "text", "text": text}]}] for text in texts]
            self.calls.append({"prompts": prompts})
            self.rewards.append(self.reward(prompts, parts, **columns))
            return self.rewards[-1]

    return Parts(reward)


@pytest.mark.parametrize("kind", ["grpo", "rloo"])
def test_content_parts_are_read_as_their_text(parts_policy: Path, tmp_path: Path, kind: str) -> None:
    scorer = FakeScorer()
    reward = in_parts(CodeScalerReward(scorer=scorer, shaping="raw"))
    train(kind, parts_policy, tmp_path, [reward], PARTS)
    assert isinstance(reward.calls[0]["prompts"][0][1]["content"], list)
    assert {problem for problem, _ in scorer.calls[0]} <= {"Write one.", "Write two."}
    assert sorted(reward.rewards[0]) == [6.0, 7.0, 8.0, 9.0]


def test_online_dpo_with_content_parts(parts_policy: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    online = pytest.importorskip("trl.experimental.online_dpo")
    from transformers import AutoModelForCausalLM, AutoTokenizer

    scorer = FakeScorer()
    reward = in_parts(CodeScalerReward(scorer=scorer, shaping="raw"))
    config = online.OnlineDPOConfig(
        output_dir=str(tmp_path),
        use_cpu=True,
        bf16=False,
        gradient_checkpointing=False,
        report_to="none",
        disable_tqdm=True,
        save_strategy="no",
        logging_steps=1,
        max_steps=1,
        max_new_tokens=8,
        per_device_train_batch_size=2,
    )
    trainer = online.OnlineDPOTrainer(
        model=AutoModelForCausalLM.from_pretrained(parts_policy),
        reward_funcs=[reward],
        args=config,
        processing_class=AutoTokenizer.from_pretrained(parts_policy, padding_side="left"),
        train_dataset=Dataset.from_dict(PARTS),
    )
    trainer.train()
    assert {problem for problem, _ in scorer.calls[0]} == {"Write one.", "Write two."}
    assert sorted(reward.rewards[0]) == [6.0, 7.0, 8.0, 9.0]
    assert math.isfinite(trainer.state.log_history[0]["objective/scores"])


class Shown:
    """An environment that shows its problem in parts."""

    def reset(self, **_: Any) -> Any:
        return [{"type": "text", "text": " It reads n."}]

    def look(self) -> str:
        """Look at the problem.

        Returns:
            The problem.
        """
        return "n"


@pytest.mark.skipif(
    int(version("transformers").split(".")[0]) < 5, reason="environment_factory of TRL needs transformers 5.2"
)
@pytest.mark.filterwarnings("ignore")
def test_an_environment_that_returns_parts(tiny_policy_dir: Path, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    scorer = FakeScorer()
    reward = in_parts(CodeScalerReward(scorer=scorer, shaping="raw"))
    tokenizer = AutoTokenizer.from_pretrained(tiny_policy_dir)
    data = {"prompt": [[{"role": "user", "content": "Write one."}], [{"role": "user", "content": "Write two."}]]}
    trainer = GRPOTrainer(
        AutoModelForCausalLM.from_pretrained(tiny_policy_dir),
        processing_class=tokenizer,
        reward_funcs=[reward],
        args=GRPOConfig(output_dir=str(tmp_path), **SETTINGS),
        train_dataset=Dataset.from_dict(data),
        environment_factory=Shown,
    )
    trainer.train()
    assert isinstance(reward.calls[0]["prompts"][0][-1]["content"], list)
    assert {problem for problem, _ in scorer.calls[0]} <= {"Write one. It reads n.", "Write two. It reads n."}
    assert sorted(reward.rewards[0]) == [6.0, 7.0, 8.0, 9.0]


def test_every_rank_logs_the_same_metrics_though_one_has_no_valid_program(
    tiny_policy_dir: Path, tiny_rm_dir: Path, tmp_path: Path
) -> None:
    script = Path(__file__).with_name("two_ranks.py")
    in_process(
        *("-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", str(script)),
        *(str(tiny_policy_dir), str(tiny_rm_dir), str(tmp_path), "invalid"),
        cwd=tmp_path,
    )
    first, second = (json.loads((tmp_path / f"rank-{rank}.json").read_text()) for rank in range(2))
    ((one,), (two,)) = first["calls"], second["calls"]
    assert one["rewards"] == [6.0, 7.0, 8.0, 9.0]
    assert two["rewards"] == [0.0] * 4
    assert one["metrics"].keys() == two["metrics"].keys()
    assert one["metrics"]["length/score/mean"] == two["metrics"]["length/score/mean"] == 7.5
    assert first["log"][0]["length/score/mean"] == 7.5
    assert first["log"][0]["length/status/ok"] == 0.5
    assert not [name for name in one["metrics"] if name.startswith("model/score")]


def test_group_split_over_two_ranks_is_scored_slice_by_slice(
    tiny_policy_dir: Path, tiny_rm_dir: Path, tmp_path: Path
) -> None:
    script = Path(__file__).with_name("two_ranks.py")
    in_process(
        *("-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", str(script)),
        *(str(tiny_policy_dir), str(tiny_rm_dir), str(tmp_path)),
        cwd=tmp_path,
    )
    first, second = (json.loads((tmp_path / f"rank-{rank}.json").read_text()) for rank in range(2))
    assert first["processes"] == second["processes"] == 2
    ((one,), (two,)) = first["calls"], second["calls"]
    assert len({*one["prompts"], *two["prompts"]}) == 1, "the group of eight must be split for this test to mean it"
    assert one["rewards"] == [6.0, 7.0, 8.0, 9.0]
    assert two["rewards"] == [10.0, 11.0, 12.0, 13.0]
    assert first["log"][0]["rewards/length/mean"] == 9.5
    assert first["log"][0]["rewards/model/mean"] == 0.0
    assert first["log"][0]["reward_std"] > 0
