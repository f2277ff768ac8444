"""The `codescaler` command. Heavy imports happen inside the commands, so that `--help` is instant."""

from typing import Annotated

import typer

from codescaler_plugin import __version__
from codescaler_plugin.cli.bench import bench
from codescaler_plugin.cli.doctor import doctor
from codescaler_plugin.cli.evaluate import evaluate
from codescaler_plugin.cli.generation import generation
from codescaler_plugin.cli.lines import extract, score
from codescaler_plugin.cli.pairs import augment, mine, verify
from codescaler_plugin.cli.quickstart import quickstart
from codescaler_plugin.cli.report import report
from codescaler_plugin.cli.select import select
from codescaler_plugin.cli.serve import serve
from codescaler_plugin.cli.where import where

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="An execution-free reward for code.",
)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"codescaler-plugin {__version__}")
        raise typer.Exit


@app.callback()
def _main(
    _version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


for _command in (quickstart, score, select, extract, bench, serve, verify, mine, augment, where, report, doctor):
    app.command()(_command)
evaluate.command()(generation)
app.add_typer(evaluate, name="evaluate")
