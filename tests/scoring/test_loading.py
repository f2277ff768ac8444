"""Folders that are no reward model, broken or bring code: one clear line, and none of their code runs."""

import json
import re
import runpy
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from transformers import AutoTokenizer, Qwen3Config, Qwen3Model, Qwen3PreTrainedModel

from codescaler_plugin import CodeScaler, CodeScalerConfig, ConfigError, ScorerError, load_scorer, testing
from codescaler_plugin.scoring.loading import load_classifier
from tests.models import add_code, change_config
from tests.scoring.programs import GROUP, ITEMS, plain_logits

HERE = Path(__file__).parents[2]


BROKEN: dict[str, Callable[[Path], Any]] = {
    "weights cut off": lambda folder: (folder / "model.safetensors").write_bytes(b"\x10"),
    "weights of garbage": lambda folder: (folder / "model.safetensors").write_bytes(b"\xff" * 5000),
    "no weights": lambda folder: (folder / "model.safetensors").unlink(),
    "config no JSON": lambda folder: (folder / "config.json").write_text("{"),
    "config a list": lambda folder: (folder / "config.json").write_text("[]"),
    "config null": lambda folder: (folder / "config.json").write_text("null"),
    "config of an unknown kind": lambda folder: (folder / "config.json").write_text('{"model_type": "nope"}'),
    "config of wrong types": lambda folder: change_config(folder, hidden_size="x"),
    "no heads": lambda folder: change_config(folder, num_attention_heads=0),
    "tokenizer no JSON": lambda folder: (folder / "tokenizer.json").write_text("no"),
    "tokenizer empty": lambda folder: (folder / "tokenizer.json").write_text("{}"),
    "tokenizer's config a list": lambda folder: (folder / "tokenizer_config.json").write_text("[1]"),
    "template no Jinja": lambda folder: (folder / "chat_template.jinja").write_text("{% if %}"),
    "code of its own": add_code,
}


@pytest.mark.parametrize("how", BROKEN)
def test_a_broken_folder_is_one_clear_error(tiny_rm_dir: Path, tmp_path: Path, how: str) -> None:
    folder = tmp_path / "model"
    shutil.copytree(tiny_rm_dir, folder)
    BROKEN[how](folder)
    with pytest.raises(ConfigError) as error:
        load_classifier(str(folder))
    assert str(folder) in str(error.value)
    assert not (folder / "MARK").exists()


def test_a_folders_code_does_not_run_where_the_data_say_yes(tiny_rm_dir: Path, tmp_path: Path) -> None:
    """Transformers ask on stdin whether it may, unless they are told."""
    folder = tmp_path / "model"
    shutil.copytree(tiny_rm_dir, folder)
    add_code(folder)
    row = json.dumps({"problem": "P", "completion": "```python\nx = 1\n```"})
    done = subprocess.run(
        [sys.executable, "-m", "codescaler_plugin", "score", "-", "--model", str(folder)],
        input=f"{row}\n" * 70 + "y\n" * 100,
        capture_output=True,
        text=True,
        cwd=HERE,
        check=False,
        timeout=120,
    )
    assert done.returncode == 1
    assert "brings code of its own" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (folder / "MARK").exists()


def test_a_folder_that_is_there_is_not_looked_for_on_the_hub(tiny_rm_dir: Path, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(tiny_rm_dir, folder)
    (folder / "tokenizer_config.json").write_text("{")
    with pytest.raises(ConfigError, match="its files are broken") as error:
        load_classifier(str(folder))
    assert "HF_HUB_OFFLINE" not in str(error.value)


def test_an_empty_chat_template_is_none(tiny_rm_dir: Path, tmp_path: Path) -> None:
    """It would render every program as no tokens at all."""
    folder = tmp_path / "model"
    shutil.copytree(tiny_rm_dir, folder)
    for file in folder.glob("chat_template*"):
        file.unlink()
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps({**settings, "chat_template": ""}))
    with pytest.raises(ConfigError, match="no chat template"):
        load_classifier(str(folder))


def test_home_directory_sign_is_understood(
    tiny_rm_dir: Path, expected: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tiny_rm_dir.parent))
    scores = load_scorer(f"~/{tiny_rm_dir.name}").score(ITEMS)
    assert scores == pytest.approx(expected, abs=1e-5, rel=0)


def two_labels(folder: Path) -> None:
    testing.save_tiny_reward_model(folder, num_labels=2)


def causal_lm(folder: Path) -> None:
    testing.save_tiny_policy(folder)


def no_trained_head(folder: Path) -> None:
    testing.save_tiny_policy(folder, num_labels=1)


def no_chat_template(folder: Path) -> None:
    testing.save_tiny_reward_model(folder)
    (folder / "chat_template.jinja").unlink()


def empty(folder: Path) -> None:
    folder.mkdir(exist_ok=True)


def no_weights(folder: Path) -> None:
    testing.save_tiny_reward_model(folder)
    (folder / "model.safetensors").unlink()


