"""Dynamic batching: samples that callers send one by one become batches in which a problem's samples stand together.

Everything runs on one event loop and returns fast. Each accepted sample gets an answer within the time limit, even if
the engine crashes.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Protocol

from codescaler_plugin.errors import CodeScalerError, Failure, FailureKind
from codescaler_plugin.records import Judgement
from codescaler_plugin.scoring.forward import MAX_TOKENS
from codescaler_plugin.serving import MAX_QUEUE, MAX_WAIT, TIMEOUT
from codescaler_plugin.serving.samples import Sample

logger = logging.getLogger(__name__)

CHARS_PER_TOKEN = 3  # of code; a batch is bounded before it is tokenised
_KEY_CHARS = 256
_CRASHES = 3  # ten random kills among a hundred samples meet one of them twice with probability 0.37, thrice with 0.01


class EngineCrashedError(CodeScalerError, RuntimeError):
    """The engine ended before it answered its batches."""


class UnavailableError(CodeScalerError, RuntimeError):
    """A call got no answers and may be sent again."""

    cause = "unavailable"  # label of the error in the metrics


class OverloadedError(UnavailableError):
    """The queue is full, and no sample of the call was accepted."""

    cause = "overloaded"


class NotReadyError(UnavailableError):
    """The model had never been ready when the call came, and the call's time is up."""

    cause = "not_ready"


class Engine(Protocol):
    """Judges batches: a process, or threads."""

    is_ready: bool  # a batch can be sent now
    has_been_ready: bool
    state: str  # reason why no batch can be sent; empty if one can

    async def ready(self) -> None:
        """Return once a batch can be sent."""
        ...

    def send(self, samples: Sequence[Sample]) -> "asyncio.Future[list[Judgement]]":
        """Send a batch. The result has one judgement per sample, in order, or is an `EngineCrashedError`."""
        ...

    def kill(self, reason: str) -> None:
        """End the engine at once: it has not answered for too long."""
        ...


class Observer:
    """Observes samples and batches, for metrics. This one does nothing."""

    def waiting(self, samples: int) -> None:
        """The number of samples that wait has changed."""

    def sent(self, waits: Sequence[float]) -> None:
        """A batch was sent; its samples waited so many seconds."""

    def answered(self, samples: int, seconds: float) -> None:
        """A batch of so many samples ended after so many seconds."""


class InProcess:
    """An engine in threads of this process; `batches` are judged at a time."""

    is_ready = has_been_ready = True
    state = ""

    def __init__(self, judge: Callable[[Sequence[Sample]], list[Judgement]], batches: int) -> None:
        self._judge = judge
        self._threads = ThreadPoolExecutor(batches, thread_name_prefix="codescaler")

    async def ready(self) -> None:
        """See `Engine`."""

    def send(self, samples: Sequence[Sample]) -> "asyncio.Future[list[Judgement]]":
        """See `Engine`."""
        return asyncio.get_running_loop().run_in_executor(self._threads, self._judged, samples)

    def _judged(self, samples: Sequence[Sample]) -> list[Judgement]:
        try:
            return self._judge(samples)
        except Exception:  # the batcher answers it
            raise
        except BaseException as error:  # a KeyboardInterrupt, for example, would end the loop
            raise RuntimeError(f"{type(error).__name__}: {error}") from error

    def kill(self, reason: str) -> None:
        """Do nothing, since a thread cannot be ended. Its batch is answered when it ends."""


@dataclass(slots=True, eq=False)
class _Pending:
    """A sample between its arrival and its answer."""

    sample: Sample
    arrived: float
    answer: "asyncio.Future[Judgement]"
    crashes: int = 0  # of the engine with this sample and nothing else

    @property
    def key(self) -> str:
        """The same for all samples of a problem."""
        return self.sample.problem or self.sample.text[:_KEY_CHARS]

    @property
    def own_chars(self) -> int:
        """Number of characters that the sample adds to its problem."""
        text, problem = self.sample.text, self.sample.problem
        return max(1, len(text) - len(problem)) if self.sample.kind == "query" else len(text) + 1

    def resolve(self, judgement: Judgement) -> None:
        """Answer, unless that has happened."""
        if not self.answer.done():
            self.answer.set_result(judgement)


