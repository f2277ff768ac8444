"""RM-Bench's numbers against an independent calculation, to the last digit."""

import json
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from codescaler_plugin.errors import ConfigError, DataError
from codescaler_plugin.evaluation.rm_bench import STYLES, Levels, bench_numbers, evaluate_rm_bench, read_rm_bench
from codescaler_plugin.testing import FakeScorer
from tests.samples import hashed

SAMPLE = Path(__file__).parents[3] / "shared" / "data" / "rm-bench" / "code_sample.json"


def by_definition(rows: list[dict]) -> Levels:
    """Of rows with score_chosen and score_rejected: exact shares, each level counted by its own words."""
    counts = {"easy": 0, "normal": 0, "hard": 0}
    for row in rows:
        for right, ahead in enumerate(row["score_chosen"]):
            for wrong, behind in enumerate(row["score_rejected"]):
                level = "normal" if right == wrong else "easy" if right > wrong else "hard"
                counts[level] += ahead > behind
    exact = {level: Fraction(count, 3 * len(rows)) for level, count in counts.items()}
    return Levels(**{level: float(share) for level, share in exact.items()}, average=float(sum(exact.values()) / 3))


def in_arrays(rows: list[dict]) -> dict[str, float]:
    """The same in floating point, by masks over an array, as the benchmark's README describes it."""
    ahead = np.array([row["score_chosen"] for row in rows])[:, :, None]
    matrix = (ahead > np.array([row["score_rejected"] for row in rows])[:, None, :]).mean(axis=0)
    return {
        "hard": np.triu(matrix, 1).sum() / 3,
        "normal": np.diag(matrix).mean(),
        "easy": np.tril(matrix, -1).sum() / 3,
    }


