"""The reward from a file, as OpenRLHF loads and calls it, and the hook behind it."""

import asyncio
import importlib.util
import logging
import math
import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from codescaler_plugin import CodeScaler, CodeScalerConfig, ConfigError, http_client
from codescaler_plugin.cli import app
from codescaler_plugin.errors import DataError, ScorerError
from codescaler_plugin.integrations import reward_hook
from codescaler_plugin.integrations.reward_hook import RewardHook
from codescaler_plugin.serving.samples import Sample
from codescaler_plugin.testing import FakeScorer
from codescaler_plugin.text.messages import stated_problem
from tests.samples import fenced

CODE = fenced("x = 1")
PROMPT = "<|im_start|>user\nWrite one.<|im_end|>\n<|im_start|>assistant\n"


def local(scorer, **settings) -> RewardHook:
    return RewardHook(CodeScaler(scorer, config=CodeScalerConfig(shaping="raw", **settings)))


def remote(url: str, **settings) -> RewardHook:
    return RewardHook(CodeScaler(config=CodeScalerConfig(model=url, shaping="raw", **settings)))


def rewards(hook: RewardHook, items) -> list[float]:
    return [judgement.reward_or(hook.fallback) for judgement in hook.judge(items)]


class Afterwards(FakeScorer):
    """Scores its first program, so that what fails later is no outage from the start."""

    def __init__(self, act) -> None:
        super().__init__()
        self.act = act

    def score(self, items):
        scores = super().score(items)
        return scores if len(self.calls) == 1 else self.act(items)


def scored_once(hook: RewardHook) -> RewardHook:
    hook.judge([completion(fenced("first = 1"))])
    return hook


def completion(text: str, problem: str = "p") -> Sample:
    return Sample("completion", problem, text)


def judged(body):
    """As a server answers: the number of characters of each program is its score."""
    sizes = [float(len(item["code"])) for item in body["items"]]
    return {
        "scores": sizes,
        "judgements": [
            {"reward": size, "score": size, "status": "ok", "code": "", "failure": None, "explanation": "So."}
            for size in sizes
        ],
    }


def sized(size: int) -> Sample:
    """A completion with a program of so many characters."""
    return completion(fenced("x = " + "1" * (size - 5)))


def loaded(name: str):
    """The module as the hosts load it: by path, under a name of their own."""
    path = CliRunner().invoke(app, ["where", name]).stdout.strip()
    spec = importlib.util.spec_from_file_location("reward_func", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(autouse=True)
def _fresh_hook():
    reward_hook.hook.cache_clear()
    yield
    reward_hook.hook.cache_clear()


# What a sample is


@pytest.mark.parametrize(
    ("label", "problem"),
    [
        ({"problem": "P"}, "P"),
        ('{"question": "P", "tests": [1]}', "P"),
        ({"question_content": "P"}, "P"),
        ({"input": "1 2", "output": "3"}, None),
        ('{"input": "1 2"}', None),
        ("42", None),
        ("{broken", None),
        ("", None),
        (None, None),
        (["P"], None),
        ({"problem": " "}, None),
        ({"problem": ["P"]}, None),
        ("{" * 100_000, None),
        ({"problem": [{"role": "user", "content": "P"}]}, "P"),
        ({"problem": [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "P"}]}]}, "P"),
        ({"problem": np.array([{"role": "system", "content": "S"}, {"role": "user", "content": "P"}])}, "P"),
        ({"problem": np.array([{"role": "user", "content": np.array([{"type": "text", "text": "P"}])}])}, "P"),
        ('{"problem": [{"from": "human", "value": "P"}]}', "P"),
        ({"problem": [{"role": "user", "content": [{"type": "image"}]}]}, ""),
    ],
)
def test_stated_problem(label, problem):
    assert stated_problem(label) == problem


def test_problem_comes_from_the_label_before_the_prompt():
    scorer = FakeScorer()
    samples = [(PROMPT + CODE, PROMPT, ""), (PROMPT + CODE, PROMPT, '{"problem": "Stated."}')]
    assert rewards(local(scorer), [Sample.from_query(*sample) for sample in samples]) == [6.0, 6.0]
    assert scorer.calls == [[("Write one.", "x = 1\n"), ("Stated.", "x = 1\n")]]


# Never without a number


