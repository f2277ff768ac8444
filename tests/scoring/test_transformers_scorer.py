"""The scorer in this process: right scores, each computed once, and a loaded model left as it was."""

import logging
import pickle
import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoTokenizer

from codescaler_plugin import ConfigError, ScorerError, load_scorer
from codescaler_plugin.scoring import forward, loaded_model, transformers_scorer
from codescaler_plugin.scoring.rendering import Renderer
from codescaler_plugin.scoring.transformers_scorer import TransformersScorer
from tests import models
from tests.scoring.programs import GROUP, ITEMS, PROBLEM, handle, lengths, plain_logits


@pytest.mark.parametrize("max_tokens", [1, 120, 8192])
def test_scores_equal_the_models_logits_of_single_sequences(
    tiny_rm_dir: Path, expected: list[float], max_tokens: int
) -> None:
    scores = load_scorer(str(tiny_rm_dir), max_tokens=max_tokens).score(ITEMS)
    assert scores == pytest.approx(expected, abs=1e-5, rel=0)


def test_scores_follow_the_order_of_the_items(tiny_rm_dir: Path, expected: list[float]) -> None:
    scores = load_scorer(str(tiny_rm_dir)).score(ITEMS[::-1])
    assert scores == pytest.approx(expected[::-1], abs=1e-5, rel=0)


@pytest.fixture(scope="module")
def encoder_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return models.save_encoder(tmp_path_factory.mktemp("encoder"))


def test_encoder_model_scores_with_its_own_pooling(encoder_dir: Path) -> None:
    expected = plain_logits(encoder_dir)
    scores = load_scorer(str(encoder_dir), max_tokens=200).score(ITEMS)
    assert scores == pytest.approx(expected, abs=1e-5, rel=0)
    assert max(expected) - min(expected) > 1e-3


def test_no_items_give_no_scores_and_load_nothing() -> None:
    assert load_scorer("some/where-not-there").score([]) == []


def test_program_that_is_too_long_gets_no_score_and_the_others_keep_theirs(
    tiny_rm_dir: Path, expected: list[float], caplog: pytest.LogCaptureFixture
) -> None:
    scorer = load_scorer(str(tiny_rm_dir), max_length=150)
    with caplog.at_level(logging.WARNING, logger="codescaler_plugin"):
        scores = scorer.score(ITEMS)
    assert scores[-1] is None
    assert scores[:-1] == pytest.approx(expected[:-1], abs=1e-5, rel=0)
    assert "1 of 6 programs get no score: they are too long for 150 tokens" in caplog.text


def test_program_of_exactly_the_greatest_length_is_scored(tiny_rm_dir: Path) -> None:
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
    assert scorer._loaded is not None
    torch.nn.init.constant_(scorer._loaded.model.score.weight, float("nan"))
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
    assert scorer._loaded is not None

    def fail(*_: object) -> None:
        raise RuntimeError("out of memory")

    scorer._loaded.model.model.layers[0].register_forward_pre_hook(fail)
    with pytest.raises(ScorerError, match=r"out of memory.*max_tokens"):
        scorer.score(ITEMS)


def test_prefix_of_a_group_is_computed_once_and_duplicates_not_at_all(
    tiny_rm_dir: Path, group_scores: list[float]
) -> None:
    scorer = TransformersScorer(str(tiny_rm_dir), cache_size=0)
    assert scorer.score(GROUP) == pytest.approx(group_scores, abs=1e-5, rel=0)
    stats = scorer.stats
    assert (stats.items, stats.unique, stats.cache_hits, stats.unscorable) == (9, 7, 0, 0)
    assert stats.real_tokens == sum(lengths(tiny_rm_dir, GROUP[:7]))
    assert stats.computed_tokens < 0.45 * stats.real_tokens
    assert stats.padded_tokens == 0
    assert stats.encode_seconds > 0
    assert stats.forward_seconds > 0


