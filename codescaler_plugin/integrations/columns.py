"""What TRL's trainers hand to a reward beside prompts and completions: an argument per column of the dataset."""

from collections.abc import Mapping, Sequence
from typing import Any

from codescaler_plugin.errors import DataError
from codescaler_plugin.text.messages import Text


def problems_in(prompts: Sequence[Text], columns: Mapping[str, Any], column: str | None) -> Sequence[Text]:
    """The n problems: those of a column, or the n prompts where `column` is None.

    Raises:
        DataError: there is no such column; the message lists those that there are.

    Example:
        >>> problems_in(["Add one. Use a block."], {"problem": ["Add one."]}, "problem")
        ['Add one.']
    """
    if column is None:
        return prompts
    if column not in columns:
        raise DataError(
            f"problem_column {column!r} is not in the dataset: its columns are {', '.join(sorted(columns))}"
        )
    values: Sequence[Text] = columns[column]
    return values


def by_row(arguments: Mapping[str, Any], n: int) -> dict[str, list[Any]]:
    """The arguments that hold a value per completion: lists of n. Others, such as `trainer_state`, are left out.

    Example:
        >>> by_row({"task_id": [1, 2], "trainer_state": None}, 2)
        {'task_id': [1, 2]}
    """
    return {name: values for name, values in arguments.items() if isinstance(values, list) and len(values) == n}
