"""How the scorer in this process spends and saves work: sharing, dedupe, cache, memory, devices."""

import errno
import logging
import multiprocessing
import os
import pickle
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn.attention import varlen
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from codescaler_plugin import ConfigError, ScorerError, load_scorer
from codescaler_plugin.prefetch import grouped_chunks, prefetch
from codescaler_plugin.scoring import attention, forward, forward_cpu, transformers_scorer
from codescaler_plugin.scoring.cache import ScoreCache, content_key, fingerprint
from codescaler_plugin.scoring.prefix_tree import Node
from codescaler_plugin.scoring.rendering import Renderer
from codescaler_plugin.scoring.transformers_scorer import TransformersScorer
from tests.scoring.test_attention import plain_varlen

PROBLEM = "Write a function solve(n) that returns the sum of the first n numbers. " * 3
ITEMS = [(PROBLEM, f"def solve(n):\n    return n + {number}\n") for number in range(6)]
ITEMS += [("Another problem.", "def solve(n):\n    return 1\n"), ITEMS[0], ITEMS[3]]


@pytest.fixture(scope="module")
def expected(tiny_rm_dir: Path) -> list[float]:
    """Each sample alone."""
    scorer = load_scorer(str(tiny_rm_dir), cache_size=0)
    scores = [score for item in ITEMS for score in scorer.score([item])]
    assert len(set(scores)) == 7
    return scores


def handle(folder: Path) -> tuple[Any, Any]:
    model = AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float32)
    return model, AutoTokenizer.from_pretrained(folder)


def lengths(folder: Path, items: list[tuple[str, str]]) -> list[int]:
    return [len(row) for row in Renderer(AutoTokenizer.from_pretrained(folder)).encode(items)]


def test_prefix_of_a_group_is_computed_once_and_duplicates_not_at_all(
    tiny_rm_dir: Path, expected: list[float]
) -> None:
    scorer = TransformersScorer(str(tiny_rm_dir), cache_size=0)
    assert scorer.score(ITEMS) == pytest.approx(expected, abs=1e-5, rel=0)
    stats = scorer.stats
    assert (stats.items, stats.unique, stats.cache_hits, stats.unscorable) == (9, 7, 0, 0)
    assert stats.real_tokens == sum(lengths(tiny_rm_dir, ITEMS[:7]))
    assert stats.computed_tokens < 0.45 * stats.real_tokens
    assert stats.padded_tokens == 0
    assert stats.encode_seconds > 0
    assert stats.forward_seconds > 0


def test_known_scores_are_not_computed_again(tiny_rm_dir: Path, expected: list[float]) -> None:
    scorer = TransformersScorer(str(tiny_rm_dir))
    first = scorer.score(ITEMS)
    computed = scorer.stats.computed_tokens
    assert scorer.score(ITEMS[::-1]) == first[::-1]
    assert scorer.stats.computed_tokens == computed
    assert scorer.stats.cache_hits == 7


def test_memory_of_scores_is_bounded(tiny_rm_dir: Path) -> None:
    scorer = TransformersScorer(str(tiny_rm_dir), cache_size=2)
    scorer.score(ITEMS)
    scorer.score(ITEMS)
    assert scorer.stats.cache_hits <= 2


def test_failed_call_keeps_what_was_scored_before_the_failure(
    tiny_rm_dir: Path, expected: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transformers_scorer, "_CHUNK", 6)
    scorer = TransformersScorer(str(tiny_rm_dir))
    passes = forward.tree_logits

    def break_on_the_other_problem(model: Any, rows: list[list[int]], *, max_tokens: int) -> Any:
        if len(rows) == 1:
            raise RuntimeError("device lost")
        return passes(model, rows, max_tokens=max_tokens)

    monkeypatch.setattr(transformers_scorer, "tree_logits", break_on_the_other_problem)
    with pytest.raises(ScorerError, match="device lost") as caught:
        scorer.score(ITEMS)
    assert caught.value.scores[6] is None
    assert [score for index, score in enumerate(caught.value.scores) if index != 6] == pytest.approx(
        [score for index, score in enumerate(expected) if index != 6], abs=1e-5, rel=0
    )


