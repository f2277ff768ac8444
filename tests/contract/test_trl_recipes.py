"""The recipes for TRL: every key is one that the host's own parser takes, and the small twins are trained."""

import importlib.util
import json
import os
import runpy
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

trl = pytest.importorskip("trl")

from transformers import AutoModelForCausalLM  # noqa: E402
from trl import DatasetMixtureConfig, GRPOConfig, ModelConfig, TrlParser  # noqa: E402
from trl.scripts.grpo import GRPOScriptArguments  # noqa: E402

from codescaler_plugin import CodeScalerRewardConfig  # noqa: E402
from codescaler_plugin.builtin import HELD_OUT_PROBLEMS, POLICY, REWARD_MODEL, TRAIN_PROBLEMS  # noqa: E402
from codescaler_plugin.config import CodeScalerConfig  # noqa: E402

ROOT = Path(__file__).parents[2]
RECIPES = ROOT / "recipes" / "trl"
CONFIGURATIONS = sorted(RECIPES.glob("*.yaml"))
assert len(CONFIGURATIONS) >= 9


def module(name: str) -> ModuleType:
    sys.path.insert(0, str(RECIPES))
    try:
        spec = importlib.util.spec_from_file_location(name, RECIPES / f"{name}.py")
        assert spec is not None
        assert spec.loader is not None
        loaded = importlib.util.module_from_spec(spec)
        sys.modules[name] = loaded
        spec.loader.exec_module(loaded)
    finally:
        sys.path.remove(str(RECIPES))
    return loaded


@pytest.fixture(scope="module")
def grpo() -> ModuleType:
    return module("grpo_codescaler")


@pytest.fixture
def environment(monkeypatch):
    """What a configuration sets under `env` is gone after the test."""
    before = dict(os.environ)
    monkeypatch.chdir(ROOT)
    yield
    os.environ.clear()
    os.environ.update(before)


def parsed(file: Path, *extra: str) -> tuple[Any, ...]:
    kinds: tuple[Any, ...]
    if file.name.startswith("reward_"):
        kinds = (module("reward_codescaler").Arguments, CodeScalerRewardConfig, ModelConfig)
        if "\npairs:" not in file.read_text(encoding="utf-8"):
            extra = ("--pairs", "pairs.jsonl", *extra)
    elif file.name == "grpo_cli.yaml":
        kinds = (GRPOScriptArguments, GRPOConfig, ModelConfig, DatasetMixtureConfig)
    else:
        kinds = (module("grpo_codescaler").Arguments, GRPOConfig, ModelConfig)
    arguments = ["--config", str(file), "--use_cpu", "true", *extra]
    objects: tuple[Any, ...] = TrlParser(kinds).parse_args_and_config(arguments, fail_with_unknown_args=True)
    return objects


@pytest.mark.parametrize("file", CONFIGURATIONS, ids=lambda file: file.name)
def test_every_key_is_known_to_the_parser_and_arrives(file, environment):
    objects = parsed(file)

    written = yaml.safe_load(file.read_text(encoding="utf-8"))
    for name, value in (written.pop("env", None) or {}).items():
        assert os.environ[name] == str(value)
    assert len(written) > 10
    for name, value in written.items():
        if name == "gradient_checkpointing" or (name, value) == ("report_to", "none"):
            continue  # both are known, and handed on in another form
        arrived = [getattr(one, name) for one in objects if hasattr(one, name)]
        assert arrived, name
        assert any(
            str(one) == str(value) or one == value or getattr(one, "value", None) == value for one in arrived
        ), (
            name,
            arrived,
        )


OF_A_LOADED_MODEL = {
    "max_length", "max_tokens", "device", "cache_size", "cache_dir", "offload", "tokenizer", "trust_remote_code",
}  # fmt: skip


@pytest.mark.parametrize("file", CONFIGURATIONS, ids=lambda file: file.name)
def test_the_settings_of_a_recipe_have_an_effect(file):
    """A model behind an address has its own; they are given where it is served."""
    env = yaml.safe_load(file.read_text(encoding="utf-8")).get("env") or {}
    settings = CodeScalerConfig.from_env(env)
    if "://" in settings.model:
        assert [name for name in env if name.removeprefix("CODESCALER_").lower() in OF_A_LOADED_MODEL] == []


