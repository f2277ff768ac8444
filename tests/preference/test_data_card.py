"""The card says what is in the data, and its predictors find what tells the label, and nothing where nothing does."""

import gzip
import hashlib
import json
from pathlib import Path
from random import Random

import pytest

from codescaler_plugin.errors import ConfigError, MissingExtraError
from codescaler_plugin.intervals import accuracy
from codescaler_plugin.preference.augmentation import AugmentationReport
from codescaler_plugin.preference.baselines import log_probability_accuracy, shallow_accuracies
from codescaler_plugin.preference.data_card import card_facts, write_data_card
from codescaler_plugin.preference.mining import mine_pairs
from codescaler_plugin.preference.mutations import KEEPING
from codescaler_plugin.records import PreferencePair

pytest.importorskip("matplotlib")

REAL_PAIRS = Path(__file__).parents[2] / "recipes" / "miniature" / "data" / "real_pairs.jsonl.gz"


def drawn(count: int, *, longer: float = 0.5, commented: float = 0.5, seed: int = 0) -> list[PreferencePair]:
    """Pairs whose right side is longer, and whose right side has the comment, in these shares."""
    rng, pairs = Random(seed), []
    for number in range(count):
        codes = [f"x = {number}\n" + "y = 1\n" * rng.randint(1, 4) for _ in range(2)]
        codes.sort(key=len, reverse=rng.random() < longer)
        side = 0 if rng.random() < commented else 1
        codes[side] += "# a comment\n"
        pairs.append(
            PreferencePair(
                f"Problem {number // 2}",
                *codes,
                "rollout",
                str(number // 2),
                rng.choice((0.25, 0.75)),
                number % 3,
                "train",
                "run",
            )
        )
    return pairs


def test_nothing_comes_out_of_noise() -> None:
    found = shallow_accuracies(drawn(2000))
    for name, one in found.items():
        assert one.share == pytest.approx(0.5, abs=0.05), name
        assert one.low < one.share < one.high


def test_a_leak_of_style_is_found_at_its_true_size() -> None:
    found = shallow_accuracies(drawn(2000, commented=0.9))
    assert found["comment lines"].share == pytest.approx(0.9, abs=0.03)
    assert found["all"].share >= found["comment lines"].share - 0.03
    assert found["docstrings"].share == 0.5


def test_a_leak_in_one_kind_is_seen_in_that_kind() -> None:
    clean = drawn(1000)
    leaky = [
        PreferencePair(one.problem, one.chosen, one.rejected, "leaky") for one in drawn(400, commented=1.0, seed=1)
    ]
    found = shallow_accuracies(clean + leaky)
    assert found["all: leaky"].share > 0.95
    assert found["all: rollout"].share == pytest.approx(0.5, abs=0.06)


@pytest.mark.parametrize("kind", ["padding", "praise", "dead_code", "rename", "reformat"])
def test_a_rewrite_of_the_right_side_alone_tells_the_label_and_one_of_both_sides_does_not(kind: str) -> None:
    with gzip.open(REAL_PAIRS, "rt", encoding="utf-8") as file:
        rows = list(map(json.loads, file))[:1500]
    given, one_sided, both = [], [], []
    for number, row in enumerate(rows):
        chosen, rejected = (KEEPING[kind](row[side], Random(number)) for side in ("chosen", "rejected"))
        if chosen is not None and rejected is not None:
            given.append(PreferencePair(row["problem"], row["chosen"], row["rejected"], "given"))
            one_sided.append(PreferencePair(row["problem"], chosen, row["rejected"], kind))
            both.append(PreferencePair(row["problem"], chosen, rejected, kind))
    assert len(given) > 500
    before = shallow_accuracies(given)["all"].share
    found = shallow_accuracies([*given, *both])
    assert found[f"all: {kind}"].share == pytest.approx(before, abs=0.05)
    assert shallow_accuracies([*given, *one_sided])[f"all: {kind}"].share > before + 0.05


def test_which_side_is_which_is_never_seen_by_the_fit() -> None:
    pairs = drawn(600, commented=0.85)
    swapped = [PreferencePair(one.problem, one.rejected, one.chosen, one.kind) for one in pairs]
    assert shallow_accuracies(pairs)["all"].share == pytest.approx(shallow_accuracies(swapped)["all"].share)


def test_the_interval_of_a_share() -> None:
    one = accuracy([1.0] * 60 + [0.0] * 40)
    assert (one.share, one.low, one.high) == (0.6, pytest.approx(0.502, abs=1e-3), pytest.approx(0.6906, abs=1e-3))
    assert accuracy([]).pairs == 0


def test_a_model_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"causal model '.*nowhere' cannot be loaded"):
        log_probability_accuracy([], str(tmp_path / "nowhere"))


def test_log_probability_is_that_of_the_code_given_the_problem(tiny_policy_dir: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    pairs = drawn(6)
    tokenizer = AutoTokenizer.from_pretrained(tiny_policy_dir)
    model = AutoModelForCausalLM.from_pretrained(tiny_policy_dir, dtype=torch.float32).eval()

    def mean(pair: PreferencePair, code: str) -> float:
        prompt = tokenizer.apply_chat_template(
            [{"role": "user", "content": pair.problem}], add_generation_prompt=True, tokenize=False
        )
        before = tokenizer(prompt, add_special_tokens=False)["input_ids"]
        ids = torch.tensor([before + tokenizer(code, add_special_tokens=False)["input_ids"]])
        labels = ids.clone()
        labels[0, : len(before)] = -100
        return -float(model(input_ids=ids, labels=labels).loss)

    wins = sum(mean(pair, pair.chosen) > mean(pair, pair.rejected) for pair in pairs)
    found = log_probability_accuracy(pairs, str(tiny_policy_dir), limit=6)
    assert (found.share, found.pairs) == (round(wins / 6, 4), 6)


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
        "58 pairs of a right and a wrong program over 29 problems; 50.0% of the wrong sides",
        "```bash\ncodescaler mine x\ncodescaler augment y\n```",
        "Contamination: 1 problems removed, checked against bench (1 problems).",
        "| run | 1 to 29 (29 steps) | 58 |",
        "| stub | 3 | 2 | 1 |",
        "Of 58 given pairs 2 had no tests and 1 were no Python.",
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
