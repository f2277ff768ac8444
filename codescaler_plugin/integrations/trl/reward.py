"""CodeScaler as a TRL reward function, for every trainer that takes `reward_funcs` (GRPO, RLOO, online DPO ...).

TRL 1.9 to 1.16 calls it with keywords, once per generation batch and process, and leaves a completion with the reward
None out. This module does not import trl.
"""

import logging
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, pstdev
from time import perf_counter
from typing import Any

from codescaler_plugin.config import CodeScalerConfig
from codescaler_plugin.errors import ConfigError, DataError, ScorerError
from codescaler_plugin.integrations.trl.compat import gathered
from codescaler_plugin.pipeline import CodeScaler
from codescaler_plugin.records import Judgement, Status
from codescaler_plugin.scoring import Scorer
from codescaler_plugin.scoring.spec import MODEL_SETTINGS
from codescaler_plugin.text.messages import Text, has_text

logger = logging.getLogger(__name__)

_POOR_CALLS = 3

LogMetric = Callable[[str, float], None]
LogExtra = Callable[[str, list[Any]], None]
Observer = Callable[[Sequence[Text], Sequence[Judgement], LogMetric | None], None]
"""Called after each call of a reward with the problems, their judgements, and `log_metric` if the host gave one."""


@dataclass
class PoorCalls:
    """Counts the calls in a row that left more than a share `limit` of their programs without a reward."""

    limit: float
    _count: int = 0

    def excess(self, missing: int, programs: int) -> str:
        """Count a call; returns the excess in words after three in a row, else an empty string."""
        self._count = self._count + 1 if missing > self.limit * programs else 0
        if self._count < _POOR_CALLS:
            return ""
        self._count = 0
        return f"more than max_unscored={self.limit:g} for {_POOR_CALLS} calls in a row"


def problems_in(prompts: Sequence[Text], columns: Mapping[str, Any], column: str | None) -> Sequence[Text]:
    """The n problems of a call: the values of a dataset column, or the n prompts if `column` is None."""
    if column is None:
        return prompts
    if column not in columns:
        known = ", ".join(sorted(columns))
        raise DataError(f"problem_column {column!r} is not in the dataset: its columns are {known}")
    values: Sequence[Text] = columns[column]
    return values


