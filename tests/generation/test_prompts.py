"""The prompt names the form that the tests expect."""

from codescaler_plugin.generation.prompts import prompt_for
from codescaler_plugin.records import CallTest, Problem, StdioTest

ADD = Problem("add", "Add one to n.", (CallTest((1,), 2),), "solve")
ECHO = Problem("echo", "Echo the line.", (StdioTest("a\n", "a\n"),))


def test_prompts_say_in_which_form_the_program_is_wanted():
    method = Problem("m", "Sum.", (CallTest((1,), 1),), "Solution.total")
    assert "as a function `solve`" in prompt_for(ADD)
    assert "reading stdin and writing stdout" in prompt_for(ECHO)
    assert "method `total` of a class `Solution`" in prompt_for(method)
    assert prompt_for(ADD, instruct=False) == ADD.text
