"""Values that cross between processes, and forged ones."""

import sys

import pytest

from codescaler_plugin.grading import serialization


def test_values_of_the_standard_library_cross_as_themselves() -> None:
    import array
    import collections
    import datetime
    import uuid

    point = collections.namedtuple("point", "x y")
    moment = datetime.datetime(2020, 1, 2, 3, 4, 5, 6, tzinfo=datetime.UTC)
    for value in (
        *(moment, moment.date(), moment.time(), datetime.timedelta(1, 2, 3), array.array("d", [0.5, 1.5])),
        *(uuid.UUID(int=5), slice(1, None, 2), {1: 2}.keys(), {1: [2]}.items(), point(1, [2]), ValueError),
        collections.defaultdict(list, {1: [2]}),
    ):
        back, _ = serialization.unpack(serialization.pack(value)[0])
        assert repr(back) == repr(value)
    assert serialization.unpack(serialization.pack(point(1, 2))[0])[0].y == 2
    assert serialization.unpack(serialization.pack(collections.defaultdict(list))[0])[0]["new"] == []


def test_numbers_and_arrays_of_numpy_cross_by_value(monkeypatch: pytest.MonkeyPatch) -> None:
    numpy = pytest.importorskip("numpy")
    values = [
        numpy.int64(3),
        numpy.float32(0.5),
        numpy.bool_(True),
        numpy.arange(6).reshape(2, 3),
        numpy.zeros((0, 2)),
    ]
    messages = [serialization.pack(value)[0] for value in values]
    for message, value in zip(messages, values, strict=True):
        back, _ = serialization.unpack(message)
        assert repr(back) == repr(value)
    monkeypatch.delitem(sys.modules, "numpy")
    plain = [serialization.unpack(message)[0] for message in messages]
    assert plain == [3, 0.5, True, [[0, 1, 2], [3, 4, 5]], []]
    assert type(plain[2]) is bool


@pytest.mark.parametrize(
    "node",
    [
        ["y", "<i8", [1 << 40], True, 1],
        ["y", "O", [1], True, 1],
        ["a", "u\x00", 1],
        ["N", "x", ["a"], 1, 2],
        ["N", "x", ["import os"], 1],
        ["x", "system", "ls"],
        ["datetime", "ls"],
        ["Z", "nothing"],
        ["e", "Enum", "A"],
    ],
)
def test_forged_values_are_serialization_errors(node: list[object]) -> None:
    with pytest.raises(serialization.SerializationError):
        serialization.unpack({"root": [0], "nodes": [node]})
