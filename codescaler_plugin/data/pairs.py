"""Files of preference pairs: reads any of the usual columns, and writes those of a trainer.

| format | columns | read by |
|---|---|---|
| `pairs` | the fields of `PreferencePair` | this package |
| `codescaler` | question_content, code_pos, code_neg | as CodeScalerPair-51K |
| `trl` | prompt, chosen, rejected as messages; margin if every pair has one | TRL's `RewardTrainer` |
| `openrlhf` | the same | `train_rm --data.prompt_key prompt --data.apply_chat_template` |

The messages are the problem and the bare code, the two turns that scoring renders. A trainer's chat template turns
them into the same tokens as `scoring.rendering.Renderer`, except for the text of control tokens, which only the
renderer breaks up.
"""

import gzip
import json
import reprlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import IO, Any

from codescaler_plugin.data.columns import NAMES, Bad, Columns, NoColumnError, first_value, made_of, shown_columns
from codescaler_plugin.data.outputs import write_output
from codescaler_plugin.data.rollouts import problem_id_of, rows_of, whole_step
from codescaler_plugin.errors import ConfigError, DataError
from codescaler_plugin.records import PreferencePair
from codescaler_plugin.text.messages import completion_text, problem_text

EXPORTS = ("pairs", "codescaler", "trl", "openrlhf")
TRAIN = "train"  # pairs of all other splits are not trained on

_MARGIN = "expected a gap of pass rates in (0, 1], or null where it is not known"


def read_pairs(
    path: str | Path, *, on_bad: Bad | None = None, columns: Columns | None = None
) -> Iterator[PreferencePair]:
    """Read the pairs of a file, folder or dataset in any of the formats above, which the columns of each row tell.

    Rows without a `kind` get the kind `rollout`, as the pairs of CodeScalerPair-51K.

    Args:
        path: a file, a folder, a folder of `datasets.save_to_disk`, or a hub id.
        on_bad: called with a message for each bad row, which is then skipped. None: a bad row is an error.
        columns: the file's own names, as `{"chosen": "better", "rejected": "worse"}`. None: those of the formats.

    Raises:
        ConfigError: nothing at `path`, or a column of `columns` that the file lacks.
        DataError: a row that is not a pair; the message names it.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     file = Path(folder, "pairs.jsonl")
        ...     size = file.write_text('{"question_content": "Add.", "code_pos": "x = 1", "code_neg": "x = 2"}')
        ...     [pair] = read_pairs(file)
        >>> pair.problem, pair.chosen, pair.rejected, pair.kind
        ('Add.', 'x = 1', 'x = 2', 'rollout')
    """
    return pairs_in(((place, row) for _, place, row in rows_of(path, on_bad=on_bad, columns=columns)), on_bad)


def pairs_in(rows: Iterable[tuple[str, Mapping[str, Any]]], on_bad: Bad | None = None) -> Iterator[PreferencePair]:
    """The pairs in rows, which come with their positions; see `read_pairs`."""
    return made_of(rows, pair_of, on_bad)


def is_pair(row: Mapping[str, Any]) -> bool:
    """Whether a row holds a pair. Tells a file of pairs from a file of verdicts."""
    return {"chosen", "rejected"} <= row.keys() or {"code_pos", "code_neg"} <= row.keys()


def split_of(row: Mapping[str, Any]) -> str:
    """The split of a row. Without a split (no column, null or an empty text) it is `train`."""
    split = row.get("split")
    if split is None or split == "":
        return TRAIN
    if not isinstance(split, str):
        raise DataError(f"split is {split!r}: expected a text, such as {TRAIN!r} or 'held_out'")
    return split


def pair_of(row: Mapping[str, Any]) -> PreferencePair:
    """The pair in a row."""
    if {"question_content", "code_pos", "code_neg"} <= row.keys():
        texts = row["question_content"], row["code_pos"], row["code_neg"]
    elif {"chosen", "rejected"} <= row.keys():
        problem = first_value(row, NAMES["problem"])
        if problem is None:
            problem = row["chosen"]  # its messages may begin with the prompt
        texts = (
            problem_text(problem, "the problem", is_stated=True),
            completion_text(row["chosen"], "chosen"),
            completion_text(row["rejected"], "rejected"),
        )
    else:
        raise NoColumnError(
            f"expected the columns problem, chosen, rejected; or prompt, chosen, rejected; or question_content, "
            f"code_pos, code_neg: it has {shown_columns(row)}; name yours by `columns=`"
        )
    for name, text in zip(("the problem", "the chosen side", "the rejected side"), texts, strict=True):
        if not isinstance(text, str) or not text:
            raise DataError(f"{name} is {'empty' if text == '' else type(text).__name__}: expected text")
    step = row.get("step")
    return PreferencePair(
        problem=texts[0],
        chosen=texts[1],
        rejected=texts[2],
        kind=str(row.get("kind") or "rollout"),
        problem_id=problem_id_of(row),
        margin=_margin(row.get("margin")),
        step=None if step in (None, "") else whole_step(step),
        split=split_of(row),
        source=str(row.get("source") or ""),
    )


def _margin(value: Any) -> float | None:
    """A margin of a row. CSV files hold it as text, with an empty text for null.

    A margin of NaN would make every parameter of a model NaN in one step.
    """
    try:
        if value is None or value == "":
            return None
        if isinstance(value, int | float | str) and not isinstance(value, bool):
            return checked_margin(float(value))
    except (ValueError, OverflowError):
        pass
    raise DataError(f"margin is {reprlib.repr(value)}: {_MARGIN}")


