"""A judgement for every completion, for hosts that load a reward from a file: OpenRLHF and verl.

They send completions one by one, from many threads or coroutines. An event loop of this process batches them for the
pipeline that the `CODESCALER_*` variables describe.
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
    """Judges the completions of many callers together. Thread-safe.

    A completion that cannot be scored gets `fallback`. It is counted in `fallbacks` by kind of failure and logged as
    an ERROR. Until a first program has a score, an outage of the reward model raises instead, so that a wrong key or a
    missing server does not train on fallbacks.
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
        """A hook with the settings of the `CODESCALER_*` variables."""
        return cls(CodeScaler(config=CodeScalerConfig.from_env(environ)))

    def check(self) -> None:
        """Reach every server and score a program.

        Waits up to `patience` for a server that is busy or still loads its model, and then accepts it.
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

    def judge(self, samples: Sequence[Sample]) -> list[Judgement]:
        """One judgement per completion, in order. Blocks. Without a fallback, a failure raises its error."""
        return self._checked(self._submitted(samples).result())

    async def judge_async(self, samples: Sequence[Sample]) -> list[Judgement]:
        """One judgement per completion, in order; awaits what `judge` waits for."""
        return self._checked(await asyncio.wrap_future(self._submitted(samples)))

    def _submitted(self, samples: Sequence[Sample]) -> "Future[list[Judgement]]":
        with self._lock:
            if self._started is None:
                self._started = self._start()
            loop, batcher = self._started
        return asyncio.run_coroutine_threadsafe(batcher.submit(samples), loop)

    def _start(self) -> tuple[asyncio.AbstractEventLoop, DynamicBatcher]:
        started: Future[tuple[asyncio.AbstractEventLoop, DynamicBatcher]] = Future()

        async def run() -> None:
            slots = self.scaler.config.spec().batches
            engine = InProcess(lambda samples: judge_samples(self.scaler, samples), slots)
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
            share, total = f"{len(failures)} of {len(judgements)}", self.fallbacks.total()
            message = "codescaler: %s samples get the fallback reward %s, %d so far in this process: %s"
            logger.error(message, share, self.fallback, total, failures[0])
        return judgements


@cache
def hook() -> RewardHook:
    """The hook of this process, made from its `CODESCALER_*` variables on the first call."""
    return RewardHook.from_env()


os.register_at_fork(after_in_child=hook.cache_clear)  # a child has the loop without its thread
