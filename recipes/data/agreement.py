r"""Compare verdicts with the labels that published samples came with, and explain each difference by running it again.

Hardware: CPU; seconds per difference. Versions: those of the package.

    python recipes/data/public_samples.py SOURCES rollouts.jsonl
    codescaler verify rollouts.jsonl --extraction bare --tests SOURCES/humaneval/HumanEval.jsonl.gz \
        --tests SOURCES/mbpp/mbpp.jsonl --timeout 20 --output verdicts.jsonl
    python recipes/data/agreement.py rollouts.jsonl verdicts.jsonl --tests SOURCES/humaneval/HumanEval.jsonl.gz \
        SOURCES/mbpp/mbpp.jsonl

A program that the label calls right is run again with more time, then with the imports that its publisher's run made,
then against the meaning of tests such as `assert f(x) == 1, 2`, which Python reads as a comparison with 1 alone. A
program that the label calls wrong is run again under other seeds, and with its tests as one plain program, which the
sandbox grades in another way. `--without SOURCE` leaves out a source whose samples are not whole programs (reflexion's
are bodies of functions). Expect each difference on a line of its own, and a last line of JSON: rows,
agree, share, by source, explained. Exit code 1 if a smaller share than `--min-agreement` agrees.
"""

import argparse
import ast
import json
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

from codescaler_plugin.data.problems import read_problems
from codescaler_plugin.execution.sandbox import Sandbox
from codescaler_plugin.records import Problem, ScriptTest, StdioTest

IMPORTS = "import collections, heapq, itertools, math, re\nfrom collections import *\nfrom typing import *\n"
LONGER = 60.0  # seconds
SEEDS = (1, 2, 3)


def as_meant(problem: Problem) -> Problem:
    """The problem with `assert a == b, c` read as `assert a == (b, c)`."""

    def read(source: str) -> str:
        tree = ast.parse(source)
        for node in ast.walk(tree):
            if isinstance(node, ast.Assert) and isinstance(node.test, ast.Compare) and node.msg is not None:
                node.test.comparators[-1] = ast.Tuple([node.test.comparators[-1], node.msg], ast.Load())
                node.msg = None
        return ast.unparse(ast.fix_missing_locations(tree))

    scripts = cast("tuple[ScriptTest, ...]", problem.tests)  # what HumanEval and MBPP have
    return replace(problem, tests=tuple(ScriptTest(read(test.source)) for test in scripts))


def runs_through(code: str, problem: Problem) -> bool:
    """Whether the program and its tests, as one plain program, run to the end."""
    tests = [test.source for test in problem.tests if isinstance(test, ScriptTest)]
    whole = "\n".join([problem.preamble, code, *tests, "print('the end')"])
    with Sandbox(workers=1, timeout=LONGER) as sandbox:
        return sandbox.run([(whole, Problem("", "", (StdioTest("", "the end"),)))])[0].passed


def explanation(row: dict[str, Any], label: bool, problem: Problem) -> str:
    """The reason why verdict and label differ, as far as running the program again shows it."""
    if row["flaky"]:
        return "passes under one seed and not under another"
    if row["status"] != "ok":
        return f"the sample is not a program ({row['status']})"

    def passes(problem: Problem, seed: int = 0) -> bool:
        with Sandbox(workers=1, timeout=LONGER, seed=seed) as sandbox:
            return sandbox.run([(row["code"], problem)])[0].passed

    if not label:
        again = all(passes(problem, seed) for seed in SEEDS) and runs_through(row["code"], problem)
        return "labelled wrong, passes all tests in either way and under every seed" if again else "unexplained"
    if passes(problem):
        return "passes with more time"
    if passes(replace(problem, preamble=IMPORTS + problem.preamble)):
        return "passes with imports that it lacks"
    if passes(as_meant(problem)):
        return "passes the tests as they were meant, not as they are written"
    if problem.entry_point not in row["code"]:
        return "labelled right, does not define the function"
    return "unexplained"


def compared(rollouts: Path, verdicts: Path) -> Iterator[tuple[dict[str, Any], bool]]:
    """The row of each verdict and the label of its rollout; line n of both files is of the same rollout."""
    with rollouts.open(encoding="utf-8") as rollout_lines, verdicts.open(encoding="utf-8") as verdict_lines:
        for line, pair in enumerate(zip(rollout_lines, verdict_lines, strict=True), start=1):
            rollout, row = map(json.loads, pair)
            if rollout["completion"] != row["completion"]:
                sys.exit(f"line {line}: {verdicts} is not about {rollouts}")
            yield row, bool(rollout["label"])


def main() -> None:
    """Print the differences and the JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rollouts", type=Path)
    parser.add_argument("verdicts", type=Path)
    parser.add_argument("--tests", nargs="+", required=True)
    parser.add_argument("--without", nargs="*", default=[])
    parser.add_argument("--min-agreement", type=float, default=0.995)
    arguments = parser.parse_args()
    problems = {problem.id: problem for path in arguments.tests for problem in read_problems(path)}
    agree: dict[str, Counter[bool]] = {}
    explained: Counter[str] = Counter()
    for row, label in compared(arguments.rollouts, arguments.verdicts):
        if row["source"] in arguments.without:
            continue
        name = f"{row['source']} on {row['problem_id'].partition('/')[0]}"
        agree.setdefault(name, Counter())[row["passed"] is label] += 1
        if row["passed"] is not label:
            why = explanation(row, label, problems[row["problem_id"]])
            explained[why] += 1
            print(f"{row['problem_id']} {row['source']}: {why}", flush=True)
    total = sum(agree.values(), Counter())
    share = total[True] / total.total()
    by_source = {name: f"{counts[True]} of {counts.total()}" for name, counts in agree.items()}
    result = {"rows": total.total(), "agree": total[True], "share": round(share, 5), "by_source": by_source}
    print(json.dumps({**result, "explained": explained}))
    sys.exit(share < arguments.min_agreement)


if __name__ == "__main__":
    main()
