import pickle
import time
from pathlib import Path
from typing import Any

import pytest

from codescaler_plugin import CodeScaler, CodeScalerConfig, ConfigError, ScorerError, load_scorer
from codescaler_plugin.scoring.vllm_scorer import VllmScorer
from tests.samples import fenced
from tests.scoring.servers import ITEMS, vllm_of


def test_api_key_is_sent_to_vllm_and_survives_pickling(serve, tiny_rm_dir: Path) -> None:
    double = serve(vllm_of(tiny_rm_dir))
    pickle.loads(pickle.dumps(load_scorer(f"vllm+{double.url}", api_key="secret"))).score(ITEMS)
    assert {headers.get("Authorization") for headers in double.headers} == {"Bearer secret"}


def test_a_vllm_server_that_is_down_costs_one_request_with_its_retries() -> None:
    scaler = CodeScaler(config=CodeScalerConfig(model="vllm+http://127.0.0.1:9", patience=0.6))
    started = time.monotonic()
    judgements = scaler.judge(["p"] * 64, [fenced(f"x = {number}") for number in range(64)])
    assert {str(judgement.failure)[:8] for judgement in judgements} == {"scorer: "}
    assert time.monotonic() - started < 2


def test_vllm_gets_token_ids_of_a_group_together_and_no_activation(serve, tiny_rm_dir: Path) -> None:
    double = serve(vllm_of(tiny_rm_dir))
    scores = load_scorer(f"vllm+{double.url}").score(ITEMS)
    path, body = double.asked[-1]
    assert (path, body["model"], body["use_activation"]) == ("/classify", "rm", False)
    first, second, third = body["input"]
    assert [float(len(ids)) for ids in (first, third, second, first)] == scores
    common = next(i for i, (one, other) in enumerate(zip(first, second, strict=False)) if one != other)
    assert common > len(first) // 3, "samples of a problem are neighbours"


def test_vllm_is_not_asked_twice_for_the_same(serve, tiny_rm_dir: Path) -> None:
    double = serve(vllm_of(tiny_rm_dir))
    scorer = load_scorer(f"vllm+{double.url}")
    assert scorer.score(ITEMS) == scorer.score(ITEMS)
    assert sum("use_activation" in body for _, body in double.asked) == 3  # two probes and one request


def test_vllm_that_ignores_use_activation_is_found_out(serve, tiny_rm_dir: Path) -> None:
    honest = vllm_of(tiny_rm_dir)

    def answer(path: str, body: dict[str, Any]) -> tuple[int, Any]:
        return honest(path, {**body, "use_activation": True})

    double = serve(answer)
    with pytest.raises(ScorerError, match=rf"{double.url}.*with and without its activation"):
        load_scorer(f"vllm+{double.url}").score(ITEMS)


def test_vllm_with_another_model_is_an_error_that_names_both(serve, tiny_rm_dir: Path) -> None:
    double = serve(vllm_of(tiny_rm_dir, name="other"))
    with pytest.raises(ScorerError, match=rf"{double.url} serves other, not 'rm'"):
        load_scorer(f"vllm+{double.url}#rm").score(ITEMS)


def test_vllm_servers_with_different_models_are_an_error(serve, tiny_rm_dir: Path) -> None:
    one, other = serve(vllm_of(tiny_rm_dir, name="a")), serve(vllm_of(tiny_rm_dir, name="b"))
    with pytest.raises(ScorerError, match="different models: a, b"):
        load_scorer(f"vllm+{one.url},{other.url}").score(ITEMS)


def test_vllm_without_classify_is_an_error_that_says_how_to_start_it(serve, tiny_rm_dir: Path) -> None:
    honest = vllm_of(tiny_rm_dir)
    double = serve(lambda path, body: (404, {"detail": "Not Found"}) if path == "/classify" else honest(path, body))
    with pytest.raises(ScorerError, match=r"404: Not Found; start it with: vllm serve MODEL --runner pooling"):
        load_scorer(f"vllm+{double.url}").score(ITEMS)


def test_item_that_vllm_refuses_is_named_and_the_others_are_scored(serve, tiny_rm_dir: Path) -> None:
    honest = vllm_of(tiny_rm_dir)
    lengths = VllmScorer(serve(honest).url).score(ITEMS)

    def answer(path: str, body: dict[str, Any]) -> tuple[int, Any]:
        if any(len(ids) == lengths[1] for ids in body.get("input", [])):
            return 400, {"error": {"message": "too long for me"}}
        return honest(path, body)

    double = serve(answer)
    with pytest.raises(ScorerError, match=r"item 1 \(problem 'q'\).*400: too long for me") as caught:
        load_scorer(f"vllm+{double.url}").score(ITEMS)
    assert caught.value.scores == (lengths[0], None, lengths[2], lengths[0])


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ([], "expected 3 rows from /classify, got 0 rows"),
        ([{"index": 0, "probs": [1.0, 2.0]}] * 3, "no row of a reward model with one label"),
        ([{"index": 0, "probs": [1.0]}] * 3, "item 1 got no row"),
        ([{"index": index, "probs": [float("nan")]} for index in range(3)], "no finite logit"),
        ([{"index": 7, "probs": [1.0]}] * 3, "no row of a reward model"),
        (["row"] * 3, "no row of a reward model"),
    ],
)
def test_vllm_rows_of_another_form_are_an_error(serve, tiny_rm_dir: Path, data: list[Any], message: str) -> None:
    honest = vllm_of(tiny_rm_dir)

    def answer(path: str, body: dict[str, Any]) -> tuple[int, Any]:
        return (200, {"data": data}) if len(body.get("input", [])) == 3 else honest(path, body)

    double = serve(answer)
    with pytest.raises(ScorerError, match=message):
        load_scorer(f"vllm+{double.url}").score(ITEMS)


def test_vllm_without_tokenizer_files_is_a_config_error_that_names_the_setting(serve, tmp_path: Path) -> None:
    double = serve(vllm_of(tmp_path))
    with pytest.raises(ConfigError, match="CODESCALER_TOKENIZER"):
        load_scorer(f"vllm+{double.url}").score(ITEMS)


def test_vllm_scorer_pickles_as_its_settings(serve, tiny_rm_dir: Path) -> None:
    double = serve(vllm_of(tiny_rm_dir))
    scorer = VllmScorer(double.url)
    expected = scorer.score(ITEMS)
    data = pickle.dumps(scorer)
    assert len(data) < 1000
    assert pickle.loads(data).score(ITEMS) == expected


def test_tokenizer_may_be_given(serve, tmp_path: Path, tiny_tokenizer_dir: Path) -> None:
    double = serve(vllm_of(tmp_path))
    assert None not in load_scorer(f"vllm+{double.url}", tokenizer=str(tiny_tokenizer_dir)).score(ITEMS)


def test_code_that_does_not_fit_the_server_gets_no_score(serve, tiny_rm_dir: Path) -> None:
    double = serve(vllm_of(tiny_rm_dir, limit=120))
    scores = load_scorer(f"vllm+{double.url}").score([("p", "x = 1\n"), ("p", "x = 1\n" * 100)])
    assert scores[0] is not None
    assert scores[1] is None
