"""Reads the rollouts of any host's run, one record at a time.

A run leaves a file or a folder of files. The columns of a file's first row tell its host, see `data.columns`. Files
have any form that `data.rows` reads; a dataset of `datasets` on disk or on the hub works as well.
"""

import io
import re
import reprlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from codescaler_plugin.data.columns import (
    FORMATS,
    NAMES,
    Bad,
    Columns,
    Host,
    check_has_columns,
    checked_columns,
    first_value,
    host_of,
    is_gap,
    made_of,
    needed_value,
    pass_over,
    renamed,
    typed,
)
from codescaler_plugin.data.rows import SUFFIXES, read_rows
from codescaler_plugin.errors import ConfigError, DataError
from codescaler_plugin.records import Fault, Rollout
from codescaler_plugin.text.templates import Template

_NESTED = ("extra_info", "metadata")  # where verl's and others' rows hold what has no column of its own
_MBPP = re.compile(r"(?:mbpp(?:plus|eval)?[/_-])?0*([0-9]+)(?:\.0+)?")


def read_rollouts(
    path: str | Path,
    format: str = "auto",  # noqa: A002
    *,
    on_bad: Bad | None = None,
    template: Template | None = None,
    columns: Columns | None = None,
) -> Iterator[Rollout]:
    r"""Read the rollouts of a file, a folder or a dataset, in step order and one at a time.

    The problem is the last user turn of the prompt, which may be messages or text that a chat template rendered (see
    `text.templates`). The completion is kept whole, with reasoning and prose. If the end of the prompt opens a
    reasoning block or a fence, that opening is put before the completion.

    A folder's files are read in the order of the numbers in their names. Validation records of the recipe
    (`step-val-*`) are left out, because they answer evaluation problems. Name such a file itself to read it.

    A row with a list of completions gives a rollout for each.

    Args:
        path: a file, a folder, a folder of `datasets.save_to_disk`, or a hub id (`owner/name`, or `owner/name:split`
            if the dataset has several splits).
        format: one of `FORMATS`. The default `auto` detects the format of each file by the columns of its first row.
        on_bad: called with a message for each bad row, which is then skipped. None: a bad row is an error.
        template: chat template of the policy, see `text.derivation.template_of`. None: those of public model families.
        columns: the file's own names, as `{"problem": "question", "completion": "answer"}`. None: those of
            `data.columns.NAMES`.

    Raises:
        ConfigError: an unknown format, nothing at `path`, or a column of `columns` that the file lacks.
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
    hosts: dict[str, Host] = {}  # by file

    def made(placed: tuple[str, dict[str, Any]]) -> list[Rollout]:
        file, row = placed
        if file not in hosts:
            hosts[file] = host_of(row, format, columns)
        return _rollouts(row, hosts[file], file, source, template)

    rows = ((place, (file, row)) for file, place, row in rows_of(path, on_bad=on_bad, columns=columns))
    for rollouts in made_of(rows, made, on_bad):
        yield from rollouts


def read_problem_texts(path: str | Path, *, columns: Columns | None = None) -> list[str]:
    """The distinct problem texts of an evaluation set, from any column that holds problems."""
    from codescaler_plugin.text.messages import problem_text

    texts: dict[str, None] = {}
    for _, place, row in rows_of(path, columns=columns):
        try:
            texts[problem_text(needed_value(row, NAMES["problem"], "problem"))] = None
        except DataError as error:
            raise DataError(f"{place}: {error}") from error
    return list(texts)


def rows_of(
    source: str | Path | io.BufferedIOBase, *, on_bad: Bad | None = None, columns: Columns | None = None
) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """The rows of a file, folder, dataset or open file: the file's name, the row's position for messages, and the row.

    Every command and reader gets its rows here. `columns` renames columns, see `data.columns.renamed`.

    Raises:
        ConfigError: nothing at `source`; or the first row of a file lacks a column of `columns`.
        DataError: a bad row without `on_bad`, or a damaged file.
    """
    mapping = checked_columns(columns)
    seen = set()
    for file, place, row in _rows(source, on_bad):
        if mapping and file not in seen:
            seen.add(file)
            check_has_columns(row, mapping, file)
        yield file, place, typed(renamed(row, mapping) if mapping else row)


def _rows(source: str | Path | io.BufferedIOBase, on_bad: Bad | None) -> Iterator[tuple[str, str, dict[str, Any]]]:
    if not isinstance(source, str | Path):
        yield from _rows_of_file(source, str(getattr(source, "name", "<stdin>")), on_bad)
        return
    here = Path(source)
    if here.is_dir() and not ((here / "state.json").exists() or (here / "dataset_dict.json").exists()):
        files = sorted(
            (file for file in here.iterdir() if file.name.endswith(SUFFIXES) and "-val-" not in file.name),
            key=lambda file: ([int(number) for number in re.findall(r"\d+", file.name)], file.name),
        )
        if not files:
            raise ConfigError(f"{source} holds no file that ends in {', '.join(SUFFIXES)}")
        for file in files:
            yield from _rows_of_file(file, file.name, on_bad)
    elif here.is_file():
        yield from _rows_of_file(here, here.name, on_bad)
    else:
        for number, row in enumerate(_dataset(source)):
            yield str(source), f"{source}, row {number}", row


def _rows_of_file(
    file: Path | io.BufferedIOBase, name: str, on_bad: Bad | None
) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for place, row in read_rows(file):
        if isinstance(row, DataError):
            pass_over(f"{name}, {place}: {row}", on_bad, row)
        else:
            yield name, f"{name}, {place}", row


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


def _rollouts(row: Mapping[str, Any], host: Host, file: str, source: str, template: Template | None) -> list[Rollout]:
    from codescaler_plugin.extraction import begun, prompt_opening
    from codescaler_plugin.text.messages import begun_text, completion_text, problem_text

    completions = host.completions_of(row, template)
    prompt = host.problem_of(row)
    start, is_reply = begun_text(prompt, "prompt", template)
    opening = prompt_opening(start, is_reply=is_reply)
    texts = [begun(opening, completion_text(completion, "completion")) for completion in completions]
    problem, name = problem_text(prompt, "prompt", template), problem_id_of(row)
    step, source = _step(row, host, file), str(row.get("source") or source)
    # A decoder may leave half a surrogate pair.
    return [Rollout(problem, text.encode("utf-8", "replace").decode(), name, step, source) for text in texts]


def problem_id_of(row: Mapping[str, Any]) -> str:
    """The problem id of a row, also inside `extra_info` or `metadata`; empty if there is none.

    A column `id` is not read: in a row of rollouts it is the id of the rollout.
    """
    mappings = [row, *(row[name] for name in _NESTED if isinstance(row.get(name), Mapping))]
    values = (mapping.get(name) for mapping in mappings for name in NAMES["problem_id"])
    return next((str(value) for value in values if not is_gap(value)), "")


def fault_of(row: Mapping[str, Any]) -> Fault | None:
    """The fault of a row of verdicts. None: the row has a verdict, or no such column."""
    fault = row.get("fault")
    if is_gap(fault):
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


def _step(row: Mapping[str, Any], host: Host, file: str) -> int | None:
    step = first_value(row, NAMES["step"])
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
