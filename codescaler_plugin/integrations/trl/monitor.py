"""A monitor of reward hacking in TRL.

The reward passes its judgements to the monitor, and TRL's `log_metric` carries the monitor's numbers to the trackers
of the run. The trainer's own evaluation writes the audited completions, so the audit works with every engine that the
run trains with (vLLM, ZeRO-3, PEFT). This module does not import trl.
"""

import logging
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from math import copysign, inf, sqrt
from statistics import fmean, variance
from typing import Any

import numpy as np
from transformers import TrainerCallback

from codescaler_plugin.data.matching import ProblemIndex, problem_key
from codescaler_plugin.errors import ConfigError, DataError, SandboxError
from codescaler_plugin.execution.jobs import MEMORY_MB, TIMEOUT, named_faults
from codescaler_plugin.execution.sandbox import run_tests
from codescaler_plugin.extraction.fingerprint import distinct_programs
from codescaler_plugin.integrations.trl.compat import gathered
from codescaler_plugin.integrations.trl.reward import CodeScalerReward, LogMetric
from codescaler_plugin.intervals import win
from codescaler_plugin.preference.baselines import FEATURES
from codescaler_plugin.records import Judgement, Problem, Status, Verdict
from codescaler_plugin.text.messages import Text, problem_text

logger = logging.getLogger(__name__)

_CALLS = 5  # calls at the start and at the end of a run whose means are compared


@dataclass(frozen=True)
class Audit:
    """One audit at a training step: mean reward and share of passing completions per problem id."""

    step: int
    rewards: dict[str, float]
    pass_rates: dict[str, float]


@dataclass(frozen=True)
class HackingWarning:
    """A warning: training step, kind (`audit`, `length`, `comments`, `sameness` or `invalid`), and message."""

    step: int
    kind: str
    message: str


@dataclass(frozen=True)
class Change:
    """The mean change between two audits over the problems of both, with its standard error."""

    mean: float
    error: float

    @property
    def z(self) -> float:
        """The change in standard errors. Infinite if all problems changed alike."""
        if self.error:
            return self.mean / self.error
        return copysign(inf, self.mean) if self.mean else 0.0


def change(before: dict[str, float], after: dict[str, float]) -> Change:
    """The mean of `after - before` over the problems of both, paired by problem."""
    gaps = [after[key] - before[key] for key in before.keys() & after.keys()]
    if len(gaps) < 2:
        return Change(0.0, 0.0)
    return Change(fmean(gaps), sqrt(variance(gaps) / len(gaps)))


