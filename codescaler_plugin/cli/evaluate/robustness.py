"""`codescaler evaluate robustness`."""

from typing import Annotated

import typer

from codescaler_plugin.cli.evaluate.run import Data, Run, RunOptions, Seed, Split, read_split
from codescaler_plugin.cli.options import grouped
from codescaler_plugin.cli.terminal import reported


@grouped
def robustness(
    data: Data,
    *,
    options: RunOptions,
    limit: Annotated[int, typer.Option(min=1, help="Pairs drawn.")] = 500,
    split: Split = None,
    seed: Seed = 0,
) -> None:
    """Accuracy and scores under edits that keep a program's behaviour.

    Padding, praise in comments, dead code, other names, another layout; each
    as an attack on pairs of Python programs.

    Example: codescaler evaluate robustness held_out.jsonl --model MODEL
    """
    with reported():
        from codescaler_plugin.evaluation.robustness import evaluate_robustness

        run = Run("robustness", data, options)
        pairs = read_split(data, split)
        run.finish(run.score(evaluate_robustness, pairs, total=min(limit, len(pairs)), limit=limit, seed=seed))
