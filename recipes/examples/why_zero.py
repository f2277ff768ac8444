"""Why is the reward 0? Ten typical completions, each with its status, reward and the reason in one sentence.

    python recipes/examples/why_zero.py
    python recipes/examples/why_zero.py --extraction last
    python recipes/examples/why_zero.py --model LARK-Lab/CodeScaler-1.7B

A completion without one valid program gets 0 and never reaches the reward model. With `--extraction last` the last
valid block counts, as in the paper's evaluation, so an answer with two blocks has a reward.
"""

import argparse
import textwrap
from collections import Counter

from codescaler_plugin import CodeScaler

PROBLEM = "Write solve(xs): for a list xs of integers, return the sum."
PROGRAM = "def solve(xs):\n    return sum(xs)\n"
COMPLETIONS = {
    "one block": f"The sum is built in:\n```python\n{PROGRAM}```",
    "reasoning, then one block": f"<think>A draft: ```python\npass\n```</think>\n```python\n{PROGRAM}```",
    "code without a fence": PROGRAM,
    "cut inside the reasoning": f"<think>Let me try ```python\n{PROGRAM}``` or",
    "cut inside the block": "```python\ndef solve(xs):\n    return su",
    "two blocks": f"```python\nprint(sum(xs))\n```\nAs a function:\n```python\n{PROGRAM}```",
    "another language": "```javascript\nconst solve = xs => xs.reduce((a, b) => a + b, 0)\n```",
    "a syntax error": "```python\ndef solve(xs):\n    return sum(xs\n```",
    "nothing to run": '```python\n"""The sum of xs."""\npass\n```',
    "far too long": f"```python\n{PROGRAM}{'# padding' * 3000}\n```",
}


def main() -> None:
    """Judge the completions and print why each has its reward."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="builtin", help="reward model: hub id, directory, builtin or a server")
    parser.add_argument("--extraction", default="single", help="which block counts: single, last, first or bare")
    args = parser.parse_args()

    scaler = CodeScaler(args.model, extraction=args.extraction)
    judgements = scaler.judge([PROBLEM] * len(COMPLETIONS), list(COMPLETIONS.values()))
    for name, judgement in zip(COMPLETIONS, judgements, strict=True):
        print(f"{name}: {judgement.status}, reward {judgement.reward:.3f}")
        print(textwrap.indent(textwrap.fill(judgement.explanation, 76), "    "))
    counts = Counter(str(judgement.status) for judgement in judgements)
    print("\n" + ", ".join(f"{count} {status}" for status, count in counts.most_common()))


if __name__ == "__main__":
    main()
