from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console

from codescaler_plugin import ConfigError
from codescaler_plugin.cli.bench import _table
from codescaler_plugin.scoring import bench as bench_module
from codescaler_plugin.scoring.bench import WAYS, run_bench, synthetic_items
from codescaler_plugin.scoring.loading import load_classifier

SHAPE = {"groups": 2, "group": 4, "prompt": 60, "completion": 20}


def test_all_ways_give_the_scores_of_single_sequences_and_ours_computes_the_prompt_once(tiny_rm_dir: Path) -> None:
    model, _ = load_classifier(str(tiny_rm_dir))
    items = synthetic_items(model, **SHAPE)
    calls = []
    bench = run_bench(model, items, repetitions=2, progress=lambda: calls.append(1))
    assert set(bench.seconds) == set(bench.ratio) == set(bench.max_difference) == set(bench.peak_mb) == set(WAYS)
    assert max(bench.max_difference.values()) < 1e-5
    assert (bench.samples, bench.real_tokens) == (8, sum(map(len, items)))
    assert bench.computed_tokens == bench.real_tokens - 2 * 3 * 60
    assert bench.ratio["ours"] == 1
    assert 0 < bench.peak_fraction < 1
    assert len(calls) == 2 * len(WAYS)


def test_groups_share_their_prompt_and_nothing_else(tiny_rm_dir: Path) -> None:
    items = synthetic_items(load_classifier(str(tiny_rm_dir))[0], **SHAPE)
    prompts = [tuple(item[:60]) for item in items]
    assert len(set(prompts)) == 2
    assert prompts == sorted(prompts, key=prompts.index)
    assert all(65 <= len(item) <= 120 for item in items)


def test_no_sequence_holds_a_pad_token(tiny_rm_dir: Path) -> None:
    model, _ = load_classifier(str(tiny_rm_dir))
    model.config.pad_token_id = 7
    ids = {token for item in synthetic_items(model, **SHAPE) for token in item}
    assert len(ids) > 100
    assert 7 not in ids


def test_way_that_runs_out_of_memory_is_left_out_and_named(tiny_rm_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, _ = load_classifier(str(tiny_rm_dir))
    padded = bench_module.padded_scores

    def small_machine(model: Any, items: Any, size: int) -> Any:
        if size > 4:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory")
        return padded(model, items, size)

    monkeypatch.setattr(bench_module, "padded_scores", small_machine)
    bench = run_bench(model, synthetic_items(model, **SHAPE), repetitions=2)
    assert bench.out_of_memory == ("batches_of_8", "one_forward")
    assert set(bench.seconds) == set(bench.ratio) == set(bench.max_difference) == set(bench.peak_mb)
    assert set(bench.seconds) == {"ours", "single"}
    console = Console(width=80, record=True)
    console.print(_table(bench))
    assert console.export_text().count("not enough") == 2


def test_shape_that_does_not_fit_the_model_is_a_config_error(tiny_policy_dir: Path, tmp_path: Path) -> None:
    from tests.models import save_encoder

    model, _ = load_classifier(str(save_encoder(tmp_path)))
    with pytest.raises(ConfigError, match=r"500 \+ 3 x 20 tokens do not fit the model's 512"):
        synthetic_items(model, groups=1, group=1, prompt=500, completion=20)
