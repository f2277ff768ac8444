"""extract -> render -> score -> shape: the only place where the stages meet.

It knows no host. It does not choose among candidates, and it runs no code.
"""

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import count
from math import isfinite
from typing import Any

from codescaler_plugin.config import CodeScalerConfig
from codescaler_plugin.errors import (
    CodeScalerError,
    ConfigError,
    DataError,
    Failure,
    FailureKind,
    ScorerError,
)
from codescaler_plugin.extraction import begun, extract_all, prompt_opening
from codescaler_plugin.prefetch import grouped_chunks, prefetch
from codescaler_plugin.records import Extraction, Judgement, Status
from codescaler_plugin.scoring import Scorer
from codescaler_plugin.scoring.rendering import unwrapped
from codescaler_plugin.scoring.spec import MODEL_SETTINGS
from codescaler_plugin.shaping import LARGEST
from codescaler_plugin.text.derivation import template_of
from codescaler_plugin.text.messages import Text, begun_text, completion_text, problem_text
from codescaler_plugin.text.templates import Template

logger = logging.getLogger(__name__)

_CHUNK = 512  # completions extracted while the chunk before is being scored
_DOWN_AFTER = 4  # programs that fail one by one, with none between that does not
_NO_SCORE = Failure(FailureKind.NO_SCORE, "the code is too long for the model, or its logit is not finite")
_numbers = count()  # of the programs of `check`, none of which may be answered from a cache


