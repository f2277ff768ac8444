"""Each kind of new pair: what it does to code, that execution confirms it, and that nothing hostile stops it."""

import ast
import gzip
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from codescaler_plugin.errors import ConfigError
from codescaler_plugin.execution.sandbox import Sandbox
from codescaler_plugin.extraction.fingerprint import fingerprint
from codescaler_plugin.preference.augmentation import KINDS, augment_pairs
from codescaler_plugin.preference.mutations import BREAKING, COMMENTS, KEEPING, PRAISE
from codescaler_plugin.records import CallTest, PreferencePair, Problem, Verdict

PROGRAMS = Path(__file__).parents[2] / "recipes" / "miniature" / "data" / "real_pairs.jsonl.gz"
CODE = '''import math

def solve(numbers, k=3):
    """Sum of what is large."""
    total = 0
    for index in range(1, len(numbers)):  # skip the first
        if numbers[index] > k and index % 2 == 0:
            total += numbers[index] * 2
    return total
'''


def changed(kind: str, code: str = CODE, seed: int = 0) -> str | None:
    return {**BREAKING, **KEEPING}[kind](code, Random(seed))


@pytest.mark.parametrize("kind", [*BREAKING, *KEEPING])
def test_every_change_gives_another_program_that_parses(kind: str) -> None:
    results = {changed(kind, seed=seed) for seed in range(30)}
    assert len(results) > 1
    for code in results:
        assert code is not None
        ast.parse(code)
        assert code != CODE
        assert "solve" in code


@pytest.mark.parametrize("kind", BREAKING)
def test_a_breaking_change_is_another_program(kind: str) -> None:
    assert all(fingerprint(changed(kind, seed=seed) or "") != fingerprint(CODE) for seed in range(20))


@pytest.mark.parametrize("kind", ["padding", "praise", "reformat"])
def test_padding_praise_and_reformatting_leave_the_tree(kind: str) -> None:
    for seed in range(20):
        assert fingerprint(changed(kind, seed=seed) or "") == fingerprint(CODE)


def test_each_change_does_what_its_name_says() -> None:
    assert changed("operator", "x = a + b") == "x = a - b\n"
    assert changed("off_by_one", "x = 5") in ("x = 4\n", "x = 6\n")
    assert changed("off_by_one", "x = xs[5]") is None
    assert changed("bound", "x = xs[5]") in ("x = xs[4]\n", "x = xs[6]\n")
    assert changed("bound", "x = range(n + 1)") == "x = range(n)\n"
    assert changed("bound", "x = range(n)") in ("x = range(n + 1)\n", "x = range(n - 1)\n")
    assert changed("condition", "if a == b:\n    c()") in ("if a != b:\n    c()\n", "if not a == b:\n    c()\n")
    assert changed("return", "def f():\n    return True") == "def f():\n    return False\n"
    assert changed("dropped_statement", "if a:\n    b()") in ("if a:\n    pass\n", "pass\n")
    assert changed("truncated", "a()\nb()") == "a()\n"
    assert "return " in (changed("stub", "def f(x):\n    y = x\n    return y") or "")
    assert (changed("stub", "print(input())") or "").startswith("print(")
    assert changed("operator", "x = 1") is None


def test_truncation_leaves_blocks_that_parse() -> None:
    code = "try:\n    a()\n    b()\nexcept E:\n    c()\nelse:\n    d()\nif x:\n    e()\nelse:\n    f()\n"
    for seed in range(40):
        ast.parse(changed("truncated", code, seed) or "(")


def test_renaming_keeps_every_name_that_others_may_use() -> None:
    code = "import os as system\nLIMIT = 3\nclass A:\n    field = 1\n    def f(self, argument):\n        local = argument\n        for item in local:\n            self.kept = item\n        return local, LIMIT, system\n"
    renamed = changed("rename", code) or ""
    for name in ("system", "LIMIT", "A", "field", "f(self, argument)", "self.kept"):
        assert name in renamed
    for name in ("local", "item"):
        assert name not in renamed
    assert changed("rename", "def f():\n    x = 1\n    return eval('x')") is None


def test_comments_go_before_statements_at_their_indentation() -> None:
    padded = changed("padding") or ""
    assert sum(f"# {text}" in padded for text in COMMENTS) >= 2
    assert any(f"# {text}" in (changed("praise") or "") for text in PRAISE)
    assert changed("padding", "from __future__ import annotations\nx = f(1)\n") is None


HOSTILE = [
    "",
    "def f(",
    "x = " + "(" * 5000 + ")" * 5000,
    "x = " + "+".join("1" * 9000),
    "-" * 20_000 + "1",
    "x = 1\n" * 20_000,
    "\0",
    "\ud800",
    "# only a comment",
    "x = 1; y = 2; z = 3",
    "@a\n@b\ndef f(): return 1",
    "def f():\n\treturn 1\n",
    "x = '''\nfor a in b:\n'''\ny = x\n",
    "match x:\n    case [a, *b]:\n        c = a\n",
    "\x0cx = 1\ny = 2\n",
    "é = 1; y = é + 1",
    "if x:\n" + "".join("    " * depth + "if x:\n" for depth in range(1, 90)) + "    " * 90 + "pass",
]


@pytest.mark.parametrize("kind", [*BREAKING, *KEEPING])
def test_hostile_code_is_changed_or_left_never_a_crash(kind: str) -> None:
    for code in HOSTILE:
        for seed in range(3):
            result = changed(kind, code, seed)
            if result is not None:
                ast.parse(result)


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 10**6), st.sampled_from([*BREAKING, *KEEPING]), st.integers(0, 400))
def test_changes_of_real_programs_parse_and_repeat(seed: int, kind: str, place: int) -> None:
    code = _real()[place]
    result = changed(kind, code, seed)
    assert result == changed(kind, code, seed)
    if result is not None:
        ast.parse(result)


