"""One claim: what the embedded reward costs per completion beside running the hidden tests of the same completions.

    python benchmarks/bench_reward.py

The same completions of the embedded policy on held-out problems go both ways, alternating, five times; the ratio is
paired within a repetition. Conditions: 12 tests a problem in one forked process per candidate, one worker and one
torch thread, so that both sides have one core. The model has 1.2M parameters and the tests are tiny: neither side says
anything about large models or contest tests. The last line of stdout is JSON.
"""

import json
import platform
from itertools import islice
from statistics import median
from time import perf_counter

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from codescaler_plugin import CodeScaler, load_scorer
from codescaler_plugin.builtin import HELD_OUT_PROBLEMS, POLICY
from codescaler_plugin.data.problems import read_problems
from codescaler_plugin.execution.sandbox import Sandbox
from codescaler_plugin.extraction import extract_code
from codescaler_plugin.generation.local import sample_completions
from codescaler_plugin.pretrained import pretrained

PROBLEMS, GROUP, REPETITIONS = 32, 8, 5


def main() -> None:
    """Print a line per repetition, then the JSON."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    tested = list(islice(read_problems(HELD_OUT_PROBLEMS), PROBLEMS))
    texts = [problem.text for problem in tested]
    policy = pretrained(AutoModelForCausalLM, POLICY, dtype=torch.float32).eval()
    groups = sample_completions(policy, pretrained(AutoTokenizer, POLICY), texts, n=GROUP)
    problems = [text for text in texts for _ in range(GROUP)]
    completions = [text for group in groups for text in group]
    hidden = [problem for problem in tested for _ in range(GROUP)]
    scaler = CodeScaler(load_scorer("builtin", cache_size=0))
    scaler.judge(problems[:1], completions[:1])  # loads the model

    reward_ms, tests_ms = [], []
    for repetition in range(REPETITIONS):
        start = perf_counter()
        scaler.judge(problems, completions)
        middle = perf_counter()
        with Sandbox(workers=1) as sandbox:
            sandbox.run([(extract_code(text).code, one) for text, one in zip(completions, hidden, strict=True)])
        end = perf_counter()
        reward_ms.append((middle - start) * 1e3 / len(completions))
        tests_ms.append((end - middle) * 1e3 / len(completions))
        print(f"{repetition}: reward {reward_ms[-1]:.2f} ms, tests {tests_ms[-1]:.2f} ms per completion")
    ratios = [slow / fast for slow, fast in zip(tests_ms, reward_ms, strict=True)]
    result = {
        "benchmark": "reward_vs_tests_miniature",
        "completions": len(completions),
        "reward_ms_per_completion": round(median(reward_ms), 3),
        "tests_ms_per_completion": round(median(tests_ms), 3),
        "paired_ratio_median": round(median(ratios), 2),
        "paired_ratio_range": [round(min(ratios), 2), round(max(ratios), 2)],
        "torch": torch.__version__,
        "python": platform.python_version(),
        "machine": platform.machine(),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
