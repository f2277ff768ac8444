"""The columns of rows: one table of their names, for all commands and readers.

Rows of TRL, OpenRLHF, verl and published data sets are read by the names in `NAMES`. `_HOSTS` holds what the files of
a host need beyond these. A user's own names are mapped to them by `columns=`, which is `--columns` of a command.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from codescaler_plugin.data.rows import loads
from codescaler_plugin.errors import ConfigError, DataError
from codescaler_plugin.text.templates import Template

Columns = Mapping[str, str]  # names that this package reads -> names of the columns in the file
Bad = Callable[[str], None]  # called with a message that names a bad row, which is then skipped

NAMES: dict[str, tuple[str, ...]] = {  # of the names of one thing, the first with a value counts
    "problem": (
        *("problem", "prompt", "question_content", "question", "query"),
        *("messages", "input", "instruction", "text"),
    ),
    "completion": ("completion", "response", "output", "answer", "generation"),
    "completions": ("completions", "responses", "generations"),
    "problem_id": ("problem_id", "task_id", "question_id"),
    "step": ("step", "global_step"),
}
_OTHERS = (  # names of one spelling that `columns=` may map, too
    *("code", "status", "passed", "fault", "flaky", "tests_passed", "tests_total", "comparison", "source", "id"),
    *("chosen", "rejected", "kind", "margin", "split"),
    *("tests", "test", "test_list", "entry_point", "input_output"),
)
_TYPES: dict[str, type] = {
    **dict.fromkeys(("passed", "flaky", "in_process"), bool),
    **dict.fromkeys(("tests_passed", "tests_total", "step"), int),
    **dict.fromkeys(NAMES["completions"], list),
}
_FIRST = 64  # bad rows after which a file is given up if no row has the columns
_SHOWN = 12  # columns in a message

_Made = TypeVar("_Made")


class NoColumnError(DataError):
    """A row has no column for something that is needed."""


@dataclass(frozen=True)
class Host:
    """The columns of the rows that a host writes. Of `problem` and `completion`, the first with a value counts."""

    detected_by: tuple[set[str], ...]  # a row with all columns of one set is of this host
    problem: tuple[str, ...]
    completion: tuple[str, ...]
    dialogue: str | None = None  # prompt and completion as one text; it comes before `completion`
    step_in_name: bool = True  # whether the file's name holds the step if no column does
    behind: str | None = None  # column of a text that follows the prompt

    def problem_of(self, row: Mapping[str, Any]) -> Any:
        """The prompt: a text or messages."""
        if self.dialogue is not None and self.dialogue in row:
            prompt = first_value(row, self.problem)
            return "" if prompt is None else _unlisted(prompt, self.problem[0])
        problem = needed_value(row, self.problem, "problem")
        more = None if self.behind is None else row.get(self.behind)
        return f"{problem}\n\n{more}" if more else problem

    def completions_of(self, row: Mapping[str, Any], template: Template | None = None) -> list[Any]:
        """The completions of a row, texts or messages: one, or those of a list. None is a completion without code."""
        if self.dialogue is not None and self.dialogue in row:
            from codescaler_plugin.text.turns import response

            return [response(_unlisted(row[self.dialogue], self.dialogue), self.problem_of(row), template)]
        if (name := list_name(row)) is not None:
            return _listed(row[name], name)
        if not row.keys() & set(self.completion):
            needed_value(row, (*self.completion, *NAMES["completions"]), "completion")
        return [first_value(row, self.completion)]


_HOSTS: dict[str, Host] = {  # the first that matches counts; the last matches any row
    # The public CodeScaler recipe: `step-<n>.json`. Its column `problem` belongs to another row.
    "recipe": Host(({"extracted_code", "verified_score", "response"},), ("prompt",), ("response",)),
    # Instructions as in Alpaca's data: most have no input
    "alpaca": Host(({"instruction", "input"},), ("instruction",), ("output",), step_in_name=False, behind="input"),
    # `trainer.rollout_data_dir`: `<step>.jsonl`
    "verl": Host(({"input", "output", "step"}, {"input", "output", "gts"}), ("input",), ("output",)),
    # Batch inference (up to 0.9.0), or requests to a remote reward: query, prompts
    "openrlhf": Host(({"query", "prompts"}, {"input", "output"}), ("prompts", "input"), ("output",), "query"),
    # `log_completions=True`: `completions/completions_00001.parquet`
    "trl": Host(({"prompt", "completion", "step", "advantage"},), ("prompt",), ("completion",)),
    # Anyone's
    "jsonl": Host((set(),), NAMES["problem"], NAMES["completion"], step_in_name=False),
}
FORMATS = ("auto", *_HOSTS)


def host_of(row: Mapping[str, Any], format: str = "auto", columns: Columns | None = None) -> Host:  # noqa: A002
    """The columns of a format, or with `auto` those that a row has. A row of renamed columns is anyone's.

    Example:
        >>> row = {"prompt": "Add.", "responses": ["x = 1", "x = 2"]}
        >>> host = host_of(row)
        >>> host.problem_of(row), host.completions_of(row)
        ('Add.', ['x = 1', 'x = 2'])
    """
    if format != "auto" or columns:
        return _HOSTS["jsonl" if format == "auto" else format]
    return next(host for host in _HOSTS.values() if any(columns <= row.keys() for columns in host.detected_by))


def list_name(row: Mapping[str, Any]) -> str | None:
    """The name of the column that lists the completions of a row; None if it has none."""
    return next((name for name in NAMES["completions"] if not is_gap(row.get(name))), None)


def first_value(row: Mapping[str, Any], names: tuple[str, ...]) -> Any:
    """The first value that is no gap, else the first that is not null; None if there is none."""
    values = [row[name] for name in names if row.get(name) is not None]
    return next((value for value in values if not is_gap(value)), values[0] if values else None)


def is_gap(value: Any) -> bool:
    """Whether a value stands for null: CSV has an empty text for it, pandas and parquet have NaN.

    Example:
        >>> is_gap(""), is_gap(float("nan")), is_gap(0)
        (True, True, False)
    """
    return value is None or value == "" or value != value


def needed_value(row: Mapping[str, Any], names: tuple[str, ...], thing: str) -> Any:
    """The first value that is not null; a `NoColumnError` that lists the columns of the row if there is none."""
    value = first_value(row, names)
    if value is None:
        raise NoColumnError(
            f"expected a column {' or '.join(map(repr, names))}: it has {shown_columns(row)}; name the one with the "
            f"{thing} by `columns={thing}=NAME`"
        )
    return value


def shown_columns(row: Mapping[str, Any]) -> str:
    """The columns of a row, for a message."""
    names = [repr(name) for name in row]
    return ", ".join(names[:_SHOWN]) + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "") or "none"


def parsed_columns(text: str | None) -> dict[str, str]:
    """The mapping of an option such as `problem=question,completion=answer`.

    Raises:
        ConfigError: an item is not NAME=COLUMN, or a name is not one that this package reads.

    Example:
        >>> parsed_columns("problem=question,completion=answer")
        {'problem': 'question', 'completion': 'answer'}
    """
    columns = {}
    for item in (text or "").split(",") if text else ():
        name, _, column = item.partition("=")
        if not name.strip() or not column.strip() or name.strip() in columns:
            raise ConfigError(f"`columns=` is {text!r}: expected NAME=COLUMN, as problem=question,completion=answer")
        columns[name.strip()] = column.strip()
    return checked_columns(columns)


def checked_columns(columns: Columns | None) -> dict[str, str]:
    """The mapping; a `ConfigError` if it holds a name that this package does not read."""
    known = (*NAMES, *_OTHERS)
    for name in columns or ():
        if name not in known:
            raise ConfigError(f"`columns=` names {name!r}: expected one of {', '.join(known)}")
    return dict(columns or {})


def renamed(row: Mapping[str, Any], columns: Columns) -> dict[str, Any]:
    """The row with its columns renamed. A column that has the new name already gives way.

    Example:
        >>> renamed({"question": "Add.", "answer": "x = 1", "problem": 7}, {"problem": "question"})
        {'problem': 'Add.', 'answer': 'x = 1'}
    """
    new: dict[str, Any] = {}
    for column, value in row.items():
        names = [name for name, given in columns.items() if given == column]
        if names:
            new |= dict.fromkeys(names, value)
        elif column not in columns:
            new[column] = value
    return new


def check_has_columns(row: Mapping[str, Any], columns: Columns, file: str) -> None:
    """A `ConfigError` if the row, the first of its file, lacks a column of the mapping."""
    missing = [column for column in columns.values() if column not in row]
    if missing:
        raise ConfigError(
            f"{file} has no column {' or '.join(map(repr, missing))}, which `columns=` names: it has "
            f"{shown_columns(row)}"
        )


def typed(row: dict[str, Any]) -> dict[str, Any]:
    """The row with values in place of their text where a column's type is known, because CSV holds only text.

    Example:
        >>> typed({"passed": "True", "tests_total": "3", "problem": "3"})
        {'passed': True, 'tests_total': 3, 'problem': '3'}
    """
    for name, type_ in _TYPES.items():
        value = row.get(name)
        if isinstance(value, str):
            try:
                row[name] = _VALUES[type_](value)
            except (ValueError, KeyError, RecursionError):
                continue  # whoever needs it names it
    return row


def listed(value: Any) -> Any:
    """The list of a JSON text, because CSV holds only text; any other value as it is.

    Example:
        >>> listed('["x = 1", "x = 2"]'), listed("x = 1")
        (['x = 1', 'x = 2'], 'x = 1')
    """
    try:
        return _list(value) if isinstance(value, str) else value
    except (ValueError, RecursionError):
        return value


def _list(text: str) -> list[Any]:
    value = loads(text)
    if not isinstance(value, list):
        raise ValueError(text)
    return value


_TRUTH = {"true": True, "false": False}
_VALUES: dict[type, Callable[[str], Any]] = {
    bool: lambda text: _TRUTH[text.strip().lower()] if text.strip().lower() in _TRUTH else _list(text),
    int: int,
    list: _list,
}


def _listed(value: Any, name: str) -> list[Any]:
    if not isinstance(value, list):
        raise DataError(f"`{name}` is no list")
    return value


def _unlisted(value: Any, name: str) -> str:
    """A text that OpenRLHF sends as a list of one."""
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    if not isinstance(value, str):
        raise DataError(f"{name} is {type(value).__name__}: expected a string, or a list of one")
    return value


def made_of(rows: Iterable[tuple[str, Any]], make: Callable[[Any], _Made], on_bad: Bad | None) -> Iterator[_Made]:
    """What `make` makes of each row. A bad row, a `DataError`, goes to `on_bad` with its position.

    If none of the first rows has the columns, no other will: that is one error, not a message per row.

    Raises:
        DataError: a bad row without `on_bad`, or rows without the columns.
    """
    held: list[tuple[str, DataError]] | None = []  # None after the first row with the columns
    for place, row in rows:
        made: list[_Made] = []
        bad: list[tuple[str, DataError]] = []
        try:
            made = [make(row)]
        except DataError as error:
            bad = [(place, error)]
            if held is not None and isinstance(error, NoColumnError):
                held += bad
                if on_bad is None or len(held) == _FIRST:
                    break
                continue
        for where, cause in [*(held or ()), *bad]:
            pass_over(f"{where}: {cause}", on_bad, cause)
        held = None
        yield from made
    if held:
        pass_over(f"{held[0][0]}: {held[0][1]}", None, held[0][1])


def pass_over(message: str, on_bad: Bad | None, cause: Exception) -> None:
    """Report a bad row to `on_bad`. None: raise a DataError."""
    if on_bad is None:
        raise DataError(message) from cause
    on_bad(message)
