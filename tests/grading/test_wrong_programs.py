"""Tests that test nothing pass no program."""

import pytest

from codescaler_plugin.execution.sandbox import Sandbox
from codescaler_plugin.records import Fault
from tests.grading.cases import RIGHT, Case, check

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
