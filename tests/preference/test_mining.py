"""What mining keeps, drops, counts and orders; and where pairs are read from and written to."""

from collections import Counter, defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from codescaler_plugin.errors import ConfigError, DataError
from codescaler_plugin.extraction.fingerprint import fingerprint
from codescaler_plugin.preference.mining import mine_pairs, refine_pairs
from codescaler_plugin.preference.mining_report import MiningReport
from codescaler_plugin.preference.mining_rules import MiningRule, PairPool, near_miss
from codescaler_plugin.records import PreferencePair

PROGRAMS = Path(__file__).parents[2] / "recipes" / "miniature" / "data" / "real_pairs.jsonl.gz"
TOTAL = 4


def verdict(problem: str, code: str, passed: int, **more: Any) -> dict[str, Any]:
    return {
        "problem": problem,
        "code": code,
        "status": "ok",
        "passed": passed == TOTAL,
        "tests_passed": passed,
        "tests_total": TOTAL,
        **more,
    }


def of(pairs: list[PreferencePair]) -> set[tuple[str, str]]:
    return {(pair.chosen, pair.rejected) for pair in pairs}


def test_all_pass_against_any_fail_within_a_problem_only() -> None:
    rows = [verdict("A", "a = 1", 4), verdict("A", "a = 2", 3), verdict("B", "b = 1", 4), verdict("C", "c = 1", 0)]
    pairs, report = mine_pairs(rows)
    assert [(pair.problem, pair.chosen, pair.rejected, pair.margin) for pair in pairs] == [
        ("A", "a = 1", "a = 2", 0.25)
    ]
    assert report.problems == {"mixed": 1, "all pass": 1, "all fail": 1, "contaminated": 0}
    assert report.pass_rates == [1, 0, 0, 0, 0, 0, 0, 1, 0, 0]


def test_flaky_invalid_and_contradictory_rows_are_on_neither_side_and_counted() -> None:
    rows = [
        verdict("A", "x = 1", 4),
        verdict("A", "x = 2", 0),
        verdict("A", "x = 3", 3, flaky=True),
        verdict("A", "x = 4", 0) | {"tests_passed": 4},
        verdict("A", "x = 5", 4),
        verdict("A", "x = 5  # again", 0),
        {"problem": "A", "code": "", "status": "no_block", "passed": False},
        {"problem": "A", "code": "", "status": "syntax_error", "passed": False},
    ]
    pairs, report = mine_pairs(rows)
    assert of(pairs) == {("x = 1", "x = 2")}
    assert report.dropped == {"flaky": 1, "no passing rate": 1, "both sides": 2}
    assert report.invalid == {"no_block": 1, "syntax_error": 1}


def test_the_same_program_is_one_program_and_the_earliest_stays() -> None:
    rows = [
        verdict("A", "def f(x):\n    return (x)\n", 4, step=5),
        verdict("A", "def f(x):\n    # why\n    return x\n", 4, step=2),
        verdict("A", "def f(x):\n    'doc'\n    return x", 4, step=9),
        verdict("A", "def f(y):\n    return y", 4, step=3),
        verdict("A", "pass\nx = 0", 0, step=1),
    ]
    pairs, report = mine_pairs(rows)
    assert {pair.chosen for pair in pairs} == {"def f(x):\n    # why\n    return x\n", "def f(y):\n    return y"}
    assert report.dropped == {"same program": 2}
    assert sorted(pair.step or 0 for pair in pairs) == [2, 3]


def test_a_program_is_chosen_for_one_problem_only_yet_may_be_wrong_for_another() -> None:
    rows = [verdict("A", "x = 1", 4), verdict("A", "x = 0", 0), verdict("B", "x = 1 # b", 4), verdict("B", "x = 2", 0)]
    rows += [verdict("C", "x = 3", 4), verdict("C", "x = 1", 0)]
    pairs, report = mine_pairs(rows)
    assert of(pairs) == {("x = 1", "x = 0"), ("x = 3", "x = 1")}
    assert report.dropped == {"other problem": 1, "one side only": 1}


def test_two_ids_with_one_text_are_two_problems() -> None:
    rows = [verdict("A", "x = 1", 4, problem_id="1"), verdict("A", "x = 0", 0, problem_id="2")]
    assert mine_pairs(rows)[0] == []


