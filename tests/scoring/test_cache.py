"""Scores on disk: shared by processes, apart for other weights, and no failure of a call."""

import errno
import logging
import multiprocessing
import os
from pathlib import Path
from typing import Any

import pytest
import torch

from codescaler_plugin import ConfigError
from codescaler_plugin.scoring.cache import ScoreCache, content_key, fingerprint
from codescaler_plugin.scoring.transformers_scorer import TransformersScorer
from tests.scoring.programs import GROUP, handle


def test_file_of_scores_serves_another_scorer(tiny_rm_dir: Path, tmp_path: Path) -> None:
    first = TransformersScorer(str(tiny_rm_dir), cache_dir=str(tmp_path / "scores"))
    scores = first.score(GROUP)
    second = TransformersScorer(str(tiny_rm_dir), cache_dir=str(tmp_path / "scores"), cache_size=0)
    assert second.score(GROUP) == scores
    assert second.stats.computed_tokens == 0


def _score_elsewhere(folder: str, cache: str, queue: Any) -> None:
    scorer = TransformersScorer(folder, cache_dir=cache)
    queue.put((scorer.score(GROUP), scorer.stats.computed_tokens))


def test_file_of_scores_serves_another_process(tiny_rm_dir: Path, tmp_path: Path) -> None:
    scorer = TransformersScorer(str(tiny_rm_dir), cache_dir=str(tmp_path))
    scores = scorer.score(GROUP)
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    process = context.Process(target=_score_elsewhere, args=(str(tiny_rm_dir), str(tmp_path), queue))
    process.start()
    assert queue.get(timeout=120) == (scores, 0)
    process.join()


def test_other_weights_have_other_scores_in_the_same_file(tiny_rm_dir: Path, tmp_path: Path) -> None:
    model, tokenizer = handle(tiny_rm_dir)
    scorer = TransformersScorer(model, tokenizer=tokenizer, cache_dir=str(tmp_path))
    before = scorer.score(GROUP[:1])
    with torch.no_grad():
        model.score.weight.mul_(2)
    assert scorer.score(GROUP[:1]) == pytest.approx([2 * before[0]], abs=1e-5)


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
