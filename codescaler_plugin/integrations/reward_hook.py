"""A judgement for every sample, for hosts that call a reward from a file: OpenRLHF and verl.

They send samples one by one, from many threads or coroutines. The judgements are made in batches on an event loop of
this process, by the pipeline that `CODESCALER_*` variables describe.
"""

import asyncio
import logging
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from functools import cache
from threading import Lock, Thread
from typing import Self

from codescaler_plugin.config import PREFIX, CodeScalerConfig
from codescaler_plugin.errors import ConfigError, HttpError, ScorerError
from codescaler_plugin.pipeline import CodeScaler
from codescaler_plugin.records import Judgement
from codescaler_plugin.serving.batching import DynamicBatcher, InProcess
from codescaler_plugin.serving.samples import Sample, judge_samples

logger = logging.getLogger(__name__)


class RewardHook:
    """Judges samples of many callers together; thread-safe.

    A sample that cannot be scored gets `fallback`, is counted in `fallbacks` by kind of failure, and is logged as an
    ERROR. Until a first program has a score, an outage of the reward model is an error instead: a wrong key or a
    server that is not there must not train on fallbacks.

    Args:
        scaler: judges.

    Raises:
        ConfigError: see `CodeScalerConfig.check_host`.
    """

    def __init__(self, scaler: CodeScaler) -> None:
        scaler.config.check_host("files")
        self.scaler = scaler
        self.fallback = scaler.config.fallback
        self.fallbacks: Counter[str] = Counter()
        self._has_scored = False
        self._lock = Lock()
        self._started: tuple[asyncio.AbstractEventLoop, DynamicBatcher] | None = None

    @classmethod
    def from_env(cls, environ: Mapping[str, str] = os.environ) -> Self:
        """A hook as `CODESCALER_*` variables describe it.

        Raises:
            ConfigError: a variable that is not known, does not fit, or has no effect.
        """
        return cls(CodeScaler(config=CodeScalerConfig.from_env(environ)))

    def check(self) -> None:
        """Reach every server and score a program.

        A server that still loads its model, or is busy, is waited for as `patience` says, and then accepted.

        Raises:
            ConfigError: the model cannot be had, gives no score, or a server does not answer well.
        """
        try:
            getattr(self.scaler.scorer, "ensure_loaded", lambda: None)()
            self.scaler.check()
        except ScorerError as error:
            is_reached = isinstance(error.__cause__, HttpError) and error.__cause__.status == 503
            is_busy = {failure.kind.is_transient for failure in error.failures.values()} == {True}
            if not (is_reached or is_busy):
                raise ConfigError(f"{PREFIX}MODEL: {error}") from error
            logger.warning("the reward server is not ready yet: %s", error)

    def judge(self, items: Sequence[Sample]) -> list[Judgement]:
        """One judgement per sample, same order; blocks.

        Raises:
            ScorerError: an outage before any program had a score; or a sample failed and there is no fallback.
            DataError: a sample cannot be read and there is no fallback.
        """
        return self._checked(self._submitted(items).result())

    async def judge_async(self, items: Sequence[Sample]) -> list[Judgement]:
        """As `judge`, for coroutines."""
        return self._checked(await asyncio.wrap_future(self._submitted(items)))

    def _submitted(self, items: Sequence[Sample]) -> "Future[list[Judgement]]":
        with self._lock:
            if self._started is None:
                self._started = self._start()
            loop, batcher = self._started
        return asyncio.run_coroutine_threadsafe(batcher.submit(items), loop)

    def _start(self) -> tuple[asyncio.AbstractEventLoop, DynamicBatcher]:
        started: Future[tuple[asyncio.AbstractEventLoop, DynamicBatcher]] = Future()

        async def run() -> None:
            slots = self.scaler.config.spec().batches
            engine = InProcess(lambda items: judge_samples(self.scaler, items), slots)
            batcher = DynamicBatcher(engine, slots=slots, max_queue=None, timeout=None)
            batcher.start()
            started.set_result((asyncio.get_running_loop(), batcher))
            await asyncio.Event().wait()  # as long as the process

        Thread(target=asyncio.run, args=(run(),), name="codescaler", daemon=True).start()
        return started.result()

    def _checked(self, judgements: list[Judgement]) -> list[Judgement]:
        self._has_scored |= any(judgement.score is not None for judgement in judgements)
        failures = [judgement.failure for judgement in judgements if judgement.failure is not None]
        for judgement in judgements if self.fallback is None else ():
            judgement.raise_for_failure()
        outage = next((failure for failure in failures if failure.kind.is_outage), None)
        if outage is not None and not self._has_scored:
            raise ScorerError(
                f"codescaler: no program has a score yet, and the reward model fails: {outage.reason}. The model is "
                f"{self.scaler.config.model}"
            )
        if failures:
            self.fallbacks.update(failure.kind for failure in failures)
            logger.error(
                "codescaler: %d of %d samples get the fallback reward %s, %d so far in this process: %s",
                len(failures),
                len(judgements),
                self.fallback,
                self.fallbacks.total(),
                failures[0],
            )
        return judgements


@cache
def hook() -> RewardHook:
    """The one of this process, as its `CODESCALER_*` variables describe it."""
    return RewardHook.from_env()


os.register_at_fork(after_in_child=hook.cache_clear)  # a child has the loop without its thread
