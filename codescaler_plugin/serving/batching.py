"""Samples that callers send one by one -> batches in which a problem's samples stand together.

Runs on one event loop, does nothing that takes long, and keeps what it has accepted: each sample gets an answer within
the time limit, whatever becomes of the engine.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import Protocol

from codescaler_plugin.errors import CodeScalerError
from codescaler_plugin.scoring.forward import MAX_TOKENS
from codescaler_plugin.serving.judging import Answer, Item
from codescaler_plugin.serving.metrics import Metrics

logger = logging.getLogger(__name__)

CHARS_PER_TOKEN = 3  # of code; a batch is bounded before it is tokenised
_KEY_CHARS = 256
_DEATHS = 3  # ten random kills among a hundred samples meet one of them twice with probability 0.37, thrice with 0.01


class EngineDiedError(CodeScalerError, RuntimeError):
    """The engine ended with batches under way."""


class OverloadedError(CodeScalerError, RuntimeError):
    """The queue is full; nothing of the call was accepted."""


class Engine(Protocol):
    """What judges batches: a process, or a test's stand-in.

    Attributes:
        is_ready: a batch can be sent.
    """

    is_ready: bool

    async def ready(self) -> None:
        """Return once a batch can be sent."""
        ...

    def send(self, items: Sequence[Item]) -> "asyncio.Future[list[Answer]]":
        """Send a batch. The result has one answer per item in order; an `EngineDiedError` if it ended before."""
        ...

    def kill(self, reason: str) -> None:
        """End it at once: it has not answered for too long."""
        ...


class _Waiting:
    """A sample between its arrival and its answer."""

    __slots__ = ("answer", "arrived", "deaths", "item", "key")

    def __init__(self, item: Item, now: float, answer: "asyncio.Future[Answer]") -> None:
        self.item = item
        self.arrived = now
        self.answer = answer
        self.deaths = 0  # of the engine with this sample and nothing else
        self.key = item.problem or item.text[:_KEY_CHARS]  # samples of one problem, whatever form it has


class DynamicBatcher:
    """Batches for an engine.

    A sample waits up to `max_wait` for others of its problem, less when none has come for a third of it; while all
    slots of the engine are taken the wait costs nothing. A batch holds whole problems, oldest first, up to
    `max_tokens`. When the engine dies with a batch, its samples are sent again, each alone, so that the one that
    killed it takes no other along. One that it dies with alone goes to the end of these, and fails when it has done
    so three times: an engine that is killed from outside again and again costs no sample its answer.

    Args:
        engine: judges batches.
        metrics: counts.
        max_wait: seconds.
        max_tokens: of a batch, a problem counted once; estimated from characters. One longer sample goes alone.
        max_queue: samples that wait at most; a call that finds the queue empty may be longer.
        slots: batches under way at a time.
        timeout: seconds within which a sample is answered; an engine that takes half of it for a batch is killed.
    """

    def __init__(
        self,
        engine: Engine,
        metrics: Metrics,
        *,
        max_wait: float = 0.005,
        max_tokens: int = MAX_TOKENS,
        max_queue: int = 10_000,
        slots: int = 2,
        timeout: float = 110.0,
    ) -> None:
        self.engine = engine
        self.metrics = metrics
        self.max_wait = max_wait
        self.max_chars = max_tokens * CHARS_PER_TOKEN
        self.max_queue = max_queue
        self.slots = slots
        self.timeout = timeout
        self._groups: dict[str, dict[int, _Waiting]] = {}  # oldest problem first, oldest sample first
        self._suspects: dict[int, _Waiting] = {}
        self._count = 0
        self._changed = asyncio.Event()
        self._under_way: set[asyncio.Task[None]] = set()
        self._loop_task: asyncio.Task[None] | None = None

    @property
    def waiting(self) -> int:
        """Samples that are not under way."""
        return self._count

    def start(self) -> None:
        """Begin to send batches; on a running event loop."""
        self._loop_task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        """Answer what was accepted, then end."""
        while self._count or self._under_way:
            await asyncio.sleep(0.01)
        if self._loop_task is not None:
            self._loop_task.cancel()
            await asyncio.gather(self._loop_task, return_exceptions=True)

    async def submit(self, items: Sequence[Item]) -> list[Answer]:
        """One answer per item, same order, within `timeout`. Cancelling gives their places free.

        Raises:
            OverloadedError: there is no room; ask again later.
        """
        if not items:
            return []
        if self._count and self._count + len(items) > self.max_queue:
            raise OverloadedError(f"{self._count} samples wait already, at most {self.max_queue} may: ask again later")
        loop = asyncio.get_running_loop()
        now = loop.time()
        waiting = [_Waiting(item, now, loop.create_future()) for item in items]
        for sample in waiting:
            self._groups.setdefault(sample.key, {})[id(sample)] = sample
        self._counted(len(waiting))
        self._changed.set()
        try:
            await asyncio.wait([sample.answer for sample in waiting], timeout=self.timeout)
        finally:
            for sample in waiting:
                self._forget(sample)
        late = Answer(failure=f"timeout: no answer within {self.timeout:g} s")
        return [sample.answer.result() if not sample.answer.cancelled() else late for sample in waiting]

    def _forget(self, sample: _Waiting) -> None:
        """Free the place of a sample that nobody waits for any more."""
        if sample.answer.cancel():
            group = self._groups.get(sample.key, {})
            if group.pop(id(sample), None) is not None:
                self._counted(-1)
                if not group:
                    del self._groups[sample.key]
            elif self._suspects.pop(id(sample), None) is not None:
                self._counted(-1)

    def _counted(self, change: int) -> None:
        self._count += change
        self.metrics.queue.set(self._count)

    async def _run(self) -> None:
        while True:
            await self._until(lambda: self._count > 0)
            await self.engine.ready()
            if self._suspects:
                await self._until(lambda: not self._under_way)
            else:
                await self._until(lambda: len(self._under_way) < self.slots)
                await self._ripe()
            if not self.engine.is_ready:
                continue
            if self._suspects:  # alone: if it dies again, it is known of what
                if not self._under_way:
                    self._send([self._suspects.pop(next(iter(self._suspects)))], alone=True)
                    await self._until(lambda: not self._under_way)
            elif batch := self._batch():
                self._send(batch)

    def _send(self, batch: list[_Waiting], *, alone: bool = False) -> None:
        self._counted(-len(batch))
        now = asyncio.get_running_loop().time()
        for sample in batch:
            self.metrics.wait_seconds.observe(now - sample.arrived)
        self.metrics.batch_items.observe(len(batch))
        self.metrics.under_way.inc(len(batch))
        answers = self.engine.send([sample.item for sample in batch])
        task = asyncio.create_task(self._receive(batch, answers, alone=alone))
        self._under_way.add(task)
        task.add_done_callback(self._finished)

    def _finished(self, task: "asyncio.Task[None]") -> None:
        self._under_way.discard(task)
        self._changed.set()

    async def _until(self, condition: Callable[[], bool]) -> None:
        while not condition():
            self._changed.clear()
            await self._changed.wait()

    async def _ripe(self) -> None:
        """Return once the oldest problem's samples need not wait for more."""
        loop = asyncio.get_running_loop()
        while self._groups:
            group = next(iter(self._groups.values()))
            first, last = next(iter(group.values())).arrived, next(reversed(group.values())).arrived
            left = min(first + self.max_wait, last + self.max_wait / 3) - loop.time()
            if left <= 0:
                return
            await asyncio.sleep(left)

    def _batch(self) -> list[_Waiting]:
        """The oldest problems with all their samples, as far as they fit."""
        batch: list[_Waiting] = []
        room = self.max_chars
        for key in list(self._groups):
            group = self._groups[key]
            shared = len(next(iter(group.values())).item.problem)
            size = shared + sum(map(_own_chars, group.values()))
            if batch and size > room:
                break
            room -= shared
            for place, sample in list(group.items()):
                if batch and _own_chars(sample) > room:
                    break
                room -= _own_chars(sample)
                batch.append(group.pop(place))
            if group:
                break
            del self._groups[key]
        return batch

    async def _receive(self, batch: list[_Waiting], answers: "asyncio.Future[list[Answer]]", *, alone: bool) -> None:
        try:
            with self.metrics.batch_seconds.time():
                found = await asyncio.wait_for(answers, self.timeout / 2)
        except TimeoutError:
            self.engine.kill(f"no answer to {len(batch)} samples within {self.timeout / 2:g} s; see --timeout")
            self._again(batch, alone=alone)
        except EngineDiedError as error:
            logger.warning("%s; %d samples are sent again", error, len(batch))
            self._again(batch, alone=alone)
        else:
            for sample, answer in zip(batch, found, strict=True):
                _give(sample, answer)
        finally:
            self.metrics.under_way.dec(len(batch))

    def _again(self, batch: list[_Waiting], *, alone: bool) -> None:
        for sample in batch:
            sample.deaths += alone
            if sample.deaths == _DEATHS:
                failure = f"worker: the scoring worker died {_DEATHS} times with this sample alone"
                _give(sample, Answer(failure=failure))
            elif not sample.answer.done():
                self._suspects[id(sample)] = sample
                self._counted(1)
        self._changed.set()


def _give(sample: _Waiting, answer: Answer) -> None:
    if not sample.answer.done():
        sample.answer.set_result(answer)


def _own_chars(sample: _Waiting) -> int:
    """Characters that a sample adds to its problem's."""
    item = sample.item
    return max(1, len(item.text) - len(item.problem)) if item.kind == "query" else len(item.text) + 1
