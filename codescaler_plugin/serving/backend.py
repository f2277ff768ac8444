"""The backends of the routes: the queue and the worker of this machine, or Ray (`ray_app`)."""

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from typing import Any, Protocol

from codescaler_plugin.config import CodeScalerConfig
from codescaler_plugin.errors import ConfigError
from codescaler_plugin.records import Judgement
from codescaler_plugin.scoring.forward import MAX_TOKENS
from codescaler_plugin.scoring.spec import Classifier
from codescaler_plugin.serving import LOAD_TIMEOUT
from codescaler_plugin.serving.batching import DynamicBatcher
from codescaler_plugin.serving.metrics import Metrics
from codescaler_plugin.serving.samples import Sample
from codescaler_plugin.serving.supervisor import WORKER, Worker


class Backend(Protocol):
    """Judges the samples of the routes."""

    metrics: Metrics

    @property
    def state(self) -> str:
        """Reason why it cannot judge now; empty if it can."""
        ...

    async def start(self, fatal: Callable[[ConfigError], None]) -> None:
        """Begin, and return at once. `fatal` is called if the model cannot be loaded at all."""
        ...

    async def stop(self) -> None:
        """Answer what was accepted, then end."""
        ...

    def submit(self, samples: Sequence[Sample]) -> Coroutine[Any, Any, list[Judgement]]:
        """One judgement per sample, in order. An `UnavailableError` says that there are none, and to try again."""
        ...


class LocalBackend:
    """A queue in this process and one scoring worker in another. `batching` holds settings of `DynamicBatcher`."""

    def __init__(
        self,
        config: CodeScalerConfig,
        *,
        command: Sequence[str] = WORKER,
        load_timeout: float = LOAD_TIMEOUT,
        **batching: Any,
    ) -> None:
        self.metrics = Metrics()
        self.worker = Worker(config, self.metrics, command, load_timeout)
        spec = config.spec()
        self._batcher = DynamicBatcher(
            self.worker,
            self.metrics,
            max_tokens=config.max_tokens or MAX_TOKENS,
            slots=spec.batches,
            is_patient=not isinstance(spec, Classifier),
            **batching,
        )
        self._task: asyncio.Task[None] | None = None

    @property
    def state(self) -> str:
        """See `Backend`."""
        return self.worker.state

    async def start(self, fatal: Callable[[ConfigError], None]) -> None:
        """See `Backend`."""

        def ended(task: asyncio.Task[None]) -> None:
            error = None if task.cancelled() else task.exception()
            if isinstance(error, ConfigError):
                fatal(error)
            elif error is not None:
                fatal(ConfigError(f"the scoring worker cannot be started: {error}"))

        self._task = asyncio.create_task(self.worker.run())
        self._task.add_done_callback(ended)
        self._batcher.start()

    async def stop(self) -> None:
        """See `Backend`."""
        await self._batcher.stop()
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError, ConfigError, OSError):
                await self._task

    async def submit(self, samples: Sequence[Sample]) -> list[Judgement]:
        """See `Backend`."""
        return await self._batcher.submit(samples)
