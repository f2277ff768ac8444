"""The scores that tests compare with. Torch enters inside: the plan of rows is also tested where it is not installed."""

from pathlib import Path

import pytest

from codescaler_plugin import load_scorer


@pytest.fixture(scope="module")
def group_scores(tiny_rm_dir: Path) -> list[float]:
    """Of `GROUP`, each item alone."""
    from tests.scoring.programs import GROUP

    scorer = load_scorer(str(tiny_rm_dir), cache_size=0)
    scores = [score for item in GROUP for score in scorer.score([item])]
    assert len(set(scores)) == 7
    return scores


@pytest.fixture(scope="module")
def expected(tiny_rm_dir: Path) -> list[float]:
    """Of `ITEMS`, each alone through the model as transformers gives it."""
    from tests.scoring.programs import plain_logits

    logits = plain_logits(tiny_rm_dir)
    assert max(logits) - min(logits) > 0.1, "items must differ for a mix-up to show"
    return logits
