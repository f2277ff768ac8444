"""Build `data/real_pairs.jsonl.gz`: right and wrong LLM-written programs for the same MBPP or HumanEval problem.

Run once, by hand, where the sources are; the result is in the repository with its licences beside it:

    python recipes/miniature/real_pairs.py SOURCES

SOURCES holds `ldb/{mbpp,humaneval}/seed-*.jsonl` (LLMDebugger, Apache-2.0) and
`codet/humaneval_codegen16B_labeled_*.jsonl` with `codet/HumanEval_for_code_generation.jsonl` (CodeT, MIT; verdicts by
running HumanEval's tests). Programs are brought to one normal form (`ast.unparse`, docstrings off), so that a model
cannot learn who wrote them from their layout; programs equal in it are one. The split is by problem: one in five is
held out. Nothing is executed here.
"""

import argparse
import ast
import gzip
import json
import zlib
from collections import defaultdict
from pathlib import Path
from random import Random
from typing import Any

PAIRS_PER_PROBLEM = 8
HELD_OUT_SHARE = 5
MAX_CHARS = 1000  # problem and program together: longer ones would take most of the miniature's training time
OUTPUT = Path(__file__).parent / "data" / "real_pairs.jsonl.gz"


def is_held_out(problem_id: str) -> bool:
    """Whether a benchmark problem belongs to the held-out side."""
    return zlib.crc32(problem_id.encode()) % HELD_OUT_SHARE == 0


def fingerprint(code: str) -> str | None:
    """The program without docstrings, comments and layout; None if it is not Python."""
    try:
        tree = ast.parse(code)
    except (SyntaxError, ValueError):
        return None
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef) and ast.get_docstring(node) is not None:
            node.body = node.body[1:] or [ast.Pass()]
    return ast.unparse(ast.fix_missing_locations(tree)) + "\n"


def problem_text(prompt: str, entry_point: str) -> str | None:
    """A prompt that is a signature with a docstring, as text followed by the signature."""
    try:
        tree = ast.parse(prompt)
    except SyntaxError:
        return None
    for node in tree.body:
        if isinstance(node, ast.FunctionDef) and node.name == entry_point:
            text = ast.get_docstring(node)
            return f"{text}\n\ndef {node.name}({ast.unparse(node.args)})" if text else None
    return None


def _read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def collect(sources: Path) -> dict[str, dict[str | bool, Any]]:
    """Per problem id: its text, and the distinct right and wrong programs with their origin."""
    found: dict[str, dict[str | bool, Any]] = defaultdict(lambda: {"problem": None, True: {}, False: {}})

    def add(task: str, problem: str | None, code: str, passed: bool, origin: str) -> None:
        form = fingerprint(code)
        if problem is not None and form is not None and len(problem) + len(form) <= MAX_CHARS:
            found[task]["problem"] = found[task]["problem"] or problem
            found[task][passed].setdefault(form, origin)

    for path in sorted(sources.glob("ldb/*/seed-*.jsonl")):
        origin = path.stem.removeprefix("seed-")
        for row in _read(path):
            add(
                row["task_id"],
                problem_text(row["prompt"], row["entry_point"]),
                row["solution"],
                row["is_solved"],
                origin,
            )
    prompts = {row["task_id"]: row for row in _read(sources / "codet/HumanEval_for_code_generation.jsonl")}
    for path in sorted(sources.glob("codet/humaneval_codegen16B_labeled_*.jsonl")):
        for row in _read(path):
            prompt = prompts[row["task_id"]]
            text = problem_text(prompt["prompt"], prompt["entry_point"])
            for body, result in zip(row["completions"], row["results"], strict=True):
                if result in "PA":  # passes, or runs and answers wrongly
                    add(row["task_id"], text, prompt["prompt"] + body, result == "P", "codegen-16b")
    return found


def main() -> None:
    """Write the pairs and print how many of which source."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sources", type=Path)
    found = collect(parser.parse_args().sources)
    rng, rows = Random(0), []
    for task, candidates in sorted(found.items()):
        pairs = [(right, wrong) for right in candidates[True] for wrong in candidates[False] if right != wrong]
        for right, wrong in rng.sample(pairs, min(PAIRS_PER_PROBLEM, len(pairs))):
            origins = [candidates[True][right], candidates[False][wrong]]
            rows.append(
                {
                    "problem_id": task,
                    "split": "held_out" if is_held_out(task) else "train",
                    "kind": "real",
                    "problem": candidates["problem"],
                    "chosen": right,
                    "rejected": wrong,
                    "origins": origins,
                }
            )
    with OUTPUT.open("wb") as raw, gzip.GzipFile(fileobj=raw, mode="wb", mtime=0) as file:
        file.writelines(json.dumps(row).encode() + b"\n" for row in rows)
    for split in ("train", "held_out"):
        side = [row for row in rows if row["split"] == split]
        print(f"{split}: {len(side)} pairs over {len({row['problem_id'] for row in side})} problems")


if __name__ == "__main__":
    main()
