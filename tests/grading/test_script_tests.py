"""Tests that are Python source: what they mean, what they cannot say, and what a program can do about it.

Each case is tests, a program, and the verdict that is right; `in_process` cases must say that they share a process.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from codescaler_plugin.execution.sandbox import Sandbox
from codescaler_plugin.grading import scripts, serialization
from codescaler_plugin.records import Fault, Problem, ScriptTest, Verdict


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    with Sandbox(workers=1, timeout=3.0) as pool:
        yield pool


@dataclass(frozen=True)
class Case:
    tests: str | tuple[str, ...]
    code: str
    passes: bool = True
    fault: Fault | None = None
    in_process: bool = False
    entry_point: str = "f"
    text: str = "def f(x): ..."

    def problem(self) -> Problem:
        sources = (self.tests,) if isinstance(self.tests, str) else self.tests
        return Problem("p", self.text, tuple(map(ScriptTest, sources)), self.entry_point)


def check(sandbox: Sandbox, case: Case) -> Verdict:
    (verdict,) = sandbox.run([(case.code, case.problem())])
    said = verdict.passed, verdict.fault, verdict.in_process
    assert said == (case.passes, case.fault, case.in_process), verdict.detail
    return verdict


RIGHT = "def f(x):\n    return 2 * x\n"
WRONG = "def f(x):\n    return 0\n"
YES = """
class Yes:
    def __eq__(self,*a): return True
    def __ne__(self,*a): return False
    def __bool__(self,*a): return True
    def __sub__(self,*a): return 0.0
    def __rsub__(self,*a): return 0.0
    def __lt__(self,*a): return True
    def __gt__(self,*a): return True
    def __le__(self,*a): return True
    def __ge__(self,*a): return True
    def __abs__(self,*a): return 0.0
    def __contains__(self,*a): return True
    def __hash__(self,*a): return 0
"""


# Asserts mean what they mean in Python

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


# Tests that test nothing pass nobody

NOTHING = {
    "swallow-all": Case(
        """
try:
    assert f(1)==3
except Exception:
    pass
""",
        RIGHT,
        passes=False,
        fault=Fault.TEST_ERROR,
    ),
    "check-pass": Case(
        """
def check(candidate):
    pass
check(f)
""",
        RIGHT,
        passes=False,
        fault=Fault.TEST_ERROR,
    ),
    "empty": Case(
        "",
        RIGHT,
        passes=False,
        fault=Fault.TEST_ERROR,
    ),
    "gen-assert": Case(
        "assert (f(1)==3 for _ in [1])",
        RIGHT,
        passes=False,
        fault=Fault.TEST_ERROR,
    ),
    "list-assert": Case(
        "assert [f(1)==3]",
        RIGHT,
        passes=False,
        fault=Fault.TEST_ERROR,
    ),
    "assert-f": Case(
        "assert f",
        RIGHT,
        passes=False,
        fault=Fault.TEST_ERROR,
    ),
    "callable": Case(
        "assert callable(f)",
        RIGHT,
        passes=False,
        fault=Fault.TEST_ERROR,
    ),
    "toothless-beside-good": Case(
        ("print(f(1))", "assert f(2)==4"),
        RIGHT,
    ),
    "toothless-raising": Case(
        ("print(f(1))", "assert f(2)==4"),
        """
def f(x):
    if x==1: raise ValueError
    return 4
""",
        passes=False,
    ),
    "self.assertTrue(True)": Case(
        """
import unittest
class T(unittest.TestCase):
    def test_a(self):
        f(1)
        self.assertTrue(True)
""",
        RIGHT,
        passes=False,
        fault=Fault.TEST_ERROR,
    ),
    "unknown-fixture": Case(
        """
def test_a(benchmark):
    assert f(1)==2
""",
        RIGHT,
        passes=False,
        fault=Fault.TEST_ERROR,
    ),
    "all-skipped": Case(
        """
import pytest
@pytest.mark.skip(reason='x')
def test_a():
    assert f(1)==2
""",
        RIGHT,
        passes=False,
        fault=Fault.TEST_ERROR,
    ),
    "doctest": Case(
        """
