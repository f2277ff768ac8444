"""A reward model that OpenRLHF's train_rm saved -> a directory that this package, transformers and vLLM load as it is.

Hardware: CPU with memory for the weights. Versions: checkpoints of OpenRLHF 0.4 to 0.11.2.

    python recipes/openrlhf/load_rm.py runs/rm/openrlhf runs/rm/model

What is put right (openrlhf 0.11.2, `models/model.py`, `trainer/rm_trainer.py`): `architectures` names a class of the
host and `num_labels` is missing, so that transformers makes a head of two labels; the head may have another name
(`value_head` in 0.4); the host scores at EOS, so the template here ends there, without the line end of Qwen's. `mean`
and `std` of evaluation are taken out: the host reads them from memory that is not set (0.11.2), and what they would do
is `CODESCALER_OFFSET` and `CODESCALER_TEMPERATURE`, which are printed. Nothing to override but --head.
"""

import argparse
import json
import sys
from pathlib import Path

from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer

from codescaler_plugin.data.outputs import write_text
from codescaler_plugin.errors import CodeScalerError, ConfigError
from codescaler_plugin.pretrained import pretrained


def convert(source: Path, target: Path, head: str | None = None) -> dict[str, float]:
    """Write the directory; return mean and std of the host's evaluation, empty if there was none."""
    config = pretrained(AutoConfig, source)
    prefix: str = head if head else getattr(config, "value_head_prefix", "score")
    statistics = {name: getattr(config, name) for name in ("mean", "std") if hasattr(config, name)}
    for name in ("mean", "std", "value_head_prefix"):
        if hasattr(config, name):
            delattr(config, name)
    config.num_labels = 1
    tokenizer = pretrained(AutoTokenizer, source)
    config.pad_token_id = tokenizer.pad_token_id if config.pad_token_id is None else config.pad_token_id
    kind = AutoModelForSequenceClassification._model_mapping[type(config)]
    config.architectures = [kind.__name__]
    tokenizer.chat_template = "{%- filter trim -%}" + str(tokenizer.chat_template) + "{%- endfilter -%}"

    target.mkdir(parents=True, exist_ok=True)
    files = sorted(source.glob("*.safetensors"))
    if not files:
        raise ConfigError(f"{source} holds no *.safetensors: expected what train_rm saved in --ckpt.output_dir")
    heads = 0
    for file in files:
        weights = load_file(file)
        renamed = {_renamed(name, prefix): weight.contiguous() for name, weight in weights.items()}
        heads += "score.weight" in renamed
        save_file(renamed, target / file.name, metadata={"format": "pt"})
    if heads != 1:
        raise ConfigError(f"{source} has no head {prefix}.weight: name it with --head")
    index = source / "model.safetensors.index.json"
    if index.is_file():
        read = json.loads(index.read_text())
        read["weight_map"] = {_renamed(name, prefix): file for name, file in read["weight_map"].items()}
        write_text(target / index.name, json.dumps(read))
    config.save_pretrained(target)
    tokenizer.save_pretrained(target)
    return statistics


def _renamed(name: str, head: str) -> str:
    return name.replace(f"{head}.", "score.", 1) if name.startswith(f"{head}.") else name


def main() -> None:
    """Convert, load once, say what to set."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path)
    parser.add_argument("target", type=Path)
    parser.add_argument("--head", help="name of the head; default: as the checkpoint says, else score")
    arguments = parser.parse_args()
    statistics = convert(arguments.source, arguments.target, arguments.head)
    print(f"wrote {arguments.target}")
    if statistics:
        print(
            f"to normalise scores as the host means to: CODESCALER_OFFSET={statistics['mean']} "
            f"CODESCALER_TEMPERATURE={statistics['std']}"
        )


if __name__ == "__main__":
    try:
        main()
    except (CodeScalerError, OSError) as error:  # OSError: how transformers says that there is no such model
        sys.exit(f"error: {error}")
