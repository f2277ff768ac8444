"""Problems -> rows that OpenRLHF trains on: the prompt asks for one program, the label holds the problem alone.

Hardware: CPU. Versions: OpenRLHF 0.8 to 0.11.2, which read the rows with `input_key` prompt and `label_key` label.

    python recipes/openrlhf/ppo_data.py data/deepcoder/taco/train-*.parquet runs/openrlhf/prompts.jsonl

OpenRLHF has a flag for a text around the problem (`--data.input_template`), but ignores it with
`--data.apply_chat_template`, so the text is put there here; it is that of `recipes/trl/grpo_codescaler.py`. Reads any
files of problems that `codescaler verify --tests` reads; tests are not needed and not kept. The reward model reads
the label. To override: --instruct false, for policies that know problems alone. Expect the number of rows.
train_ppo.sh and train_ppo_0.10.1.sh call this.
"""

import argparse
import json
import sys
from pathlib import Path

from codescaler_plugin.data.outputs import check_folder, check_output, write_output
from codescaler_plugin.data.rollouts import read_problem_texts
from codescaler_plugin.errors import CodeScalerError
from codescaler_plugin.generation.prompts import prompt_of


def main() -> None:
    """Read, write, count."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("problems", nargs="+")
    parser.add_argument("output", type=Path)
    parser.add_argument("--instruct", choices=("true", "false"), default="true")
    arguments = parser.parse_args()
    check_folder(arguments.output.parent)
    check_output(arguments.output, arguments.problems)
    texts = dict.fromkeys(text for path in arguments.problems for text in read_problem_texts(path))
    with write_output(arguments.output) as file:
        for text in texts:
            prompt = prompt_of(text) if arguments.instruct == "true" else text
            file.write(json.dumps({"prompt": prompt, "label": json.dumps({"problem": text})}) + "\n")
    print(f"wrote {arguments.output}: {len(texts)} problems")


if __name__ == "__main__":
    try:
        main()
    except (CodeScalerError, OSError) as error:
        sys.exit(f"error: {error}")
