"""`codescaler evaluate candidates`."""

from typing import Annotated

import typer

from codescaler_plugin.cli.evaluate.run import Data, Run, RunOptions, Seed, read_verdicts
from codescaler_plugin.cli.options import Extraction, grouped
from codescaler_plugin.cli.terminal import reported


@grouped
def candidates(
    data: Data,
    *,
    options: RunOptions,
    max_n: Annotated[int | None, typer.Option(min=1, help="Largest N; else 64 or what most problems have.")] = None,
    extraction: Extraction = "last",
    seed: Seed = 0,
) -> None:
    """Best of N against random choice, length and the oracle.

    DATA holds candidates with verdicts: the output of codescaler verify, or
    any rows with problem, passed, and code or completion.

    Example: codescaler evaluate candidates verdicts.jsonl --model MODEL
    """
    with reported():
        from codescaler_plugin.evaluation.best_of_n import evaluate_candidates

        run = Run("candidates", data, options)
        groups = read_verdicts(data, extraction)
        run.finish(run.score(evaluate_candidates, groups, total=len(groups), max_n=max_n, seed=seed))
