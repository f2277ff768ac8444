"""Records are written and read by one function, whose errors name the field."""

from dataclasses import dataclass
from typing import Any, Literal

import pytest

from codescaler_plugin.errors import DataError
from codescaler_plugin.evaluation.cells import side_by_side
from codescaler_plugin.evaluation.result import Result
from codescaler_plugin.intervals import Mean
from codescaler_plugin.report.sections import Section


@dataclass(frozen=True)
class Part:
    name: str
    values: tuple[float, ...]


@dataclass(frozen=True)
class Whole(Result):
    count: int
    by_size: dict[int, Part]
    choice: dict[Literal["a", "b"], float | None]
    setting: dict[str, bool | int | float | str | None]
    mean: Mean | None = None

    @classmethod
    def compare(cls, title: str, *_: Any) -> Section:
        return Section(title, "", [], [])


WHOLE = Whole(
    3,
    {4: Part("four", (0.5, 1.0)), 16: Part("", ())},
    {"a": None, "b": 2.0},
    {"instruct": True, "top_k": 20, "top_p": 0.95, "extraction": "last", "seed": None},
    Mean(0.5, 0.25, 0.75, 8, 2),
)


def test_a_record_is_read_as_it_was_written() -> None:
    written = WHOLE.to_json()
    assert written["by_size"] == {"4": {"name": "four", "values": [0.5, 1.0]}, "16": {"name": "", "values": []}}
    read = Whole.from_json(written)
    assert read == WHOLE
    assert [type(value) for value in read.setting.values()] == [bool, int, float, str, type(None)]
    del written["mean"]
    assert Whole.from_json(written).mean is None


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        (("count",), 1.5, "count: Input should be a valid integer, not 1.5"),
        (("count",), True, "count: Input should be a valid integer, not True"),
        (("mean", "value"), False, "mean.value: Input should be a valid number, not False"),
        (("mean", "low"), float("inf"), "mean.low: Input should be a finite number, not inf"),
        (("mean", "low"), 10**400, "mean.low: Input should be a finite number, not "),
        (("mean",), [], r"mean: Input should be an object, not \[\]"),
        (("by_size", "4", "values"), "0.5", "by_size.4.values: Input should be a valid array, not '0.5'"),
        (("by_size", "4", "values"), [1, None], "by_size.4.values.1: Input should be a valid number, not None"),
        (("by_size", "4", "name"), 4, "by_size.4.name: Input should be a valid string, not 4"),
        (("by_size", "four"), {}, r"by_size.four.\[key\]: Input should be a valid integer"),
        (("choice", "c"), 1.0, r"choice.c.\[key\]: Input should be 'a' or 'b', not 'c'"),
        (("setting", "x"), [], r"setting.x.bool: Input should be a valid boolean, not \[\]"),
        (("colour",), "red", "colour: Unexpected keyword argument"),
    ],
)
def test_an_error_names_the_field(path: tuple[str, ...], value: Any, said: str) -> None:
    written = WHOLE.to_json()
    inner = written
    for name in path[:-1]:
        inner = inner[name]
    inner[path[-1]] = value
    with pytest.raises(DataError, match=f"^{said}"):
        Whole.from_json(written)


def test_a_missing_field_and_another_type_are_named() -> None:
    written = WHOLE.to_json()
    del written["by_size"]["4"]["name"]
    with pytest.raises(DataError, match=r"^by_size\.4\.name: Field required"):
        Whole.from_json(written)
    with pytest.raises(DataError, match=r"^Whole: Input should be an object, not \[\]"):
        Whole.from_json([])


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
