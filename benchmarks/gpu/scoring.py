"""Scoring groups of samples with random reward models at true shapes: sharing prefixes against what others do.

    python benchmarks/gpu/scoring.py [--device cuda] [--tiny] [--output FILE]

Ways, in turn within each repetition: `ours` (shared prefixes, as `TransformersScorer`), `one_forward` (TRL's own path:
one padded forward pass over the whole call), `batches_of_8` (padded, the usual loop), `unshared` (sequences of varying
length without padding and without sharing: what an engine does without a prefix cache). A line a cell: programs and
tokens a second, paired ratios, share of the matrix product rate that was measured in the same run, peak memory above
the weights, kernels launched a layer, and the largest difference of a score from that of the single sample over the
spread of the scores. Padded ways go through PyTorch's own attention (sdpa); flash-attn is measured where installed.
"""

from importlib.util import find_spec
from pathlib import Path
from statistics import median, pstdev
from time import perf_counter
from typing import Any

import torch
from common import arguments, milliseconds, paired, peak_memory_gb, product_rate, random_model, record, timed

from codescaler_plugin.scoring.bench import _operations, _ours, _padded, synthetic_items
from codescaler_plugin.scoring.forward import MAX_TOKENS, row_logits, tree_attention
from codescaler_plugin.scoring.prefix_tree import plan_rows

CELLS = [(16, 480, 216), (64, 1024, 128), (8, 512, 512), (16, 1024, 512)]  # group, prompt, completion (mean)
SECONDS = 9.0  # a cell, after the first call of each way


def unshared(model: Any, items: list[list[int]]) -> list[float]:
    """Each sample in full, in rows without padding."""
    scores = [0.0] * len(items)
    for row in plan_rows(items, max_tokens=MAX_TOKENS, min_shared=1_000_000):
        with tree_attention(model), torch.inference_mode():
            for (item, _), value in zip(row.lasts, row_logits(model, row).tolist(), strict=True):
                scores[item] = value
    return scores


def kernels(model: Any, function: Any, device: str, file: Path | None) -> int:
    """Kernels launched by a call; the 20 that take longest go to a file."""
    from torch.profiler import ProfilerActivity, profile

    activities = [ProfilerActivity.CPU] + ([] if device == "cpu" else [ProfilerActivity.CUDA])
    with profile(activities=activities) as profiler:
        function()
    key = "self_cpu_time_total" if device == "cpu" else "self_device_time_total"
    if file is not None:
        file.write_text(profiler.key_averages().table(sort_by=key, row_limit=20, max_name_column_width=90))
    launches = sum(event.count for event in profiler.key_averages() if "LaunchKernel" in event.key)
    return launches


def measure(model: Any, size: str, cell: tuple[int, int, int], device: str, output: Path | None, peak: float, tiny: bool) -> None:
    """One cell, all ways."""
    group, prompt, completion = cell
    items = synthetic_items(model, groups=1, group=group, prompt=prompt, completion=completion)
    implementations = ["sdpa"] + (["flash_attention_2"] if device != "cpu" and find_spec("flash_attn") else [])
    found: dict[str, list[float]] = {}
    computed = 0

    def ours() -> None:
        nonlocal computed
        found["ours"], computed = _ours(model, items, MAX_TOKENS)

    def without_sharing() -> None:
        found["unshared"] = unshared(model, items)

    def padded(way: str, count: int, implementation: str) -> None:
        model.set_attn_implementation(implementation)
        found[way] = _padded(model, items, count)[0]

    functions: dict[str, Any] = {"ours": ours, "unshared": without_sharing}
    for implementation in implementations:
        end = "" if implementation == "sdpa" else "_flash"
        for way, count in (("batches_of_8", 8), ("one_forward", len(items))):
            functions[way + end] = lambda way=way + end, count=count, one=implementation: padded(way, count, one)
    memory: dict[str, Any] = {}
    for way, function in list(functions.items()):
        try:
            memory[way] = peak_memory_gb(function, device)
        except torch.cuda.OutOfMemoryError:
            memory[way] = "out of memory"
            del functions[way]
            torch.cuda.empty_cache()
    times = timed(functions, device, repetitions=2 if tiny else 7, seconds=SECONDS)
    single = _padded(model, items, 1)[0]
    spread = pstdev(single)
    seconds = {way: median(values) for way, values in times.items()}
    layers = model.config.num_hidden_layers
    file = None if output is None else output.parent / f"profile-{size}-{group}-{prompt}-{completion}.txt"
    record(
        output,
        "scoring",
        model,
        cell=f"{size} G={group} P={prompt} C={completion}",
        tokens={"all": sum(map(len, items)), "ours": computed},
        milliseconds={way: milliseconds(values) for way, values in times.items()},
        programs_a_second={way: round(len(items) / value, 1) for way, value in seconds.items()},
        ratio=paired(times, "ours"),
        peak_share=round(_operations(model, items, computed) / seconds["ours"] / peak, 3),
        peak_tflops=round(peak / 1e12, 1),
        tokens_a_second=round(computed / seconds["ours"]),
        memory_gb=memory,
        kernels_a_layer=round(kernels(model, ours, device, file) / layers, 1),
        difference_over_spread={
            way: round(max(abs(one - other) for one, other in zip(values, single, strict=True)) / spread, 5)
            for way, values in found.items()
        },
    )


