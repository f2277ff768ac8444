"""New pairs: execution confirms each, and both of its sides are written in the same style."""

from dataclasses import replace
from typing import Any

import pytest

from codescaler_plugin.errors import ConfigError
from codescaler_plugin.execution.sandbox import Sandbox
from codescaler_plugin.preference.augmentation import KINDS, augment_pairs
from codescaler_plugin.preference.mutations import BREAKING, PRESERVING
from codescaler_plugin.records import CallTest, PreferencePair, Problem, Verdict
from codescaler_plugin.testing import FakeExecutor

SOURCES = {
    "sum": (
        "def solve(xs):\n    total = 0\n    for x in xs:\n        total += x\n    return total\n",
        "return total",
        "return total + 1",
    ),
    "largest": (
        "def solve(xs):\n    best = 0\n    for x in xs:\n        if x > best:\n            best = x\n    return best\n",
        "x > best",
        "x < best",
    ),
    "count": (
        "def solve(xs):\n    n = 0\n    for i in range(len(xs)):\n        n = n + 1\n    return n\n",
        "n + 1",
        "n + 2",
    ),
    "evens": (
        "def solve(xs):\n    out = []\n    for x in xs:\n        if x % 2 == 0:\n            out.append(x)\n    return out\n",
        "== 0",
        "== 1",
    ),
}
ARGUMENTS = [[], [3], [1, 2, 3, 4], [9, 8, 7, 6, 2]]


def world() -> tuple[list[PreferencePair], list[Problem]]:
    pairs, problems = [], []
    for number, (name, (code, old, new)) in enumerate(SOURCES.items()):
        namespace: dict[str, Any] = {}
        exec(code, namespace)
        tests = tuple(CallTest((xs,), namespace["solve"](xs)) for xs in ARGUMENTS)
        text = f"Write solve(xs) for {name}."
        problems.append(Problem(name, text, tests, "solve"))
        pairs.append(PreferencePair(text, code, code.replace(old, new), "rollout", name, 0.5, number, "train", "run"))
    return pairs, problems


@pytest.fixture(scope="module")
def sandbox() -> Any:
    with Sandbox(workers=1) as sandbox:
        yield sandbox


def test_every_new_pair_is_right_and_wrong_by_another_execution(sandbox: Sandbox) -> None:
    pairs, problems = world()
    augmented, report = augment_pairs(pairs, problems, kinds=dict.fromkeys(KINDS, 1.0), executor=sandbox)
    by_id = {problem.id: problem for problem in problems}
    new = [pair for pair in augmented if pair.kind != "rollout"]
    assert {pair.kind for pair in new} >= {*KINDS} - {"return"}
    right = sandbox.run([(pair.chosen, by_id[pair.problem_id]) for pair in new])
    wrong = sandbox.run([(pair.rejected, by_id[pair.problem_id]) for pair in new])
    assert all(verdict.passed for verdict in right)
    assert not any(verdict.passed for verdict in wrong)
    assert [pair.margin for pair in new] == [
        pytest.approx(1 - verdict.tests_passed / verdict.tests_total, abs=1e-6) for verdict in wrong
    ]
    assert [pair.step for pair in augmented] == sorted(pair.step or 0 for pair in augmented)
    for kind in KINDS:
        assert report.kinds[kind]["made"] == sum(pair.kind == kind for pair in new)
    for pair in new:
        [base] = [one for one in pairs if one.problem_id == pair.problem_id]
        assert (pair.problem, pair.step, pair.split, pair.source) == (base.problem, base.step, base.split, base.source)


@pytest.mark.parametrize("kind", [*BREAKING, "unaligned"])
def test_a_mutant_that_still_passes_is_no_negative_and_no_positive(kind: str) -> None:
    pairs, problems = world()
    executor = FakeExecutor(lambda code, _: Verdict(True, tests_passed=4, tests_total=4))
    augmented, report = augment_pairs(pairs, problems, kinds={kind: 1.0}, executor=executor)
    assert augmented == pairs
    counts = report.kinds[kind]
    assert (counts["made"], counts["wanted"]) == (0, 4)
    assert counts.get("still passes", 0) + counts.get("does not apply", 0) + counts.get("repeated", 0) == 4


def test_a_rewrite_that_changes_either_side_is_dropped_and_counted() -> None:
    pairs, problems = world()
    broke = FakeExecutor(lambda code, _: Verdict(False, tests_total=4))
    mended = FakeExecutor(lambda code, _: Verdict(True, tests_passed=4, tests_total=4))
    assert augment_pairs(pairs, problems, kinds={"rename": 1}, executor=broke)[1].kinds["rename"]["chosen fails"] == 4
    assert (
        augment_pairs(pairs, problems, kinds={"rename": 1}, executor=mended)[1].kinds["rename"]["rejected passes"] == 4
    )


def test_flaky_verdicts_are_on_neither_side() -> None:
    pairs, problems = world()
    flaky = FakeExecutor(lambda code, _: Verdict(False, flaky=True, tests_total=4))
    assert augment_pairs(pairs, problems, kinds={"stub": 1}, executor=flaky)[1].kinds["stub"]["flaky"] == 4


