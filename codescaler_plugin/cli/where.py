"""`codescaler where`."""

from inspect import cleandoc
from typing import Annotated, Any

from typer import Argument, BadParameter, echo
from typer.core import TyperCommand

from codescaler_plugin.integrations import host_files


class ListsHosts(TyperCommand):
    """A command whose help ends with the hosts and what to type for each."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Write the help with the folders that `integrations/` holds now."""
        files = host_files()
        width = max(map(len, files)) + 2
        lines = [
            f"{name if not row else '':{width}}{line}"
            for name, (_, usage) in files.items()
            for row, line in enumerate(usage.splitlines())
        ]
        text = cleandoc(where.__doc__ or "")
        self.help = "\n".join([text, "\n\b", *lines])  # \b keeps the lines as they are
        super().format_help(ctx, formatter)


def where(host: Annotated[str, Argument(metavar="HOST", help="One of the names above.")]) -> None:
    """Print the path of the file that a host loads its reward from.

    Settings are CODESCALER_* variables in the host's environment.
    CODESCALER_MODEL names servers, or a model to load there.
    """
    files = host_files()
    if host not in files:
        raise BadParameter(f"{host!r} is not a host: expected {', '.join(files)}", param_hint="HOST")
    echo(files[host][0])
