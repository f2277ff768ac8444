import json
import logging
import pickle
import re
import runpy
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from safetensors.torch import save_file
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    Qwen3Config,
    Qwen3Model,
    Qwen3PreTrainedModel,
)
from trl import RewardConfig, RewardTrainer

from codescaler_plugin import CodeScaler, CodeScalerConfig, ConfigError, ScorerError, load_scorer, testing
from codescaler_plugin.builtin import REWARD_MODEL
from codescaler_plugin.scoring.rendering import Renderer
from codescaler_plugin.scoring.transformers_scorer import TransformersScorer
from tests import models

ITEMS = [
    ("Write solve(n).", "def solve(n):\n    return n\n"),
    ("Write solve(n).", "def solve(n):\n    return n + 1\n"),
    ("Add the numbers.", "print(sum(map(int, input().split())))\n"),
    ("", "x = 1\n"),
    ("Ünïcode 写 a program.", "s = '→'\n"),
    ("Write solve(n).", "def solve(n):\n    return n\n"),
    ("Long. " * 40, "total = 0\n" * 20),
]


@pytest.fixture(scope="module")
def encoder_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return models.save_encoder(tmp_path_factory.mktemp("encoder"))


def plain_logits(folder: Path, **settings: Any) -> list[float]:
    """Each sample alone, without padding, through the model as transformers gives it."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float32, **settings).eval()
    logits = []
    for problem, code in ITEMS:
        turns = [{"role": "user", "content": problem}, {"role": "assistant", "content": code}]
        text = tokenizer.apply_chat_template(turns, tokenize=False)
        inputs = tokenizer(text, add_special_tokens=False, return_tensors="pt")
        with torch.inference_mode():
            logits.append(model(**inputs).logits.item())
    return logits


@pytest.fixture(scope="module")
def expected(tiny_rm_dir: Path) -> list[float]:
    logits = plain_logits(tiny_rm_dir)
    assert max(logits) - min(logits) > 0.1, "samples must differ for a mix-up to show"
    return logits


@pytest.mark.parametrize("max_tokens", [1, 120, 8192])
def test_scores_equal_the_models_logits_of_single_samples(
    tiny_rm_dir: Path, expected: list[float], max_tokens: int
) -> None:
    scores = load_scorer(str(tiny_rm_dir), max_tokens=max_tokens).score(ITEMS)
    assert scores == pytest.approx(expected, abs=1e-5, rel=0)


def test_scores_follow_the_order_of_the_items(tiny_rm_dir: Path, expected: list[float]) -> None:
    scores = load_scorer(str(tiny_rm_dir)).score(ITEMS[::-1])
    assert scores == pytest.approx(expected[::-1], abs=1e-5, rel=0)


def test_encoder_model_scores_with_its_own_pooling(encoder_dir: Path) -> None:
    expected = plain_logits(encoder_dir)
    scores = load_scorer(str(encoder_dir), max_tokens=200).score(ITEMS)
    assert scores == pytest.approx(expected, abs=1e-5, rel=0)
    assert max(expected) - min(expected) > 1e-3


def test_no_items_give_no_scores_and_load_nothing() -> None:
    assert load_scorer("some/where-not-there").score([]) == []


def test_rendered_text_is_what_reward_trainer_tokenizes(tiny_rm_dir: Path, tmp_path: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny_rm_dir)
    rows = [
        {
            "prompt": [{"role": "user", "content": problem}],
            "chosen": [{"role": "assistant", "content": code}],
            "rejected": [{"role": "assistant", "content": "x = 2\n"}],
        }
        for problem, code in ITEMS
    ]
    args = RewardConfig(
        output_dir=str(tmp_path),
        use_cpu=True,
        bf16=False,
        gradient_checkpointing=False,
        report_to="none",
        disable_tqdm=True,
    )
    trainer = RewardTrainer(
        str(tiny_rm_dir), args=args, train_dataset=Dataset.from_list(rows), processing_class=tokenizer
    )
    texts = [Renderer(tokenizer).render(problem, code) for problem, code in ITEMS]
    assert list(trainer.train_dataset["chosen_ids"]) == tokenizer(texts, add_special_tokens=False)["input_ids"]


def test_sample_that_is_too_long_gets_no_score_and_the_others_keep_theirs(
    tiny_rm_dir: Path, expected: list[float], caplog: pytest.LogCaptureFixture
) -> None:
    scorer = load_scorer(str(tiny_rm_dir), max_length=150)
    with caplog.at_level(logging.WARNING, logger="codescaler_plugin"):
        scores = scorer.score(ITEMS)
    assert scores[-1] is None
    assert scores[:-1] == pytest.approx(expected[:-1], abs=1e-5, rel=0)
    assert "1 of 6 samples get no score: their code is too long for 150 tokens" in caplog.text


def test_sample_of_exactly_the_greatest_length_is_scored(tiny_rm_dir: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny_rm_dir)
    length = len(tokenizer(Renderer(tokenizer).render(*ITEMS[0]), add_special_tokens=False)["input_ids"])
    at_limit = load_scorer(str(tiny_rm_dir), max_length=length).score(ITEMS[:1])
    below_it = load_scorer(str(tiny_rm_dir), max_length=length - 1).score(ITEMS[:1])
    assert isinstance(at_limit[0], float)
    assert below_it == [None]


def test_without_max_length_the_models_own_limit_holds(encoder_dir: Path) -> None:
    scores = load_scorer(str(encoder_dir)).score([ITEMS[0], ("word", "x = 1\n" * 600)])
    assert scores[1] is None
    assert isinstance(scores[0], float)


def test_logit_that_is_not_finite_gives_no_score_and_a_warning(
    tiny_rm_dir: Path, caplog: pytest.LogCaptureFixture
) -> None:
    scorer = loaded(tiny_rm_dir)
    assert scorer._engine is not None
    torch.nn.init.constant_(scorer._engine.model.score.weight, float("nan"))
    with caplog.at_level(logging.WARNING, logger="codescaler_plugin"):
        assert scorer.score(ITEMS[1:3]) == [None, None]
    assert "2 logits that are not finite" in caplog.text


def loaded(folder: Path) -> TransformersScorer:
    scorer = TransformersScorer(str(folder))
    scorer.score(ITEMS[:1])
    return scorer


def test_scorer_pickles_as_its_settings_and_scores_after_it(tiny_rm_dir: Path, expected: list[float]) -> None:
    data = pickle.dumps(loaded(tiny_rm_dir))
    assert len(data) < 2_000
    assert pickle.loads(data).score(ITEMS) == pytest.approx(expected, abs=1e-5, rel=0)


def test_failure_of_the_forward_pass_is_a_scorer_error(tiny_rm_dir: Path) -> None:
    scorer = loaded(tiny_rm_dir)
    assert scorer._engine is not None

    def fail(*_: object) -> None:
        raise RuntimeError("out of memory")

    scorer._engine.model.model.layers[0].register_forward_pre_hook(fail)
    with pytest.raises(ScorerError, match=r"out of memory.*max_tokens"):
        scorer.score(ITEMS)


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


class RewardModel(Qwen3PreTrainedModel):
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


@pytest.mark.parametrize("url", ["http://host:9000", "vllm+http://host:8000"])
def test_trust_of_code_is_refused_for_a_server(url: str) -> None:
    with pytest.raises(ConfigError, match=r"trust_remote_code has no effect on .* server"):
        load_scorer(url, trust_remote_code=True)


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


def test_url_of_another_kind_is_refused_at_once() -> None:
    with pytest.raises(ConfigError, match="ftp://host:9000"):
        load_scorer("ftp://host:9000")


def test_builtin_names_the_embedded_reward_model() -> None:
    scorer = load_scorer("builtin", max_tokens=3, max_length=9, device="cpu")
    assert isinstance(scorer, TransformersScorer)
    assert (scorer.model, scorer.max_tokens, scorer.max_length, scorer.device) == (str(REWARD_MODEL), 3, 9, "cpu")


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
