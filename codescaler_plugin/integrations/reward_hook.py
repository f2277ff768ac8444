"""A number for every sample, for hosts that call a reward from a file: OpenRLHF, where a missing reward ends the run.

Both hosts send samples one by one from many threads. Calls that come while the reward model works become its next
batch.
"""

import logging
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from functools import cache
from itertools import count
from queue import Empty, SimpleQueue
from threading import Semaphore
from time import monotonic, sleep
from typing import Any, Protocol, Self

import urllib3
from urllib3.exceptions import HTTPError

from codescaler_plugin.config import HOOK_VARIABLES, PREFIX, CodeScalerConfig, HookConfig
from codescaler_plugin.errors import ConfigError, DataError, RefusedError, ScorerError
from codescaler_plugin.http_client import HttpClient
from codescaler_plugin.records import Status
from codescaler_plugin.serving.judging import Item, Judge, probability, problem_and_completion
from codescaler_plugin.text.derivation import template_of

logger = logging.getLogger(__name__)

_SLOTS = 8  # batches under way at servers; a model of this process works on one
_BATCH = 256  # samples of one
_FIRST_PAUSE = 0.5  # seconds; doubles
_CHECK_SECONDS = 10.0
_PASSING = ("scorer:", "error:")  # failures that another try may mend


@dataclass(frozen=True)
class Judged:
    """What an engine says of one sample: `failure` says why `reward` is missing, in the form `kind: reason`."""

    reward: float | None
    score: float | None
    failure: str = ""


class Engine(Protocol):
    """Judges batches: the model of this process, or servers.

    Attributes:
        slots: batches under way at a time.
    """

    slots: int

    def check(self) -> None:
        """Raise what would keep it from judging."""
        ...

    def judge(self, items: Sequence[Item]) -> list[Judged]:
        """One entry per item, same order. Raises nothing for what is wrong with an item or with the model."""
        ...


class LocalEngine:
    """The model of this process.

    Args:
        config: settings of the pipeline.
        judge: takes the place of the one that `config` describes.

    Raises:
        ConfigError: the shape compares the completions of a group.
    """

    slots = 1

    def __init__(self, config: CodeScalerConfig, judge: Judge | None = None) -> None:
        if config.shaping in ("group_center", "rank"):
            raise ConfigError(
                f"shaping {config.shaping!r} compares the completions of a group, and hosts call for one sample at a "
                "time: take softplus, sigmoid or raw, and let the trainer compare"
            )
        self._shape = config.shape()
        self._judge = judge or Judge(config)

    def check(self) -> None:
        """Load the model and score a program.

        Raises:
            ConfigError: the model cannot be had.
            ScorerError: it gives no score.
        """
        self._judge.warm_up()

    def judge(self, items: Sequence[Item]) -> list[Judged]:
        """See `Engine`."""
        answers = self._judge.judge(items)
        statuses = [Status(answer.status) if answer.status else Status.OK for answer in answers]
        rewards = self._shape.rewards([answer.score for answer in answers], statuses, [item.problem for item in items])
        return [
            Judged(None if answer.failure else reward, answer.score, answer.failure)
            for answer, reward in zip(answers, rewards, strict=True)
        ]