def test_invalid_code_is_a_judgement_and_no_fallback(caplog):
    hook = local(FakeScorer(), fallback=-1.0)
    [one] = hook.judge([completion("I cannot.")])
    assert (one.reward_or(hook.fallback), one.probability, one.is_valid, one.failure) == (0.0, 0.0, False, None)
    assert not hook.fallbacks
    assert not caplog.records


def test_a_scorer_that_fails_costs_a_second_try_a_count_and_an_error(caplog):
    scorer = FakeScorer(fails_after=1)
    hook = scored_once(local(scorer, fallback=-0.5))
    with caplog.at_level(logging.ERROR):
        [one] = hook.judge([completion(CODE)])
    assert (one.reward_or(hook.fallback), one.probability, one.failure.kind) == (-0.5, 0.0, "scorer")
    assert one.logs() == {"codescaler_valid": 1.0, "codescaler_fallback": 1.0}
    assert len(scorer.calls) == 3
    assert hook.fallbacks == {"scorer": 1}
    assert "fallback reward -0.5, 1 so far" in caplog.text
    assert "out of memory" in caplog.text


def test_a_prompt_cut_down_to_nothing_gets_the_fallback_and_its_neighbour_a_reward():
    cut = Sample("query", "<|im_start|>assistant\n", f"<|im_start|>assistant\n{CODE}")
    hook = local(FakeScorer())
    first, second = hook.judge([cut, completion(CODE)])
    assert first.failure is not None
    assert second.reward == 6.0
    assert hook.fallbacks == {"data": 1}


def test_a_pipeline_that_breaks_its_promise_leaves_nobody_waiting(monkeypatch):
    hook = scored_once(local(FakeScorer()))

    def broken(*_):
        raise ZeroDivisionError("bug")

    monkeypatch.setattr(reward_hook, "judge_samples", broken)
    [one] = hook.judge([completion(CODE)])
    assert str(one.failure) == "scorer: ZeroDivisionError: bug"


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, asyncio.CancelledError, StopIteration])
def test_whatever_a_scorer_raises_the_next_call_is_answered(error):
    hook = scored_once(
        local(Afterwards(lambda items: (_ for _ in ()).throw(error) if "bad" in items[0][1] else [1.0]))
    )

    def answers():
        return [hook.judge([completion(fenced(code))])[0].failure for code in ("bad = 1", "x = 1")]

    with ThreadPoolExecutor(1) as thread:
        failed, scored = thread.submit(answers).result(timeout=20)
    assert (failed.kind, scored) == ("scorer", None)


@pytest.mark.parametrize("kind", ["scorer", "unreachable", "key"])
def test_an_outage_before_any_program_has_a_score_is_an_error(serve, kind):
    url = {"unreachable": "http://127.0.0.1:9", "key": serve(lambda path, body: (401, {})).url}.get(kind)
    hook = local(FakeScorer(fails_after=0)) if url is None else remote(url, patience=0.0)
    for _ in range(2):
        with pytest.raises(ScorerError, match="no program has a score yet, and the reward model fails"):
            hook.judge([completion(CODE)])
    assert not hook.fallbacks
    assert rewards(hook, [completion("I cannot.")]) == [0.0]


def test_a_failure_without_a_fallback_is_raised():
    hook = scored_once(local(FakeScorer(fails_after=1), fallback=None))
    with pytest.raises(ScorerError, match="out of memory"):
        hook.judge([completion(CODE)])
    with pytest.raises(DataError, match="prompt"):
        hook.judge([Sample("query", "<|im_start|>assistant\n", f"<|im_start|>assistant\n{CODE}")])


def test_a_forked_process_has_a_hook_of_its_own(monkeypatch):
    monkeypatch.setenv("CODESCALER_MODEL", "builtin")
    assert reward_hook.hook().judge([completion("no")])[0].reward == 0.0
    child = os.fork()
    if not child:
        os._exit(int(reward_hook.hook().judge([completion("no")])[0].reward != 0.0))
    deadline = time.monotonic() + 20
    while (ended := os.waitpid(child, os.WNOHANG)) == (0, 0) and time.monotonic() < deadline:
        time.sleep(0.05)
    if ended == (0, 0):
        os.kill(child, 9)
        os.waitpid(child, 0)
    assert ended == (child, 0)


@pytest.mark.parametrize("score", [math.nan, math.inf, None])
def test_a_score_that_is_no_number_is_a_fallback(score):
    class Odd:
        def score(self, items):
            return [score] * len(items)

    hook = local(Odd())
    [one] = hook.judge([completion(CODE)])
    assert (one.reward_or(hook.fallback), one.failure.kind) == (0.0, "no_score")


