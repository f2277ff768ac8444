"""Scoring groups of samples with random reward models at true shapes: sharing prefixes against what others do.

    python benchmarks/gpu/scoring.py [--device cuda] [--tiny] [--output FILE]

Ways, in turn within each repetition: `ours` (shared prefixes, layers compiled, as `TransformersScorer` in a long run),
`ours_uncompiled` (as in its first million tokens), `one_forward` (TRL's own path: one padded forward pass over the
whole call), `batches_of_8` (padded, the usual loop), `unshared` (sequences of varying length without padding and
without sharing, compiled: what an engine does without a prefix cache). Padded ways are not compiled; they go through
PyTorch's attention (sdpa), and through flash-attn as well where it is installed.

A line a cell: milliseconds, programs a second, paired ratios to `ours`, the share of the matrix product rate that was
measured in the same run, peak memory above the weights, kernels launched a layer, and the largest difference of a
score from that of the single sample in float32, over the spread of the scores; `milliseconds_replayed` is the forward
pass of `ours` without launches, from a CUDA graph. On a GPU the profile of ours goes to a file beside them.
"""

import copy
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from statistics import median, pstdev
from time import perf_counter
from typing import Any

import torch
from common import arguments, milliseconds, paired, peak_memory_gb, product_rate, random_model, record, timed

from codescaler_plugin.scoring.attention import Tree
from codescaler_plugin.scoring.bench import padded_scores, shared_scores, synthetic_items, useful_operations
from codescaler_plugin.scoring.forward import (
    MAX_TOKENS,
    compile_layers,
    out_of_memory,
    row_logits,
    tree_attention,
    uncompile_layers,
)
from codescaler_plugin.scoring.prefix_tree import plan_rows

_CELLS = [(16, 480, 216), (64, 1024, 128), (8, 512, 512), (16, 1024, 512)]  # group, prompt, completion (mean)
CELLS = {"1.7B": _CELLS, "4B": _CELLS[:1], "8B": _CELLS}
TINY_CELLS = {"tiny": [(4, 60, 30)]}
REPETITIONS, SECONDS = 7, 3.0  # of a cell, after two calls of each way
COMPARED = 8  # samples scored alone, in float32


class Ways:
    """The ways to the scores of one cell; each call leaves its scores in `scores`.

    Args:
        model: of transformers.
        items: token ids.
        compiled: forward functions of its layers; empty: none are compiled.
    """

    def __init__(self, model: Any, items: list[list[int]], compiled: list[Any]) -> None:
        self.model, self.items, self.compiled = model, items, compiled
        self.scores: dict[str, list[float]] = {}
        self.computed = 0

    @contextmanager
    def compiled_layers(self) -> Iterator[None]:
        """The layers are compiled inside."""
        for layer, forward in zip(self.model.base_model.layers, self.compiled, strict=False):
            layer.forward = forward
        try:
            yield
        finally:
            if self.compiled:
                uncompile_layers(self.model)

    def ours(self, name: str, layers: AbstractContextManager[None]) -> None:
        """Shared prefixes."""
        with layers:
            self.scores[name], self.computed = shared_scores(self.model, self.items, MAX_TOKENS)

    def unshared(self) -> None:
        """Each sample in full, in rows without padding."""
        scores = [0.0] * len(self.items)
        for row in plan_rows(self.items, max_tokens=MAX_TOKENS, min_shared=1_000_000):
            with self.compiled_layers(), tree_attention(self.model), torch.inference_mode():
                for (item, _), value in zip(row.lasts, row_logits(self.model, row).tolist(), strict=True):
                    scores[item] = value
        self.scores["unshared"] = scores

    def padded(self, name: str, size: int, implementation: str) -> None:
        """Padded batches through the model's own head."""
        self.model.set_attn_implementation(implementation)
        self.scores[name] = padded_scores(self.model, self.items, size)[0]

    def all(self) -> dict[str, Callable[[], None]]:
        """By name."""
        found: dict[str, Callable[[], None]] = {
            "ours": lambda: self.ours("ours", self.compiled_layers()),
            "unshared": self.unshared,
        }
        if self.compiled:
            found["ours_uncompiled"] = lambda: self.ours("ours_uncompiled", nullcontext())
        for end, implementation in (("", "sdpa"), ("_flash", "flash_attention_2")):
            if end and not find_spec("flash_attn"):
                continue
            for way, size in (("batches_of_8", 8), ("one_forward", len(self.items))):
                found[way + end] = partial(self.padded, way + end, size, implementation)
        return found


def exact_scores(model: Any, items: list[list[int]]) -> list[float]:
    """Single samples in float32."""
    exact = copy.deepcopy(model).float()
    return padded_scores(exact, items, 1)[0]


