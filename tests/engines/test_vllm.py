"""A real vLLM behind `VllmScorer`. `tests/engines/install_vllm.sh` makes its environment."""

import os
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import urllib3
from transformers import Qwen3Config, Qwen3ForSequenceClassification

from codescaler_plugin import ScorerError, load_scorer, testing

pytestmark = [
    pytest.mark.engine,
    pytest.mark.timeout(600),
    pytest.mark.skipif("VLLM_PYTHON" not in os.environ, reason="VLLM_PYTHON names no Python with vLLM"),
]
STARTED_WITHIN = 300  # seconds
ITEMS = [
    (problem, code)
    for problem in ("Write solve(n) that returns n + 1. " * 8, "Add the numbers from 0 to n. " * 8)
    for code in (
        "def solve(n):\n    return n + 1\n",
        "def solve(n):\n    return n\n",
        "def solve(n):\n    total = 0\n    for i in range(10):\n        total += i * i\n    return total\n",
        "print(1)\n",
    )
]


@pytest.fixture(scope="module")
def reward_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Heads of 64 wide: vLLM's attention on a CPU has no smaller ones."""
    folder = tmp_path_factory.mktemp("vllm-model")
    words = testing.tiny_tokenizer()
    torch.manual_seed(0)
    model = Qwen3ForSequenceClassification(
        Qwen3Config(
            vocab_size=len(words),
            pad_token_id=words.pad_token_id,
            eos_token_id=words.eos_token_id,
            hidden_size=128,
            intermediate_size=256,
            num_hidden_layers=2,
            num_attention_heads=2,
            num_key_value_heads=1,
            head_dim=64,
            max_position_embeddings=512,
            num_labels=1,
        )
    )
    for name, weight in model.named_parameters():
        if weight.dim() > 1 and "embed" not in name:
            torch.nn.init.normal_(weight, std=0.2)
    model.save_pretrained(folder)
    words.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def server(reward_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    log = tmp_path_factory.mktemp("vllm-log") / "server.log"
    command = [os.environ["VLLM_PYTHON"], "-m", "vllm.entrypoints.openai.api_server", "--model", str(reward_model)]
    command += ["--runner", "pooling", "--dtype", "float32", "--host", "127.0.0.1", "--port", str(port)]
    command += ["--served-model-name", "tiny-rm"]
    environment = {**os.environ, "VLLM_CPU_KVCACHE_SPACE": "1", "HF_HUB_OFFLINE": "1"}
    with log.open("w") as sink, subprocess.Popen(command, stdout=sink, stderr=sink, env=environment) as process:
        deadline = time.monotonic() + STARTED_WITHIN
        http = urllib3.PoolManager(retries=False, timeout=2)
        try:
            while True:
                assert process.poll() is None, log.read_text()[-3000:]
                assert time.monotonic() < deadline, log.read_text()[-3000:]
                try:
                    if http.request("GET", f"http://127.0.0.1:{port}/health").status == 200:
                        break
                except urllib3.exceptions.HTTPError:
                    pass
                time.sleep(1)
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()


def test_raw_logits_equal_those_of_transformers(server: str, reward_model: Path) -> None:
    expected = load_scorer(str(reward_model)).score(ITEMS)
    assert max(expected) - min(expected) > 0.5
    assert load_scorer(f"vllm+{server}").score(ITEMS) == pytest.approx(expected, abs=1e-3, rel=0)
    again = load_scorer(f"vllm+{server}").score(ITEMS)  # now from its prefix cache
    assert again == pytest.approx(expected, abs=1e-3, rel=0)


def test_problem_that_does_not_fit_is_trimmed_to_the_servers_limit(server: str, reward_model: Path) -> None:
    item = [("word " * 600, "x = 1\n")]
    assert load_scorer(f"vllm+{server}").score(item) == pytest.approx(
        load_scorer(str(reward_model)).score(item), abs=1e-3, rel=0
    )


def test_model_of_another_name_is_an_error_that_names_both(server: str) -> None:
    with pytest.raises(ScorerError, match=r"serves tiny-rm, not 'other'"):
        load_scorer(f"vllm+{server}#other").score(ITEMS)


def test_second_address_that_is_down_is_an_error_that_names_it(server: str) -> None:
    with pytest.raises(ScorerError, match=r"127\.0\.0\.1:9.*cannot be reached"):
        load_scorer(f"vllm+{server},http://127.0.0.1:9").score(ITEMS)


def test_benchmark_beside_it_compares_the_same_scores(monkeypatch: pytest.MonkeyPatch) -> None:
    """Times are for a quiet machine: `python benchmarks/bench_scoring.py --engine`."""
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "benchmarks"))
    from bench_scoring import ENGINE_EXACT, beside_vllm

    result = beside_vllm(os.environ["VLLM_PYTHON"], cores=1, block=128, repetitions=1)
    assert 0 < result["max_difference"] < ENGINE_EXACT
    assert min(result["wall"].values()) > 0
