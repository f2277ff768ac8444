"""The `codescaler` command. Heavy imports happen inside the commands, so that `--help` is instant."""

import os
import sys
from typing import Annotated, Any

from typer import Exit, Option, Typer, echo

from codescaler_plugin import __version__
from codescaler_plugin.cli.augment import augment
from codescaler_plugin.cli.bench import bench
from codescaler_plugin.cli.calibrate import calibrate
from codescaler_plugin.cli.doctor import doctor
from codescaler_plugin.cli.evaluate import evaluate
from codescaler_plugin.cli.extract import extract
from codescaler_plugin.cli.mine import mine
from codescaler_plugin.cli.quickstart import quickstart
from codescaler_plugin.cli.rank import rank
from codescaler_plugin.cli.report import report
from codescaler_plugin.cli.sample import sample
from codescaler_plugin.cli.score import score
from codescaler_plugin.cli.serve import serve
from codescaler_plugin.cli.terminal import reported
from codescaler_plugin.cli.verify import verify
from codescaler_plugin.cli.where import ListsHosts, where


class _App(Typer):
    """An app that reports a full disk behind stdout in one line, also for the output that typer itself prints."""

    def __call__(self, *arguments: Any, **settings: Any) -> Any:
        try:
            with reported():
                try:
                    return super().__call__(*arguments, **settings)
                finally:
                    if sys.stdout is not None:  # it was closed before the start
                        sys.stdout.flush()
        except Exit as exit_:
            # What is left in the buffer cannot be written either: without this, Python tries again and says so.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            sys.exit(exit_.exit_code)


app = _App(
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="An execution-free reward for code.",
)


def _print_version(is_asked: bool) -> None:
    if is_asked:
        echo(f"codescaler-plugin {__version__}")
        raise Exit


@app.callback()
def _main(
    _version: Annotated[
        bool, Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


for _command in (
    quickstart,
    score,
    rank,
    calibrate,
    sample,
    extract,
    bench,
    serve,
    verify,
    mine,
    augment,
    report,
    doctor,
):
    app.command()(_command)
app.command(cls=ListsHosts)(where)
app.add_typer(evaluate, name="evaluate")
