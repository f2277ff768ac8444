"""Dynamic batching: samples that callers send one by one -> batches in which a problem's samples stand together.

Runs on one event loop, does nothing that takes long, and keeps what it has accepted: each sample gets an answer within
the time limit, whatever becomes of the engine.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

from codescaler_plugin.errors import CodeScalerError, Failure, FailureKind
from codescaler_plugin.records import Judgement
from codescaler_plugin.scoring.forward import MAX_TOKENS
from codescaler_plugin.serving import MAX_QUEUE, MAX_WAIT, TIMEOUT
from codescaler_plugin.serving.judging import Item

logger = logging.getLogger(__name__)

CHARS_PER_TOKEN = 3  # of code; a batch is bounded before it is tokenised
_KEY_CHARS = 256
_DEATHS = 3  # ten random kills among a hundred samples meet one of them twice with probability 0.37, thrice with 0.01


class EngineDiedError(CodeScalerError, RuntimeError):
    """The engine ended with batches under way."""


class UnavailableError(CodeScalerError, RuntimeError):
    """A call got no answers and may be sent again.

    Attributes:
        cause: its name in the metrics.
    """

    cause = "unavailable"


class OverloadedError(UnavailableError):
    """The queue is full; nothing of the call was accepted."""

    cause = "overloaded"


class NotReadyError(UnavailableError):
    """The model had never been ready when the call came, and the call's time is up."""

    cause = "not_ready"


class Engine(Protocol):
    """What judges batches: a process, or a test's stand-in.

    Attributes:
        is_ready: a batch can be sent.
        has_been_ready: a batch could be sent at some time.
        state: why no batch can be sent; empty if one can.
    """

    is_ready: bool
    has_been_ready: bool
    state: str

    async def ready(self) -> None:
        """Return once a batch can be sent."""
        ...

    def send(self, items: Sequence[Item]) -> "asyncio.Future[list[Judgement]]":
        """Send a batch. The result has one judgement per item in order; an `EngineDiedError` if it ended before."""
        ...

    def kill(self, reason: str) -> None:
        """End it at once: it has not answered for too long."""
        ...


class Observer:
    """Is told what becomes of samples, for metrics; this one does nothing."""

    def waiting(self, samples: int) -> None:
        """So many samples are not under way now."""

    def sent(self, waits: Sequence[float]) -> None:
        """A batch is under way; its samples waited so many seconds."""

    def answered(self, samples: int, seconds: float) -> None:
        """A batch of so many samples is no longer under way, after so many seconds."""


class InProcess:
    """An engine in this process, which lasts as long as it.

    Args:
        judge: gives one judgement per item; called in a thread.
        batches: batches under way at a time.
    """

    is_ready = has_been_ready = True
    state = ""

    def __init__(self, judge: Callable[[Sequence[Item]], list[Judgement]], batches: int) -> None:
        self._judge = judge
        self._threads = ThreadPoolExecutor(batches, thread_name_prefix="codescaler")

    async def ready(self) -> None:
        """See `Engine`."""

    def send(self, items: Sequence[Item]) -> "asyncio.Future[list[Judgement]]":
        """See `Engine`."""
        return asyncio.get_running_loop().run_in_executor(self._threads, self._judged, items)

    def _judged(self, items: Sequence[Item]) -> list[Judgement]:
        try:
            return self._judge(items)
        except Exception:  # the batcher answers it
            raise
        except BaseException as error:  # KeyboardInterrupt, say: the loop is no place for it, and would end
            raise RuntimeError(f"{type(error).__name__}: {error}") from error

    def kill(self, reason: str) -> None:
        """Nothing: a thread cannot be ended. Its batch is answered when it ends."""


