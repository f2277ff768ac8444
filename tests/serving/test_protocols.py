"""Each wire contract, with a worker process that has no model."""

import json
import math
import time
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from codescaler_plugin import load_scorer
from codescaler_plugin.serving.config import ServingConfig
from tests.serving.running import CODE, PROMPT, Running, body_of, probability_of, query_of, reward_of, score_of, served


def test_openrlhf_route_has_lists_of_rewards_and_of_values_between_0_and_1(server: Running) -> None:
    assert server.json("/get_reward", body_of()) == {
        "rewards": [pytest.approx(reward_of(CODE))],
        "scores": [pytest.approx(probability_of(CODE))],
    }


def test_openrlhf_route_keeps_the_order_of_a_batch(server: Running) -> None:  # up to 0.9.0
    codes = [f"x = {'1' * size}\n" for size in (900, 3, 50)]
    body = {"query": [query_of(code) for code in codes], "prompts": [PROMPT] * 3, "labels": ["a", {"b": 1}, None]}
    answer = server.json("/get_reward", body)
    assert answer["rewards"] == pytest.approx([reward_of(code) for code in codes])
    assert answer["scores"] == pytest.approx([probability_of(code) for code in codes])


def test_openrlhf_0_4_sends_the_query_alone(server: Running) -> None:
    assert server.json("/get_reward", {"query": [query_of()]})["rewards"] == pytest.approx([reward_of(CODE)])


@pytest.mark.parametrize("body", [{"query": []}, {"query": [], "prompts": [], "labels": []}])
def test_empty_batch_of_openrlhf_is_no_error(server: Running, body: Any) -> None:  # 0.9.1 to 0.11.0, several URLs
    assert server.json("/get_reward", body) == {"rewards": [], "scores": []}


def test_code_that_is_not_usable_is_worth_0_and_no_failure(server: Running) -> None:
    before = server.metric("codescaler_failures_total")
    for text in (PROMPT, PROMPT + "```python\nx =\n```", "", "```python\n", query_of() + query_of()):
        body = {"query": [text], "prompts": [PROMPT], "labels": [""]}
        assert server.json("/get_reward", body) == {"rewards": [0.0], "scores": [0.0]}
    assert server.metric("codescaler_failures_total") == before


def test_extra_logs_only_on_request() -> None:
    with served(ServingConfig(extra_logs=True)) as running:
        body = {"query": [query_of(), PROMPT, query_of("nan = 1\n")]}
        logs = running.json("/get_reward", body)["extra_logs"]
    assert logs == {"codescaler_valid": [1.0, 0.0, 1.0], "codescaler_fallback": [0.0, 0.0, 1.0]}


def test_score_route_takes_one_and_many_programs_and_answers(server: Running) -> None:
    judgement = {
        "reward": pytest.approx(reward_of(CODE)),
        "score": pytest.approx(score_of(CODE)),
        "status": "ok",
        "code": "",
        "failure": None,
        "explanation": "It was sent as a program, whose validity is checked by the sender.",
    }
    program = {"problem": "p", "code": CODE}
    answer = {"problem": "p", "completion": f"```python\n{CODE}```"}
    invalid = {"problem": "p", "completion": "no code"}
    assert server.json("/v1/score", program) == {
        "scores": [pytest.approx(score_of(CODE))],
        "judgements": [judgement],
    }
    assert server.json("/v1/score", {"items": [program, answer, invalid]}) == {
        "scores": [pytest.approx(score_of(CODE)), pytest.approx(score_of(CODE)), None],
        "judgements": [
            judgement,
            {
                **judgement,
                "code": CODE,
                "explanation": "The block at line 1 of the completion is a python program.",
            },
            {
                "reward": 0.0,
                "score": None,
                "status": "no_block",
                "code": "",
                "failure": None,
                "explanation": "The completion has no fenced block.",
            },
        ],
    }
    assert server.json("/v1/score", {"items": []}) == {"scores": [], "judgements": []}


def test_score_route_puts_nothing_in_the_place_of_a_failure(server: Running) -> None:
    items = [{"problem": "p", "code": CODE}, {"problem": "p", "code": "nan = 1\n"}]
    answer = server.json("/v1/score", {"items": items})
    assert answer["scores"] == [pytest.approx(score_of(CODE)), None]
    assert answer["judgements"][1]["failure"]["kind"] == "no_score"
    assert answer["judgements"][1]["explanation"].startswith("There is no reward (no_score): ")
    refused = server.request("/v1/score", {"problem": "p", "code": "raise_ = 1\n"})
    assert (refused.status, refused.headers["retry-after"]) == (503, "1")