class DynamicBatcher:
    """Makes batches for an engine.

    A sample waits up to `max_wait` for others of its problem, and less if none has come for a third of it. While all
    slots of the engine are taken, the wait costs nothing. A batch holds whole problems, oldest first, up to
    `max_tokens`. When the engine crashes, its samples are quarantined: each is sent again, alone, so that only the
    sample that caused the crash can repeat it. A sample with which the engine crashes again goes to the end of the
    quarantine, and fails after three such crashes. Repeated kills from outside therefore cost no sample its answer.

    Args:
        max_wait: seconds.
        max_tokens: of a batch, estimated from characters, with a problem counted once. A longer sample is sent alone.
        max_queue: samples that may wait. A call that finds the queue empty may be longer. None is no limit.
        slots: batches in flight at a time.
        timeout: seconds until a sample is answered. An engine that takes half of it for a batch is killed. None: none.
        is_patient: never kill the engine, because it waits for servers.
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
        self._groups: dict[str, dict[int, _Pending]] = {}  # oldest problem first, oldest sample first
        self._quarantine: dict[int, _Pending] = {}
        self.waiting = 0  # samples that are not in flight
        self._changed = asyncio.Event()
        self._in_flight: set[asyncio.Task[None]] = set()
        self._loop_task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to send batches. Call it on the running event loop."""
        self._loop_task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        """Answer what was accepted, then end."""
        while self.waiting or self._in_flight:
            await asyncio.sleep(0.01)
        if self._loop_task is not None:
            self._loop_task.cancel()
            await asyncio.gather(self._loop_task, return_exceptions=True)

    async def submit(self, samples: Sequence[Sample]) -> list[Judgement]:
        """One judgement per sample, in order, within `timeout`. Cancelling takes the samples out of the queue."""
        if not samples:
            return []
        if self.max_queue is not None and self.waiting and self.waiting + len(samples) > self.max_queue:
            raise OverloadedError(
                f"{self.waiting} samples wait already, at most {self.max_queue} may: ask again later"
            )
        loop = asyncio.get_running_loop()
        now = loop.time()
        may_fail = self.engine.has_been_ready  # else a trainer that starts before the model trains on fallbacks
        call = [_Pending(sample, now, loop.create_future()) for sample in samples]
        for pending in call:
            self._groups.setdefault(pending.key, {})[id(pending)] = pending
        self._count(len(call))
        self._changed.set()
        try:
            await asyncio.wait([pending.answer for pending in call], timeout=self.timeout)
        finally:
            for pending in call:
                self._forget(pending)
        if not may_fail and any(pending.answer.cancelled() for pending in call):
            raise not_ready(self.engine.state, self.timeout)
        late = _failed(FailureKind.TIMEOUT, f"no answer within {self.timeout:g} s" if self.timeout else "")
        return [late if pending.answer.cancelled() else pending.answer.result() for pending in call]

    def _forget(self, pending: _Pending) -> None:
        """Take a sample that nobody waits for out of the queue."""
        if pending.answer.cancel():
            group = self._groups.get(pending.key, {})
            if group.pop(id(pending), None) is not None:
                self._count(-1)
                if not group:
                    del self._groups[pending.key]
            elif self._quarantine.pop(id(pending), None) is not None:
                self._count(-1)

    def _count(self, change: int) -> None:
        self.waiting += change
        self.observer.waiting(self.waiting)

    async def _run(self) -> None:
        while True:
            await self._until(lambda: self.waiting > 0)
            await self.engine.ready()
            if self._quarantine:
                await self._until(lambda: not self._in_flight)
            else:
                await self._until(lambda: len(self._in_flight) < self.slots)
                await self._ripe()
            if not self.engine.is_ready:
                continue
            if self._quarantine:  # alone, so that the sample of another crash is known
                if not self._in_flight:
                    self._send([self._quarantine.pop(next(iter(self._quarantine)))], alone=True)
                    await self._until(lambda: not self._in_flight)
            elif batch := self._batch():
                self._send(batch)

    def _send(self, batch: list[_Pending], *, alone: bool = False) -> None:
        self._count(-len(batch))
        now = asyncio.get_running_loop().time()
        self.observer.sent([now - pending.arrived for pending in batch])
        try:
            answer = self.engine.send([pending.sample for pending in batch])
        except RuntimeError as error:  # no thread can be started: this process ends
            answer = asyncio.get_running_loop().create_future()
            answer.set_exception(error)
        task = asyncio.create_task(self._receive(batch, answer, alone=alone))
        self._in_flight.add(task)
        task.add_done_callback(self._finished)

    def _finished(self, task: "asyncio.Task[None]") -> None:
        self._in_flight.discard(task)
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

    def _batch(self) -> list[_Pending]:
        """The oldest problems with all their samples, as far as they fit."""
        batch: list[_Pending] = []
        room = self.max_chars
        for key in list(self._groups):
            group = self._groups[key]
            shared = len(next(iter(group.values())).sample.problem)
            size = shared + sum(pending.own_chars for pending in group.values())
            if batch and size > room:
                break
            room -= shared
            for number, pending in list(group.items()):
                if batch and pending.own_chars > room:
                    break
                room -= pending.own_chars
                batch.append(group.pop(number))
            if group:
                break
            del self._groups[key]
        return batch

    async def _receive(self, batch: list[_Pending], answer: "asyncio.Future[list[Judgement]]", *, alone: bool) -> None:
        loop = asyncio.get_running_loop()
        started = loop.time()
        try:
            judgements = await asyncio.wait_for(answer, self.kill_after)
        except TimeoutError:
            self.engine.kill(f"no answer to {len(batch)} samples within {self.kill_after:g} s; raise the timeout")
            self._again(batch, alone=alone)
        except EngineCrashedError as error:
            logger.warning("%s; %d samples are sent again", error, len(batch))
            self._again(batch, alone=alone)
        except Exception as error:  # callers must not wait for ever, so every error is an answer
            logger.exception("%d samples cannot be judged", len(batch))
            for pending in batch:
                pending.resolve(_failed(FailureKind.SCORER, f"{type(error).__name__}: {error}"))
        else:
            for pending, judgement in zip(batch, judgements, strict=True):
                pending.resolve(judgement)
        finally:
            self.observer.answered(len(batch), loop.time() - started)

    def _again(self, batch: list[_Pending], *, alone: bool) -> None:
        for pending in batch:
            pending.crashes += alone
            if pending.crashes == _CRASHES:
                reason = f"the scoring worker crashed {_CRASHES} times with this sample alone"
                pending.resolve(_failed(FailureKind.WORKER, reason))
            elif not pending.answer.done():
                self._quarantine[id(pending)] = pending
                self._count(1)
        self._changed.set()


def not_ready(state: str, timeout: float | None) -> NotReadyError:
    """The error of a call that came before the model was ready, with the model's present state."""
    return NotReadyError(f"{state or 'the model has just become ready'}: no answer within {timeout:g} s, ask again")


def _failed(kind: FailureKind, reason: str) -> Judgement:
    return Judgement(None, None, None, "", Failure(kind, reason))
