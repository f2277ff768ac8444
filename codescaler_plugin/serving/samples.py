"""Samples as hosts send them, and their judgements. Runs where the pipeline is; knows neither HTTP nor trainers."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, Self

from codescaler_plugin.errors import DataError, Failure, FailureKind
from codescaler_plugin.extraction import prompt_opening
from codescaler_plugin.pipeline import CodeScaler
from codescaler_plugin.records import Judgement
from codescaler_plugin.text.messages import Text, begun_text, problem_text, stated_problem
from codescaler_plugin.text.templates import Template
from codescaler_plugin.text.turns import response

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Sample:
    """A problem with a program (`code`) or a completion.

    A `query` is a host's prompt as `problem`, and as `text` prompt and completion, both templated.
    """

    kind: Literal["code", "completion", "query"]
    problem: str
    text: str
    stated: str | None = None  # problem of a `query` as its dataset states it; None if it is in the prompt

    @classmethod
    def from_query(cls, query: str, prompt: str | None, label: object = None) -> Self:
        """The sample of a host that templates its texts. A label that holds the problem replaces the prompt's."""
        return cls("query", valid_text(prompt or ""), valid_text(query), problem_in_label(label))


def problem_in_label(label: object) -> str | None:
    """The problem that a label states, or None. A problem that cannot be read is None too, with a warning."""
    try:
        stated = stated_problem(label)
    except DataError as error:
        logger.warning("a label's problem cannot be read, that of the prompt is taken: %s", error)
        return None
    return valid_text(stated) if stated else None


def judge_samples(scaler: CodeScaler, samples: Sequence[Sample]) -> list[Judgement]:
    """One judgement per sample, in order. Only those of a `completion` hold the code."""
    programs = [index for index, sample in enumerate(samples) if sample.kind == "code"]
    judged = scaler.judge_programs(
        [samples[index].problem for index in programs], [samples[index].text for index in programs]
    )
    judgements = dict(zip(programs, judged, strict=True))
    texts: dict[int, tuple[str, str, str]] = {}
    template, marks = scaler.template, scaler.config.reasoning_marks
    for index, sample in enumerate(samples):
        if sample.kind != "code":
            try:
                texts[index] = _texts(sample, template, marks)
            except DataError as error:
                judgements[index] = Judgement(None, None, None, "", Failure(FailureKind.DATA, str(error)))
    problems, openings, completions = map(list, zip(*texts.values(), strict=True)) if texts else ([], [], [])
    prompts: list[Text] = [[{"role": "assistant", "content": opening}] if opening else "" for opening in openings]
    for index, judgement in zip(texts, scaler.judge(problems, completions, prompts=prompts), strict=True):
        judgements[index] = judgement if samples[index].kind == "completion" else replace(judgement, code="")
    return [judgements[index] for index in range(len(samples))]


def _texts(sample: Sample, template: Template | None, reasoning_marks: str | None) -> tuple[str, str, str]:
    """Problem, what the prompt opened, and completion of a `completion` or `query`."""
    if sample.kind == "completion":
        return valid_text(sample.problem), "", valid_text(sample.text)
    problem = sample.stated
    if problem is None:
        problem = problem_text(sample.problem or sample.text, "prompt", template)
    text, is_reply = begun_text(sample.problem, "prompt", template)
    opening = prompt_opening(text, reasoning_marks, is_reply=is_reply)
    return problem, opening, response(sample.text, sample.problem, template)


def valid_text(text: str) -> str:
    """A text with lone surrogates replaced: a decoder or JSON may leave them, and no model reads them."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode()  # ASCII uncopied: it may be large
