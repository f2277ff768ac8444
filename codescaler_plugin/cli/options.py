"""Options that several commands share, each declared once, and groups of options.

| option | means in every command | default |
|---|---|---|
| `--model` | the reward model | CODESCALER_MODEL, else the paper's 8B model |
| `--policy-model` | the policy that writes completions | the only model of `--server` |
| `--base-model` | a causal model for the control by log-probability | no such control |
| `--extraction` | the block selection | CODESCALER_EXTRACTION, else see below |
| `--columns` | the file's names for columns | those of `data.columns` |
| `--limit` | the number of rows or problems to read, from the first | all |
| `--seed` | the seed of all random draws | 0 |
| `--output` | the file or folder that is written, never one that is read | stdout, or the name in the help |

`--extraction` is `single` where a completion gets its reward (`score`, `extract`, `verify`): the paper's training
rewards only a completion with one block. It is `last` where completions are compared or measured (`rank`, `calibrate`,
`sample`, `evaluate`): the paper's evaluation reads the last block, and a right program behind another block counts.
"""

import os
import stat
import sys
import tempfile
from collections.abc import Callable
from copy import copy
from dataclasses import fields, is_dataclass
from functools import wraps
from inspect import Parameter, signature
from pathlib import Path
from shutil import copyfileobj
from typing import Annotated, Any, get_args

from typer import Argument, BadParameter, Context, Option

REWARD_EXTRACTION = "single"
MEASURE_EXTRACTION = "last"

_MODEL = "Reward model: hub id, directory, 'builtin' or URL; else CODESCALER_MODEL, else the 8B model."
_FORMS = "JSONL, a JSON array, CSV, TSV or parquet, also .gz or .zst; a folder; a hub id; - for stdin."


def streamed(context: Context, value: Any) -> Any:
    """The sources, each a file, folder, hub id or -. Stdin that is redirected from a file becomes that file."""
    return _each(context, value, lambda: redirected() or "-")


def spooled(context: Context, value: Any) -> Any:
    """As `streamed`, with stdin in a temporary file, for commands that read their input more than once."""

    def path_of_stdin() -> str:
        if source := redirected():
            return source
        folder = tempfile.TemporaryDirectory()
        context.call_on_close(folder.cleanup)
        path = Path(folder.name, "stdin")
        with path.open("wb") as file:
            copyfileobj(sys.stdin.buffer, file)
        return str(path)

    return _each(context, value, path_of_stdin)


def _each(context: Context, value: Any, path_of_stdin: Callable[[], str]) -> Any:
    if isinstance(value, list | tuple):
        return [_each(context, item, path_of_stdin) for item in value]
    if value != "-" or context.resilient_parsing:
        return value
    if sys.stdin is None:
        raise BadParameter("stdin is closed")
    if "codescaler.stdin" in context.meta:
        raise BadParameter("- is given twice, and stdin can be read once")
    context.meta["codescaler.stdin"] = True
    return path_of_stdin()


def redirected() -> str | None:
    """The file that stdin is redirected from, if nothing of it has been read."""
    try:
        number = sys.stdin.fileno()
        state = os.fstat(number)
        path = Path(f"/proc/self/fd/{number}").readlink()
        is_whole = stat.S_ISREG(state.st_mode) and os.lseek(number, 0, os.SEEK_CUR) == 0
        return str(path) if is_whole and os.path.samestat(state, path.stat()) else None
    except (OSError, ValueError):  # a stream without a descriptor, as in tests, or a deleted file
        return None


Model = Annotated[str | None, Option(help=_MODEL)]
ModelArgument = Annotated[str | None, Argument(help=_MODEL)]
PolicyModel = Annotated[
    str | None,
    Option(help="Policy: with --server the server's model, else the only one it serves; else for transformers."),
]
BaseModel = Annotated[str | None, Option(help="Causal model for the control by log-probability: hub id or directory.")]
MaxNewTokens = Annotated[int | None, Option(min=1, help="Tokens per completion; else the server's limit.")]
MaxTokens = Annotated[int | None, Option(min=1, help="Tokens per forward pass; else what fits.")]
Device = Annotated[str | None, Option(help="Torch device; else that of this process.")]
Extraction = Annotated[
    str, Option(envvar="CODESCALER_EXTRACTION", help="Block selection: single, last, first or bare.")
]
Source = Annotated[str, Argument(metavar="FILE", callback=streamed, help=_FORMS)]
Data = Annotated[str, Argument(metavar="DATA", callback=spooled, help=_FORMS)]
Files = Annotated[list[str], Argument(metavar="FILE...", callback=spooled, help=_FORMS)]
Rollouts = Annotated[str, Argument(metavar="ROLLOUTS", callback=spooled, help=_FORMS)]
Pairs = Annotated[str, Argument(metavar="PAIRS", callback=spooled, help=_FORMS)]
_TESTS = "Problems with tests; repeatable."
Tests = Annotated[list[str] | None, Option(metavar="FILE", callback=spooled, help=_TESTS)]
NeededTests = Annotated[list[str], Option("--tests", metavar="FILE", callback=spooled, help=_TESTS)]
EvaluationSets = Annotated[
    list[str] | None,
    Option(metavar="FILE", callback=spooled, help="Evaluation set whose problems are removed; repeatable."),
]
Columns = Annotated[
    str | None, Option(metavar="NAME=COLUMN", help="Your names of columns, by commas: problem=question.")
]
Limit = Annotated[int | None, Option(min=1, help="Read this many from the first; else all.")]
Seed = Annotated[int, Option(help="Seed of all random draws.")]
Output = Annotated[Path | None, Option(help="Write here, not to stdout.")]
Strict = Annotated[bool, Option("--strict", help="Stop at the first bad line.")]
Server = Annotated[str, Option(metavar="URL", help="OpenAI-compatible server(s) of the policy, by commas.")]
OptionalServer = Annotated[str | None, *get_args(Server)[1:]]
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
