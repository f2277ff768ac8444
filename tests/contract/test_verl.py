"""verl's own configuration and reward manager, from its wheel, on the recipe and the file that it loads.

Stood in for: `DataProto` and what the modules import besides (tensordict, ray, omegaconf), which the rewards never see.
"""

import asyncio
import importlib.util
import json
import os
import shlex
import subprocess
import sys
import zipfile
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pyarrow.parquet as parquet
import pytest
import torch
import yaml
from transformers import AutoTokenizer

from codescaler_plugin import CodeScaler, CodeScalerConfig, integrations
from codescaler_plugin.integrations import reward_hook
from tests.samples import fenced

ROOT = Path(__file__).parents[2]
RECIPE = ROOT / "recipes" / "verl" / "grpo.sh"
HOOK = Path(integrations.__path__[0]) / "verl" / "reward.py"
VERSION = "0.9.1"

pytestmark = pytest.mark.network


@pytest.fixture(scope="session")
def verl(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The unpacked wheel, fetched once per session."""
    folder = tmp_path_factory.mktemp("verl")
    done = subprocess.run(
        [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", str(folder), f"verl=={VERSION}"],
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    if done.returncode:
        pytest.skip(f"the package index cannot be reached: {done.stderr.strip().splitlines()[-1]}")
    [wheel] = folder.glob("*.whl")
    zipfile.ZipFile(wheel).extractall(folder)
    return folder / "verl"


@pytest.fixture
def overrides(tmp_path: Path) -> list[str]:
    """What the recipe hands to verl: it runs, with a stand-in for python."""
    record = tmp_path / "record.json"
    write = f"import json, sys; json.dump(sys.argv[1:], open({str(record)!r}, 'w'))"
    command = "from codescaler_plugin.cli import app; app()"
    for name, code in (("python", write), ("codescaler", command)):
        program = tmp_path / name
        program.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -c "{code}" "$@"\n')
        program.chmod(0o755)
    variables = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT), "TRAIN": "t.parquet"}
    subprocess.run(
        ["bash", str(RECIPE), "trainer.nnodes=2"],
        env={**os.environ, **variables, "CODESCALER_MODEL": "http://a"}, check=True, timeout=100,
    )  # fmt: skip
    rest: list[str]
    module, *rest = json.loads(record.read_text())[1:]
    assert module == "verl.trainer.main_ppo"
    return rest


@pytest.mark.parametrize("model", [{}, {"CODESCALER_MODEL": "LARK-Lab/CodeScaler-8B"}], ids=["none", "loaded"])
def test_the_recipe_wants_a_server(tmp_path: Path, model: dict[str, str]) -> None:
    done = subprocess.run(
        ["bash", str(RECIPE)],
        env={**os.environ, "TRAIN": "t.parquet", **model}, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    named = model.get("CODESCALER_MODEL", "")
    assert f"CODESCALER_MODEL is '{named}': expected http://host:port of codescaler serve" in done.stderr


def known(config: Any, key: str) -> bool:
    for part in key.split("."):
        if not isinstance(config, dict) or part not in config:
            return False
        config = config[part]
    return True


def test_every_key_of_the_recipe_is_in_verls_configuration(verl: Path, overrides: list[str]) -> None:
    config = yaml.safe_load((verl / "trainer" / "config" / "_generated_ppo_trainer.yaml").read_text())
    keys = dict(override.split("=", 1) for override in overrides)
    assert len(keys) > 35
    assert [key for key in keys if not known(config, key)] == []
    assert not known(config, "reward.custom_reward_function.file")
    assert keys["trainer.nnodes"] == "2"
    assert keys["reward.custom_reward_function.path"] == str(HOOK)


def loaded(name: str, path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def manager_module(verl: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    def stand_in(name: str, **values: Any) -> None:
        module = ModuleType(name)
        vars(module).update(values)
        monkeypatch.setitem(sys.modules, name, module)

    rooms = ("verl", "verl.utils", "verl.trainer", "verl.trainer.ppo", "verl.experimental")
    for name in (*rooms, "verl.experimental.reward_loop"):
        stand_in(name, __path__=[], DataProto=object)
    stand_in("verl.utils.reward_score", default_compute_score=None, get_default_compute_score=lambda _: None)
    stand_in("verl.utils.ray_utils", get_event_loop=asyncio.get_event_loop)
    stand_in("verl.experimental.reward_loop.reward_manager", __path__=[], register=lambda _: lambda kind: kind)
    if importlib.util.find_spec("omegaconf") is None:
        stand_in("omegaconf", DictConfig=dict)
    managers = verl / "experimental" / "reward_loop" / "reward_manager"
    for name, path in (
        ("verl.utils.import_utils", verl / "utils" / "import_utils.py"),
        ("verl.trainer.ppo.reward", verl / "trainer" / "ppo" / "reward.py"),
        ("verl.experimental.reward_loop.reward_manager.base", managers / "base.py"),
        ("verl.experimental.reward_loop.reward_manager.naive", managers / "naive.py"),
    ):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))  # so that it is gone after the test
        module = loaded(name, path)
    return module


class Row:
    """A batch of one as the manager reads it."""

    def __init__(self, response: str, extra_info: dict[str, Any], tokenizer: Any) -> None:
        ids = tokenizer(response, add_special_tokens=False)["input_ids"] + [tokenizer.eos_token_id]
        padded = torch.tensor(ids + [tokenizer.pad_token_id] * 3)
        mask = torch.tensor([1] * (4 + len(ids)) + [0] * 3)
        self.batch = {"responses": padded, "attention_mask": mask}
        self.non_tensor_batch = {
            "data_source": "code",
            "reward_model": {"ground_truth": ""},
            "extra_info": extra_info,
        }

    def __getitem__(self, _: Any) -> "Row":
        return self


@pytest.mark.parametrize("name", ["compute_score", "compute_score_async"])
def test_reward_manager_gives_the_rewards_of_direct_scoring(
    manager_module: ModuleType, tiny_rm_dir: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    reward_hook.hook.cache_clear()
    monkeypatch.setenv("CODESCALER_MODEL", str(tiny_rm_dir))
    function = {"path": str(HOOK), "name": name}
    config = SimpleNamespace(reward={"custom_reward_function": function})
    answers = [fenced("x = 1"), "I cannot.", fenced("yy = 2")]
    tokenizer = AutoTokenizer.from_pretrained(tiny_rm_dir)

    async def run() -> list[Any]:
        compute = sys.modules["verl.trainer.ppo.reward"].get_custom_reward_fn(config)
        manager = manager_module.NaiveRewardManager(None, tokenizer, compute)
        rows = [Row(answer, {"problem": "Write one."}, tokenizer) for answer in answers]
        return await asyncio.gather(*map(manager.run_single, rows))

    made = asyncio.run(run())
    reward_hook.hook.cache_clear()
    direct = CodeScaler(config=CodeScalerConfig(model=str(tiny_rm_dir))).judge(["Write one."] * 3, answers)
    assert [one["reward_score"] for one in made] == pytest.approx([one.reward for one in direct], rel=1e-5)
    assert [one["reward_extra_info"]["codescaler_valid"] for one in made] == [1.0, 0.0, 1.0]


def test_data_of_the_recipe_holds_the_problem_where_the_reward_reads_it(tmp_path: Path) -> None:
    problems = tmp_path / "problems.jsonl"
    problems.write_text(json.dumps({"problem": "Add one."}) + "\n" + json.dumps({"problem": "Add two."}) + "\n")
    output = tmp_path / "train.parquet"
    subprocess.run(
        [sys.executable, str(RECIPE.with_name("data.py")), str(problems), str(output)],
        env={**os.environ, "PYTHONPATH": str(ROOT)}, check=True, timeout=100,
    )  # fmt: skip
    rows = parquet.read_table(output).to_pylist()
    assert [row["extra_info"]["problem"] for row in rows] == ["Add one.", "Add two."]
    assert rows[0]["prompt"][0]["content"].startswith("Add one.")
    assert {"data_source", "prompt", "ability", "reward_model", "extra_info"} == rows[0].keys()
