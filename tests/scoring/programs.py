"""Items that tests of this room score, and their scores by other ways."""

from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from codescaler_plugin.scoring.rendering import Renderer

PROBLEM = "Write a function solve(n) that returns the sum of the first n numbers. " * 3
GROUP = [(PROBLEM, f"def solve(n):\n    return n + {number}\n") for number in range(6)]
GROUP += [("Another problem.", "def solve(n):\n    return 1\n"), GROUP[0], GROUP[3]]
ITEMS = [
    ("Write solve(n).", "def solve(n):\n    return n\n"),
    ("Write solve(n).", "def solve(n):\n    return n + 1\n"),
    ("Add the numbers.", "print(sum(map(int, input().split())))\n"),
    ("", "x = 1\n"),
    ("Ünïcode 写 a program.", "s = '→'\n"),
    ("Write solve(n).", "def solve(n):\n    return n\n"),
    ("Long. " * 40, "total = 0\n" * 20),
]


def handle(folder: Path) -> tuple[Any, Any]:
    model = AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float32)
    return model, AutoTokenizer.from_pretrained(folder)


def lengths(folder: Path, items: list[tuple[str, str]]) -> list[int]:
    return [len(row) for row in Renderer(AutoTokenizer.from_pretrained(folder)).encode(items)]


def plain_logits(folder: Path, **settings: Any) -> list[float]:
    """Each sample alone, without padding, through the model as transformers gives it."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float32, **settings).eval()
    logits = []
    for problem, code in ITEMS:
        turns = [{"role": "user", "content": problem}, {"role": "assistant", "content": code}]
        text = tokenizer.apply_chat_template(turns, tokenize=False)
        inputs = tokenizer(text, add_special_tokens=False, return_tensors="pt")
        with torch.inference_mode():
            logits.append(model(**inputs).logits.item())
    return logits