class CodeScaler:
    """The execution-free reward of arXiv 2602.17684 over a reward model of your choice.

    Args:
        scorer: gives raw logits, or names a model as `CodeScalerConfig.model` does; None: the model of `config`.
        config: settings; None: defaults and `CODESCALER_*` variables.

    Raises:
        ConfigError: `scorer` is neither a name nor has it a method `score`; a setting that cannot be used.

    Example:
        >>> scaler = CodeScaler("builtin")
        >>> [judgement] = scaler.judge(["Write solve(n)."], ["I cannot."])
        >>> judgement.reward
        0.0
    """

    def __init__(self, scorer: Scorer | str | None = None, *, config: CodeScalerConfig | None = None) -> None:
        if isinstance(scorer, str):
            config = CodeScalerConfig.from_env(model=scorer) if config is None else replace(config, model=scorer)
            scorer = None
        elif scorer is not None and not callable(getattr(scorer, "score", None)):
            raise ConfigError(
                f"scorer is {scorer!r}, a {type(scorer).__name__} without a method score: give a model's name, or "
                "load_scorer(model)"
            )
        self.config = config or CodeScalerConfig.from_env(has_scorer=scorer is not None)
        self.scorer = self.config.spec().scorer() if scorer is None else scorer

    def with_config(self, **changes: Any) -> "CodeScaler":
        """The same scorer with other settings of the pipeline.

        Raises:
            ConfigError: a setting that cannot be used, or one of the model.
        """
        if idle := {"model", *MODEL_SETTINGS}.intersection(changes):
            raise ConfigError(f"{', '.join(sorted(idle))} would have no effect on a scorer that is there already")
        return CodeScaler(self.scorer, config=replace(self.config, **changes))

    def check(self) -> None:
        """Load the model and score a program that no earlier call has scored.

        Raises:
            ConfigError: the model cannot be had.
            ScorerError: it gave no finite score.
        """
        code = f"def solve(n):\n    return n + {next(_numbers)}\n"
        [score] = self.scorer.score([("Write solve(n): for the digits of n, return the sum.", code)])
        if score is None or not isfinite(score):
            raise ScorerError(f"the model gave {score} for a two-line program: expected a finite score")

    def judge(
        self,
        problems: Sequence[Text],
        completions: Sequence[Text | None],
        *,
        prompts: Sequence[Text] | None = None,
    ) -> list[Judgement]:
        """Judge completions, each against its own problem; same length, same order.

        Invalid code never reaches the model, and its reward is 0. A completion whose prompt holds no problem that can
        be read, or that the reward model has no score for, is a judgement with a `failure`, and costs no other its
        reward: see `Judgement.raise_for_failure`. An empty batch gives an empty list.

        Where the model fails on a batch, its halves are scored, until the programs that it fails on stand alone. After
        four of them in a row `check` is called; if that fails too, the model is down, and is not asked again.

        Args:
            problems: n prompts. In messages, and in text that a chat template has made, the problem is the last user
                turn; a system turn never is. Where a prompt's end opens the reasoning or the fence of the completion,
                the completion is read as what goes on from there.
            completions: n completions. In messages the completion is the last assistant turn with text; None is a
                completion without code.
            prompts: n prompts, where they are not the problems. Then a problem that is a string is taken as it stands.

        Raises:
            DataError: a string in place of a list, lengths differ, or a completion is neither a string nor messages;
                the row is named.
            ConfigError: the model, or `prompt_template`, cannot be used.
        """
        check_lengths(problems=problems, completions=completions, **({} if prompts is None else {"prompts": prompts}))
        answers = self._answers(problems if prompts is None else prompts, completions)
        texts, unread = self._problems(problems, is_stated=prompts is not None)
        if unread:
            first = next(iter(unread.values())).reason
            logger.warning("%d of %d samples have no problem that can be read: %s", len(unread), len(texts), first)

        def extract(chunk: list[int]) -> list[tuple[int, Extraction]]:
            found = extract_all(
                [answers[row] for row in chunk],
                language=self.config.language,
                extraction=self.config.extraction,
                reasoning_marks=self.config.reasoning_marks,
                thinking_prefilled=self.config.thinking_prefilled,
                fence_prefilled=self.config.fence_prefilled,
            )
            return list(zip(chunk, found, strict=True))

        return self._judged(texts, prefetch(extract, grouped_chunks(texts, _CHUNK)), unread)

    def judge_programs(self, problems: Sequence[str], programs: Sequence[str]) -> list[Judgement]:
        """Judge programs as they stand, each against its own problem; same length, same order.

        It does not check that they are valid. The judgements do not repeat the code.

        Args:
            problems: n problems, as the model reads them.
            programs: n programs.

        Raises:
            DataError: a string in place of a list, or lengths differ.
            ConfigError: the model cannot be used.
        """
        check_lengths(problems=problems, programs=programs)
        rows = [(row, Extraction(program, "", Status.OK)) for row, program in enumerate(programs)]
        return [replace(judgement, code="") for judgement in self._judged(list(problems), [rows], {})]

    def _judged(
        self, texts: list[str], chunks: Iterable[list[tuple[int, Extraction]]], unread: Mapping[int, Failure]
    ) -> list[Judgement]:
        """Judgements of what was extracted for each problem, chunk by chunk."""
        extractions: dict[int, Extraction] = {}
        failures = dict(unread)
        scores: list[float | None] = [None] * len(texts)
        scoring = _Scoring(self)
        for chunk in chunks:
            extractions.update(chunk)
            valid = [
                (row, extraction.code)
                for row, extraction in chunk
                if extraction.status is Status.OK and row not in unread
            ]
            for (row, _), outcome in zip(valid, scoring.of([(texts[row], code) for row, code in valid]), strict=True):
                if isinstance(outcome, Failure):
                    failures[row] = outcome
                else:
                    scores[row] = outcome
        statuses = [extractions[row].status for row in range(len(texts))]
        rewards = self.config.shape().rewards(scores, statuses, texts)
        return [
            Judgement(
                rewards[row],
                scores[row],
                status,
                extractions[row].code,
                failures.get(row) if status is Status.OK else None,
            )
            for row, status in enumerate(statuses)
        ]

    @property
    def template(self) -> Template | None:
        """The chat template of the policy, if `prompt_template` names one."""
        source = self.config.prompt_template
        return None if source is None else template_of(source)

    def _problems(self, problems: Sequence[Text], *, is_stated: bool) -> tuple[list[str], dict[int, Failure]]:
        """The text of each problem, empty where it cannot be read, and what is wrong with those."""
        texts: list[str] = []
        unread: dict[int, Failure] = {}
        known: dict[str, str] = {}  # of the prompts that are text: a group has one
        for row, problem in enumerate(problems):
            try:
                text = known.get(problem) if isinstance(problem, str) else None
                if text is None:
                    text = self.problem_of(problem, f"problem {row}", is_stated=is_stated)
                texts.append(text)
                if isinstance(problem, str):
                    known[problem] = texts[-1]
            except DataError as error:
                texts.append("")
                unread[row] = Failure(FailureKind.DATA, str(error))
        return texts, unread

    def problem_of(self, prompt: Text, offender: str = "the prompt", *, is_stated: bool = False) -> str:
        """The problem in a prompt, as the reward model reads it.

        Args:
            prompt: see `judge`.
            offender: its name in errors.
            is_stated: a string is the problem as it stands, and no prompt.

        Raises:
            DataError: it holds no problem that can be read.
        """
        text = problem_text(prompt, offender, self.template, is_stated=is_stated)
        wrapper = self.config.problem_wrapper
        return text if wrapper is None else unwrapped(text, wrapper, offender)

    def _answers(self, prompts: Sequence[Text], completions: Sequence[Text | None]) -> list[str]:
        """The text of each completion, what its prompt has opened before it."""
        known: dict[str, str] = {}  # of the prompts that are text: a group has one
        answers = []
        for row, (prompt, completion) in enumerate(zip(prompts, completions, strict=True)):
            answer = completion_text(completion, f"completion {row}")
            opening = known.get(prompt) if isinstance(prompt, str) else None
            if opening is None:
                opening = self._opening(prompt, f"problem {row}")
                if isinstance(prompt, str):
                    known[prompt] = opening
            answers.append(begun(opening, answer))
        return answers

    def _opening(self, prompt: Text, offender: str) -> str:
        try:
            text, is_reply = begun_text(prompt, offender, self.template)
        except DataError:
            return ""  # `_problems` says what is wrong
        return prompt_opening(text, self.config.reasoning_marks, is_reply=is_reply)


