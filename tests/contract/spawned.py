"""What the spawned process of test_trl.py runs: a module of its own, for that process imports it and no more."""

from typing import Any

PROMPTS = ["Write solve(n).", "p"]
COMPLETIONS = ["```python\nx = 1\n```", "No."]


def call(reward: Any, results: Any) -> None:
    results.put(reward(prompts=PROMPTS, completions=COMPLETIONS))
