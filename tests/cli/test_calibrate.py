"""`codescaler calibrate` from the command line."""

from functools import partial
from pathlib import Path

import pytest

from codescaler_plugin.selection.calibration import read_calibration
from tests.cli.selecting import PROBLEM, RIGHT, ROW, WRONG, read, run
from tests.samples import fenced

calibrate = partial(run, "calibrate")


@pytest.mark.parametrize(
    ("costs", "said"),
    [
        ("0,1000,1", "cheapest: codescaler rank without --tests"),
        ("1000,0,1", "cheapest: codescaler rank --tests FILE --keep-order"),
        ("0,0.001,1000", "cheapest: codescaler rank --tests FILE"),
    ],
)
def test_costs_say_what_to_do(costs: str, said: str, scores: dict[str, float]) -> None:
    first = max((RIGHT, WRONG), key=scores.__getitem__)
    rows = [
        {"problem": PROBLEM, "completions": [fenced(WRONG), fenced(RIGHT)], "passed": [one == WRONG, one == RIGHT]}
        for one in (first, first, first, first, RIGHT, WRONG)
    ]
    result = calibrate("--costs", costs, rows=rows)
    assert result.exit_code == 0, result.output
    assert said in result.stderr


def test_calibration_is_fitted_used_and_held_to_its_model(tmp_path: Path, tests_file: Path) -> None:
    file = tmp_path / "calibration.json"
    rows = [{**ROW, "problem": f"{PROBLEM} {number}", "passed": [False, True, False, True]} for number in range(8)]
    made = calibrate("--output", str(file), "--costs", "0.01,0.1,10", rows=rows)
    assert (made.exit_code, made.stdout) == (0, "")
    assert "programs run" in made.stderr
    assert "cheapest: " in made.stderr
    fitted = read_calibration(file)
    assert (fitted.examples, fitted.model) == (8, "first of N by builtin, self-consistency 0")
    (row,) = read(run("rank", "--calibration", str(file)))
    assert row["probability"] == pytest.approx(fitted.probability([row["margin"]])[0])
    other = run("rank", "--calibration", str(file), "--self-consistency", "1")
    assert other.exit_code == 1
    assert "was fitted for" in other.stderr
    assert "codescaler calibrate" in other.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "give --output FILE, --costs SCORE,TEST,WRONG, or both"),
        (["--costs", "1,2"], "three numbers"),
        (["--costs", "1,nan,3"], "finite costs"),
        (["--costs", "1,2,3"], "a plan wants two at least"),
        (["--output", "x.json", "--extraction", "best"], "extraction is 'best'"),
    ],
)
def test_wrong_setting_is_one_message(arguments: list[str], message: str) -> None:
    result = calibrate(*arguments, rows=[{**ROW, "passed": [False, True, False, True]}])
    assert result.exit_code == 1, result.output
    assert message in result.stderr
    assert "Traceback" not in result.output