def checked_margin(margin: float) -> float:
    """The margin; a DataError if it is NaN or outside of (0, 1]."""
    if not 0 < margin <= 1:
        raise DataError(f"margin is {margin!r}: {_MARGIN}")
    return margin


def export_pairs(pairs: Sequence[PreferencePair], format: str = "pairs") -> Iterator[dict[str, Any]]:  # noqa: A002
    """One row per pair in the columns of a format. Only `pairs` has a column for the split."""
    _check_format(format)
    if format == "pairs":
        return (asdict(pair) for pair in pairs)
    if format == "codescaler":
        return (
            {"question_content": pair.problem, "code_pos": pair.chosen, "code_neg": pair.rejected} for pair in pairs
        )
    # A trainer that finds the column subtracts it from every gap, so it is there for all pairs or not at all.
    margins = all(pair.margin is not None for pair in pairs)
    return (
        {
            "prompt": [{"role": "user", "content": pair.problem}],
            "chosen": [{"role": "assistant", "content": pair.chosen}],
            "rejected": [{"role": "assistant", "content": pair.rejected}],
            **({"margin": pair.margin} if margins else {}),
        }
        for pair in pairs
    )


def write_pairs(
    pairs: Sequence[PreferencePair],
    path: Path,
    format: str = "pairs",  # noqa: A002
    *,
    held_out: Path | None = None,
) -> list[Path]:
    """Write pairs as JSON lines or parquet; returns the files.

    Args:
        pairs: n pairs.
        path: file of the training pairs, or of all pairs if one file holds both splits. Its suffix is `.jsonl`,
            `.jsonl.gz` or `.parquet`.
        format: columns, one of `EXPORTS`.
        held_out: file of the held-out pairs. None: `path`; for a format without a column for the split,
            `NAME.held_out.SUFFIX` beside it.

    Raises:
        ConfigError: an unknown format or suffix, or a path that cannot be written.

    Example:
        >>> import tempfile
        >>> pairs = [PreferencePair("Add.", "x = 1", "x = 2", "rollout")]
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     [file] = write_pairs(pairs, Path(folder, "pairs.jsonl"), "trl")
        ...     json.loads(file.read_text())["chosen"]
        [{'role': 'assistant', 'content': 'x = 1'}]
    """
    files = output_files(path, format, held_out)
    pairs_of = {path: list(pairs)}
    rest = [pair for pair in pairs if pair.split != TRAIN]
    if len(files) > 1 and (rest or held_out is not None):
        pairs_of = {path: [pair for pair in pairs if pair.split == TRAIN], files[1]: rest}
    if len(files) > len(pairs_of) and files[1].exists():
        raise ConfigError(f"{files[1]} is of an earlier run and no longer fits: delete it, or hold problems out again")
    for file, split_pairs in pairs_of.items():
        with write_output(file, binary=True) as sink:
            rows = export_pairs(split_pairs, format)
            _write_parquet(rows, sink) if _suffix(file) == ".parquet" else _write_lines(rows, sink, _suffix(file))
    return list(pairs_of)


def output_files(path: Path, format: str, held_out: Path | None = None) -> list[Path]:  # noqa: A002
    """The files that `write_pairs` may write: one, or one per split."""
    _check_format(format)
    suffix = _suffix(path)
    if held_out is not None:
        _suffix(held_out)
        if held_out.resolve() == path.resolve():
            raise ConfigError(f"{path} is given for both splits: give two files, or leave the second out")
        return [path, held_out]
    if format == "pairs":
        return [path]
    return [path, path.with_name(f"{path.name.removesuffix(suffix)}.held_out{suffix}")]


def _check_format(name: str) -> None:
    if name not in EXPORTS:
        raise ConfigError(f"format is {name!r}: expected one of {', '.join(EXPORTS)}")


def _suffix(path: Path) -> str:
    suffix = next((end for end in (".jsonl.gz", ".jsonl", ".parquet") if path.name.endswith(end)), None)
    if suffix is None:
        raise ConfigError(f"cannot write {path}: its name is of no known form; expected .jsonl, .jsonl.gz or .parquet")
    return suffix


def _write_lines(rows: Iterable[Mapping[str, Any]], file: IO[bytes], suffix: str) -> None:
    lines = (json.dumps(row).encode() + b"\n" for row in rows)
    if suffix == ".jsonl.gz":  # without a time and a name, so that equal pairs give equal files
        with gzip.GzipFile("", mode="wb", fileobj=file, mtime=0) as zipped:
            zipped.writelines(lines)
    else:
        file.writelines(lines)


def _write_parquet(rows: Iterable[Mapping[str, Any]], file: IO[bytes]) -> None:
    import pyarrow as arrow
    import pyarrow.parquet as parquet

    listed = list(rows)
    types = dict.fromkeys((column.name for column in fields(PreferencePair)), arrow.string())
    types |= {"margin": arrow.float64(), "step": arrow.int64()}
    # Only in the format `pairs` can a column hold nothing but nulls, which have no type.
    schema = arrow.schema(list(types.items())) if not listed or "kind" in listed[0] else None
    parquet.write_table(arrow.Table.from_pylist(listed, schema=schema), file)
