"""The card holds the counts, hashes and stages of a set of pairs."""

import hashlib
import json
from pathlib import Path

import pytest

from codescaler_plugin.errors import ConfigError, MissingExtraError
from codescaler_plugin.preference.augmentation import AugmentationReport
from codescaler_plugin.preference.data_card import card_facts, write_data_card
from codescaler_plugin.preference.mining import mine_pairs
from codescaler_plugin.records import PreferencePair
from tests.preference.test_baselines import drawn

pytest.importorskip("matplotlib")


def verdicts() -> list[dict[str, object]]:
    return [
        {
            "problem": f"Problem {number} of word{number} and thing{number}" + (" | <b>" if number == 1 else ""),
            "code": f"x = {number} + {passed}",
            "status": "ok",
            "passed": passed == 4,
            "tests_passed": passed,
            "tests_total": 4,
            "step": number,
            "source": "run",
        }
        for number in range(30)
        for passed in (4, 3, 0)
    ]


def test_the_card_holds_the_counts_hashes_and_stages(tmp_path: Path) -> None:
    from dataclasses import asdict

    from PIL import Image

    rows = verdicts()
    pairs, mined = mine_pairs(rows, held_out=0.3, evaluation={"bench": [str(rows[0]["problem"])]})
    augmented = AugmentationReport(
        len(pairs), 1, 2, {"stub": {"wanted": 3, "made": 2, "still passes": 1}}, 9, {"seed": 0}
    )
    data = tmp_path / "pairs.jsonl"
    data.write_text("pairs")
    page = write_data_card(
        pairs,
        tmp_path / "card",
        reports=[
            {"command": "codescaler mine x", **asdict(mined)},
            {"command": "codescaler augment y", **asdict(augmented)},
        ],
        inputs=[data, Path("owner/name")],
        outputs=[data],
    )
    facts = json.loads((tmp_path / "card" / "data_card.json").read_text())
    assert (facts["pairs"], facts["problems"]) == (58, 29)
    assert facts["kinds"]["rollout"] == mined.splits
    assert facts["pass_rate_of_rejected"] == {
        "tenths": [29, 0, 0, 0, 0, 0, 0, 29, 0, 0],
        "unknown": 0,
        "near_misses": 29,
    }
    assert facts["sources"]["run"] == {str(step): 2 for step in range(1, 30)}
    assert facts["inputs"][0] == {"name": "pairs.jsonl", "bytes": 5, "sha256": hashlib.sha256(b"pairs").hexdigest()}
    text = page.read_text()
    for words in (
        "58 pairs of a right and a wrong program over 29 problems; 50.0% of the rejected programs",
        "```bash\ncodescaler mine x\ncodescaler augment y\n```",
        "Contamination: 1 problems removed, checked against bench (1 problems).",
        "| run | 1 to 29 (29 steps) | 58 |",
        "| stub | 3 | 2 | 1 |",
        "Of 58 input pairs 2 had no tests and 1 were not Python.",
        "inputs: owner/name",
    ):
        assert words in text, words
    assert str(tmp_path) not in text
    assert "<b>" not in text
    for line in text.splitlines():  # every row of a table has its table's cells
        assert not line.startswith("|") or line.endswith("|")
    image = Image.open(tmp_path / "card" / "data_card.png")
    assert image.width > 1000


def test_pairs_without_steps_margins_or_sources_have_a_card(tmp_path: Path) -> None:
    pairs = [PreferencePair("P", "x = 1", "x = 2", "rollout")]
    assert "unknown" in write_data_card(pairs, tmp_path).read_text()
    assert card_facts(pairs)["pass_rate_of_rejected"]["unknown"] == 1


def test_nothing_to_describe_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no pairs"):
        write_data_card([], tmp_path)


def test_a_folder_that_is_a_file_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "card").write_text("")
    with pytest.raises(ConfigError, match="cannot write"):
        write_data_card(drawn(4), tmp_path / "card")


def test_without_matplotlib_the_error_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("codescaler_plugin.extras.find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"codescaler-plugin\[report\]"):
        write_data_card(drawn(4), tmp_path)
