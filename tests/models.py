"""Models that only tests need; the others are in `codescaler_plugin.testing`."""

from pathlib import Path

from transformers import BertConfig, BertForSequenceClassification

from codescaler_plugin.testing import TINY_SIZES, save_tiny_model, tiny_vocabulary


def save_encoder(folder: Path) -> Path:
    """A BERT with one label."""
    config = BertConfig(**tiny_vocabulary(), **TINY_SIZES, num_labels=1)
    return save_tiny_model(folder, lambda: BertForSequenceClassification(config))
