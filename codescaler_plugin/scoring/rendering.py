"""(problem, code) -> the reward model's own chat text, the same for training, scoring and serving (design §4.2)."""

from typing import Any


def messages(problem: str, code: str) -> list[dict[str, str]]:
    """The two turns that the released models were trained on: the problem, then the bare code without a fence."""
    return [{"role": "user", "content": problem}, {"role": "assistant", "content": code}]


def render(tokenizer: Any, problem: str, code: str) -> str:
    """The text that is scored: both turns through the tokenizer's chat template, without a generation prompt.

    Equal to what TRL's RewardTrainer tokenizes for a conversational pair. It does not yet neutralise special-token
    text inside problem or code.

    Raises:
        ValueError: the tokenizer has no chat template (from transformers).
    """
    text: str = tokenizer.apply_chat_template(messages(problem, code), tokenize=False)
    return text
