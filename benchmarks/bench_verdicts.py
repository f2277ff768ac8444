"""Measures whether verdicts are right: on published ones, right solutions, and programs that are wrong on purpose.

    pip install numpy sortedcontainers
    python benchmarks/bench_verdicts.py DATA

DATA is a folder of public data: `ldb/{humaneval,mbpp}/seed-*.jsonl` (FloridSleeves/LLMDebugger: a model's program per
problem, with `is_solved`), `humaneval/HumanEval.jsonl.gz`, `mbpp/mbpp.jsonl`, `leetcodedataset/*-test.jsonl.gz`,
`octopack/humanevalpack-python.jsonl`. Files that are not there are skipped, with a line that says so.

- agreement: each published program by the problem's own asserts, and by the same asserts in the form that EvalPlus
  publishes (lists `inputs` and `results`, a comparison of two asserts with NumPy); a difference is printed.
- solutions: all must pass.
- mutants: solutions with one operator, constant or return changed, and HumanEvalPack's bugs, as far as plain Python
  finds them wrong too (in a process of its own, by the same tests); none may pass.

The programs run in the sandbox; mutants of public solutions also run unconfined. The last line of stdout is JSON.
"""

import argparse
import ast
import gzip
import io
import json
import multiprocessing
import random
import signal
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from time import perf_counter
from typing import Any

from codescaler_plugin.data.problems import read_problems
from codescaler_plugin.execution.sandbox import Sandbox
from codescaler_plugin.records import Problem, ScriptTest, Verdict

TIMEOUT = 30.0
SOLUTION = 180.0  # CPU seconds: two of LeetCode's take 27 and 44 in plain Python on a slow core
MUTANTS = 2  # per problem

# Some of the published verdicts are those of programs below these imports, some of the programs alone: tried in turn.
IMPORTS = """\
import heapq, itertools, math, re, typing
from heapq import *
from typing import *
"""

COMPARISON = """\
import numpy as np


def with_floats(value):
    if isinstance(value, float):
        return True
    return isinstance(value, (list, tuple)) and any(map(with_floats, value))


def alike(result, expected, tolerance):
    exact = result == expected
    if tolerance == 0 and with_floats(expected):
        tolerance = 1e-6
    if not exact and tolerance != 0:
        np.testing.assert_allclose(result, expected, atol=tolerance)
    else:
        assert exact
"""


def rows_of(path: Path) -> list[dict[str, Any]]:
    """The rows of a JSONL file, gzipped or not."""
    with gzip.open(path, "rt", encoding="utf-8") if path.suffix == ".gz" else path.open(encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def published_form(problem: Problem) -> Problem | None:
    """A problem whose asserts became two lists and a loop; None if one of them is no comparison of a call."""
    calls = [call for test in problem.tests if isinstance(test, ScriptTest) for call in _calls(test.source, problem)]
    if not calls or None in calls:
        return None
    inputs, results, tolerances = zip(*(call for call in calls if call is not None), strict=True)
    tolerance = max(tolerances)
    body = f"inputs = {list(inputs)!r}\nresults = {list(results)!r}\n"
    loop = "for arguments, expected in zip(inputs, results):\n    alike({}(*arguments), expected, {!r})\n"
    if problem.id.startswith("HumanEval"):
        inner = (body + loop.format("candidate", tolerance)).replace("\n", "\n    ").rstrip()
        source = f"{COMPARISON}\n\ndef check(candidate):\n    {inner}\n\ncheck({problem.entry_point})\n"
    else:
        source = f"{COMPARISON}\n{body}{loop.format(problem.entry_point, tolerance)}"
    return replace(problem, tests=(ScriptTest(source),))


def _calls(source: str, problem: Problem) -> Iterator[tuple[list[Any], Any, float] | None]:
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Assert) and not isinstance(node.test, ast.Constant):
            try:
                yield _call(node.test, {problem.entry_point, "candidate"})
            except (ValueError, AttributeError, TypeError, SyntaxError, MemoryError):
                yield None


def _call(test: Any, names: set[str]) -> tuple[list[Any], Any, float] | None:
    """`f(...) == value` or `abs(f(...) - value) < tolerance`."""
    tolerance = 0.0
    left: Any  # what is no call lacks the attributes that are read here; `_calls` catches that
    call: Any
    if isinstance(test, ast.Compare) and isinstance(test.ops[0], ast.Lt | ast.LtE):
        left = test.left
        if left.func.id != "abs":
            return None
        tolerance, difference = float(ast.literal_eval(test.comparators[0])), left.args[0]
        if not isinstance(difference, ast.BinOp) or not isinstance(difference.op, ast.Sub):
            return None
        call, value = difference.left, difference.right
    elif isinstance(test, ast.Compare) and isinstance(test.ops[0], ast.Eq) and len(test.ops) == 1:
        call, value = test.left, test.comparators[0]
    else:
        return None
    if call.func.id not in names or call.keywords:
        return None
    return [ast.literal_eval(argument) for argument in call.args], ast.literal_eval(value), tolerance