import doctest
assert doctest.testmod
""",
        "def f(x): return 1",
        passes=False,
        fault=Fault.TEST_ERROR,
    ),
    "what-pytest-has-and-the-stand-in-lacks": Case(
        "import pytest\npytest.register_assert_rewrite('x')\nassert f(1) == 2",
        RIGHT,
        passes=False,
        fault=Fault.TEST_ERROR,
    ),
}


@pytest.mark.parametrize("case", NOTHING.values(), ids=NOTHING.keys())
def test_what_tests_nothing_passes_nobody(sandbox: Sandbox, case: Case) -> None:
    check(sandbox, case)


DISGUISED = {
    "suppressed": "import contextlib\nwith contextlib.suppress(Exception):\n    assert f(2)==5",
    "returns-before": "def check(candidate):\n    candidate(1)\n    return\n    assert candidate(2)==5",
    "returns-in-finally": "def check(g):\n    try:\n        assert g(2)==5\n    finally:\n        return\ncheck(f)",
    "returns-in-except": "def check(g):\n    try:\n        assert g(2)==5\n    except Exception:\n        return False",
    "collects-failures": "bad=[]\ntry:\n    assert f(2)==5\nexcept AssertionError as e:\n    bad.append(e)",
    "logs-failures": "import logging\ntry:\n    assert f(2)==5\nexcept AssertionError as e:\n    logging.error(e)",
    "no-round": "f(1)\nwhile False:\n    assert f(2)==5",
    "unused-helper": "def expect(a):\n    if a: raise AssertionError\nf(1)",
    "not-awaited": "async def inner():\n    assert f(2)==5\nf(1)\ninner()",
    "f-string": "assert f'{f(2)==5}'",
    "walrus": "assert (r := [f(2)])",
    "any-object": "assert isinstance(f(2), object)",
    "or-true": "assert f(2)==5 or True",
    "of-itself": "def g(x): return 2*x\nf(1)\nassert g(1)==2",
}
WEAK = {
    "differs": "assert f(2)!=5",
    "is-not-none": "assert f(2) is not None",
    "not-in": "assert f(2) not in (5, 6)",
    "does-not-raise": "try:\n    f(2)\nexcept Exception:\n    assert False",
    "raises": "try:\n    f(None)\n    assert False\nexcept TypeError:\n    pass",
    "text-of-what-it-raises": "try:\n    f({})\nexcept TypeError as e:\n    assert 'unsupported' in str(e)",
    "same-twice": "assert f(2)==f(2)",
    "argument-stays": "a=[1]\nf(a)\nassert a==[1]",
    "prints-nothing": (
        "import io, contextlib\nb=io.StringIO()\nwith contextlib.redirect_stdout(b):\n    a=f(2)\nassert b.getvalue()+str(a)=='4'"
    ),
    "signature": "import inspect\nassert list(inspect.signature(f).parameters)==['x']",
}


@pytest.mark.parametrize("source", DISGUISED.values(), ids=DISGUISED.keys())
def test_what_passes_whatever_the_program_answers_passes_nobody(sandbox: Sandbox, source: str) -> None:
    in_process = "async" in source or "logging" in source
    check(sandbox, Case(source, RIGHT, passes=False, fault=Fault.TEST_ERROR, in_process=in_process))


@pytest.mark.parametrize("source", WEAK.values(), ids=WEAK.keys())
def test_weak_tests_are_tests(sandbox: Sandbox, source: str) -> None:
    check(sandbox, Case(source, RIGHT, in_process="inspect" in source or "redirect" in source))


# Suites that nobody runs are run

SUITES = {
    "unittest": Case(
        """
import unittest
from solution import f
class T(unittest.TestCase):
    def setUp(self):
        self.x=1
    def test_a(self):
        self.assertEqual(f(self.x),2)
    def test_b(self):
        with self.assertRaises(ValueError):
            f(-1)
if __name__=='__main__':
    unittest.main()
""",
        """
def f(x):
    if x<0: raise ValueError('n')
    return 2*x
""",
    ),
    "unittest-wrong": Case(
        """
import unittest
from solution import f
class T(unittest.TestCase):
    def test_a(self):
        self.assertEqual(f(1),2)
    def test_b(self):
        with self.assertRaises(ValueError):
            f(-1)
unittest.main()
""",
        RIGHT,
        passes=False,
    ),
    "kodcode": Case(
        """
from solution import f
import pytest

def test_a():
    assert f(1)==2

def test_b():
    with pytest.raises(ValueError, match='neg'):
        f(-1)