def test_no_samples_no_rewards():
    assert local(FakeScorer()).judge([]) == []


# Many threads


def test_concurrent_calls_share_batches_and_get_their_own_rewards():
    class Slow(FakeScorer):
        def score(self, items):
            time.sleep(0.02)
            return super().score(items)

    scorer = Slow()
    hook = local(scorer)
    codes = [f"x = {'1' * (number + 1)}" for number in range(64)]
    with ThreadPoolExecutor(64) as threads:
        found = list(threads.map(lambda code: hook.judge([completion(fenced(code))])[0].reward, codes))
    assert found == [float(len(code) + 1) for code in codes]
    assert sum(map(len, scorer.calls)) == 64
    assert len(scorer.calls) < 32


def test_calls_to_servers_go_on_side_by_side(serve):
    busy, most, lock = [0], [0], threading.Lock()

    def answer(path, body):
        with lock:
            busy[0] += 1
            most[0] = max(most[0], busy[0])
        time.sleep(0.05)
        with lock:
            busy[0] -= 1
        return 200, judged(body)

    hook = remote(serve(answer).url)
    with ThreadPoolExecutor(16) as threads:
        sent = [threads.submit(hook.judge, [sized(size)]) for size in range(6, 22) if not time.sleep(0.01)]
    assert [future.result()[0].reward for future in sent] == [float(size) for size in range(6, 22)]
    assert most[0] > 1


# Servers


def test_the_prompt_is_taken_apart_before_it_is_sent(serve):
    double = serve(lambda path, body: (200, judged(body)))
    remote(double.url, api_key="key").judge(
        [Sample.from_query(PROMPT + CODE, PROMPT), Sample.from_query(PROMPT + "No.", PROMPT)]
    )
    assert double.asked == [("/v1/score", {"items": [{"problem": "Write one.", "code": "x = 1\n"}]})]
    assert double.headers[0]["Authorization"] == "Bearer key"


def test_a_server_that_comes_back_in_time_costs_no_sample(serve):
    late = {
        "reward": None,
        "score": None,
        "status": None,
        "code": "",
        "failure": {"kind": "timeout", "reason": "late"},
        "explanation": "There is no reward (timeout): late.",
    }
    answers = iter([(503, {}), (500, {}), (200, {"judgements": [late]}), (200, None)])

    def answer(path, body):
        status, said = next(answers)
        return status, judged(body) if said is None else said

    hook = remote(serve(answer).url, patience=5.0)
    [one] = hook.judge([completion(CODE)])
    assert (one.reward, one.failure) == (6.0, None)


def test_patience_ends(serve, monkeypatch):
    monkeypatch.setattr(http_client, "_FIRST_PAUSE", 0.2)
    monkeypatch.setattr(http_client, "_LONGEST_PAUSE", 0.2)
    double = serve(lambda path, body: (200, judged(body)))
    hook = scored_once(remote(double.url, patience=0.5))
    double.answer = lambda path, body: (503, {"detail": "no room"})
    started = time.monotonic()
    [one] = hook.judge([completion(CODE)])
    assert one.failure.kind == "scorer"
    assert 0.3 < time.monotonic() - started < 3
    assert len(double.asked) in (3, 4)


def test_a_refused_sample_costs_no_other_its_reward(serve):
    def answer(path, body):
        bad = any("bad" in item["code"] for item in body["items"])
        return (422, {"detail": "too long"}) if bad else (200, judged(body))

    hook = remote(serve(answer).url)
    items = [completion(fenced(code)) for code in ("a = 1", "bb = 1", "bad = 1", "dddd = 1")]
    assert rewards(hook, items) == [6.0, 7.0, 0.0, 9.0]
    assert hook.fallbacks == {"data": 1}


def test_what_a_server_says_of_a_sample_is_final(serve):
    too_long = {"kind": "no_score", "reason": "too long"}
    said = {"reward": None, "score": None, "status": "ok", "code": "", "failure": too_long, "explanation": "So."}
    double = serve(lambda path, body: (200, {"scores": [None], "judgements": [said]}))
    hook = remote(double.url)
    assert hook.judge([completion(CODE)])[0].failure is not None
    assert hook.fallbacks == {"no_score": 1}
    assert len(double.asked) == 1


