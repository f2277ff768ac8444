"""The reward from a file, as OpenRLHF loads and calls it, and the hook behind it."""

import importlib.util
import logging
import math
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from codescaler_plugin import CodeScaler, CodeScalerConfig, ConfigError
from codescaler_plugin.cli import app
from codescaler_plugin.config import HookConfig
from codescaler_plugin.integrations import reward_hook
from codescaler_plugin.integrations.reward_hook import LocalEngine, RemoteEngine, RewardHook
from codescaler_plugin.serving.judging import Item, Judge, item_of
from codescaler_plugin.text.messages import stated_problem
from tests.tiny import FailingScorer, LengthScorer, fenced

CODE = fenced("x = 1")
PROMPT = "<|im_start|>user\nWrite one.<|im_end|>\n<|im_start|>assistant\n"


def local(scorer, **settings) -> RewardHook:
    config = CodeScalerConfig(shaping="raw")
    return RewardHook(LocalEngine(config, Judge(config, CodeScaler(scorer, config=config))), HookConfig(**settings))


def completion(text: str, problem: str = "p") -> Item:
    return Item("completion", problem, text)


def judged(body):
    """As a server answers: the number of characters of each completion is its reward."""
    sizes = [float(len(item["completion"])) for item in body["items"]]
    return {
        "scores": sizes,
        "judgements": [{"reward": size, "score": 0.0, "status": "ok", "code": "x"} for size in sizes],
        "failures": [None] * len(sizes),
    }


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
    scorer = LengthScorer()
    samples = [(PROMPT + CODE, PROMPT, ""), (PROMPT + CODE, PROMPT, '{"problem": "Stated."}')]
    rewards = local(scorer).rewards([item_of(*sample) for sample in samples])
    assert [one.reward for one in rewards] == [6.0, 6.0]
    assert scorer.calls == [[("Write one.", "x = 1\n"), ("Stated.", "x = 1\n")]]


# Never without a number


def test_invalid_code_is_a_judgement_and_no_fallback(caplog):
    hook = local(LengthScorer(), fallback=-1.0)
    [one] = hook.rewards([completion("I cannot.")])
    assert (one.reward, one.probability, one.is_valid, one.is_fallback) == (0.0, 0.0, False, False)
    assert not hook.fallbacks
    assert not caplog.records


def test_a_scorer_that_fails_costs_a_second_try_a_count_and_an_error(caplog):
    scorer = FailingScorer()
    hook = local(scorer, fallback=-0.5)
    with caplog.at_level(logging.ERROR):
        [one] = hook.rewards([completion(CODE)])
    assert (one.reward, one.probability, one.is_fallback) == (-0.5, 0.0, True)
    assert scorer.calls == 2
    assert hook.fallbacks == {"scorer": 1}
    assert "fallback reward -0.5, 1 so far" in caplog.text
    assert "out of memory" in caplog.text


def test_a_prompt_cut_down_to_nothing_gets_the_fallback_and_its_neighbour_a_reward():
    cut = Item("query", "<|im_start|>assistant\n", f"<|im_start|>assistant\n{CODE}")
    hook = local(LengthScorer())
    first, second = hook.rewards([cut, completion(CODE)])
    assert first.is_fallback
    assert second.reward == 6.0
    assert hook.fallbacks == {"data": 1}


def test_an_engine_that_breaks_its_promise_leaves_nobody_waiting():
    class Broken:
        slots = 1

        def check(self):
            pass

        def judge(self, items):
            raise ZeroDivisionError("bug")

    [one] = RewardHook(Broken(), HookConfig()).rewards([completion(CODE)])
    assert one.is_fallback


@pytest.mark.parametrize("score", [math.nan, math.inf, None])
def test_a_score_that_is_no_number_is_a_fallback(score):
    class Odd:
        def score(self, items):
            return [score] * len(items)

    [one] = local(Odd()).rewards([completion(CODE)])
    assert (one.reward, one.is_fallback) == (0.0, True)


def test_no_samples_no_rewards():
    assert local(LengthScorer()).rewards([]) == []


# Many threads


def test_concurrent_calls_share_batches_and_get_their_own_rewards():
    class Slow(LengthScorer):
        def score(self, items):
            time.sleep(0.02)
            return super().score(items)

    scorer = Slow()
    hook = local(scorer)
    codes = [f"x = {'1' * (number + 1)}" for number in range(64)]
    with ThreadPoolExecutor(64) as threads:
        rewards = list(threads.map(lambda code: hook.rewards([completion(fenced(code))])[0].reward, codes))
    assert rewards == [float(len(code) + 1) for code in codes]
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

    hook = RewardHook(RemoteEngine(serve(answer).url), HookConfig(url="-"))
    with ThreadPoolExecutor(16) as threads:
        rewards = list(threads.map(lambda size: hook.rewards([completion("x" * size)])[0].reward, range(1, 17)))
    assert rewards == [float(size) for size in range(1, 17)]
    assert most[0] > 1