def kernels(function: Callable[[], Any], file: Path | None) -> int:
    """Kernels that a call launches on the GPU; the 20 longest go to a file."""
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as profiler:
        function()
    averages = profiler.key_averages()
    if file is not None:
        table = averages.table(sort_by="self_device_time_total", row_limit=20, max_name_column_width=90)
        file.write_text(table, encoding="utf-8")
    return sum(event.count for event in averages if "LaunchKernel" in event.key)


def compiled_forwards(model: Any, items: list[list[int]]) -> tuple[list[Any], float]:
    """The compiled forward functions of the layers, which are left as they were, and the seconds of the first call."""
    compile_layers(model)
    started = perf_counter()
    shared_scores(model, items, MAX_TOKENS)
    seconds = perf_counter() - started
    forwards = [layer.forward for layer in model.base_model.layers]
    uncompile_layers(model)
    return forwards, seconds


def replayed(ways: Ways) -> float:
    """Milliseconds of our compiled forward pass where the host has nothing to launch: from a CUDA graph.

    This is no way to score: a graph holds for one layout of tokens. It is what launching less could still gain.
    """
    model = ways.model
    (row,) = plan_rows(ways.items, max_tokens=MAX_TOKENS)
    inputs = {
        "input_ids": torch.tensor([row.tokens], device=model.device),
        "position_ids": torch.tensor([row.positions], device=model.device),
        "tree": Tree(row.nodes).paths(model.device),
    }
    with ways.compiled_layers(), tree_attention(model), torch.inference_mode():
        side = torch.cuda.Stream()  # type: ignore[no-untyped-call]  # torch gives it no types
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            model.base_model(**inputs, use_cache=False)
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            model.base_model(**inputs, use_cache=False)
    return milliseconds(timed({"graph": graph.replay}, "cuda", repetitions=REPETITIONS)["graph"])


def main() -> None:
    """All cells of all sizes."""
    options = arguments(__doc__)
    cuda = options.device != "cpu"
    peak = product_rate(options.device, tiny=options.tiny)
    for size, cells in (TINY_CELLS if options.tiny else CELLS).items():
        model = random_model(size, options.device)
        compiled: list[Any] = []
        compile_seconds = None
        for group, prompt, completion in cells:
            items = synthetic_items(model, groups=1, group=group, prompt=prompt, completion=completion)
            if cuda and not compiled:
                compiled, compile_seconds = compiled_forwards(model, items)
            ways = Ways(model, items, compiled)
            functions, memory, no_memory = ways.all(), {}, []
            for way, function in list(functions.items()):
                try:
                    memory[way] = peak_memory_gb(function, options.device)
                except RuntimeError as error:
                    if not out_of_memory(error):
                        raise
                    no_memory.append(way)
                    del functions[way]
                    torch.cuda.empty_cache()
            times = timed(functions, options.device, repetitions=2 if options.tiny else REPETITIONS, seconds=SECONDS)
            seconds = {way: median(values) for way, values in times.items()}
            single = exact_scores(model, items[:COMPARED])
            cell = f"{size} G={group} P={prompt} C={completion}"
            name = f"profile-{cell.replace(' ', '-').replace('=', '')}.txt"
            file = None if options.output is None else options.output.parent / name
            record(
                options.output,
                "scoring",
                model,
                cell=cell,
                tokens={"all": sum(map(len, items)), "ours": ways.computed},
                milliseconds={way: milliseconds(values) for way, values in times.items()},
                programs_a_second={way: round(len(items) / value, 1) for way, value in seconds.items()},
                tokens_a_second_of_ours=round(ways.computed / seconds["ours"]),
                ratio=paired(times, "ours"),
                peak_share_of_ours=round(useful_operations(model, items, ways.computed) / seconds["ours"] / peak, 3),
                peak_tflops=round(peak / 1e12, 1),
                weights_gb=round(sum(weight.nbytes for weight in model.parameters()) / 1e9, 2),
                memory_gb=memory,
                out_of_memory=no_memory,
                milliseconds_replayed=replayed(ways) if cuda else None,
                compile_seconds=compile_seconds and round(compile_seconds, 1),
                kernels_a_layer={
                    way: round(
                        kernels(functions[way], file if way == "ours" else None) / len(model.base_model.layers), 1
                    )
                    for way in ("ours", "ours_uncompiled")
                    if cuda
                },
                difference_over_spread={
                    way: round(
                        max(abs(one - other) for one, other in zip(values, single, strict=False)) / pstdev(single), 5
                    )
                    for way, values in ways.scores.items()
                },
            )
        del model, compiled
        if cuda:
            torch.cuda.empty_cache()


if __name__ == "__main__":
    main()