def published(data: Path) -> Iterator[tuple[str, list[tuple[str, Problem]], list[bool]]]:
    """The published programs, by file, with their published verdicts."""
    for path in sorted(data.glob("ldb/*/seed-*.jsonl")):
        rows, problems = rows_of(path), list(read_problems(path))
        name = f"{path.parent.name}/{path.stem.removeprefix('seed-')}"
        pairs = [(_whole(row), problem) for row, problem in zip(rows, problems, strict=True)]
        yield name, pairs, [bool(row["is_solved"]) for row in rows]


def _whole(row: dict[str, Any]) -> str:
    """A published program; some files hold the body alone, which goes below the prompt."""
    solution = row["solution"] or ""
    return solution if f"def {row['entry_point']}" in solution else f"{row['prompt']}\n{solution}"


def solutions(data: Path) -> Iterator[tuple[str, list[tuple[str, Problem]]]]:
    """The solutions that come with problems."""
    code: Callable[[dict[str, Any]], str]
    for pattern, code in (
        ("humaneval/HumanEval.jsonl.gz", lambda row: row["prompt"] + row["canonical_solution"]),
        ("mbpp/mbpp.jsonl", lambda row: row["code"]),
        ("leetcodedataset/*-test.jsonl.gz", lambda row: row["completion"]),
        ("octopack/humanevalpack-python.jsonl", lambda row: row["prompt"] + row["canonical_solution"]),
    ):
        paths = sorted(data.glob(pattern))
        if not paths:
            print(f"skipped: no {pattern} in {data}")
        for path in paths:
            pairs = zip(rows_of(path), read_problems(path), strict=True)
            yield path.name, [(code(row), problem) for row, problem in pairs]


def mutants(pairs: list[tuple[str, Problem]], count: int = MUTANTS) -> list[tuple[str, Problem]]:
    """Programs with one thing changed, the same ones every time."""
    chance = random.Random(0)
    changed = []
    for code, problem in pairs:
        nodes = _changeable(ast.parse(code), problem)
        for index in chance.sample(range(len(nodes)), min(count, len(nodes))):
            tree = ast.parse(code)
            _mutate(_changeable(tree, problem)[index])
            changed.append((ast.unparse(tree), problem))
    return changed


def _changeable(tree: ast.Module, problem: Problem) -> list[ast.AST]:
    """Nodes that can be changed, outside of the preamble's functions: the tests use the preamble's own."""
    provided = {getattr(node, "name", "") for node in ast.parse(problem.preamble).body} - {""}
    own = [statement for statement in tree.body if getattr(statement, "name", None) not in provided]
    return [node for statement in own for node in ast.walk(statement) if _mutate(node, dry=True)]


_SWAPPED: dict[type[Any], Callable[[], Any]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Add,
    ast.Lt: ast.GtE,
    ast.Gt: ast.LtE,
    ast.Eq: ast.NotEq,
}


def _mutate(node: Any, *, dry: bool = False) -> bool:
    operator = node.ops[0] if isinstance(node, ast.Compare) else node.op if isinstance(node, ast.BinOp) else None
    if type(operator) in _SWAPPED:
        changed = _SWAPPED[type(operator)]()
        if not dry and isinstance(node, ast.Compare):
            node.ops[0] = changed
        elif not dry:
            node.op = changed
        return True
    if isinstance(node, ast.Constant) and type(node.value) is int:
        node.value += 0 if dry else 1
        return True
    if isinstance(node, ast.Return) and node.value is not None:
        node.value = node.value if dry else ast.Constant(None)
        return True
    return False


def plain_python(code: str, problem: Problem) -> bool:
    """Whether the same tests pass in one namespace of one plain process."""
    process = multiprocessing.get_context("fork").Process(target=_alone, args=(code, problem))
    process.start()
    process.join(TIMEOUT + 1)
    if process.is_alive():
        process.kill()
        process.join()
    return process.exitcode == 0


def _alone(code: str, problem: Problem) -> None:
    signal.setitimer(signal.ITIMER_REAL, TIMEOUT)
    sys.stdout = sys.stderr = io.StringIO()
    space: dict[str, Any] = {}
    exec(f"{problem.preamble}\n{code}", space)
    for test in problem.tests:
        assert isinstance(test, ScriptTest)
        entry = "Solution().{1}" if problem.entry_point.startswith("Solution.") else "{0}"
        first, _, method = problem.entry_point.partition(".")
        exec(f"candidate = {entry.format(first, method)}\n{test.source}", dict(space))


