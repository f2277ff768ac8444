"""Every host gives each sample the same reward, or the same kind of failure, whatever the reward model's servers do.

Each host asks servers that answer as codescaler servers do, and that fail at random in passing: they hang up, answer
408, 429 or 5xx, are too late for a sample, or break an answer off. What is wrong with a sample stays wrong with it.
"""

import asyncio
import importlib
import itertools
import math
import os
import random
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from types import ModuleType, SimpleNamespace
from typing import Any

import psutil
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from codescaler_plugin import CodeScalerConfig, CodeScalerReward, http_client
from codescaler_plugin.integrations import reward_hook
from codescaler_plugin.serving.config import ServingConfig
from tests.doubles import Double
from tests.integrations.openrlhf.test_reward import loaded
from tests.samples import fenced
from tests.serving.running import Running, served

PROMPT = "<|im_start|>user\nWrite one.<|im_end|>\n<|im_start|>assistant\n"
FALLBACK = -7.0
IMPATIENT = (  # the worker of `codescaler serve`, with the pauses of these tests
    sys.executable,
    "-c",
    "from codescaler_plugin import http_client; from codescaler_plugin.serving.worker import main; "
    "http_client._FIRST_PAUSE, http_client._LONGEST_PAUSE = 0.01, 0.02; main()",
)
FATES = ("fine", "fine", "fine", "invalid", "no_score", "data", "worker", "scorer", "config")
TROUBLES = (0, 408, 429, 500, 502, 503, 504, "late", "partial")  # 0: hangs up

KINDS = ("no_score", "data", "worker", "scorer", "config", "timeout", "overloaded")

Outcome = float | str
"""Of a sample: its reward, or the kind of its failure."""


class Troubled:
    """A codescaler server that scores by the length of the code, and does what its fate says to each program."""

    def __init__(self) -> None:
        self.random = random.Random(0)
        self.in_a_row = 0
        self.is_calm = True
        self.double = Double(self.answer)

    def answer(self, path: str, body: dict[str, Any]) -> tuple[int, Any]:
        codes = [item["code"] for item in body["items"]]
        if any("data" in code for code in codes):
            return 422, {"detail": "too long"}
        trouble: Any = None
        if not self.is_calm and self.in_a_row < 3 and self.random.random() < 0.4:
            self.in_a_row += 1
            trouble = self.random.choice(TROUBLES)
        else:
            self.in_a_row = 0
        if isinstance(trouble, int):
            return trouble, {"detail": "in passing"}
        judgements = [judged(code, trouble == "late" and self.random.random() < 0.5) for code in codes]
        return 200, {"judgements": judgements[:-1] if trouble == "partial" else judgements}


def judged(code: str, is_late: bool) -> dict[str, Any]:
    kind = "timeout" if is_late else next((fate for fate in FATES[4:] if fate in code), None)
    failure = kind and {"kind": kind, "reason": "as told"}
    score = None if kind else float(len(code))
    return {"reward": score, "score": score, "status": "ok", "code": "", "failure": failure, "explanation": "So."}


def completion(number: int, fate: str) -> str:
    return "I cannot." if fate == "invalid" else fenced(f"{fate}_{number} = 1")


def expected(number: int, fate: str) -> Outcome:
    if fate in ("fine", "invalid"):
        return 0.0 if fate == "invalid" else math.log1p(math.exp(len(f"{fate}_{number} = 1\n")))
    return fate


@pytest.fixture(scope="module")
def troubled() -> Iterator[Troubled]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(http_client, "_FIRST_PAUSE", 0.01)
        patch.setattr(http_client, "_LONGEST_PAUSE", 0.02)
        server = Troubled()
        patch.setenv("CODESCALER_MODEL", server.double.url)
        patch.setenv("CODESCALER_FALLBACK", str(FALLBACK))
        reward_hook.hook.cache_clear()
        yield server
        reward_hook.hook.cache_clear()
        server.double.close()


Host = Callable[[list[str]], list[Outcome]]


def of_numbers(rewards: list[float], kinds: Counter[str]) -> list[Outcome]:
    """Outcomes of a host that needs numbers: it counts failures by kind, and a sample does not say which is its."""
    failed = iter(sorted(kinds.elements()))
    outcomes: list[Outcome] = [next(failed) if reward == FALLBACK else reward for reward in rewards]
    assert next(failed, None) is None, "a failure was counted of a sample that has a reward"
    return outcomes


