"""`benchmarks/bench_selection.py`: several models in one table, and the bar that it holds."""

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

from codescaler_plugin.records import Judgement, Status

FILE = Path(__file__).parents[2] / "benchmarks" / "bench_selection.py"


@pytest.fixture(scope="module")
def bench() -> ModuleType:
    spec = importlib.util.spec_from_file_location("bench_selection", FILE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_models_stand_in_one_table_with_what_needs_no_model_once(bench: ModuleType) -> None:
    passed = [False, True, False, True]

    def group(scores: list[float]) -> tuple[list[Judgement], list[bool]]:
        return [Judgement(score, score, Status.OK, f"x = {index}") for index, score in enumerate(scores)], passed

    right, wrong = [group([0.0, 2.0, 1.0, 3.0])], [group([3.0, 0.0, 2.0, 1.0])]
    found = bench.side_by_side({"good": bench.curves(right, 4), "bad": bench.curves(wrong, 4)})
    assert list(found) == [
        "random",
        "longest",
        "shortest",
        "good",
        "majority of duplicates",
        "good x duplicates",
        "bad",
        "bad x duplicates",
        "oracle",
    ]
    assert (found["good"][3], found["bad"][3], found["oracle"][3]) == (1.0, 0.0, 1.0)
    assert found["good"][0] == found["bad"][0] == found["random"][3] == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("strategy", "accuracy", "run", "said"),
    [
        ("cascade", 0.95, 0.4, None),
        ("cascade", 0.949, 0.4, "the best keeps 94.9%"),
        ("cascade", 1.0, 0.41, "none runs so few"),
        ("tests", 1.0, 0.3, "none runs so few"),
    ],
)
def test_bar_is_held(bench: ModuleType, strategy: str, accuracy: float, run: float, said: str | None) -> None:
    bad = {"strategy": "cascade", "of_all_tests_accuracy": 0.2, "of_distinct_programs": 0.9}
    row = {"strategy": strategy, "of_all_tests_accuracy": accuracy, "of_distinct_programs": run}
    found = bench.missed([{"strategies": [bad]}, {"strategies": [row]}])
    if said is None:
        assert found is None
    else:
        assert found is not None
        assert said in found