class RemoteEngine:
    """codescaler servers. They extract, score and shape; the prompt is taken apart here.

    Args:
        urls: `http://host:port`, several divided by commas; batches go to them in turn.
        api_key: of the servers; None: none.
        prompt_template: see `CodeScalerConfig`, as the next.
        reasoning_marks: as there.

    Raises:
        ConfigError: a URL without scheme or host, or a template that cannot be used.
    """

    slots = _SLOTS

    def __init__(
        self,
        urls: str,
        api_key: str | None = None,
        prompt_template: str | None = None,
        reasoning_marks: str | None = None,
    ) -> None:
        self._template = None if prompt_template is None else template_of(prompt_template)
        self._marks = reasoning_marks
        self._headers = {} if api_key is None else {"Authorization": f"Bearer {api_key}"}
        self._pool = HttpClient(urls, retries=0, headers=self._headers)  # the hook tries again
        self._turns = count()

    def check(self) -> None:
        """Reach each server. One that is still loading its model is accepted.

        Raises:
            ConfigError: one cannot be reached, is none of codescaler, or wants another key.
        """
        for url in self._pool.urls:
            self._check(url)

    def judge(self, items: Sequence[Item]) -> list[Judged]:
        """See `Engine`."""
        judged = [Judged(None, None, "error: no answer")] * len(items)
        samples: dict[int, dict[str, str]] = {}
        for place, item in enumerate(items):
            try:
                problem, completion = problem_and_completion(item, self._template, self._marks)
                samples[place] = {"problem": problem, "completion": completion}
            except DataError as error:
                judged[place] = Judged(None, None, f"data: {error}")
        parts = [list(samples)] if samples else []
        while parts:
            part = parts.pop()
            try:
                body = {"items": [samples[place] for place in part]}
                found = _judged(self._pool.post("/v1/score", body, affinity=next(self._turns)), len(part))
            except RefusedError as error:
                if len(part) > 1:
                    parts += [part[: len(part) // 2], part[len(part) // 2 :]]
                else:
                    judged[part[0]] = Judged(None, None, f"data: {error}")
            except ScorerError as error:
                for place in part:
                    judged[place] = Judged(None, None, f"scorer: {error}")
            else:
                for place, one in zip(part, found, strict=True):
                    judged[place] = one
        return judged

    def _check(self, url: str) -> None:
        try:
            answer = urllib3.request(
                "POST", f"{url}/v1/score", json={"items": []}, headers=self._headers, timeout=_CHECK_SECONDS, retries=2
            )
        except HTTPError as error:
            reason = getattr(error, "reason", None) or error
            raise ConfigError(
                f"CODESCALER_URL: {url} cannot be reached: {reason}; start it with `codescaler serve --port PORT`"
            ) from error
        if answer.status == 401:
            raise ConfigError(f"CODESCALER_URL: {url} wants a key: set CODESCALER_API_KEY to that of the server")
        if answer.status not in (200, 503):
            raise ConfigError(
                f"CODESCALER_URL: {url} answered {answer.status} to /v1/score: expected a codescaler server, "
                "http://host:port without a path"
            )


@dataclass(frozen=True)
class Rewarded:
    """One sample as a host sees it; every number is finite.

    Attributes:
        reward: shaped, or the fallback.
        probability: 1 / (1 + e^-logit), in [0, 1]; 0 for unusable code and for a fallback.
        is_valid: the code is usable and has a score.
        is_fallback: the reward is the fallback.
    """

    reward: float
    probability: float
    is_valid: bool
    is_fallback: bool

    def logs(self) -> dict[str, float]:
        """What goes into the host's logs; their means are shares."""
        return {"codescaler_valid": float(self.is_valid), "codescaler_fallback": float(self.is_fallback)}


class RewardHook:
    """Gives every sample a reward; thread-safe.

    What the engine fails on is tried again, then gets the fallback, is counted in `fallbacks` by kind of failure, and
    is logged as an ERROR. Code that is not usable is no failure.

    Args:
        engine: judges.
        settings: of the hook.
    """

    def __init__(self, engine: Engine, settings: HookConfig) -> None:
        self.engine = engine
        self.settings = settings
        self.fallbacks: Counter[str] = Counter()
        self._patience = settings.patience if settings.url else 0.0
        self._slots = Semaphore(engine.slots)
        self._queue: SimpleQueue[_Call] = SimpleQueue()

    @classmethod
    def from_env(cls, environ: Mapping[str, str] = os.environ) -> Self:
        """A hook as `CODESCALER_*` variables describe it.

        Raises:
            ConfigError: a variable that is not known, does not fit, or has no effect.
        """
        settings = HookConfig.from_env(environ)
        if settings.url is None:
            rest = {name: text for name, text in environ.items() if name not in HOOK_VARIABLES}
            shared = {name: getattr(settings, name) for name in ("api_key", "prompt_template", "reasoning_marks")}
            return cls(LocalEngine(CodeScalerConfig.from_env(rest, **shared)), settings)
        idle = sorted(name for name in environ if name.startswith(PREFIX) and name not in HOOK_VARIABLES)
        if idle:
            raise ConfigError(
                f"{', '.join(idle)} would have no effect with CODESCALER_URL: set it where the server is started, "
                "and unset it here"
            )
        return cls(
            RemoteEngine(settings.url, settings.api_key, settings.prompt_template, settings.reasoning_marks), settings
        )

    def rewards(self, items: Sequence[Item]) -> list[Rewarded]:
        """One reward per sample, same order. Raises nothing for what is wrong with a sample or the reward model."""
        rewarded = []
        for one in self._patiently(list(items)):
            if one.reward is None:
                self._count(one.failure)
                rewarded.append(Rewarded(self.settings.fallback, 0.0, False, True))
            else:
                rewarded.append(Rewarded(one.reward, probability(one.score), one.score is not None, False))
        return rewarded

    def _count(self, failure: str) -> None:
        self.fallbacks[failure.partition(":")[0]] += 1
        logger.error(
            "codescaler: a sample gets the fallback reward %s, %d so far in this process: %s",
            self.settings.fallback,
            self.fallbacks.total(),
            failure,
        )

    def _patiently(self, items: list[Item]) -> list[Judged]:
        """Judgements, with what the engine failed on tried again."""
        end = monotonic() + self._patience
        judged = self._together(items)
        pause = 0.0
        while lost := [place for place, one in enumerate(judged) if one.failure.startswith(_PASSING)]:
            if pause and monotonic() + pause > end:
                break
            sleep(pause)
            pause = 2 * pause or _FIRST_PAUSE
            for place, one in zip(lost, self._together([items[place] for place in lost]), strict=True):
                judged[place] = one
        return judged

    def _together(self, items: list[Item]) -> list[Judged]:
        """Judgements of one call, made in a batch with those of others that wait."""
        if not items:
            return []
        mine = _Call(items, Future())
        self._queue.put(mine)
        with self._slots:
            calls = self._waiting()
            if calls:  # else another thread has taken this call along
                self._settle(calls)
        return mine.judged.result()

    def _waiting(self) -> "list[_Call]":
        calls: list[_Call] = []
        try:
            while sum(len(call.items) for call in calls) < _BATCH:
                calls.append(self._queue.get_nowait())
        except Empty:
            pass
        return calls

    def _settle(self, calls: "list[_Call]") -> None:
        try:
            judged = iter(self.engine.judge([item for call in calls for item in call.items]))
            for call in calls:
                call.judged.set_result([next(judged) for _ in call.items])
        except Exception as error:  # noqa: BLE001 - whatever it is, callers that wait must not wait for ever
            for call in calls:
                if not call.judged.done():
                    failure = f"error: {type(error).__name__}: {error}"
                    call.judged.set_result([Judged(None, None, failure)] * len(call.items))


@dataclass(frozen=True)
class _Call:
    """Samples of one caller, and what becomes of them."""

    items: list[Item]
    judged: "Future[list[Judged]]"


@cache
def hook() -> RewardHook:
    """The one of this process, as its `CODESCALER_*` variables describe it."""
    return RewardHook.from_env()


def _judged(answer: Any, expected: int) -> list[Judged]:
    """The judgements in an answer of /v1/score.

    Raises:
        ScorerError: it is none.
    """
    try:
        judged = [
            Judged(None, None, failure) if failure else Judged(float(judgement["reward"]), judgement["score"])
            for judgement, failure in zip(answer["judgements"], answer["failures"], strict=True)
        ]
    except (KeyError, TypeError, ValueError) as error:
        raise ScorerError(f"no answer of a codescaler server: {str(answer)[:200]!r}") from error
    if len(judged) != expected:
        raise ScorerError(f"{len(judged)} judgements for {expected} samples")
    return judged
