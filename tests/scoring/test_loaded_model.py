"""A loaded model takes its fastest exact way, and falls back from it where that fails."""

import logging
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn.attention import varlen

from codescaler_plugin import ScorerError
from codescaler_plugin.scoring import attention, forward, forward_cpu, loaded_model
from codescaler_plugin.scoring.prefix_tree import Node
from codescaler_plugin.scoring.transformers_scorer import TransformersScorer
from tests.scoring.decoders import plain_varlen
from tests.scoring.programs import GROUP, handle, lengths


def test_shared_prefixes_that_give_other_scores_are_given_up_with_numbers(
    tiny_rm_dir: Path, group_scores: list[float], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    passes = forward.tree_logits

    def wrong(model: Any, rows: list[list[int]], *, max_tokens: int) -> Any:
        for done in passes(model, rows, max_tokens=max_tokens):
            yield forward.Pass([(item, logit + 0.5) for item, logit in done.logits], done.tokens, 0)

    monkeypatch.setattr(loaded_model, "tree_logits", wrong)
    scorer = TransformersScorer(str(tiny_rm_dir))
    with caplog.at_level(logging.WARNING, logger="codescaler_plugin"):
        assert scorer.score(GROUP) == pytest.approx(group_scores, abs=1e-5, rel=0)
    assert "of single sequences by up to" in caplog.text
    assert "by up to 0.5" in caplog.text


def test_sharing_is_checked_even_if_one_program_comes_first(
    tiny_rm_dir: Path, group_scores: list[float], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    tree = attention.Tree

    def blind(nodes: list[Node]) -> Any:  # to prefixes
        return tree([replace(node, subtree_end=node.end) for node in nodes])

    monkeypatch.setattr(attention, "Tree", blind)
    scorer = TransformersScorer(str(tiny_rm_dir))
    with caplog.at_level(logging.WARNING, logger="codescaler_plugin"):
        scorer.score(GROUP[:1])
    assert "of single sequences by up to" in caplog.text
    assert scorer.score(GROUP) == pytest.approx(group_scores, abs=1e-5, rel=0)


@pytest.mark.parametrize("bad", [{0, 1, 2}, {0}, {1}, {2}])
def test_shared_prefixes_that_give_nan_are_given_up(
    tiny_rm_dir: Path, group_scores: list[float], bad: set[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    passes = forward.tree_logits

    def broken(model: Any, rows: list[list[int]], *, max_tokens: int) -> Any:
        for done in passes(model, rows, max_tokens=max_tokens):
            logits = [(item, float("nan") if item in bad else logit) for item, logit in done.logits]
            yield forward.Pass(logits, done.tokens, 0)

    monkeypatch.setattr(loaded_model, "tree_logits", broken)
    assert TransformersScorer(str(tiny_rm_dir)).score(GROUP) == pytest.approx(group_scores, abs=1e-5, rel=0)


@pytest.mark.parametrize("kind", [RuntimeError, TypeError])
def test_shared_prefixes_that_fail_are_given_up_with_the_reason(
    tiny_rm_dir: Path,
    group_scores: list[float],
    kind: type[Exception],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise kind("no kernel for this shape")

    monkeypatch.setattr(attention, "Tree", fail)
    with caplog.at_level(logging.WARNING, logger="codescaler_plugin"):
        assert TransformersScorer(str(tiny_rm_dir)).score(GROUP) == pytest.approx(group_scores, abs=1e-5, rel=0)
    assert "shared prefixes fail: no kernel for this shape; padded batches" in caplog.text


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
    monkeypatch.setattr(loaded_model, "COMPILE_AFTER", 1)
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def compiling(folder: Path) -> TransformersScorer:
    """A scorer whose next call compiles."""
    scorer = TransformersScorer(str(folder), cache_size=0)
    scorer.score(GROUP[:2])
    assert scorer._loaded is not None
    scorer._loaded.compiles = True
    return scorer


def compiled(scorer: TransformersScorer) -> bool:
    assert scorer._loaded is not None
    return all("forward" in vars(layer) for layer in scorer._loaded.model.model.layers)


@pytest.mark.usefixtures("gpu")
def test_layers_are_compiled_once_after_many_tokens_for_all_lengths(
    tiny_rm_dir: Path, group_scores: list[float], caplog: pytest.LogCaptureFixture
) -> None:
    scorer = compiling(tiny_rm_dir)
    with caplog.at_level(logging.INFO, logger="codescaler_plugin"):
        assert not compiled(scorer)
        assert scorer.score(GROUP) == pytest.approx(group_scores, abs=1e-5, rel=0)
        assert compiled(scorer)
        graphs = torch._dynamo.utils.counters["stats"]["unique_graphs"]
        for number in range(2, len(GROUP)):
            assert scorer.score(GROUP[:number]) == pytest.approx(group_scores[:number], abs=1e-5, rel=0)
    assert graphs == torch._dynamo.utils.counters["stats"]["unique_graphs"] == 1
    assert [record.levelname for record in caplog.records] == ["INFO"]


@pytest.mark.usefixtures("gpu")
def test_compiler_that_fails_leaves_the_layers_as_they_were(
    tiny_rm_dir: Path, group_scores: list[float], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def backend(*_: object) -> Any:
        raise OSError("no C compiler")

    monkeypatch.setattr(forward, "_BACKEND", backend)
    scorer = compiling(tiny_rm_dir)
    assert scorer.score(GROUP) == scorer.score(GROUP) == pytest.approx(group_scores, abs=1e-5, rel=0)
    assert not compiled(scorer)
    assert caplog.text.count("its layers stay uncompiled, and slower: ") == 1
    assert "no C compiler" in caplog.text


@pytest.mark.usefixtures("gpu")
@pytest.mark.parametrize("kind", [RuntimeError, AssertionError])
def test_row_that_cannot_be_compiled_later_is_scored_all_the_same(
    tiny_rm_dir: Path, group_scores: list[float], kind: type[Exception], caplog: pytest.LogCaptureFixture
) -> None:
    scorer = compiling(tiny_rm_dir)
    scorer.score(GROUP)
    assert compiled(scorer)

    def layer(*_: object, **__: object) -> None:
        raise kind("no space left for the compiler")

    assert scorer._loaded is not None
    for one in scorer._loaded.model.model.layers:
        one.forward = layer
    assert scorer.score(GROUP) == pytest.approx(group_scores, abs=1e-5, rel=0)
    assert not compiled(scorer)
    assert "its layers stay uncompiled, and slower: no space left for the compiler" in caplog.text


@pytest.mark.usefixtures("gpu")
def test_python_that_cannot_compile_scores_all_the_same(
    tiny_rm_dir: Path, group_scores: list[float], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refused(*_: object, **__: object) -> None:
        raise RuntimeError("torch.compile is not supported on Python 3.15+")

    monkeypatch.setattr(torch, "compile", refused)
    scorer = compiling(tiny_rm_dir)
    assert scorer.score(GROUP) == scorer.score(GROUP) == pytest.approx(group_scores, abs=1e-5, rel=0)
    assert caplog.text.count("its layers stay uncompiled, and slower: torch.compile is not supported") == 1


@pytest.mark.usefixtures("gpu")
@pytest.mark.parametrize("error", [KeyboardInterrupt(), torch.cuda.OutOfMemoryError("out of memory")])
def test_compilation_that_is_broken_off_comes_again(
    tiny_rm_dir: Path, group_scores: list[float], monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    scorer = compiling(tiny_rm_dir)
    right = loaded_model._difference

    def broken(*_: object, **__: object) -> None:
        monkeypatch.setattr(loaded_model, "_difference", right)
        assert scorer._loaded is not None
        scorer._loaded.max_tokens = 2000
        raise error

    monkeypatch.setattr(loaded_model, "_difference", broken)
    if isinstance(error, KeyboardInterrupt):
        with pytest.raises(KeyboardInterrupt):
            scorer.score(GROUP)
        assert not compiled(scorer)
    assert scorer.score(GROUP) == pytest.approx(group_scores, abs=1e-5, rel=0)
    assert compiled(scorer)


@pytest.mark.usefixtures("gpu")
def test_compiled_layers_that_give_other_scores_are_given_up_with_numbers(
    tiny_rm_dir: Path, group_scores: list[float], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def backend(graph: Any, _: object) -> Any:
        return lambda *inputs: tuple(2 * one for one in graph(*inputs))

    monkeypatch.setattr(forward, "_BACKEND", backend)
    scorer = compiling(tiny_rm_dir)
    assert scorer.score(GROUP) == pytest.approx(group_scores, abs=1e-5, rel=0)
    assert not compiled(scorer)
    assert "its layers stay uncompiled, and slower: scores differ by up to" in caplog.text


def test_layers_on_a_cpu_and_of_a_loaded_model_are_never_compiled(
    tiny_rm_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loaded_model, "COMPILE_AFTER", 1)
    model, words = handle(tiny_rm_dir)
    for scorer in (TransformersScorer(str(tiny_rm_dir)), TransformersScorer(model, tokenizer=words)):
        scorer.score(GROUP[:2])
        scorer.score(GROUP)
        assert not compiled(scorer)


def test_running_out_of_memory_halves_the_passes_and_goes_on(
    tiny_rm_dir: Path, group_scores: list[float], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    passes, longest = forward.row_logits, max(lengths(tiny_rm_dir, GROUP))

    def small_machine(model: Any, row: Any) -> Any:
        if len(row.tokens) > longest:
            raise RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory")
        return passes(model, row)

    monkeypatch.setattr(forward, "row_logits", small_machine)
    scorer = TransformersScorer(str(tiny_rm_dir), max_tokens=2000)
    with caplog.at_level(logging.WARNING, logger="codescaler_plugin"):
        assert scorer.score(GROUP) == pytest.approx(group_scores, abs=1e-5, rel=0)
    assert "forward passes of" in caplog.text


def test_memory_that_does_not_suffice_for_one_program_is_a_scorer_error(
    tiny_rm_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_machine(model: Any, row: Any) -> Any:
        raise torch.cuda.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(forward, "row_logits", no_machine)
    with pytest.raises(ScorerError, match=r"CUDA out of memory.*max_tokens"):
        TransformersScorer(str(tiny_rm_dir)).score(GROUP)
