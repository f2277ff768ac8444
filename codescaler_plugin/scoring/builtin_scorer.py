"""The embedded reward model, with a warning about problems that it was not trained on."""

import logging
import re
from collections.abc import Sequence
from typing import Any

from codescaler_plugin.builtin import MODEL_CARD, REAL_MODEL, REWARD_MODEL
from codescaler_plugin.scoring.transformers_scorer import TransformersScorer

logger = logging.getLogger(__name__)

# The problems that the embedded model was trained on (`recipes/miniature/problems.py`).
_MINIATURE = re.compile(
    r"Write solve\((?:xs|n|s)\)(?:: for|\. From) (?:a list xs of integers|the integers in the list xs|the digits of n|"
    r"the integers from 1 to n|the words of the string s), .+\."
)
_warned = False


class BuiltinScorer(TransformersScorer):
    """`TransformersScorer` of the embedded model. Warns once per process of a problem that is not the miniature's."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(str(REWARD_MODEL), **settings)

    def score(self, items: Sequence[tuple[str, str]]) -> list[float | None]:
        """Return the raw logits of (problem, code) pairs; see `TransformersScorer.score`."""
        global _warned
        if not _warned and not all(_MINIATURE.fullmatch(problem.strip()) for problem, _ in items):
            _warned = True
            logger.warning(  # without the problem: a server writes no bodies to its log
                "builtin is the quickstart's small model, for its own kind of problems, and was given others. On "
                "those it is about as good as chance (%s). Take %s or another reward model of the hub instead, by "
                "`model=` or CODESCALER_MODEL.",
                MODEL_CARD,
                REAL_MODEL,
            )
        return super().score(items)
