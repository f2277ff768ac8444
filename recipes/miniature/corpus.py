"""The supervised corpus: what a middling programmer would have written for the miniature's problems.

A known share of the solutions is wrong in meaning (one mutation) and a smaller share is malformed, so that the policy
that learns from it errs as real policies do: mostly in what the program computes, sometimes in its form.
"""

from dataclasses import dataclass
from random import Random

from problems import STYLES, MiniatureProblem, Program, draw_problems, mutate, solve

MUTATED_SHARE = 0.42
MALFORMED_SHARE = 0.06


@dataclass(frozen=True)
class Demonstration:
    """A problem's text and one completion for it."""

    problem: str
    completion: str


def fenced(code: str) -> str:
    """A program as the policy is to write it: one fenced block, nothing else."""
    return f"```python\n{code}```"


def deform(completion: str, rng: Random) -> str:
    """A completion that no extraction should accept: a bracket or colon lost, the fence lost, or two blocks."""
    choice = rng.random()
    if choice < 0.6:
        position = rng.choice([index for index, letter in enumerate(completion) if letter in "()[]:"])
        return completion[:position] + completion[position + 1 :]
    if choice < 0.8:
        return completion.removeprefix("```python\n").removesuffix("```")
    return f"{completion}\n{completion}"


def draw_demonstrations(rng: Random, count: int) -> list[Demonstration]:
    """`count` demonstrations over training compositions, one per problem."""
    problems = draw_problems(rng, held_out=False)
    return [_demonstrate(next(problems), rng) for _ in range(count)]


def _demonstrate(problem: MiniatureProblem, rng: Random) -> Demonstration:
    program: Program = problem.program
    if rng.random() < MUTATED_SHARE:
        program = mutate(program, rng)
    completion = fenced(solve(program, rng.choice(STYLES)))
    if rng.random() < MALFORMED_SHARE:
        completion = deform(completion, rng)
    return Demonstration(problem.problem, completion)
