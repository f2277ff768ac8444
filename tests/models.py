"""Models and changes to their folders that only tests need; other models are in `codescaler_plugin.testing`."""

import json
from pathlib import Path
from typing import Any

from transformers import BertConfig, BertForSequenceClassification

from codescaler_plugin.testing import TINY_SIZES, save_tiny_model, tiny_vocabulary


def save_encoder(folder: Path) -> Path:
    """A BERT with one label."""
    config = BertConfig(**tiny_vocabulary(), **TINY_SIZES, num_labels=1)
    return save_tiny_model(folder, lambda: BertForSequenceClassification(config))


def change_config(folder: Path, **changes: Any) -> None:
    file = folder / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


def add_code(folder: Path) -> None:
    """A folder whose code leaves a mark when it is imported."""
    change_config(
        folder, model_type="strange", auto_map={"AutoConfig": "code.C", "AutoModelForSequenceClassification": "code.M"}
    )
    (folder / "code.py").write_text(
        f"open({str(folder / 'MARK')!r}, 'w')\nfrom transformers import PretrainedConfig\n"
    )
