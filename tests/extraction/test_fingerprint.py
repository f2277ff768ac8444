"""Programs that are the same by their fingerprints, and programs that are not."""

import gzip
import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from codescaler_plugin.extraction.fingerprint import distinct_programs, fingerprint

PROGRAMS = Path(__file__).parents[2] / "recipes" / "miniature" / "data" / "real_pairs.jsonl.gz"


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