# Servers


def test_the_prompt_is_taken_apart_before_it_is_sent(serve):
    double = serve(lambda path, body: (200, judged(body)))
    RemoteEngine(double.url, "key").judge([item_of(PROMPT + CODE, PROMPT)])
    assert double.asked == [("/v1/score", {"items": [{"problem": "Write one.", "completion": CODE}]})]
    assert double.headers[0]["Authorization"] == "Bearer key"


def test_a_server_that_comes_back_in_time_costs_no_sample(serve, monkeypatch):
    monkeypatch.setattr(reward_hook, "_FIRST_PAUSE", 0.01)
    answers = iter([(503, {}), (500, {}), (200, None), (200, judged)])

    def answer(path, body):
        status, made = next(answers)
        return status, made(body) if made else {}

    hook = RewardHook(RemoteEngine(serve(answer).url), HookConfig(url="-", patience=5.0))
    [one] = hook.rewards([completion(CODE)])
    assert (one.reward, one.is_fallback) == (float(len(CODE)), False)


def test_patience_ends(serve):
    double = serve(lambda path, body: (503, {"detail": "no room"}))
    hook = RewardHook(RemoteEngine(double.url), HookConfig(url="-", patience=0.6))
    started = time.monotonic()
    [one] = hook.rewards([completion(CODE)])
    assert one.is_fallback
    assert 0.5 < time.monotonic() - started < 3
    assert len(double.asked) == 3


def test_a_refused_sample_costs_no_other_its_reward(serve):
    def answer(path, body):
        bad = any("bad" in item["completion"] for item in body["items"])
        return (422, {"detail": "too long"}) if bad else (200, judged(body))

    hook = RewardHook(RemoteEngine(serve(answer).url), HookConfig(url="-"))
    rewards = hook.rewards([completion(text) for text in ("a", "bb", "bad", "dddd")])
    assert [one.reward for one in rewards] == [1.0, 2.0, 0.0, 4.0]
    assert hook.fallbacks == {"data": 1}


def test_what_a_server_says_of_a_sample_is_final(serve):
    double = serve(
        lambda path, body: (200, {"scores": [None], "judgements": [None], "failures": ["no_score: too long"]})
    )
    hook = RewardHook(RemoteEngine(double.url), HookConfig(url="-"))
    assert hook.rewards([completion(CODE)])[0].is_fallback
    assert hook.fallbacks == {"no_score": 1}
    assert len(double.asked) == 1


# Settings, and what is found out when the host loads the file


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"CODESCALER_FALLBACK": "low"}, "CODESCALER_FALLBACK is 'low': expected a number"),
        ({"CODESCALER_FALLBACK": "nan"}, "fallback is nan"),
        ({"CODESCALER_PATIENCE": "-1"}, "patience is -1"),
        ({"CODESCALER_URL": "localhost:9"}, "'localhost:9' is no server's address"),
        ({"CODESCALER_URL": "http://a", "CODESCALER_SHAPING": "raw"}, "CODESCALER_SHAPING would have no effect"),
        ({"CODESCALER_SHAPPING": "raw"}, "did you mean CODESCALER_SHAPING"),
        ({"CODESCALER_SHAPING": "rank"}, "compares the completions of a group"),
    ],
)
def test_wrong_settings(variables, message):
    with pytest.raises(ConfigError, match=message):
        RewardHook.from_env(variables)


@pytest.mark.parametrize("name", ["openrlhf", "verl"])
@pytest.mark.parametrize(
    ("status", "message"), [(401, "wants a key"), (404, "answered 404 to /v1/score"), (None, "cannot be reached")]
)
def test_loading_the_file_reaches_the_server(serve, monkeypatch, name, status, message):
    url = serve(lambda path, body: (status, {})).url if status else "http://127.0.0.1:9"
    monkeypatch.setenv("CODESCALER_URL", url)
    with pytest.raises(ConfigError, match=message):
        loaded(name)


def test_a_server_that_loads_its_model_is_accepted(serve, monkeypatch):
    monkeypatch.setenv("CODESCALER_URL", serve(lambda path, body: (503, {"detail": "loading"})).url)
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
    monkeypatch.setenv("CODESCALER_URL", serve(lambda path, body: (200, judged(body))).url)
    module = loaded("openrlhf")
    monkeypatch.setattr(module, "version", lambda name: release)
    answer = module.reward_func([PROMPT + "abc"], [PROMPT], future_argument=1)
    rewards = answer if is_tensor else answer["rewards"]
    assert isinstance(answer, torch.Tensor) == is_tensor
    assert rewards.tolist() == [3.0]


def test_where_names_files_that_exist():
    for name in ("openrlhf", "openrlhf-agent", "verl"):
        path = Path(CliRunner().invoke(app, ["where", name]).stdout.strip())
        assert path.is_file()
        assert path.is_absolute()
    assert CliRunner().invoke(app, ["where", "trl"]).exit_code == 2
