"""Rollouts of any host's run, one record at a time.

What a run left behind is a file or a folder of files; each holds rows, and a row's columns tell the host:

| format | written by | columns read |
|---|---|---|
| `trl` | `log_completions=True`: `completions/completions_00001.parquet` | prompt, completion, step |
| `openrlhf` | batch inference (up to 0.9.0), or requests to a remote reward | input, output; query, prompts |
| `verl` | `trainer.rollout_data_dir`: `<step>.jsonl` | input, output, step |
| `recipe` | the public CodeScaler recipe: `step-<n>.json` | prompt, response; its `problem` is another row's |
| `jsonl` | anyone | problem or prompt; completion or response; problem_id, step, source if there |

The files are of any form that `data.rows` reads; a dataset of `datasets` on disk or on the hub will do as well.
"""

import re
import reprlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from codescaler_plugin.data.rows import SUFFIXES, read_rows
from codescaler_plugin.errors import ConfigError, DataError
from codescaler_plugin.extraction import begun, prompt_opening
from codescaler_plugin.records import Fault, Rollout
from codescaler_plugin.text.messages import begun_text, completion_text, problem_text
from codescaler_plugin.text.templates import Template, response

FORMATS = ("auto", "trl", "openrlhf", "verl", "recipe", "jsonl")

_PROMPTS = ("problem", "prompt", "question_content", "question", "messages", "input", "instruction", "text")
_COMPLETIONS = ("completion", "response", "output", "answer", "generation")
_IDS = ("problem_id", "task_id", "question_id")
_NESTED = ("extra_info", "metadata")  # where verl's and others' rows hold what is no column of its own
_MBPP = re.compile(r"(?:mbpp(?:plus|eval)?[/_-])?0*([0-9]+)(?:\.0+)?")
_STEPS = ("step", "global_step")

Bad = Callable[[str], None]
"""Called with a message that names a bad row, which is then passed over."""


def read_rollouts(
    path: str | Path,
    format: str = "auto",  # noqa: A002
    *,
    on_bad: Bad | None = None,
    template: Template | None = None,
) -> Iterator[Rollout]:
    """The rollouts of a file, a folder, or a dataset, in step order; nothing but the current rows is in memory.

    The problem is the last user turn: of messages, or of text that a chat template has made (`text.templates`). The
    completion is kept whole, thinking and prose included; what its prompt has opened at its end (`<think>`, a fence)
    stands before it. In a folder, files are read in the order of the numbers
    in their names; the recipe's validation records (`step-val-*`) are left out, for they are answers to evaluation
    problems: name such a file itself to read it.

    Args:
        path: a file, a folder, a folder of `datasets.save_to_disk`, or a hub id (`owner/name`, with `:split` if the
            dataset has several).
        format: one of `FORMATS`; `auto` tells each file by the columns of its first row.
        on_bad: None: a bad row is an error.
        template: the policy's chat template (`text.derivation.template_of`); None: those of public model families.

    Raises:
        ConfigError: an unknown format, or a path that is not there.
        DataError: a row or file that cannot be read; it is named.
    """
    if format not in FORMATS:
        raise ConfigError(f"format is {format!r}: expected one of {', '.join(FORMATS)}")
    source = _source(path)
    formats: dict[str, str] = {}  # by file
    for file, place, row in rows_of(path, on_bad=on_bad):
        try:
            if file not in formats:
                formats[file] = _format_of(row) if format == "auto" else format
            yield _rollout(row, formats[file], file, source, template)
        except DataError as error:
            pass_over(f"{place}: {error}", on_bad, error)


def read_problem_texts(path: str | Path) -> list[str]:
    """The problem texts of an evaluation set, whatever its rows call them; each once.

    Raises:
        ConfigError: nothing is there.
        DataError: a row without a problem; it is named.
    """
    texts: dict[str, None] = {}
    for _, place, row in rows_of(path):
        try:
            texts[problem_text(_value(row, _PROMPTS))] = None
        except DataError as error:
            raise DataError(f"{place}: {error}") from error
    return list(texts)


def rows_of(path: str | Path, *, on_bad: Bad | None = None) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """The rows of a file, folder or dataset: the file's name, the row's place for a message, and the row.

    Raises:
        ConfigError: nothing is there.
        DataError: a row that cannot be read, unless `on_bad` takes it; or a file, see `read_rows`.
    """
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
            raise ConfigError(
                f"{name} has the splits {', '.join(loaded)}: name one, as in {name}:{next(iter(loaded))}"
            )
        if split and split not in loaded:
            raise ConfigError(f"{name} has no split {split!r}: it has {', '.join(loaded)}")
        loaded = loaded[split or next(iter(loaded))]
    yield from loaded


