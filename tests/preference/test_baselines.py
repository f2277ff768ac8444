"""Shallow baselines find what predicts the label at its true size, and nothing in noise."""

import gzip
import json
from pathlib import Path
from random import Random

import pytest

from codescaler_plugin.errors import ConfigError
from codescaler_plugin.intervals import accuracy
from codescaler_plugin.preference.baselines import log_probability_accuracy, shallow_accuracies
from codescaler_plugin.preference.mutations import PRESERVING
from codescaler_plugin.records import PreferencePair

REAL_PAIRS = Path(__file__).parents[2] / "recipes" / "miniature" / "data" / "real_pairs.jsonl.gz"


def drawn(count: int, *, longer: float = 0.5, commented: float = 0.5, seed: int = 0) -> list[PreferencePair]:
    """Pairs whose right side is longer, and whose right side has the comment, in these shares."""
    rng, pairs = Random(seed), []
    for number in range(count):
        codes = [f"x = {number}\n" + "y = 1\n" * rng.randint(1, 4) for _ in range(2)]
        codes.sort(key=len, reverse=rng.random() < longer)
        side = 0 if rng.random() < commented else 1
        codes[side] += "# a comment\n"
        chosen, rejected = codes
        pairs.append(
            PreferencePair(
                f"Problem {number // 2}",
                chosen,
                rejected,
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
        chosen, rejected = (PRESERVING[kind](row[side], Random(number)) for side in ("chosen", "rejected"))
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
