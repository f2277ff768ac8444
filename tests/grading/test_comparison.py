"""Results are compared as the data set's own grader does: each rule with what it accepts and what it does not."""

from functools import partial
from typing import Any

import pytest

from codescaler_plugin.execution.sandbox import Sandbox
from codescaler_plugin.grading.comparison import same_text, same_value
from codescaler_plugin.records import CallTest, Comparison, Problem, StdioTest
from tests.processes import keeps

BIG = "1" + "0" * 6000


@pytest.mark.parametrize("rule", ["exact", "tokens", "decimal_lines", "allclose", "set"])
@pytest.mark.parametrize(
    ("output", "wanted"),
    [("4\n", "4"), ("", "\n"), ("a b \nc\n\n", "a b\nc"), (BIG, BIG), ("é→漢\n", "é→漢")],
    ids=["newline", "empty", "ends-of-lines", "6000-digits", "not-ascii"],
)
def test_every_rule_passes_over_white_space_at_the_ends(output: str, wanted: str, rule: str) -> None:
    assert same_text(output, wanted, rule)


@pytest.mark.parametrize(
    ("output", "wanted", "rules"),
    [
        ("0.333333", "0.333333333333", {"tokens", "allclose"}),
        ("0.34", "0.333333333333", set()),
        ("2", "2.0", {"tokens", "allclose", "decimal_lines"}),
        ("-0.0", "0.0", {"tokens", "allclose", "decimal_lines"}),
        ("1e3", "1000", {"tokens", "allclose", "decimal_lines"}),
        ("1 2 3", "1\n2\n3", {"tokens", "allclose"}),
        ("1\n 2", "1\n2", {"tokens", "allclose", "decimal_lines"}),
        ("YES", "Yes", {"tokens"}),
        ("b\na", "a\nb", {"set"}),
        ("007", "7", {"tokens", "allclose", "decimal_lines"}),
        ("-0", "0", {"tokens", "allclose", "decimal_lines"}),
        ("-7", "7", set()),
        ("1000001", "1000000", set()),
        ("1000001.0", "1000000", {"allclose"}),
        ("1000001.0", "1000000.0", {"tokens", "allclose"}),
        (BIG + "1", BIG + "2", set()),
        ("1_0", "10", {"decimal_lines"}),
        ("nan", "1.0", set()),
        ("inf", "1e999", set()),
        ("1 2 3", "1 2", set()),
        ("1 2", "1 2 3", set()),
        ("", "0", set()),
        ("abc", "abd", set()),
    ],
)
def test_text(output: str, wanted: str, rules: set[str]) -> None:
    assert {
        rule for rule in ("exact", "tokens", "decimal_lines", "allclose", "set") if same_text(output, wanted, rule)
    } == rules


@pytest.mark.parametrize(
    ("result", "wanted", "rules"),
    [
        (4, 4, {"exact", "tokens", "allclose", "set"}),
        ((1, [2]), [1, (2,)], {"exact", "tokens", "allclose", "set"}),
        ({1: "a"}, {"1": "a"}, {"exact", "tokens", "allclose", "set"}),
        (2.0, 2, {"exact", "tokens", "allclose", "set"}),
        ([0.30000000000000004], [0.3], {"tokens", "allclose"}),
        (1 / 3, 0.33333, {"tokens", "allclose"}),
        ({"a": [1 / 3]}, {"a": [0.33333]}, {"tokens", "allclose"}),
        (0.34, 1 / 3, set()),
        (float("nan"), float("nan"), {"tokens", "allclose"}),
        (float("inf"), 1.0, set()),
        (10**20 + 1, 10**20, set()),
        ([2, 1], [1, 2], {"set"}),
        ([[2], [1], [1]], [[1], [2]], {"set"}),
        ([1, 2], [1, 2, 3], set()),
        ("a", "A", set()),
        ("1", 1, set()),
        (None, 0, set()),
        ([], None, set()),
        (10**400, 1.5, set()),
    ],
)
def test_values(result: Any, wanted: Any, rules: set[str]) -> None:
    assert {rule for rule in ("exact", "tokens", "allclose", "set") if same_value(result, wanted, rule)} == rules


@pytest.mark.parametrize("rule", ["exact", "tokens", "decimal_lines", "allclose"])
@pytest.mark.parametrize("gap", [" ", "\n"])
def test_a_long_output_is_not_taken_apart_further_than_what_is_expected(gap: str, rule: str) -> None:
    output = f"1{gap}" * 8_000_000
    assert not same_text(output, "1 2 3", rule)
    assert keeps(0.5, partial(same_text, output, "1 2 3", rule))


def test_a_verdict_names_its_comparison_and_any_accepted_value_will_do() -> None:
    close = Problem("p", "t", (CallTest((3,), [0.33333], (0.33333,)),), "solve", comparison=Comparison.ALLCLOSE)
    exact = Problem("p", "t", (CallTest((3,), 0.33333),), "solve", comparison=Comparison.EXACT)
    with Sandbox(workers=1) as sandbox:
        right, wrong = sandbox.run([("def solve(n):\n    return 1 / n\n", problem) for problem in (close, exact)])
    assert (right.passed, right.comparison) == (True, "allclose")
    assert (wrong.passed, wrong.comparison, wrong.fault) == (False, "exact", None)


CHECKER = """
import sys
given, expected, output = (open(name).read() for name in sys.argv[1:])
print(1 if sum(map(int, output.split())) == int(given) else 0)
"""


@pytest.mark.parametrize(
    ("checker", "code", "passed", "detail", "fault"),
    [
        (CHECKER, "n = int(input())\nprint(1, n - 1)", True, "", None),
        (CHECKER, "n = int(input())\nprint(n - 2, 2)", True, "", None),
        (CHECKER, "print(1, 1)", False, "WrongAnswer in test 0: '1 1', expected '3 2'", None),
        (CHECKER, "print('x')", False, "TestError: ValueError in the checker in test 0", "test_error"),
        ("while True: pass", "print(1)", False, "TestError: Timeout in the checker in test 0", "test_error"),
    ],
    ids=["right", "right-otherwise", "wrong", "checker-breaks", "checker-endless"],
)
def test_a_checker_program_decides(checker: str, code: str, passed: bool, detail: str, fault: str | None) -> None:
    problem = Problem("p", "t", (StdioTest("5", "3 2"),), comparison=Comparison.CHECKER, checker=checker)
    with Sandbox(workers=1, timeout=1.0) as sandbox:
        [one] = sandbox.run([(code, problem)])
    assert (one.passed, one.detail, one.fault) == (passed, detail, fault)
