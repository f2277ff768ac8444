"""Summaries are never mixed, and a file that is none is named."""

import json
from pathlib import Path
from typing import Any

import pytest

from codescaler_plugin.errors import ConfigError, DataError
from codescaler_plugin.evaluation.pairwise import evaluate_pairs
from codescaler_plugin.evaluation.rm_bench import bench_numbers
from codescaler_plugin.evaluation.summary import RESULTS, Summary, read_summaries, write_report, write_summary
from codescaler_plugin.testing import FakeScorer
from tests.report.written import PAIRS, kept, measured
from tests.samples import hashed

pytest.importorskip("matplotlib")
pytest.importorskip("sklearn")


def test_a_summary_of_another_model_or_other_data_is_not_overwritten(tmp_path: Path) -> None:
    one = bench_numbers([[1.0, 2, 3, 1, 1.5, 9]], ["code"], [""])
    two = bench_numbers([[1.0, 2, 3, 1, 1.5, 9]] * 2, ["code"] * 2, [""] * 2)
    path = write_summary(tmp_path, Summary("data", "one", one, {"data_sha256": "a"}))
    write_summary(tmp_path, Summary("data", "one", two, {"data_sha256": "a"}))
    before = path.read_text()
    assert '"rows": 2' in before
    for model, data in (("two", "a"), ("one", "b")):
        with pytest.raises(ConfigError, match=r"rm-bench\.data\.summary\.json is of the model one .*`name=`"):
            write_summary(tmp_path, Summary("data", model, two, {"data_sha256": data}))
    assert path.read_text() == before


def test_what_is_no_folder_of_summaries(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="evaluate"):
        write_report([tmp_path], tmp_path / "report.html")
    (tmp_path / "x.summary.json").write_text('{"evaluation": "pairs"}')
    with pytest.raises(DataError, match=r"x\.summary\.json"):
        read_summaries([tmp_path])


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda result: result.pop("worst"), r"worst: the field is missing"),
        (lambda result: result.update(strongest="longer"), r"strongest: no such field is known"),
        (lambda result: result["macro"].update(value="high"), r"macro\.value: expected a number, not 'high'"),
        (lambda result: result["macro"].update(low=float("nan")), r"macro\.low: expected a finite number, not nan"),
        (lambda result: result["controls"].update(style=None), r"controls: expected one of longer, .* not 'style'"),
        (lambda result: result["controls"].clear(), r""),
        (lambda result: result["worst"][0].update(changed_lines=1.5), r"worst\.0\.changed_lines: expected a whole"),
    ],
)
def test_a_summary_of_another_form_is_to_be_made_anew(tmp_path: Path, damage: Any, said: str) -> None:
    path = write_summary(tmp_path, Summary("x", "m", evaluate_pairs(PAIRS, FakeScorer(hashed))))
    row = json.loads(path.read_text())
    damage(row["result"])
    path.write_text(json.dumps(row))
    with pytest.raises(DataError, match=rf"pairs\.x\.summary\.json .*{said}.* run its command again"):
        read_summaries([tmp_path])
    again = Summary("x", "m", evaluate_pairs(PAIRS, FakeScorer(hashed)))
    write_summary(tmp_path, again)
    assert read_summaries([tmp_path])[0].result == again.result


def test_every_result_is_read_as_it_was_written(tmp_path: Path) -> None:
    results = measured()
    assert {*results, "latency"} == {result.evaluation for result in RESULTS}
    read = {one.result.evaluation: one.result for one in read_summaries([kept(tmp_path, "m", results)])}
    assert read == results
    for result in read.values():
        assert result.section("m").title == result.heading


def test_a_name_that_is_unknown_is_named(tmp_path: Path) -> None:
    (tmp_path / "x.summary.json").write_text('{"evaluation": "taste", "name": "x", "model": "m", "result": {}}')
    with pytest.raises(DataError, match="evaluation 'taste'"):
        read_summaries([tmp_path])