def trl(_: str) -> Host:
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("CODESCALER_FALLBACK")
        reward = CodeScalerReward(max_unscored=1.0)
    seen: list[Any] = []
    reward.observers.append(lambda problems, judgements, log: seen.extend(judgements))
    reward(prompts=["Write one."], completions=[fenced("first = 1")])

    def ask(completions: list[str]) -> list[Outcome]:
        seen.clear()
        rewards = reward(prompts=["Write one."] * len(completions), completions=completions)
        assert [judgement.reward for judgement in seen] == rewards
        return [
            judgement.failure.kind if reward is None else reward
            for reward, judgement in zip(rewards, seen, strict=True)
        ]

    return ask


def hooked(ask: Callable[[list[str]], list[float]]) -> Host:
    ask([fenced("first = 1")])

    def counted(completions: list[str]) -> list[Outcome]:
        before = Counter(reward_hook.hook().fallbacks)
        rewards = ask(completions)
        return of_numbers(rewards, reward_hook.hook().fallbacks - before)

    return counted


def file(_: str) -> Host:
    module = loaded("openrlhf")
    return hooked(
        lambda completions: module.reward_func(
            [PROMPT + text for text in completions], [PROMPT] * len(completions), [""] * len(completions)
        )["rewards"].tolist()
    )


class Turn:
    """What the agent needs of its host: prompt and answer in tokens. Here a token is a character."""

    async def execute(self, *, prompt: str, answer: str, **_: Any) -> dict[str, Any]:
        tokens = [ord(letter) for letter in prompt + answer]
        return {"observation_tokens": tokens, "action_ranges": [(len(prompt), len(tokens))]}


def agent(_: str) -> Host:
    names = ("openrlhf", "openrlhf.utils", "openrlhf.utils.agent")
    with pytest.MonkeyPatch.context() as patch:
        for name in names:
            patch.setitem(sys.modules, name, ModuleType(name))
        sys.modules[names[-1]].SingleTurnAgentExecutor = Turn  # type: ignore[attr-defined]
        executor = loaded("openrlhf-agent").AgentExecutor()
    tokenizer = SimpleNamespace(all_special_ids=[], decode=lambda ids, **_: "".join(map(chr, ids)))

    async def one(text: str) -> float:
        made = await executor.execute(prompt=PROMPT, answer=text, label="", hf_tokenizer=tokenizer)
        assert made["extra_logs"]["codescaler_fallback"] == float(made["reward"] == FALLBACK)
        return float(made["reward"])

    async def all_of(completions: list[str]) -> list[float]:
        return await asyncio.gather(*map(one, completions))

    return hooked(lambda completions: asyncio.run(all_of(completions)))


def verl(_: str) -> Host:
    module = loaded("verl")

    async def all_of(completions: list[str]) -> list[float]:
        made = await asyncio.gather(
            *(module.compute_score_async("d", text, "", {"problem": "Write one."}) for text in completions)
        )
        return [one["score"] for one in made]

    return hooked(lambda completions: asyncio.run(all_of(completions)))


def of_server(running: Running) -> Host:
    def causes() -> Counter[str]:
        return Counter({kind: int(running.metric(f'codescaler_failures_total{{cause="{kind}"}}')) for kind in KINDS})

    def ask(completions: list[str]) -> list[Outcome]:
        before = causes()
        answer = running.json("/get_reward", {"query": [PROMPT + text for text in completions]})
        return of_numbers(answer["rewards"], causes() - before)

    return ask


class Ray(ModuleType):
    """Ray Serve's names, with replicas of which one dies now and then."""

    def __init__(self, url: str) -> None:
        super().__init__("ray.serve")
        self.deaths = itertools.cycle([True, False, False])
        self.url = url
        self.scorer: Any = None
        self.Application = object

    @staticmethod
    def batch(judge: Any) -> Any:
        async def one(self: Any, item: Any) -> Any:
            return (await judge(self, [item]))[0]

        one.set_max_batch_size = one.set_batch_wait_timeout_s = lambda *_: None  # type: ignore[attr-defined]
        return one

    def get_deployment_handle(self, _: str) -> Any:
        return SimpleNamespace(judge=SimpleNamespace(remote=self.judged))

    async def judged(self, item: Any) -> Any:
        module = sys.modules["codescaler_plugin.serving.ray_app"]
        self.scorer = self.scorer or module.Replica(CodeScalerConfig(model=self.url), 8, 0.01)
        if next(self.deaths):
            raise RayError("the replica died")
        return await self.scorer.judge(item)


class RayError(Exception):
    """Stands for Ray's own."""


