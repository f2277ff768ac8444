"""Options that several commands share, each declared once, and groups of options."""

from collections.abc import Callable
from copy import copy
from dataclasses import fields, is_dataclass
from functools import wraps
from inspect import Parameter, signature
from pathlib import Path
from typing import Annotated, Any, get_args

from typer import Argument, FileBinaryRead, Option

_MODEL = "Reward model: hub id, directory, 'builtin' or URL; else CODESCALER_MODEL, else the 8B model."
Model = Annotated[str | None, Option(help=_MODEL)]
ModelArgument = Annotated[str | None, Argument(help=_MODEL)]
BaseModel = Annotated[str | None, Option(help="Causal model for the control by log-probability: hub id or directory.")]
MaxTokens = Annotated[int | None, Option(min=1, help="Tokens per forward pass; else what fits.")]
Device = Annotated[str | None, Option(help="Torch device; else that of this process.")]
Extraction = Annotated[str, Option(help="Block selection: single, last, first or bare.")]
Source = Annotated[
    FileBinaryRead,
    Argument(metavar="[FILE]", help="JSONL, a JSON array, CSV or parquet, also .gz or .zst; - for stdin."),
]
Output = Annotated[Path | None, Option(help="Write here, not to stdout.")]
Strict = Annotated[bool, Option("--strict", help="Stop at the first bad line.")]
ServerKey = Annotated[str | None, Option(envvar="OPENAI_API_KEY", help="API key of the server.")]


def grouped(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command an option for each field of a parameter whose type is a dataclass.

    Fields need defaults, and `Annotated` types as parameters have them. The class variable `panel`, if there is one,
    names their panel in the help.
    """
    own = signature(command, eval_str=True)
    groups: dict[str, Any] = {
        name: parameter.annotation for name, parameter in own.parameters.items() if is_dataclass(parameter.annotation)
    }
    shown = []
    for name, parameter in own.parameters.items():
        if name not in groups:
            shown.append(parameter.replace(kind=Parameter.KEYWORD_ONLY))
            continue
        for field in fields(groups[name]):
            type_, option = get_args(field.type)
            option = copy(option)
            option.rich_help_panel = option.rich_help_panel or getattr(groups[name], "panel", None)
            annotation = Annotated[type_, option]  # type: ignore[valid-type]
            shown.append(Parameter(field.name, Parameter.KEYWORD_ONLY, default=field.default, annotation=annotation))

    @wraps(command)
    def called(**values: Any) -> None:
        for name, group in groups.items():
            values[name] = group(**{field.name: values.pop(field.name) for field in fields(group)})
        command(**values)

    called.__signature__ = own.replace(parameters=shown)  # type: ignore[attr-defined]
    called.__annotations__ = {parameter.name: parameter.annotation for parameter in shown}
    return called