def _format_of(row: Mapping[str, Any]) -> str:
    columns = row.keys()
    if {"extracted_code", "verified_score", "response"} <= columns:
        return "recipe"
    if {"query", "prompts"} <= columns:
        return "openrlhf"
    if {"input", "output"} <= columns:
        return "verl" if {"step", "gts"} & columns else "openrlhf"
    if {"prompt", "completion", "step", "advantage"} <= columns or {"prompt", "completion", "step"} == columns:
        return "trl"
    return "jsonl"


def _rollout(row: Mapping[str, Any], format_: str, file: str, source: str, template: Template | None) -> Rollout:
    if format_ == "trl":
        prompt, completion = _value(row, ("prompt",)), _completion(row, ("completion",))
    elif format_ == "recipe":
        prompt, completion = _value(row, ("prompt",)), _completion(row, ("response",))
    elif format_ == "openrlhf" and "query" in row:
        prompt = _only(row["prompts"], "prompts") if "prompts" in row else ""
        completion = response(_only(row["query"], "query"), prompt, template)
    elif format_ in ("verl", "openrlhf"):
        prompt, completion = _value(row, ("input",)), _completion(row, ("output",))
    else:
        prompt, completion = _value(row, _PROMPTS), _completion(row, _COMPLETIONS)
    start, is_reply = begun_text(prompt, "prompt", template)
    text = begun(prompt_opening(start, is_reply=is_reply), completion_text(completion, "completion"))
    return Rollout(
        problem=problem_text(prompt, "prompt", template),
        completion=text.encode("utf-8", "replace").decode(),  # a decoder may leave half a surrogate pair
        problem_id=problem_id_of(row),
        step=_step(row, format_, file),
        source=str(row.get("source") or source),
    )


def problem_id_of(row: Mapping[str, Any]) -> str:
    """The problem that a row names, also inside `extra_info` or `metadata`; empty if none.

    A column `id` is not read: in a row of rollouts it is the rollout's own.
    """
    places = [row, *(row[name] for name in _NESTED if isinstance(row.get(name), Mapping))]
    found = (place.get(name) for place in places for name in _IDS)
    given = (one for one in found if one is not None and one != "" and one == one)  # NaN, a gap of parquet's, is not
    return next(map(str, given), "")


def fault_of(row: Mapping[str, Any]) -> Fault | None:
    """Why a row of verdicts holds none; None where it holds one, and where there is no such column.

    Raises:
        DataError: it is no fault.
    """
    fault = row.get("fault")
    if fault is None or fault == "" or fault != fault:  # CSV and pandas have no null, but an empty text or NaN
        return None
    if fault not in list(Fault):
        raise DataError(f"fault is {reprlib.repr(fault)}: expected null or one of {', '.join(Fault)}")
    return Fault(fault)


def same_id_key(text: str) -> str:
    """A key that is equal for two ids of one problem: `11`, `Mbpp/11`, `MBPP/11` and `11.0` are all `11`.

    MBPP's rows hold a bare number, which the reader and EvalPlus write behind the data set's name; a column with gaps
    turns it into a float. Ids of other data sets keep their names and differ from bare numbers; case does not count.

    Example:
        >>> same_id_key("MBPP/11") == same_id_key("11")
        True
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
    """As `_value`; null where all that there are is null: a completion without code."""
    return None if row.keys() & set(names) and _first(row, names) is None else _value(row, names)


def _first(row: Mapping[str, Any], names: tuple[str, ...]) -> Any:
    return next((row[name] for name in names if row.get(name) is not None), None)


def _only(value: Any, name: str) -> str:
    """A value that OpenRLHF sends as a list of one."""
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    if not isinstance(value, str):
        raise DataError(f"{name} is {type(value).__name__}: expected a string, or a list of one")
    return value


def _step(row: Mapping[str, Any], format_: str, file: str) -> int | None:
    step = _first(row, _STEPS)
    if step is None or step == "":  # CSV has no null
        in_name = re.search(r"(?:step[-_]|completions_|\A)(\d+)\.", file) if format_ != "jsonl" else None
        return int(in_name[1]) if in_name else None
    return whole_step(step)


def whole_step(step: Any) -> int:
    """A training step as a row has it; parquet files hold some as 3.0, CSV files hold text.

    Raises:
        DataError: no whole number, or none that a column of 64 bits holds.
    """
    text = re.fullmatch(r"([0-9]{1,18})(\.0*)?", step) if isinstance(step, str) else None
    number = int(text[1]) if text else step
    if isinstance(number, bool) or not isinstance(number, int | float) or number % 1 != 0 or abs(number) >= 1 << 63:
        raise DataError(f"step is {reprlib.repr(step)}: expected a whole number")
    return int(number)


def _source(path: str | Path) -> str:
    """The run's name: of the file or folder, never where it lies; TRL's folder has the same name in every run."""
    here = Path(path)
    return here.resolve().parent.name if here.name == "completions" else here.name


def pass_over(message: str, on_bad: Bad | None, cause: Exception) -> None:
    """Tell of a bad row; where nobody is to be told, raise a DataError."""
    if on_bad is None:
        raise DataError(message) from cause
    on_bad(message)
