"""`codescaler doctor`."""

from contextlib import nullcontext
from typing import Annotated, Any

from rich.table import Table
from rich.text import Text
from typer import Exit, Option

from codescaler_plugin.cli.options import Device, ModelArgument
from codescaler_plugin.cli.terminal import Terminal, hide_loading_bars, reported


def doctor(
    model: ModelArgument = None,
    max_length: Annotated[int | None, Option(min=1, help="Tokens per sample; else the model's own limit.")] = None,
    device: Device = None,
) -> None:
    """Check that a model can be a reward model, and print the next steps.

    The checks are device, labels, head, pad token, chat template, max length,
    a right program against a wrong one, shared prefixes and speed.

    Example: codescaler doctor LARK-Lab/CodeScaler-1.7B

    Exit code: 0 no check failed, warnings apart; 1 a check failed.
    """
    from codescaler_plugin.config import CodeScalerConfig
    from codescaler_plugin.doctor import examine, summary

    hide_loading_bars()
    console = Terminal()
    colours = {"ok": "green", "warning": "yellow", "failed": "red"}
    with reported(), console.status("looking") if console.is_terminal else nullcontext():
        config = CodeScalerConfig.from_env(model=model, max_length=max_length, device=device)
        access: dict[str, Any] = {"api_key": config.api_key, "trust_remote_code": config.trust_remote_code}
        checks = list(examine(config.model, max_length=config.max_length, device=config.device, **access))
    table = Table("", "check", "found", box=None, title=config.model, title_justify="left", padding=(0, 2, 0, 0))
    for check in checks:
        found = Text(check.finding)
        if check.advice:
            found.append(f"\nnext: {check.advice}", style=colours[check.state])
        table.add_row(Text(check.state, style=colours[check.state]), check.name, found)
    console.print(table)
    worst = max((check.state for check in checks), key=list(colours).index, default="ok")
    console.print(f"\n{summary(checks)}", style=f"bold {colours[worst]}")
    if any(check.state == "failed" for check in checks):
        raise Exit(1)