def test_remote_scorer_is_a_client_of_the_score_route(server: Running) -> None:
    items = [("p", CODE), ("q", "x = 1\n"), ("p", "y = 2\n")]
    assert load_scorer(server.url).score(items) == pytest.approx([score_of(code) for _, code in items])


def test_classify_route_is_shaped_as_vllms(server: Running) -> None:
    answer = server.json("/classify", {"model": "any", "input": query_of(), "use_activation": False})
    assert answer.pop("id").startswith("classify-")
    assert abs(answer.pop("created") - time.time()) < 600
    row = {"index": 0, "label": "LABEL_0", "probs": [pytest.approx(reward_of(CODE))], "num_classes": 1}
    assert answer == {"object": "list", "model": "stub", "data": [row]}
    several = server.json("/classify", {"input": [query_of(), PROMPT]})
    assert [(row["index"], row["probs"]) for row in several["data"]] == [
        (0, [pytest.approx(probability_of(CODE))]),
        (1, [0.0]),
    ]
    turns = [
        {"role": "system", "content": "Be good."},
        {"role": "user", "content": "p"},
        {"role": "assistant", "content": f"```python\n{CODE}```"},
    ]
    said = server.json("/classify", {"messages": turns})
    assert said["data"][0]["probs"] == [pytest.approx(probability_of(CODE))]
    assert server.json("/classify", {"input": []})["data"] == []


def test_slime_gets_a_bare_number_for_its_single_sample(server: Running) -> None:
    answer = f"```python\n{CODE}```"
    for prompt in (PROMPT, [{"role": "user", "content": "p"}]):
        for label in (None, "42", {"problem": "q"}):
            body: dict[str, Any] = {"prompt": prompt, "response": answer, "label": label}
            assert server.json("/slime", body) == pytest.approx(reward_of(CODE))
    assert server.json("/slime", {"prompt": [], "response": answer}, status=422)["detail"] == "prompt has no user turn"
    image = [{"role": "user", "content": [{"type": "image"}]}]  # a list prompt without a problem: the label's is taken
    labels: list[tuple[Any, float]] = [
        ({"problem": "q"}, reward_of(CODE)),
        ('{"question": [{"role": "user", "content": "q"}]}', reward_of(CODE)),
        ("42", 0.0),
        ({"problem": [{"role": "bot", "content": "q"}]}, 0.0),  # cannot be read: the prompt's is, as where it is text
    ]
    for label, reward in labels:
        body = {"prompt": image, "response": answer, "label": label}
        assert server.json("/slime", body) == pytest.approx(reward)


def test_content_parts_are_read_on_every_route(server: Running) -> None:
    answer = f"```python\n{CODE}```"
    user = {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "p"}]}
    said = {"role": "assistant", "content": [{"type": "text", "text": answer}]}
    silent = {"role": "assistant", "content": None, "tool_calls": [{}]}
    shared = [{"from": "human", "value": "p"}, {"from": "gpt", "value": answer}]
    for turns in ([user, said, silent], shared):
        found = server.json("/classify", {"messages": turns, "use_activation": False})
        assert found["data"][0]["probs"] == [pytest.approx(reward_of(CODE))]
    assert server.json("/slime", {"prompt": [user], "response": answer}) == pytest.approx(reward_of(CODE))
    scored = server.json("/v1/score", {"problem": [user], "completion": [said]})
    assert scored["scores"] == [pytest.approx(score_of(CODE))]
    assert server.json("/v1/score", {"problem": [user], "code": CODE})["scores"] == [pytest.approx(score_of(CODE))]
    label = {"problem": [user]}
    assert server.json("/get_reward", {"query": [answer], "prompts": ["x"], "labels": [label]})["rewards"] == [
        pytest.approx(reward_of(CODE))
    ]


