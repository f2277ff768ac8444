"""Records are written and read by one function, whose errors name the field."""

from dataclasses import dataclass
from typing import Any, Literal

import pytest

from codescaler_plugin.errors import DataError
from codescaler_plugin.evaluation.cells import side_by_side
from codescaler_plugin.evaluation.result import from_json, to_json
from codescaler_plugin.intervals import Mean


@dataclass(frozen=True)
class Part:
    name: str
    values: tuple[float, ...]


@dataclass(frozen=True)
class Whole:
    count: int
    by_size: dict[int, Part]
    choice: dict[Literal["a", "b"], float | None]
    setting: dict[str, bool | int | float | str | None]
    mean: Mean | None = None


WHOLE = Whole(
    3,
    {4: Part("four", (0.5, 1.0)), 16: Part("", ())},
    {"a": None, "b": 2.0},
    {"instruct": True, "top_k": 20, "top_p": 0.95, "extraction": "last", "seed": None},
    Mean(0.5, 0.25, 0.75, 8, 2),
)


def test_a_record_is_read_as_it_was_written() -> None:
    written = to_json(WHOLE)
    assert written["by_size"] == {"4": {"name": "four", "values": [0.5, 1.0]}, "16": {"name": "", "values": []}}
    read = from_json(Whole, written)
    assert read == WHOLE
    assert [type(value) for value in read.setting.values()] == [bool, int, float, str, type(None)]
    del written["mean"]
    assert from_json(Whole, written).mean is None


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        (("count",), 1.5, "count: expected a whole number, not 1.5"),
        (("count",), True, "count: expected a whole number, not True"),
        (("mean", "value"), False, "mean.value: expected a number, not False"),
        (("mean", "low"), float("inf"), "mean.low: expected a finite number, not inf"),
        (("mean", "low"), 10**400, "mean.low: expected a finite number, not 1000"),
        (("mean",), [], r"mean: expected an object, not \[\]"),
        (("by_size", "4", "values"), "0.5", "by_size.4.values: expected a list, not '0.5'"),
        (("by_size", "4", "values"), [1, None], "by_size.4.values.1: expected a number, not None"),
        (("by_size", "4", "name"), 4, "by_size.4.name: expected text, not 4"),
        (("by_size", "four"), {}, "by_size.four: expected a number as the key"),
        (("choice", "c"), 1.0, "choice: expected one of a, b, not 'c'"),
        (("setting", "x"), [], r"setting.x: expected text, not \[\]"),
        (("colour",), "red", "colour: no such field is known"),
    ],
)
def test_an_error_names_the_field(path: tuple[str, ...], value: Any, said: str) -> None:
    written = to_json(WHOLE)
    inner = written
    for name in path[:-1]:
        inner = inner[name]
    inner[path[-1]] = value
    with pytest.raises(DataError, match=f"^{said}"):
        from_json(Whole, written)


def test_a_missing_field_and_another_type_are_named() -> None:
    written = to_json(WHOLE)
    del written["by_size"]["4"]["name"]
    with pytest.raises(DataError, match=r"^by_size\.4\.name: the field is missing"):
        from_json(Whole, written)
    with pytest.raises(DataError, match=r"^the record: expected an object, not \[\]"):
        from_json(Whole, [])


def test_rows_that_no_model_fills_are_left_out_with_their_heading() -> None:
    table = side_by_side(
        {"a": 1, "b": 2},
        [
            "First",
            ("number", str),
            "Second",
            ("nothing", lambda _: "-"),
            "Third",
            ("even", lambda n: "-" if n % 2 else "yes"),
        ],
    )
    assert table.head == ["", "a", "b"]
    assert table.rows == [["First"], ["number", "1", "2"], ["Third"], ["even", "-", "yes"]]
