"""Tests that share a process with the program, and programs that try to pass there."""

import pytest

from codescaler_plugin.execution.sandbox import Sandbox
from codescaler_plugin.records import Fault
from tests.grading.cases import RIGHT, YES, Case, check

HOSTILE = {
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
    "in-process-patches-what-makes-results-plain": Case(
        "assert f(lambda: 1)==2",
        YES
        + """
import codescaler_plugin.grading.in_process as j
j._is_plain=lambda v: True
j._put_back=lambda *a: None
j._Shared._plain=lambda s,v: v
def f(x): return Yes()
""",
        passes=False,
        fault=Fault.UNREADABLE_RESULT,
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
}


@pytest.mark.parametrize("case", HOSTILE.values(), ids=HOSTILE.keys())
def test_program_cannot_make_itself_right(sandbox: Sandbox, case: Case) -> None:
    check(sandbox, case)


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


def test_a_class_that_derives_from_the_candidate_is_graded(sandbox: Sandbox) -> None:
    source = "def check(candidate):\n    class K(candidate):\n        n = 3\n    assert K().twice() == 6\n"
    code = "class f:\n    n = 0\n    def twice(self):\n        return {} * self.n\n"
    check(sandbox, Case(source, code.format(2), in_process=True))
    check(sandbox, Case(source, code.format(3), passes=False, in_process=True))
