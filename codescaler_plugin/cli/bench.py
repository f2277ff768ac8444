"""`codescaler bench`."""

import json
from contextlib import ExitStack
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

from rich.table import Table
from typer import Option, echo

from codescaler_plugin.builtin import reward_model
from codescaler_plugin.cli.options import Device, Model
from codescaler_plugin.cli.terminal import Terminal, loading, progress_bar, reported

if TYPE_CHECKING:
    from codescaler_plugin.scoring.bench import Bench


def bench(
    model: Model = None,
    group: Annotated[int, Option(min=1, help="Completions per problem.")] = 16,
    groups: Annotated[int, Option(min=1, help="Problems.")] = 1,
    prompt: Annotated[int, Option(min=0, help="Tokens that a group shares.")] = 512,
    completion: Annotated[int, Option(min=1, help="Mean tokens of the rest.")] = 128,
    repetitions: Annotated[int, Option(min=1)] = 5,
    threads: Annotated[int | None, Option(min=1, help="CPU threads; else as torch chooses.")] = None,
    device: Device = None,
) -> None:
    """Measure the speedup by shared prefixes on this machine.

    Samples are random token ids. The table holds medians over the repetitions,
    with ratios paired within each; the last line is JSON.

    Example: codescaler bench --model builtin --threads 1
    """
    with reported():
        import torch

        from codescaler_plugin.config import CodeScalerConfig
        from codescaler_plugin.scoring.bench import WAYS, conditions, run_bench, synthetic_items
        from codescaler_plugin.scoring.forward import fitting_tokens
        from codescaler_plugin.scoring.loading import load_classifier, text_config

        config = CodeScalerConfig.from_env(model=model, device=device)
        name = reward_model(config.model)
        with loading(config.model):
            measured, tokenizer = load_classifier(name, config.device, trust_remote_code=config.trust_remote_code)
        if text_config(measured).pad_token_id is None:
            text_config(measured).pad_token_id = tokenizer.eos_token_id  # as TRL does; the ways of others need one
        items = synthetic_items(measured, groups=groups, group=group, prompt=prompt, completion=completion)
        with progress_bar("measuring", repetitions * len(WAYS)) as advance, ExitStack() as stack:
            stack.callback(torch.set_num_threads, torch.get_num_threads())
            torch.set_num_threads(threads or torch.get_num_threads())
            result = run_bench(
                measured,
                items,
                repetitions=repetitions,
                max_tokens=config.max_tokens or fitting_tokens(measured),
                progress=lambda: advance(1),
            )
            around = conditions(measured)
    Terminal().print(_table(result))
    echo(json.dumps({"model": config.model, **asdict(result), **around}))


def _table(result: "Bench") -> Table:
    """The results in a table of 80 columns."""
    saved = 1 - result.computed_tokens / result.real_tokens
    table = Table(
        title=f"{result.samples} samples, {result.real_tokens:,} tokens; ours computes {saved:.0%} fewer",
        caption=f"ours reaches {result.peak_fraction:.0%} of this machine's rate of matrix products",
    )
    for column in ("", "tokens/s", "ours is", "max difference", "peak memory"):
        table.add_column(column, justify="right" if column else "left")
    for way, seconds in result.seconds.items():
        peak = result.peak_mb[way]
        table.add_row(
            way.replace("_", " "),
            f"{result.real_tokens / seconds:,.0f}",
            "" if way == "ours" else f"{result.ratio[way]:.2f}x as fast",
            f"{result.max_difference[way]:.1e}",
            "unknown" if peak is None else f"{peak:,.0f} MB",
        )
    for way in result.out_of_memory:
        table.add_row(way.replace("_", " "), "", "", "", "not enough")
    return table