@pytest.mark.parametrize('a,b',[(1,2),(2,4)])
def test_c(a,b):
    assert f(a)==b
def test_d():
    assert f(0.1)==pytest.approx(0.2)
@pytest.mark.skip
def test_e():
    assert f(1)==100
class TestX:
    def setup_method(self):
        self.v=3
    def test_m(self):
        assert f(self.v)==6
""",
        """
def f(x):
    if x<0: raise ValueError('negative')
    return 2*x
""",
    ),
    "kodcode-wrong-match": Case(
        """
from solution import f
import pytest
def test_b():
    with pytest.raises(ValueError, match='neg'):
        f(-1)
""",
        """
def f(x):
    raise ValueError('pos')
""",
        passes=False,
    ),
    "kodcode-fixture": Case(
        """
import pytest
from solution import f
@pytest.fixture
def v():
    return 3
def test_a(v):
    assert f(v)==6
""",
        RIGHT,
    ),
    "patch-decorator": Case(
        """
import unittest
from unittest.mock import patch
class T(unittest.TestCase):
    @patch('builtins.print')
    def test_a(self, p):
        f(1)
        p.assert_called_with(1)
""",
        "def f(x): print(x)",
        in_process=True,
    ),
    "main-guard": Case(
        """
if __name__ == '__main__':
    assert f(1)==2
""",
        RIGHT,
    ),
    "main-guard-wrong": Case(
        """
if __name__ == '__main__':
    assert f(1)==2
""",
        WRONG,
        passes=False,
    ),
    "check-uncalled": Case(
        """
def check(candidate):
    assert candidate(1)==2
""",
        RIGHT,
    ),
    "expectedFailure/subTest": Case(
        """
import unittest
class T(unittest.TestCase):
    def test_a(self):
        for i in range(3):
            with self.subTest(i=i):
                self.assertEqual(f(i),2*i)
""",
        RIGHT,
    ),
    "subTest-wrong": Case(
        """
import unittest
class T(unittest.TestCase):
    def test_a(self):
        for i in range(3):
            with self.subTest(i=i):
                self.assertEqual(f(i),2*i)
""",
        WRONG,
        passes=False,
    ),
    "assertIsInstance": Case(
        """
import unittest
class T(unittest.TestCase):
    def test_a(self):
        self.assertIsInstance(f(1),int)
""",
        RIGHT,
    ),
    "assertAlmost": Case(
        """
import unittest
class T(unittest.TestCase):
    def test_a(self):
        self.assertAlmostEqual(f(.1),.2)
""",
        RIGHT,
    ),
    "pytest-main": Case(
        """
import pytest
from solution import f
def test_a():
    assert f(1)==2
if __name__=='__main__':
    pytest.main([__file__])
""",
        RIGHT,
    ),
    "parametrized-class": Case(
        "import pytest\n@pytest.mark.parametrize('a', [1, 2])\nclass TestIt:\n    def test_a(self, a):\n        assert f(a) == 2 * a",
        RIGHT,
    ),
    "yield-fixture": Case(
        "import pytest\n@pytest.fixture\ndef r():\n    x = []\n    yield x\n    x.clear()\ndef test_a(r):\n    r.append(f(1))\n    assert r == [2]",
        RIGHT,
    ),
    "set-up-of-a-class": Case(
        "import unittest\nclass T(unittest.TestCase):\n    @classmethod\n    def setUpClass(cls):\n        cls.v = f(1)\n"
        "    def test_a(self):\n        self.assertEqual(self.v, 2)",
        RIGHT,
    ),
    "message-of-an-exception": Case(
        "import pytest\nwith pytest.raises(ValueError) as e:\n    f(1)\nassert 'bad' in str(e.value)",
        "def f(x): raise ValueError('bad x')",
    ),
}


@pytest.mark.parametrize("case", SUITES.values(), ids=SUITES.keys())
def test_suites_that_nobody_runs_are_run(sandbox: Sandbox, case: Case) -> None:
    check(sandbox, case)


# Programs that would like to pass

HOSTILE = {
    "hostile-yes": Case(
        "assert f(1)==2",
        YES
        + """
def f(*a,**k):
    return Yes()
""",
        passes=False,
        fault=Fault.UNREADABLE_RESULT,
    ),
    "hostile-yes-abs": Case(
        "assert abs(f(1)-2)<1e-6",
        YES
        + """
