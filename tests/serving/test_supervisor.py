"""A worker that crashes, hangs or is killed is started again, and costs no sample its reward."""

import asyncio
import random
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from codescaler_plugin.serving import supervisor
from codescaler_plugin.serving.metrics import Metrics
from tests.serving.running import CONFIG, Running, body_of, query_of, reward_of, served


def test_worker_that_crashes_under_load_is_started_again_and_nothing_is_lost(server: Running, tmp_path: Path) -> None:
    starts = server.metric("codescaler_worker_starts_total")
    lost = server.metric("codescaler_failures_total")
    codes = [f"x = {number}\n" for number in range(40)]
    codes[7] = f"die_once = '{tmp_path / 'died'}'\n"
    with ThreadPoolExecutor(40) as pool:
        answers = list(pool.map(lambda code: server.json("/get_reward", body_of(code)), codes))
    assert (tmp_path / "died").exists()
    assert [answer["rewards"] for answer in answers] == [[pytest.approx(reward_of(code))] for code in codes]
    assert server.metric("codescaler_worker_starts_total") == starts + 1
    assert server.metric("codescaler_failures_total") == lost


def test_sample_that_kills_the_worker_again_and_again_gets_the_fallback_and_costs_no_other_its_reward(
    server: Running,
) -> None:
    codes = ["die = 1\n", *(f"y = {number}\n" for number in range(8))]
    body = {"query": [query_of(code) for code in codes]}
    assert server.json("/get_reward", body)["rewards"] == [
        0.0,
        *(pytest.approx(reward_of(code)) for code in codes[1:]),
    ]
    assert server.metric('codescaler_failures_total{cause="worker"}') >= 1


def test_sample_that_hangs_is_answered_within_the_timeout(caplog: pytest.LogCaptureFixture) -> None:
    with served(timeout=2.0) as running:
        start = time.monotonic()
        assert running.json("/get_reward", body_of("hang = 1\n"))["rewards"] == [0.0]
        assert time.monotonic() - start < 10
        running.until_ready()
    assert "the scoring worker is killed: no answer to 1 samples within 1 s" in caplog.text


def test_a_worker_that_hangs_while_it_loads_is_started_again(caplog: pytest.LogCaptureFixture, tmp_path: Path) -> None:
    """The first start is ready and dies, the second hangs, the third is ready."""
    ready = r"""printf '\000\000\000\017{"ready": true}'"""
    script = (
        f"echo >> starts; case $(wc -l < starts) in 1) {ready};; 2) exec sleep 60;; 3) {ready}; exec sleep 60;; esac"
    )
    worker = supervisor.Worker(CONFIG, Metrics(), ("/bin/sh", "-c", f"cd {tmp_path}; {script}"), load_timeout=0.5)

    async def until_third_start() -> list[str]:
        living = asyncio.create_task(worker.run())
        states: list[str] = []
        while len(states) < 3 or worker.state:
            if worker.state and worker.state not in states:
                states.append(worker.state)
            await asyncio.sleep(0.01)
        living.cancel()
        await asyncio.wait([living])
        return states

    states = asyncio.run(asyncio.wait_for(until_third_start(), 20))
    hung = "the model was not ready within 0.5 s; raise the load timeout"
    assert states == ["the model is being loaded", "exit code 0", hung]
    assert f"the scoring worker is killed: {hung}" in caplog.text
    assert f"the scoring worker ended: {hung}. It is started again" in caplog.text


@pytest.mark.parametrize(
    ("ending", "cause"), [("exit 3", "exit code 3"), ("kill -9 $$", "killed by SIGKILL, as when memory runs out")]
)
def test_the_cause_of_a_workers_end_is_its_own(ending: str, cause: str) -> None:
    """Its output ends before it does."""
    metrics = Metrics()
    script = f"exec 1>&-; sleep 0.05; {ending}"
    worker = supervisor.Worker(CONFIG, metrics, command=("/bin/sh", "-c", script))

    async def die() -> None:
        living = asyncio.create_task(worker.run())
        while worker.state == "the model is being loaded":
            await asyncio.sleep(0.01)
        living.cancel()

    asyncio.run(die())
    assert worker.state == cause


def test_a_worker_that_is_killed_while_it_is_stopped_is_not_started_again() -> None:
    async def stopped() -> bool:
        worker = supervisor.Worker(CONFIG, Metrics(), command=("/bin/sh", "-c", "exec sleep 30"))
        living = asyncio.create_task(worker.run())
        await asyncio.sleep(0.02)
        worker.kill("it hangs")
        await asyncio.sleep(random.random() * 0.004)
        living.cancel()
        await asyncio.wait([living], timeout=5)
        return living.cancelled()

    async def all_stopped() -> list[bool]:
        return [await stopped() for _ in range(100)]

    assert all(asyncio.run(all_stopped()))