class _Scoring:
    """Scores of one call, whatever the scorer raises; one that is down is not asked again."""

    def __init__(self, scaler: CodeScaler) -> None:
        self._scaler = scaler
        self._down: Failure | None = None
        self._has_logged = False

    def of(self, items: list[tuple[str, str]]) -> list[float | Failure]:
        """A finite score, or why there is none, for each item; same order."""
        found: dict[int, float | Failure] = {}
        parts = [list(range(len(items)))] if items else []
        has_another_try = len(items) == 1  # more than one are scored again in halves
        alone = 0  # in a row, of programs that failed alone
        while parts and self._down is None:
            part = parts.pop()
            now, failure = self._asked(items, part)
            found.update(now)
            left = [row for row in part if row not in now]
            if failure is None or not left:
                alone = 0
            elif len(left) < len(part) or has_another_try:
                has_another_try = False
                parts.append(left)
            elif len(left) > 1:
                parts += [left[len(left) // 2 :], left[: len(left) // 2]]
            else:
                found[left[0]] = failure
                alone += 1
                if alone % _DOWN_AFTER == 0 and self._is_down():
                    self._down = failure
        if self._down is not None:
            found = {row: found.get(row, self._down) for row in range(len(items))}
        outages = [outcome for outcome in found.values() if isinstance(outcome, Failure) and outcome.kind.is_outage]
        if len(outages) == len(found) >= _DOWN_AFTER:
            self._down = outages[0]
        return [found[row] for row in range(len(items))]

    def _asked(
        self, items: list[tuple[str, str]], part: list[int]
    ) -> tuple[dict[int, float | Failure], Failure | None]:
        """What is known of some items after one call of the scorer, and why others are not known."""
        scores: Sequence[float | None] = ()
        failures: Mapping[int, Failure] = {}
        failure = None
        try:
            found = self._scaler.scorer.score([items[row] for row in part])
            scores = [None if score is None else float(score) for score in found]  # of arrays and tensors, too
            if len(scores) != len(part):
                scores, came = (), len(scores)
                raise ScorerError(f"the scorer gave {came} scores for {len(part)} programs: expected one each")
        except ConfigError:
            raise
        except Exception as error:  # whatever a scorer raises is the failure of its programs
            if not self._has_logged:
                self._has_logged = True
                logger.exception("scoring %d programs failed", len(part))
            name = "" if isinstance(error, CodeScalerError) else f"{type(error).__name__}: "
            failure = Failure(FailureKind.SCORER, f"{name}{str(error)[:500]}")
            if isinstance(error, ScorerError):
                scores, failures = error.scores, error.failures
        now: dict[int, float | Failure] = {}
        for index, row in enumerate(part):
            score = scores[index] if scores else None
            if score is not None and abs(score) <= LARGEST:
                now[row] = score
            elif index in failures:
                now[row] = failures[index]
            elif failure is None:
                now[row] = _NO_SCORE
        return now, failure

    def _is_down(self) -> bool:
        try:
            self._scaler.check()
        except Exception:  # noqa: BLE001 - as above
            return True
        return False


def raise_for_failures(judgements: Iterable[Judgement]) -> None:
    """Raise the first failure, for callers that cannot go on without the others' scores.

    A program that the model has no score for (`no_score`) raises nothing: that is known of it.

    Raises:
        DataError, ScorerError: see `Judgement.raise_for_failure`.
    """
    for judgement in judgements:
        if judgement.failure is not None and judgement.failure.kind is not FailureKind.NO_SCORE:
            judgement.raise_for_failure()


def check_lengths(**columns: Any) -> None:
    """Refuse columns that are no lists, or not as long as the first.

    Raises:
        DataError: a string in place of a list, something that is no list, or lengths that differ; it is named.
    """
    for name, given in columns.items():
        if isinstance(given, str):
            raise DataError(f"{name} is one string: expected a list of them, such as [{given[:20]!r}]")
        if isinstance(given, Mapping) or not hasattr(given, "__len__"):
            raise DataError(f"{name} is a {type(given).__name__}: expected a list")
    (first, problems), *others = columns.items()
    for name, given in others:
        if len(given) != len(problems):
            raise DataError(f"{len(problems)} {first} for {len(given)} {name}: expected one each")