def agreement(sandbox: Sandbox, data: Path) -> list[dict[str, Any]]:
    """A row per file and form."""
    rows: list[dict[str, Any]] = []
    for name, pairs, solved in published(data):
        converted = [published_form(problem) for _, problem in pairs]
        forms = {
            "asserts": list(zip(pairs, solved, strict=True)),
            "EvalPlus": [
                ((code, problem), right)
                for (code, _), problem, right in zip(pairs, converted, solved, strict=True)
                if problem is not None
            ],
        }
        for form, jobs in forms.items():
            verdicts = sandbox.run([job for job, _ in jobs])
            same = [verdict.passed == right for verdict, (_, right) in zip(verdicts, jobs, strict=True)]
            others = [job for job, is_same in zip(jobs, same, strict=True) if not is_same]
            again = sandbox.run([_with_imports(job) for job, _ in others])
            left = [
                (job, verdict, right)
                for (job, right), verdict in zip(others, again, strict=True)
                if verdict.passed != right
            ]
            count = len(jobs) - len(left)
            rows.append({"file": name, "form": form, "programs": len(jobs), "agree": count, "alone": sum(same)})
            print(f"{name:32} {form:10} {count:5} of {len(jobs):5} agree ({count / len(jobs):.2%})", flush=True)
            for job, verdict, right in left:
                alone, label = plain_python(*_with_imports(job)), "solved" if right else "not solved"
                plain = "passes" if alone else "fails"
                print(f"    {job[1].id}: published {label}, plain Python {plain}: {_text(verdict)}")
                rows[-1]["plain_python_agrees"] = rows[-1].get("plain_python_agrees", 0) + (alone == verdict.passed)
    return rows


def _with_imports(job: tuple[str, Problem]) -> tuple[str, Problem]:
    code, problem = job
    return code, replace(problem, preamble=f"{IMPORTS}\n{problem.preamble}")


def _text(verdict: Verdict) -> str:
    word = "passed" if verdict.passed else verdict.fault or "failed"
    return f"{word}{' in process' if verdict.in_process else ''} {verdict.detail[:90]!r}"


def main() -> None:
    """Print a table, and JSON as the last line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="folder of public data")
    parser.add_argument("--workers", type=int, help="programs at a time; default: one per core")
    parser.add_argument("--parts", nargs="*", default=["agreement", "solutions", "mutants"])
    options = parser.parse_args()
    if not options.data.is_dir():
        print(json.dumps({"skipped": f"{options.data} is no folder"}))
        return
    start = perf_counter()
    result: dict[str, Any] = {}
    with Sandbox(timeout=TIMEOUT, workers=options.workers, packages=("numpy", "sortedcontainers")) as sandbox:
        if "agreement" in options.parts:
            result["agreement"] = agreement(sandbox, options.data)
        kept = list(solutions(options.data)) if {"solutions", "mutants"} & set(options.parts) else []
        if "solutions" in options.parts:
            result["solutions"] = {}
            for name, pairs in kept:
                verdicts = sandbox.run([(code, replace(problem, time_limit=SOLUTION)) for code, problem in pairs])
                passed = sum(verdict.passed for verdict in verdicts)
                result["solutions"][name] = [passed, len(pairs)]
                print(f"{name:44} {passed:5} of {len(pairs):5} solutions pass", flush=True)
                for verdict, (_, problem) in zip(verdicts, pairs, strict=True):
                    if not verdict.passed:
                        print(f"    {problem.id}: {_text(verdict)}")
        if "mutants" in options.parts:
            result["mutants"] = {}
            for name, pairs in kept:
                wrong = mutants(pairs)
                if "humanevalpack" in name:
                    path = next(options.data.glob(f"*/{name}"))
                    bugs = [row["prompt"] + row["buggy_solution"] for row in rows_of(path)]
                    wrong += [(bug, problem) for bug, (_, problem) in zip(bugs, pairs, strict=True)]
                wrong = [job for job in wrong if not plain_python(*job)]
                verdicts = sandbox.run(wrong)
                passed = sum(verdict.passed for verdict in verdicts)
                result["mutants"][name] = [passed, len(wrong)]
                print(f"{name:44} {passed:5} of {len(wrong):5} mutants pass", flush=True)
                for verdict, (code, problem) in zip(verdicts, wrong, strict=True):
                    if verdict.passed:
                        print(f"    {problem.id}: {_text(verdict)}\n{code}")
    result["seconds"] = round(perf_counter() - start, 1)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
