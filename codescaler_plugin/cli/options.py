"""Options that several commands have, each declared once; and groups of options."""

from collections.abc import Callable
from dataclasses import fields, is_dataclass
from functools import wraps
from inspect import Parameter, signature
from typing import Annotated, Any

import typer

Model = Annotated[
    str | None, typer.Option(help="Hub id, directory or 'builtin'; else CODESCALER_MODEL, else the 8B model.")
]
MaxTokens = Annotated[int | None, typer.Option(min=1, help="Tokens per forward pass; else what fits.")]
Device = Annotated[str | None, typer.Option(help="Torch device; else that of this process.")]


def grouped(command: Callable[..., None]) -> Callable[..., None]:
    """A command with an option for each field of a parameter whose type is a dataclass.

    Fields need defaults. Their types are declared as those of parameters are: `Annotated` with `typer.Option`.

    Example:
        >>> @dataclass
        ... class Limits:
        ...     seconds: Annotated[float, typer.Option(help="Per program.")] = 3.0
        >>> @app.command()
        ... @grouped
        ... def verify(source: str, *, limits: Limits) -> None: ...
    """
    own = signature(command, eval_str=True)
    groups: dict[str, Any] = {
        name: one.annotation for name, one in own.parameters.items() if is_dataclass(one.annotation)
    }
    shown = []
    for name, parameter in own.parameters.items():
        if name not in groups:
            shown.append(parameter.replace(kind=Parameter.KEYWORD_ONLY))
            continue
        for one in fields(groups[name]):
            shown.append(Parameter(one.name, Parameter.KEYWORD_ONLY, default=one.default, annotation=one.type))

    @wraps(command)
    def called(**given: Any) -> None:
        for name, group in groups.items():
            given[name] = group(**{one.name: given.pop(one.name) for one in fields(group)})
        command(**given)

    called.__signature__ = own.replace(parameters=shown)  # type: ignore[attr-defined]
    called.__annotations__ = {one.name: one.annotation for one in shown}
    return called
