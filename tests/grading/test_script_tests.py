"""Verdicts of tests that are Python source: what asserts mean, whose fault a break is, and what is counted."""

import pytest

from codescaler_plugin.execution.sandbox import Sandbox
from codescaler_plugin.records import Fault
from tests.grading.cases import RIGHT, WRONG, Case, check

MEANING = {
    "try-assert-False": Case(
        """
def check(candidate):
    try:
        candidate(-1)
        assert False
    except ValueError:
        pass
check(f)
""",
        """
def f(x):
    if x<0: raise ValueError
""",
    ),
    "try-assert-False-wrong": Case(
        """
def check(candidate):
    try:
        candidate(-1)
        assert False
    except ValueError:
        pass
check(f)
""",
        RIGHT,
        passes=False,
    ),
    "else-branch": Case(
        """
def check(candidate):
    try:
        candidate(-1)
    except ValueError:
        pass
    else:
        assert False
check(f)
""",
        """
def f(x):
    raise ValueError
""",
    ),
    "assert-caught": Case(
        """
try:
    assert f(1)==3
except AssertionError:
    ok=True
else:
    ok=False
assert ok
""",
        RIGHT,
    ),
    "helper-expr": Case(
        """
def same(a,b):
    assert a==b
    return True
assert same(f(1),2)
""",
        RIGHT,
    ),
    "helper-expr-wrong": Case(
        """
def same(a,b):
    assert a==b
    return True
assert same(f(1),2)
""",
        WRONG,
        passes=False,
    ),
    "raises-AssertionError": Case(
        """
import pytest
with pytest.raises(AssertionError):
    assert f(1)==3
assert f(1)==2
""",
        RIGHT,
    ),
    "loop-of-helpers": Case(
        """
def a(x,y):
    assert x==y
for i in range(5):
    a(f(i),2*i)
""",
        RIGHT,
    ),
    "check-in-try": Case(
        """
def check(c):
    assert c(1)==3
try:
    check(f)
except AssertionError:
    pass
else:
    raise Exception('bad')
""",
        RIGHT,
    ),
    "unbound": Case(
        """
def check(c):
    try:
        c(1)
    except ValueError as e:
        m=str(e)
    assert m=='x'
check(f)
""",
        RIGHT,
        passes=False,
    ),
    "None-result": Case(
        "assert len(f(1))==2",
        "def f(x): pass",
        passes=False,
    ),
    "iter-with-fail-continue": Case(
        """
for i in range(4):
    assert f(i)==2*i
""",
        "def f(i): return 2*i if i!=1 else 9",
        passes=False,
    ),
    "walrus": Case(
        "assert (y:=f(1))==2 and y",
        RIGHT,
    ),
    "while": Case(
        """
n=0
while n<3:
    assert f(n)==2*n
    n+=1
""",
        RIGHT,
    ),
    "match": Case(
        """
r=f(1)
match r:
    case 2:
        ok=True
    case _:
        ok=False
assert ok
""",
        RIGHT,
    ),
    "sys.exit-test": Case(
        """
import sys
if f(1)!=2:
    sys.exit(1)
""",
        WRONG,
        passes=False,
    ),
    "sys.exit-test-right": Case(
        """
import sys
if f(1)!=2:
    sys.exit(1)
""",
        RIGHT,
    ),
}


@pytest.mark.parametrize("case", MEANING.values(), ids=MEANING.keys())
def test_asserts_mean_what_they_mean_in_python(sandbox: Sandbox, case: Case) -> None:
    check(sandbox, case)


FAULTS = {
    "missing-pkg": Case(
        "assert f(1)==2",
        """
import torchvision
def f(x): return 2
""",
        passes=False,
        fault=Fault.MISSING_PACKAGE,
    ),
    "missing-pkg-in-f": Case(
        "assert f(1)==2",
        """
def f(x):
    import torchvision
    return 2
""",
        passes=False,
        fault=Fault.MISSING_PACKAGE,
    ),
    "missing-pkg-test": Case(
        """
import pandas as pd
assert f(1)==2
""",
        RIGHT,
        passes=False,
        fault=Fault.MISSING_PACKAGE,
    ),
    "test-type-error": Case(
        "assert f(1)+undefined==2",
        RIGHT,
        passes=False,
        fault=Fault.TEST_ERROR,
        text="x",
    ),
}


@pytest.mark.parametrize("case", FAULTS.values(), ids=FAULTS.keys())
def test_what_is_not_the_programs_fault(sandbox: Sandbox, case: Case) -> None:
    check(sandbox, case)


def counts(sandbox: Sandbox, source: str, code: str) -> tuple[int, int, str]:
    (one,) = sandbox.run([(code, Case(source, code).problem())])
    return one.tests_passed, one.tests_total, one.detail


LOOP = "def same(a, b):\n    assert a == b\ndef check(candidate):\n    for n in range(4):\n        same(candidate(n), 2 * n)\ncheck(f)\n"


def test_each_call_of_a_comparison_counts_and_a_failure_hides_none(sandbox: Sandbox) -> None:
    assert counts(sandbox, LOOP, RIGHT) == (4, 4, "")
    code = "def f(x):\n    return 9 if x == 1 else 2 * x\n"
    assert counts(sandbox, LOOP, code) == (3, 4, "WrongAnswer in test 1: same(candidate(n), 2 * n)")


def test_a_branch_that_is_not_taken_counts_for_nothing(sandbox: Sandbox) -> None:
    source = "if f(1) == 2:\n    assert f(2) == 4\nelse:\n    assert f(3) == 1\n    assert f(4) == 1\n"
    assert counts(sandbox, source, RIGHT)[:2] == (1, 1)


def test_asserts_behind_a_break_count_as_failed(sandbox: Sandbox) -> None:
    source = "assert f(1) == 2\nx = f(-1)\nassert f(2) == 4\nassert f(3) == 6\n"
    code = "def f(x):\n    if x < 0:\n        raise ValueError\n    return 2 * x\n"
    assert counts(sandbox, source, code)[:2] == (1, 3)


def test_a_failure_counts_before_a_fault(sandbox: Sandbox) -> None:
    (one,) = sandbox.run([(WRONG, Case(("assert f(1) == 2", "import nowhere\nassert f(1) == 2"), WRONG).problem())])
    assert (one.is_failure, one.fault) == (True, None)


def test_a_missing_package_is_named(sandbox: Sandbox) -> None:
    for code, source in (
        (RIGHT, "import nowhere\nassert f(1) == 2"),
        ("import nowhere\n" + RIGHT, "assert f(1) == 2"),
    ):
        (one,) = sandbox.run([(code, Case(source, code).problem())])
        assert one.fault is Fault.MISSING_PACKAGE
        assert "nowhere" in one.detail


def test_an_unknown_fixture_is_named(sandbox: Sandbox) -> None:
    (one,) = sandbox.run([(RIGHT, Case("def test_a(benchmark):\n    assert f(1) == 2", RIGHT).problem())])
    assert "'benchmark'" in one.detail
