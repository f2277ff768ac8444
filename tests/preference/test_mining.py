"""What mining keeps, drops, counts and orders; and where pairs are read from and written to."""

import gzip
import json
import math
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from codescaler_plugin.data.pairs import EXPORTS, export_pairs, read_pairs, write_pairs
from codescaler_plugin.errors import ConfigError, DataError
from codescaler_plugin.extraction.fingerprint import distinct_programs, fingerprint
from codescaler_plugin.preference.decontamination import (
    clusters,
    contaminated,
    near_pairs,
    shingles,
)
from codescaler_plugin.preference.mining import mine_pairs, near_miss, refine_pairs
from codescaler_plugin.records import PreferencePair
from codescaler_plugin.scoring.rendering import Renderer

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


# The normal form


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("x=1", "x = 1  # one\n\n"),
        ("if a:\n    b()\nelif c:\n    d()", "if a:\n  b()\nelse:\n  if c:\n    d()"),
        ("def f():\n    'doc'", "def f():\n    pass"),
        ("x = 'a' 'b'", 'x = "ab"'),
        ("x = 1_000 + 0x1F + .5 + 1e-9", "x = 1000 + 31 + 0.5 + 0.000000001"),
        ("x = f'a{b}' f'c'", "x = f'a{b}c'"),
        ("return_ = (a, b)", "return_ = a, b"),
        ("x = '''a'''", "x = 'a'"),
        ("x = r'\\d'", "x = '\\\\d'"),
        ("ﬁ = 1", "fi = 1"),
    ],
)
def test_layout_and_comments_make_no_other_program(one: str, other: str) -> None:
    numbers = distinct_programs([one, other])
    assert numbers[one] == numbers[other]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("x = 1", "y = 1"),
        ("x = a + b", "x = b + a"),
        ("x = '#a'", "x = '#b'"),
        ("x = '''a\n\nb'''", "x = '''a\nb'''"),
        ("x = 'a'", "x = b'a'"),
        ("x = (1)", "x = (1,)"),
        ("def f(", "def f( "),
    ],
)
def test_other_programs_are_told_apart(one: str, other: str) -> None:
    numbers = distinct_programs([one, other])
    assert numbers[one] != numbers[other]


def test_the_two_steps_agree_with_comparing_all_trees() -> None:
    with gzip.open(PROGRAMS, "rt") as file:
        rows = [json.loads(line) for line in file]
    codes = [row[side] for row in rows[::3] for side in ("chosen", "rejected")]
    codes += ["# a comment\n" + code.replace("    ", "  ") for code in codes[::7]]
    by_tree = {fingerprint(code) for code in codes}
    assert len(set(distinct_programs(codes).values())) == len(by_tree)


@settings(deadline=None, max_examples=100)
@given(st.text(max_size=200))
def test_any_text_has_a_form(code: str) -> None:
    assert distinct_programs([code, code + " "])[code] >= 0


@pytest.mark.parametrize(
    "code",
    [
        "x = 0x" + "f" * 9000,
        "x = " + "(" * 5000 + ")" * 5000,
        "x = " + "+".join("1" * 9000),
        "-" * 20_000 + "1",
        "x" * 10**6,
        "\0",
    ],
)
def test_hostile_code_has_a_form(code: str) -> None:
    other = code.replace("x", "y") if "x" in code else code + " "
    assert len(set(distinct_programs([code, code + "# c", other]).values())) >= 2


# Overlap of texts


@settings(deadline=None)
@given(
    st.lists(st.frozensets(st.integers(0, 12), max_size=8), max_size=12), st.sampled_from([0.3, 0.5, 0.7, 0.99, 1.0])
)
def test_the_join_finds_exactly_the_near_pairs(sets: list[frozenset[int]], threshold: float) -> None:
    expected = {
        (i, j)
        for j in range(len(sets))
        for i in range(j)
        if sets[i] and sets[j] and len(sets[i] & sets[j]) / len(sets[i] | sets[j]) >= threshold
    }
    assert {(i, j) for i, j, _ in near_pairs(sets, threshold)} == expected


def test_texts_that_differ_in_case_layout_and_a_word_are_one_cluster() -> None:
    text = "Given a list of integers, return the sum of all even numbers that are larger than ten and below ninety."
    assert clusters([text, "Something else.", text.upper() + "\n\n", text + " Thanks."]) == [0, 1, 0, 0]
    assert clusters(["", "", "a"]) == [0, 1, 2]
    assert shingles("Only three words") == shingles("only  THREE words!")


def test_a_short_evaluation_text_is_found_in_a_long_prompt() -> None:
    found = contaminated(
        ["You are a coder. Write a function to add two numbers. Use Python.", "Write a function to add two lists."],
        {"short": ["Write a function to add two numbers."]},
    )
    assert {index: (one.kind, one.value) for index, one in found.items()} == {0: ("n-gram", 1.0)}


def test_shared_boilerplate_is_no_contamination() -> None:
    boiler = "Read the input from stdin and print the answer to stdout. "
    mine = boiler + " ".join(f"alpha{number}" for number in range(60))
    theirs = boiler + " ".join(f"beta{number}" for number in range(60))
    assert contaminated([mine], {"bench": [theirs]}) == {}


# Files of pairs

PAIR = PreferencePair("Add.", "x = 1\n", "x = 2\n", "rollout", "p/1", 0.5, 7, "train", "run")