def test_a_key_that_nobody_knows_is_refused(tmp_path, environment):
    file = tmp_path / "grpo_wrong.yaml"
    file.write_text((RECIPES / "grpo_8gpu.yaml").read_text() + "max_prompt_len: 4096\n")
    with pytest.raises(ValueError, match="max_prompt_len"):
        parsed(file)


@pytest.mark.parametrize("name", ["grpo_1gpu", "grpo_8gpu", "grpo_hybrid"])
def test_the_true_sizes_are_the_papers_and_fit(name, grpo, environment):
    arguments, config, model = parsed(RECIPES / f"{name}.yaml")

    per_round = config.per_device_train_batch_size * arguments.gpus
    assert per_round * config.steps_per_generation == 128 * config.num_generations
    assert per_round * config.gradient_accumulation_steps == 64 * config.num_generations
    assert config.vllm_max_model_length == arguments.max_prompt_length + config.max_completion_length
    assert (config.epsilon, config.epsilon_high, config.beta) == (0.2, 0.28, 0.0)
    assert (config.temperature, config.top_p, config.top_k) == (0.6, 0.95, 20)
    assert (config.learning_rate, config.max_steps, config.loss_type) == (1e-6, 500, "dapo")
    settings = CodeScalerConfig.from_env()
    if "://" in settings.model:  # the limit is the server's
        assert "CODESCALER_MAX_LENGTH=4096 codescaler serve " in (RECIPES / f"{name}.yaml").read_text(encoding="utf-8")
    else:
        assert settings.max_length == 4096
    step = grpo.Step(
        gpus=arguments.gpus,
        zero_stage=arguments.zero_stage,
        float32=model.dtype == "float32",
        micro_batch=config.per_device_train_batch_size,
        prompt=arguments.max_prompt_length,
        completion=config.max_completion_length,
        vllm_share=config.vllm_gpu_memory_utilization,
        vllm_sleeps=config.vllm_enable_sleep_mode,
        gpu_gb=arguments.gpu_gb,
    )
    judge = CodeScalerConfig.from_env().model
    rows = grpo.estimate(
        grpo.shape_of(model.model_name_or_path), None if "://" in judge else grpo.shape_of(judge), step
    )
    assert max(rows["sum"].values()) < 0.9 * arguments.gpu_gb * 1e9 / 2**30


def test_parameters_are_counted_as_they_are(grpo):
    shape = grpo.shape_of(str(POLICY))
    assert shape.parameters() == AutoModelForCausalLM.from_pretrained(POLICY).num_parameters()
    published = {"0.6B": 0.596e9, "1.7B": 1.72e9, "4B": 4.02e9, "8B": 8.19e9, "14B": 14.77e9}
    for size, count in published.items():
        assert grpo.shape_of(f"Qwen/Qwen3-{size}-Base").parameters() == pytest.approx(count, rel=0.005), size


def test_estimate_prints_a_table_and_its_sums(monkeypatch, capsys, environment):
    run("grpo_codescaler.py", "grpo_8gpu.yaml", monkeypatch, "--estimate")

    out = capsys.readouterr().out.splitlines()
    assert max(map(len, out)) <= 80
    assert any("logits" in line for line in out)
    sums = json.loads(out[-1])
    # 16 bytes a parameter over 8 GPUs are 15.3 GiB; 10 bytes a logit, 16,384 x 151,936 of them, are 23.2 GiB.
    assert 15.3 + 23.2 < sums["train"] < 15.3 + 23.2 + 15
    assert pytest.approx(sums["generate"], abs=0.3) == 1.9 + 11.4 + 40e9 / 2**30


def run(script: str, configuration: str, monkeypatch: pytest.MonkeyPatch, *arguments: str) -> None:
    monkeypatch.setattr(sys, "argv", [script, "--config", str(RECIPES / configuration), *arguments])
    monkeypatch.syspath_prepend(str(RECIPES))
    runpy.run_path(str(RECIPES / script), run_name="__main__")