def f(*a,**k):
    return Yes()
""",
        passes=False,
        fault=Fault.UNREADABLE_RESULT,
    ),
    "hostile-yes-in-process": Case(
        "assert f(lambda v: v)==2",
        YES
        + """
def f(*a,**k):
    return Yes()
""",
        passes=False,
        fault=Fault.UNREADABLE_RESULT,
        in_process=True,
    ),
    "hostile-yes-in-process-list": Case(
        "assert f(lambda v: v)==[2]",
        YES
        + """
def f(*a,**k):
    return [Yes()]
""",
        passes=False,
        fault=Fault.UNREADABLE_RESULT,
        in_process=True,
    ),
    "hostile-swallowed": Case(
        """
try:
    ok = f(1)==2
except Exception:
    ok=True
assert ok
""",
        YES
        + """
def f(*a,**k):
    return Yes()
""",
        passes=False,
        fault=Fault.UNREADABLE_RESULT,
    ),
    "hostile-int-subclass": Case(
        "assert f(lambda v:v)==2",
        """
class Y(int):
    def __eq__(s,o): return True
def f(g): return Y(7)
""",
        passes=False,
        in_process=True,
    ),
    "hostile-exit": Case(
        """
try:
    f(1)
except:
    pass
assert True or f
""",
        """
import os
def f(x): os._exit(0)
""",
        passes=False,
    ),
    "hostile-exit2": Case(
        """
try:
    f(1)
except:
    ok=True
assert ok
""",
        """
import os
def f(x): os._exit(0)
""",
        passes=False,
    ),
    "in-process-exit": Case(
        "assert f(lambda: 1)==2",
        """
import os
def f(x): os._exit(0)
""",
        passes=False,
        in_process=True,
    ),
    "in-process-sysexit": Case(
        "assert f(lambda: 1)==2",
        """
import sys
def f(x): sys.exit(0)
""",
        passes=False,
        in_process=True,
    ),
    "ends-while-it-loads": Case(
        "assert f(lambda: 1)==2",
        """
import sys
sys.exit(0)
""",
        passes=False,
    ),
    "in-process-fork": Case(
        "assert f(lambda: 1)==2",
        """
import os
def f(x):
    if os.fork(): os._exit(0)
    return 2
""",
        passes=False,
        in_process=True,
    ),
    "in-process-patches": Case(
        "assert f(lambda: 1)==2",
        """
import builtins,operator,unittest
builtins.bool=lambda *a: True
builtins.AssertionError=ZeroDivisionError
import codescaler_plugin.grading.script_tests as j
j._Run._fail=lambda *a: None
j._Run.note=lambda s,*a: setattr(s,'passed',s.passed+1)
def f(x): return 7
""",
        passes=False,
        in_process=True,
    ),
    "in-process-blind-write": Case(
        "assert f(lambda: 1)==2",
        """
import os
def f(x):
    import json
    d=json.dumps({'passed':1,'total':1,'detail':'','fault':'','beyond':''}).encode()
    for i in range(3,40):
        try: os.write(i,len(d).to_bytes(4,'big')+d)
        except OSError: pass
    os._exit(0)
""",
        passes=False,
        in_process=True,
    ),
    "stop-iteration": Case(
        """
n=0
for r in map(f,[1,2,3]):
    assert r==3
    n+=1
""",
        "def f(x): raise StopIteration",
        passes=False,
    ),
    "empty-name": Case(
        "assert f(1)==2",
        "def f(x): raise type('',(Exception,),{})",
        passes=False,
    ),
    "empty-name-load": Case(
        "assert f(1)==2",
        "raise type('',(Exception,),{})",
        passes=False,
    ),
    "async-hostile": Case(
        """
import asyncio
assert asyncio.run(f(1))==2
""",
        YES
        + """
async def f(*a,**k):
    return Yes()
""",
        passes=False,
        fault=Fault.UNREADABLE_RESULT,
        in_process=True,
    ),
    "Solution-hostile": Case(
        "assert Solution().f(1)==2",
        YES
        + """
class Solution:
  def f(*a,**k):
    return Yes()
""",
        passes=False,
        fault=Fault.UNREADABLE_RESULT,
        entry_point="Solution.f",
        text="q",
    ),
    "Diff-hostile": Case(
        "assert Diff(1)==2",
        YES
        + """