class _Waiting:
    """A sample between its arrival and its answer."""

    __slots__ = ("answer", "arrived", "deaths", "item", "key")

    def __init__(self, item: Item, now: float, answer: "asyncio.Future[Judgement]") -> None:
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
        observer: is told of samples and batches.
        max_wait: seconds.
        max_tokens: of a batch, a problem counted once; estimated from characters. One longer sample goes alone.
        max_queue: samples that wait at most; a call that finds the queue empty may be longer. None: no limit.
        slots: batches under way at a time.
        timeout: seconds within which a sample is answered; an engine that takes half of it for a batch is killed.
            None: no limit.
        is_patient: no engine is killed, since it waits for servers.
    """

    def __init__(
        self,
        engine: Engine,
        observer: Observer | None = None,
        *,
        max_wait: float = MAX_WAIT,
        max_tokens: int = MAX_TOKENS,
        max_queue: int | None = MAX_QUEUE,
        slots: int = 2,
        timeout: float | None = TIMEOUT,
        is_patient: bool = False,
    ) -> None:
        self.engine = engine
        self.observer = observer or Observer()
        self.max_wait = max_wait
        self.max_chars = max_tokens * CHARS_PER_TOKEN
        self.max_queue = max_queue
        self.slots = slots
        self.timeout = timeout
        self.kill_after = None if timeout is None or is_patient else timeout / 2
        self._groups: dict[str, dict[int, _Waiting]] = {}  # oldest problem first, oldest sample first
        self._suspects: dict[int, _Waiting] = {}
        self.waiting = 0  # samples that are not under way
        self._changed = asyncio.Event()
        self._under_way: set[asyncio.Task[None]] = set()
        self._loop_task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to send batches; on a running event loop."""
        self._loop_task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        """Answer what was accepted, then end."""
        while self.waiting or self._under_way:
            await asyncio.sleep(0.01)
        if self._loop_task is not None:
            self._loop_task.cancel()
            await asyncio.gather(self._loop_task, return_exceptions=True)

    async def submit(self, items: Sequence[Item]) -> list[Judgement]:
        """One judgement per item, same order, within `timeout`. Cancelling gives their places free.

        Raises:
            OverloadedError: there is no room; ask again later.
            NotReadyError: the engine had never been ready when the call came, and a sample got no answer in time.
        """
        if not items:
            return []
        if self.max_queue is not None and self.waiting and self.waiting + len(items) > self.max_queue:
            raise OverloadedError(
                f"{self.waiting} samples wait already, at most {self.max_queue} may: ask again later"
            )
        loop = asyncio.get_running_loop()
        now = loop.time()
        may_fail = self.engine.has_been_ready  # else a trainer that starts before the model trains on fallbacks
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
        if not may_fail and any(sample.answer.cancelled() for sample in waiting):
            raise not_ready(self.engine.state, self.timeout)
        late = _failed(FailureKind.TIMEOUT, f"no answer within {self.timeout:g} s" if self.timeout else "")
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
        self.waiting += change
        self.observer.waiting(self.waiting)

    async def _run(self) -> None:
        while True:
            await self._until(lambda: self.waiting > 0)
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
        self.observer.sent([now - sample.arrived for sample in batch])
        try:
            answers = self.engine.send([sample.item for sample in batch])
        except RuntimeError as error:  # no thread can be started: this process ends
            answers = asyncio.get_running_loop().create_future()
            answers.set_exception(error)
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

    async def _receive(
        self, batch: list[_Waiting], answers: "asyncio.Future[list[Judgement]]", *, alone: bool
    ) -> None:
        loop = asyncio.get_running_loop()
        started = loop.time()
        try:
            found = await asyncio.wait_for(answers, self.kill_after)
        except TimeoutError:
            self.engine.kill(f"no answer to {len(batch)} samples within {self.kill_after:g} s; see --timeout")
            self._again(batch, alone=alone)
        except EngineDiedError as error:
            logger.warning("%s; %d samples are sent again", error, len(batch))
            self._again(batch, alone=alone)
        except Exception as error:  # whatever it is, callers must not wait for ever
            logger.exception("%d samples cannot be judged", len(batch))
            for sample in batch:
                _give(sample, _failed(FailureKind.SCORER, f"{type(error).__name__}: {error}"))
        else:
            for sample, answer in zip(batch, found, strict=True):
                _give(sample, answer)
        finally:
            self.observer.answered(len(batch), loop.time() - started)

    def _again(self, batch: list[_Waiting], *, alone: bool) -> None:
        for sample in batch:
            sample.deaths += alone
            if sample.deaths == _DEATHS:
                reason = f"the scoring worker died {_DEATHS} times with this sample alone"
                _give(sample, _failed(FailureKind.WORKER, reason))
            elif not sample.answer.done():
                self._suspects[id(sample)] = sample
                self._counted(1)
        self._changed.set()


def not_ready(state: str, timeout: float | None) -> NotReadyError:
    """The error of a call that came before the model was ready, with the state of the model now."""
    return NotReadyError(f"{state or 'the model has just become ready'}: no answer within {timeout:g} s, ask again")


def _failed(kind: FailureKind, reason: str) -> Judgement:
    return Judgement(None, None, None, "", Failure(kind, reason))


def _give(sample: _Waiting, answer: Judgement) -> None:
    if not sample.answer.done():
        sample.answer.set_result(answer)


def _own_chars(sample: _Waiting) -> int:
    """Characters that a sample adds to its problem's."""
    item = sample.item
    return max(1, len(item.text) - len(item.problem)) if item.kind == "query" else len(item.text) + 1
