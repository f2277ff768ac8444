"""What hosts hand over -> judgements. Runs where the pipeline is; knows no HTTP and no trainer."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from codescaler_plugin.errors import DataError, Failure, FailureKind
from codescaler_plugin.extraction import begun, prompt_opening
from codescaler_plugin.pipeline import CodeScaler
from codescaler_plugin.records import Judgement
from codescaler_plugin.text.messages import begun_text, problem_text, stated_problem
from codescaler_plugin.text.templates import Template
from codescaler_plugin.text.turns import response

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Item:
    """One sample as it came.

    Attributes:
        kind: `code`: problem and program; `completion`: problem and answer; `query`: a host's prompt and the text of
            prompt and answer, both templated.
        problem: the problem, or the prompt of a `query`.
        text: program, answer, or query.
        stated: of a `query`, the problem as its dataset states it; None: it is in the prompt.
    """

    kind: Literal["code", "completion", "query"]
    problem: str
    text: str
    stated: str | None = None


def item_of(query: str, prompt: str | None, label: object = None) -> Item:
    """The sample in what a host hands over. A label that holds the problem takes the place of the prompt's user turn.

    Args:
        query: prompt and answer, templated.
        prompt: templated; may be empty.
        label: whatever the dataset has; see `stated_problem`.
    """
    return Item("query", _valid(prompt or ""), _valid(query), label_problem(label))


def label_problem(label: object) -> str | None:
    """The problem that a label states; None, and a warning if it cannot be read, where the prompt's is to be taken."""
    try:
        stated = stated_problem(label)
    except DataError as error:
        logger.warning("a label's problem cannot be read, that of the prompt is taken: %s", error)
        return None
    return _valid(stated) if stated else None


def _texts(item: Item, template: Template | None, reasoning_marks: str | None) -> tuple[str, str]:
    """Problem and completion of a sample that is no `code`; the completion with what its prompt has opened before it.

    Raises:
        DataError: the prompt holds no problem.
    """
    if item.kind == "completion":
        return _valid(item.problem), _valid(item.text)
    problem = item.stated if item.stated is not None else problem_text(item.problem or item.text, "prompt", template)
    text, is_reply = begun_text(item.problem, "prompt", template)
    opening = prompt_opening(text, reasoning_marks, is_reply=is_reply)
    return problem, begun(opening, response(item.text, item.problem, template))


def _valid(text: str) -> str:
    """A text without halves of surrogate pairs, which a decoder may leave and no model reads."""
    return text.encode("utf-8", "replace").decode()


def judge_items(scaler: CodeScaler, items: Sequence[Item]) -> list[Judgement]:
    """One judgement per item, same order; only those of a `completion` hold the code.

    Raises:
        ConfigError: the model cannot be used.
    """
    programs = [row for row, item in enumerate(items) if item.kind == "code"]
    found = scaler.judge_programs([items[row].problem for row in programs], [items[row].text for row in programs])
    judgements = dict(zip(programs, found, strict=True))
    texts: dict[int, tuple[str, str]] = {}
    template, marks = scaler.template, scaler.config.reasoning_marks
    for row, item in enumerate(items):
        if item.kind != "code":
            try:
                texts[row] = _texts(item, template, marks)
            except DataError as error:
                failure = Failure(FailureKind.DATA, str(error))
                judgements[row] = Judgement(None, None, None, "", failure)
    problems, completions = [problem for problem, _ in texts.values()], [text for _, text in texts.values()]
    # Nothing is left of the prompts: what they opened stands before the completions.
    for row, judgement in zip(texts, scaler.judge(problems, completions, prompts=[""] * len(texts)), strict=True):
        judgements[row] = judgement if items[row].kind == "completion" else replace(judgement, code="")
    return [judgements[row] for row in range(len(items))]
