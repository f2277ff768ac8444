"""`codescaler quickstart`."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

from typer import Option, echo

from codescaler_plugin.cli.options import Seed
from codescaler_plugin.cli.terminal import Terminal, reported


def quickstart(
    steps: Annotated[int | None, Option(min=1, help="GRPO steps; else 80.")] = None,
    seed: Seed = 0,
    output: Annotated[Path, Option(help="Folder for all files.")] = Path("codescaler-quickstart"),
    as_json: Annotated[bool, Option("--json", help="One line of JSON on stdout; all else on stderr.")] = False,
) -> None:
    """Train a small policy with a reward that runs no tests.

    GRPO runs offline, on a CPU, in minutes. Prints pass@1 on held-out problems
    before and after, and a right and a wrong program with their rewards.

    Example: codescaler quickstart --steps 20
    """
    from codescaler_plugin.quickstart import run_quickstart

    with reported():
        report = run_quickstart(steps=steps, seed=seed, output=output, results=Terminal(stderr=as_json))
    if as_json:
        echo(json.dumps(asdict(report)))
