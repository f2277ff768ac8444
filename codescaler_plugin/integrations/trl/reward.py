"""CodeScaler as a TRL reward function, for every trainer that takes `reward_funcs` (GRPO, RLOO, online DPO ...).

Written against trl 1.16 (`trl/trainer/grpo_trainer.py`, `_calculate_rewards`): called with keywords only, once per
generation batch and process, and free to return None for a sample that is to be left out. It imports no trl.
"""

import logging
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from statistics import fmean, pstdev
from time import perf_counter
from typing import Any

from codescaler_plugin.config import CodeScalerConfig
from codescaler_plugin.errors import ConfigError, DataError, ScorerError
from codescaler_plugin.integrations.trl.ranks import gathered
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
"""Called after each call of a reward with its problems, their judgements, and `log_metric` if the host gave one."""


class PoorCalls:
    """Tells when three calls in a row left more than a share of their programs without a reward.

    Args:
        limit: the share; 1: never.
    """

    def __init__(self, limit: float) -> None:
        self._limit = limit
        self._count = 0

    def excess(self, missing: int, programs: int) -> str:
        """What was too much, for an error, with the call that a count of programs belongs to; empty if nothing was."""
        self._count = self._count + 1 if missing > self._limit * programs else 0
        if self._count < _POOR_CALLS:
            return ""
        self._count = 0
        return f"more than max_unscored={self._limit:g} for {_POOR_CALLS} calls in a row"


def problems_in(prompts: Sequence[Text], columns: Mapping[str, Any], column: str | None) -> Sequence[Text]:
    """The n problems of a call: those of a dataset column, or the n prompts where `column` is None.

    Raises:
        DataError: there is no such column; the message lists those that there are.

    Example:
        >>> problems_in(["Add one. Use a block."], {"problem": ["Add one."]}, "problem")
        ['Add one.']
    """
    if column is None:
        return prompts
    if column not in columns:
        raise DataError(
            f"problem_column {column!r} is not in the dataset: its columns are {', '.join(sorted(columns))}"
        )
    values: Sequence[Text] = columns[column]
    return values


class CodeScalerReward:  # a class, not a closure: async trainers pickle the reward into a spawned process
    """Reward for `GRPOTrainer(reward_funcs=[CodeScalerReward()])`.

    Range: 0 for a completion without exactly one valid program; in (0, ∞) for a valid one; None where the reward
    model failed twice or the prompt holds no problem. Never NaN or infinite. GRPO and RLOO leave a sample with None
    out; OnlineDPO reads None as 0, so that with `softplus` or `sigmoid` it is never preferred to a scored one. The
    model loads on the first call, even if no completion there is valid, so that a wrong name ends a training before it
    has run for hours.

    It does not let a trainer go on without rewards. It raises where the model cannot be loaded or reached on the first
    call, where it fails on every program of the first call that has any, and where more than `max_unscored` of the
    programs have no score in three calls in a row.

    Args:
        model: hub id, directory, server, or `builtin`. Default: `CODESCALER_MODEL`, else the paper's 8B model.
        scorer: a `Scorer` to use instead of a model.
        problem_column: dataset column that holds the problem; default: the last user turn of the prompt.
        name: name in the logs (`rewards/<name>/mean`). Give each of several instances its own, for TRL merges equal
            names.
        **config: other fields of `CodeScalerConfig`.

    Raises:
        ConfigError: here, an unknown setting or `CODESCALER_*` variable, or a setting of the model beside `scorer`;
            on the first call, a model that cannot be used.

    Example:
        >>> reward = CodeScalerReward(model="builtin")
        >>> reward(prompts=["Write solve(n)."], completions=["I cannot."])
        [0.0]
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
        for setting in ("model", *MODEL_SETTINGS):
            value = model if setting == "model" else config.get(setting)
            if scorer is not None and value is not None:
                raise ConfigError(f"{setting} would have no effect with a scorer: give one of the two")
        settings = CodeScalerConfig.from_env(
            has_scorer=scorer is not None, model=model, problem_column=problem_column, **config
        )
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
        """Rewards of n completions; same order. Extra keyword arguments are dataset columns and are ignored.

        With `log_metric`: share of each status, mean and standard deviation of the raw scores, samples without a
        score, seconds. With `log_extra`: columns `<name>/status` and `<name>/score` of the completions table.

        Raises:
            DataError: a prompt or completion of the wrong form, or the problem column is missing.
            ConfigError: the model cannot be used.
            ScorerError: no server was reached on the first call, no program of the first that has any was scored, or
                too few in three calls in a row, see the class.
        """
        problems = problems_in(prompts, columns, self.scaler.config.problem_column)
        start = perf_counter()
        judgements = self.scaler.judge(problems, completions, prompts=None if problems is prompts else prompts)
        with_problem = [one for one, problem in zip(judgements, problems, strict=True) if has_text(problem)]
        self._check_scored(with_problem)
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
        for observe in self.observers:
            observe(problems, judgements, log_metric)
        return [judgement.reward for judgement in judgements]

    def _check_scored(self, judgements: Sequence[Judgement]) -> None:
        """Raise where going on would train on nothing."""
        valid = [judgement for judgement in judgements if judgement.status is Status.OK]
        if not valid and not self._has_loaded:  # no program has made it load yet; a scorer of others need not know how
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
    """What `codescaler_plugin.codescaler_reward` is: TRL's CLI takes the attribute as it is and never calls it first.

    Configured by `CODESCALER_*` alone, read on the first call, so that a recipe's `env:` block arrives in time.
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
    """One number per metric, the same names in every process. Shares are of the completions of this one.

    Mean and deviation are of the scores of all processes, and missing where none has any.
    """
    counts = Counter(judgement.status for judgement in judgements)
    scores = [one.score for one in judgements if one.score is not None and one.reward is not None]
    metrics = {f"status/{status}": counts[status] / max(len(judgements), 1) for status in Status}
    metrics["unscored"] = float(counts[Status.OK] - len(scores))
    metrics["seconds"] = seconds
    if together := [score for part in gathered(scores) for score in part]:
        metrics["score/mean"] = fmean(together)
        metrics["score/std"] = pstdev(together)
    return metrics
