"""One claim: scoring a group with its prefix shared beats padded batches, single samples and TRL's one forward.

    python benchmarks/bench_scoring.py            # the cells that CI holds, about two minutes
    python benchmarks/bench_scoring.py --all      # also the large ones
    python benchmarks/bench_scoring.py --candidates SAMPLES.jsonl    # also real candidates, see below
    python benchmarks/bench_scoring.py --engine ~/vllm/bin/python    # also beside vLLM, see below

Random models in float32 (tiny: hidden 256, 4 layers; small: hidden 512, 8 layers), one thread, CPU time, the ways in
turn, median of 5 paired ratios. Token counts and exactness are checked first; then each ratio against its floor, and a
cell that misses one is measured once more. Ends with exit code 1 if a check fails twice. The last line is JSON.

SAMPLES: JSON lines with `prompt` and `samples` (CodeT's HumanEval samples of CodeGen); the first 8 problems with 16
samples each, cut at the end of their function, tokenised by characters' bytes.

--engine names a Python with vLLM (`tests/engines/install_vllm.sh`; without a value, that of VLLM_PYTHON). The same
weights, the same token ids and the same cores, first one, then two: vLLM's `classify` in a process of its own, without
a server, its prefix cache on, with blocks of 128 tokens (its default on a CPU) and of 32 (its smallest, which share
the whole prompt here). Ours and theirs in turn, prompts that neither has seen, start and first call not counted.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from time import perf_counter, process_time, sleep
from typing import Any

import torch
from transformers import Qwen3Config, Qwen3ForSequenceClassification

from codescaler_plugin.scoring.bench import Bench, conditions, run_bench, synthetic_items
from codescaler_plugin.scoring.forward import tree_logits
from codescaler_plugin.testing import tiny_tokenizer

EXACT, ENGINE_EXACT = 1e-5, 1e-4
WORKER = Path(__file__).with_name("vllm_classify.py")


@dataclass(frozen=True)
class Cell:
    """One measurement with its floors: `ratio` by way, `peak_fraction`, and the most of `one_forward`'s memory."""

    name: str
    floors: dict[str, float]
    groups: int = 1
    group: int = 16
    prompt: int = 512
    completion: int = 128
    size: str = "tiny"
    peak_fraction: float = 0.0
    memory_share: float = 1.0
    repetitions: int = 5


CELLS = [
    Cell("G=16 P=512 C=128", {"batches_of_8": 3.0, "single": 2.5, "one_forward": 3.0}),
    Cell("G=8 P=512 C=512", {"batches_of_8": 2.2}, group=8, completion=512),
    Cell("nothing shared", {"single": 0.85}, groups=16, group=1, prompt=1, completion=512),
    Cell("hidden 512, 8 layers", {}, size="small", group=8, peak_fraction=0.55, repetitions=3),
]
LARGE = [
    Cell(
        "G=64 P=1024 C=128",
        {"batches_of_8": 6.0},
        group=64,
        prompt=1024,
        memory_share=0.25,
        repetitions=3,
    ),
]
SIZES = {"tiny": (256, 4, 4, 2), "small": (512, 8, 8, 4)}


def model_of(size: str) -> Any:
    """A random model; its scores spread by about 1, so that a mix-up of samples shows."""
    hidden, layers, heads, key_heads = SIZES[size]
    torch.manual_seed(0)
    config = Qwen3Config(
        vocab_size=32_000,
        hidden_size=hidden,
        intermediate_size=3 * hidden,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=key_heads,
        head_dim=64,
        num_labels=1,
        pad_token_id=0,
        max_position_embeddings=8192,
    )
    model = Qwen3ForSequenceClassification(config).eval()
    torch.nn.init.normal_(model.score.weight, std=hidden**-0.5)
    return model


def failures(cell: Cell, bench: Bench, items: list[list[int]]) -> list[str]:
    """What a measurement falls short of."""
    found = []
    shared = cell.prompt if cell.group > 1 else 0
    tokens = sum(map(len, items)) - cell.groups * (cell.group - 1) * shared
    # Random completions of a group share no token beyond their prompt that is worth a node.
    if cell.prompt and bench.computed_tokens != tokens:
        found.append(f"{bench.computed_tokens} tokens computed, expected {tokens}")
    if bench.max_difference["ours"] > EXACT:
        found.append(f"differs from single samples by {bench.max_difference['ours']:.2g}, allowed {EXACT}")
    for way, floor in cell.floors.items():
        if bench.ratio[way] < floor:
            found.append(f"{bench.ratio[way]:.2f}x {way}, floor {floor}")
    if bench.peak_fraction < cell.peak_fraction:
        found.append(f"{bench.peak_fraction:.2f} of the product rate, floor {cell.peak_fraction}")
    ours, theirs = bench.peak_mb["ours"], bench.peak_mb.get("one_forward")
    if cell.memory_share < 1 and ours is not None and theirs is not None and ours > cell.memory_share * theirs:
        found.append(f"{ours:.0f} MB against {theirs:.0f} MB, at most {cell.memory_share} of it")
    return found


