"""Reads the rollouts of any host's run, one record at a time.

A run leaves a file or a folder of files. The columns of a file's first row tell its host, see `_HOSTS`. The files have
any form that `data.rows` reads; a dataset of `datasets` on disk or on the hub works as well.
"""

import re
import reprlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from codescaler_plugin.data.rows import SUFFIXES, read_rows
from codescaler_plugin.errors import ConfigError, DataError
from codescaler_plugin.extraction import begun, prompt_opening
from codescaler_plugin.records import Fault, Rollout
from codescaler_plugin.text.messages import begun_text, completion_text, problem_text
from codescaler_plugin.text.templates import Template
from codescaler_plugin.text.turns import response

_PROMPTS = ("problem", "prompt", "question_content", "question", "messages", "input", "instruction", "text")


@dataclass(frozen=True)
class _Host:
    """The columns of the rollouts that a host writes. Of `prompt` and `completion`, the first with a value counts."""

    detected_by: tuple[set[str], ...]  # a row with all columns of one set is of this host
    prompt: tuple[str, ...]
    completion: tuple[str, ...]
    dialogue: str | None = None  # prompt and completion as one text; it comes before `completion`
    step_in_name: bool = True  # whether the file's name holds the step if no column does


_HOSTS: dict[str, _Host] = {  # the first that matches counts; the last matches any row
    # The public CodeScaler recipe: `step-<n>.json`. Its column `problem` belongs to another row.
    "recipe": _Host(({"extracted_code", "verified_score", "response"},), ("prompt",), ("response",)),
    # `trainer.rollout_data_dir`: `<step>.jsonl`
    "verl": _Host(({"input", "output", "step"}, {"input", "output", "gts"}), ("input",), ("output",)),
    # Batch inference (up to 0.9.0), or requests to a remote reward: query, prompts
    "openrlhf": _Host(({"query", "prompts"}, {"input", "output"}), ("prompts", "input"), ("output",), "query"),
    # `log_completions=True`: `completions/completions_00001.parquet`
    "trl": _Host(({"prompt", "completion", "step", "advantage"},), ("prompt",), ("completion",)),
    # Anyone's
    "jsonl": _Host(
        (set(),), _PROMPTS, ("completion", "response", "output", "answer", "generation"), step_in_name=False
    ),
}
FORMATS = ("auto", *_HOSTS)

_IDS = ("problem_id", "task_id", "question_id")
_NESTED = ("extra_info", "metadata")  # where verl's and others' rows hold what has no column of its own
_MBPP = re.compile(r"(?:mbpp(?:plus|eval)?[/_-])?0*([0-9]+)(?:\.0+)?")
_STEPS = ("step", "global_step")

Bad = Callable[[str], None]  # called with a message that names a bad row, which is then skipped


def read_rollouts(
    path: str | Path,
    format: str = "auto",  # noqa: A002
    *,
    on_bad: Bad | None = None,
    template: Template | None = None,
) -> Iterator[Rollout]:
    r"""Read the rollouts of a file, a folder or a dataset, in step order and one at a time.

    The problem is the last user turn of the prompt, which may be messages or text that a chat template rendered (see
    `text.templates`). The completion is kept whole, with reasoning and prose. If the end of the prompt opens a
    reasoning block or a fence, that opening is put before the completion.

    A folder's files are read in the order of the numbers in their names. Validation records of the recipe
    (`step-val-*`) are left out, because they answer evaluation problems. Name such a file itself to read it.

    Args:
        path: a file, a folder, a folder of `datasets.save_to_disk`, or a hub id (`owner/name`, or `owner/name:split`
            if the dataset has several splits).
        format: one of `FORMATS`. The default `auto` detects the format of each file by the columns of its first row.
        on_bad: called with a message for each bad row, which is then skipped. None: a bad row is an error.
        template: chat template of the policy, see `text.derivation.template_of`. None: those of public model families.

    Raises:
        ConfigError: an unknown format, or nothing at `path`.
        DataError: a row or file that cannot be read; the message names it.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     file = Path(folder, "7.jsonl")  # as verl writes them
        ...     size = file.write_text('{"input": "user\\nAdd.\\nassistant\\n", "output": "x = 1", "gts": ""}\n')
        ...     [rollout] = read_rollouts(file)
        >>> rollout.problem, rollout.completion, rollout.step
        ('Add.', 'x = 1', 7)
    """
    if format not in FORMATS:
        raise ConfigError(f"format is {format!r}: expected one of {', '.join(FORMATS)}")
    source = _source(path)
    hosts: dict[str, _Host] = {}  # by file
    for file, place, row in rows_of(path, on_bad=on_bad):
        try:
            if file not in hosts:
                hosts[file] = _HOSTS[_format_of(row) if format == "auto" else format]
            yield _rollout(row, hosts[file], file, source, template)
        except DataError as error:
            pass_over(f"{place}: {error}", on_bad, error)


