"""`codescaler where`."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer


class Host(StrEnum):
    """A file that a host loads by path, by the name of the host."""

    OPENRLHF = "openrlhf"
    OPENRLHF_AGENT = "openrlhf-agent"
    VERL = "verl"


_FILES = {
    Host.OPENRLHF: "openrlhf/reward.py",
    Host.OPENRLHF_AGENT: "openrlhf/agent.py",
    Host.VERL: "verl/reward.py",
}


def where(
    host: Annotated[
        Host, typer.Argument(metavar="HOST", show_choices=False, help="openrlhf, openrlhf-agent or verl.")
    ],
) -> None:
    """Print the path of the file that a host loads its reward from.

    \b
    openrlhf        --reward.remote_url "$(codescaler where openrlhf)"
    openrlhf-agent  --train.agent_func_path "$(codescaler where openrlhf-agent)"
    verl            reward.custom_reward_function.path="$(codescaler where verl)"

    Up to OpenRLHF 0.10.1 the flags are --remote_rm_url and --agent_func_path.
    Settings are CODESCALER_* variables in the host's environment;
    CODESCALER_MODEL names servers, or a model to load there.
    """  # noqa: D301 - \b keeps Typer from filling the lines
    from codescaler_plugin import integrations

    typer.echo(Path(integrations.__path__[0]) / _FILES[host])