@pytest.mark.parametrize("kind", PRESERVING)
def test_both_sides_get_the_same_style(kind: str) -> None:
    pairs, problems = world()
    rule = FakeExecutor(lambda code, _: Verdict(True))
    augment_pairs(pairs, problems, kinds={kind: 1.0}, executor=rule)
    codes = [code for code, _ in rule.jobs]
    assert len(codes) >= 6  # a program may have the new style already
    for right, wrong in zip(codes[::2], codes[1::2], strict=True):
        assert len(right.splitlines()) == len(wrong.splitlines())
        comments = [
            [line.strip() for line in code.splitlines() if line.strip().startswith("#")] for code in (right, wrong)
        ]
        assert comments[0] == comments[1]
        assert [line[: len(line) - len(line.lstrip())] for line in right.splitlines()] == [
            line[: len(line) - len(line.lstrip())] for line in wrong.splitlines()
        ]


def test_breaking_kinds_write_both_sides_as_one_writer() -> None:
    code = "def solve(xs):\n  # mine\n  return (sum(xs) + 1)\n"
    pair = PreferencePair("P", code, "x = 1", "rollout", "p")
    rule = FakeExecutor(lambda code, _: Verdict(True))
    augment_pairs([pair], [Problem("p", "P", (CallTest(([],), 0),), "solve")], kinds={"operator": 1}, executor=rule)
    assert [code for code, _ in rule.jobs] == [f"def solve(xs):\n    return sum(xs) {sign} 1\n" for sign in "+-"]


def test_shares_are_of_the_given_pairs_and_seeds_repeat() -> None:
    pairs, problems = world()
    pairs = [replace(pair, chosen=f"{pair.chosen}# {number}\n") for number in range(25) for pair in pairs]

    right = {(pair.chosen, pair.problem) for pair in pairs}

    def made(seed: int) -> list[PreferencePair]:
        executor = FakeExecutor(lambda code, problem: (code, problem.text) in right)
        return augment_pairs(pairs, problems, kinds={"unaligned": 0.3}, seed=seed, executor=executor)[0]

    assert len(made(0)) == 130
    assert sum(pair.kind == "unaligned" for pair in made(0)) == 30
    assert made(1) == made(1)
    assert made(1) != made(0)


def test_without_tests_nothing_is_made_unless_the_unaligned_are_trusted() -> None:
    pairs, _ = world()
    nothing = FakeExecutor(lambda code, _: Verdict(False))
    augmented, report = augment_pairs(pairs, [], kinds={"unaligned": 1.0, "stub": 1.0}, executor=nothing)
    assert augmented == pairs
    assert report.no_tests == 4
    augmented, report = augment_pairs(
        pairs, [], kinds={"unaligned": 1.0, "stub": 1.0}, executor=nothing, trust_unaligned=True
    )
    assert [pair.kind for pair in augmented if pair.kind != "rollout"] == ["unaligned"] * 4
    assert all(pair.margin is None for pair in augmented if pair.kind == "unaligned")
    assert report.kinds["unaligned"]["unverified"] == 4
    assert report.kinds["stub"]["made"] == 0
    assert nothing.jobs == []


def test_unaligned_programs_come_from_another_problem_of_the_same_split() -> None:
    pairs = [
        PreferencePair(
            f"Problem {word} {word}s", f"x = {number}", "y = 1", "rollout", split="train" if number < 3 else "held_out"
        )
        for number, word in enumerate(["alpha", "beta", "gamma", "delta", "epsilon"])
    ]
    augmented, _ = augment_pairs(pairs, kinds={"unaligned": 1.0}, executor=FakeExecutor({}), trust_unaligned=True)
    new = [pair for pair in augmented if pair.kind == "unaligned"]
    assert len(new) == 5
    side = {pair.chosen: pair.split for pair in pairs}
    assert all(pair.rejected != pair.chosen and side[pair.rejected] == pair.split for pair in new)


def test_other_languages_pass_through_and_are_counted() -> None:
    pairs = [PreferencePair("P", "fn main() {}", "fn main() { 1 }", "rollout", "p")]
    augmented, report = augment_pairs(
        pairs, [Problem("p", "P", (CallTest((), 0),), "f")], kinds=dict.fromkeys(KINDS, 1.0), executor=FakeExecutor({})
    )
    assert augmented == pairs
    assert report.not_python == 1


def test_a_problem_is_found_by_text_where_its_id_is_taken_twice() -> None:
    pairs, problems = world()
    other = Problem("sum", "Another text.", (CallTest(([],), 99),), "solve")
    rule = FakeExecutor(lambda code, _: Verdict(True))
    augment_pairs(pairs[:1], [other, *problems], kinds={"reformat": 1}, executor=rule)
    assert {problem.text for _, problem in rule.jobs} == {"Write solve(xs) for sum."}


@pytest.mark.parametrize(
    ("kinds", "words"),
    [
        ({"typo": 1.0}, "unknown kind 'typo'"),
        ({"stub": -1.0}, "the share of stub is -1.0"),
        ({"stub": float("inf")}, "the share of stub is inf"),
        ({"stub": float("nan")}, "the share of stub is nan"),
    ],
)
def test_a_wrong_switch_is_an_error(kinds: dict[str, float], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        augment_pairs([], kinds=kinds, executor=FakeExecutor({}))


def test_progress_counts_up_to_what_is_wanted() -> None:
    pairs, problems = world()
    seen: list[tuple[int, int]] = []
    executor = FakeExecutor(lambda code, _: Verdict("total" in code and "+ 1" not in code))
    augment_pairs(pairs, problems, kinds={"stub": 0.5}, executor=executor, progress=lambda *at: seen.append(at))
    assert seen
    assert all(wanted == 2 and made <= 2 for made, wanted in seen)
