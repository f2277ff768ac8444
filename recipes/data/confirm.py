"""Run both sides of every pair again and count the confirmed pairs: chosen passes all tests, rejected does not.

Hardware: CPU; about 50 pairs a second on two cores with HumanEval's tests. Versions: those of the package.

    python recipes/data/confirm.py augmented.jsonl --tests HumanEval.jsonl.gz

Override: `--timeout` (seconds per program; give more than for making the pairs, so that a slow right program does not
count as wrong), `--workers`. Expect each refuted pair on a line of its own, and a last line of JSON: pairs, confirmed,
by kind, without_tests. Exit code 0 if every pair whose problem has tests is confirmed.
"""

import argparse
import json
import sys
from collections import Counter

from codescaler_plugin.data.matching import ProblemIndex
from codescaler_plugin.data.pairs import read_pairs
from codescaler_plugin.data.problems import read_problems
from codescaler_plugin.execution.sandbox import run_tests


def main() -> None:
    """Run all programs and compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pairs")
    parser.add_argument("--tests", action="append", required=True, help="repeatable")
    parser.add_argument("--package", action="append", default=[], help="that programs may import; repeatable")
    parser.add_argument("--timeout", type=float, default=6.0)
    parser.add_argument("--workers", type=int)
    arguments = parser.parse_args()
    given = (problem for path in arguments.tests for problem in read_problems(path))
    problems = ProblemIndex(given, unique_ids=False)
    every = [(pair, problems.find(pair.problem_id, pair.problem)) for pair in read_pairs(arguments.pairs)]
    pairs = [(pair, problem) for pair, problem in every if problem is not None]
    verdicts = run_tests(
        [(code, problem) for pair, problem in pairs for code in (pair.chosen, pair.rejected)],
        timeout=arguments.timeout,
        workers=arguments.workers,
        packages=arguments.package,
    )
    kinds: dict[str, Counter[str]] = {}
    for (pair, _), chosen, rejected in zip(pairs, verdicts[::2], verdicts[1::2], strict=True):
        right, wrong = chosen.passed, rejected.passed
        kinds.setdefault(pair.kind, Counter())["confirmed" if right and not wrong else "refuted"] += 1
        if not right or wrong:
            print(json.dumps({"problem_id": pair.problem_id, "kind": pair.kind, "right": right, "wrong": not wrong}))
    confirmed = sum(counts["confirmed"] for counts in kinds.values())
    result = {"pairs": len(pairs), "confirmed": confirmed, "kinds": kinds, "without_tests": len(every) - len(pairs)}
    print(json.dumps(result))
    sys.exit(confirmed != len(pairs))


if __name__ == "__main__":
    main()