def many(problems: int, right: int, near: int, far: int) -> list[dict[str, Any]]:
    rows = []
    for number in range(problems):
        text = f"Problem {number} about word{number} and thing{number * 7} with item{number * 3} of list{number * 5}"
        sides = [("right", right, 4), ("near", near, 3), ("far", far, 0)]
        for name, count, passed in sides:
            rows += [verdict(text, f"{name} = {number} * {k} + 1", passed, step=number % 7) for k in range(count)]
    return rows


def test_the_cap_holds_and_programs_are_used_evenly() -> None:
    pairs, report = mine_pairs(many(5, 3, 2, 2), pairs_per_problem=6)
    assert Counter(pair.problem for pair in pairs).most_common()[0][1] == 6
    assert len(pairs) == len(of(pairs)) == 30
    for problem in {pair.problem for pair in pairs}:
        here = [pair for pair in pairs if pair.problem == problem]
        assert set(Counter(pair.chosen for pair in here).values()) == {2}
        assert set(Counter(pair.rejected for pair in here).values()) <= {1, 2}
    assert "not sampled" not in report.dropped


def test_few_combinations_are_all_there_are() -> None:
    pairs, _ = mine_pairs(many(1, 2, 1, 2), pairs_per_problem=100)
    assert len(of(pairs)) == 6


@pytest.mark.parametrize("hard", [0.0, 0.25, 0.6, 1.0])
def test_the_hard_share_is_reached_where_there_are_near_misses(hard: float) -> None:
    pairs, report = mine_pairs(many(200, 4, 4, 4), pairs_per_problem=5, hard=hard)
    assert len(pairs) == 1000
    assert report.near_misses / len(pairs) == pytest.approx(hard, abs=0.03)


def test_a_problem_without_near_misses_gives_what_it_has() -> None:
    pairs, report = mine_pairs(many(10, 2, 0, 4), pairs_per_problem=4, hard=1.0)
    assert len(pairs) == 40
    assert report.near_misses == 0


def test_the_cap_on_all_pairs_takes_every_problem_first() -> None:
    pairs, _ = mine_pairs(many(20, 2, 2, 2), max_pairs=20)
    assert len({pair.problem for pair in pairs}) == 20
    pairs, report = mine_pairs(many(20, 2, 2, 2), max_pairs=40, hard=0.75)
    assert (len(pairs), report.near_misses) == (40, 30)


def test_pairs_come_in_the_order_of_their_steps_the_later_of_the_two() -> None:
    rows = [verdict("A", "x = 1", 4, step=9), verdict("A", "x = 0", 0, step=4)]
    rows += [verdict("B b", "y = 1", 4, step=1), verdict("B b", "y = 0", 0, step=3), verdict("C", "z = 1", 4)]
    rows += [verdict("C", "z = 0", 0)]
    pairs, _ = mine_pairs(rows)
    assert [pair.step for pair in pairs] == [None, 3, 9]


def test_the_same_seed_gives_the_same_pairs_and_another_seed_others() -> None:
    rows = many(30, 4, 3, 3)
    assert mine_pairs(rows, seed=1)[0] == mine_pairs(rows, seed=1)[0]
    assert mine_pairs(rows, seed=1)[0] != mine_pairs(rows, seed=2)[0]


def test_no_problem_nor_its_near_twin_is_on_both_sides_of_the_split() -> None:
    rows = many(300, 1, 1, 1)
    twins = [
        row | {"problem": row["problem"].replace("Problem", "  PROBLEM") + ".", "code": f"t{row['code']}"}
        for row in rows
    ]
    pairs, report = mine_pairs(rows + twins, held_out=0.3)
    sides = defaultdict(set)
    for pair in pairs:
        sides[" ".join(pair.problem.lower().strip(".").split())].add(pair.split)
    assert len(sides) == 300
    assert all(len(side) == 1 for side in sides.values())
    assert report.near_clusters == [2] * 300
    assert 0.2 < report.splits["held_out"] / len(pairs) < 0.4


