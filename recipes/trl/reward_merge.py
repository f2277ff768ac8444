"""The adapter that a run with PEFT saved -> a whole reward model, for `codescaler evaluate`, `serve` and the others.

Hardware: CPU with memory for the weights. Versions: peft 0.21, transformers 5.23.

    python recipes/trl/reward_merge.py runs/smollm2/reward runs/smollm2/merged

Nothing to override: the base model is the one that the adapter names. Expect a folder with config, weights and the
tokenizer that was trained with.
"""

import argparse
import sys
from pathlib import Path

from peft import AutoPeftModelForSequenceClassification
from transformers import AutoTokenizer


def merge(adapter: Path, output: Path) -> None:
    """Write the base model with the adapter's changes in its weights, and its trained head."""
    if not (adapter / "adapter_config.json").is_file():
        sys.exit(f"error: {adapter} holds no adapter_config.json: give the --output_dir of a run with use_peft")
    tokenizer = AutoTokenizer.from_pretrained(adapter, trust_remote_code=False)
    model = AutoPeftModelForSequenceClassification.from_pretrained(
        adapter, num_labels=1, trust_remote_code=False
    ).merge_and_unload()
    model.config.pad_token_id = tokenizer.pad_token_id
    model.save_pretrained(output)
    tokenizer.save_pretrained(output)


def main() -> None:
    """Read the arguments."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("adapter", type=Path)
    parser.add_argument("output", type=Path)
    arguments = parser.parse_args()
    merge(arguments.adapter, arguments.output)
    print(f"wrote {arguments.output}")


if __name__ == "__main__":
    main()
