"""Names that a test reads but does not define."""

import pytest

from codescaler_plugin.execution.sandbox import Sandbox
from codescaler_plugin.records import Fault
from tests.grading.cases import RIGHT, WRONG, Case, check

NAMES = {
    "class-math": Case(
        "assert math.isclose(f(1),2)",
        WRONG
        + """
class math:
    isclose=lambda *a: True
""",
        passes=False,
        text="x",
    ),
    "math-ok": Case(
        "assert math.isclose(f(1),2)",
        RIGHT,
    ),
    "undefined-helper": Case(
        "assert close(f(1),2)",
        WRONG + "def close(*a): return True",
        passes=False,
        fault=Fault.TEST_ERROR,
        text="x",
    ),
    "stack-no-text": Case(
        """
s = Stack()
s.push(1)
assert s.pop()==1
assert s == s
""",
        """
class Stack:
    def __init__(s): s.a=[]
    def push(s,x): s.a.append(x)
    def pop(s): return s.a.pop()
""",
        entry_point="Stack",
        text="Make a stack",
    ),
    "Solution()": Case(
        """
assert Solution().f(1)==2
s=Solution()
assert s.f(2)==4
""",
        """
class Solution:
    def f(s,x): return 2*x
""",
        entry_point="Solution.f",
        text="q",
    ),
    "no-entry": Case(
        "assert g(1)==2",
        "def g(x): return 2",
        entry_point="",
        text="q",
    ),
    "args-only-name": Case(
        "assert f(Pair(1,2))==3",
        """
class Pair:
    def __init__(s,a,b): s.a,s.b=a,b
def f(p): return p.a+p.b
""",
        text="q",
    ),
    "eval": Case(
        "assert eval('f(1)')==2",
        RIGHT,
    ),
    "exec-string": Case(
        """
exec('assert f(1)==2')
assert f(2)==4
""",
        RIGHT,
    ),
    "import-star": Case(
        """
from solution import *
def test_a():
    assert f(1)==2
""",
        RIGHT,
    ),
    "import-solution": Case(
        """
import solution
def test_a():
    assert solution.f(1)==2
""",
        RIGHT,
    ),
    "asked-by-another-name-than-the-problems": Case(
        "def check(candidate):\n    assert g(1) == 2\ncheck(g)", "def g(x): return 2", entry_point="h", text="def h(x)"
    ),
}


@pytest.mark.parametrize("case", NAMES.values(), ids=NAMES.keys())
def test_names_that_a_test_does_not_define(sandbox: Sandbox, case: Case) -> None:
    check(sandbox, case)