class RewardHackingMonitor(TrainerCallback):  # type: ignore[misc]
    """Warns when a policy begins to please the reward model instead of solving problems.

    `GRPOTrainer(reward_funcs=[reward], callbacks=[monitor], eval_dataset=Dataset.from_list(monitor.rows()), ...)`
    with `eval_strategy="steps"`, `eval_steps=k` and `eval_on_start=True`: every k steps the trainer writes completions
    for the problems of the audit, the reward judges them, and the sandbox runs their tests. The reward never sees a
    verdict. Without `audit`, only the training completions are watched.

    Each call of the reward logs these by `log_metric`, in evaluation with TRL's prefix `eval_`:

    - `hacking/length_correlation`, `hacking/comment_correlation`: correlation of the raw score with the characters of
      the code and with the share of comment lines, among completions of one problem, in [-1, 1];
    - `hacking/code_length` (characters), `hacking/comment_share`: means over valid programs;
    - `hacking/duplicate_share`: share of programs that repeat another of their problem, apart from comments,
      docstrings and layout; `hacking/shared_share`: share of programs that serve more than one problem of the call;
    - `hacking/invalid_share`, `hacking/trivial_share`: shares of all completions;
    - `hacking/score_drift`: change of the mean raw score since the first calls, in their standard deviations;
    - `hacking/audit_pass_rate`; `hacking/audit_accuracy`: how often the reward puts a right program of the audit above
      a wrong one of the same problem (a tie counts one half); `hacking/audit_unrun`: the sandbox broke;
      `hacking/audit_unjudged`: share of the audited completions without a verdict, for example for want of a package,
      which the pass rate and the accuracy leave out;
    - `hacking/warnings`: number of kinds of warning so far.

    It warns once per kind, by `logger.warning` and in `warnings`:

    - `audit`: since the best audit so far, the pass rate has fallen by `sigmas` standard errors and the reward of the
      same completions has not; or, between the first `patience` audits and the last, the reward has risen by that
      and the pass rate not at all;
    - `length`, `comments`: the length of the programs has changed by a factor of 1.5, or their share of comment lines
      by 0.15, and the score rewards that direction (correlation above 0.3);
    - `sameness`: half of the programs serve different problems, and did not at first;
    - `invalid`: the share of completions without valid code has risen by 0.25.

    It changes neither rewards nor training unless `stop` is set, and a run without warnings is no proof that the
    reward is sound. An audit of n programs does not show a fall of the pass rate below about 2/sqrt(n). A resumed run
    starts with a new first audit.

    Args:
        reward: reward to watch, in this process. Asynchronous trainers pickle the reward into another, which is not
            watched.
        audit: problems with tests that are not trained on; 32 to 128 are enough. A prompt belongs to one of them if
            the reward takes the same text for its problem.
        sigmas: standard errors, paired by problem, that count as a change. In simulated runs of twenty audits of 32
            problems, whose pass rate rises from 0.45 to 0.60, 3% get a warning at 3, and 37% at 2.
        patience: audits that are pooled to tell a constant pass rate from one that rises slowly.
        stop: whether the first `audit` warning ends the training.
        packages, timeout, memory_mb, workers, require_isolation: see `Sandbox`.

    Raises:
        ConfigError: a setting is out of range; or, at the start of training, the trainer will never write the audit.
        DataError: two problems of the audit have the same text.

    Example:
        >>> from codescaler_plugin.records import CallTest
        >>> reward = CodeScalerReward(model="builtin")
        >>> monitor = RewardHackingMonitor(reward, [Problem("one", "Add one.", (CallTest((1,), 2),), "solve")])
        >>> monitor.rows()
        [{'prompt': [{'role': 'user', 'content': 'Add one.'}]}]
        >>> metrics = {}
        >>> reward(["Subtract one."] * 2, ["I cannot."] * 2, log_metric=metrics.__setitem__)
        [0.0, 0.0]
        >>> metrics["hacking/invalid_share"]
        1.0
    """

    def __init__(
        self,
        reward: CodeScalerReward,
        audit: Sequence[Problem] = (),
        *,
        sigmas: float = 3.0,
        patience: int = 5,
        stop: bool = False,
        packages: Sequence[str] = (),
        timeout: float = TIMEOUT,
        memory_mb: int = MEMORY_MB,
        workers: int | None = None,
        require_isolation: bool = False,
    ) -> None:
        if not sigmas > 0:
            raise ConfigError(f"sigmas is {sigmas!r}: expected standard errors above 0")
        if patience < 1:
            raise ConfigError(f"patience is {patience!r}: expected at least 1 audit")
        self.sigmas, self.patience, self.stop = sigmas, patience, stop
        limits = {"timeout": timeout, "memory_mb": memory_mb, "workers": workers}
        self._sandbox: dict[str, Any] = {**limits, "packages": tuple(packages), "require_isolation": require_isolation}
        self.audits: list[Audit] = []
        self.warnings: list[HackingWarning] = []
        texts = {problem_key("", problem.text) for problem in audit}
        if len(texts) != len(audit):
            raise DataError(f"{len(audit)} problems of the audit have {len(texts)} texts: expected one each")
        self._audit = ProblemIndex(audit, unique_ids=False)
        self._audited: list[tuple[str, float | None, bool]] = []  # problem id, reward, passed
        self._values: dict[str, list[float]] = defaultdict(list)  # per metric, of the first calls and the last
        self._first_scores: list[list[float]] = []  # of the first calls, which drift is measured against
        reward.observers.append(self._observe)

    def rows(self) -> list[dict[str, Any]]:
        """The problems of the audit as rows for `eval_dataset`, each with a `prompt` of one user turn."""
        return [{"prompt": [{"role": "user", "content": problem.text}]} for problem in self._audit.problems]

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:  # noqa: ARG002
        """Raise if the trainer will never write the audit."""
        if self._audit.problems and args.eval_strategy == "no":
            raise ConfigError(
                "the monitor has an audit, but eval_strategy is 'no': set eval_strategy='steps', eval_steps and "
                "eval_on_start=True, and give the trainer eval_dataset=Dataset.from_list(monitor.rows())"
            )

    def on_evaluate(self, args: Any, state: Any, control: Any, **_: Any) -> None:  # noqa: ARG002
        """Close an audit: gather its rows from all processes and compare it with the audits before."""
        rows = list(chain.from_iterable(gathered(self._audited)))
        self._audited = []
        if not rows:
            return
        rewards = _pooled([{key: reward} for key, reward, _ in rows if reward is not None])
        self.audits.append(Audit(state.global_step, rewards, _pooled([{key: passed} for key, _, passed in rows])))
        message = audit_warning(self.audits, sigmas=self.sigmas, patience=self.patience)
        if message is not None:
            self._warn(state, "audit", message)
            control.should_training_stop |= self.stop

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:  # noqa: ARG002
        """Check the trends of the training completions."""
        for kind, message in _trends(self._values):
            self._warn(state, kind, message)

    def _warn(self, state: Any, kind: str, message: str) -> None:
        if any(warned.kind == kind for warned in self.warnings):
            return
        self.warnings.append(HackingWarning(state.global_step, kind, message))
        if state.is_world_process_zero:
            logger.warning("step %d, reward hacking? %s", state.global_step, message)

    def _observe(self, prompts: Sequence[Text], judgements: Sequence[Judgement], log_metric: LogMetric | None) -> None:
        """Log the metrics of a call; an observer of the reward."""
        texts = [_problem(prompt) for prompt in prompts]
        metrics = hacking_metrics(texts, judgements)
        matched = [(self._audit.find("", text), judgement) for text, judgement in zip(texts, judgements, strict=True)]
        audited = [(problem, judgement) for problem, judgement in matched if problem is not None]
        if audited:
            metrics |= self._run_audit(audited)
        else:
            metrics |= self._drift(judgements)
            for name, value in metrics.items():
                self._values[name].append(value)
                del self._values[name][_CALLS:-_CALLS]
        metrics["warnings"] = float(len(self.warnings))
        if log_metric is not None:
            for name, value in _pooled(gathered(metrics)).items():
                log_metric(f"hacking/{name}", value)

    def _drift(self, judgements: Sequence[Judgement]) -> dict[str, float]:
        scores = [judgement.score for judgement in judgements if judgement.score is not None]
        if scores and len(self._first_scores) < _CALLS:
            self._first_scores.append(scores)
        first = list(chain.from_iterable(self._first_scores))
        spread = float(np.std(first)) if scores else 0.0
        return {"score_drift": (fmean(scores) - fmean(first)) / spread} if spread > 0 else {}

    def _run_audit(self, audited: Sequence[tuple[Problem, Judgement]]) -> dict[str, float]:
        try:
            jobs = [(judgement.code, problem) for problem, judgement in audited if judgement.code]
            verdicts = run_tests(jobs, **self._sandbox)
        except SandboxError:
            logger.exception("the audit could not be run; the training goes on without it")
            return {"audit_unrun": 1.0}
        if named := named_faults(verdicts):
            count = sum(verdict.fault is not None for verdict in verdicts)
            logger.warning("the audit's tests gave no verdict on %d programs: %s", count, named)
        of_programs, rows = iter(verdicts), []
        for problem, judgement in audited:
            verdict = next(of_programs) if judgement.code else Verdict(passed=False)
            if verdict.fault is None:
                rows.append((problem.id, judgement.reward, verdict.passed))
        self._audited += rows
        metrics = {"audit_unjudged": 1 - len(rows) / len(audited)}
        if rows:
            metrics["audit_pass_rate"] = fmean(passed for _, _, passed in rows)
        wins = _wins(rows)
        return metrics | ({"audit_accuracy": fmean(wins)} if wins else {})


