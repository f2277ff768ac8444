"""One bad sample costs no other its score, whatever the scorer does; nothing here raises."""

import json
import math
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from codescaler_plugin import CodeScaler, CodeScalerConfig, ScorerError
from codescaler_plugin.errors import FailureKind
from codescaler_plugin.records import Judgement, Status
from codescaler_plugin.serving.samples import Sample, judge_samples
from codescaler_plugin.testing import FakeScorer
from tests.samples import fenced
from tests.text.prompts import PROBLEM, TEMPLATED

CODE = "def solve(n):\n    return n + 1\n"
ANSWER = fenced(CODE.rstrip())
CONFIG = CodeScalerConfig(model="builtin", shaping="raw")


def judged_by(scorer: Any, samples: Sequence[Sample]) -> list[Judgement]:
    return judge_samples(CodeScaler(scorer, config=CONFIG), samples)


def raising(error: Exception, mark: str = "poison") -> Callable[[str, str], float]:
    def act(_: str, code: str) -> float:
        if mark in code:
            raise error
        return float(len(code))

    return act


ENDS = {"chatml": "<|im_end|>", "llama3": "<|eot_id|>", "deepseek": "<｜end▁of▁sentence｜>", "gemma": "<end_of_turn>"}


@pytest.mark.parametrize("name", TEMPLATED)
def test_problem_and_code_are_found_in_each_template(name: str) -> None:
    scorer = FakeScorer()
    prompt = TEMPLATED[name].replace("{p}", PROBLEM)
    end = ENDS.get(name.partition("_")[0], "</s>")
    thought = "It adds.\n</think>\n\n" if prompt.endswith("<think>\n") else ""
    [answer] = judged_by(scorer, [Sample.from_query(prompt + thought + ANSWER + end, prompt)])
    assert scorer.calls == [[(PROBLEM, CODE)]]
    assert answer == Judgement(float(len(CODE)), float(len(CODE)), Status.OK, "")


@pytest.mark.parametrize("name", [name for name in TEMPLATED if not name.startswith("bare")])
def test_query_cut_from_the_left_still_has_its_problem_from_the_prompt(name: str) -> None:
    scorer = FakeScorer()
    prompt = TEMPLATED[name].replace("{p}", PROBLEM)
    thought = "It adds.\n</think>\n\n" if name == "deepseek_r1" else ""  # its prompt opens the thought
    query = (prompt + thought + ANSWER)[len(prompt) - 60 :]
    assert not query.startswith(prompt)
    judged_by(scorer, [Sample.from_query(query, prompt)])
    assert scorer.calls == [[(PROBLEM, CODE)]]


@pytest.mark.parametrize("name", ["deepseek_r1", "bare_chatml_thinking"])
@pytest.mark.parametrize("label", [None, {"problem": "Of the label."}])
def test_answer_that_is_cut_inside_the_reasoning_of_its_prompt_is_none(name: str, label: object) -> None:
    scorer = FakeScorer()
    prompt = TEMPLATED[name].replace("{p}", PROBLEM)
    [answer] = judged_by(scorer, [Sample.from_query(prompt + ANSWER, prompt, label)])
    assert (answer.score, answer.status) == (None, "no_block")
    assert scorer.calls == []


def test_fence_that_the_prompt_opens_is_part_of_the_answer() -> None:
    scorer = FakeScorer()
    prompt = TEMPLATED["chatml"].replace("{p}", PROBLEM) + "```python\n"
    judged_by(scorer, [Sample.from_query(f"{prompt}{CODE}```\nDone.<|im_end|>", prompt)])
    assert scorer.calls == [[(PROBLEM, CODE)]]


def test_query_without_a_prompt_is_taken_apart_by_its_own_marks() -> None:  # OpenRLHF 0.4
    scorer = FakeScorer()
    query = TEMPLATED["chatml"].replace("{p}", PROBLEM) + ANSWER
    judged_by(scorer, [Sample.from_query(query, "")])
    assert scorer.calls == [[(PROBLEM, CODE)]]


@pytest.mark.parametrize(
    "label", [{"problem": "Of the label."}, json.dumps({"question": "Of the label.", "tests": [1]})]
)
def test_problem_in_a_label_wins(label: object) -> None:
    scorer = FakeScorer()
    prompt = TEMPLATED["chatml"].replace("{p}", PROBLEM)
    judged_by(scorer, [Sample.from_query(prompt + ANSWER, prompt, label)])
    assert scorer.calls == [[("Of the label.", CODE)]]