@contextmanager
def ray_backend(url: str) -> Iterator[Any]:
    serve = Ray(url)
    with pytest.MonkeyPatch.context() as patch:
        modules = {"ray": ModuleType("ray"), "ray.serve": serve}
        for name in ("ray.exceptions", "ray.serve.exceptions"):
            modules[name] = ModuleType(name)
            for error in ("RayError", "BackPressureError", "RayServeException"):
                setattr(modules[name], error, type(error, (RayError,), {}) if error != "RayError" else RayError)
        modules["ray"].serve = serve  # type: ignore[attr-defined]
        for name, module in modules.items():
            patch.setitem(sys.modules, name, module)
        patch.delitem(sys.modules, "codescaler_plugin.serving.ray_app", raising=False)
        yield importlib.import_module("codescaler_plugin.serving.ray_app").RayBackend(30.0)
        del sys.modules["codescaler_plugin.serving.ray_app"]


@pytest.fixture(scope="module")
def hosts(troubled: Troubled) -> Iterator[dict[str, Host]]:
    url = troubled.double.url
    with ExitStack() as stack:
        config, serving = CodeScalerConfig(model=url), ServingConfig(fallback=FALLBACK)
        worker = stack.enter_context(served(serving, config=config, command=IMPATIENT))
        ray = stack.enter_context(ray_backend(url))
        replicas = stack.enter_context(served(serving, config=config, backend=ray))
        yield {
            "TRL": trl(url),
            "OpenRLHF file": file(url),
            "OpenRLHF agent": agent(url),
            "verl": verl(url),
            "server": of_server(worker),
            "Ray": of_server(replicas),
        }


SAMPLES = st.lists(st.sampled_from(FATES), min_size=1, max_size=40)


@settings(
    max_examples=12, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(fates=SAMPLES, seed=st.integers(0, 2**32))
def test_each_sample_gets_the_same_reward_or_failure_from_every_host(
    troubled: Troubled, hosts: dict[str, Host], fates: list[str], seed: int
) -> None:
    completions = [completion(number, fate) for number, fate in enumerate(fates)]
    wanted = [expected(number, fate) for number, fate in enumerate(fates)]
    for name, ask in hosts.items():
        troubled.random, troubled.is_calm = random.Random(seed), False
        try:
            assert alike(ask(completions), wanted), name
        finally:
            troubled.is_calm = True


def alike(outcomes: list[Outcome], wanted: list[Outcome]) -> bool:
    """Rewards in order; of the failures, which samples have one, and their kinds."""
    rewards = [one for one in outcomes if isinstance(one, float)]
    failed = [not isinstance(one, float) for one in outcomes]
    return (
        failed == [not isinstance(one, float) for one in wanted]
        and rewards == pytest.approx([one for one in wanted if isinstance(one, float)], rel=1e-5)
        and Counter(map(str, itertools.compress(outcomes, failed)))
        == Counter(map(str, itertools.compress(wanted, failed)))
    )


def test_a_worker_that_dies_under_a_request_costs_nothing(troubled: Troubled, hosts: dict[str, Host]) -> None:
    fates = ["fine", "no_score", "invalid", "fine"] * 40
    wanted = [expected(number, fate) for number, fate in enumerate(fates)]
    completions = [completion(number, fate) for number, fate in enumerate(fates)]
    [worker] = [child for child in psutil.Process().children() if "serving.worker" in " ".join(child.cmdline())]
    answer = troubled.double.answer
    killed: list[None] = []

    def kill_first(path: str, body: dict[str, Any]) -> tuple[int, Any]:
        if not killed:
            killed.append(os.kill(worker.pid, signal.SIGKILL))
            time.sleep(0.2)
        return answer(path, body)

    troubled.double.answer = kill_first
    try:
        assert alike(hosts["server"](completions), wanted)
    finally:
        troubled.double.answer = answer
    assert killed


def test_an_outage_of_all_servers_is_the_same_failure_everywhere(troubled: Troubled, hosts: dict[str, Host]) -> None:
    answer = troubled.double.answer
    for status in (0, 401, 500):

        def refuse(path: str, body: dict[str, Any], status: int = status) -> tuple[int, Any]:
            return status, {}

        troubled.double.answer = refuse
        try:
            for name, ask in hosts.items():
                kind = "config" if status == 401 else "scorer"
                found = ask([completion(number, "fine") for number in range(5)] + ["I cannot."])
                assert found == [kind] * 5 + [0.0], (name, status)
        finally:
            troubled.double.answer = answer