def Diff(*a,**k):
    return Yes()
""",
        passes=False,
        fault=Fault.UNREADABLE_RESULT,
        entry_point="Diff",
        text="Write a function",
    ),
    "decode-bomb": Case(
        "assert f(1)==2",
        """
def f(x):
    return [[]]*1100000
""",
        passes=False,
        fault=Fault.UNREADABLE_RESULT,
    ),
    "hostile-unittest": Case(
        """
import unittest
class T(unittest.TestCase):
    def test_a(self):
        self.assertEqual(f(1),2)
""",
        YES
        + """
def f(*a,**k):
    return Yes()
""",
        passes=False,
        fault=Fault.UNREADABLE_RESULT,
    ),
    "equals-everything-in-a-list": Case(
        "assert [f(1)] == [2]", YES + "def f(*a, **k): return Yes()", passes=False, fault=Fault.UNREADABLE_RESULT
    ),
    "is-never-less": Case(
        "assert max(f(1), 2) == 2", YES + "def f(*a, **k): return Yes()", passes=False, fault=Fault.UNREADABLE_RESULT
    ),
    "is-never-another": Case(
        "assert not f(1) != 2", YES + "def f(*a, **k): return Yes()", passes=False, fault=Fault.UNREADABLE_RESULT
    ),
}


@pytest.mark.parametrize("case", HOSTILE.values(), ids=HOSTILE.keys())
def test_program_cannot_make_itself_right(sandbox: Sandbox, case: Case) -> None:
    check(sandbox, case)


# Names that a test reads but does not define

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


# What crosses as plain data, or is asked for from afar

PLAIN = {
    "next-ok": Case(
        """
it=f(2)
assert next(it)==0
assert next(it)==1
try:
    next(it)
    assert False
except StopIteration:
    pass
""",
        """
def f(n):
    yield from range(n)
""",
    ),
    "KeyError-msg": Case(
        """
try:
    f(1)
except KeyError as e:
    assert str(e)=="'a'"
""",
        "def f(x): return {}['a']",
    ),
    "class-ops": Case(
        """
a=V(1)+V(2)
assert a==V(3)
assert V(1)<V(2)
assert str(a)=='V3'
assert repr(a)
assert hash(V(1))==hash(V(1))
assert len({V(1),V(1)})==1
""",
        """
class V:
    def __init__(s,x): s.x=x
    def __add__(s,o): return V(s.x+o.x)
    def __eq__(s,o): return s.x==o.x
    def __lt__(s,o): return s.x<o.x
    def __str__(s): return f'V{s.x}'
    def __hash__(s): return s.x
""",
        in_process=True,
        entry_point="V",
        text="class V: pass",
    ),
    "singleton": Case(
        "assert V() is V()",
        """
class V:
    _i=None
    def __new__(c):
        if c._i is None: c._i=object.__new__(c)
        return c._i
""",
        entry_point="V",
        text="class V: pass",
    ),
    "closure-result": Case(
        "assert f(2)(3)==6",
        """
def f(a):
    return lambda b: a*b
""",
    ),
    "namedtuple": Case(
        "assert f(1).x==1 and f(1)==(1,2)",
        """
from collections import namedtuple
P=namedtuple('P','x y')
def f(a): return P(1,2)
""",
    ),
    "defaultdict": Case(
        "assert f(1)['zz']==[]",
        """
from collections import defaultdict
def f(a): return defaultdict(list)
""",
    ),
    "enum": Case(
        "assert f(1)==Color.RED",
        """
import enum
class Color(enum.Enum):
    RED=1
def f(a): return Color.RED
""",
        text="return a Color",
    ),
    "type-of-exc": Case(
        """
try:
    f(1)
except Exception as e:
    assert type(e)==ValueError
""",
        "def f(x): raise ValueError('q')",
    ),
    "sysexit": Case(
        """
import pytest
with pytest.raises(SystemExit):
    f(1)
""",
        """
import sys
def f(x): sys.exit(1)
""",
    ),
    "setitem/del": Case(
        """
s=V()
s['a']=1
del s['a']
assert len(s)==0 and bool(s)==False
""",
        """
class V(dict): pass
class V:
    def __init__(s): s.d={}
    def __setitem__(s,k,v): s.d[k]=v
    def __delitem__(s,k): del s.d[k]
    def __len__(s): return len(s.d)