def variants(model: Any, size: str, device: str, output: Path | None, peak: float, tiny: bool) -> None:
    import torch._dynamo as dynamo
    import old_attention
    from transformers import AttentionInterface

    from codescaler_plugin.scoring import attention, forward

    group, prompt, completion = CELLS[0]
    items = synthetic_items(model, groups=1, group=group, prompt=prompt, completion=completion)
    base = _ours(model, items, MAX_TOKENS)[0]
    spread = pstdev(base)
    if device == "cpu":
        from torch.nn.attention import varlen

        def cpu_varlen(q, k, v, cu_q, cu_k, mq, mk, is_causal=False, scale=None, window_size=None, *rest):
            kk, vv = (one.repeat_interleave(q.shape[1] // one.shape[1], 1) for one in (k, v))
            outs = []
            for a, b, c, d in zip(cu_q[:-1].tolist(), cu_q[1:].tolist(), cu_k[:-1].tolist(), cu_k[1:].tolist()):
                p = torch.einsum("qhd,khd->hqk", q[a:b], kk[c:d]) * scale
                last = torch.arange(p.shape[2] - p.shape[1], p.shape[2])[:, None]
                outs.append(torch.einsum("hqk,khd->qhd", p.masked_fill(last < torch.arange(p.shape[2]), float("-inf")).softmax(-1), vv[c:d]))
            return torch.cat(outs), torch.empty(q.shape[1], q.shape[0]), torch.zeros(2, dtype=torch.uint64)

        varlen._varlen_attn.register_kernel("cpu")(cpu_varlen)
        attention._kernel = lambda *_, **__: attention._varlen
    AttentionInterface.register(attention.IMPLEMENTATION, torch.compiler.disable(attention.tree_attention))
    norm = type(model.model.norm)
    plain_norm = norm.forward
    results: dict[str, Any] = {}

    def run(name: str) -> None:
        started = perf_counter()
        scores = _ours(model, items, MAX_TOKENS)[0]
        first = perf_counter() - started
        times = timed({"ours": lambda: _ours(model, items, MAX_TOKENS)}, device, repetitions=15, seconds=1.5)["ours"]
        _, computed = _ours(model, items, MAX_TOKENS)
        # without waiting for the device: what the host takes to launch
        results[name] = {
            "milliseconds": milliseconds(times),
            "best": round(min(times) * 1e3, 3),
            "peak_share": round(_operations(model, items, computed) / median(times) / peak, 3),
            "first_call_s": round(first, 2),
            "difference_over_spread": round(max(abs(a - b) for a, b in zip(scores, base, strict=True)) / spread, 4),
        }
        if device != "cpu":
            results[name]["kernels_a_layer"] = round(
                kernels(
                    model,
                    lambda: _ours(model, items, MAX_TOKENS),
                    device,
                    None if output is None else output.parent / f"profile-variant-{size}-{name}.txt",
                )
                / model.config.num_hidden_layers,
                1,
            )
        print(name, results[name], flush=True)

    run("paths")
    if True:
        forward.attention, before = old_attention, forward.attention
        try:
            run("merge")
        finally:
            forward.attention = before
    norm.forward = lambda self, x: torch.nn.functional.rms_norm(
        x, (x.shape[-1],), self.weight, self.variance_epsilon
    )
    run("rms_norm")
    norm.forward = plain_norm

    def compiled(name):
        try:
            dynamo.utils.counters.clear()
            for layer in model.model.layers:
                layer.compile(dynamic=True)
            run(name)
            for seed in (1, 2):
                other = synthetic_items(model, groups=2 + seed, group=9, prompt=300, completion=100, seed=seed)
                started = perf_counter()
                _ours(model, other, MAX_TOKENS)
                results[name][f"other_shape_{seed}_s"] = round(perf_counter() - started, 2)
            started = perf_counter()
            _ours(model, items[:1], MAX_TOKENS)
            results[name]["single_s"] = round(perf_counter() - started, 2)
            results[name]["graphs"] = dict(dynamo.utils.counters["stats"])
            print(name, results[name], list(dynamo.utils.counters["graph_break"])[:3], flush=True)
        except Exception as error:  # noqa: BLE001
            results[name] = repr(error)[:900]
            print(name, results[name], flush=True)

    compiled("compiled")
    def plain_again():
        for layer in model.model.layers:
            layer._compiled_call_impl = None
        dynamo.reset()
    plain_again()
    if device != "cpu" and size == "8B":
        try:
            def fp8(linear):
                w = linear.weight.data
                sw = w.abs().amax(1, keepdim=True).float() / 448
                wq = (w / sw).to(torch.float8_e4m3fn)
                sw = sw.t().contiguous()
                def forward(x):
                    x2 = x.reshape(-1, x.shape[-1])
                    s = x2.abs().amax(1, keepdim=True).float().clamp(min=1e-6) / 448
                    xq = (x2 / s).to(torch.float8_e4m3fn)
                    out = torch._scaled_mm(xq, wq.t(), scale_a=s, scale_b=sw, out_dtype=torch.bfloat16, use_fast_accum=True)
                    return out.view(*x.shape[:-1], -1)
                linear.forward = forward
            for layer in model.model.layers:
                for m in layer.modules():
                    if isinstance(m, torch.nn.Linear):
                        fp8(m)
            run("fp8")
            from scipy.stats import spearmanr
            many = synthetic_items(model, groups=1, group=64, prompt=100, completion=60, seed=5)
            q = _ours(model, many, MAX_TOKENS)[0]
            for layer in model.model.layers:
                for m in layer.modules():
                    if isinstance(m, torch.nn.Linear):
                        m.kept = m.forward
                        del m.forward
            p = _ours(model, many, MAX_TOKENS)[0]
            results["fp8"]["spearman"] = round(float(spearmanr(p, q)[0]), 4)
            print("spearman", results["fp8"]["spearman"], flush=True)
            for layer in model.model.layers:
                for m in layer.modules():
                    if isinstance(m, torch.nn.Linear):
                        m.forward = m.kept
            for layer in model.model.layers:
                for m in layer.modules():
                    if isinstance(m, torch.nn.Linear):
                        del m.forward
        except Exception as error:  # noqa: BLE001
            print("fp8", repr(error)[:500], flush=True)
            results["fp8_error"] = repr(error)[:500]
    try:
        from liger_kernel.transformers import apply_liger_kernel_to_qwen3

        apply_liger_kernel_to_qwen3(
            rope=True, rms_norm=True, swiglu=True, cross_entropy=False, fused_linear_cross_entropy=False, model=model
        )
        run("liger")
    except Exception as error:  # noqa: BLE001
        results["liger"] = repr(error)[:500]
        print("liger", results["liger"])
    record(output, "variants", model, cell=f"{size} G={group} P={prompt} C={completion}", results=results, peak_tflops=round(peak / 1e12, 1))


def main() -> None:
    """All cells of all sizes."""
    options = arguments(__doc__)
    peak = product_rate(options.device, tiny=options.tiny)
    sizes = ("tiny",) if options.tiny else ("1.7B", "8B")
    for size in sizes:
        model = random_model(size, options.device)
        if options.variants:
            variants(model, size, options.device, options.output, peak, options.tiny)
            continue
        for cell in ([(4, 60, 30)] if options.tiny else CELLS):
            measure(model, size, cell, options.device, options.output, peak, options.tiny)
        del model
        if options.device != "cpu":
            torch.cuda.empty_cache()


if __name__ == "__main__":
    main()