def test_a_prompt_without_text_is_a_sample_without_a_problem(server: Running) -> None:
    image = {"role": "user", "content": [{"type": "image"}]}
    answer = f"```python\n{CODE}```"
    assert server.json("/slime", {"prompt": [image], "response": answer}) == 0.0
    items = [{"problem": [image], "completion": answer}, {"problem": "p", "completion": answer}]
    scored = server.json("/v1/score", {"items": items})
    assert "is empty" in scored["judgements"][0]["failure"]["reason"]
    assert scored["scores"] == [None, pytest.approx(score_of(CODE))]
    refused = server.json("/slime", {"prompt": [{"role": "bot", "content": "p"}], "response": answer}, status=422)
    assert "role 'bot'" in refused["detail"]
    said = [{"role": "user", "content": "p"}, {"role": "assistant", "content": answer}]
    for bad in ({"role": "usr", "content": "p"}, {"role": "user", "content": [3]}):
        refused = server.json("/v1/score", {"problem": [bad], "completion": said}, status=422)
        assert "usr" in refused["detail"] or "part of the content is int" in refused["detail"]
    assert "bot" in str(server.json("/classify", {"messages": [{"role": "bot", "content": "p"}]}, status=422))


def test_a_conversation_may_begin_the_answer(server: Running) -> None:
    user, label = {"role": "user", "content": "p"}, {"problem": "q"}
    thought = [user, {"role": "assistant", "content": "<think>\n"}]
    fence = [user, {"role": "assistant", "content": "```python\n"}]
    for prompt, answer, reward in (
        (thought, f"```python\n{CODE}```", 0.0),
        (thought, f"Hm.</think>\n```python\n{CODE}```", reward_of(CODE)),
        (fence, f"{CODE}```\nDone.", reward_of(CODE)),
        (fence, f"Here:\n```python\n{CODE}```\nDone.", reward_of(CODE)),
    ):
        assert server.json("/slime", {"prompt": prompt, "response": answer, "label": label}) == pytest.approx(reward)
        judged = server.json("/v1/score", {"problem": prompt, "completion": answer})["judgements"][0]
        assert judged["reward"] == pytest.approx(reward)


@pytest.mark.parametrize(
    "problem",
    [
        "Write solve.\n\nInput: ```\n1 2\n```",
        "Wrap the code in ```python\n```",
        "Answer:\n```python\n",
        "<|tag|>\nopens a record. Parse.",
        "[INST] tags surround text; strip [/INST].",
        "Put your reasoning into\n<think>",
    ],
)
def test_a_problem_that_is_stated_is_read_as_it_stands(server: Running, problem: str) -> None:
    answer = f"Here it is:\n\n```python\n{CODE}```"
    user = [{"role": "user", "content": problem}]
    assert server.json("/v1/score", {"problem": problem, "completion": answer})["scores"] == [
        pytest.approx(score_of(CODE))
    ]
    for body in ({"problem": user, "completion": answer}, {"problem": problem, "completion": answer}):
        assert server.json("/v1/score", body)["scores"] == [pytest.approx(score_of(CODE))]
    assert server.json("/slime", {"prompt": user, "response": answer}) == pytest.approx(reward_of(CODE))
    sent = {"query": [PROMPT + answer], "prompts": [PROMPT], "labels": [{"problem": problem}]}
    assert server.json("/get_reward", sent)["rewards"] == [pytest.approx(reward_of(CODE))]


def test_reasoning_that_the_prompt_opens_is_seen_by_every_host(server: Running) -> None:
    prompt = "<|im_start|>user\np<|im_end|>\n<|im_start|>assistant\n<think>\n"
    cut, whole = f"```python\n{CODE}```", f"Hm.\n</think>\n```python\n{CODE}```"
    for body in ({}, {"labels": [{"problem": "p"}]}):
        for answer, reward in ((cut, 0.0), (whole, reward_of(CODE))):
            sent = {"query": [prompt + answer], "prompts": [prompt], **body}
            assert server.json("/get_reward", sent)["rewards"] == [pytest.approx(reward)]
    assert server.json("/slime", {"prompt": prompt, "response": cut}) == 0.0
    assert server.json("/slime", {"prompt": prompt, "response": whole}) == pytest.approx(reward_of(CODE))


@pytest.mark.parametrize("body", [b"", b"{", b"\xff", b"[" * 100_000, b'{"query": NaN}', b"null", b'"x"', b"{}"])
def test_what_is_no_body_is_refused_in_json(server: Running, body: bytes) -> None:
    answer = server.request("/get_reward", body)
    assert answer.status in (400, 422)
    assert answer.json()["detail"]