""",
        entry_point="V",
        text="class V: x",
    ),
    "sort": Case(
        """
d=[V(2),V(1)]
assert [x.x for x in sorted(d)]==[1,2]
""",
        """
class V:
    def __init__(s,x): s.x=x
    def __lt__(s,o): return s.x<o.x
""",
        entry_point="V",
        text="class V: q",
    ),
    "bytes-divmod-floor": Case(
        "import math\nassert bytes(V(1)) == b'1'\nassert divmod(V(7), 2) == (3, 1)\nassert math.floor(V(7)) == 7",
        """
class V:
    def __init__(self, x): self.x = x
    def __bytes__(self): return str(self.x).encode()
    def __divmod__(self, other): return divmod(self.x, other)
    def __floor__(self): return self.x
""",
        entry_point="V",
        text="class V: a number",
    ),
}


@pytest.mark.parametrize("case", PLAIN.values(), ids=PLAIN.keys())
def test_what_crosses_or_is_asked_for_from_afar(sandbox: Sandbox, case: Case) -> None:
    check(sandbox, case)


# Tests that need the program's own process

SHARED = {
    "capsys": Case(
        """
def test_a(capsys):
    f(1)
    assert capsys.readouterr().out=='1\\n'
""",
        """
def f(x):
    print(x)
""",
        in_process=True,
    ),
    "capsys-wrong": Case(
        """
def test_a(capsys):
    f(1)
    assert capsys.readouterr().out=='1\\n'
""",
        """
def f(x):
    print(x+1)
""",
        passes=False,
        in_process=True,
    ),
    "monkeypatch": Case(
        """
def test_a(monkeypatch):
    monkeypatch.setattr('builtins.input', lambda *a: '5')
    assert f()==5
""",
        """
def f():
    return int(input())
""",
        in_process=True,
    ),
    "tmp_path": Case(
        """
def test_a(tmp_path):
    p=tmp_path/'a.txt'
    p.write_text('hi')
    assert f(str(p))=='hi'
""",
        """
def f(p):
    return open(p).read()
""",
        in_process=True,
    ),
    "args": Case(
        """
try:
    f(1)
    assert False
except ValueError as e:
    assert e.args==('m',3)
""",
        "def f(x): raise ValueError('m',3)",
        in_process=True,
    ),
    "class-isinstance": Case(
        """
assert isinstance(V(1),V)
assert V(1).x==1
""",
        """
class V:
    def __init__(s,x): s.x=x
""",
        in_process=True,
        entry_point="V",
        text="class V: pass",
    ),
    "class-subclass": Case(
        """
class W(V):
    def g(s): return s.x+1
assert W(1).g()==2
""",
        """
class V:
    def __init__(s,x): s.x=x
""",
        in_process=True,
        entry_point="V",
        text="class V: pass",
    ),
    "with": Case(
        """
with V() as v:
    assert v.x==1
""",
        """
class V:
    x=1
    def __enter__(s): return s
    def __exit__(s,*a): return False
""",
        in_process=True,
        entry_point="V",
        text="class V: pass",
    ),
    "with-function": Case(
        """
with f(1) as v:
    assert v==1
""",
        """
from contextlib import contextmanager
@contextmanager
def f(x):
    yield x
""",
        in_process=True,
    ),
    "pickle": Case(
        """
import pickle
assert pickle.loads(pickle.dumps(V(1))).x==1
""",
        """
class V:
    def __init__(s,x): s.x=x
""",
        in_process=True,
        entry_point="V",
        text="class V: pass",
    ),
    "deepcopy": Case(
        """
import copy
a=V([1])
b=copy.deepcopy(a)
b.x.append(2)
assert a.x==[1]
""",
        """
class V:
    def __init__(s,x): s.x=x
""",
        in_process=True,
        entry_point="V",
        text="class V: pass",
    ),
    "coroutine": Case(
        """
import asyncio
assert asyncio.run(f(1))==2
""",
        """
async def f(x):
    return 2*x
""",
        in_process=True,
    ),
    "coroutine-wrong": Case(
        """
import asyncio
assert asyncio.run(f(1))==2
""",
        """
async def f(x):
    return 3*x
""",
        passes=False,
        in_process=True,
    ),
    "signature": Case(
        """
