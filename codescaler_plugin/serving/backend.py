"""What stands behind the routes: the queue and the worker of this machine, or Ray."""

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
from codescaler_plugin.serving.judging import Item
from codescaler_plugin.serving.metrics import Metrics
from codescaler_plugin.serving.supervisor import WORKER, Worker


class Backend(Protocol):
    """Judges what the routes take in.

    Attributes:
        metrics: counts.
    """

    metrics: Metrics

    @property
    def state(self) -> str:
        """Why it cannot judge now; empty if it can."""
        ...

    async def start(self, fatal: Callable[[ConfigError], None]) -> None:
        """Begin; returns at once. `fatal` is called if the model cannot be had at all."""
        ...

    async def stop(self) -> None:
        """Answer what was accepted, then end."""
        ...

    def submit(self, items: Sequence[Item]) -> Coroutine[Any, Any, list[Judgement]]:
        """One judgement per item, same order.

        Raises:
            UnavailableError: there is no room, or no model yet; ask again later.
        """
        ...


class LocalBackend:
    """A queue in this process and one scoring worker in another.

    Args:
        config: settings of the scorer.
        command: starts the worker.
        load_timeout: see `Worker`.
        **batching: `max_wait`, `max_queue` and `timeout` of `DynamicBatcher`.
    """

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

    async def submit(self, items: Sequence[Item]) -> list[Judgement]:
        """See `Backend`."""
        return await self._batcher.submit(items)
