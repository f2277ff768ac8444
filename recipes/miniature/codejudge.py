"""LLM-written answers that no one here trained on: makes `data/codejudge.jsonl.gz`, which `measure.py` reads.

    python recipes/miniature/codejudge.py --codejudge python.jsonl --humaneval HumanEval.jsonl.gz

`python.jsonl` is that of CodeJudge (github.com/VichyTong/CodeJudge, Apache-2.0): one answer to each of 164 problems,
with what its tests said. HumanEval (github.com/openai/human-eval, MIT) gives the right program beside it.
"""

import argparse
import gzip
import json
from pathlib import Path

OUTPUT = Path(__file__).parent / "data" / "codejudge.jsonl.gz"


def main() -> None:
    """Read both, write one row for each answer."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--codejudge", type=Path, required=True)
    parser.add_argument("--humaneval", type=Path, required=True)
    arguments = parser.parse_args()
    with gzip.open(arguments.humaneval, "rt", encoding="utf-8") as lines:
        problems = {row["task_id"].rpartition("/")[2]: row for row in map(json.loads, lines)}
    rows = []
    for line in arguments.codejudge.read_text(encoding="utf-8").splitlines():
        answer = json.loads(line)
        number = answer["task_id"].rpartition("/")[2]
        right = problems[number]
        rows.append(
            {
                "problem_id": right["task_id"],
                "problem": answer["prompt"],
                "code": answer["prompt"] + answer["generation"],
                "passed": str(answer["passed"]) == "True",
                "right": right["prompt"] + right["canonical_solution"],
            }
        )
    rows.sort(key=lambda row: int(row["problem_id"].rpartition("/")[2]))
    with OUTPUT.open("wb") as raw, gzip.GzipFile("", mode="wb", fileobj=raw, mtime=0) as file:
        file.writelines(json.dumps(row).encode() + b"\n" for row in rows)
    print(f"{len(rows)} answers, {sum(row['passed'] for row in rows)} right: {OUTPUT}")


if __name__ == "__main__":
    main()