@pytest.mark.parametrize("label", [None, "", "42", [1], {"answer": 1}, "{", '{"problem": 1}', {"problem": " "}])
def test_any_other_label_is_left_alone(label: object) -> None:
    prompt = TEMPLATED["gemma"].replace("{p}", PROBLEM)
    assert Sample.from_query(prompt + CODE, prompt, label) == Sample("query", prompt, prompt + CODE)


def test_invalid_code_never_reaches_the_model() -> None:
    scorer = FakeScorer()
    answers = judged_by(scorer, [Sample("completion", "p", "no code"), Sample("completion", "p", fenced("x ="))])
    assert [answer.status for answer in answers] == ["no_block", "syntax_error"]
    assert scorer.calls == []


@pytest.mark.parametrize(
    "error",
    [ScorerError("bad"), ValueError("bad"), MemoryError("bad"), RecursionError("bad"), KeyError("bad")],
    ids=lambda error: type(error).__name__,
)
@pytest.mark.parametrize("index", [0, 5, 12])
def test_poisoned_sample_fails_alone(error: Exception, index: int) -> None:
    samples = [Sample("code", "p", f"x = {number}\n") for number in range(13)]
    samples[index] = Sample("code", "p", "poison = 1\n")
    answers = judged_by(FakeScorer(raising(error)), samples)
    assert answers[index].failure.kind is FailureKind.SCORER
    assert "bad" in answers[index].failure.reason
    assert answers[index].score is None
    assert [answer.score for row, answer in enumerate(answers) if row != index] == [
        float(len(sample.text)) for row, sample in enumerate(samples) if row != index
    ]


def test_many_poisoned_samples_in_a_row_do_not_take_the_rest_along() -> None:
    samples = [Sample("code", "p", f"poison = {number}\n") for number in range(12)] + [Sample("code", "q", "x = 1\n")]
    answers = judged_by(FakeScorer(raising(ValueError("bad"))), samples)
    assert [bool(answer.failure) for answer in answers] == [True] * 12 + [False]


def test_scorer_that_is_down_is_not_asked_for_every_sample() -> None:
    scorer = FakeScorer(fails_after=0)
    answers = judged_by(scorer, [Sample("code", "p", f"x = {number}\n") for number in range(256)])
    assert all(str(answer.failure).startswith("scorer: out of memory") for answer in answers)
    assert len(scorer.calls) < 20


@pytest.mark.parametrize("score", [math.nan, math.inf, -math.inf, None])
def test_score_that_is_no_number_is_a_failure(score: float | None) -> None:
    scorer = FakeScorer(lambda _, code: score if "bad" in code else 1.0)
    bad, good = judged_by(scorer, [Sample("code", "p", "bad = 1\n"), Sample("code", "p", "x = 1\n")])
    assert (bad.score, bad.failure.kind) == (None, "no_score")
    assert good.score == 1.0


def test_broken_rows_fail_without_a_call_of_the_model_for_them() -> None:
    scorer = FakeScorer()
    cut = "the end of it.<|im_end|>\n<|im_start|>assistant\n"
    samples = [Sample("query", cut, cut + ANSWER), Sample("completion", "p", ANSWER)]
    answers = judged_by(scorer, samples)
    assert answers[0].failure.kind is FailureKind.DATA
    assert "cut from the left" in answers[0].failure.reason
    assert answers[1].score == len(CODE)


def test_warm_up_is_never_answered_from_memory() -> None:
    scorer = FakeScorer()
    scaler = CodeScaler(scorer, config=CONFIG)
    scaler.check()
    scaler.check()
    assert scorer.calls[0] != scorer.calls[1]


def test_warm_up_without_a_finite_score_is_an_error() -> None:
    with pytest.raises(ScorerError, match=r"gave nan for a two-line program: expected a finite score"):
        CodeScaler(FakeScorer(lambda *_: math.nan), config=CONFIG).check()


def test_the_explanation_of_a_query_counts_the_lines_of_the_completion() -> None:
    prompt = "<|im_start|>user\nSet x.<|im_end|>\n<|im_start|>assistant\n<think>\n"
    sample = Sample.from_query(f"{prompt}Hm.</think>\n```python\nx = 1\n```<|im_end|>", prompt)
    [judgement] = judge_samples(CodeScaler(FakeScorer()), [sample])
    assert judgement.explanation == "The block at line 2 of the completion is a python program."
