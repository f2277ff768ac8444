"""Stage 2: on-policy rollouts at temperature 1, each with the verdict of its problem's hidden tests."""

from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import torch
from problems import MiniatureProblem, draw_problems
from transformers import AutoModelForCausalLM, AutoTokenizer

from codescaler_plugin.evaluation.policy import VerifiedCompletions, verify_completions
from codescaler_plugin.extraction import extract_code
from codescaler_plugin.generation.local import sample_completions
from codescaler_plugin.pretrained import pretrained

COMPLETIONS_PER_PROBLEM = 8


def distinct_problems(rng: Random, count: int, *, held_out: bool) -> list[MiniatureProblem]:
    """`count` problems of one side of the split, no two with the same text."""
    found: dict[str, MiniatureProblem] = {}
    for problem in draw_problems(rng, held_out=held_out):
        found.setdefault(problem.problem, problem)
        if len(found) == count:
            break
    return list(found.values())


def roll_out(
    policy: Path, problems: list[MiniatureProblem], *, seed: int, n: int = COMPLETIONS_PER_PROBLEM
) -> VerifiedCompletions:
    """Sample n completions per problem from a saved policy and run their tests."""
    torch.manual_seed(seed)
    model = pretrained(AutoModelForCausalLM, policy, dtype=torch.float32).eval()
    completions = sample_completions(
        model, pretrained(AutoTokenizer, policy), [problem.problem for problem in problems], n=n
    )
    return verify_completions(completions, [problem.record() for problem in problems])


def verdict_rows(
    problems: list[MiniatureProblem], sampled: VerifiedCompletions, *, step: int | None = None, source: str = ""
) -> Iterator[dict[str, Any]]:
    """One row per completion, as `codescaler verify` writes them, with the problem's composition."""
    for problem, texts, verdicts in zip(problems, sampled.completions, sampled.passed, strict=True):
        for text, passed in zip(texts, verdicts, strict=True):
            extraction = extract_code(text)
            yield {
                "problem": problem.problem,
                "composition": problem.program.composition,
                "completion": text,
                "code": extraction.code,
                "status": extraction.status,
                "passed": passed,
                "step": step,
                "source": source,
            }
