"""Sample completions of a policy with transformers and judge them by execution.

For small policies on one device; a large one is sampled with vLLM and comes here as text.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from codescaler_plugin.extraction import extract_code
from codescaler_plugin.pipeline import CodeScaler
from codescaler_plugin.preference.sandbox import Tests, run_tests
from codescaler_plugin.records import Judgement, Status

BATCH_SIZE = 256


@dataclass(frozen=True)
class Sampled:
    """n completions per problem with their verdicts, problem by problem: two lists of lists of equal shape."""

    completions: list[list[str]]
    passed: list[list[bool]]

    @property
    def pass_at_1(self) -> float:
        """Mean share of completions that pass all tests (unbiased for k = 1)."""
        return fmean(fmean(row) for row in self.passed)

    @property
    def oracle(self) -> float:
        """Share of problems with at least one passing completion: the ceiling of any selection among the n."""
        return fmean(any(row) for row in self.passed)

    @property
    def invalid_share(self) -> float:
        """Share of completions without exactly one valid program."""
        return fmean(extract_code(text).status is not Status.OK for row in self.completions for text in row)


@dataclass(frozen=True)
class Measurement:
    """A policy's samples with their verdicts, and the reward's judgement of each, in the same shape."""

    sampled: Sampled
    judgements: list[list[Judgement]]

    @property
    def mean_reward(self) -> float:
        """Mean over the samples that have a reward."""
        rewards = [judgement.reward for row in self.judgements for judgement in row]
        return fmean(reward for reward in rewards if reward is not None)

    @property
    def best_of_n(self) -> float:
        """Share of problems whose highest-reward sample passes; the first wins a tie, one without a reward never."""
        best = [_best(row) for row in self.judgements]
        return fmean(passed[index] for passed, index in zip(self.sampled.passed, best, strict=True))


def _best(judgements: list[Judgement]) -> int:
    worth = [-math.inf if judgement.reward is None else judgement.reward for judgement in judgements]
    return worth.index(max(worth))


def measure_policy(
    policy: Any,
    tokenizer: Any,
    scaler: CodeScaler,
    problems: Sequence[str],
    tests: Sequence[Tests],
    *,
    n: int,
    max_new_tokens: int = 96,
    progress: Callable[[int], None] | None = None,
) -> Measurement:
    """Sample n completions per problem at temperature 1, run the tests, and judge; see `sample_completions`."""
    completions = sample_completions(
        policy, tokenizer, problems, n=n, max_new_tokens=max_new_tokens, progress=progress
    )
    judgements = scaler.judge(
        [problem for problem in problems for _ in range(n)], [text for row in completions for text in row]
    )
    rows = [judgements[first : first + n] for first in range(0, len(judgements), n)]
    return Measurement(verify_completions(completions, tests), rows)


def sample_completions(
    policy: Any,
    tokenizer: Any,
    problems: Sequence[str],
    *,
    n: int = 1,
    temperature: float = 1.0,
    max_new_tokens: int = 96,
    progress: Callable[[int], None] | None = None,
) -> list[list[str]]:
    """Sample n completions per problem; the outer list follows the problems.

    Draws from torch's global generator: seed it for a repeatable result. A completion that has not ended after
    `max_new_tokens` tokens is returned as far as it came.

    Args:
        policy: a causal language model of transformers.
        tokenizer: its tokenizer, with a chat template and a pad token.
        problems: user turns.
        n: completions per problem.
        temperature: of the full distribution (no top-k, no top-p).
        max_new_tokens: length limit in tokens.
        progress: called with the number of completions just made.
    """
    import torch

    turns = [[{"role": "user", "content": problem}] for problem in problems]
    prompts = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
    rows = tokenizer(prompts, add_special_tokens=False)["input_ids"]
    order = sorted((index for index in range(len(rows)) for _ in range(n)), key=lambda index: len(rows[index]))
    completions: list[list[str]] = [[] for _ in problems]
    for start in range(0, len(order), BATCH_SIZE):
        batch = order[start : start + BATCH_SIZE]
        width = max(len(rows[index]) for index in batch)
        padded = [[tokenizer.pad_token_id] * (width - len(rows[index])) + rows[index] for index in batch]
        ids = torch.tensor(padded, device=policy.device)
        lengths = torch.tensor([len(rows[index]) for index in batch], device=policy.device)
        mask = (torch.arange(width, device=policy.device) >= width - lengths[:, None]).long()
        with torch.inference_mode():
            output = policy.generate(
                input_ids=ids,
                attention_mask=mask,
                do_sample=True,
                temperature=temperature,
                top_k=0,
                top_p=1.0,
                max_new_tokens=max_new_tokens,
                pad_token_id=tokenizer.pad_token_id,
            )
        texts = tokenizer.batch_decode(output[:, width:], skip_special_tokens=True)
        for index, text in zip(batch, texts, strict=True):
            completions[index].append(text)
        if progress is not None:
            progress(len(batch))
    return completions


def verify_completions(completions: Sequence[Sequence[str]], tests: Sequence[Tests]) -> Sampled:
    """Run the extracted code of every completion against its problem's tests; invalid code fails unrun."""
    codes = [[extract_code(text).code for text in row] for row in completions]
    jobs = {(row, code): None for row, texts in enumerate(codes) for code in texts if code}
    verdicts = run_tests([(code, tests[row]) for row, code in jobs])
    passed = {job: verdict.passed for job, verdict in zip(jobs, verdicts, strict=True)}
    return Sampled(
        completions=[list(row) for row in completions],
        passed=[[passed.get((row, code), False) for code in texts] for row, texts in enumerate(codes)],
    )