def read_problem_texts(path: str | Path) -> list[str]:
    """The distinct problem texts of an evaluation set, from any column that holds problems."""
    texts: dict[str, None] = {}
    for _, place, row in rows_of(path):
        try:
            texts[problem_text(_value(row, _PROMPTS))] = None
        except DataError as error:
            raise DataError(f"{place}: {error}") from error
    return list(texts)


def rows_of(path: str | Path, *, on_bad: Bad | None = None) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """The rows of a file, folder or dataset: the file's name, the row's position for messages, and the row."""
    here = Path(path)
    if here.is_dir() and not ((here / "state.json").exists() or (here / "dataset_dict.json").exists()):
        files = sorted(
            (file for file in here.iterdir() if file.name.endswith(SUFFIXES) and "-val-" not in file.name),
            key=lambda file: ([int(number) for number in re.findall(r"\d+", file.name)], file.name),
        )
        if not files:
            raise ConfigError(f"{path} holds no file that ends in {', '.join(SUFFIXES)}")
        for file in files:
            yield from _rows_of_file(file, on_bad)
    elif here.is_file():
        yield from _rows_of_file(here, on_bad)
    else:
        for number, row in enumerate(_dataset(path)):
            yield str(path), f"{path}, row {number}", row


def _rows_of_file(file: Path, on_bad: Bad | None) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for place, row in read_rows(file):
        if isinstance(row, DataError):
            pass_over(f"{file.name}, {place}: {row}", on_bad, row)
        else:
            yield file.name, f"{file.name}, {place}", row


def _dataset(path: str | Path) -> Iterator[dict[str, Any]]:
    """Rows of `datasets` on disk or on the hub, streamed."""
    name, _, split = str(path).partition(":")
    is_here = Path(name).is_dir()
    if not is_here and not re.fullmatch(r"[\w.-]+/[\w.-]+", name):
        raise ConfigError(f"{path} is no file, folder or hub id (owner/name)")
    from datasets import DatasetDict, IterableDatasetDict, load_dataset, load_from_disk

    if is_here:
        loaded = load_from_disk(name)
    else:
        try:
            loaded = load_dataset(name, streaming=True)
        except (OSError, ValueError) as error:
            raise ConfigError(f"{path} is no file or folder here, and no dataset of the hub: {error}") from error
    if isinstance(loaded, DatasetDict | IterableDatasetDict):
        if not split and len(loaded) > 1:
            splits = ", ".join(loaded)
            raise ConfigError(f"{name} has the splits {splits}: name one, as in {name}:{next(iter(loaded))}")
        if split and split not in loaded:
            raise ConfigError(f"{name} has no split {split!r}: it has {', '.join(loaded)}")
        loaded = loaded[split or next(iter(loaded))]
    yield from loaded


def _format_of(row: Mapping[str, Any]) -> str:
    return next(name for name, host in _HOSTS.items() if any(columns <= row.keys() for columns in host.detected_by))


def _rollout(row: Mapping[str, Any], host: _Host, file: str, source: str, template: Template | None) -> Rollout:
    if host.dialogue is not None and host.dialogue in row:
        prompt = _first(row, host.prompt)
        prompt = "" if prompt is None else _unlisted(prompt, "prompts")
        completion = response(_unlisted(row[host.dialogue], host.dialogue), prompt, template)
    else:
        prompt, completion = _value(row, host.prompt), _completion(row, host.completion)
    start, is_reply = begun_text(prompt, "prompt", template)
    text = begun(prompt_opening(start, is_reply=is_reply), completion_text(completion, "completion"))
    return Rollout(
        problem=problem_text(prompt, "prompt", template),
        completion=text.encode("utf-8", "replace").decode(),  # a decoder may leave half a surrogate pair
        problem_id=problem_id_of(row),
        step=_step(row, host, file),
        source=str(row.get("source") or source),
    )


