"""`codescaler evaluate pairs`."""

from typing import Annotated

import typer

from codescaler_plugin.cli.evaluate.run import Data, Run, RunOptions, Seed, Split, read_split
from codescaler_plugin.cli.options import BaseModel, grouped
from codescaler_plugin.cli.terminal import reported


@grouped
def pairs(
    data: Data,
    *,
    options: RunOptions,
    human_bugs: Annotated[
        str | None, typer.Option(metavar="FILE", help="Rows of HumanEvalPack, for the control by human bugs.")
    ] = None,
    base_model: BaseModel = None,
    base_pairs: Annotated[int, typer.Option(min=1, help="Pairs drawn for the control by log-probability.")] = 256,
    split: Split = None,
    seed: Seed = 0,
) -> None:
    """Accuracy on pairs: overall, per kind, by margin, and beside its controls.

    DATA holds pairs in any format of codescaler mine. Interrupted runs resume
    with the same command.

    Example: codescaler evaluate pairs held_out.jsonl --model MODEL
    """
    with reported():
        from codescaler_plugin.evaluation.pairwise import evaluate_pairs, read_human_bugs

        run = Run("pairs", data, options, human_bugs)
        rows = read_split(data, split)
        bugs = list(read_human_bugs(human_bugs)) if human_bugs else []
        result = run.score(
            evaluate_pairs, rows, seed=seed, human_bugs=bugs, base_model=base_model, base_pairs=base_pairs
        )
        run.finish(result)
