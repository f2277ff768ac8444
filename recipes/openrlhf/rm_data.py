"""Pairs as texts for OpenRLHF's train_rm: rendered as this package will score them.

Hardware: CPU. Versions: OpenRLHF 0.10.2 to 0.11.2, whose `RewardDataset` takes a text without a template, removes line
ends at its end, and makes EOS its last token.

    python recipes/openrlhf/rm_data.py augmented.jsonl runs/rm/data --tokenizer Skywork/Skywork-Reward-V2-Qwen3-8B

To override: --max-length, the tokens of the longer side; a longer pair loses the middle of its problem, its code never
(the host would cut the end of the code). Expect `train.jsonl`, `held_out.jsonl` if pairs are held out, and one line
each on what was left out. train_rm.sh calls this.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from transformers import AutoTokenizer

from codescaler_plugin.data.outputs import check_folder, check_output, write_output
from codescaler_plugin.data.pairs import export_pairs, read_pairs
from codescaler_plugin.errors import CodeScalerError, DataError
from codescaler_plugin.preference.preparation import prepare_preference_dataset
from codescaler_plugin.pretrained import pretrained


def write(pairs: str, output: Path, name: str, max_length: int) -> None:
    """Write both sides of the split."""
    tokenizer = pretrained(AutoTokenizer, name)
    everything = list(read_pairs(pairs))
    check_folder(output)
    for split in ("train", "held_out"):
        check_output(output / f"{split}.jsonl", [pairs])
    for split in ("train", "held_out"):
        part = [pair for pair in everything if (pair.split == "train") == (split == "train")]
        if not part and split == "held_out":
            continue
        rows = prepare_preference_dataset(
            list(export_pairs(part, "trl")),
            tokenizer,
            max_length=max_length,
            language="any",
            name=split,
            min_pairs=2 if split == "train" else 1,
            split=None,
        )
        path = output / f"{split}.jsonl"
        with write_output(path) as file:
            for row in rows:
                file.write(json.dumps({side: _text(row[f"{side}_ids"], tokenizer) for side in _SIDES}) + "\n")
        print(f"wrote {path}: {len(rows)} pairs")


_SIDES = ("chosen", "rejected")


def _text(ids: list[int], tokenizer: Any) -> str:
    """The text of token ids, as the host will read it."""
    text: str = tokenizer.decode(ids, skip_special_tokens=False)
    ended = text.rstrip("\n")
    if not ended.endswith(tokenizer.eos_token):
        raise DataError(
            f"the chat template of {tokenizer.name_or_path} ends a turn with {ended[-12:]!r}, not with its EOS "
            f"{tokenizer.eos_token!r}, which OpenRLHF puts last: set the tokenizer's eos_token to the turn's end"
        )
    return text


def main() -> None:
    """Read the arguments."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pairs")
    parser.add_argument("output", type=Path)
    parser.add_argument("--tokenizer", required=True)
    parser.add_argument("--max-length", type=int, default=4096)
    arguments = parser.parse_args()
    write(arguments.pairs, arguments.output, arguments.tokenizer, arguments.max_length)


if __name__ == "__main__":
    try:
        main()
    except (CodeScalerError, OSError) as error:  # OSError: how transformers says that there is no such model
        sys.exit(f"error: {error}")