def problem_id_of(row: Mapping[str, Any]) -> str:
    """The problem id of a row, also inside `extra_info` or `metadata`; empty if there is none.

    A column `id` is not read: in a row of rollouts it is the id of the rollout.
    """
    mappings = [row, *(row[name] for name in _NESTED if isinstance(row.get(name), Mapping))]
    values = (mapping.get(name) for mapping in mappings for name in _IDS)
    return next((str(value) for value in values if not _is_gap(value)), "")


def _is_gap(value: Any) -> bool:
    """Whether a value stands for null: CSV has an empty text for it, pandas and parquet have NaN."""
    return value is None or value == "" or value != value


def fault_of(row: Mapping[str, Any]) -> Fault | None:
    """The fault of a row of verdicts. None: the row has a verdict, or no such column."""
    fault = row.get("fault")
    if _is_gap(fault):
        return None
    if fault not in list(Fault):
        raise DataError(f"fault is {reprlib.repr(fault)}: expected null or one of {', '.join(Fault)}")
    return Fault(fault)


def same_id_key(text: str) -> str:
    """A key that is equal for two ids of the same problem: it is `11` for `11`, `Mbpp/11`, `MBPP/11` and `11.0`.

    Rows of MBPP hold a bare number. The reader and EvalPlus put the name of the data set before it, and a column with
    gaps turns it into a float. Ids of other data sets keep their names and differ from bare numbers. Case is ignored.
    """
    key = text.strip().casefold()
    number = _MBPP.fullmatch(key)
    return number[1] if number else key


def _value(row: Mapping[str, Any], names: tuple[str, ...]) -> Any:
    value = _first(row, names)
    if value is None:
        raise DataError(f"expected a column {' or '.join(map(repr, names))}: it has {', '.join(map(repr, row))}")
    return value


def _completion(row: Mapping[str, Any], names: tuple[str, ...]) -> Any:
    """The first value of the columns. None: all that the row has of them are null, a completion without code."""
    return None if row.keys() & set(names) and _first(row, names) is None else _value(row, names)


def _first(row: Mapping[str, Any], names: tuple[str, ...]) -> Any:
    return next((row[name] for name in names if row.get(name) is not None), None)


def _unlisted(value: Any, name: str) -> str:
    """A text that OpenRLHF sends as a list of one."""
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    if not isinstance(value, str):
        raise DataError(f"{name} is {type(value).__name__}: expected a string, or a list of one")
    return value


def _step(row: Mapping[str, Any], host: _Host, file: str) -> int | None:
    step = _first(row, _STEPS)
    if step is None or step == "":  # CSV has no null
        in_name = re.search(r"(?:step[-_]|completions_|\A)(\d+)\.", file) if host.step_in_name else None
        return int(in_name[1]) if in_name else None
    return whole_step(step)


def whole_step(step: Any) -> int:
    """A training step. Parquet files hold some as 3.0, CSV files hold text."""
    text = re.fullmatch(r"([0-9]{1,18})(\.0*)?", step) if isinstance(step, str) else None
    number = int(text[1]) if text else step
    if isinstance(number, bool) or not isinstance(number, int | float) or number % 1 != 0 or abs(number) >= 1 << 63:
        raise DataError(f"step is {reprlib.repr(step)}: expected a whole number")
    return int(number)


def _source(path: str | Path) -> str:
    """The name of the run: that of the file or folder, or of the folder above TRL's `completions`."""
    here = Path(path)
    return here.resolve().parent.name if here.name == "completions" else here.name


def pass_over(message: str, on_bad: Bad | None, cause: Exception) -> None:
    """Report a bad row to `on_bad`. None: raise a DataError."""
    if on_bad is None:
        raise DataError(message) from cause
    on_bad(message)