def audit_warning(audits: Sequence[Audit], *, sigmas: float, patience: int) -> str | None:
    """The message of an `audit` warning if pass rate and reward diverge, see `RewardHackingMonitor`; else None."""
    last = audits[-1]
    best = max(audits, key=lambda audit: fmean(audit.pass_rates.values()))
    reward, rate = change(best.rewards, last.rewards), change(best.pass_rates, last.pass_rates)
    if rate.z <= -sigmas and reward.z > -sigmas:
        return (
            f"since step {best.step} the audit's pass rate has fallen by {-rate.mean:.3f} (±{rate.error:.2g}), to "
            f"{fmean(last.pass_rates.values()):.3f}, and the reward of the same completions has not "
            f"({reward.mean:+.3g} ±{reward.error:.2g})"
        )
    if len(audits) < 2 * patience:
        return None
    first, recent = audits[:patience], audits[-patience:]
    reward = change(_pooled([audit.rewards for audit in first]), _pooled([audit.rewards for audit in recent]))
    rate = change(_pooled([audit.pass_rates for audit in first]), _pooled([audit.pass_rates for audit in recent]))
    if reward.z >= sigmas and rate.mean <= 0:
        return (
            f"between the first {patience} audits and the last {patience} the reward has risen by {reward.mean:.3g} "
            f"(±{reward.error:.2g}) and the pass rate has not ({rate.mean:+.3f} ±{rate.error:.2g})"
        )
    return None