def measure(cell: Cell, items: list[list[int]] | None = None) -> dict[str, Any]:
    """A cell's result, measured again if it falls short."""
    model = model_of(cell.size)
    shape = {"groups": cell.groups, "group": cell.group, "prompt": cell.prompt, "completion": cell.completion}
    rows = items or synthetic_items(model, **shape)
    ways = {"ours", *cell.floors} | ({"one_forward"} if cell.memory_share < 1 else set())
    attempts = 0
    while True:
        attempts += 1
        bench = run_bench(model, rows, ways=sorted(ways), repetitions=cell.repetitions)
        found = failures(cell, bench, rows)
        if not found or attempts == 2:
            break
    ratios = ", ".join(f"{bench.ratio[way]:.2f}x {way}" for way in cell.floors)
    print(
        f"{cell.name}: {ratios or '-'}; {bench.peak_fraction:.2f} of product rate; "
        f"max difference {bench.max_difference['ours']:.1e}; {'; '.join(found) or 'ok'}",
        flush=True,
    )
    return {"cell": cell.name, **asdict(bench), "attempts": attempts, "failures": found}


def beside_vllm(python: str, cores: int, block: int, repetitions: int = 7) -> dict[str, Any]:
    """Seconds of ours and of vLLM's for one group, by the clock and of CPU time, and the ratios of the pairs.

    Args:
        python: of an environment that has vLLM.
        cores: how many both get, the same ones.
        block: tokens of a block of its prefix cache.
        repetitions: after the first, which is not counted.
    """
    pinned = sorted(os.sched_getaffinity(0))[:cores]
    before, threads = os.sched_getaffinity(0), torch.get_num_threads()
    model = model_of("small")
    times: dict[str, list[tuple[float, float]]] = {"ours": [], "vllm": []}
    with tempfile.TemporaryDirectory() as folder, (Path(folder) / "log").open("w") as log:
        model.save_pretrained(folder)
        tiny_tokenizer().save_pretrained(folder)  # vLLM wants one; it gets token ids
        command = [python, str(WORKER), folder, ",".join(map(str, pinned)), str(block)]
        os.sched_setaffinity(0, pinned)
        torch.set_num_threads(cores)
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True) as vllm:
            assert vllm.stdin is not None
            assert vllm.stdout is not None
            asked, answers = vllm.stdin, vllm.stdout

            def theirs(rows: list[list[int]]) -> tuple[list[float], float, float]:
                print(json.dumps(rows), file=asked, flush=True)
                scores, wall, cpu, _ = json.loads(answers.readline())
                return scores, wall, cpu

            def ours(rows: list[list[int]]) -> tuple[list[float], float, float]:
                started, cpu = perf_counter(), process_time()
                passes = list(tree_logits(model, rows, max_tokens=16_384))
                took = perf_counter() - started, process_time() - cpu
                return [logit for _, logit in sorted(pair for done in passes for pair in done.logits)], *took

            ways = {"ours": ours, "vllm": theirs}
            assert vllm.stdout.readline() == "ready\n", Path(log.name).read_text()[-3000:]
            difference = 0.0
            for repetition in range(repetitions + 1):
                rows = synthetic_items(model, groups=1, group=16, prompt=480, completion=216, seed=repetition)
                scores = {}
                for way in sorted(ways, reverse=repetition % 2 == 1):
                    sleep(0.5)  # threads of the other that wait for work spin a while
                    scores[way], *took = ways[way](rows)
                    if repetition:
                        times[way].append((took[0], took[1]))
                difference = max(abs(one - other) for one, other in zip(scores["ours"], scores["vllm"], strict=True))
                assert difference < ENGINE_EXACT, f"scores differ from vLLM's by {difference}"
            vllm.stdin.close()
    os.sched_setaffinity(0, before)
    torch.set_num_threads(threads)
    wall, cpu = (
        {way: median(one[clock] for one in times[way]) for way in times}
        | {"ratio": median(b[clock] / a[clock] for a, b in zip(times["ours"], times["vllm"], strict=True))}
        for clock in (0, 1)
    )
    print(
        f"vLLM, {cores} core(s), blocks of {block}: ours {wall['ours']:.2f} s, vLLM {wall['vllm']:.2f} s, ratio "
        f"{wall['ratio']:.2f} (CPU {cpu['ours']:.2f} and {cpu['vllm']:.2f}, {cpu['ratio']:.2f}); "
        f"difference {difference:.1e}",
        flush=True,
    )
    return {"cores": cores, "block": block, "wall": wall, "cpu": cpu, "max_difference": difference}


def real_items(path: Path) -> list[list[int]]:
    """8 problems x 16 samples as bytes: signature, docstring and body, cut where the function ends."""
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()[:8]]
    return [
        list((row["prompt"] + re.split(r"\n(?=class|def|#|if|print)", sample)[0]).encode())
        for row in rows
        for sample in row["samples"][:16]
    ]


def main() -> None:
    """Print a line per cell, then the JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--all", action="store_true", help="also the cells that take minutes")
    parser.add_argument("--candidates", type=Path)
    parser.add_argument("--engine", nargs="?", const=os.environ.get("VLLM_PYTHON", ""), help="a Python that has vLLM")
    arguments = parser.parse_args()
    if arguments.engine == "":
        parser.error("--engine: name a Python that has vLLM, here or in VLLM_PYTHON")
    torch.set_num_threads(1)
    results = [measure(cell) for cell in CELLS + (LARGE if arguments.all else [])]
    if arguments.candidates is not None:
        real = Cell("real candidates", {"batches_of_8": 2.5, "single": 1.0}, prompt=0)
        results.append(measure(real, real_items(arguments.candidates)))
    engine = arguments.engine and [
        beside_vllm(arguments.engine, cores, block) for cores in (1, 2) for block in (128, 32)
    ]
    print(json.dumps({"cells": results, "vllm": engine, **conditions(model_of("tiny"))}))
    sys.exit(any(result["failures"] for result in results))


if __name__ == "__main__":
    main()
