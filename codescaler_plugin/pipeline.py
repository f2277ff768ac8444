"""extract -> render -> score -> shape: the only place where the stages meet.

It knows no host. It does not choose among candidates, and it runs no code.
"""

import logging
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from codescaler_plugin.ahead import ahead, grouped_chunks
from codescaler_plugin.config import CodeScalerConfig
from codescaler_plugin.errors import ConfigError, DataError, ScorerError
from codescaler_plugin.extraction import begun, extract_all, prompt_opening
from codescaler_plugin.records import Extraction, Judgement, Status
from codescaler_plugin.scoring import Scorer, load_scorer
from codescaler_plugin.scoring.rendering import unwrapped
from codescaler_plugin.text.derivation import template_of
from codescaler_plugin.text.messages import Text, begun_text, completion_text, problem_text
from codescaler_plugin.text.templates import Template

logger = logging.getLogger(__name__)

_CHUNK = 512  # completions extracted while the chunk before is being scored


class CodeScaler:
    """The execution-free reward of arXiv 2602.17684 over a reward model of your choice.

    Args:
        scorer: gives raw logits; None: the model that `config` names.
        config: settings; None: defaults and `CODESCALER_*` variables.

    Raises:
        ConfigError: `scorer` has no method `score`, such as a model's name; a setting that cannot be used.

    Example:
        >>> scaler = CodeScaler(load_scorer("builtin"))
        >>> [judgement] = scaler.judge(["Write solve(n)."], ["I cannot."])
        >>> judgement.reward
        0.0
    """

    def __init__(self, scorer: Scorer | None = None, *, config: CodeScalerConfig | None = None) -> None:
        if scorer is not None and not callable(getattr(scorer, "score", None)):
            way = f"CodeScaler(load_scorer({scorer!r}))" if isinstance(scorer, str) else "load_scorer(model)"
            raise ConfigError(f"scorer is {scorer!r}, a {type(scorer).__name__} without a method score: give {way}")
        self.config = config or CodeScalerConfig.from_env()
        settings = self.config
        self.scorer = scorer or load_scorer(
            settings.model,
            max_length=settings.max_length,
            max_tokens=settings.max_tokens,
            device=settings.device,
            cache_size=settings.cache_size,
            cache_dir=settings.cache_dir,
            offload=settings.offload,
            tokenizer=settings.tokenizer,
            api_key=settings.api_key,
            trust_remote_code=settings.trust_remote_code,
        )

    def judge(
        self,
        problems: Sequence[Text],
        completions: Sequence[Text | None],
        *,
        prompts: Sequence[Text] | None = None,
        on_scorer_error: Literal["raise", "none"] = "raise",
        failures: list[ScorerError | DataError] | None = None,
    ) -> list[Judgement]:
        """Judge completions, each against its own problem; same length, same order.

        Code that is not usable never reaches the model and is worth 0. An empty batch gives an empty list.

        Args:
            problems: n prompts. In messages, and in text that a chat template has made, the problem is the last user
                turn; a system turn never is. Where a prompt's end opens the reasoning or the fence of the completion,
                the completion is read as what goes on from there.
            completions: n completions. In messages the completion is the last assistant turn with text; None is a
                completion without code.
            prompts: n prompts, where they are not the problems. Then a problem that is a string is taken as it stands.
            on_scorer_error: `raise`, or `none`: retry once what has no score, log the errors, and leave the rest None;
                so is a valid program whose prompt holds no problem that can be read.
            failures: with `none`, gets the errors that were left after the retries.

        Raises:
            DataError: a string in place of a list, lengths differ, a completion is neither a string nor messages, or
                with `raise` a problem cannot be read; the row is named.
            ConfigError: `prompt_template` cannot be used.
            ScorerError: the model failed and `on_scorer_error` is `raise`.
        """
        _check_lengths(problems=problems, completions=completions, **({} if prompts is None else {"prompts": prompts}))
        answers = self._answers(problems if prompts is None else prompts, completions, on_scorer_error)
        texts, unread = self._problems(problems, on_scorer_error, is_stated=prompts is not None)
        if unread:
            first = next(iter(unread.values()))
            logger.warning("%d of %d samples have no problem that can be read: %s", len(unread), len(texts), first)
            if failures is not None:
                failures.append(first)

        def extract(chunk: list[int]) -> list[tuple[int, Extraction]]:
            found = extract_all(
                [answers[row] for row in chunk],
                language=self.config.language,
                policy=self.config.policy,
                reasoning_marks=self.config.reasoning_marks,
                thinking_prefilled=self.config.thinking_prefilled,
                fence_prefilled=self.config.fence_prefilled,
            )
            return list(zip(chunk, found, strict=True))

        extractions: dict[int, Extraction] = {}
        scores: list[float | None] = [None] * len(texts)
        for found in ahead(extract, grouped_chunks(texts, _CHUNK)):
            extractions.update(found)
            usable = [
                (row, extraction.code)
                for row, extraction in found
                if extraction.status is Status.OK and row not in unread
            ]
            items = [(texts[row], code) for row, code in usable]
            for (row, _), score in zip(usable, self._score(items, on_scorer_error, failures), strict=True):
                scores[row] = score
        rewards = self.config.shape().rewards(scores, [extractions[row].status for row in range(len(texts))], texts)
        return [
            Judgement(rewards[row], scores[row], extractions[row].status, extractions[row].code)
            for row in range(len(texts))
        ]

    @property
    def template(self) -> Template | None:
        """The chat template of the policy, if `prompt_template` names one."""
        source = self.config.prompt_template
        return None if source is None else template_of(source)

    def _problems(
        self, problems: Sequence[Text], on_error: str, *, is_stated: bool
    ) -> tuple[list[str], dict[int, DataError]]:
        """The text of each problem; without `raise`, what is wrong with those that are empty then."""
        texts: list[str] = []
        unread: dict[int, DataError] = {}
        known: dict[str, str] = {}  # of the prompts that are text: a group has one
        for row, problem in enumerate(problems):
            try:
                text = known.get(problem) if isinstance(problem, str) else None
                texts.append(self._problem(problem, f"problem {row}", is_stated) if text is None else text)
                if isinstance(problem, str):
                    known[problem] = texts[-1]
            except DataError as error:
                if on_error == "raise":
                    raise
                texts.append("")
                unread[row] = error
        return texts, unread

    def _problem(self, prompt: Text, offender: str, is_stated: bool) -> str:
        text = problem_text(prompt, offender, self.template, is_stated=is_stated)
        wrapper = self.config.problem_wrapper
        return text if wrapper is None else unwrapped(text, wrapper, offender)

    def _answers(self, prompts: Sequence[Text], completions: Sequence[Text | None], on_error: str) -> list[str]:
        """The text of each completion, what its prompt has opened before it."""
        known: dict[str, str] = {}  # of the prompts that are text: a group has one
        answers = []
        for row, (prompt, completion) in enumerate(zip(prompts, completions, strict=True)):
            answer = completion_text(completion, f"completion {row}")
            opening = known.get(prompt) if isinstance(prompt, str) else None
            if opening is None:
                opening = self._opening(prompt, f"problem {row}", on_error)
                if isinstance(prompt, str):
                    known[prompt] = opening
            answers.append(begun(opening, answer))
        return answers

    def _opening(self, prompt: Text, offender: str, on_error: str) -> str:
        try:
            text, is_reply = begun_text(prompt, offender, self.template)
        except DataError:
            if on_error == "raise":
                raise
            return ""  # `_problems` says what is wrong
        return prompt_opening(text, self.config.reasoning_marks, is_reply=is_reply)

    def _score(
        self, items: list[tuple[str, str]], on_error: str, failures: list[ScorerError | DataError] | None
    ) -> list[float | None]:
        if not items:
            return []
        if on_error == "raise":
            return self.scorer.score(items)
        scores: list[float | None] = [None] * len(items)
        left = list(range(len(items)))
        last: ScorerError | None = None
        for attempt in (1, 2):
            try:
                answer: Sequence[float | None] = self.scorer.score([items[place] for place in left])
            except ScorerError as error:
                logger.exception("scoring %d samples failed, attempt %d of 2", len(left), attempt)
                answer = error.scores or [None] * len(left)
                last = error
            else:
                last = None
            for place, score in zip(left, answer, strict=True):
                scores[place] = score
            if last is None:
                break
            left = [place for place in left if scores[place] is None]
        if last is not None and failures is not None:
            failures.append(last)
        return scores


def _check_lengths(**columns: Any) -> None:
    for name, given in columns.items():
        if isinstance(given, str):
            raise DataError(f"{name} is one string: expected a list of them, such as [{given[:20]!r}]")
        if isinstance(given, Mapping) or not hasattr(given, "__len__"):
            raise DataError(f"{name} is a {type(given).__name__}: expected a list")
    (first, problems), *others = columns.items()
    for name, given in others:
        if len(given) != len(problems):
            raise DataError(f"{len(problems)} {first} for {len(given)} {name}: expected one each")