import inspect
assert list(inspect.signature(f).parameters)==['x']
assert f(1)==2
""",
        RIGHT,
        in_process=True,
    ),
    "callback": Case(
        """
seen=[]
f(seen.append)
assert seen==[1]
""",
        "def f(g): g(1)",
        in_process=True,
    ),
    "stdout": Case(
        """
import io,contextlib
b=io.StringIO()
with contextlib.redirect_stdout(b):
    f(1)
assert b.getvalue()=='1\\n'
""",
        "def f(x): print(x)",
        in_process=True,
    ),
    "stdout-sys": Case(
        """
import io,sys
old=sys.stdout
sys.stdout=io.StringIO()
f(1)
out=sys.stdout.getvalue()
sys.stdout=old
assert out=='1\\n'
""",
        "def f(x): print(x)",
        in_process=True,
    ),
    "patch-module-attr": Case(
        """
from unittest.mock import patch
with patch('time.sleep') as s:
    f(1)
    assert s.called
""",
        """
import time
def f(x): time.sleep(100)
""",
        in_process=True,
    ),
    "mock-arg": Case(
        """
from unittest.mock import MagicMock
m=MagicMock()
f(m)
m.go.assert_called_once()
""",
        "def f(m): m.go()",
        in_process=True,
    ),
    "custom-exc-raises": Case(
        """
import pytest
with pytest.raises(MyError):
    f(1)
""",
        """
class MyError(Exception): pass
def f(x): raise MyError
""",
        in_process=True,
    ),
    "custom-exc-raises-wrong": Case(
        """
import pytest
with pytest.raises(MyError):
    f(1)
""",
        """
class MyError(Exception): pass
def f(x): return 1
""",
        passes=False,
        in_process=True,
    ),
    "generator-isinstance": Case(
        """
import types
assert isinstance(f(3), types.GeneratorType)
assert list(f(3))==[0,1,2]
""",
        """
def f(n):
    yield from range(n)
""",
        in_process=True,
    ),
    "np-random-seed": Case(
        """
import random
random.seed(1)
assert f(1)==17
""",
        """
import random
def f(x): return random.randint(0,100)
""",
        in_process=True,
    ),
    "threading": Case(
        """
import threading
r=[]
t=threading.Thread(target=lambda: r.append(f(1)))
t.start();t.join()
assert r==[2]
""",
        RIGHT,
        in_process=True,
    ),
    "warnings": Case(
        "import pytest\nwith pytest.warns(UserWarning):\n    f(1)",
        "import warnings\ndef f(x): warnings.warn('q')",
        in_process=True,
    ),
    "warnings-that-do-not-come": Case(
        "import pytest\nwith pytest.warns(UserWarning):\n    f(1)", "def f(x): pass", passes=False, in_process=True
    ),
    "patch-in-the-programs-module": Case(
        "from unittest.mock import patch\nimport solution\ndef test_a():\n    with patch('solution.get', return_value=5):\n"
        "        assert solution.f(1) == 5\n    assert solution.f(1) == 1",
        "def get(): return 1\ndef f(x): return get()",
        in_process=True,
    ),
    "coroutine-in-a-test-function": Case(
        "async def test_a():\n    assert await f(1) == 2", "async def f(x): return 2", in_process=True
    ),
}


@pytest.mark.parametrize("case", SHARED.values(), ids=SHARED.keys())
def test_what_needs_the_programs_own_process(sandbox: Sandbox, case: Case) -> None:
    check(sandbox, case)


# Not the program's fault

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


# Counts


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


# Reading


@pytest.mark.parametrize(
    ("source", "free"),
    [
        ("def g(a):\n    b = a + c\n    return b\n", {"c"}),
        ("from m import x\nx + y", {"y"}),
        ("for i in z:\n    i", {"z"}),
        ("[v for v in w]", {"w"}),
        ("def g():\n    global h\n    h = 1\nh", set()),
    ],
)
def test_names_that_a_source_reads_and_does_not_bind(source: str, free: set[str]) -> None:
    assert scripts.read(source, 0).free == free


def test_values_of_the_standard_library_cross_as_themselves() -> None:
    import array
    import collections
    import datetime
    import uuid

    point = collections.namedtuple("point", "x y")
    moment = datetime.datetime(2020, 1, 2, 3, 4, 5, 6, tzinfo=datetime.UTC)
    for value in (
        *(moment, moment.date(), moment.time(), datetime.timedelta(1, 2, 3), array.array("d", [0.5, 1.5])),
        *(uuid.UUID(int=5), slice(1, None, 2), {1: 2}.keys(), {1: [2]}.items(), point(1, [2]), ValueError),
        collections.defaultdict(list, {1: [2]}),
    ):
        back, _ = serialization.unpack(serialization.pack(value)[0])
        assert repr(back) == repr(value)
    assert serialization.unpack(serialization.pack(point(1, 2))[0])[0].y == 2
    assert serialization.unpack(serialization.pack(collections.defaultdict(list))[0])[0]["new"] == []


def test_numbers_and_arrays_of_numpy_cross_by_value(monkeypatch: pytest.MonkeyPatch) -> None:
    numpy = pytest.importorskip("numpy")
    values = [
        numpy.int64(3),
        numpy.float32(0.5),
        numpy.bool_(True),
        numpy.arange(6).reshape(2, 3),
        numpy.zeros((0, 2)),
    ]
    messages = [serialization.pack(value)[0] for value in values]
    for message, value in zip(messages, values, strict=True):
        back, _ = serialization.unpack(message)
        assert repr(back) == repr(value)
    monkeypatch.delitem(serialization.sys.modules, "numpy")
    plain = [serialization.unpack(message)[0] for message in messages]
    assert plain == [3, 0.5, True, [[0, 1, 2], [3, 4, 5]], []]
    assert type(plain[2]) is bool


@pytest.mark.parametrize(
    "node",
    [
        ["y", "<i8", [1 << 40], True, 1],
        ["y", "O", [1], True, 1],
        ["a", "u\x00", 1],
        ["N", "x", ["a"], 1, 2],
        ["N", "x", ["import os"], 1],
        ["x", "system", "ls"],
        ["Z", "nothing"],
        ["e", "Enum", "A"],
    ],
)
def test_forged_values_are_wire_errors(node: list[object]) -> None:
    with pytest.raises(serialization.SerializationError):
        serialization.unpack({"root": [0], "nodes": [node]})


PYTEST = {
    "fixture-with-parameters": """