# A model that the caller has loaded


def test_loaded_model_is_scored_and_left_as_it_was(tiny_rm_dir: Path, expected: list[float]) -> None:
    model, tokenizer = handle(tiny_rm_dir)
    model.train()
    before = model.config.to_dict(), model.config._attn_implementation
    scorer = TransformersScorer(model, tokenizer=tokenizer)
    assert scorer.score(ITEMS) == pytest.approx(expected, abs=1e-5, rel=0)
    assert (model.config.to_dict(), model.config._attn_implementation) == before
    assert model.training
    assert all(weight.requires_grad and weight.grad is None for weight in model.parameters())


def test_module_that_is_in_another_mode_than_the_model_keeps_it(tiny_rm_dir: Path) -> None:
    model, tokenizer = handle(tiny_rm_dir)
    model.train()
    model.model.eval()
    TransformersScorer(model, tokenizer=tokenizer).score(ITEMS[:1])
    assert [name for name, module in model.named_modules() if module.training] == ["", "score"]


def test_autocast_of_the_caller_changes_no_score(tiny_rm_dir: Path, expected: list[float]) -> None:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert load_scorer(str(tiny_rm_dir)).score(ITEMS) == pytest.approx(expected, abs=1e-5, rel=0)


@pytest.mark.parametrize("task", [None, "SEQ_CLS"])
@pytest.mark.parametrize("pad", [0, 300, None])
def test_scores_of_a_model_with_adapters_are_those_of_single_samples(
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
    scorer.score(ITEMS[:1])
    model.to(torch.bfloat16)
    scorer.score(ITEMS[:1])
    assert scorer.stats.cache_hits == 0


def test_scores_of_older_weights_are_forgotten(tiny_rm_dir: Path) -> None:
    model, tokenizer = handle(tiny_rm_dir)
    scorer = TransformersScorer(model, tokenizer=tokenizer)
    before = scorer.score(ITEMS[:1])
    with torch.no_grad():
        model.score.weight.mul_(2)
    assert scorer.score(ITEMS[:1]) == pytest.approx([2 * before[0]], abs=1e-5)


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


def test_tokenizer_without_a_pad_token_will_do(tiny_rm_dir: Path, expected: list[float]) -> None:
    model, tokenizer = handle(tiny_rm_dir)
    tokenizer.pad_token = None
    model.config.pad_token_id = None
    assert TransformersScorer(model, tokenizer=tokenizer).score(ITEMS) == pytest.approx(expected, abs=1e-5, rel=0)


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
        TransformersScorer(model, tokenizer=tokenizer).score(ITEMS)


def test_loaded_model_without_one_label_is_a_config_error(tiny_policy_dir: Path) -> None:
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(tiny_policy_dir)
    with pytest.raises(ConfigError, match="2 labels"):
        TransformersScorer(model, tokenizer=AutoTokenizer.from_pretrained(tiny_policy_dir)).score(ITEMS)


# The self-check


def test_shared_prefixes_that_give_other_scores_are_given_up_with_numbers(
    tiny_rm_dir: Path, expected: list[float], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    passes = forward.tree_logits

    def wrong(model: Any, rows: list[list[int]], *, max_tokens: int) -> Any:
        for done in passes(model, rows, max_tokens=max_tokens):
            yield forward.Pass([(item, logit + 0.5) for item, logit in done.logits], done.tokens, 0)

    monkeypatch.setattr(transformers_scorer, "tree_logits", wrong)
    scorer = TransformersScorer(str(tiny_rm_dir))
    with caplog.at_level(logging.WARNING, logger="codescaler_plugin"):
        assert scorer.score(ITEMS) == pytest.approx(expected, abs=1e-5, rel=0)
    assert "differ from those of single samples" in caplog.text
    assert "by up to 0.5" in caplog.text


def test_sharing_is_checked_even_if_one_sample_comes_first(
    tiny_rm_dir: Path, expected: list[float], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    tree = attention.Tree

    def blind(nodes: list[Node]) -> Any:  # to prefixes
        return tree([replace(node, subtree_end=node.end) for node in nodes])

    monkeypatch.setattr(attention, "Tree", blind)
    scorer = TransformersScorer(str(tiny_rm_dir))
    with caplog.at_level(logging.WARNING, logger="codescaler_plugin"):
        scorer.score(ITEMS[:1])
    assert "differ from those of single samples" in caplog.text
    assert scorer.score(ITEMS) == pytest.approx(expected, abs=1e-5, rel=0)


@pytest.mark.parametrize("bad", [{0, 1, 2}, {0}, {1}, {2}])
def test_shared_prefixes_that_give_nan_are_given_up(
    tiny_rm_dir: Path, expected: list[float], bad: set[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    passes = forward.tree_logits

    def broken(model: Any, rows: list[list[int]], *, max_tokens: int) -> Any:
        for done in passes(model, rows, max_tokens=max_tokens):
            logits = [(item, float("nan") if item in bad else logit) for item, logit in done.logits]
            yield forward.Pass(logits, done.tokens, 0)

    monkeypatch.setattr(transformers_scorer, "tree_logits", broken)
    assert TransformersScorer(str(tiny_rm_dir)).score(ITEMS) == pytest.approx(expected, abs=1e-5, rel=0)


@pytest.mark.parametrize("kind", [RuntimeError, TypeError])
def test_shared_prefixes_that_fail_are_given_up_with_the_reason(
    tiny_rm_dir: Path,
    expected: list[float],
    kind: type[Exception],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise kind("no kernel for this shape")

    monkeypatch.setattr(attention, "Tree", fail)
    with caplog.at_level(logging.WARNING, logger="codescaler_plugin"):
        assert TransformersScorer(str(tiny_rm_dir)).score(ITEMS) == pytest.approx(expected, abs=1e-5, rel=0)
    assert "shared prefixes fail: no kernel for this shape; padded batches" in caplog.text


# Compiled layers


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What a GPU has, with plain products for its kernel; graphs are captured and run as they are."""

    def kernel(*given: Any) -> Any:
        q, scale, window = given[0], *given[8:10]
        return plain_varlen(*given[:7], scale=scale, window_size=window), q.new_empty(q.shape[1::-1]), q.new_empty(2)

    varlen._varlen_attn.register_kernel("cpu")(kernel)
    monkeypatch.setattr(attention, "_kernel", lambda *_, **__: attention._varlen)
    monkeypatch.setattr(forward_cpu, "faster", lambda *_: nullcontext())
    monkeypatch.setattr(forward, "_BACKEND", "eager")
    monkeypatch.setattr(transformers_scorer, "COMPILE_AFTER", 1)
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def compiling(folder: Path) -> TransformersScorer:
    """A scorer whose next call compiles."""
    scorer = TransformersScorer(str(folder), cache_size=0)
    scorer.score(ITEMS[:2])
    assert scorer._engine is not None
    scorer._engine.compiles = True
    return scorer


def compiled(scorer: TransformersScorer) -> bool:
    assert scorer._engine is not None
    return all("forward" in vars(layer) for layer in scorer._engine.model.model.layers)


@pytest.mark.usefixtures("gpu")
def test_layers_are_compiled_once_after_many_tokens_for_all_lengths(
    tiny_rm_dir: Path, expected: list[float], caplog: pytest.LogCaptureFixture
) -> None:
    scorer = compiling(tiny_rm_dir)
    with caplog.at_level(logging.INFO, logger="codescaler_plugin"):
        assert not compiled(scorer)
        assert scorer.score(ITEMS) == pytest.approx(expected, abs=1e-5, rel=0)
        assert compiled(scorer)
        graphs = torch._dynamo.utils.counters["stats"]["unique_graphs"]
        for number in range(2, len(ITEMS)):
            assert scorer.score(ITEMS[:number]) == pytest.approx(expected[:number], abs=1e-5, rel=0)
    assert graphs == torch._dynamo.utils.counters["stats"]["unique_graphs"] == 1
    assert [record.levelname for record in caplog.records] == ["INFO"]


@pytest.mark.usefixtures("gpu")
def test_compiler_that_fails_leaves_the_layers_as_they_were(
    tiny_rm_dir: Path, expected: list[float], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def backend(*_: object) -> Any:
        raise OSError("no C compiler")

    monkeypatch.setattr(forward, "_BACKEND", backend)
    scorer = compiling(tiny_rm_dir)
    assert scorer.score(ITEMS) == scorer.score(ITEMS) == pytest.approx(expected, abs=1e-5, rel=0)
    assert not compiled(scorer)
    assert caplog.text.count("its layers stay uncompiled, and slower: ") == 1
    assert "no C compiler" in caplog.text


@pytest.mark.usefixtures("gpu")
@pytest.mark.parametrize("kind", [RuntimeError, AssertionError])
def test_row_that_cannot_be_compiled_later_is_scored_all_the_same(
    tiny_rm_dir: Path, expected: list[float], kind: type[Exception], caplog: pytest.LogCaptureFixture
) -> None:
    scorer = compiling(tiny_rm_dir)
    scorer.score(ITEMS)
    assert compiled(scorer)

    def layer(*_: object, **__: object) -> None:
        raise kind("no space left for the compiler")

    assert scorer._engine is not None
    for one in scorer._engine.model.model.layers:
        one.forward = layer
    assert scorer.score(ITEMS) == pytest.approx(expected, abs=1e-5, rel=0)
    assert not compiled(scorer)
    assert "its layers stay uncompiled, and slower: no space left for the compiler" in caplog.text


@pytest.mark.usefixtures("gpu")
def test_python_that_cannot_compile_scores_all_the_same(
    tiny_rm_dir: Path, expected: list[float], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refused(*_: object, **__: object) -> None:
        raise RuntimeError("torch.compile is not supported on Python 3.15+")

    monkeypatch.setattr(torch, "compile", refused)
    scorer = compiling(tiny_rm_dir)
    assert scorer.score(ITEMS) == scorer.score(ITEMS) == pytest.approx(expected, abs=1e-5, rel=0)
    assert caplog.text.count("its layers stay uncompiled, and slower: torch.compile is not supported") == 1


@pytest.mark.usefixtures("gpu")
@pytest.mark.parametrize("error", [KeyboardInterrupt(), torch.cuda.OutOfMemoryError("out of memory")])
def test_compilation_that_is_broken_off_comes_again(
    tiny_rm_dir: Path, expected: list[float], monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    scorer = compiling(tiny_rm_dir)
    right = transformers_scorer._difference

    def broken(*_: object, **__: object) -> None:
        monkeypatch.setattr(transformers_scorer, "_difference", right)
        assert scorer._engine is not None
        scorer._engine.max_tokens = 2000
        raise error

    monkeypatch.setattr(transformers_scorer, "_difference", broken)
    if isinstance(error, KeyboardInterrupt):
        with pytest.raises(KeyboardInterrupt):
            scorer.score(ITEMS)
        assert not compiled(scorer)
    assert scorer.score(ITEMS) == pytest.approx(expected, abs=1e-5, rel=0)
    assert compiled(scorer)


@pytest.mark.usefixtures("gpu")
def test_compiled_layers_that_give_other_scores_are_given_up_with_numbers(
    tiny_rm_dir: Path, expected: list[float], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def backend(graph: Any, _: object) -> Any:
        return lambda *inputs: tuple(2 * one for one in graph(*inputs))

    monkeypatch.setattr(forward, "_BACKEND", backend)
    scorer = compiling(tiny_rm_dir)
    assert scorer.score(ITEMS) == pytest.approx(expected, abs=1e-5, rel=0)
    assert not compiled(scorer)
    assert "its layers stay uncompiled, and slower: scores differ by up to" in caplog.text


def test_layers_on_a_cpu_and_of_a_loaded_model_are_never_compiled(
    tiny_rm_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transformers_scorer, "COMPILE_AFTER", 1)
    model, words = handle(tiny_rm_dir)
    for scorer in (TransformersScorer(str(tiny_rm_dir)), TransformersScorer(model, tokenizer=words)):
        scorer.score(ITEMS[:2])
        scorer.score(ITEMS)
        assert not compiled(scorer)


# Memory and devices


def test_running_out_of_memory_halves_the_passes_and_goes_on(
    tiny_rm_dir: Path, expected: list[float], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    passes, longest = forward.row_logits, max(lengths(tiny_rm_dir, ITEMS))

    def small_machine(model: Any, row: Any) -> Any:
        if len(row.tokens) > longest:
            raise RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory")
        return passes(model, row)

    monkeypatch.setattr(forward, "row_logits", small_machine)
    scorer = TransformersScorer(str(tiny_rm_dir), max_tokens=2000)
    with caplog.at_level(logging.WARNING, logger="codescaler_plugin"):
        assert scorer.score(ITEMS) == pytest.approx(expected, abs=1e-5, rel=0)
    assert "forward passes of" in caplog.text


def test_memory_that_does_not_suffice_for_one_sample_is_a_scorer_error(
    tiny_rm_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_machine(model: Any, row: Any) -> Any:
        raise torch.cuda.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(forward, "row_logits", no_machine)
    with pytest.raises(ScorerError, match=r"CUDA out of memory.*max_tokens"):
        TransformersScorer(str(tiny_rm_dir)).score(ITEMS)


@pytest.mark.parametrize(("free_mb", "tokens"), [(0, 1024), (8, 1674), (100_000, forward.MAX_TOKENS)])
def test_token_budget_follows_the_free_memory(
    tiny_rm_dir: Path, free_mb: int, tokens: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    import psutil

    class Memory:
        available = free_mb * 1_000_000

    monkeypatch.setattr(psutil, "virtual_memory", Memory)
    model, _ = handle(tiny_rm_dir)
    assert forward.fitting_tokens(model) == pytest.approx(tokens, rel=0.5)


def test_offloaded_model_scores_as_before(tiny_rm_dir: Path, expected: list[float]) -> None:
    scorer = TransformersScorer(str(tiny_rm_dir), cache_size=0)
    scorer.score(ITEMS[:1])
    scorer.offload()
    assert scorer.score(ITEMS) == pytest.approx(expected, abs=1e-5, rel=0)
    every_call = TransformersScorer(str(tiny_rm_dir), cache_size=0, offload=True)
    assert every_call.score(ITEMS) == every_call.score(ITEMS) == pytest.approx(expected, abs=1e-5, rel=0)


@pytest.mark.parametrize("device", ["nope", "cuda:99"])
def test_device_that_is_not_there_is_a_config_error_that_names_it(tiny_rm_dir: Path, device: str) -> None:
    with pytest.raises(ConfigError, match=f"device '{device}' cannot be used here: .*; give cpu, cuda"):
        load_scorer(str(tiny_rm_dir), device=device).score(ITEMS[:1])


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


def test_model_loads_whole_under_zero3_settings_of_the_trainer(tiny_rm_dir: Path, expected: list[float]) -> None:
    pytest.importorskip("deepspeed", reason="DeepSpeed is not installed")
    from transformers.integrations import HfDeepSpeedConfig, is_deepspeed_zero3_enabled

    settings = {"zero_optimization": {"stage": 3}, "train_micro_batch_size_per_gpu": 1}
    config = HfDeepSpeedConfig(settings)  # what TrainingArguments(deepspeed=...) does
    assert is_deepspeed_zero3_enabled()
    assert load_scorer(str(tiny_rm_dir)).score(ITEMS) == pytest.approx(expected, abs=1e-5, rel=0)
    assert is_deepspeed_zero3_enabled()
    del config
    assert not is_deepspeed_zero3_enabled()


# The file of scores


def test_file_of_scores_serves_another_scorer(tiny_rm_dir: Path, tmp_path: Path) -> None:
    first = TransformersScorer(str(tiny_rm_dir), cache_dir=str(tmp_path / "scores"))
    scores = first.score(ITEMS)
    second = TransformersScorer(str(tiny_rm_dir), cache_dir=str(tmp_path / "scores"), cache_size=0)
    assert second.score(ITEMS) == scores
    assert second.stats.computed_tokens == 0


def _score_elsewhere(folder: str, cache: str, queue: Any) -> None:
    scorer = TransformersScorer(folder, cache_dir=cache)
    queue.put((scorer.score(ITEMS), scorer.stats.computed_tokens))


def test_file_of_scores_serves_another_process(tiny_rm_dir: Path, tmp_path: Path) -> None:
    scorer = TransformersScorer(str(tiny_rm_dir), cache_dir=str(tmp_path))
    scores = scorer.score(ITEMS)
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    process = context.Process(target=_score_elsewhere, args=(str(tiny_rm_dir), str(tmp_path), queue))
    process.start()
    assert queue.get(timeout=120) == (scores, 0)
    process.join()


def test_other_weights_have_other_scores_in_the_same_file(tiny_rm_dir: Path, tmp_path: Path) -> None:
    model, tokenizer = handle(tiny_rm_dir)
    scorer = TransformersScorer(model, tokenizer=tokenizer, cache_dir=str(tmp_path))
    before = scorer.score(ITEMS[:1])
    with torch.no_grad():
        model.score.weight.mul_(2)
    assert scorer.score(ITEMS[:1]) == pytest.approx([2 * before[0]], abs=1e-5)


def test_fingerprint_tells_weights_dtype_and_template_apart(tiny_rm_dir: Path) -> None:
    model, _ = handle(tiny_rm_dir)
    same = fingerprint(handle(tiny_rm_dir)[0], "template")
    assert fingerprint(model, "template") == same
    assert fingerprint(model, "other") != same
    with torch.no_grad():
        model.model.layers[0].mlp.up_proj.weight[0, 0] += 1e-3
    assert fingerprint(model, "template") != same
    for swapped in ("model.layers.0.mlp.up_proj.weight", "model.norm.weight"):
        model, _ = handle(tiny_rm_dir)
        weight = model.get_parameter(swapped)
        with torch.no_grad():
            weight[0] += 1
            other = fingerprint(model, "template")
            weight[[0, 1]] = weight[[1, 0]]
        assert fingerprint(model, "template") != other, swapped
    assert fingerprint(handle(tiny_rm_dir)[0].to(torch.bfloat16), "template") != same


def test_full_file_is_reported_once_and_still_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("codescaler_plugin.scoring.cache.DISK_BYTES", 40_960)
    cache = ScoreCache(0, str(tmp_path / "small"))
    keys = [content_key(b"", [number]) for number in range(3000)]
    cache.put({keys[0]: 1.5})
    with caplog.at_level(logging.WARNING, logger="codescaler_plugin"):
        cache.put(dict.fromkeys(keys, 1.5))
        cache.put(dict.fromkeys(keys, 1.5))
    assert caplog.text.count("is full") == 1
    assert cache.get(keys[0]) == 1.5


def test_file_that_fails_is_reported_once_and_scoring_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    import lmdb

    class Full:
        def begin(self, **_: object) -> None:
            raise lmdb.DiskError("no space left on device")

    key = content_key(b"", [1])
    cache = ScoreCache(10, str(tmp_path / "cache"))
    monkeypatch.setattr("codescaler_plugin.scoring.cache._opened", lambda *_: Full())
    with caplog.at_level(logging.WARNING, logger="codescaler_plugin"):
        assert cache.get(key) is None
        for _ in range(2):
            cache.put({key: 1.5})
    assert caplog.text.count("no space left on device") == 1
    assert cache.get(key) == 1.5


def test_folder_that_cannot_be_made_is_a_config_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="cache_dir"):
        ScoreCache(1, str(tmp_path / "file" / "scores"))


# Threads


def test_threads_get_their_own_scores(tiny_rm_dir: Path, expected: list[float]) -> None:
    scorer = TransformersScorer(str(tiny_rm_dir), cache_size=0)
    results: dict[int, list[float | None]] = {}

    def score(index: int) -> None:
        results[index] = scorer.score([ITEMS[index]])

    threads = [threading.Thread(target=score, args=(index,)) for index in range(len(ITEMS))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [results[index][0] for index in range(len(ITEMS))] == pytest.approx(expected, abs=1e-5, rel=0)


def test_stats_travel_with_a_pickled_scorer_and_the_model_does_not(tiny_rm_dir: Path) -> None:
    scorer = TransformersScorer(str(tiny_rm_dir))
    scorer.score(ITEMS)
    copy = pickle.loads(pickle.dumps(scorer))
    assert copy.stats == scorer.stats
    assert copy._engine is None


def test_next_chunk_is_computed_while_the_caller_is_busy() -> None:
    started = threading.Event()

    def work(number: int) -> int:
        if number == 1:
            started.set()
        return number

    results = prefetch(work, [0, 1, 2])
    assert next(results) == 0
    assert started.wait(5), "the second chunk waits for the caller"
    assert list(results) == [1, 2]


def test_error_of_a_chunk_comes_in_its_place() -> None:
    def work(number: int) -> float:
        return 1 / number

    results = prefetch(work, [1, 0, 2])
    assert next(results) == 1
    with pytest.raises(ZeroDivisionError):
        next(results)


def test_chunks_hold_equal_keys_together_in_order_of_first_sight() -> None:
    assert list(grouped_chunks("abcab", 1)) == [[0, 3], [1, 4], [2]]
    assert list(grouped_chunks("abcab", 3)) == [[0, 3, 1, 4], [2]]
    assert list(grouped_chunks("", 3)) == []


def test_a_cache_on_a_full_disk_keeps_scores_in_memory_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """LMDB maps its file of locks, and a hole in it would end the process by SIGBUS."""
    pytest.importorskip("lmdb")

    def full(*_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    cache = ScoreCache(4, str(tmp_path / "full"))
    cache.put({b"k" * 32: 1.5})
    assert cache.get(b"k" * 32) == 1.5
    assert "no score is kept on disk" in caplog.text
    monkeypatch.undo()
    ScoreCache(4, str(tmp_path / "room"))
    assert (tmp_path / "room" / "lock.mdb").stat().st_blocks > 0


def test_a_disk_that_fills_while_the_cache_is_made_is_a_warning_and_no_lasting_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    lmdb = pytest.importorskip("lmdb")

    def full(folder: str, **_: int) -> None:
        Path(folder, "data.mdb").write_bytes(bytes(4096))  # what LMDB leaves where one page of two has room
        raise lmdb.DiskError("No space left on device")

    monkeypatch.setattr(lmdb, "open", full)
    folder = str(tmp_path / "cache")
    first = ScoreCache(4, folder)
    first.put({b"k" * 32: 1.5})
    assert first.get(b"k" * 32) == 1.5
    assert caplog.text.count("no score is kept on disk") == 1
    monkeypatch.undo()
    ScoreCache(0, folder).put({b"k" * 32: 2.5})
    assert ScoreCache(0, folder).get(b"k" * 32) == 2.5
