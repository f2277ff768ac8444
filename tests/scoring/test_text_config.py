"""Reward models whose config keeps what reads text in `text_config`: from weights to weights, with the same scores.

Those that read images, have layers without attention, or encode share no prefixes (`families.py`).
"""

from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset
from transformers import (
    Gemma3Config,
    Gemma3ForSequenceClassification,
    Gemma3TextConfig,
    Gemma3TextForSequenceClassification,
    ModernVBertConfig,
    ModernVBertForSequenceClassification,
    Qwen3_5Config,
    Qwen3_5ForSequenceClassification,
    Qwen3_5TextConfig,
    Qwen3_5TextForSequenceClassification,
    T5GemmaConfig,
    T5GemmaForSequenceClassification,
)
from typer.testing import CliRunner

from codescaler_plugin import CodeScaler, load_scorer, testing
from codescaler_plugin.cli import app
from codescaler_plugin.doctor import examine
from codescaler_plugin.integrations.trl.trainer import CodeScalerRewardTrainer
from codescaler_plugin.integrations.trl.trainer_config import CodeScalerRewardConfig
from codescaler_plugin.scoring.forward import reason_not_to_share
from codescaler_plugin.scoring.loading import load_classifier
from codescaler_plugin.scoring.transformers_scorer import TransformersScorer
from tests.scoring.programs import ITEMS, plain_logits

TEXT = {**testing.TINY_SIZES, "num_key_value_heads": 1, "head_dim": 16, "max_position_embeddings": 1024}
WINDOW = {"sliding_window": 16, "layer_types": ["sliding_attention", "full_attention"]}
HYBRID = {
    "layer_types": ["linear_attention", "full_attention"],
    "linear_num_key_heads": 1,
    "linear_num_value_heads": 2,
}
HYBRID |= {"linear_key_head_dim": 16, "linear_value_head_dim": 16}
IMAGES = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}


def gemma3(words: dict[str, Any]) -> Any:
    vision = {**IMAGES, "image_size": 28, "patch_size": 14}
    settings = {"image_token_index": 5, "boi_token_index": 6, "eoi_token_index": 7}
    parts = {"text_config": {**words, **TEXT, **WINDOW}, "vision_config": vision}
    return Gemma3ForSequenceClassification(Gemma3Config(**parts, num_labels=1, mm_tokens_per_image=4, **settings))


def gemma3_text(words: dict[str, Any]) -> Any:
    return Gemma3TextForSequenceClassification(Gemma3TextConfig(**words, **TEXT, **WINDOW, num_labels=1))


def qwen3_5(words: dict[str, Any]) -> Any:
    vision = {"hidden_size": 16, "intermediate_size": 16, "depth": 1, "num_heads": 2, "out_hidden_size": 32}
    parts = {"text_config": {**words, **TEXT, **HYBRID}, "vision_config": vision}
    tokens = {"image_token_id": 5, "video_token_id": 6, "vision_start_token_id": 7, "vision_end_token_id": 8}
    return Qwen3_5ForSequenceClassification(Qwen3_5Config(**parts, num_labels=1, **tokens))


def qwen3_5_text(words: dict[str, Any]) -> Any:
    return Qwen3_5TextForSequenceClassification(Qwen3_5TextConfig(**words, **TEXT, **HYBRID, num_labels=1))


def modernvbert(words: dict[str, Any]) -> Any:
    text = {**words, **testing.TINY_SIZES, "max_position_embeddings": 1024, "cls_token_id": 1, "bos_token_id": 1}
    parts = {"text_config": text, "vision_config": {**IMAGES, "image_size": 28, "patch_size": 14}}
    return ModernVBertForSequenceClassification(ModernVBertConfig(**parts, image_token_id=5, num_labels=1))


def t5gemma(words: dict[str, Any]) -> Any:
    part = {**words, **TEXT, **WINDOW}
    return T5GemmaForSequenceClassification(T5GemmaConfig(encoder=part, decoder=part, num_labels=1))


MODELS = [gemma3, gemma3_text, qwen3_5, qwen3_5_text, modernvbert, t5gemma]


@pytest.fixture(scope="module", params=MODELS, ids=lambda make: make.__name__)
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return testing.save_tiny_model(
        tmp_path_factory.mktemp("model") / "rm", lambda: request.param(testing.tiny_vocabulary())
    )


@pytest.mark.parametrize("max_tokens", [200, None])
def test_scores_are_those_of_the_plain_forward_pass(folder: Path, max_tokens: int | None) -> None:
    expected = plain_logits(folder)
    assert max(expected) - min(expected) > 0.1
    assert load_scorer(str(folder), max_tokens=max_tokens).score(ITEMS) == pytest.approx(expected, abs=1e-5, rel=0)


def test_prefixes_are_shared_by_plain_decoders_alone_and_doctor_says_why(folder: Path) -> None:
    model = load_classifier(str(folder))[0]
    reason = reason_not_to_share(model)
    assert (reason is None) == (model.config.model_type == "gemma3_text")
    said = {check.name: check.finding for check in examine(str(folder))}["shared prefixes"]
    assert said == ("equal to single sequences (gemma3_text)" if reason is None else f"no: {reason}")


def test_longest_sequence_is_the_text_configs(folder: Path) -> None:
    too_long = ("word", "x = 1\n" * 600)
    score, none = load_scorer(str(folder)).score([ITEMS[0], too_long])
    assert (none, isinstance(score, float)) == (None, True)


def test_server_warms_up_and_doctor_finds_no_failure_but_the_order(folder: Path) -> None:
    CodeScaler(str(folder)).check()
    checks = {check.name: check for check in examine(str(folder))}
    assert {name for name, check in checks.items() if check.state == "failed"} <= {"example"}  # weights are random
    assert checks["pad token"].finding.startswith("config 0, tokenizer 0")
    assert checks["max length"].finding.startswith("model 1024")


def test_bench_measures(folder: Path) -> None:
    sizes = ["--group", "2", "--prompt", "20", "--completion", "5", "--repetitions", "1"]
    result = CliRunner().invoke(app, ["bench", "--model", str(folder), *sizes])
    assert result.exit_code == 0, result.output


@pytest.mark.parametrize("make", [gemma3, qwen3_5], ids=lambda make: make.__name__)
def test_trained_model_scores_as_it_did_in_the_trainer(make: Any, tmp_path: Path) -> None:
    start = testing.save_tiny_model(
        tmp_path / "start", lambda: make({**testing.tiny_vocabulary(), "pad_token_id": None})
    )
    rows = [{"problem": problem, "chosen": code, "rejected": "x = 2\n"} for problem, code in ITEMS[:3]]
    args = CodeScalerRewardConfig(
        str(tmp_path / "trained"),
        use_cpu=True,
        bf16=False,
        gradient_checkpointing=False,
        max_steps=1,
        learning_rate=0.01,
        max_length=512,
        report_to="none",
        disable_tqdm=True,
    )
    trainer = CodeScalerRewardTrainer(str(start), args=args, train_dataset=Dataset.from_list(rows))
    before = load_scorer(str(start)).score(ITEMS)
    trainer.train()
    trainer.save_model()
    inside = TransformersScorer(trainer.model, tokenizer=trainer.processing_class).score(ITEMS)
    saved = load_scorer(str(tmp_path / "trained")).score(ITEMS)
    assert saved == pytest.approx(inside, abs=1e-5, rel=0)
    assert saved == pytest.approx(plain_logits(tmp_path / "trained"), abs=1e-5, rel=0)
    assert saved != pytest.approx(before, abs=1e-2)
