"""`codescaler evaluate rm-bench`."""

from dataclasses import replace
from typing import Annotated

import typer

from codescaler_plugin.cli.evaluate.run import Data, Run, RunOptions
from codescaler_plugin.cli.options import grouped
from codescaler_plugin.cli.terminal import reported
from codescaler_plugin.errors import ConfigError


@grouped
def rm_bench(
    data: Data,
    *,
    options: RunOptions,
    completions: Annotated[
        str, typer.Option(help="raw, as the benchmark; or extracted: the last code block.")
    ] = "raw",
    published: Annotated[
        str | None, typer.Option(metavar="MODEL", help="DATA holds this model's scores; nothing is scored.")
    ] = None,
) -> None:
    """RM-Bench: the matrix of styles, Easy, Normal, Hard, domains, languages.

    DATA is a file of the benchmark, a file of its results (with --published),
    or THU-KEG/RM-Bench on the hub.

    Example: codescaler evaluate rm-bench code_filtered.json --model MODEL
    """
    with reported():
        from codescaler_plugin.evaluation.rm_bench import evaluate_rm_bench, read_rm_bench

        if published and completions != "raw":
            raise ConfigError(
                f"--completions {completions} with --published: nothing is scored, the scores are as published"
            )
        run = Run("rm-bench", data, replace(options, model=published or options.model))
        rows = read_rm_bench(data)
        if published:
            run.finish(evaluate_rm_bench(rows, None))
        else:
            run.finish(run.score(evaluate_rm_bench, rows, total=len(rows), completions=completions))
