"""Suites that a script only defines are run, and mean what they mean to unittest and pytest."""

import pytest

from codescaler_plugin.execution.sandbox import Sandbox
from tests.grading.cases import RIGHT, WRONG, Case, check

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
