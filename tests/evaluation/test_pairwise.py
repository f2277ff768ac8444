"""Accuracies of a scorer with known scores against values computed here, and the file that a run goes on with."""

import json
from pathlib import Path
from random import Random
from statistics import fmean

import numpy as np
import pytest

from codescaler_plugin.errors import ConfigError, DataError, ScorerError
from codescaler_plugin.evaluation.pairwise import evaluate_pairs, read_human_bugs
from codescaler_plugin.intervals import area, mean_of, win
from codescaler_plugin.records import PreferencePair
from codescaler_plugin.testing import FakeScorer
from tests.samples import hashed

pytest.importorskip("scipy")


def drawn(count: int, seed: int = 0) -> list[PreferencePair]:
    rng = Random(seed)
    return [
        PreferencePair(
            f"Problem {number // 3}",
            f"x = {number}\n" + "y = 1\n" * rng.randint(0, 5),
            f"x = -{number}\n" + "z = 1\n" * rng.randint(0, 5),
            rng.choice(("rollout", "operator")),
            str(number // 3),
            rng.choice((0.1, 0.3, 0.6, 1.0, None)),
        )
        for number in range(count)
    ]


def test_every_share_is_what_counting_gives() -> None:
    pairs = drawn(200)
    result = evaluate_pairs(pairs, FakeScorer(hashed))
    gaps = [hashed(one.problem, one.chosen) - hashed(one.problem, one.rejected) for one in pairs]
    right = [gap > 0 for gap in gaps]
    assert result.accuracy.value == pytest.approx(sum(right) / 200)
    per_problem = [fmean(right[first : first + 3]) for first in range(0, 200, 3)]
    assert result.macro.value == pytest.approx(fmean(per_problem))
    assert (result.accuracy.rows, result.accuracy.problems) == (200, 67)
    for kind in ("rollout", "operator"):
        mine = [one for one, pair in zip(right, pairs, strict=True) if pair.kind == kind]
        assert result.kinds[kind].value == pytest.approx(fmean(mine))
        assert result.kinds[kind].rows == len(mine)
    near = [one for one, gap in zip(right, gaps, strict=True) if 0.25 <= abs(gap) < 0.5]
    assert result.score_gap["0.25 to 0.5"].value == pytest.approx(fmean(near))
    sure = [one for one, pair in zip(right, pairs, strict=True) if pair.margin is not None and pair.margin >= 0.75]
    assert result.pass_rate_gap["0.75 and more"].value == pytest.approx(fmean(sure))
    assert result.pass_rate_gap["unknown"].rows == sum(pair.margin is None for pair in pairs)
    longer = [win(len(one.chosen), len(one.rejected)) for one in pairs]
    assert result.controls["longer"].accuracy.value == pytest.approx(fmean(longer))
    assert result.controls["shorter"].accuracy.value == pytest.approx(1 - fmean(longer))
    assert result.controls["longer"].gain.value == pytest.approx(fmean(right) - fmean(longer))


def test_a_model_of_length_has_nothing_above_length() -> None:
    result = evaluate_pairs(drawn(200), FakeScorer(lambda _, code: len(code)))
    assert result.accuracy.value == pytest.approx(result.controls["longer"].accuracy.value)
    gain = result.controls["longer"].macro_gain
    assert (gain.value, gain.low, gain.high) == (0, 0, 0)
    assert result.prefers_longer.value == 1
    assert result.ties == sum(len(one.chosen) == len(one.rejected) for one in drawn(200))


def test_a_preference_for_layout_shows_among_right_programs() -> None:
    pairs = [PreferencePair(f"P{n}", f"x=  {n}\n", f"x = -{n}\n", "rollout", str(n)) for n in range(20)]
    rewritten = evaluate_pairs(pairs, FakeScorer(lambda _, code: float("=  " not in code))).prefers_rewritten
    assert (rewritten.value, rewritten.rows) == (1, 20)
    with_blind = evaluate_pairs(pairs, FakeScorer(lambda _, code: 0.0))
    assert with_blind.prefers_rewritten.value == 0.5
    assert with_blind.ties == 20


def test_sides_without_a_score_are_counted_and_left_out() -> None:
    pairs = drawn(30)
    result = evaluate_pairs(pairs, FakeScorer(lambda problem, code: None if code.startswith("x = 7\n") else 1.0))
    assert (result.unscored, result.accuracy.rows) == (1, 29)
    with pytest.raises(DataError, match="30 pairs"):
        evaluate_pairs(pairs, FakeScorer(lambda *_: None))
    with pytest.raises(DataError, match="no pairs"):
        evaluate_pairs([], FakeScorer(hashed))


def test_the_interval_draws_whole_problems() -> None:
    rng = np.random.default_rng(1)
    values = np.repeat(rng.random(100) < 0.6, 10).astype(float).tolist()  # ten equal rows each
    problems = np.repeat(np.arange(100), 10).tolist()
    found = mean_of(values, problems)
    share = found.value
    error = (share * (1 - share) / 100) ** 0.5  # of 100 independent draws, not of 1,000
    assert found.high - found.low == pytest.approx(2 * 1.96 * error, rel=0.15)
    assert found == mean_of(values, problems)
    assert mean_of([1.0, 0.0], ["one", "one"]).low == 0.0
    uneven = mean_of([1.0, 1.0, 1.0, 0.0], ["a", "a", "a", "b"], macro=True)
    assert uneven.value == 0.5
    with pytest.raises(DataError):
        mean_of([], [])


def test_area_is_the_share_of_ordered_combinations() -> None:
    ahead, behind = [0.3, 0.5, 0.5, 2.0], [0.1, 0.5, 1.0]
    assert area(ahead, behind) == fmean(win(one, two) for one in ahead for two in behind)
    assert area([], behind) is None


def test_a_killed_run_goes_on_and_a_changed_one_does_not(tmp_path: Path) -> None:
    pairs, output = drawn(300), tmp_path / "pairs.jsonl"
    with pytest.raises(ScorerError):
        evaluate_pairs(pairs, FakeScorer(hashed, fails_after=1), output=output, model="m")
    kept = output.read_bytes()
    done = len(kept.splitlines())
    assert 0 < done < 300
    output.write_bytes(kept + b'{"row": 1')  # a torn line
    again = FakeScorer(hashed)
    result = evaluate_pairs(pairs, again, output=output, model="m")
    sides = 2 * (300 - done)
    assert again.items[:sides] == [(p.problem, side) for p in pairs[done:] for side in (p.chosen, p.rejected)]
    assert result == evaluate_pairs(pairs, FakeScorer(hashed))
    rows = [json.loads(line) for line in output.read_text().splitlines()]
    assert [row["row"] for row in rows] == list(range(300))
    assert rows[5]["scores"] == [hashed(pairs[5].problem, side) for side in (pairs[5].chosen, pairs[5].rejected)]
    whole = FakeScorer(hashed, fails_after=0)
    assert evaluate_pairs(pairs, whole, output=output, model="m") == result  # nothing is asked
    for changed, model in ((pairs, "other"), (pairs[1:], "m"), (pairs[:-1], "m")):
        with pytest.raises(ConfigError, match=r"pairs\.jsonl"):
            evaluate_pairs(changed, FakeScorer(hashed), output=output, model=model)


def test_human_bugs_have_their_own_numbers(tmp_path: Path) -> None:
    file = tmp_path / "bugs.jsonl"
    row = {"prompt": "def f():\n", "canonical_solution": "    return 10\n", "buggy_solution": "    return 1\n"}
    file.write_text("".join(json.dumps({**row, "task_id": f"T/{n}", "bug_type": "value"}) + "\n" for n in range(4)))
    bugs = list(read_human_bugs(file))
    assert (bugs[0].chosen, bugs[0].kind) == ("def f():\n    return 10\n", "value")
    found = evaluate_pairs(drawn(9), FakeScorer(lambda _, code: -len(code)), human_bugs=bugs).human_bugs
    assert (found.accuracy.value, found.longer.value, found.accuracy.rows) == (0, 1, 4)
    file.write_text('{"prompt": "x"}\n')
    with pytest.raises(DataError, match="canonical_solution"):
        list(read_human_bugs(file))


def test_the_log_probability_control_is_on_the_same_pairs(tiny_policy_dir: Path) -> None:
    found = evaluate_pairs(drawn(12), FakeScorer(hashed), base_model=str(tiny_policy_dir), base_pairs=5)
    control = found.controls["log_probability"]
    assert control.accuracy.rows == control.model.rows == 5


def styled(count: int) -> list[PreferencePair]:
    """Right programs have more comments and the same length: a fitted style rule knows them, length does not."""
    pairs = []
    for number in range(count):
        right, wrong = f"# {number:04}\nx = {number:04}\n", f"y_y_{number:04} = {number:04}\n"
        pairs.append(PreferencePair(f"problem {number}", right, wrong.ljust(len(right)), "rollout", str(number)))
    return pairs


def test_the_strongest_control_is_named_and_the_gain_is_over_it() -> None:
    pairs = styled(80)
    for score, beaten in ((lambda _, code: float("#" in code), 0.0), (hashed, -0.5)):
        result = evaluate_pairs(pairs, FakeScorer(score))
        assert result.controls["shallow"].macro.value == 1
        assert result.controls["longer"].macro.value == 0.5
        assert result.strongest == "shallow"
        assert result.controls["shallow"].macro_gain.value == pytest.approx(beaten, abs=0.15)
    longer = [PreferencePair(f"p{n}", "x = 1\n" * (n % 3 + 2), "x = 1\n", "rollout", str(n)) for n in range(40)]
    assert evaluate_pairs(longer, FakeScorer(lambda _, code: -len(code))).strongest in ("longer", "shallow")


def test_a_base_model_is_compared_on_its_own_pairs(tiny_policy_dir: Path) -> None:
    found = evaluate_pairs(drawn(12), FakeScorer(hashed), base_model=str(tiny_policy_dir), base_pairs=5)
    control = found.controls["log_probability"]
    assert control.macro_gain.rows == control.macro.rows == 5
    assert control.macro_gain.value == pytest.approx(control.model.value - control.macro.value)
    assert found.strongest in found.controls


def test_a_base_model_that_is_not_there_is_found_before_the_scoring(tmp_path: Path) -> None:
    scorer = FakeScorer(hashed)
    with pytest.raises(ConfigError, match=r"causal model .* cannot be loaded"):
        evaluate_pairs(drawn(12), scorer, base_model=str(tmp_path))
    assert scorer.items == []


def test_a_score_that_is_no_number_is_none() -> None:
    pairs = [PreferencePair(f"p{n}", "x = 1", f"x = {n}", "rollout", str(n)) for n in (2, 3)]
    scores = {"x = 1": 1.0, "x = 2": float("nan"), "x = 3": 0.0}
    result = evaluate_pairs(pairs, FakeScorer(scores))
    assert (result.unscored, result.accuracy.rows, result.accuracy.value) == (1, 1, 1.0)
