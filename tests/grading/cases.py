"""Tests that are Python source, a program, and the verdict that is right."""

from dataclasses import dataclass

from codescaler_plugin.execution.sandbox import Sandbox
from codescaler_plugin.records import Fault, Problem, ScriptTest, Verdict

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
    outcome = verdict.passed, verdict.fault, verdict.in_process
    assert outcome == (case.passes, case.fault, case.in_process), verdict.detail
    return verdict
