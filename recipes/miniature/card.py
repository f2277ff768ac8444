"""Stage 6: make a run's models the package's embedded ones, with their problems and their model card."""

import json
import re
import shutil
from pathlib import Path
from random import Random
from typing import Any

from rollouts import distinct_problems

from codescaler_plugin.builtin import HELD_OUT_PROBLEMS, MODEL_CARD, POLICY, REWARD_MODEL, TRAIN_PROBLEMS
from codescaler_plugin.data.outputs import write_text

TRAIN_COUNT = 1024
HELD_OUT_COUNT = 256
LIMIT_MB = 16
TEMPLATE = Path(__file__).with_name("model_card_template.md")


def install(policy: Path, reward_model: Path, numbers: dict[str, Any]) -> None:
    """Copy both models, write the problems of the quickstart and the model card.

    Raises:
        ValueError: the two models are larger than the repository allows.
    """
    for source, target in ((policy, POLICY), (reward_model, REWARD_MODEL)):
        shutil.rmtree(target, ignore_errors=True)
        shutil.copytree(source, target, ignore=shutil.ignore_patterns("trainer"))
        # transformers 5 writes a class that 4.56, the oldest release that TRL takes, does not have.
        tokenizer = json.loads((target / "tokenizer_config.json").read_text(encoding="utf-8"))
        tokenizer |= {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "model_input_names": ["input_ids", "attention_mask"],
        }
        write_text(target / "tokenizer_config.json", json.dumps(tokenizer, indent=2) + "\n")
    size = sum(path.stat().st_size for folder in (POLICY, REWARD_MODEL) for path in folder.iterdir()) / 1e6
    if size > LIMIT_MB:
        raise ValueError(f"the embedded models take {size:.1f} MB: the limit is {LIMIT_MB}")
    write_problems()
    write_text(MODEL_CARD.with_name("measurements.json"), json.dumps(numbers, indent=2) + "\n")
    write_card(numbers)


def write_problems() -> None:
    """Problems without tests for training, and held-out ones with tests for measuring."""
    TRAIN_PROBLEMS.parent.mkdir(exist_ok=True)
    train = distinct_problems(Random("quickstart train"), TRAIN_COUNT, held_out=False)
    _write(TRAIN_PROBLEMS, [{"problem": one.problem} for one in train])
    held_out = distinct_problems(Random("quickstart held out"), HELD_OUT_COUNT, held_out=True)
    _write(
        HELD_OUT_PROBLEMS,
        [
            {
                "problem": one.problem,
                "composition": one.program.composition,
                "tests": [list(test) for test in one.tests],
            }
            for one in held_out
        ],
    )


def write_card(numbers: dict[str, Any]) -> None:
    """Fill the measured numbers into the card's template.

    Raises:
        ValueError: the template asks for a number that was not measured.
    """
    text = TEMPLATE.read_text(encoding="utf-8")
    for section, values in numbers.items():
        for name, value in values.items():
            text = text.replace(f"{{{section}.{name}}}", str(value))
    missing = re.findall(r"\{[\w ,]+\.[\w ]+\}", text)
    if missing:
        raise ValueError(f"the model card asks for {', '.join(missing)}, which this run did not measure")
    write_text(MODEL_CARD, text)


def _write(path: Path, rows: list[dict[str, Any]]) -> None:
    write_text(path, "".join(json.dumps(row) + "\n" for row in rows))