def no_tokenizer(folder: Path) -> None:
    testing.save_tiny_reward_model(folder)
    for path in folder.glob("*token*"):
        path.unlink()


def cut_weights(folder: Path) -> None:
    testing.save_tiny_reward_model(folder)
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:1000])


def unknown_architecture(folder: Path) -> None:
    testing.save_tiny_reward_model(folder)
    path = folder / "config.json"
    path.write_text(path.read_text().replace('"qwen3"', '"qwen99"'))


@pytest.mark.parametrize(
    ("make", "problem"),
    [
        (two_labels, "2 labels"),
        (causal_lm, "a reward model"),
        (no_trained_head, "score.weight"),
        (no_chat_template, "chat template"),
        (empty, "builtin"),
        (no_weights, "builtin"),
        (no_tokenizer, "tokenizer"),
        (cut_weights, "builtin"),
        (unknown_architecture, "qwen99"),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_directory_that_is_no_reward_model_is_a_config_error_naming_it_and_the_reason(
    tmp_path: Path, make: object, problem: str
) -> None:
    folder = tmp_path / "broken"
    make(folder)  # type: ignore[operator]
    with pytest.raises(ConfigError, match=problem) as caught:
        load_scorer(str(folder)).score(ITEMS)
    assert str(folder) in str(caught.value)


class RewardModel(Qwen3PreTrainedModel):  # type: ignore[misc]  # transformers is Any to mypy
    """As openrlhf 0.11.2 makes it: `_get_reward_model` of `models/model.py`."""

    def __init__(self, config: Qwen3Config) -> None:
        super().__init__(config)
        self.model = Qwen3Model(config)
        setattr(self, config.value_head_prefix, torch.nn.Linear(config.hidden_size, 1, bias=False))
        self.register_buffer("mean", torch.zeros(1), persistent=False)
        self.register_buffer("std", torch.ones(1), persistent=False)
        self.post_init()


def save_as_openrlhf(folder: Path, *, head: str, normalised: bool) -> None:
    """As openrlhf 0.11.2 saves it: `train_rm.py`, `rm_trainer.py` and `save_model` of `utils/deepspeed/deepspeed.py`."""
    config = Qwen3Config(**testing.tiny_vocabulary(), **testing.TINY_SIZES, num_key_value_heads=1, head_dim=16)
    config.normalize_reward = False
    config.value_head_prefix = head
    model = RewardModel(config)
    if normalised:
        config.mean, config.std = 1.5, 2.0
    model.save_pretrained(folder, state_dict=model.state_dict())
    model.config.to_json_file(folder / "config.json")
    testing.tiny_tokenizer().save_pretrained(folder)


@pytest.mark.parametrize(("head", "normalised"), [("score", False), ("score", True), ("value_head", True)])
def test_checkpoint_of_openrlhf_names_its_converter(tmp_path: Path, head: str, normalised: bool) -> None:
    folder, ready = tmp_path / "saved", tmp_path / "ready"
    save_as_openrlhf(folder, head=head, normalised=normalised)
    with pytest.raises(ConfigError, match=r"saved is a RewardModel as OpenRLHF saves it") as caught:
        load_scorer(str(folder)).score(ITEMS)
    found = re.search(r"by: python (\S+) (\S+) NEW_FOLDER", str(caught.value))
    assert found is not None
    converter = runpy.run_path(str(Path(__file__).parents[2] / found[1]))
    statistics = converter["convert"](Path(found[2]), ready)
    assert statistics == ({"mean": 1.5, "std": 2.0} if normalised else {})
    scores = load_scorer(str(ready)).score(ITEMS)
    assert scores == pytest.approx(plain_logits(ready), abs=1e-5, rel=0)


OWN_CODE = """
from pathlib import Path
from torch import nn
from transformers import PretrainedConfig, PreTrainedModel
from transformers.modeling_outputs import SequenceClassifierOutput

class OwnConfig(PretrainedConfig):
    model_type = "own"
    hidden_size = 8

class OwnModel(PreTrainedModel):
    config_class = OwnConfig
    base_model_prefix = "model"

    def __init__(self, config):
        super().__init__(config)
        self.embed = nn.Embedding(400, 8)
        self.score = nn.Linear(8, 1)
        self.post_init()

    def get_input_embeddings(self):
        return self.embed

    def forward(self, input_ids, attention_mask):
        Path("ran").touch()
        mask = attention_mask.unsqueeze(-1)
        mean = (self.embed(input_ids) * mask).sum(1) / mask.sum(1)
        return SequenceClassifierOutput(logits=3 * self.score(mean) + 1)
"""


@pytest.fixture
def own_code_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a class of its own, which scores the mean of all tokens; it leaves a file where it ran."""
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "modules"))
    monkeypatch.syspath_prepend(str(tmp_path / "modules"))
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "own"
    folder.mkdir()
    (folder / "own.py").write_text(OWN_CODE)
    names = {"AutoConfig": "own.OwnConfig", "AutoModelForSequenceClassification": "own.OwnModel"}
    config = {"model_type": "own", "auto_map": names, "num_labels": 1, "architectures": ["RewardModel"]}  # no OpenRLHF
    (folder / "config.json").write_text(json.dumps(config))
    torch.manual_seed(0)
    weights = {"embed.weight": torch.randn(400, 8), "score.weight": torch.randn(1, 8), "score.bias": torch.zeros(1)}
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    testing.tiny_tokenizer().save_pretrained(folder)
    return folder


def test_code_of_a_model_is_not_run_and_the_error_names_our_setting(own_code_dir: Path) -> None:
    with pytest.raises(ConfigError, match=r"own.*trust_remote_code=True \(CODESCALER_TRUST_REMOTE_CODE=1\)") as caught:
        load_scorer(str(own_code_dir)).score(ITEMS)
    assert "argument" not in str(caught.value)
    assert not Path("ran").exists()


def test_trusted_code_scores_as_its_own_forward_pass(own_code_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CODESCALER_TRUST_REMOTE_CODE", "1")
    scores = CodeScaler(config=CodeScalerConfig.from_env(model=str(own_code_dir))).scorer.score(ITEMS)
    assert scores == pytest.approx(plain_logits(own_code_dir, trust_remote_code=True), abs=1e-5, rel=0)
    assert Path("ran").exists()


def test_package_that_trusted_code_lacks_is_a_config_error(own_code_dir: Path) -> None:
    (own_code_dir / "own.py").write_text("import package_that_nobody_has\n" + OWN_CODE)
    with pytest.raises(ConfigError, match="package_that_nobody_has"):
        load_scorer(str(own_code_dir), trust_remote_code=True).score(ITEMS)


def test_adapter_is_named_as_one_with_the_way_to_a_whole_model(tmp_path: Path) -> None:
    folder = tmp_path / "adapter"
    folder.mkdir()
    (folder / "adapter_config.json").write_text('{"base_model_name_or_path": "some/model"}')
    with pytest.raises(ConfigError, match=r"adapter holds a PEFT adapter .*recipes/trl/reward_merge\.py"):
        load_scorer(str(folder)).score(ITEMS)


@pytest.mark.parametrize("form", ["absolute", "./missing", "a/b/missing", "~/missing"])
def test_missing_directory_is_a_config_error_naming_it(tmp_path: Path, form: str) -> None:
    name = str(tmp_path / "missing") if form == "absolute" else form
    with pytest.raises(ConfigError, match="does not exist") as caught:
        load_scorer(name).score(ITEMS)
    assert name in str(caught.value)


def test_hub_id_without_network_is_a_config_error_naming_it_and_the_offline_choice() -> None:
    with pytest.raises(ConfigError, match=r"(?s)LARK-Lab/CodeScaler-0B.*builtin"):
        load_scorer("LARK-Lab/CodeScaler-0B").score(ITEMS)


def test_model_with_fewer_embeddings_than_token_ids_is_an_error_of_this_package(
    tiny_rm_dir: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "small-vocabulary"
    shutil.copytree(tiny_rm_dir, folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_tokens(["solve"])
    tokenizer.save_pretrained(folder)
    with pytest.raises((ConfigError, ScorerError), match="small-vocabulary"):
        load_scorer(str(folder)).score(ITEMS)


@pytest.mark.parametrize("device", ["nope", "cuda:99"])
def test_device_that_is_not_there_is_a_config_error_that_names_it(tiny_rm_dir: Path, device: str) -> None:
    with pytest.raises(ConfigError, match=f"device '{device}' cannot be used here: .*; give cpu, cuda"):
        load_scorer(str(tiny_rm_dir), device=device).score(GROUP[:1])


def test_device_is_that_of_accelerate(tiny_rm_dir: Path) -> None:
    """In a process of its own: the state of accelerate cannot be taken back."""
    code = (
        "import sys, torch\n"
        "from accelerate import Accelerator\n"
        "torch.cuda.is_available = lambda: True  # a GPU that accelerate was told not to use\n"
        "Accelerator(cpu=True)\n"
        "from codescaler_plugin.scoring.loading import load_classifier\n"
        "print(load_classifier(sys.argv[1])[0].device.type)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tiny_rm_dir)], capture_output=True, text=True, check=False)
    assert done.stdout.split() == ["cpu"], done.stderr


def test_model_loads_whole_under_zero3_settings_of_the_trainer(tiny_rm_dir: Path, group_scores: list[float]) -> None:
    pytest.importorskip("deepspeed", reason="DeepSpeed is not installed")
    from transformers.integrations import HfDeepSpeedConfig, is_deepspeed_zero3_enabled

    settings = {"zero_optimization": {"stage": 3}, "train_micro_batch_size_per_gpu": 1}
    config = HfDeepSpeedConfig(settings)  # what TrainingArguments(deepspeed=...) does
    assert is_deepspeed_zero3_enabled()
    assert load_scorer(str(tiny_rm_dir)).score(GROUP) == pytest.approx(group_scores, abs=1e-5, rel=0)
    assert is_deepspeed_zero3_enabled()
    del config
    assert not is_deepspeed_zero3_enabled()