def test_the_hybrid_recipe_trains_on_a_cpu(tmp_path, monkeypatch, capsys, environment):
    run("grpo_codescaler.py", "grpo_cpu_smoke.yaml", monkeypatch, "--output_dir", str(tmp_path))

    assert (tmp_path / "model.safetensors").exists()
    out = capsys.readouterr().out
    assert json.loads(next(line for line in out.splitlines() if line.startswith('{"tested"'))) == {
        "tested": 252,
        "too_few_tests": 0,
        "without_tests": 64,
        "audit": 4,
    }
    for needed in ("'rewards/tests/mean': ", "'rewards/codescaler_reward/mean': ", "'eval_hacking/audit_pass_rate': "):
        assert needed in out, needed


def test_prepared_rows_hold_what_the_command_line_needs(tmp_path, monkeypatch, environment):
    run("grpo_codescaler.py", "grpo_cpu_smoke.yaml", monkeypatch, "--prepare", str(tmp_path))

    rows = [json.loads(line) for line in (tmp_path / "train.jsonl").read_text().splitlines()]
    assert len(rows) == 252 + 64
    assert all(row["prompt"][-1]["content"].startswith(row["problem"]) for row in rows)
    held = {json.loads(line)["problem"] for line in HELD_OUT_PROBLEMS.read_text().splitlines()}
    assert len(held - {row["problem"] for row in rows}) == 4  # the audit


def test_the_reward_recipe_trains_on_a_cpu(tmp_path, monkeypatch, capsys, environment):
    pairs = tmp_path / "pairs.jsonl"
    rows = [
        {
            "problem": f"Write solve(n) that adds {n}.",
            "chosen": f"def solve(n):\n    return n + {n}\n",
            "rejected": "x = 1\n",
        }
        for n in range(32)
    ]
    pairs.write_text("".join(json.dumps(row) + "\n" for row in rows))
    arguments = ("--pairs", str(pairs), "--max_steps", "3", "--output_dir", str(tmp_path / "rm"))
    run(
        "reward_codescaler.py",
        "reward_cpu_smoke.yaml",
        monkeypatch,
        "--model_name_or_path",
        str(REWARD_MODEL),
        *arguments,
    )

    assert (tmp_path / "rm" / "model.safetensors").exists()
    assert "'train_loss': " in capsys.readouterr().out


@pytest.mark.parametrize(
    ("script", "arguments"),
    [
        ("trl/reward_codescaler.py", ("--config", str(RECIPES / "reward_cpu_smoke.yaml"), "--pairs", "pairs.jsonl")),
        ("openrlhf/rm_data.py", ("pairs.jsonl", "data", "--tokenizer", str(REWARD_MODEL))),
    ],
)
def test_bad_pairs_end_in_one_line(script, arguments, tmp_path, monkeypatch, environment):
    monkeypatch.chdir(tmp_path)
    Path("pairs.jsonl").write_text('{"problem": "Add one.", "chosen": "x = 1"}\n')
    monkeypatch.setattr(sys, "argv", [script, *arguments])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(RECIPES.parent / script), run_name="__main__")
    assert str(ended.value).startswith("error: ")
    assert "pairs.jsonl" in str(ended.value)


def test_nothing_of_the_audit_is_trained_on_and_equal_files_are_told_apart(grpo, monkeypatch, tmp_path):
    arguments = grpo.Arguments(
        problems=[str(HELD_OUT_PROBLEMS), str(HELD_OUT_PROBLEMS)],
        synthetic=[str(TRAIN_PROBLEMS), str(HELD_OUT_PROBLEMS)],
        audit=str(HELD_OUT_PROBLEMS),
        audit_size=16,
        synthetic_size=32,
    )
    tested, bare, held = grpo.read(arguments, 0)
    assert (len(tested), len(bare), len(held)) == (240, 32, 16)
    assert not {problem.text for problem in held} & ({problem.text for problem in tested} | set(bare))
    assert len({problem.id for problem in [*tested, *held]}) == 256
