"""Extract, render, score, shape: where the stages meet. Knows no host, chooses no candidate, and runs no code."""

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import count
from math import isfinite
from typing import Any

from codescaler_plugin.config import CodeScalerConfig
from codescaler_plugin.errors import CodeScalerError, ConfigError, DataError, Failure, FailureKind, ScorerError
from codescaler_plugin.extraction import extract_all, prompt_opening
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
_DOWN_AFTER = 4  # programs in a row that fail one by one
_NO_SCORE = Failure(FailureKind.NO_SCORE, "the code is too long for the model, or its logit is not finite")
_UNCHECKED = "It was sent as a program, whose validity is checked by the sender."
_numbers = count()  # make each program of `check` new to a cache


class CodeScaler:
    r"""The execution-free reward of arXiv 2602.17684 with a reward model of your choice.

    Args:
        scorer: scorer of raw logits, or name of a model as in `CodeScalerConfig.model`. The default is the model of
            `config`.
        config: settings. The default is `CodeScalerConfig.from_env()`.
        settings: single settings, which come before those of `config`, such as `extraction="last"`.

    Raises:
        ConfigError: a scorer that is neither a name nor has a method `score`, or a setting that cannot be used.

    Example:
        >>> scaler = CodeScaler("builtin")
        >>> judgements = scaler.judge(["Double n."] * 2, ["```python\nprint(2 * int(input()))\n```", "I cannot."])
        >>> [judgement.reward > 0 for judgement in judgements]
        [True, False]
        >>> CodeScaler("builtin", extraction="last").config.extraction
        'last'
    """

    def __init__(
        self, scorer: Scorer | str | None = None, *, config: CodeScalerConfig | None = None, **settings: Any
    ) -> None:
        if isinstance(scorer, str):
            scorer, settings = None, {**settings, "model": scorer}
        elif scorer is not None:
            if not callable(getattr(scorer, "score", None)):
                raise ConfigError(
                    f"scorer is {scorer!r}, a {type(scorer).__name__} without a method score: give a model's name, or "
                    "load_scorer(model)"
                )
            if idle := {"model", *MODEL_SETTINGS}.intersection(settings):
                raise ConfigError(f"{', '.join(sorted(idle))} would have no effect on a scorer that is there already")
        from_env = partial(CodeScalerConfig.from_env, has_scorer=scorer is not None)
        self.config = from_env(**settings) if config is None else replace(config, **settings)
        self.scorer = self.config.spec().scorer() if scorer is None else scorer

    def with_config(self, **changes: Any) -> "CodeScaler":
        """A pipeline with the same scorer and other settings; a `ConfigError` for a setting of the model."""
        return CodeScaler(self.scorer, config=self.config, **changes)

    def check(self) -> None:
        """Load the model and score a program that is in no cache.

        Raises:
            ConfigError: the model cannot be loaded or reached.
            ScorerError: the model gave no finite score.
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
        """Judge completions, each against its own problem.

        Invalid code never reaches the model, and its reward is 0. If the problem of a completion cannot be read, or
        the model returns no score, its judgement has a `failure`, and the others keep their rewards.

        If the model fails on a batch, the pipeline scores halves of it until the failing programs stand alone. After
        four of them in a row it calls `check`. If that fails too, the model is down and not called again.

        Args:
            problems: n prompts. In messages and in templated text, the problem is the last user turn. A system turn is
                never part of it. If a prompt ends with open reasoning or an open fence, the completion continues it.
            completions: n completions. In messages, the completion is the last assistant turn with text. None is a
                completion without code.
            prompts: n prompts, if `problems` are not the prompts. Then a problem that is a string is read as it is.

        Returns:
            n judgements in the order of the completions.

        Raises:
            DataError: a string in place of a list, different lengths, or a completion that is neither a string nor
                messages; the message names the row.
            ConfigError: the model or `prompt_template` cannot be used.
        """
        check_lengths(problems=problems, completions=completions, **({} if prompts is None else {"prompts": prompts}))
        openings, completed = self._completions(problems if prompts is None else prompts, completions)
        texts, unread = self._problems(problems, is_stated=prompts is not None)
        if unread:
            first = next(iter(unread.values())).reason
            logger.warning("%d of %d samples have no problem that can be read: %s", len(unread), len(texts), first)

        def extract(chunk: list[int]) -> list[tuple[int, Extraction]]:
            extractions = extract_all(
                [completed[row] for row in chunk],
                openings=[openings[row] for row in chunk],
                language=self.config.language,
                extraction=self.config.extraction,
                reasoning_marks=self.config.reasoning_marks,
                thinking_prefilled=self.config.thinking_prefilled,
                fence_prefilled=self.config.fence_prefilled,
            )
            return list(zip(chunk, extractions, strict=True))

        return self._judged(texts, prefetch(extract, grouped_chunks(texts, _CHUNK)), unread)

    def judge_programs(self, problems: Sequence[str], programs: Sequence[str]) -> list[Judgement]:
        """Judge n programs, each against its own problem, as the model reads it. Whether one is valid is not checked.

        Returns:
            n judgements in the order of the programs, without code.

        Raises:
            DataError: a string in place of a list, or different lengths.
            ConfigError: the model cannot be used.
        """
        check_lengths(problems=problems, programs=programs)
        rows = [(row, Extraction(program, "", Status.OK, _UNCHECKED)) for row, program in enumerate(programs)]
        return [replace(judgement, code="") for judgement in self._judged(list(problems), [rows], {})]

    def _judged(
        self, texts: list[str], chunks: Iterable[list[tuple[int, Extraction]]], unread: Mapping[int, Failure]
    ) -> list[Judgement]:
        extractions: dict[int, Extraction] = {}
        failures = dict(unread)
        scores: list[float | None] = [None] * len(texts)
        scoring = _Scoring(self)
        for chunk in chunks:
            extractions.update(chunk)
            valid = [row for row, extraction in chunk if extraction.status is Status.OK and row not in unread]
            outcomes = scoring.of([(texts[row], extractions[row].code) for row in valid])
            for row, outcome in zip(valid, outcomes, strict=True):
                if isinstance(outcome, Failure):
                    failures[row] = outcome
                else:
                    scores[row] = outcome
        statuses = [extractions[row].status for row in range(len(texts))]
        rewards = self.config.shape().rewards(scores, statuses, texts)
        failed = [failures.get(row) if status is Status.OK else None for row, status in enumerate(statuses)]
        codes = [extractions[row].code for row in range(len(texts))]
        reasons = [extractions[row].explanation for row in range(len(texts))]
        return [Judgement(*values) for values in zip(rewards, scores, statuses, codes, failed, reasons, strict=True)]

    @property
    def template(self) -> Template | None:
        """The chat template of the policy, if `prompt_template` names one."""
        source = self.config.prompt_template
        return None if source is None else template_of(source)

    def _problems(self, problems: Sequence[Text], *, is_stated: bool) -> tuple[list[str], dict[int, Failure]]:
        """The text of each problem, empty if it cannot be read, and by row the failures of those."""
        texts: list[str] = []
        unread: dict[int, Failure] = {}
        read = _once(partial(self.problem_of, is_stated=is_stated))
        for row, problem in enumerate(problems):
            try:
                texts.append(read(problem, f"problem {row}"))
            except DataError as error:
                texts.append("")
                unread[row] = Failure(FailureKind.DATA, str(error))
        return texts, unread

    def problem_of(self, prompt: Text, offender: str = "the prompt", *, is_stated: bool = False) -> str:
        """The problem in a prompt, as the reward model reads it; see `problem_text`."""
        text = problem_text(prompt, offender, self.template, is_stated=is_stated)
        wrapper = self.config.problem_wrapper
        return text if wrapper is None else unwrapped(text, wrapper, offender)

    def _completions(self, prompts: Sequence[Text], completions: Sequence[Text | None]) -> tuple[list[str], list[str]]:
        """The reasoning or fence that each prompt has opened, and the text of each completion."""
        opening_of = _once(self._opening)
        texts = [completion_text(completion, f"completion {row}") for row, completion in enumerate(completions)]
        return [opening_of(prompt, f"problem {row}") for row, prompt in enumerate(prompts)], texts

    def _opening(self, prompt: Text, offender: str) -> str:
        try:
            text, is_reply = begun_text(prompt, offender, self.template)
        except DataError:
            return ""  # `_problems` reports it
        return prompt_opening(text, self.config.reasoning_marks, is_reply=is_reply)


def _once(read: Callable[[Text, str], str]) -> Callable[[Text, str], str]:
    """`read`, called once for equal prompts that are strings, because a group has one prompt."""
    known: dict[str, str] = {}

    def remembered(prompt: Text, offender: str) -> str:
        if not isinstance(prompt, str):
            return read(prompt, offender)
        if prompt not in known:
            known[prompt] = read(prompt, offender)
        return known[prompt]

    return remembered


class _Scoring:
    """The scores of one call. Exceptions of the scorer become failures; a scorer that is down is not called again."""

    def __init__(self, scaler: CodeScaler) -> None:
        self._scaler = scaler
        self._down: Failure | None = None
        self._has_logged = False

    def of(self, items: list[tuple[str, str]]) -> list[float | Failure]:
        """A finite score or a failure for each item, in order."""
        outcomes: dict[int, float | Failure] = {}
        parts = [list(range(len(items)))] if items else []
        has_another_try = len(items) == 1  # more than one are scored again in halves
        alone = 0  # in a row, of programs that failed alone
        while parts and self._down is None:
            part = parts.pop()
            new, failure = self._called(items, part)
            outcomes.update(new)
            left = [row for row in part if row not in new]
            if failure is None or not left:
                alone = 0
            elif len(left) < len(part) or has_another_try:
                has_another_try = False
                parts.append(left)
            elif len(left) > 1:
                parts += [left[len(left) // 2 :], left[: len(left) // 2]]
            else:
                outcomes[left[0]] = failure
                alone += 1
                if alone % _DOWN_AFTER == 0 and self._is_down():
                    self._down = failure
        if self._down is not None:
            outcomes = {row: outcomes.get(row, self._down) for row in range(len(items))}
        outages = [failed for failed in outcomes.values() if isinstance(failed, Failure) and failed.kind.is_outage]
        if len(outages) == len(outcomes) >= _DOWN_AFTER:
            self._down = outages[0]
        return [outcomes[row] for row in range(len(items))]

    def _called(
        self, items: list[tuple[str, str]], part: list[int]
    ) -> tuple[dict[int, float | Failure], Failure | None]:
        """The outcomes of some items after one call of the scorer, and the failure of the others."""
        scores: Sequence[float | None] = ()
        failures: Mapping[int, Failure] = {}
        failure = None
        try:
            returned = self._scaler.scorer.score([items[row] for row in part])
            scores = [None if score is None else float(score) for score in returned]  # of arrays and tensors, too
            if len(scores) != len(part):
                scores, came = (), len(scores)
                raise ScorerError(f"the scorer gave {came} scores for {len(part)} programs: expected one each")
        except ConfigError:
            raise
        except Exception as error:  # any exception of a scorer is the failure of its programs
            if not self._has_logged:
                self._has_logged = True
                logger.exception("scoring %d programs failed", len(part))
            name = "" if isinstance(error, CodeScalerError) else f"{type(error).__name__}: "
            failure = Failure(FailureKind.SCORER, f"{name}{str(error)[:500]}")
            if isinstance(error, ScorerError):
                scores, failures = error.scores, error.failures
        outcomes: dict[int, float | Failure] = {}
        for index, row in enumerate(part):
            score = scores[index] if scores else None
            if score is not None and abs(score) <= LARGEST:
                outcomes[row] = score
            elif index in failures:
                outcomes[row] = failures[index]
            elif failure is None:
                outcomes[row] = _NO_SCORE
        return outcomes, failure

    def _is_down(self) -> bool:
        try:
            self._scaler.check()
        except Exception:  # noqa: BLE001 - as above
            return True
        return False


def raise_for_failures(judgements: Iterable[Judgement]) -> None:
    """Raise the first failure, for callers that need all scores, but no `no_score`: it is final for its program."""
    for judgement in judgements:
        if judgement.failure is not None and judgement.failure.kind is not FailureKind.NO_SCORE:
            judgement.raise_for_failure()


def check_lengths(**columns: Any) -> None:
    """Raise a `DataError` that names the column unless all columns are lists of one length."""
    for name, column in columns.items():
        if isinstance(column, str):
            raise DataError(f"{name} is one string: expected a list of them, such as [{column[:20]!r}]")
        if isinstance(column, Mapping) or not hasattr(column, "__len__"):
            raise DataError(f"{name} is a {type(column).__name__}: expected a list")
    (first, problems), *others = columns.items()
    for name, column in others:
        if len(column) != len(problems):
            raise DataError(f"{len(problems)} {first} for {len(column)} {name}: expected one each")