def test_the_split_of_a_problem_does_not_depend_on_the_others() -> None:
    rows = many(100, 1, 1, 1)
    whole = {pair.problem: pair.split for pair in mine_pairs(rows, held_out=0.5)[0]}
    part = {pair.problem: pair.split for pair in mine_pairs(rows[: len(rows) // 2], held_out=0.5)[0]}
    assert len(part) == 50
    assert all(whole[problem] == side for problem, side in part.items())


def test_problems_of_an_evaluation_set_are_removed_and_reported() -> None:
    rows = many(3, 1, 1, 0)
    evaluation = {"bench": ["Solve this: " + rows[0]["problem"] + " Read from stdin.", "Something else entirely."]}
    pairs, report = mine_pairs(rows, evaluation=evaluation)
    assert rows[0]["problem"] not in {pair.problem for pair in pairs}
    assert len({pair.problem for pair in pairs}) == 2
    [found] = report.contamination
    assert (found.problem, found.evaluation, found.kind) == (rows[0]["problem"], "bench", "n-gram")
    assert report.problems["contaminated"] == 1


@pytest.mark.parametrize(
    "setting", [{"pairs_per_problem": 0}, {"max_pairs": 0}, {"hard": 1.5}, {"held_out": 1.0}, {"held_out": -0.1}]
)
def test_settings_out_of_range_are_errors(setting: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(setting))):
        mine_pairs([], **setting)


def test_a_row_without_a_verdict_is_named() -> None:
    with pytest.raises(DataError, match="verdict 1 has no 'passed'"):
        mine_pairs([verdict("A", "x = 1", 4), {"problem": "A", "code": "x", "status": "ok"}])


@pytest.mark.parametrize("wrong", [{"passed": "false"}, {"passed": 1}, {"code": None}, {"problem": ["A"]}])
def test_a_verdict_of_another_type_is_named(wrong: dict[str, Any]) -> None:
    with pytest.raises(DataError, match=r"verdict 1: .* expected two texts and true or false"):
        mine_pairs([verdict("A", "x = 1", 4), verdict("A", "x = 2", 0) | wrong])


@pytest.mark.parametrize("wrong", [{"step": "3"}, {"tests_total": "4"}, {"tests_passed": 1.5}, {"source": ["a"]}])
def test_a_count_or_step_of_another_type_is_named(wrong: dict[str, Any]) -> None:
    with pytest.raises(DataError, match=r"verdict 1: .* expected whole numbers and a text"):
        mine_pairs([verdict("A", "x = 1", 4), verdict("A", "x = 2", 0) | wrong])


def test_no_rows_give_no_pairs() -> None:
    assert mine_pairs([])[0] == []


_rows = st.lists(
    st.builds(
        verdict,
        st.sampled_from(["A", "B b", "C c c"]),
        st.sampled_from(["x = 1", "x=1", "x = 2", "x = 3", "y = 1", "def (", "x = 1 # c", "'doc'\nx = 2"]),
        st.integers(0, 4),
        step=st.one_of(st.none(), st.integers(0, 3)),
        flaky=st.booleans(),
    ),
    max_size=30,
)


@settings(deadline=None, max_examples=200)
@given(
    rows=_rows,
    cap=st.integers(1, 4),
    hard=st.one_of(st.none(), st.floats(0, 1)),
    most=st.one_of(st.none(), st.integers(1, 3)),
)
def test_every_pair_is_what_its_verdicts_say(
    rows: list[dict[str, Any]], cap: int, hard: float | None, most: int | None
) -> None:
    pairs, report = mine_pairs(rows, pairs_per_problem=cap, hard=hard, max_pairs=most)
    said = defaultdict(set)
    for row in rows:
        if not row["flaky"]:
            said[row["problem"], fingerprint(row["code"])].add(row["passed"])
    for pair in pairs:
        assert said[pair.problem, fingerprint(pair.chosen)] == {True}
        assert said[pair.problem, fingerprint(pair.rejected)] == {False}
        assert 0 < (pair.margin or 0) <= 1
    assert max(Counter(pair.problem for pair in pairs).values(), default=0) <= cap
    forms = [(pair.problem, fingerprint(pair.chosen), fingerprint(pair.rejected)) for pair in pairs]
    assert len(set(forms)) == len(forms)
    assert [pair.step if pair.step is not None else -1 for pair in pairs] == sorted(
        pair.step if pair.step is not None else -1 for pair in pairs
    )
    assert report.pairs == len(pairs)
    used = {(pair.problem, code) for pair in pairs for code in (pair.chosen, pair.rejected)}
    assert report.rows == len(rows) == sum(report.dropped.values()) + len(used)


PAIR = PreferencePair("Add.", "x = 1\n", "x = 2\n", "rollout", "p/1", 0.5, 7, "train", "run")


def test_existing_pairs_are_cleaned_split_and_capped() -> None:
    pairs = [
        PreferencePair("A", "x = 1", "x = 2", "rollout"),
        PreferencePair("A", "x = 1 # again", "x = 2", "rollout"),
        PreferencePair("A", "x = 3", "x = 3  # same", "rollout"),
        PreferencePair("A", "x = 4", "x = 5", "rollout"),
        PreferencePair("A", "x = 5", "x = 4", "rollout"),
        PreferencePair("B b", "y = 1", "y = 2", "rollout"),
    ]
    made, report = refine_pairs(pairs)
    assert of(made) == {("x = 1", "x = 2"), ("y = 1", "y = 2")}
    assert report.dropped == {"same program": 1, "both sides": 3}
    assert refine_pairs(pairs, evaluation={"e": ["B b"]})[1].dropped["contaminated"] == 1
    assert len(refine_pairs([PAIR, PreferencePair("Add.", "z", "w", "k", "p/1")], pairs_per_problem=1)[0]) == 1


def test_a_near_miss_is_half_or_more_of_the_tests() -> None:
    assert near_miss(PAIR) is True
    assert near_miss(PreferencePair("A", "x", "y", "k", margin=0.6)) is False
    assert near_miss(PreferencePair("A", "x", "y", "k")) is None


def test_a_row_without_a_verdict_is_on_no_side_and_counted_by_its_fault() -> None:
    rows = [
        verdict("A", "x = 1", 4, fault=None, comparison="tokens", in_process=True),
        verdict("A", "x = 2", 1),
        verdict("A", "x = 3", 0, fault="timeout"),
        verdict("A", "x = 4", 0, fault="missing_package"),
        verdict("B", "x = 5", 4),
        verdict("B", "x = 6", 0, fault="killed"),
    ]
    pairs, report = mine_pairs(rows)
    assert of(pairs) == {("x = 1", "x = 2")}
    assert report.dropped == {
        "no verdict: timeout": 1,
        "no verdict: missing_package": 1,
        "no verdict: killed": 1,
        "one side only": 1,
    }
    assert report.rows == 6
    assert report.pass_rates == [0, 0, 1, 0, 0, 0, 0, 0, 0, 0]
    assert report.comparisons == {"tokens": 1, "scripts": 2}
    assert report.in_process == 1
    with pytest.raises(DataError, match="verdict 0: fault is 'mine': expected null or one of timeout"):
        mine_pairs([verdict("A", "x = 1", 0, fault="mine")])


def test_faults_alone_are_the_cause_where_no_pair_is_made() -> None:
    pairs, report = mine_pairs([verdict("A", f"x = {n}", 0, fault="missing_package") for n in range(3)])
    assert not pairs
    assert "no verdict on any program (no verdict: missing_package 3)" in report.why_no_pairs()


@dataclass(frozen=True)
class MaxCharacters(MiningRule):
    """A rule as a user writes it: one class."""

    reason: ClassVar[str] = "too long"
    max_characters: int

    def __post_init__(self) -> None:
        if self.max_characters < 1:
            raise ConfigError(f"max_characters is {self.max_characters}: expected at least 1")

    def __call__(self, pools: list[PairPool], report: MiningReport) -> list[PairPool]:
        for pool in pools:
            pool.keep(lambda code: len(code) <= self.max_characters)
        return pools


def test_a_rule_of_the_caller_is_one_class_for_verdicts_and_for_pairs() -> None:
    rows = [verdict("A", "x = 1", 4), verdict("A", "x = 2", 0), verdict("A", "x = 10000", 0)]
    rows += [verdict("B b", "y = 10000", 4), verdict("B b", "y = 2", 0)]
    pairs, report = mine_pairs(rows, rules=[MaxCharacters(6)])
    assert of(pairs) == {("x = 1", "x = 2")}
    assert report.dropped == {"too long": 2, "one side only": 1}
    assert report.settings["max_characters"] == 6
    assert report.settings["pairs_per_problem"] == 8
    given = [PreferencePair("A", "x = 1", "x = 2", "rollout"), PreferencePair("A", "x = 1", "x = 10000", "rollout")]
    pairs, report = refine_pairs(given, rules=[MaxCharacters(6)])
    assert of(pairs) == {("x = 1", "x = 2")}
    assert report.dropped == {"too long": 1}
    with pytest.raises(ConfigError, match="max_characters is 0"):
        mine_pairs(rows, rules=[MaxCharacters(0)])
