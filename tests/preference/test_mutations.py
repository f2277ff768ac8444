"""Each mutation does what its name says, and hostile code stops none of them."""

import ast
import gzip
import json
from pathlib import Path
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from codescaler_plugin.extraction.fingerprint import fingerprint
from codescaler_plugin.preference.mutations import BREAKING, COMMENTS, PRAISE, PRESERVING

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
    return {**BREAKING, **PRESERVING}[kind](code, Random(seed))


@pytest.mark.parametrize("kind", [*BREAKING, *PRESERVING])
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


@pytest.mark.parametrize("kind", [*BREAKING, *PRESERVING])
def test_hostile_code_is_changed_or_left_never_a_crash(kind: str) -> None:
    for code in HOSTILE:
        for seed in range(3):
            result = changed(kind, code, seed)
            if result is not None:
                ast.parse(result)


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 10**6), st.sampled_from([*BREAKING, *PRESERVING]), st.integers(0, 400))
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
