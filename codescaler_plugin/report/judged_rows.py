"""Rows of judged completions as one record, whichever command or host wrote them.

| written by | told by |
|---|---|
| `codescaler score`, `codescaler verify` | a column `status` |
| `codescaler rank` | a column `ranked`, a list beside `completions` |
| TRL (`log_completions=True`) | a column `NAME/status`, with the name of the reward |
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

from codescaler_plugin.data.columns import NAMES, Bad, Columns, NoColumnError, first_value, made_of, needed_value
from codescaler_plugin.data.rollouts import rows_of
from codescaler_plugin.errors import DataError
from codescaler_plugin.records import Status
from codescaler_plugin.text.messages import completion_text, problem_text

_STATUSES = frozenset(map(str, Status))
_MISSING = {"", "none", "nan", "null", "na", "<na>"}  # a gap of CSV, as pandas and others write it


@dataclass(frozen=True)
class Judged:
    """A completion with its judgement and the verdict of its tests, as far as they are known.

    Attributes:
        problem: the prompt as it came; of messages, the last user turn.
        status: a `Status`, or empty if the completion was not read.
        failure: `FailureKind` of a judgement without a reward; empty if there is one.
        passed: verdict of the tests. None: they did not run, or gave no verdict.
        tests: words about the tests: the first failure, or the fault.
        position: where it comes from, such as `line 3`.
        group: what its group has in common beside the problem, such as `step 10`.

    Example:
        >>> Judged("Add.", "I cannot.", "no_block", score=None).passed is None
        True
    """

    problem: str
    completion: str
    status: str
    code: str = ""
    explanation: str = ""
    score: float | None = None
    reward: float | None = None
    failure: str = ""
    passed: bool | None = None
    tests: str = ""
    position: str = ""
    group: str = ""


def read_judged(files: Sequence[Path], on_bad: Bad | None = None, columns: Columns | None = None) -> Iterator[Judged]:
    r"""Read the judged completions of files, in order.

    Args:
        files: files of any form that `data.rows` reads.
        on_bad: called with a message about each row that cannot be read. The default raises it.
        columns: see `data.columns.renamed`.

    Raises:
        ConfigError: a column of `columns` is not there.
        DataError: a damaged file, or without `on_bad` a row that is no judged completion; the message names it.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     file = Path(folder, "judged.jsonl")
        ...     _ = file.write_text('{"problem": "p", "completion": "No.", "status": "no_block", "score": null}\n')
        ...     [judged.status for judged in read_judged([file])]
        ['no_block']
    """
    several = len(files) > 1
    for file in files:
        rows = rows_of(file, on_bad=on_bad, columns=columns)
        placed = ((place, (place if several else place.removeprefix(f"{name}, "), row)) for name, place, row in rows)
        yield from chain.from_iterable(made_of(placed, _of_row, on_bad))


def _of_row(placed: tuple[str, Mapping[str, Any]]) -> list[Judged]:
    position, row = placed
    return _ranked(row, position) if isinstance(row.get("ranked"), list) else [_single(row, position)]


def _single(row: Mapping[str, Any], position: str) -> Judged:
    name = _reward_of_trl(row) if _is_missing(row.get("status")) else ""
    column = f"{name}/" if name else ""
    if not name and "status" not in row:
        raise NoColumnError(
            "expected `problem`, `completion` and `status`, as codescaler score, verify and rank write them, or "
            f"`NAME/status`, as TRL logs it: its columns are {', '.join(map(str, row)) or 'none'}"
        )
    step = row.get("step")
    return _judged(
        _problem(row),
        text_of(first_value(row, NAMES["completion"]), completion_text),
        {
            **row,
            **{key: row.get(column + key) for key in ("status", "score", "explanation") if name},
            **({"reward": row.get(name), "verdict": _verdict_of_trl(row)} if name else {}),
        },
        position,
        "" if _is_missing(step) else f"step {step}",
    )


def _ranked(row: Mapping[str, Any], position: str) -> list[Judged]:
    """The candidates of a row of `codescaler rank`."""
    completions, problem = first_value(row, NAMES["completions"]), _problem(row)
    if not isinstance(completions, list):
        raise DataError("`ranked` has no list `completions` beside it")
    judged = []
    for item in row["ranked"]:
        index = item.get("index") if isinstance(item, dict) else None
        if not isinstance(index, int) or not 0 <= index < len(completions):
            raise DataError(f"`ranked` holds {str(item)[:80]!r}: expected an object with the index of a completion")
        text = text_of(completions[index], completion_text)
        judged.append(_judged(problem, text, item, f"{position}, candidate {index}", position))
    return judged


def _judged(problem: str, completion: str, row: Mapping[str, Any], position: str, group: str) -> Judged:
    status = "" if _is_missing(row.get("status")) else str(row["status"])
    if status and status not in _STATUSES:
        raise DataError(f"status is {status!r}: expected one of {', '.join(Status)}")
    failure = row.get("failure")
    passed, tests = _tests(row) if status == Status.OK else (None, "")
    return Judged(
        problem,
        completion,
        status,
        str(row.get("code") or ""),
        str(row.get("explanation") or ""),
        _number(row.get("score"), "score"),
        _number(row.get("reward"), "reward"),
        str(failure.get("kind") or "failure") if isinstance(failure, dict) else "",
        passed,
        tests,
        position,
        group,
    )


def _tests(row: Mapping[str, Any]) -> tuple[bool | None, str]:
    """Whether the tests passed, and words about them, from `passed`, `verdict`, `fault` and `detail`."""
    detail = "" if _is_missing(row.get("detail")) else str(row["detail"])
    if not _is_missing(row.get("fault")):
        return None, f"{row['fault']}: {detail}".removesuffix(": ")
    for name in ("passed", "verdict"):
        value = row.get(name)
        if _is_missing(value):
            continue
        word = str(value).lower()
        if word in ("true", "passed", "false", "failed", "1", "0"):
            return word in ("true", "passed", "1"), detail
        return None, word if name == "verdict" else f"passed is {word}"
    return None, ""


def _reward_of_trl(row: Mapping[str, Any]) -> str:
    """The name of the reward whose status is in the row, first one with a score; empty if there is none."""
    names = [
        key.removesuffix("/status")
        for key, value in row.items()
        if isinstance(key, str) and key.endswith("/status") and value is not None
    ]
    return next((name for name in names if f"{name}/score" in row), names[0] if names else "")


def _verdict_of_trl(row: Mapping[str, Any]) -> Any:
    return next((row[key] for key in row if str(key).endswith("/verdict") and row[key] is not None), None)


def _problem(row: Mapping[str, Any]) -> str:
    value = needed_value(row, NAMES["problem"], "problem")
    return value if isinstance(value, str) else text_of(value, problem_text)


def text_of(value: Any, read: Callable[[Any], str]) -> str:
    """The text as the pipeline reads it, or as it is where the pipeline refuses it: a page only shows it."""
    try:
        return read(value)
    except DataError:
        return str(value)


def _number(value: Any, name: str) -> float | None:
    if _is_missing(value):
        return None
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        raise DataError(f"{name} is {str(value)[:40]!r}: expected a number") from None
    return number if math.isfinite(number) else None


def _is_missing(value: Any) -> bool:
    return value is None or str(value).strip().lower() in _MISSING
