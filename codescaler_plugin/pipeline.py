"""extract -> render -> score -> shape: the only place where the stages meet.

It knows no host. It does not choose among candidates, and it runs no code.
"""

import logging
from collections.abc import Sequence
from typing import Any, Literal

from codescaler_plugin.config import CodeScalerConfig
from codescaler_plugin.errors import DataError, ScorerError
from codescaler_plugin.extraction import extract_code
from codescaler_plugin.records import Judgement, Status
from codescaler_plugin.scoring import Scorer, load_scorer
from codescaler_plugin.shaping import shape_reward

logger = logging.getLogger(__name__)

Text = str | list[dict[str, Any]]
"""A plain string or a list of chat messages."""


class CodeScaler:
    """The execution-free reward of arXiv 2602.17684 over a reward model of your choice.

    Args:
        scorer: gives raw logits; None: the model that `config` names.
        config: settings; None: defaults and `CODESCALER_*` variables.
    """

    def __init__(self, scorer: Scorer | None = None, *, config: CodeScalerConfig | None = None) -> None:
        self.config = config or CodeScalerConfig.from_env()
        settings = self.config
        self.scorer = scorer or load_scorer(
            settings.model, batch_size=settings.batch_size, max_length=settings.max_length, device=settings.device
        )

    def judge(
        self,
        problems: Sequence[Text],
        completions: Sequence[Text],
        *,
        on_scorer_error: Literal["raise", "none"] = "raise",
    ) -> list[Judgement]:
        """Judge completions, each against its own problem; same length, same order.

        Code that is not usable never reaches the model and is worth 0. An empty batch gives an empty list.

        Args:
            problems: n problems. In a message list the problem is the last user turn; a system turn never is.
            completions: n completions. In a message list the completion is the last assistant turn with content.
            on_scorer_error: `raise`, or `none`: retry once, then log the error and leave reward and score None.

        Raises:
            DataError: lengths differ, or a row is neither a string nor messages; the row is named.
            ScorerError: the model failed and `on_scorer_error` is `raise`.
        """
        if len(problems) != len(completions):
            raise DataError(f"{len(problems)} problems for {len(completions)} completions: expected one each")
        texts = [problem_text(problem, f"problem {row}") for row, problem in enumerate(problems)]
        extractions = [
            extract_code(
                completion_text(completion, f"completion {row}"),
                language=self.config.language,
                policy=self.config.policy,
            )
            for row, completion in enumerate(completions)
        ]
        usable = [row for row, extraction in enumerate(extractions) if extraction.status is Status.OK]
        items = [(texts[row], extractions[row].code) for row in usable]
        scores: list[float | None] = [None] * len(texts)
        for row, score in zip(usable, self._score(items, on_scorer_error), strict=True):
            scores[row] = score
        return [
            Judgement(
                reward=shape_reward(score, extraction.status, shaping=self.config.shaping),
                score=score,
                status=extraction.status,
                code=extraction.code,
            )
            for score, extraction in zip(scores, extractions, strict=True)
        ]

    def _score(self, items: list[tuple[str, str]], on_error: str) -> list[float | None]:
        if not items:
            return []
        if on_error == "raise":
            return self.scorer.score(items)
        for attempt in (1, 2):
            try:
                return self.scorer.score(items)
            except ScorerError:
                logger.exception("scoring %d samples failed, attempt %d of 2", len(items), attempt)
        return [None] * len(items)


def problem_text(problem: Text, offender: str = "problem") -> str:
    """The problem in a prompt: the string as it stands, or the last user turn of a message list."""
    text = _text(problem, "user", offender)
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise DataError(f"{offender} is no valid Unicode text: {error.reason} at {error.start}") from error
    return text


def completion_text(completion: Text, offender: str = "completion") -> str:
    """The text of a completion: the string as it stands, or the last assistant turn that has content."""
    return _text(completion, "assistant", offender)


def _text(value: Text, role: str, offender: str) -> str:
    if isinstance(value, str):
        return value
    if not isinstance(value, list) or not all(isinstance(message, dict) for message in value):
        raise DataError(f"{offender} is {type(value).__name__}: expected a string or a list of messages")
    for message in reversed(value):
        content = message.get("content")
        if message.get("role") == role and content:
            if not isinstance(content, str):
                raise DataError(f"{offender}: content is {type(content).__name__}: expected a string")
            return content
    if role == "assistant":
        return ""  # a generation that was lost on the way is an answer without code, not a broken row
    raise DataError(f"{offender} has no {role} message with content")
