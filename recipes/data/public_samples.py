r"""Make the recipe's rollouts of published samples: 100 of CodeGen-Mono 16B per problem, and those of five models.

Hardware: none to speak of. Versions: those of the package.

    python recipes/data/public_samples.py SOURCES runs/public/rollouts.jsonl
    ROLLOUTS=runs/public/rollouts.jsonl PROBLEMS="SOURCES/humaneval/HumanEval.jsonl.gz SOURCES/mbpp/mbpp.jsonl" \
    EXTRACTION=bare OUTPUT=runs/public bash recipes/data/pairs.sh

SOURCES holds `humaneval/HumanEval.jsonl.gz` (openai/human-eval), `mbpp/mbpp.jsonl` (google-research),
`codet/humaneval_codegen16B_labeled_*.jsonl` (microsoft/CodeT, cut at its stop words, labels by running the tests) and
`ldb/{humaneval,mbpp}/seed-*.jsonl` (FloridSleeves/LLMDebugger). A completion is the bare program, so the extraction is
`bare`. `label` is the verdict of its publisher or of a run of the tests; the package ignores it. Expect
18,720 lines, and half an hour for all of the second command on two cores.
"""

import argparse
import gzip
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any


def _read(path: Path) -> list[dict[str, Any]]:
    opened = gzip.open if path.suffix == ".gz" else open
    with opened(path, "rt", encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def rollouts(sources: Path) -> Iterator[dict[str, Any]]:
    """One row per published program, in the columns that `codescaler verify` reads."""
    prompts = {row["task_id"]: row["prompt"] for row in _read(sources / "humaneval" / "HumanEval.jsonl.gz")}
    for path in sorted((sources / "codet").glob("humaneval_codegen16B_labeled_*.jsonl")):
        for row in _read(path):
            prompt = prompts[row["task_id"]]
            for body, result in zip(row["completions"], row["results"], strict=True):
                yield _row(row["task_id"], prompt, prompt + body, "codegen-16b", result == "P")
    for path in sorted((sources / "ldb").glob("*/seed-*.jsonl")):
        name = path.stem.removeprefix("seed-")
        for row in _read(path):
            solution = row["solution"] or ""
            if path.parent.name == "humaneval" and name == "reflexion":  # these are the bodies of functions
                solution = row["prompt"] + solution
            yield _row(row["task_id"], row["prompt"], solution, name, row["is_solved"])


def _row(task: str, prompt: str, program: str, source: str, right: bool) -> dict[str, Any]:
    return {"problem_id": task, "problem": prompt, "completion": program, "source": source, "label": right}


def main() -> None:
    """Read, write, count."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sources", type=Path)
    parser.add_argument("output", type=Path)
    arguments = parser.parse_args()
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    count = 0
    with arguments.output.open("w", encoding="utf-8") as lines:
        for row in rollouts(arguments.sources):
            lines.write(json.dumps(row) + "\n")
            count += 1
    print(f"wrote {count:,} rollouts to {arguments.output}")


if __name__ == "__main__":
    main()
