"""`codescaler evaluate`. Each subcommand writes its numbers for `codescaler report`."""

from typer import Typer

from codescaler_plugin.cli.evaluate.generation import generation
from codescaler_plugin.cli.evaluate.reward_model import calibration, candidates, pairs, rm_bench, robustness

evaluate = Typer(no_args_is_help=True, help="Measure a reward model or a policy, for codescaler report.")
for _command in (pairs, rm_bench, candidates, calibration, robustness, generation):
    evaluate.command()(_command)
