"""Samples as hosts send them, and their judgements. Runs where the pipeline is; knows neither HTTP nor trainers."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, Self

from codescaler_plugin.errors import DataError, Failure, FailureKind
from codescaler_plugin.extraction import begun, prompt_opening
from codescaler_plugin.pipeline import CodeScaler
from codescaler_plugin.records import Judgement
from codescaler_plugin.text.messages import begun_text, problem_text, stated_problem
from codescaler_plugin.text.templates import Template
from codescaler_plugin.text.turns import response

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Sample:
    """A problem with a completion or a program.

    Attributes:
        kind: `code` for a problem and a program; `completion` for a problem and a completion; `query` for a host's
            prompt and the text of prompt and completion, both templated.
        problem: the problem, or the prompt of a `query`.
        text: the program, completion, or query.
        stated: problem of a `query` as its dataset states it. None if it is in the prompt.
    """

    kind: Literal["code", "completion", "query"]
    problem: str
    text: str
    stated: str | None = None

    @classmethod
    def from_query(cls, query: str, prompt: str | None, label: object = None) -> Self:
        """The sample of a host that templates its texts. A label that holds the problem replaces the prompt's.

        Args:
            query: prompt and completion, templated.
            prompt: prompt, templated; may be empty.
            label: value of the dataset; see `stated_problem`.

        Example:
            >>> Sample.from_query("Add 1 to n.```python...", "Add 1 to n.", {"problem": "Add 1."}).stated
            'Add 1.'
        """
        return cls("query", _valid(prompt or ""), _valid(query), problem_in_label(label))


def problem_in_label(label: object) -> str | None:
    """The problem that a label states, or None. A problem that cannot be read is None too, with a warning."""
    try:
        stated = stated_problem(label)
    except DataError as error:
        logger.warning("a label's problem cannot be read, that of the prompt is taken: %s", error)
        return None
    return _valid(stated) if stated else None


def judge_samples(scaler: CodeScaler, samples: Sequence[Sample]) -> list[Judgement]:
    """One judgement per sample, in order. Only those of a `completion` hold the code.

    Raises:
        ConfigError: the model cannot be used.
    """
    programs = [index for index, sample in enumerate(samples) if sample.kind == "code"]
    judged = scaler.judge_programs(
        [samples[index].problem for index in programs], [samples[index].text for index in programs]
    )
    judgements = dict(zip(programs, judged, strict=True))
    texts: dict[int, tuple[str, str]] = {}
    template, marks = scaler.template, scaler.config.reasoning_marks
    for index, sample in enumerate(samples):
        if sample.kind != "code":
            try:
                texts[index] = _texts(sample, template, marks)
            except DataError as error:
                failure = Failure(FailureKind.DATA, str(error))
                judgements[index] = Judgement(None, None, None, "", failure)
    problems, completions = [problem for problem, _ in texts.values()], [text for _, text in texts.values()]
    # The prompts are empty, since what they opened already stands before the completions.
    for index, judgement in zip(texts, scaler.judge(problems, completions, prompts=[""] * len(texts)), strict=True):
        judgements[index] = judgement if samples[index].kind == "completion" else replace(judgement, code="")
    return [judgements[index] for index in range(len(samples))]


def _texts(sample: Sample, template: Template | None, reasoning_marks: str | None) -> tuple[str, str]:
    """Problem and completion of a `completion` or `query`; what the prompt opened stands before the completion.

    Raises:
        DataError: the prompt holds no problem.
    """
    if sample.kind == "completion":
        return _valid(sample.problem), _valid(sample.text)
    problem = sample.stated
    if problem is None:
        problem = problem_text(sample.problem or sample.text, "prompt", template)
    text, is_reply = begun_text(sample.problem, "prompt", template)
    opening = prompt_opening(text, reasoning_marks, is_reply=is_reply)
    return problem, begun(opening, response(sample.text, sample.problem, template))


def _valid(text: str) -> str:
    """A text with lone surrogates replaced: a decoder may leave them, and no model reads them."""
    return text.encode("utf-8", "replace").decode()