def test_known_scores_are_not_computed_again(tiny_rm_dir: Path, group_scores: list[float]) -> None:
    scorer = TransformersScorer(str(tiny_rm_dir))
    first = scorer.score(GROUP)
    computed = scorer.stats.computed_tokens
    assert scorer.score(GROUP[::-1]) == first[::-1]
    assert scorer.stats.computed_tokens == computed
    assert scorer.stats.cache_hits == 7


def test_memory_of_scores_is_bounded(tiny_rm_dir: Path) -> None:
    scorer = TransformersScorer(str(tiny_rm_dir), cache_size=2)
    scorer.score(GROUP)
    scorer.score(GROUP)
    assert scorer.stats.cache_hits <= 2


def test_failed_call_keeps_what_was_scored_before_the_failure(
    tiny_rm_dir: Path, group_scores: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transformers_scorer, "_CHUNK", 6)
    scorer = TransformersScorer(str(tiny_rm_dir))
    passes = forward.tree_logits

    def break_on_the_other_problem(model: Any, rows: list[list[int]], *, max_tokens: int) -> Any:
        if len(rows) == 1:
            raise RuntimeError("device lost")
        return passes(model, rows, max_tokens=max_tokens)

    monkeypatch.setattr(loaded_model, "tree_logits", break_on_the_other_problem)
    with pytest.raises(ScorerError, match="device lost") as caught:
        scorer.score(GROUP)
    assert caught.value.scores[6] is None
    assert [score for index, score in enumerate(caught.value.scores) if index != 6] == pytest.approx(
        [score for index, score in enumerate(group_scores) if index != 6], abs=1e-5, rel=0
    )


def test_loaded_model_is_scored_and_left_as_it_was(tiny_rm_dir: Path, group_scores: list[float]) -> None:
    model, tokenizer = handle(tiny_rm_dir)
    model.train()
    before = model.config.to_dict(), model.config._attn_implementation
    scorer = TransformersScorer(model, tokenizer=tokenizer)
    assert scorer.score(GROUP) == pytest.approx(group_scores, abs=1e-5, rel=0)
    assert (model.config.to_dict(), model.config._attn_implementation) == before
    assert model.training
    assert all(weight.requires_grad and weight.grad is None for weight in model.parameters())


def test_module_that_is_in_another_mode_than_the_model_keeps_it(tiny_rm_dir: Path) -> None:
    model, tokenizer = handle(tiny_rm_dir)
    model.train()
    model.model.eval()
    TransformersScorer(model, tokenizer=tokenizer).score(GROUP[:1])
    assert [name for name, module in model.named_modules() if module.training] == ["", "score"]


def test_autocast_of_the_caller_changes_no_score(tiny_rm_dir: Path, group_scores: list[float]) -> None:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert load_scorer(str(tiny_rm_dir)).score(GROUP) == pytest.approx(group_scores, abs=1e-5, rel=0)


@pytest.mark.parametrize("task", [None, "SEQ_CLS"])
@pytest.mark.parametrize("pad", [0, 300, None])
def test_scores_of_a_model_with_adapters_are_those_of_single_sequences(
    tiny_rm_dir: Path, pad: int | None, task: str | None
) -> None:
    peft = pytest.importorskip("peft", reason="PEFT is not installed")
    model, tokenizer = handle(tiny_rm_dir)
    model.config.pad_token_id = pad
    torch.manual_seed(0)
    settings = peft.LoraConfig(task_type=task, target_modules=["q_proj", "v_proj"], init_lora_weights=False)
    adapted = peft.get_peft_model(model, settings).eval()
    items = [(PROBLEM, "x = 1\n" * count) for count in (1, 2, 9)]
    with torch.inference_mode():
        single = [adapted(input_ids=torch.tensor([row])).logits.item() for row in Renderer(tokenizer).encode(items)]
    assert max(single) - min(single) > 1e-3
    assert TransformersScorer(adapted, tokenizer=tokenizer).score(items) == pytest.approx(single, abs=1e-5, rel=0)


