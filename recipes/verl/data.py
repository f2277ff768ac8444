"""Problems -> a parquet file that verl trains on, with the problem where its rewards can read it.

Hardware: CPU. Versions: verl 0.9.1 (columns as its `examples/data_preprocess`).

    python recipes/verl/data.py problems.jsonl runs/verl/train.parquet --source deepcoder

Reads any file of problems that `codescaler verify --tests` reads; tests are not needed and not kept. To override:
--source (the name in verl's metrics) and --instruction, which stands behind each problem in the prompt but not in what
the reward model reads. Expect the number of rows.
"""

import argparse
from pathlib import Path

import pyarrow as arrow
import pyarrow.parquet as parquet

from codescaler_plugin.data.outputs import check_folder, check_output, write_output
from codescaler_plugin.data.rollouts import read_problem_texts

INSTRUCTION = "Answer with one Python program in one ```python block."


def rows(texts: list[str], source: str, instruction: str) -> list[dict[str, object]]:
    """One row per problem."""
    return [
        {
            "data_source": source,
            "prompt": [{"role": "user", "content": f"{text}\n\n{instruction}".rstrip()}],
            "ability": "code",
            "reward_model": {"style": "model", "ground_truth": ""},
            "extra_info": {"index": index, "problem": text},
        }
        for index, text in enumerate(texts)
    ]


def main() -> None:
    """Read, write, count."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("problems")
    parser.add_argument("output", type=Path)
    parser.add_argument("--source", default="code")
    parser.add_argument("--instruction", default=INSTRUCTION)
    arguments = parser.parse_args()
    check_folder(arguments.output.parent)
    check_output(arguments.output, [arguments.problems])
    made = rows(read_problem_texts(arguments.problems), arguments.source, arguments.instruction)
    with write_output(arguments.output, binary=True) as file:
        parquet.write_table(arrow.Table.from_pylist(made), file)
    print(f"wrote {arguments.output}: {len(made)} problems")


if __name__ == "__main__":
    main()
