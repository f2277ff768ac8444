"""Completions of a causal language model of transformers in this process."""

from collections.abc import Callable, Sequence
from typing import Any

from codescaler_plugin.errors import ConfigError
from codescaler_plugin.generation.sampling import Completer, Sampling
from codescaler_plugin.pretrained import pretrained
from codescaler_plugin.threads import fitting_threads

BATCH_SIZE = 256


def transformers_completer(model: str, sampling: Sampling, *, seed: int) -> Completer:
    """A completer over a causal language model of transformers. Call it from one thread.

    The model runs on a GPU if there is one, else on the CPU in float32.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    tokenizer = pretrained(AutoTokenizer, model, f"policy {model!r}")
    dtype = torch.float32 if device.type == "cpu" else "auto"
    policy = pretrained(AutoModelForCausalLM, model, f"policy {model!r}", dtype=dtype)
    if tokenizer.chat_template is None:
        raise ConfigError(f"{model} has no chat template: serve it with one, or give an instruct model")
    policy = policy.to(device).eval()
    torch.manual_seed(seed)

    def complete(prompt: str, n: int) -> list[str]:
        return sample_completions(
            policy,
            tokenizer,
            [prompt],
            n=n,
            temperature=sampling.temperature,
            top_p=sampling.top_p,
            top_k=sampling.top_k,
            max_new_tokens=sampling.max_tokens,
        )[0]

    return complete


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
    """Sample n completions per problem; one list per problem, in order.

    Draws from torch's global generator: seed it for a repeatable result. A completion that reaches `max_new_tokens`
    is returned as it is. The tokenizer needs a chat template and a pad token. For the settings see `Sampling`;
    `progress` receives the number of completions of each batch.
    """
    import torch

    settings: dict[str, Any] = {"do_sample": False}
    if temperature:
        settings = {"do_sample": True, "temperature": temperature, "top_p": top_p, "top_k": top_k}
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
                **settings,
                max_new_tokens=max_new_tokens,
                pad_token_id=tokenizer.pad_token_id,
            )
        texts = tokenizer.batch_decode(output[:, width:], skip_special_tokens=True)
        for index, text in zip(batch, texts, strict=True):
            completions[index].append(text)
        if progress is not None:
            progress(len(batch))
    return completions