def test_scores_of_another_dtype_are_forgotten(tiny_rm_dir: Path) -> None:
    model, tokenizer = handle(tiny_rm_dir)
    scorer = TransformersScorer(model, tokenizer=tokenizer)
    scorer.score(GROUP[:1])
    model.to(torch.bfloat16)
    scorer.score(GROUP[:1])
    assert scorer.stats.cache_hits == 0


def test_scores_of_older_weights_are_forgotten(tiny_rm_dir: Path) -> None:
    model, tokenizer = handle(tiny_rm_dir)
    scorer = TransformersScorer(model, tokenizer=tokenizer)
    before = scorer.score(GROUP[:1])
    with torch.no_grad():
        model.score.weight.mul_(2)
    assert scorer.score(GROUP[:1]) == pytest.approx([2 * before[0]], abs=1e-5)


@pytest.mark.parametrize(
    ("settings", "message"),
    [({}, "tokenizer"), ({"tokenizer": object(), "device": "cpu"}, "stays where it is"),
     ({"tokenizer": object(), "offload": True}, "stays where it is")],
)  # fmt: skip
def test_loaded_model_with_settings_that_do_not_fit_is_a_config_error(
    tiny_rm_dir: Path, settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        TransformersScorer(handle(tiny_rm_dir)[0], **settings)


def test_tokenizer_without_a_pad_token_will_do(tiny_rm_dir: Path, group_scores: list[float]) -> None:
    model, tokenizer = handle(tiny_rm_dir)
    tokenizer.pad_token = None
    model.config.pad_token_id = None
    assert TransformersScorer(model, tokenizer=tokenizer).score(GROUP) == pytest.approx(group_scores, abs=1e-5, rel=0)


def no_template(tokenizer: Any) -> None:
    tokenizer.chat_template = None


def more_tokens(tokenizer: Any) -> None:
    tokenizer.add_tokens(["solve"])


@pytest.mark.parametrize(("change", "message"), [(no_template, "no chat template"), (more_tokens, "do not match")])
def test_loaded_model_with_a_tokenizer_that_does_not_fit_is_a_config_error(
    tiny_rm_dir: Path, change: Any, message: str
) -> None:
    model, tokenizer = handle(tiny_rm_dir)
    change(tokenizer)
    with pytest.raises(ConfigError, match=message):
        TransformersScorer(model, tokenizer=tokenizer).score(GROUP)


def test_loaded_model_without_one_label_is_a_config_error(tiny_policy_dir: Path) -> None:
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(tiny_policy_dir)
    with pytest.raises(ConfigError, match="2 labels"):
        TransformersScorer(model, tokenizer=AutoTokenizer.from_pretrained(tiny_policy_dir)).score(GROUP)


def test_offloaded_model_scores_as_before(tiny_rm_dir: Path, group_scores: list[float]) -> None:
    scorer = TransformersScorer(str(tiny_rm_dir), cache_size=0)
    scorer.score(GROUP[:1])
    scorer.offload()
    assert scorer.score(GROUP) == pytest.approx(group_scores, abs=1e-5, rel=0)
    every_call = TransformersScorer(str(tiny_rm_dir), cache_size=0, offload=True)
    assert every_call.score(GROUP) == every_call.score(GROUP) == pytest.approx(group_scores, abs=1e-5, rel=0)


def test_threads_get_their_own_scores(tiny_rm_dir: Path, group_scores: list[float]) -> None:
    scorer = TransformersScorer(str(tiny_rm_dir), cache_size=0)
    results: dict[int, list[float | None]] = {}

    def score(index: int) -> None:
        results[index] = scorer.score([GROUP[index]])

    threads = [threading.Thread(target=score, args=(index,)) for index in range(len(GROUP))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [results[index][0] for index in range(len(GROUP))] == pytest.approx(group_scores, abs=1e-5, rel=0)


def test_stats_travel_with_a_pickled_scorer_and_the_model_does_not(tiny_rm_dir: Path) -> None:
    scorer = TransformersScorer(str(tiny_rm_dir))
    scorer.score(GROUP)
    copy = pickle.loads(pickle.dumps(scorer))
    assert copy.stats == scorer.stats
    assert copy._loaded is None