@pytest.fixture(params=[1, 2, 3])
def n(request):
    return request.param
@pytest.fixture
def m(n):
    return n
def test_a(m, n):
    assert f(m) == 2 * n
""",
    "module-and-function-hooks": """
def setup_module(module):
    global D
    D = [1, 2]
def setup_function():
    D.append(3)
def test_a():
    assert [f(x) for x in D] == [2, 4, 6]
""",
    "nested-class": """
class TestOuter:
    class TestInner:
        def test_a(self):
            assert f(3) == 6
""",
    "parametrize-by-keywords": """
@pytest.mark.parametrize(argnames="a,b", argvalues=[(1, 2), (3, 6)])
def test_a(a, b):
    assert f(a) == b
""",
    "usefixtures": """
D = []
@pytest.fixture
def filled():
    D.append(3)
@pytest.mark.usefixtures("filled")
def test_a():
    assert [f(x) for x in D] == [6]
""",
    "marked-to-fail": """
@pytest.mark.xfail
def test_a():
    assert f(1) == 100
def test_b():
    assert f(3) == 6
""",
    "an-instance-for-each-choice": """
class TestA:
    seen = ()
    @pytest.mark.parametrize("x", [1, 3])
    def test_a(self, x):
        self.seen += (x,)
        assert [f(one) for one in self.seen] == [2 * x]
""",
}


@pytest.mark.parametrize("source", PYTEST.values(), ids=PYTEST.keys())
def test_suites_mean_what_they_mean_to_pytest(sandbox: Sandbox, source: str) -> None:
    source = f"import pytest\nfrom solution import f\n{source}"
    check(sandbox, Case(source, RIGHT))
    check(sandbox, Case(source, "def f(x):\n    return 2 * x if x < 3 else 0\n", passes=False))


def test_a_class_that_derives_from_the_candidate_is_graded(sandbox: Sandbox) -> None:
    source = "def check(candidate):\n    class K(candidate):\n        n = 3\n    assert K().twice() == 6\n"
    code = "class f:\n    n = 0\n    def twice(self):\n        return {} * self.n\n"
    check(sandbox, Case(source, code.format(2), in_process=True))
    check(sandbox, Case(source, code.format(3), passes=False, in_process=True))
