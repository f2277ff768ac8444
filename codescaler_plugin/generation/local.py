"""Completions of a causal language model of transformers in this process."""

from collections.abc import Callable, Sequence
from typing import Any

from codescaler_plugin.threads import fitting_threads

BATCH_SIZE = 256


def sample_completions(
    policy: Any,
    tokenizer: Any,
    problems: Sequence[str],
    *,
    n: int = 1,
    temperature: float = 1.0,
    top_p: float = 1.0,
    top_k: int = 0,
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
        temperature: of sampling; 0 takes the most likely token.
        top_p: mass of the most likely tokens that are drawn from; 1: all.
        top_k: number of the most likely tokens that are drawn from; 0: all.
        max_new_tokens: length limit in tokens.
        progress: called with the number of completions just made.
    """
    import torch

    drawn: dict[str, Any] = {"do_sample": False}
    if temperature:
        drawn = {"do_sample": True, "temperature": temperature, "top_p": top_p, "top_k": top_k}
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
        with torch.inference_mode(), fitting_threads(policy):
            output = policy.generate(
                input_ids=ids,
                attention_mask=mask,
                **drawn,
                max_new_tokens=max_new_tokens,
                pad_token_id=tokenizer.pad_token_id,
            )
        texts = tokenizer.batch_decode(output[:, width:], skip_special_tokens=True)
        for index, text in zip(batch, texts, strict=True):
            completions[index].append(text)
        if progress is not None:
            progress(len(batch))
    return completions
