"""How fast extraction is, beside a regular expression and `ast.parse`; the bar is 3,000 completions a second per core.

    python benchmarks/bench_extraction.py [PROGRAMS.jsonl COLUMN]

2,000 completions of about 2,200 characters, half of them code, 8% broken by a lost bracket. The code is from the
miniature's data: LLM-written programs in normal form, without comments, so twice the tokens per character of what a
model writes; or from a column of a file of yours. Batches of 40 go through `extract_all` and through the public
recipe's rule (regular expression, `ast.parse`), one after the other in turning order, seven times, in one thread.
CPU time of the process; of each batch the least of the seven counts, as in `timeit`, for whatever else runs on the
machine can only add; ratios are paired within a batch and a repetition, and their median counts. A third runner is the
rule with `compile` for `ast.parse`: what catching a `return` outside a function costs before anything of ours. Two
runs: all completions distinct, and 23% of each batch repeated, the share that the miniature's groups of 8 rollouts at
temperature 1 have. The last line is JSON.
"""

import ast
import gzip
import json
import platform
import re
import sys
import sysconfig
from collections.abc import Callable
from pathlib import Path
from random import Random
from statistics import median
from time import process_time
from typing import Any

from codescaler_plugin.extraction import extract_all
from codescaler_plugin.records import Status

PROGRAMS = Path(__file__).parents[1] / "recipes" / "miniature" / "data" / "real_pairs.jsonl.gz"
COMPLETIONS, CODE_CHARS, PROSE_CHARS, BROKEN_SHARE, REPEATED_SHARE = 2000, 1100, 1080, 0.08, 0.23
REPETITIONS, BATCH = 7, 40
PROSE = "We go through the items once, keep what the problem asks for, and return it at the end of the loop. "
FENCED = re.compile(r"```\w*\n(.*?)```", re.DOTALL)


def programs(path: Path, column: str) -> list[str]:
    """The programs of a file that compile."""
    opened = gzip.open if path.suffix == ".gz" else open
    with opened(path, "rt", encoding="utf-8") as file:
        codes = [json.loads(line).get(column) or "" for line in file]
    return [code.strip() + "\n" for code in codes if judged(code, compiled)]


def completions(codes: list[str], rng: Random) -> list[str]:
    """Distinct completions, each with real programs in one block, prose before and after it."""
    made = []
    for number in range(COMPLETIONS):
        code = f"# {number}\n"
        # On average the last program that is taken overshoots by half its length.
        while len(code) + len(choice := rng.choice(codes)) / 2 < CODE_CHARS:
            code += choice + "\n"
        if rng.random() < BROKEN_SHARE and ")" in code:
            position = code.rindex(")", 0, max(code.index(")") + 1, rng.randrange(len(code))))
            code = code[:position] + code[position + 1 :]
        half = PROSE_CHARS // 2
        prose = "\n\n".join([PROSE * 3] * (half // (3 * len(PROSE)) + 1))[:half]
        made.append(f"{prose}\n\n```python\n{code}```\n\n{prose}\n")
    return made


def compiled(code: str) -> None:
    """Compile as extraction does, without its guards."""
    compile(code, "<completion>", "exec", dont_inherit=True)


def judged(code: str, judge: Callable[[str], Any]) -> bool:
    """Whether a judge takes the code."""
    try:
        judge(code)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    return True


def rule(texts: list[str], judge: Callable[[str], Any]) -> list[str]:
    """The public recipe's rule, as far as it is public, with any judge of validity."""
    codes = []
    for text in texts:
        blocks = FENCED.findall(text)
        codes.append(blocks[0].strip() if len(blocks) == 1 and judged(blocks[0].strip(), judge) else "")
    return codes


RUNNERS: dict[str, Callable[[list[str]], list[Any]]] = {
    "ours": extract_all,
    "rule": lambda texts: rule(texts, ast.parse),
    "rule_with_compile": lambda texts: rule(texts, compiled),
}


def measure(batches: list[list[str]]) -> dict[str, float]:
    """Paired CPU times of the runners over batches."""
    names = list(RUNNERS)
    least = dict.fromkeys(names, 0.0)
    ratios: dict[str, list[float]] = {name: [] for name in names}
    agree = 0
    for texts in batches:
        seconds: dict[str, list[float]] = {name: [] for name in names}
        found: dict[str, list[Any]] = {}
        for repetition in range(REPETITIONS):
            turn = repetition % len(names)
            for name in names[turn:] + names[:turn]:
                start = process_time()
                found[name] = RUNNERS[name](texts)
                seconds[name].append(process_time() - start)
        for name in names:
            least[name] += min(seconds[name])
            ratios[name] += [other / one for other, one in zip(seconds[name], seconds["ours"], strict=True)]
        verdicts = zip(found["ours"], found["rule"], strict=True)
        agree += sum((one.status is Status.OK) == bool(other) for one, other in verdicts)
    count = sum(map(len, batches))
    result: dict[str, float] = {f"{name}_us": round(total * 1e6 / count, 1) for name, total in least.items()}
    result["completions_per_second"] = round(count / least["ours"])
    for name in names[1:]:
        result[f"speed_over_{name}"] = round(median(ratios[name]), 3)
        result[f"speed_over_{name}_of_the_least_times"] = round(least[name] / least["ours"], 3)
    result["same_verdict_as_rule"] = agree / count
    return result


def main() -> None:
    """Print both batches, then the JSON."""
    path, column = (Path(sys.argv[1]), sys.argv[2]) if sys.argv[1:] else (PROGRAMS, "chosen")
    rng = Random(0)
    distinct = completions(programs(path, column), rng)
    batches = [distinct[start : start + BATCH] for start in range(0, COMPLETIONS, BATCH)]
    once = round(BATCH * (1 - REPEATED_SHARE))
    repeated = [batch[:once] + rng.choices(batch[:once], k=BATCH - once) for batch in batches]
    code_chars = [text.index("```\n") - text.index("```python\n") - 10 for text in distinct]
    result = {
        "benchmark": "extraction",
        "programs": f"{path.name}:{column}",
        "characters": round(sum(map(len, distinct)) / len(distinct)),
        "code_characters": round(sum(code_chars) / len(distinct)),
        "distinct": measure(batches),
        "repeated": measure(repeated),
        "python": platform.python_version(),
        "python_optimised_build": "--enable-optimizations" in (sysconfig.get_config_var("CONFIG_ARGS") or ""),
        "machine": platform.machine(),
    }
    for batch in ("distinct", "repeated"):
        print(f"{batch}: {result[batch]}")
    print(json.dumps(result))


if __name__ == "__main__":
    main()
