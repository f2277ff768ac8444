"""Summaries are never mixed, and a file that is none is named."""

from pathlib import Path

import pytest

from codescaler_plugin.errors import ConfigError, DataError
from codescaler_plugin.evaluation.pairwise import evaluate_pairs
from codescaler_plugin.report.document import write_report
from codescaler_plugin.report.summary import Summary, read_summaries, write_summary
from codescaler_plugin.testing import FakeScorer
from tests.report.written import PAIRS
from tests.samples import hashed

pytest.importorskip("matplotlib")
pytest.importorskip("sklearn")


def test_a_summary_of_another_model_or_other_data_is_not_overwritten(tmp_path: Path) -> None:
    first = Summary("rm-bench", "data", "one", {"rows": 1}, {"data_sha256": "a"})
    path = write_summary(tmp_path, first)
    write_summary(tmp_path, Summary("rm-bench", "data", "one", {"rows": 2}, {"data_sha256": "a"}))
    before = path.read_text()
    assert '"rows": 2' in before
    for model, data in (("two", "a"), ("one", "b")):
        with pytest.raises(ConfigError, match=r"rm-bench\.data\.summary\.json is of the model one .*`name=`"):
            write_summary(tmp_path, Summary("rm-bench", "data", model, {}, {"data_sha256": data}))
    assert path.read_text() == before


def test_what_is_no_folder_of_summaries(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="evaluate"):
        write_report([tmp_path], tmp_path / "report.html")
    (tmp_path / "x.summary.json").write_text('{"evaluation": "pairs"}')
    with pytest.raises(DataError, match=r"x\.summary\.json"):
        read_summaries([tmp_path])


def test_a_summary_without_its_strongest_control_is_to_be_made_anew(tmp_path: Path) -> None:
    result = evaluate_pairs(PAIRS, FakeScorer(hashed))
    del result["strongest"]
    write_summary(tmp_path, Summary("pairs", "x", "m", result))
    with pytest.raises(DataError, match="run its command again"):
        read_summaries([tmp_path])