# Settings, and what is found out when the host loads the file


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"CODESCALER_FALLBACK": "low"}, "CODESCALER_FALLBACK is 'low': expected a reward or 'error'"),
        ({"CODESCALER_FALLBACK": "nan"}, "fallback is nan"),
        ({"CODESCALER_URL": "http://a", "CODESCALER_PATIENCE": "-1"}, "patience is -1"),
        ({"CODESCALER_URL": "http://"}, "'http:' is no server's address"),
        (
            {"CODESCALER_URL": "http://a", "CODESCALER_MAX_LENGTH": "9"},
            "CODESCALER_MAX_LENGTH: max_length has no effect",
        ),
        ({"CODESCALER_PROBLEM_COLUMN": "problem"}, "a setting of TRL's trainers alone"),
        ({"CODESCALER_SHAPPING": "raw"}, "did you mean CODESCALER_SHAPING"),
        ({"CODESCALER_SHAPING": "rank"}, "compares the completions of a group"),
    ],
)
def test_wrong_settings(variables, message):
    with pytest.raises(ConfigError, match=message):
        RewardHook.from_env(variables)


@pytest.mark.parametrize("name", ["openrlhf", "verl"])
@pytest.mark.parametrize(
    ("status", "message"), [(401, "wants a key"), (404, "/v1/score answered 404"), (None, "cannot be reached")]
)
def test_loading_the_file_reaches_the_server(serve, monkeypatch, name, status, message):
    url = serve(lambda path, body: (status, {})).url if status else "http://127.0.0.1:9"
    monkeypatch.setenv("CODESCALER_MODEL", url)
    monkeypatch.setenv("CODESCALER_PATIENCE", "0.01")
    with pytest.raises(ConfigError, match=message):
        loaded(name)


def test_loading_the_file_finds_a_vllm_server_that_is_not_there(monkeypatch):
    monkeypatch.setenv("CODESCALER_MODEL", "vllm+http://127.0.0.1:9")
    monkeypatch.setenv("CODESCALER_PATIENCE", "0")
    with pytest.raises(ConfigError, match="cannot be reached"):
        loaded("openrlhf")


def test_a_server_that_loads_its_model_is_accepted(serve, monkeypatch):
    monkeypatch.setenv("CODESCALER_MODEL", serve(lambda path, body: (503, {"detail": "loading"})).url)
    loaded("openrlhf")


def test_loading_the_file_finds_a_model_that_is_not_there(tmp_path, monkeypatch):
    monkeypatch.setenv("CODESCALER_MODEL", str(tmp_path / "missing"))
    with pytest.raises(ConfigError, match="missing"):
        loaded("openrlhf")


def test_reward_func_with_a_model_of_this_process(tiny_rm_dir: Path, monkeypatch):
    monkeypatch.setenv("CODESCALER_MODEL", str(tiny_rm_dir))
    module = loaded("openrlhf")
    answer = module.reward_func([PROMPT + CODE, PROMPT + "No."], [PROMPT, PROMPT], ["", None])
    config = CodeScalerConfig(model=str(tiny_rm_dir))
    [direct, _] = CodeScaler(config=config).judge(["Write one."] * 2, [CODE, "No."])
    assert answer["rewards"].tolist() == pytest.approx([direct.reward, 0.0], rel=1e-5)
    assert answer["scores"].tolist() == pytest.approx([1 / (1 + math.exp(-direct.score)), 0.0], rel=1e-5)
    assert {name: values.tolist() for name, values in answer["extra_logs"].items()} == {
        "codescaler_valid": [1.0, 0.0],
        "codescaler_fallback": [0.0, 0.0],
    }
    assert all(value.shape == (2,) for value in (answer["rewards"], answer["scores"]))


@pytest.mark.parametrize(
    ("release", "is_tensor"), [("0.5.9", True), ("0.7.5", True), ("0.8.0", False), ("0.11.2", False)]
)
def test_form_of_the_answer_follows_the_release(serve, monkeypatch, release, is_tensor):
    monkeypatch.setenv("CODESCALER_MODEL", serve(lambda path, body: (200, judged(body))).url)
    module = loaded("openrlhf")
    monkeypatch.setattr(module, "version", lambda name: release)
    answer = module.reward_func([PROMPT + CODE], [PROMPT], future_argument=1)
    rewards = answer if is_tensor else answer["rewards"]
    assert isinstance(answer, torch.Tensor) == is_tensor
    assert rewards.tolist() == [pytest.approx(6.00247568513773)]  # softplus of 6
