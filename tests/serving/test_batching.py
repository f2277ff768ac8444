"""What callers send one by one goes out in batches, and each sample gets its one answer, whatever the engine does."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from codescaler_plugin.records import Judgement, Status
from codescaler_plugin.serving.batching import (
    CHARS_PER_TOKEN,
    DynamicBatcher,
    EngineCrashedError,
    NotReadyError,
    OverloadedError,
)
from codescaler_plugin.serving.metrics import Metrics
from codescaler_plugin.serving.samples import Sample


class Engine:
    """Keeps what it is sent; answers with the length of the text after `seconds`, unless told otherwise."""

    def __init__(self, seconds: float | None = 0.0) -> None:
        self.is_ready = self.has_been_ready = True
        self.state = ""
        self.seconds = seconds
        self.batches: list[list[Sample]] = []
        self.futures: list[asyncio.Future[list[Judgement]]] = []
        self.times: list[float] = []
        self.killed: list[str] = []
        self.crashes_of: Callable[[Sample], bool] = lambda _: False

    async def ready(self) -> None:
        while not self.is_ready:
            await asyncio.sleep(0.001)

    def send(self, samples: Sequence[Sample]) -> "asyncio.Future[list[Judgement]]":
        loop = asyncio.get_running_loop()
        self.batches.append(list(samples))
        self.times.append(loop.time())
        future: asyncio.Future[list[Judgement]] = loop.create_future()
        self.futures.append(future)
        if any(map(self.crashes_of, samples)):
            loop.call_soon(future.set_exception, EngineCrashedError("killed by SIGKILL"))
        elif self.seconds is not None:
            loop.call_later(self.seconds, self.finish, len(self.futures) - 1)
        return future

    def finish(self, batch: int) -> None:
        if not self.futures[batch].done():
            self.futures[batch].set_result([scored(len(sample.text)) for sample in self.batches[batch]])

    def kill(self, reason: str) -> None:
        self.killed.append(reason)


def run(engine: Engine, work: Callable[[DynamicBatcher], Awaitable[Any]], **settings_: Any) -> Any:
    async def main() -> Any:
        batcher = DynamicBatcher(engine, Metrics(), **settings_)
        batcher.start()
        try:
            return await work(batcher)
        finally:
            await asyncio.wait_for(batcher.stop(), 10)
            assert batcher.waiting == 0

    return asyncio.run(main())


def code(problem: str, text: str = "x = 1\n") -> Sample:
    return Sample("code", problem, text)


def scored(size: int) -> Judgement:
    return Judgement(float(size), float(size), Status.OK, "")


def scores(answers: list[Judgement]) -> list[float | None]:
    return [answer.score for answer in answers]


def test_samples_of_one_problem_from_many_callers_stand_together() -> None:
    engine = Engine()

    async def work(batcher: DynamicBatcher) -> None:
        await asyncio.gather(*(batcher.submit([code(f"p{number % 4}")]) for number in range(64)))

    run(engine, work, max_wait=0.2)
    [batch] = engine.batches
    assert [sample.problem for sample in batch] == [f"p{place // 16}" for place in range(64)]


def test_answers_come_in_the_order_of_the_call() -> None:
    items = [code(f"p{number % 3}", "x" * (number + 1)) for number in range(30)]

    async def work(batcher: DynamicBatcher) -> list[Judgement]:
        return await batcher.submit(items)

    assert scores(run(Engine(), work)) == [float(number + 1) for number in range(30)]


@settings(max_examples=30, deadline=None)
@given(
    calls=st.lists(st.lists(st.tuples(st.integers(0, 3), st.integers(1, 400)), max_size=6), min_size=1, max_size=12),
    budget=st.integers(1, 200),
    slots=st.integers(1, 3),
    crashes=st.sets(st.integers(1, 400), max_size=3),
)
def test_every_sample_gets_its_own_answer_once(
    calls: list[list[tuple[int, int]]], budget: int, slots: int, crashes: set[int]
) -> None:
    engine = Engine(seconds=0.001)
    engine.crashes_of = lambda sample: len(sample.text) in crashes

    async def work(batcher: DynamicBatcher) -> list[list[Judgement]]:
        sent = [[code(f"p{problem}", "x" * size) for problem, size in call] for call in calls]
        return await asyncio.gather(*map(batcher.submit, sent))

    answered = run(engine, work, max_wait=0.001, max_tokens=budget, slots=slots)
    for call, answers in zip(calls, answered, strict=True):
        for (_, size), answer in zip(call, answers, strict=True):
            if size in crashes:
                assert str(answer.failure) == "worker: the scoring worker crashed 3 times with this sample alone"
            else:
                assert answer == scored(size)
    lethal = sum(size in crashes for call in calls for _, size in call)
    # At most twice, once in a batch and once alone; a lethal sample once in a batch and three times alone.
    assert sum(len(batch) for batch in engine.batches) <= 2 * sum(map(len, calls)) + 2 * lethal
    assert sum(any(len(sample.text) in crashes for sample in batch) for batch in engine.batches) <= 4 * lethal


def test_lonely_sample_waits_a_third_and_a_stream_the_whole_of_max_wait() -> None:
    engine = Engine()

    async def work(batcher: DynamicBatcher) -> tuple[float, float]:
        loop = asyncio.get_running_loop()
        start = loop.time()
        await batcher.submit([code("p")])
        alone = engine.times[0] - start
        start = loop.time()
        calls = []
        while len(engine.batches) < 2:
            calls.append(asyncio.create_task(batcher.submit([code("q")])))
            await asyncio.sleep(0.02)
        await asyncio.gather(*calls)
        return alone, engine.times[1] - start

    alone, stream = run(engine, work, max_wait=1.5)
    assert 0.49 < alone < 1.3
    assert 1.49 < stream < 4


def test_batch_keeps_its_budget_with_a_problem_counted_once() -> None:
    engine = Engine()
    problem = "p" * 30 * CHARS_PER_TOKEN
    items = [code(problem, "x" * (10 * CHARS_PER_TOKEN - 1)) for _ in range(10)]
    items.append(code("q", "y" * 500 * CHARS_PER_TOKEN))  # fits no batch: goes alone

    async def work(batcher: DynamicBatcher) -> None:
        await batcher.submit(items)

    run(engine, work, max_tokens=80)
    assert [len(batch) for batch in engine.batches] == [5, 5, 1]


def test_queries_are_counted_by_what_they_add_to_their_prompt() -> None:
    engine = Engine()
    prompt = "p" * 30 * CHARS_PER_TOKEN
    items = [Sample("query", prompt, prompt + "x" * 10 * CHARS_PER_TOKEN) for _ in range(10)]

    async def work(batcher: DynamicBatcher) -> None:
        await batcher.submit(items)

    run(engine, work, max_tokens=80)
    assert [len(batch) for batch in engine.batches] == [5, 5]


def test_while_all_slots_are_taken_samples_gather_at_no_cost() -> None:
    engine = Engine(seconds=None)

    async def work(batcher: DynamicBatcher) -> None:
        calls = [asyncio.create_task(batcher.submit([code("first")]))]
        while not engine.batches:
            await asyncio.sleep(0.001)
        for _ in range(8):
            calls.append(asyncio.create_task(batcher.submit([code("later")])))
            await asyncio.sleep(0.01)
        assert len(engine.batches) == 1
        assert batcher.waiting == 8
        engine.finish(0)
        while len(engine.batches) < 2:
            await asyncio.sleep(0.001)
        engine.finish(1)
        await asyncio.gather(*calls)

    run(engine, work, max_wait=0.001, slots=1)
    assert [len(batch) for batch in engine.batches] == [1, 8]


def test_cancelled_caller_frees_its_place() -> None:
    engine = Engine(seconds=None)

    async def work(batcher: DynamicBatcher) -> None:
        first = asyncio.create_task(batcher.submit([code("first")]))
        while not engine.batches:
            await asyncio.sleep(0.001)
        leaves = asyncio.create_task(batcher.submit([code("left"), code("left")]))
        stays = asyncio.create_task(batcher.submit([code("stays")]))
        await asyncio.sleep(0.01)
        assert batcher.waiting == 3
        leaves.cancel()
        await asyncio.sleep(0.01)
        assert batcher.waiting == 1
        engine.seconds = 0.0
        engine.finish(0)
        assert scores([*await first, *await stays]) == [6.0, 6.0]

    run(engine, work, max_wait=0.001, slots=1)
    assert [[sample.problem for sample in batch] for batch in engine.batches] == [["first"], ["stays"]]


def test_full_queue_takes_nothing_of_a_call() -> None:
    engine = Engine(seconds=None)

    async def work(batcher: DynamicBatcher) -> None:
        calls = [asyncio.create_task(batcher.submit([code("p")]))]
        while not engine.batches:
            await asyncio.sleep(0.001)
        calls.append(asyncio.create_task(batcher.submit([code("q")] * 9)))  # longer than the queue, but it is empty
        await asyncio.sleep(0.01)
        with pytest.raises(OverloadedError, match=r"9 samples wait already, at most 4 may: ask again later"):
            await batcher.submit([code("r")])
        assert batcher.waiting == 9
        engine.seconds = 0.0
        engine.finish(0)
        await asyncio.gather(*calls)
        assert scores(await batcher.submit([code("r")])) == [6.0]

    run(engine, work, max_wait=0.001, max_queue=4, slots=1)


def test_samples_of_a_crashed_engine_are_sent_again_each_alone() -> None:
    engine = Engine()
    engine.crashes_of = lambda sample: sample.problem == "poison"

    async def work(batcher: DynamicBatcher) -> list[Judgement]:
        return await batcher.submit([code("p"), code("p", "xy"), code("poison"), code("q", "xyz")])

    answers = run(engine, work)
    assert scores(answers) == [6.0, 2.0, None, 3.0]
    assert str(answers[2].failure) == "worker: the scoring worker crashed 3 times with this sample alone"
    assert [[sample.problem for sample in batch] for batch in engine.batches[1:]] == [
        ["p"],
        ["p"],
        ["poison"],
        ["q"],
        ["poison"],
        ["poison"],
    ]


def test_an_engine_killed_from_outside_again_and_again_costs_no_sample_its_answer() -> None:
    engine = Engine()
    kills = iter([True, *[False, False, False, True] * 4])  # the first batch and every fourth, whatever is in it
    engine.crashes_of = lambda sample: next(kills, False)

    async def work(batcher: DynamicBatcher) -> list[Judgement]:
        return await batcher.submit([code("p", "x" * size) for size in range(1, 9)])

    assert scores(run(engine, work)) == [float(size) for size in range(1, 9)]
    assert [len(batch[0].text) for batch in engine.batches] == [1, 1, 2, 3, 4, 5, 6, 7, 8, 4, 8]


def test_a_crash_beside_another_batch_is_not_held_against_a_sample() -> None:
    engine = Engine(seconds=None)

    def crash() -> None:
        for future in engine.futures:
            if not future.done():
                future.set_exception(EngineCrashedError("killed by SIGKILL"))

    async def until(count: int) -> None:
        while len(engine.batches) < count:
            await asyncio.sleep(0.001)

    async def work(batcher: DynamicBatcher) -> list[Judgement]:
        good = asyncio.create_task(batcher.submit([code("p")]))
        await until(1)
        other = asyncio.create_task(batcher.submit([code("poison")]))
        await until(2)  # both are under way, each a batch of its own
        crash()
        await until(3)
        late = asyncio.create_task(batcher.submit([code("q")]))
        await asyncio.sleep(0.05)
        assert len(engine.batches) == 3  # nothing is sent beside a sample that is tried alone
        crash()
        engine.seconds = 0.0
        await until(4)
        engine.finish(3)
        return [answer for call in (good, other, late) for answer in await call]

    assert scores(run(engine, work, max_wait=0.001, slots=2)) == [6.0, 6.0, 6.0]
    assert [batch[0].problem for batch in engine.batches] == ["p", "poison", "p", "poison", "p", "q"]


def test_nothing_is_sent_to_an_engine_that_is_not_ready() -> None:
    engine = Engine()
    engine.is_ready = False

    async def work(batcher: DynamicBatcher) -> list[Judgement]:
        call = asyncio.create_task(batcher.submit([code("p")]))
        await asyncio.sleep(0.05)
        assert engine.batches == []
        engine.is_ready = True
        return await call

    assert scores(run(engine, work, max_wait=0.001)) == [6.0]


def test_silent_engine_is_killed_and_its_samples_are_answered_in_time() -> None:
    engine = Engine(seconds=None)

    async def work(batcher: DynamicBatcher) -> list[Judgement]:
        return await batcher.submit([code("p")])

    start = time.monotonic()
    [answer] = run(engine, work, timeout=0.4)
    assert str(answer.failure) == "timeout: no answer within 0.4 s"
    assert time.monotonic() - start < 5
    assert engine.killed[0] == "no answer to 1 samples within 0.2 s; raise the timeout"
    assert len(engine.batches) == 2


def test_stop_answers_what_was_accepted() -> None:
    engine = Engine(seconds=0.05)

    async def main() -> list[list[Judgement]]:
        batcher = DynamicBatcher(engine, Metrics(), slots=1, max_tokens=1)
        batcher.start()
        calls = [asyncio.create_task(batcher.submit([code(f"p{number}")])) for number in range(6)]
        await asyncio.sleep(0.01)
        await batcher.stop()
        assert all(call.done() for call in calls)
        return await asyncio.gather(*calls)

    assert [scores(answers) for answers in asyncio.run(main())] == [[6.0]] * 6


def test_an_empty_call_is_answered_without_the_engine() -> None:
    engine = Engine()
    assert run(engine, lambda batcher: batcher.submit([])) == []
    assert engine.batches == []


@pytest.mark.parametrize("seconds", [60.0, 0.05])  # never ready, and ready too late for an answer
def test_a_call_before_the_engine_was_ever_ready_fails_as_a_whole(seconds: float) -> None:
    engine = Engine(seconds=None)
    engine.is_ready = engine.has_been_ready = False
    engine.state = "the model is being loaded"

    async def work(batcher: DynamicBatcher) -> None:
        def load() -> None:
            engine.is_ready = engine.has_been_ready = True
            engine.state = ""

        asyncio.get_running_loop().call_later(seconds, load)
        with pytest.raises(
            NotReadyError, match=r"model (is being loaded|has just become ready): no answer within 0\.1 s"
        ):
            await batcher.submit([code("p"), code("q")])
        if engine.is_ready:
            [answer] = await batcher.submit([code("p")])
            assert str(answer.failure).startswith("timeout: ")

    run(engine, work, timeout=0.1)
