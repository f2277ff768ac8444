"""`compute_score` as verl's naive manager calls it: keywords, from threads or awaited."""

import asyncio
import inspect
import math

import numpy as np
import pytest

from codescaler_plugin import CodeScaler, CodeScalerConfig, DataError
from codescaler_plugin.integrations import reward_hook
from tests.integrations.openrlhf.test_reward import judged, loaded, sized
from tests.samples import fenced

CODE = fenced("x = 1")
KEYS = {"score", "probability", "codescaler_valid", "codescaler_fallback"}


@pytest.fixture(autouse=True)
def _fresh_hook():
    reward_hook.hook.cache_clear()
    yield
    reward_hook.hook.cache_clear()


def arguments(solution, extra_info):
    return {"data_source": "deepcoder", "solution_str": solution, "ground_truth": "[]", "extra_info": extra_info}


def test_score_equals_direct_scoring_and_keys_never_change(tiny_rm_dir, monkeypatch):
    monkeypatch.setenv("CODESCALER_MODEL", str(tiny_rm_dir))
    module = loaded("verl")
    good = module.compute_score(**arguments(CODE, {"problem": "Write one.", "num_turns": None}))
    bad = module.compute_score(**arguments("No.", {"question": "Write one."}), reward_router_address="h:1")
    [direct] = CodeScaler(config=CodeScalerConfig(model=str(tiny_rm_dir))).judge(["Write one."], [CODE])
    assert good == pytest.approx(
        {
            "score": direct.reward,
            "probability": 1 / (1 + math.exp(-direct.score)),
            "codescaler_valid": 1.0,
            "codescaler_fallback": 0.0,
        },
        rel=1e-5,
    )
    assert bad == dict.fromkeys(KEYS, 0.0)


def test_coroutine_is_recognised_and_many_run_at_once(serve, monkeypatch):
    monkeypatch.setenv("CODESCALER_MODEL", serve(lambda path, body: (200, judged(body))).url)
    monkeypatch.setenv("CODESCALER_SHAPING", "raw")
    module = loaded("verl")
    assert inspect.iscoroutinefunction(module.compute_score_async)
    assert not inspect.iscoroutinefunction(module.compute_score)

    async def run():
        samples = [arguments(sized(size).text, {"problem": "p"}) for size in range(6, 38)]
        return await asyncio.gather(*(module.compute_score_async(**sample) for sample in samples))

    assert [one["score"] for one in asyncio.run(run())] == [float(size) for size in range(6, 38)]


@pytest.mark.parametrize("extra_info", [None, {}, {"index": 3, "prompt": "x"}])
def test_a_row_without_a_problem_is_named(serve, monkeypatch, extra_info):
    monkeypatch.setenv("CODESCALER_MODEL", serve(lambda path, body: (200, judged(body))).url)
    module = loaded("verl")
    with pytest.raises(DataError, match=r"'deepcoder' has no problem.*extra_info"):
        module.compute_score(**arguments(CODE, extra_info))


def test_messages_of_parquet_files_are_a_problem(serve, monkeypatch):
    asked = []
    server = serve(lambda path, body: (asked.append(body), (200, judged(body)))[1])
    monkeypatch.setenv("CODESCALER_MODEL", server.url)
    module = loaded("verl")
    parts = np.array([{"type": "text", "text": "Write "}, {"type": "text", "text": "it."}])
    module.compute_score(**arguments(CODE, {"problem": np.array([{"role": "user", "content": parts}])}))
    assert asked[-1]["items"][0]["problem"] == "Write it."


def test_a_problem_without_text_is_no_end_of_the_run(monkeypatch):
    monkeypatch.setenv("CODESCALER_MODEL", "builtin")
    module = loaded("verl")
    image = [{"role": "user", "content": [{"type": "image"}]}]
    assert module.compute_score(**arguments(CODE, {"problem": image}))["codescaler_fallback"] == 1.0


def test_a_server_that_fails_is_a_fallback_with_the_same_keys(serve, monkeypatch):
    answers = iter([200] * 3)  # the check, and a first score
    monkeypatch.setenv("CODESCALER_MODEL", serve(lambda path, body: (next(answers, 503), judged(body))).url)
    monkeypatch.setenv("CODESCALER_PATIENCE", "0")
    monkeypatch.setenv("CODESCALER_FALLBACK", "-1")
    module = loaded("verl")
    module.compute_score(**arguments(CODE, {"problem": "p"}))
    made = module.compute_score(**arguments(CODE, {"problem": "p"}))
    assert made.keys() == KEYS
    assert (made["score"], made["codescaler_fallback"]) == (-1.0, 1.0)