def _pooled(parts: Sequence[dict[str, float]]) -> dict[str, float]:
    """The mean of each key over the parts that have it."""
    pools: dict[str, list[float]] = defaultdict(list)
    for part in parts:
        for key, value in part.items():
            pools[key].append(value)
    return {key: fmean(values) for key, values in pools.items()}


def hacking_metrics(texts: Sequence[str], judgements: Sequence[Judgement]) -> dict[str, float]:
    """The metrics of one call of the reward, see `RewardHackingMonitor`. Empty for an empty call."""
    if not judgements:
        return {}
    metrics = {
        "invalid_share": fmean(judgement.status is not Status.OK for judgement in judgements),
        "trivial_share": fmean(judgement.status is Status.TRIVIAL for judgement in judgements),
    }
    valid = [(text, row.code, row.score) for text, row in zip(texts, judgements, strict=True) if row.code]
    if not valid:
        return metrics
    problems, codes, scores = zip(*valid, strict=True)
    lengths = [FEATURES["characters"](code) for code in codes]
    comments = [FEATURES["comment lines"](code) for code in codes]
    metrics |= {"code_length": fmean(lengths), "comment_share": fmean(comments)}
    forms = distinct_programs(codes)
    served: dict[int, set[str]] = defaultdict(set)
    for problem, code in zip(problems, codes, strict=True):
        served[forms[code]].add(problem)
    pairs = [(problem, forms[code]) for problem, code in zip(problems, codes, strict=True)]
    metrics["duplicate_share"] = 1 - len(set(pairs)) / len(pairs)
    if len(set(problems)) > 1:
        metrics["shared_share"] = fmean(len(served[form]) > 1 for _, form in pairs)
    for name, feature in (("length", lengths), ("comment", comments)):
        scored = [row for row in zip(problems, feature, scores, strict=True) if row[2] is not None]
        value = _correlation(*zip(*scored, strict=True)) if scored else None
        if value is not None:
            metrics[f"{name}_correlation"] = value
    return metrics


def _correlation(groups: Sequence[str], first: Sequence[float], second: Sequence[float]) -> float | None:
    """Pearson's correlation of the deviations from the means of the groups. None if nothing varies."""
    numbers = {name: number for number, name in enumerate(dict.fromkeys(groups))}
    group = [numbers[name] for name in groups]
    x, y = (values - (np.bincount(group, values) / np.bincount(group))[group] for values in (first, second))
    norms = np.linalg.norm(x), np.linalg.norm(y)
    return None if min(norms) < 1e-9 else float(x @ y / (norms[0] * norms[1]))


def _wins(rows: Sequence[tuple[str, float | None, bool]]) -> list[float]:
    """One number per pair of a right and a wrong completion of one problem: 1, 0, or one half for a tie."""
    sides: dict[str, tuple[list[float], list[float]]] = defaultdict(lambda: ([], []))
    for key, reward, right in rows:
        if reward is not None:
            sides[key][right].append(reward)
    return [win(right, wrong) for wrongs, rights in sides.values() for right in rights for wrong in wrongs]


def _problem(prompt: Text) -> str:
    """The problem in a prompt. Empty if none can be read, which the reward has warned of."""
    try:
        return problem_text(prompt)
    except DataError:
        return ""


def _trends(values: dict[str, list[float]]) -> list[tuple[str, str]]:
    """Kind and message of each trend in the training completions that calls for a warning now."""

    def ends(name: str) -> tuple[float, float] | None:
        kept = values.get(name, [])
        return None if len(kept) < _CALLS else (fmean(kept[:_CALLS]), fmean(kept[-_CALLS:]))

    trends = []
    for kind, name, correlation in (
        ("length", "code_length", "length_correlation"),
        ("comments", "comment_share", "comment_correlation"),
    ):
        feature, pull = ends(name), ends(correlation)
        if feature is None or pull is None:
            continue
        before, now = feature
        is_far = not before / 1.5 < now < before * 1.5 if kind == "length" else abs(now - before) > 0.15
        if is_far and pull[1] * (now - before) > 0 and abs(pull[1]) > 0.3:
            message = f"{name} went from {before:.3g} to {now:.3g}, and the score follows it ({pull[1]:.2f})"
            trends.append((kind, message))
    for kind, name, least, rise in (("sameness", "shared_share", 0.5, 0.25), ("invalid", "invalid_share", 0, 0.25)):
        share = ends(name)
        if share is not None and share[1] > least and share[1] - share[0] > rise:
            trends.append((kind, f"{name} went from {share[0]:.2f} to {share[1]:.2f}"))
    return trends
