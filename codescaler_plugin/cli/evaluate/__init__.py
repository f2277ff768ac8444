"""`codescaler evaluate`: one file a subcommand. Each writes its numbers for `codescaler report`."""

import typer

from codescaler_plugin.cli.evaluate.calibration import calibration
from codescaler_plugin.cli.evaluate.candidates import candidates
from codescaler_plugin.cli.evaluate.generation import generation
from codescaler_plugin.cli.evaluate.pairs import pairs
from codescaler_plugin.cli.evaluate.rm_bench import rm_bench
from codescaler_plugin.cli.evaluate.robustness import robustness

evaluate = typer.Typer(no_args_is_help=True, help="Measure a reward model or a policy, for codescaler report.")
for _command in (pairs, rm_bench, candidates, calibration, robustness, generation):
    evaluate.command()(_command)
