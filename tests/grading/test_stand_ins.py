"""Tests of a program in another process: what crosses, what is asked for, and programs that try to pass."""

import pytest

from codescaler_plugin.execution.sandbox import Sandbox
from codescaler_plugin.records import Fault
from tests.grading.cases import YES, Case, check

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
    "ends-while-it-loads": Case(
        "assert f(lambda: 1)==2",
        """
import sys
sys.exit(0)
""",
        passes=False,
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