@pytest.mark.parametrize(
    ("path", "body", "said"),
    [
        ("/get_reward", {"query": ["a"], "prompts": ["a", "b"]}, "2 prompts for 1 queries"),
        ("/get_reward", {"query": ["a"], "labels": [1, 2]}, "2 labels for 1 queries"),
        ("/get_reward", {"query": "a"}, "valid list"),
        ("/v1/score", {"problem": "p"}, "either code or completion"),
        ("/v1/score", {"problem": "p", "code": "x", "completion": "y"}, "either code or completion"),
        ("/v1/score", {"problem": "p", "code": "x", "path": "/etc/passwd"}, "Extra inputs"),
        ("/classify", {}, "either input"),
        ("/classify", {"input": [1, 2]}, "valid string"),
        ("/classify", {"messages": []}, "user turn and an assistant turn"),
        ("/v1/score", [], "valid dictionary"),
        ("/v1/score", {"items": {}}, "valid list"),
        ("/v1/score", {"items": [{"problem": "p", "code": 3}]}, '["body", "items", 0, "code"]'),
        ("/v1/score", {"items": [{"problem": 7, "code": "x"}]}, "expected text, or messages in a list"),
        ("/v1/score", {"items": [], "problem": "p"}, '["body", "problem"], "msg": "Extra inputs'),
        ("/v1/score", {"problem": "p", "completion": [{"role": 3}]}, '["body", "completion", 0, "role"]'),
        ("/classify", {"input": 1}, "expected text, or a list of texts"),
        ("/slime", {"prompt": {"role": "user"}, "response": "x"}, "expected text, or messages in a list"),
        ("/slime", {"prompt": [{"content": 3}], "response": "x"}, "expected text, a list of parts, an object or null"),
    ],
)
def test_body_of_another_form_is_told_what_is_wrong_with_it(server: Running, path: str, body: Any, said: str) -> None:
    found = server.json(path, body, status=422)["detail"]
    detail = json.dumps(found)
    assert said in detail
    assert "function" not in detail
    assert len(found) == (2 if body == {"input": [1, 2]} else 1)


# Fuzz: for any body, the answer is JSON, soon, and no fault of the server

ODD = [
    "",
    "\x00",
    "\ud800",
    "<|im_start|>",
    "```python\n",
    "```",
    "</think>",
    "[INST]",
    "\u202e",
    "(" * 3000,
    "`" * 999,
]
texts = st.one_of(
    st.text(max_size=40),
    st.lists(st.sampled_from([*ODD, PROMPT, CODE, query_of(), "<|im_start|>assistant\n"]), max_size=6).map("".join),
)
anything = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), texts),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(texts, inner, max_size=3)),
    max_leaves=6,
)
labels = st.one_of(
    anything, st.builds(lambda text: {"problem": text}, texts), texts.map(lambda t: json.dumps({"problem": t}))
)
rows = st.lists(st.tuples(texts, texts, labels), max_size=4)
well_formed = rows.map(
    lambda found: {"query": [r[0] for r in found], "prompts": [r[1] for r in found], "labels": [r[2] for r in found]}
)
fuzz = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def finite(values: Any) -> bool:
    return isinstance(values, list) and all(type(value) is float and math.isfinite(value) for value in values)


@fuzz
@given(body=well_formed)
def test_whatever_the_texts_are_each_gets_a_finite_reward(server: Running, body: dict[str, Any]) -> None:
    answer = server.json("/get_reward", body)
    assert set(answer) == {"rewards", "scores"}
    assert len(answer["rewards"]) == len(answer["scores"]) == len(body["query"])
    assert finite(answer["rewards"])
    assert finite(answer["scores"])
    assert all(0 <= value <= 1 for value in answer["scores"])


@fuzz
@given(
    path=st.sampled_from(["/get_reward", "/v1/score", "/classify", "/slime"]),
    body=st.one_of(
        anything,
        st.dictionaries(
            st.sampled_from(
                ["query", "prompts", "labels", "items", "problem", "code", "input", "messages", "prompt", "response"]
            ),
            st.one_of(anything, st.lists(texts, max_size=2)),
        ),
    ),
)
def test_whatever_the_body_is_the_answer_is_json_and_no_500(server: Running, path: str, body: Any) -> None:
    answer = server.request(path, json.dumps(body).encode())
    assert answer.status in (200, 422)
    answer.json()


@fuzz
@given(
    body=well_formed.map(lambda body: json.dumps(body).encode()),
    where=st.floats(0, 1),
    junk=st.binary(max_size=6),
    cut=st.integers(0, 5),
)
def test_mangled_bytes_are_refused_or_answered(
    server: Running, body: bytes, where: float, junk: bytes, cut: int
) -> None:
    place = int(where * len(body))
    answer = server.request("/get_reward", body[:place] + junk + body[place + cut :])
    assert answer.status in (200, 400, 422)
    answer.json()