_cache: list[str] = []


def _real() -> list[str]:
    if not _cache:
        with gzip.open(PROGRAMS, "rt") as file:
            _cache.extend(json.loads(line)["rejected"] for line in file)
    return _cache


# Pairs

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


class Says:
    """An executor that says the same of every program, or what a rule says."""

    def __init__(self, rule: Any) -> None:
        self.rule = rule
        self.jobs: list[tuple[str, Problem]] = []

    def run(self, jobs: Sequence[tuple[str, Problem]], *, progress: Any = None) -> list[Verdict]:
        self.jobs += jobs
        return [self.rule(code) for code, _ in jobs]


@pytest.mark.parametrize("kind", [*BREAKING, "unaligned"])
def test_a_mutant_that_still_passes_is_no_negative_and_no_positive(kind: str) -> None:
    pairs, problems = world()
    executor = Says(lambda code: Verdict(True, tests_passed=4, tests_total=4))
    augmented, report = augment_pairs(pairs, problems, kinds={kind: 1.0}, executor=executor)
    assert augmented == pairs
    counts = report.kinds[kind]
    assert (counts["made"], counts["wanted"]) == (0, 4)
    assert counts.get("still passes", 0) + counts.get("does not apply", 0) + counts.get("repeated", 0) == 4


def test_a_rewrite_that_changes_either_side_is_dropped_and_counted() -> None:
    pairs, problems = world()
    broke = Says(lambda code: Verdict(False, tests_total=4))
    mended = Says(lambda code: Verdict(True, tests_passed=4, tests_total=4))
    assert (
        augment_pairs(pairs, problems, kinds={"rename": 1}, executor=broke)[1].kinds["rename"]["broke the right side"]
        == 4
    )
    assert (
        augment_pairs(pairs, problems, kinds={"rename": 1}, executor=mended)[1].kinds["rename"][
            "mended the wrong side"
        ]
        == 4
    )


def test_flaky_verdicts_are_on_neither_side() -> None:
    pairs, problems = world()
    flaky = Says(lambda code: Verdict(False, flaky=True, tests_total=4))
    assert augment_pairs(pairs, problems, kinds={"stub": 1}, executor=flaky)[1].kinds["stub"]["flaky"] == 4


@pytest.mark.parametrize("kind", KEEPING)
def test_both_sides_get_the_same_style(kind: str) -> None:
    pairs, problems = world()
    rule = Says(lambda code: Verdict(True))
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
    rule = Says(lambda code: Verdict(True))
    augment_pairs([pair], [Problem("p", "P", (CallTest(([],), 0),), "solve")], kinds={"operator": 1}, executor=rule)
    assert [code for code, _ in rule.jobs] == [f"def solve(xs):\n    return sum(xs) {sign} 1\n" for sign in "+-"]


class Knows(Says):
    """An executor for which a program is right for the problem of its pair alone."""

    def __init__(self, pairs: list[PreferencePair]) -> None:
        super().__init__(None)
        self.right = {(pair.chosen, pair.problem) for pair in pairs}

    def run(self, jobs: Sequence[tuple[str, Problem]], *, progress: Any = None) -> list[Verdict]:
        return [Verdict((code, problem.text) in self.right) for code, problem in jobs]


def test_shares_are_of_the_given_pairs_and_seeds_repeat() -> None:
    pairs, problems = world()
    pairs = [replace(pair, chosen=f"{pair.chosen}# {number}\n") for number in range(25) for pair in pairs]

    def made(seed: int) -> list[PreferencePair]:
        return augment_pairs(pairs, problems, kinds={"unaligned": 0.3}, seed=seed, executor=Knows(pairs))[0]

    assert len(made(0)) == 130
    assert sum(pair.kind == "unaligned" for pair in made(0)) == 30
    assert made(1) == made(1)
    assert made(1) != made(0)


def test_without_tests_nothing_is_made_unless_the_unaligned_are_trusted() -> None:
    pairs, _ = world()
    nothing = Says(lambda code: Verdict(False))
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
    augmented, _ = augment_pairs(pairs, kinds={"unaligned": 1.0}, executor=Says(None), trust_unaligned=True)
    new = [pair for pair in augmented if pair.kind == "unaligned"]
    assert len(new) == 5
    side = {pair.chosen: pair.split for pair in pairs}
    assert all(pair.rejected != pair.chosen and side[pair.rejected] == pair.split for pair in new)


def test_other_languages_pass_through_and_are_counted() -> None:
    pairs = [PreferencePair("P", "fn main() {}", "fn main() { 1 }", "rollout", "p")]
    augmented, report = augment_pairs(
        pairs, [Problem("p", "P", (CallTest((), 0),), "f")], kinds=dict.fromkeys(KINDS, 1.0), executor=Says(None)
    )
    assert augmented == pairs
    assert report.not_python == 1


def test_a_problem_is_found_by_text_where_its_id_is_taken_twice() -> None:
    pairs, problems = world()
    other = Problem("sum", "Another text.", (CallTest(([],), 99),), "solve")
    rule = Says(lambda code: Verdict(True))
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
        augment_pairs([], kinds=kinds, executor=Says(None))


def test_progress_counts_up_to_what_is_wanted() -> None:
    pairs, problems = world()
    seen: list[tuple[int, int]] = []
    executor = Says(lambda code: Verdict("total" in code and "+ 1" not in code))
    augment_pairs(pairs, problems, kinds={"stub": 0.5}, executor=executor, progress=lambda *at: seen.append(at))
    assert seen
    assert all(wanted == 2 and made <= 2 for made, wanted in seen)
