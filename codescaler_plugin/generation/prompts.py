"""The user turns that ask a policy for a program."""

from codescaler_plugin.records import Problem


def prompt_of(text: str, *, entry_point: str = "", stdin: bool = False) -> str:
    """A user turn that asks for a program: the problem, followed by the form that its tests expect.

    `entry_point` is the function that the tests call; `Solution.method` for a method.
    """
    form = ", reading stdin and writing stdout" if stdin else ""
    if entry_point:
        owner, _, name = entry_point.rpartition(".")
        form = f", as method `{name}` of a class `{owner}`" if owner else f", as a function `{name}`"
    return (
        f"{text}\n\nWrite a Python program that solves this problem{form}. Think first if you like, then give the "
        "whole program in one ```python block, and no other block."
    )


def prompt_for(problem: Problem, *, instruct: bool = True) -> str:
    """The user turn for a problem with tests; without `instruct`, its text alone."""
    if not instruct:
        return problem.text
    return prompt_of(problem.text, entry_point=problem.entry_point, stdin=not problem.entry_point)
