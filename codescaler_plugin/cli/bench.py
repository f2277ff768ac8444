"""`codescaler bench`."""

import json
from contextlib import ExitStack
from dataclasses import asdict
from typing import Annotated

import typer

from codescaler_plugin.cli.options import Device, Model
from codescaler_plugin.cli.terminal import Terminal, rate_bar, reported, without_loading_bars


def bench(
    model: Model = None,
    group: Annotated[int, typer.Option(min=1, help="Completions per problem.")] = 16,
    groups: Annotated[int, typer.Option(min=1, help="Problems.")] = 1,
    prompt: Annotated[int, typer.Option(min=0, help="Tokens that a group shares.")] = 512,
    completion: Annotated[int, typer.Option(min=1, help="Mean tokens of the rest.")] = 128,
    repetitions: Annotated[int, typer.Option(min=1)] = 5,
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads; else as torch chooses.")] = None,
    device: Device = None,
) -> None:
    """Measure what shared prefixes are worth with your model on your machine; random token ids.

    The table holds medians over the repetitions, the ratios paired within each; the last line is JSON.
    """
    without_loading_bars()
    with reported():
        import torch

        from codescaler_plugin.builtin import reward_model
        from codescaler_plugin.config import CodeScalerConfig
        from codescaler_plugin.scoring.bench import (
            WAYS,
            bench_table,
            conditions,
            run_bench,
            synthetic_items,
        )
        from codescaler_plugin.scoring.forward import fitting_tokens
        from codescaler_plugin.scoring.loading import load_classifier, text_config

        config = CodeScalerConfig.from_env(model=model, device=device)
        name = reward_model(config.model)
        measured, tokenizer = load_classifier(name, config.device, trust_remote_code=config.trust_remote_code)
        if text_config(measured).pad_token_id is None:
            text_config(measured).pad_token_id = tokenizer.eos_token_id  # as TRL does; the ways of others need one
        items = synthetic_items(measured, groups=groups, group=group, prompt=prompt, completion=completion)
        with rate_bar("measuring", repetitions * len(WAYS)) as advance, ExitStack() as stack:
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
    Terminal().print(bench_table(result))
    typer.echo(json.dumps({"model": config.model, **asdict(result), **around}))
