import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from codescaler_plugin import CodeScaler, CodeScalerConfig, ConfigError, DataError, Judgement, ScorerError, Status
from codescaler_plugin.errors import Failure, FailureKind
from codescaler_plugin.pipeline import raise_for_failures
from codescaler_plugin.testing import FakeScorer
from tests.samples import fenced

VALID = fenced("x = 1")


def scaler(scorer: Any = None, **settings: Any) -> CodeScaler:
    return CodeScaler(scorer or FakeScorer(), config=CodeScalerConfig(**settings))


def user(content: Any) -> dict[str, Any]:
    return {"role": "user", "content": content}


def assistant(content: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": content}


def test_judgements_keep_the_order_of_the_completions() -> None:
    codes = ["x = 1", "long_name = 1", None, "x = 12", "return 1"]
    completions = ["No." if code is None else fenced(code) for code in codes]
    judgements = scaler(shaping="raw").judge(["p"] * 5, completions)
    assert [judgement.reward for judgement in judgements] == [6.0, 14.0, 0.0, 7.0, 0.0]
    assert [judgement.status for judgement in judgements] == ["ok", "ok", "no_block", "ok", "syntax_error"]


def test_judgement_holds_reward_score_status_and_code() -> None:
    (judgement,) = scaler(shaping="raw").judge(["p"], [VALID])
    assert judgement == Judgement(reward=6.0, score=6.0, status=Status.OK, code="x = 1\n")


def test_an_explanation_counts_the_lines_of_the_completion_and_not_those_that_its_prompt_opened() -> None:
    prompt = "<|im_start|>user\nSet x.<|im_end|>\n<|im_start|>assistant\n"
    thought, continued, own = "Hm.\n</think>\n```python\nx = 1\n```", "x = 1\n```", "\n```python\nx = 1\n```"
    judgements = scaler().judge(
        [prompt + "<think>\n", prompt + "```python\n", prompt + "```python\n"], [thought, continued, own]
    )
    assert [judgement.explanation for judgement in judgements] == [
        "The block at line 3 of the completion is a python program.",
        "The block that the prompt opened is a python program.",
        "The block at line 2 of the completion is a python program.",
    ]


def test_default_reward_is_softplus_of_the_score() -> None:
    (judgement,) = scaler().judge(["p"], [VALID])
    assert judgement.reward == pytest.approx(6.00247568513773, rel=1e-7)  # rewards are float32


def test_invalid_code_never_reaches_the_scorer() -> None:
    scorer = FakeScorer()
    scaler(scorer).judge(["a", "b", "c"], ["No.", VALID, fenced("return 1")])
    assert scorer.calls == [[("b", "x = 1\n")]]


def test_scorer_is_not_called_when_nothing_is_usable() -> None:
    scorer = FakeScorer()
    (judgement,) = scaler(scorer).judge(["a"], ["No."])
    assert (judgement.reward, judgement.score, scorer.calls) == (0.0, None, [])


def test_empty_batch_gives_an_empty_list() -> None:
    scorer = FakeScorer()
    assert scaler(scorer).judge([], []) == []
    assert scorer.calls == []


@pytest.mark.parametrize(
    ("problem", "text"),
    [
        pytest.param("  As it stands. ", "  As it stands. ", id="string"),
        pytest.param([user("P")], "P", id="user-turn"),
        pytest.param([{"role": "system", "content": "S"}, user("P")], "P", id="system-turn-is-no-problem"),
        pytest.param([user("old"), assistant("a"), user("P")], "P", id="last-user-turn"),
        pytest.param([user("P"), assistant("prefill")], "P", id="assistant-prefill-after-it"),
        pytest.param([user([{"type": "image"}, {"type": "text", "text": "P"}])], "P", id="parts"),
        pytest.param(
            [user([{"type": "text", "text": "P"}, {"type": "image", "text": None}])], "P", id="parts-of-arrow"
        ),
        pytest.param([{"from": "system", "value": "S"}, {"from": "human", "value": "P"}], "P", id="sharegpt"),
        pytest.param("<|im_start|>user\nP<|im_end|>\n<|im_start|>assistant\n", "P", id="templated"),
        pytest.param([user("P"), {"role": "system", "content": "S"}], "P", id="system-turn-at-the-end"),
    ],
)
def test_problem_is_the_string_or_the_last_user_turn(problem: Any, text: str) -> None:
    scorer = FakeScorer()
    scaler(scorer).judge([problem], [VALID])
    assert scorer.calls == [[(text, "x = 1\n")]]


@pytest.mark.parametrize(
    ("completion", "status"),
    [
        pytest.param([assistant(VALID)], Status.OK, id="one-turn"),
        pytest.param(
            [assistant("No."), {"role": "tool", "content": "1"}, assistant(VALID)], Status.OK, id="last-turn"
        ),
        pytest.param([assistant(VALID), {"role": "tool", "content": "1"}], Status.OK, id="tool-turn-after-it"),
        pytest.param([assistant(VALID), assistant("")], Status.OK, id="empty-turn-after-it"),
        pytest.param([assistant(VALID), assistant(None)], Status.OK, id="turn-of-tool-calls-after-it"),
        pytest.param([assistant(VALID), {"role": "assistant"}], Status.OK, id="turn-without-content-after-it"),
        pytest.param([assistant(VALID), assistant("Done.")], Status.NO_BLOCK, id="prose-after-it"),
        pytest.param([assistant("")], Status.NO_BLOCK, id="lost-generation"),
        pytest.param([], Status.NO_BLOCK, id="no-turn"),
        pytest.param([user(VALID)], Status.NO_BLOCK, id="user-turn-only"),
        pytest.param(None, Status.NO_BLOCK, id="null"),
        pytest.param([assistant([{"type": "text", "text": VALID}])], Status.OK, id="parts"),
        pytest.param([assistant([{"type": "text", "text": VALID[:9]}, VALID[9:]])], Status.OK, id="several-parts"),
        pytest.param([assistant({"type": "output_text", "text": VALID})], Status.OK, id="one-part"),
        pytest.param([assistant(np.array([{"type": "text", "text": VALID}]))], Status.OK, id="array-of-parts"),
        pytest.param(np.array([assistant(VALID)]), Status.OK, id="array-of-turns"),
        pytest.param((assistant(VALID),), Status.OK, id="tuple-of-turns"),
        pytest.param(
            [assistant([{"type": "thinking", "thinking": VALID}, {"type": "text", "text": "No."}])],
            Status.NO_BLOCK,
            id="thinking-part",
        ),
        pytest.param([assistant([{"type": "image"}, {"type": "text", "text": None}])], Status.NO_BLOCK, id="no-text"),
        pytest.param([{"role": "assistant", "content": None, "tool_calls": [1]}], Status.NO_BLOCK, id="tool-calls"),
        pytest.param([{"role": "model", "content": VALID}], Status.OK, id="role-model"),
        pytest.param([{"from": "gpt", "value": VALID}], Status.OK, id="sharegpt"),
    ],
)
def test_completion_is_the_last_assistant_turn_with_content(completion: Any, status: Status) -> None:
    (judgement,) = scaler().judge(["p"], [completion])
    assert judgement.status is status


@pytest.mark.parametrize(
    ("problem", "completion", "message"),
    [
        pytest.param(None, VALID, "problem 1 is NoneType", id="problem-none"),
        pytest.param(7, VALID, "problem 1 is int", id="problem-number"),
        pytest.param(["p"], VALID, "problem 1 is list", id="problem-list-of-strings"),
        pytest.param(user("p"), VALID, "problem 1 is dict", id="problem-bare-message"),
        pytest.param([], VALID, "problem 1 has no user message", id="problem-without-turns"),
        pytest.param([{"role": "system", "content": "S"}], VALID, "problem 1 has no user", id="problem-system-only"),
        pytest.param([user("")], VALID, "problem 1 has no user", id="problem-without-content"),
        pytest.param([user([{"type": "text"}])], VALID, "problem 1 has no user", id="problem-without-text"),
        pytest.param([user([{"type": "image"}])], VALID, "problem 1 has no user", id="problem-image-only"),
        pytest.param([user(5)], VALID, "problem 1: content is int", id="problem-content-number"),
        pytest.param([user([5])], VALID, "problem 1: a part of the content is int", id="problem-part-number"),
        pytest.param(" ", VALID, "problem 1 is empty", id="problem-blank"),
        pytest.param(
            [{"role": "bot", "content": "P"}], VALID, "problem 1 has a message with the role 'bot'", id="role"
        ),
        pytest.param(
            "p", [{"role": "bot", "content": "x"}], "completion 1 has a message with the role 'bot'", id="bot"
        ),
        pytest.param("a\ud800", VALID, "problem 1 is no valid Unicode text", id="problem-lone-surrogate"),
        pytest.param("p", 1.5, "completion 1 is float", id="completion-number"),
        pytest.param("p", [assistant(5)], "completion 1: content is int", id="completion-content-number"),
    ],
)
def test_bad_row_is_a_data_error_naming_it(problem: Any, completion: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        raise_for_failures(scaler().judge(["good", problem], [VALID, completion]))


def test_bad_row_is_found_before_anything_is_scored() -> None:
    scorer = FakeScorer()
    with pytest.raises(DataError):
        scaler(scorer).judge(["p", "p"], [VALID, 7])  # type: ignore[list-item]
    assert scorer.calls == []


def test_unequal_lengths_are_a_data_error_with_both_numbers() -> None:
    with pytest.raises(DataError, match="2 problems for 1 completions"):
        scaler().judge(["p", "q"], [VALID])


def test_failure_of_the_scorer_can_be_raised() -> None:
    [judgement] = scaler(FakeScorer(fails_after=0)).judge(["p"], [VALID])
    with pytest.raises(ScorerError, match="out of memory"):
        judgement.raise_for_failure()


def test_failure_of_the_scorer_is_one_of_its_sample_after_exactly_one_retry(caplog: pytest.LogCaptureFixture) -> None:
    scorer = FakeScorer(fails_after=0)
    with caplog.at_level(logging.ERROR, logger="codescaler_plugin"):
        judgements = scaler(scorer).judge(["p", "p"], [VALID, "No."])
    assert len(scorer.calls) == 2
    assert [(judgement.reward, judgement.status) for judgement in judgements] == [(None, "ok"), (0.0, "no_block")]
    assert judgements[0].failure == Failure(FailureKind.SCORER, "out of memory; try a smaller max_tokens")
    assert judgements[1].failure is None
    assert "scoring 1 programs failed" in caplog.text


def test_retry_that_succeeds_gives_the_scores() -> None:
    class Flaky(FakeScorer):
        def score(self, items: Any) -> list[float | None]:
            scores = super().score(items)
            if len(self.calls) == 1:
                raise ScorerError("once")
            return scores

    (judgement,) = scaler(Flaky(), shaping="raw").judge(["p"], [VALID])
    assert judgement.reward == 6.0


def test_missing_and_infinite_scores_give_no_reward() -> None:
    class Odd(FakeScorer):
        def score(self, items: Any) -> list[float | None]:
            return [None, float("nan"), float("inf")]

    judgements = scaler(Odd()).judge(["p"] * 3, [VALID] * 3)
    assert [judgement.reward for judgement in judgements] == [None, None, None]
    assert {judgement.failure.kind for judgement in judgements if judgement.failure} == {FailureKind.NO_SCORE}
    raise_for_failures(judgements)  # that a program has no score is known of it
    with pytest.raises(ScorerError, match="too long for the model"):
        judgements[0].raise_for_failure()


def test_scorer_that_loses_a_sample_is_not_believed() -> None:
    class Short(FakeScorer):
        def score(self, items: Any) -> list[float | None]:
            return super().score(items)[1:]

    for judgement in scaler(Short()).judge(["p", "p"], [VALID, VALID]):
        with pytest.raises(ScorerError, match="gave 0 scores for 1 programs"):
            judgement.raise_for_failure()


def test_without_a_config_the_environment_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CODESCALER_SHAPING", "raw")
    (judgement,) = CodeScaler(FakeScorer()).judge(["p"], [VALID])
    assert judgement.reward == 6.0


@pytest.mark.parametrize("given", [3, object()])
def test_what_cannot_score_is_refused_when_it_is_given(given: Any) -> None:
    with pytest.raises(ConfigError, match=r"without a method score: give"):
        CodeScaler(given)


def test_a_model_name_is_loaded() -> None:
    config = CodeScalerConfig(model="other", shaping="raw")
    assert CodeScaler("builtin").config.model == CodeScaler("builtin", config=config).config.model == "builtin"
    [judgement] = CodeScaler("builtin", config=config).judge(["Write solve(n)."], [VALID])
    assert judgement.reward == judgement.score


@pytest.mark.parametrize(
    ("problems", "completions", "name"), [("abc", "xyz", "problems"), (["p"], "x", "completions")]
)
def test_one_string_is_not_a_list_of_letters(problems: Any, completions: Any, name: str) -> None:
    with pytest.raises(DataError, match=f"^{name} is one string"):
        scaler().judge(problems, completions)


def test_a_failure_that_a_retry_mends_leaves_nothing() -> None:
    class Once(FakeScorer):
        def score(self, items: Any) -> list[float | None]:
            if self.calls:
                return [1.0] * len(items)
            return super().score(items)

    [judgement] = scaler(Once(fails_after=0)).judge(["p"], [VALID])
    assert judgement.failure is None


def test_what_is_known_after_a_failure_is_kept_and_only_the_rest_is_asked_for_again() -> None:
    class Partial(FakeScorer):
        def score(self, items: Any) -> list[float | None]:
            scores = super().score(items)
            if len(self.calls) == 1:
                refused = {1: Failure(FailureKind.DATA, "refused")}
                raise ScorerError("half", [scores[0], None, None, None], refused)
            return scores

    scorer = Partial()
    judgements = scaler(scorer).judge(["p"] * 4, [fenced(f"x = {number}") for number in range(4)])
    assert [judgement.score for judgement in judgements] == [6.0, None, 6.0, 6.0]
    assert judgements[1].failure == Failure(FailureKind.DATA, "refused")
    assert [len(call) for call in scorer.calls] == [4, 2]


@pytest.mark.parametrize(
    "make",
    [
        lambda count: np.ones(count, np.float32),
        lambda count: torch.ones(count),
        lambda count: tuple(torch.ones(count)),
        lambda count: (1.0 for _ in range(count)),
        lambda count: [True] * count,
    ],
)
def test_scores_of_any_numbers_are_floats(make: Any) -> None:
    class Odd:
        def __len__(self) -> int:  # it has a length of 0 and is a scorer all the same
            return 0

        def score(self, items: Any) -> Any:
            return make(len(items))

    judgements = CodeScaler(Odd(), config=CodeScalerConfig()).judge(["p", "p"], [VALID, VALID])
    assert [type(judgement.score) for judgement in judgements] == [float, float]
    assert json.loads(json.dumps(judgements[0].to_json()))["score"] == 1.0


@pytest.mark.parametrize("scores", [["a", "b"], 1.0, None, [[1.0], [1.0]], [1j, 1j], {"a": 1, "b": 2}])
def test_scores_that_are_no_numbers_are_failures(scores: Any) -> None:
    class Odd:
        def score(self, items: Any) -> Any:
            return scores

    judgements = scaler(Odd()).judge(["p", "p"], [VALID, fenced("y = 1")])
    assert [str(judgement.failure)[:8] for judgement in judgements] == ["scorer: "] * 2


def test_settings_of_a_model_that_is_there_already_are_refused() -> None:
    for setting in ({"model": "other"}, {"max_length": 3}):
        with pytest.raises(ConfigError, match="no effect on a scorer that is there already"):
            scaler().with_config(**setting)


def test_variables_of_the_model_are_none_of_a_scorers_business(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CODESCALER_API_KEY", "secret")
    monkeypatch.setenv("CODESCALER_SHAPING", "raw")
    [judgement] = CodeScaler(FakeScorer()).judge(["p"], [VALID])
    assert judgement.reward == 6.0


def test_a_model_that_is_down_is_not_asked_for_the_next_chunk() -> None:
    scorer = FakeScorer(fails_after=0)
    judgements = scaler(scorer).judge(["p"] * 2000, [fenced(f"x = {number}") for number in range(2000)])
    assert {judgement.failure.kind for judgement in judgements if judgement.failure} == {FailureKind.SCORER}
    assert len(scorer.calls) < 20


def test_a_config_error_of_the_scorer_is_the_callers() -> None:
    class Absent:
        def score(self, items: Any) -> list[float | None]:
            raise ConfigError("no such model")

    with pytest.raises(ConfigError, match="no such model"):
        scaler(Absent()).judge(["p", "p"], [VALID, VALID])


@pytest.mark.parametrize("prompt", [[], [user([{"type": "image"}])], "", "<|nobody|>user<|knows|>P<|these|>assistant"])
def test_a_prompt_without_a_problem_is_no_end_of_the_run(prompt: Any, caplog: pytest.LogCaptureFixture) -> None:
    scorer = FakeScorer()
    judgements = scaler(scorer).judge(["p", prompt, prompt], [VALID, VALID, "no"])
    assert [judgement.status for judgement in judgements] == [Status.OK, Status.OK, Status.NO_BLOCK]
    assert [judgement.score for judgement in judgements] == [len("x = 1\n"), None, None]
    assert [judgement.reward for judgement in judgements][1:] == [None, 0.0]
    assert scorer.calls == [[("p", "x = 1\n")]]
    assert "2 of 3 samples have no problem that can be read: problem 1" in caplog.text
    assert [judgement.failure and judgement.failure.kind for judgement in judgements] == [None, FailureKind.DATA, None]


@pytest.mark.parametrize(
    "prompt",
    [
        "<|im_start|>user\nP<|im_end|>\n<|im_start|>assistant\n<think>\n",
        [user("P"), assistant("<think>\n")],
    ],
)
def test_reasoning_that_the_prompt_opened_is_no_answer(prompt: Any) -> None:
    judgements = scaler().judge([prompt] * 2, [VALID, "Hm.\n</think>\n" + VALID])
    assert [judgement.status for judgement in judgements] == [Status.NO_BLOCK, Status.OK]


@pytest.mark.parametrize(
    "prompt",
    [
        "P\n```python\n",
        [user("P"), assistant("Here:\n```python\n")],
        "<|im_start|>user\nIn ```\n1\n```<|im_end|>\n<|im_start|>assistant\n```python\n",
        "<|im_start|>system\nWrap in\n```python\n<|im_end|>\n<|im_start|>user\nP<|im_end|>\n"
        "<|im_start|>assistant\n```python\n",
    ],
)
def test_a_fence_that_the_prompt_opened_is_part_of_the_answer(prompt: Any) -> None:
    [judgement] = scaler().judge([prompt], ["x = 1\n```\n"])
    assert (judgement.status, judgement.code) == (Status.OK, "x = 1\n")


def test_settings_say_what_a_prompt_opened_that_nobody_sees() -> None:
    config = CodeScalerConfig(thinking_prefilled=True, reasoning_marks="<plan> </plan>")
    judgements = CodeScaler(FakeScorer(), config=config).judge(
        ["p"] * 3, [VALID, f"{VALID}</plan>{VALID}", f"{VALID}</think>{VALID}"]
    )
    assert [str(judgement.status) for judgement in judgements] == ["no_block", "ok", "ok"]
    config = CodeScalerConfig(fence_prefilled=True)
    [judgement] = CodeScaler(FakeScorer(), config=config).judge(["p"], ["x = 1\n```\n"])
    assert judgement.code == "x = 1\n"


def test_the_prompt_may_be_another_text_than_the_problem() -> None:
    scorer = FakeScorer()
    prompts: list[Any] = ["Say: p\n<think>\n", [user("p")]]
    judgements = scaler(scorer).judge(["p", "p"], [VALID, VALID], prompts=prompts)
    assert [str(judgement.status) for judgement in judgements] == ["no_block", "ok"]
    assert scorer.calls == [[("p", "x = 1\n")]]
    with pytest.raises(DataError, match="2 problems for 1 prompts"):
        scaler().judge(["p", "p"], [VALID, VALID], prompts=["p"])


@pytest.mark.parametrize(
    "prompt",
    [
        "<|START_OF_TURN_TOKEN|><|USER_TOKEN|>Write it.<|END_OF_TURN_TOKEN|><|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>"
        "<|START_THINKING|>",
        "<|start|>user<|message|>Write it.<|end|><|start|>assistant<|channel|>analysis<|message|>",
        "<|im_start|>user<|im_sep|>Write it.<|im_end|><|im_start|>assistant<|im_sep|><think>\n",
        "<|user|>Write it.<|end|><|assistant|><think>",
        "User: Write it.\nAssistant: <think>",
        "Write it.\n### Response:<think>",
        "<|im_start|>user\nWrite it.<|im_end|>\n<|im_start|>assistant\n<think>\nOkay, let me",
        [user("Write it."), assistant("<think>\nOkay, let me think step by step.")],
        [user("Write it."), assistant("Sure. <think>")],
    ],
)
def test_reasoning_that_any_prompt_opened_is_seen(prompt: Any) -> None:
    judgements = scaler().judge([prompt] * 2, ["Draft:\n" + VALID + "wait", "Hm.\n</think>\n" + VALID])
    assert judgements[0].status is Status.NO_BLOCK
    if "think" in str(prompt) and "THINK" not in str(prompt):
        assert judgements[1].status is Status.OK


@pytest.mark.parametrize(
    "prompt",
    [
        "Write solve.\n\nInput: ```\n1 2\n```",
        "Wrap the code in ```python\n```",
        "Write code between ```python\nand\n```",
        "1) ```\n1\n```",
        "Enclose your code in:\n```python\n",
        "Give your final code after:\n```",
        "Answer:\n```python\n# YOUR CODE HERE\n```\n",
        "Put your reasoning in <think>",
    ],
)
@pytest.mark.parametrize("answer", [VALID, "Here it is:\n\n" + VALID, "```\nx = 1\n```"])
def test_the_end_of_a_problem_takes_no_right_program_away(prompt: str, answer: str) -> None:
    [judgement] = scaler().judge([prompt], [answer])
    assert (judgement.status, judgement.code) == (Status.OK, "x = 1\n")


@pytest.mark.parametrize(
    "problem",
    [
        "<|tag|>\nopens a record.",
        "[INST]a[/INST] is a line.",
        "<|im_start|>user\nx<|im_end|>\n<|im_start|>assistant\n",
    ],
)
def test_a_problem_beside_its_prompt_is_taken_as_it_stands(problem: str) -> None:
    scorer = FakeScorer()
    scaler(scorer).judge([problem], [VALID], prompts=["Write it."])
    assert scorer.calls == [[(problem, "x = 1\n")]]


def test_a_template_of_a_file_reads_the_prompts_of_its_policy(tmp_path: Path) -> None:
    template = tmp_path / "chat_template.jinja"
    template.write_text(
        "{% for turn in messages %}<|bom|><|{{ turn.role }}|> {{ turn.content }}<|eom|>{% endfor %}"
        "{% if add_generation_prompt %}<|bom|><|assistant|>{% endif %}"
    )
    scorer = FakeScorer()
    prompt = "<|bom|><|user|> Write it.<|eom|><|bom|><|assistant|>"
    scaler(scorer, prompt_template=str(template)).judge([prompt], [VALID])
    assert scorer.calls == [[("Write it.", "x = 1\n")]]
    with pytest.raises(DataError, match="prompt_template"):
        raise_for_failures(scaler().judge([prompt], [VALID]))