@pytest.mark.parametrize("suffix", ["jsonl", "jsonl.gz", "parquet"])
@pytest.mark.parametrize("format_", EXPORTS)
def test_what_is_written_is_read_again(tmp_path: Path, format_: str, suffix: str) -> None:
    file = tmp_path / f"pairs.{suffix}"
    assert write_pairs([PAIR, PAIR], file, format_) == [file]
    [pair, _] = read_pairs(file)
    assert (pair.problem, pair.chosen, pair.rejected) == (PAIR.problem, PAIR.chosen, PAIR.rejected)
    if format_ == "pairs":
        assert pair == PAIR
    elif format_ != "codescaler":
        assert pair.margin == 0.5


def test_held_out_pairs_never_slip_into_a_trainers_file(tmp_path: Path) -> None:
    held_out = PreferencePair("B", "x", "y", "rollout", split="held_out")
    files = write_pairs([PAIR, held_out], tmp_path / "a.jsonl", "trl")
    assert [file.name for file in files] == ["a.jsonl", "a.held_out.jsonl"]
    assert [len(file.read_text().splitlines()) for file in files] == [1, 1]
    assert "Add." in files[0].read_text()


def test_a_margin_that_is_not_known_of_every_pair_is_no_column() -> None:
    unknown = PreferencePair("B", "x", "y", "rollout")
    assert "margin" not in next(export_pairs([PAIR, unknown], "trl"))
    assert next(export_pairs([PAIR], "openrlhf"))["margin"] == 0.5


def test_codescalerpair_51k_columns(tmp_path: Path) -> None:
    file = tmp_path / "part.jsonl"
    file.write_text(json.dumps({"question_content": "Add.", "code_pos": "a", "code_neg": "b", "other": 1}) + "\n")
    assert list(read_pairs(file)) == [PreferencePair("Add.", "a", "b", "rollout")]


def test_a_conversation_without_a_prompt_column(tmp_path: Path) -> None:
    turns = [{"role": "user", "content": "Add."}]
    row = {side: [*turns, {"role": "assistant", "content": side}] for side in ("chosen", "rejected")}
    (tmp_path / "a.jsonl").write_text(json.dumps(row) + "\n")
    [pair] = read_pairs(tmp_path / "a.jsonl")
    assert (pair.problem, pair.chosen, pair.rejected) == ("Add.", "chosen", "rejected")


def test_a_row_that_is_no_pair_is_named_or_passed_over(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"problem": "p"}\n{"problem": "p", "chosen": "", "rejected": "x"}\n')
    with pytest.raises(DataError, match=r"a\.jsonl, line 1: expected the columns"):
        list(read_pairs(tmp_path / "a.jsonl"))
    messages: list[str] = []
    assert list(read_pairs(tmp_path / "a.jsonl", on_bad=messages.append)) == []
    assert "chosen side is empty" in messages[1]


@pytest.mark.parametrize(("wrong", "words"), [({"margin": "high"}, "margin is 'high'"), ({"step": "two"}, "step is")])
def test_a_margin_or_step_of_another_type_is_named(tmp_path: Path, wrong: dict[str, Any], words: str) -> None:
    (tmp_path / "a.jsonl").write_text(json.dumps({"problem": "p", "chosen": "x", "rejected": "y"} | wrong) + "\n")
    with pytest.raises(DataError, match=rf"a\.jsonl, line 1: {words}"):
        list(read_pairs(tmp_path / "a.jsonl"))


def test_wrong_suffix_format_and_folder_are_errors(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"expected \.jsonl"):
        write_pairs([PAIR], tmp_path / "a.csv")
    with pytest.raises(ConfigError, match="expected one of pairs"):
        write_pairs([PAIR], tmp_path / "a.jsonl", "csv")
    with pytest.raises(ConfigError, match="cannot write"):
        write_pairs([PAIR], tmp_path / "no" / "a.jsonl")


def test_exported_messages_become_the_tokens_that_scoring_renders() -> None:
    pytest.importorskip("torch")
    from codescaler_plugin.testing import tiny_tokenizer

    tokenizer = tiny_tokenizer()
    [row] = export_pairs([PAIR], "trl")
    for side in ("chosen", "rejected"):
        ids = tokenizer.apply_chat_template(row["prompt"] + row[side], return_dict=False)
        assert [ids] == Renderer(tokenizer).encode([(PAIR.problem, getattr(PAIR, side))])


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


@pytest.mark.parametrize("margin", [math.nan, math.inf, -math.inf, 0.0, -0.5, 1.5, 10**400, "nan"])
def test_a_margin_that_is_no_gap_is_named(tmp_path: Path, margin: Any) -> None:
    """One NaN would make every parameter NaN in a step, while the loss log says 0.0."""
    row = {"problem": "P", "chosen": "x = 1", "rejected": "x = 2", "margin": margin}
    path = tmp_path / "pairs.jsonl"
    path.write_text(json.dumps(row | {"margin": 0.5}) + "\n" + json.dumps(row) + "\n")
    with pytest.raises(DataError, match=r"pairs\.jsonl, line 2: margin is"):
        list(read_pairs(path))
    if isinstance(margin, float):
        with pytest.raises(DataError, match="pair 1: margin is"):
            refine_pairs([PreferencePair("P", "a", "b", "k"), PreferencePair("P", "a", "c", "k", margin=margin)])