class CodeScalerReward:  # a class, not a closure: async trainers pickle the reward into a spawned process
    r"""Reward for `GRPOTrainer(reward_funcs=[CodeScalerReward()])`.

    The reward of a completion is 0 unless it holds exactly one valid program, in (0, ∞) for a valid program, and None
    if the reward model failed twice or the prompt holds no problem. It is never NaN or infinite. GRPO and RLOO leave a
    completion with None out. OnlineDPO reads None as 0, so use `softplus` or `sigmoid` there: with these, such a
    completion is never preferred to a scored one. The model loads on the first call, even if no completion of it is
    valid, so a wrong name ends a training at once.

    Training does not continue without rewards. The reward raises if the model cannot be loaded or reached on the first
    call, if it fails on every program of the first call with any, or if more than `max_unscored` of the programs have
    no score in three calls in a row.

    Args:
        model: hub id, directory, server, or `builtin`. The default is `CODESCALER_MODEL`, else the paper's 8B model.
        scorer: a `Scorer` to use instead of a model.
        problem_column: dataset column of the problem. The default is the last user turn of the prompt.
        name: name in the logs (`rewards/<name>/mean`). TRL merges equal names, so give each instance its own.
        **config: other fields of `CodeScalerConfig`.

    Raises:
        ConfigError: here, an unknown setting or `CODESCALER_*` variable, or a setting of the model beside `scorer`;
            on the first call, a model that cannot be used.

    Example:
        >>> reward = CodeScalerReward(model="builtin")
        >>> completions = ["```python\ndef solve(n):\n    return n + 1\n```", "I cannot."]
        >>> valid, invalid = reward(prompts=["Write solve(n): add one."] * 2, completions=completions)
        >>> valid > 0, invalid
        (True, 0.0)
    """

    def __init__(
        self,
        model: str | None = None,
        *,
        scorer: Scorer | None = None,
        problem_column: str | None = None,
        name: str | None = None,
        **config: Any,
    ) -> None:
        given = {"model": model, **config}
        for setting in ("model", *MODEL_SETTINGS):
            if scorer is not None and given.get(setting) is not None:
                raise ConfigError(f"{setting} would have no effect with a scorer: give one of the two")
        settings = CodeScalerConfig.from_env(has_scorer=scorer is not None, problem_column=problem_column, **given)
        settings.check_host("trl")
        self.scaler = CodeScaler(scorer, config=settings)
        self.__name__ = name or "codescaler_reward"
        self.observers: list[Observer] = []
        self._has_loaded = False
        self._has_scored = False
        self._has_warned = False
        self._poor_calls = PoorCalls(settings.max_unscored)

    def __getstate__(self) -> dict[str, Any]:  # observers and counts belong to this process
        fresh = {"_has_loaded": False, "_has_scored": False, "_has_warned": False}
        return {**self.__dict__, **fresh, "observers": [], "_poor_calls": PoorCalls(self.scaler.config.max_unscored)}

    def __call__(
        self,
        prompts: Sequence[Text],
        completions: Sequence[Text],
        *,
        log_metric: LogMetric | None = None,
        log_extra: LogExtra | None = None,
        **columns: Any,  # TRL passes every dataset column, completion_ids, trainer_state ...
    ) -> list[float | None]:
        """The rewards of n completions, in order. Other keyword arguments are dataset columns and are ignored.

        `log_metric` gets the share of each status, the mean and standard deviation of the raw scores, the number of
        completions without a score, and the seconds. `log_extra` gets the columns `<name>/status`, `<name>/score`
        and `<name>/explanation` of the completions table.

        Raises:
            DataError: a prompt or completion has the wrong form, or the problem column is missing.
            ConfigError: the model cannot be used.
            ScorerError: the first call reached no server; no program of the first call with any was scored; or too few
                were scored in three calls in a row, see the class.
        """
        problems = problems_in(prompts, columns, self.scaler.config.problem_column)
        start = perf_counter()
        judgements = self.scaler.judge(problems, completions, prompts=None if problems is prompts else prompts)
        self._check_scored(
            [judgement for judgement, problem in zip(judgements, problems, strict=True) if has_text(problem)]
        )
        if log_metric is None and not self._has_warned and any(judgement.reward is None for judgement in judgements):
            self._has_warned = True
            logger.warning(
                "%s: a sample has no score and gets None. OnlineDPOTrainer, and perhaps other trainers without "
                "log_metric, reads None as 0: with shaping=%r %s",
                self.__name__,
                self.scaler.config.shaping,
                "such a sample may be preferred to valid ones; take softplus or sigmoid"
                if self.scaler.config.shaping not in ("softplus", "sigmoid")
                else "no such sample is preferred to a scored one",
            )
        seconds = perf_counter() - start
        if log_metric is not None:
            for metric, value in _metrics(judgements, seconds).items():
                log_metric(f"{self.__name__}/{metric}", value)
        if log_extra is not None:
            log_extra(f"{self.__name__}/status", [str(judgement.status) for judgement in judgements])
            log_extra(f"{self.__name__}/score", [judgement.score for judgement in judgements])
            log_extra(f"{self.__name__}/explanation", [judgement.explanation for judgement in judgements])
        for observe in self.observers:
            observe(problems, judgements, log_metric)
        return [judgement.reward for judgement in judgements]

    def _check_scored(self, judgements: Sequence[Judgement]) -> None:
        """Raise if the training would continue without rewards."""
        valid = [judgement for judgement in judgements if judgement.status is Status.OK]
        if not valid and not self._has_loaded:  # no program has made the model load; a custom scorer may have none
            getattr(self.scaler.scorer, "ensure_loaded", lambda: None)()
        self._has_loaded = True
        if not valid:
            return
        failures = [judgement.failure for judgement in valid if judgement.failure is not None]
        outage = next((failure for failure in failures if failure.kind.is_outage), None)
        if not self._has_scored and len(failures) == len(valid) and outage is not None:
            raise ScorerError(
                f"{self.__name__}: the reward model scored none of the {len(valid)} valid programs of its first call. "
                f"{outage.reason}"
            )
        self._has_scored |= len(failures) < len(valid)
        if excess := self._poor_calls.excess(len(failures), len(valid)):
            raise ScorerError(
                f"{self.__name__}: {len(failures)} of {len(valid)} valid programs got no score, {excess}. The model "
                f"is {self.scaler.config.model}. The last error: {failures[-1].reason}. Mend that, or set "
                "max_unscored=1 to go on without these samples"
            )


class _LazyReward:
    """`codescaler_plugin.codescaler_reward`: a `CodeScalerReward` for TRL's command line, which cannot construct one.

    Its settings are the `CODESCALER_*` variables. It reads them on the first call, after a recipe's `env:` block.

    Example:
        >>> from unittest.mock import patch
        >>> with patch.dict("os.environ", CODESCALER_MODEL="builtin"):
        ...     codescaler_reward(prompts=["Write solve(n)."], completions=["I cannot."])
        [0.0]
    """

    __name__ = "codescaler_reward"

    def __init__(self) -> None:
        self._reward: CodeScalerReward | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {"_reward": None}

    def __call__(self, prompts: Sequence[Text], completions: Sequence[Text], **kwargs: Any) -> list[float | None]:
        """See `CodeScalerReward.__call__`."""
        if self._reward is None:
            self._reward = CodeScalerReward()
        return self._reward(prompts, completions, **kwargs)


codescaler_reward = _LazyReward()


def _metrics(judgements: list[Judgement], seconds: float) -> dict[str, float]:
    """One number per metric, of this process, but mean and deviation of all; the same names in every process."""
    counts = Counter(judgement.status for judgement in judgements)
    scores = [row.score for row in judgements if row.score is not None and row.reward is not None]
    metrics = {f"status/{status}": counts[status] / max(len(judgements), 1) for status in Status}
    metrics["unscored"] = float(counts[Status.OK] - len(scores))
    metrics["seconds"] = seconds
    if all_scores := [score for part in gathered(scores) for score in part]:
        metrics["score/mean"] = fmean(all_scores)
        metrics["score/std"] = pstdev(all_scores)
    return metrics
