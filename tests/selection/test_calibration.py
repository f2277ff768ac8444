"""Calibrations against values computed here by other means, and what becomes of odd input."""

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest

from codescaler_plugin.errors import ConfigError, DataError
from codescaler_plugin.selection.calibration import Calibration, cross_fitted, fit_calibration, read_calibration
from tests.selection.known import drawn_margins

pytest.importorskip("sklearn")


def pooled_adjacent(margins: list[float], right: list[float]) -> dict[float, float]:
    """Isotonic regression by its min-max formula: the max over starts of the min over ends of the mean between."""
    rows = sorted(zip(margins, right, strict=True))
    values = [outcome for _, outcome in rows]
    return {
        rows[index][0]: max(
            min(math.fsum(values[start:end]) / (end - start) for end in range(index + 1, len(values) + 1))
            for start in range(index + 1)
        )
        for index in range(len(rows))
    }


def test_isotonic_is_the_min_max_formula_kept_off_0_and_1() -> None:
    margins, right = drawn_margins(60)
    expected = pooled_adjacent(margins, right)
    found = fit_calibration(margins, right)
    for margin, probability in zip(margins, found.probability(margins), strict=True):
        assert probability == pytest.approx(min(max(expected[margin], 1 / 62), 61 / 62), abs=1e-9)
    assert found.probability([-5.0, 99.0]) == pytest.approx([found.knots[0][1], found.knots[-1][1]])


def test_platt_finds_the_maximum_of_the_likelihood_with_smoothed_targets() -> None:
    margins, right = drawn_margins(80)
    found = fit_calibration(margins, right, method="platt")
    positive = sum(right)
    targets = [(positive + 1) / (positive + 2) if one else 1 / (80 - positive + 2) for one in right]
    errors = [p - t for p, t in zip(found.probability(margins), targets, strict=True)]
    assert sum(errors) == pytest.approx(0, abs=1e-3)  # the gradient at the maximum
    assert sum(error * margin for error, margin in zip(errors, margins, strict=True)) == pytest.approx(0, abs=1e-3)


def test_the_true_curve_is_found() -> None:
    margins, right = drawn_margins(20_000)
    for method, tolerance in (("platt", 0.02), ("isotonic", 0.05)):
        found = fit_calibration(margins, right, method=method)  # type: ignore[arg-type]
        for margin in (0.2, 1.0, 2.0):
            assert found.probability([margin])[0] == pytest.approx(1 / (1 + math.exp(-1.5 * margin)), abs=tolerance)


@pytest.mark.parametrize("method", ["isotonic", "platt"])
def test_never_sure_never_falling(method: str) -> None:
    for margins, right in (
        ([1.0], [1.0]),
        ([1.0, 2.0], [1.0, 1.0]),
        ([1.0, 2.0, 3.0], [1.0, 0.5, 0.0]),  # the larger the margin, the worse
        ([0.0, 0.0], [0.0, 1.0]),
        ([0.0, 1e6], [0.0, 1.0]),
    ):
        found = fit_calibration(margins, right, method=method)  # type: ignore[arg-type]
        curve = found.probability([-1e9, -1.0, 0.0, 0.5, 1.0, 2.0, 3.0, 1e9])
        assert all(0 < one < 1 for one in curve)
        assert curve == sorted(curve)
        assert Calibration.from_json(found.to_json()) == found


@pytest.mark.parametrize("method", ["isotonic", "platt"])
def test_there_and_back_through_a_file(method: str, tmp_path: Path) -> None:
    found = fit_calibration(*drawn_margins(50), method=method, model="some/model")  # type: ignore[arg-type]
    file = tmp_path / "calibration.json"
    file.write_text(found.to_json())
    again = read_calibration(file)
    assert again == found
    assert again.probability([0.3, 1.7]) == found.probability([0.3, 1.7])
    assert again.model == "some/model"


def test_broken_files_are_named(tmp_path: Path) -> None:
    good = fit_calibration(*drawn_margins(50))
    file = tmp_path / "calibration.json"
    rows = [
        "",
        "[]",
        "{}",
        json.dumps({**json.loads(good.to_json()), "knots": [[0, 0.9], [1, 0.1]]}),
        json.dumps({**json.loads(good.to_json()), "knots": [[0, 0.0], [1, 1.0]]}),
        replace(good, knots=()).to_json(),
        replace(good, method="magic").to_json(),  # type: ignore[arg-type]
        replace(good, slope=math.nan).to_json(),
        replace(good, method="platt", knots=(), slope=-1.0).to_json(),
    ]
    for text in rows:
        file.write_text(text)
        with pytest.raises(DataError, match=r"calibration\.json"):
            read_calibration(file)
    with pytest.raises(ConfigError, match="absent"):
        read_calibration(tmp_path / "absent.json")


def test_what_cannot_be_fitted() -> None:
    for margins, right in (([], []), ([1.0], []), ([math.nan], [1.0]), ([1.0], [2.0])):
        with pytest.raises(DataError):
            fit_calibration(margins, right)
    with pytest.raises(ConfigError, match="magic"):
        fit_calibration([1.0], [1.0], method="magic")  # type: ignore[arg-type]


def test_cross_fitting_never_sees_the_problem() -> None:
    margins, right = drawn_margins(40)
    problems = [number // 4 for number in range(40)]  # ten problems, five folds
    found = cross_fitted(margins, right, problems)
    outside = [row for row in range(40) if problems[row] % 5 != 3]
    other = fit_calibration([margins[row] for row in outside], [right[row] for row in outside])
    inside = [row for row in range(40) if problems[row] % 5 == 3]
    assert [found[row] for row in inside] == other.probability([margins[row] for row in inside])
    with pytest.raises(DataError):
        cross_fitted([1.0], [1.0], ["one"])