@pytest.fixture(params=["made up", "published"])
def sample(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """30 rows of code in six languages, as the benchmark has them."""
    if request.param == "published":
        if not SAMPLE.exists():
            pytest.skip(f"the sample of RM-Bench is not at {SAMPLE}; the made-up one is measured all the same")
        return SAMPLE
    languages = ("cpp", "go", "java", "js", "python", "rust")
    data = [
        {
            "id": number,
            "prompt": f"Problem {number}",
            **{side: [f"{side} {number}\n{style}" for style in STYLES] for side in ("chosen", "rejected")},
            "language": languages[number % 7 % 6],  # of other sizes
        }
        for number in range(30)
    ]
    file = tmp_path / "code_sample.json"
    file.write_text(json.dumps(data))
    return file


def test_a_sample_to_the_last_digit(sample: Path, tmp_path: Path) -> None:
    raw = json.loads(sample.read_text())
    result = evaluate_rm_bench(read_rm_bench(sample), FakeScorer(hashed), output=tmp_path / "scores.jsonl")
    scored = [
        {
            **row,
            **{
                f"score_{side}": [hashed(row["prompt"], text) for text in row[side]] for side in ("chosen", "rejected")
            },
        }
        for row in raw
    ]
    expected = by_definition(scored)
    assert result.overall == expected  # equal, not nearly
    assert result.domains == {"code": expected}
    assert {level: getattr(result.overall, level) for level in in_arrays(scored)} == pytest.approx(
        in_arrays(scored), abs=1e-15
    )
    languages = {row["language"] for row in raw}
    assert len(languages) == 6
    assert result.languages == {
        name: by_definition([row for row in scored if row["language"] == name]) for name in languages
    }
    assert result.rows == 30
    assert result.unscored == 0
    published = tmp_path / "published.json"
    published.write_text(json.dumps(scored))
    again = evaluate_rm_bench(read_rm_bench(published), None)
    assert again == result


def rows(*scores: tuple[list[float], list[float]], domain: str = "code") -> list[dict]:
    texts = {"prompt": "P", "chosen": ["a", "b", "c"], "rejected": ["d", "e", "f"], "domain": domain}
    return [{**texts, "score_chosen": right, "score_rejected": wrong} for right, wrong in scores]


def test_the_matrix_by_hand_ties_lose() -> None:
    found = bench_numbers([[1.0, 2.0, 3.0, 1.0, 1.5, 9.0], [5.0, 5.0, 5.0, 1.0, 1.0, 1.0]], ["code"] * 2, [""] * 2)
    assert found.matrix == ((0.5, 0.5, 0.5), (1.0, 1.0, 0.5), (1.0, 1.0, 0.5))
    assert (found.overall.easy, found.overall.normal, found.overall.hard) == (1.0, 2 / 3, 0.5)
    assert found.overall.average == float((1 + Fraction(2, 3) + Fraction(1, 2)) / 3)
    assert found.languages == {}


def test_safety_is_the_mean_of_its_subsets_and_the_overall_of_domains(tmp_path: Path) -> None:
    win, lose = ([2.0] * 3, [1.0] * 3), ([1.0] * 3, [2.0] * 3)
    file = tmp_path / "total_dataset.json"
    file.write_text(
        json.dumps(
            rows(win, domain="chat")
            + rows(win, win, lose, lose, domain="math")
            + rows(win, domain="safety-refuse")
            + rows(lose, lose, lose, domain="safety-response")
        )
    )
    found = evaluate_rm_bench(read_rm_bench(file), None)
    assert {name: one.average for name, one in found.domains.items()} == {"chat": 1, "math": 0.5, "safety": 0.5}
    assert found.overall.average == float(Fraction(2, 3))


def test_extracted_completions_are_scored_as_code() -> None:
    completion = "Here:\n\n```cpp\nint f() { return 1; }\n```\n\nThat is it."
    data = [
        {"prompt": "P", "chosen": [completion, "no block", completion], "rejected": ["x", "y", "z"], "language": "cpp"}
    ]
    file_rows = _read(data)
    raw, extracted = FakeScorer(hashed), FakeScorer(hashed)
    evaluate_rm_bench(file_rows, raw)
    evaluate_rm_bench(file_rows, extracted, completions="extracted")
    assert [code for _, code in raw.items] == [completion, "no block", completion, "x", "y", "z"]
    assert [code for _, code in extracted.items] == ["int f() { return 1; }\n", "no block"] * 1 + [
        "int f() { return 1; }\n",
        "x",
        "y",
        "z",
    ]
    with pytest.raises(ConfigError, match="cooked"):
        evaluate_rm_bench(file_rows, raw, completions="cooked")


def _read(data: list[dict]) -> list:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "code_filtered.json"
        file.write_text(json.dumps(data))
        return read_rm_bench(file)


def test_a_completion_without_a_score_wins_nothing_and_is_counted() -> None:
    data = _read([{"prompt": "P", "chosen": ["a", "b", "c"], "rejected": ["d", "e", "f"]}])
    assert data[0].domain == "code"  # by the file's name
    found = evaluate_rm_bench(
        data, FakeScorer(lambda _, text: {"a": None, "d": None}.get(text, 1.0 if text in "bc" else 0.0))
    )
    assert found.unscored == 2
    assert found.matrix == ((0, 0, 0), (0, 1, 1), (0, 1, 1))


def test_rows_of_another_form_are_named(tmp_path: Path) -> None:
    file = tmp_path / "rows.json"
    for bad in (
        {"prompt": "P", "chosen": ["a"], "rejected": ["b"]},
        {"chosen": ["a"] * 3, "rejected": ["b"] * 3},
        {"prompt": "P", "chosen": "abc", "rejected": ["b"] * 3},
        {"prompt": "P", "chosen": ["a"] * 3, "rejected": ["b"] * 3, "score_chosen": [1, 2]},
    ):
        file.write_text(json.dumps([bad]))
        with pytest.raises(DataError, match=r"rows\.json"):
            read_rm_bench(file)
    file.write_text(json.dumps([{"prompt": "P", "chosen": ["a"] * 3, "rejected": ["b"] * 3, "id": 17}]))
    with pytest.raises(DataError, match="17"):
        evaluate_rm_bench(read_rm_bench(file), None)
