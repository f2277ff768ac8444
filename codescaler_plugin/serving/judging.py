"""What callers send -> what the reward model says of it. Runs where the model is; knows no HTTP and no shape."""

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import count
from typing import Literal

from codescaler_plugin.config import CodeScalerConfig
from codescaler_plugin.errors import CodeScalerError, DataError, ScorerError
from codescaler_plugin.extraction import begun, prompt_opening
from codescaler_plugin.pipeline import CodeScaler
from codescaler_plugin.records import Status
from codescaler_plugin.text.messages import begun_text, problem_text, stated_problem
from codescaler_plugin.text.templates import Template, response

logger = logging.getLogger(__name__)

_DOWN_AFTER = 4  # samples that fail one by one, with none between that does not


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


@dataclass(frozen=True)
class Answer:
    """What is known of one sample.

    Attributes:
        score: raw logit; None for code that never reached the model, and for a failure.
        status: as a `Status`; empty for a failure before the code was found.
        code: what was extracted; of a `completion` only.
        failure: why a sample has no reward; empty if it has. In the form `kind: reason`.
    """

    score: float | None = None
    status: str = ""
    code: str = ""
    failure: str = ""


def item_of(query: str, prompt: str | None, label: object = None) -> Item:
    """The sample in what a host hands over. A label that holds the problem takes the place of the prompt's user turn.

    Args:
        query: prompt and answer, templated.
        prompt: templated; may be empty.
        label: whatever the dataset has; see `stated_problem`.
    """
    try:
        stated = stated_problem(label)
    except DataError as error:
        logger.warning("a label's problem cannot be read, that of the prompt is taken: %s", error)
        stated = None
    return Item("query", _valid(prompt or ""), _valid(query), _valid(stated) if stated else None)


def problem_and_completion(
    item: Item, template: Template | None = None, reasoning_marks: str | None = None
) -> tuple[str, str]:
    """The two texts of a sample; a completion with what its prompt has opened before it.

    Args:
        item: no `code`.
        template: that of the policy; None: those that `text.templates` knows.
        reasoning_marks: see `extract_code`.

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


def probability(score: float | None) -> float:
    """1 / (1 + e^-score) of a raw logit, in [0, 1]; 0 without one. For hosts that filter by it."""
    if score is None:
        return 0.0
    return 1 / (1 + math.exp(-score)) if score > -700 else 0.0


class Judge:
    """Extracts and scores batches, so that one bad sample costs no other its score.

    Args:
        config: settings; its shape is not applied here, since batches are made of several callers' samples.
        scaler: takes the place of the one that `config` describes.
    """

    def __init__(self, config: CodeScalerConfig, scaler: CodeScaler | None = None) -> None:
        unshaped = replace(config, shaping="raw", temperature=1.0, offset=0.0, floor=0.0)
        self.scaler = scaler or CodeScaler(config=unshaped)
        self._numbers = count()

    def warm_up(self) -> None:
        """Load the model and score a program that no earlier call has scored.

        Raises:
            ConfigError: the model cannot be had.
            ScorerError: it gave no finite score.
        """
        code = f"def solve(n):\n    return n + {next(self._numbers)}\n"
        [score] = self.scaler.scorer.score([("Write solve(n): for the digits of n, return the sum.", code)])
        if score is None or not math.isfinite(score):
            raise ScorerError(f"the model gave {score} for a two-line program: expected a finite score")

    def judge(self, items: Sequence[Item]) -> list[Answer]:
        """One answer per item, same order. Raises nothing for what is wrong with an item or with the scorer.

        A batch that fails is halved until the samples that fail stand alone. After four of them in a row the warm-up
        is scored; if that fails too, the scorer is down, and what is left fails with the same reason.
        """
        answers: list[Answer] = [Answer()] * len(items)
        parts = [list(range(len(items)))] if items else []
        alone = 0
        while parts:
            part = parts.pop()
            try:
                found = self._judged([items[place] for place in part])
            except Exception as error:  # noqa: BLE001 - whatever a scorer raises is the failure of its samples
                if len(part) > 1:
                    parts += [part[len(part) // 2 :], part[: len(part) // 2]]
                    continue
                failure = _failure(error)
                answers[part[0]] = Answer(failure=failure)
                alone += not isinstance(error, DataError)
                if alone >= _DOWN_AFTER:
                    alone = 0
                    if self._is_down():
                        for place in (place for rest in parts for place in rest):
                            answers[place] = Answer(failure=failure)
                        parts = []
            else:
                alone = 0
                for place, answer in zip(part, found, strict=True):
                    answers[place] = answer
        return answers

    def _is_down(self) -> bool:
        try:
            self.warm_up()
        except Exception:  # noqa: BLE001 - as in `judge`
            return True
        return False

    def _judged(self, items: list[Item]) -> list[Answer]:
        answers: list[Answer] = [Answer()] * len(items)
        codes = [place for place, item in enumerate(items) if item.kind == "code"]
        if codes:
            scores = self.scaler.scorer.score([(items[place].problem, items[place].text) for place in codes])
            for place, score in zip(codes, scores, strict=True):
                answers[place] = _answer(score, Status.OK, "")
        texts = [place for place, item in enumerate(items) if item.kind != "code"]
        if texts:
            marks, template = self.scaler.config.reasoning_marks, self.scaler.template
            pairs = [problem_and_completion(items[place], template, marks) for place in texts]
            problems, answers_given = [problem for problem, _ in pairs], [text for _, text in pairs]
            # Nothing is left of the prompts: what they opened stands before the completions.
            judgements = self.scaler.judge(problems, answers_given, prompts=[""] * len(pairs))
            for place, judgement in zip(texts, judgements, strict=True):
                code = judgement.code if items[place].kind == "completion" else ""
                answers[place] = _answer(judgement.score, judgement.status, code)
        return answers


def _answer(score: float | None, status: Status, code: str) -> Answer:
    if status is not Status.OK:
        return Answer(None, status, code)
    if score is None or not math.isfinite(score):
        return Answer(None, status, code, "no_score: the code is too long for the model, or its logit is not finite")
    return Answer(score, status, code)


def _failure(error: Exception) -> str:
    kind = {DataError: "data", ScorerError: "scorer"}.get(type(error), "error")
    name = "" if isinstance(error, CodeScalerError) else f"{type(error).__name__}: "
    return f"{kind}: {name}{str(error)[:500]}"
