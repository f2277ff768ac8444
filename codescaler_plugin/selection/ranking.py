"""Ranking of a problem's candidates by their scores. Nothing is executed."""

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

from codescaler_plugin.errors import ConfigError, DataError
from codescaler_plugin.extraction.fingerprint import distinct_programs
from codescaler_plugin.pipeline import CodeScaler, raise_for_failures
from codescaler_plugin.prefetch import weighed_chunks
from codescaler_plugin.records import Judgement, Status
from codescaler_plugin.selection.calibration import Calibration
from codescaler_plugin.selection.records import Outcome, Ranked, Selection
from codescaler_plugin.text.messages import Text, completion_text

Group = tuple[Text, Sequence[Text]]  # a problem and its candidates

_CHUNK = 256  # candidates judged at a time
_DIGITS = 4  # scores repeat to 1e-5 in float32, so a smaller difference is a tie


def best_of_n(
    scaler: CodeScaler,
    problem: Text,
    completions: Sequence[Text],
    *,
    extraction: str = "last",
    self_consistency: float = 0.0,
    calibration: Calibration | None = None,
    abstain_below: float | None = None,
) -> Selection:
    r"""Rank the candidates of one problem by their scores (paper: best-of-N without tests).

    Candidates that are the same program form one entry with the best of their scores. Python programs are the same if
    their syntax trees are equal; in other languages, the texts must be equal. Ties go to the program that more
    candidates wrote, then to the earlier one. Candidates without valid code are last; if there are no others, the
    outcome is `none_valid`.

    Scores and margins of different problems have no common zero, so do not compare selections of two problems.

    Args:
        scaler: pipeline with the reward model.
        problem: a string or messages, see `CodeScaler.judge`.
        completions: the candidates, any number.
        extraction: block selection, see `extract_code`. The default is the last valid block, as in the paper's
            evaluation; the paper's RL uses `single`.
        self_consistency: weight a of duplicates: programs are ranked by score + a log(duplicates). With 1, the odds
            e^score of a program count once for each candidate that wrote it. The default ignores duplicates.
        calibration: margin -> probability that the first program is right. It must be fitted with the same model, the
            same weight and about as many candidates. By default the selection has no probability.
        abstain_below: probability below which nothing is chosen; nothing is chosen either if no other program has a
            score. By default there is always a choice.

    Raises:
        ConfigError: `abstain_below` comes without a calibration or is outside of [0, 1]; the extraction is unknown; or
            the weight is not a finite number of at least 0.
        DataError: see `CodeScaler.judge`; or the problem cannot be read.
        ScorerError: the reward model failed.

    Example:
        >>> from codescaler_plugin.testing import FakeScorer
        >>> scaler = CodeScaler(FakeScorer({"x = 1": 0.5, "x = 2": 2.0}))
        >>> selection = best_of_n(scaler, "Set x to 2.", ["```python\nx = 1\n```", "```python\nx = 2\n```"])
        >>> selection.best.index, selection.margin
        (1, 1.5)
        >>> selection.explanation
        'candidate 1: 1.5000 above candidate 0'
    """
    (selection,) = rank_groups(
        scaler,
        [(problem, completions)],
        extraction=extraction,
        self_consistency=self_consistency,
        calibration=calibration,
        abstain_below=abstain_below,
    )
    return selection


def rank_groups(
    scaler: CodeScaler,
    groups: Iterable[Group],
    *,
    extraction: str = "last",
    self_consistency: float = 0.0,
    calibration: Calibration | None = None,
    abstain_below: float | None = None,
) -> Iterator[Selection]:
    """`best_of_n` for a stream of problems, in order. Some hundred candidates are judged at a time."""
    _check_abstention(calibration, abstain_below)
    judge = scaler.with_config(extraction=extraction)
    for chunk in weighed_chunks(map(_checked, groups), _CHUNK, lambda group: max(1, len(group[1]))):
        judgements = judge.judge(
            [problem for problem, completions in chunk for _ in completions],
            [completion for _, completions in chunk for completion in completions],
        )
        raise_for_failures(judgements)
        rest = iter(judgements)
        for _, completions in chunk:
            ranked = rank(
                [completion_text(completion) for completion in completions],
                [next(rest) for _ in completions],
                language=judge.config.language,
                self_consistency=self_consistency,
            )
            yield chosen(ranked, calibration, abstain_below)


def _checked(group: Group) -> Group:
    if isinstance(group[1], str):
        raise DataError("the candidates of a problem are one string: expected a sequence of completions")
    return group


def rank(
    completions: Sequence[str],
    judgements: Sequence[Judgement],
    *,
    language: str = "python",
    self_consistency: float = 0.0,
) -> tuple[Ranked, ...]:
    """Candidates with their judgements, best first; see `best_of_n`."""
    if not 0 <= self_consistency < math.inf:
        raise ConfigError(
            f"self_consistency is {self_consistency!r}: expected a finite weight of at least 0; 0 ignores duplicates"
        )
    valid = [index for index, judgement in enumerate(judgements) if judgement.status is Status.OK]
    codes = [judgements[index].code for index in valid]
    forms = distinct_programs(codes) if language == "python" else {code: number for number, code in enumerate(codes)}
    programs: dict[int, list[int]] = defaultdict(list)
    for index in valid:
        programs[forms[judgements[index].code]].append(index)

    def by_score(index: int) -> tuple[float, int]:
        score = judgements[index].score
        return math.inf if score is None else -score, index

    def rank_score(duplicates: list[int]) -> float | None:
        score = judgements[duplicates[0]].score
        return None if score is None else score + self_consistency * math.log(len(duplicates))

    def by_rank_score(duplicates: list[int]) -> tuple[float, int, int]:
        score = rank_score(duplicates)
        return math.inf if score is None else -round(score, _DIGITS), -len(duplicates), min(duplicates)

    ranked = []
    for duplicates in sorted((sorted(indices, key=by_score) for indices in programs.values()), key=by_rank_score):
        first, score, count = duplicates[0], rank_score(duplicates), len(duplicates)
        for index in duplicates:
            duplicate_of = None if index == first else first
            ranked.append(Ranked(index, completions[index], judgements[index], score, count, duplicate_of))
    invalid = [index for index, judgement in enumerate(judgements) if judgement.status is not Status.OK]
    return (*ranked, *(Ranked(index, completions[index], judgements[index], None, 0) for index in invalid))


def chosen(
    ranked: tuple[Ranked, ...], calibration: Calibration | None = None, abstain_below: float | None = None
) -> Selection:
    """The selection among ranked candidates; see `best_of_n`."""
    _check_abstention(calibration, abstain_below)
    selection = Selection(ranked, Outcome.CHOSEN)
    programs = selection.programs
    if not programs:
        return replace(selection, outcome=Outcome.NONE_VALID, explanation=_none_valid(ranked))
    first = programs[0]
    if first.rank_score is None:
        why = f"none of {len(programs)} programs got a score"
        return replace(selection, outcome=Outcome.UNSCORED, explanation=why)
    margin = margin_of(programs)
    probability = probability_of(calibration, margin)
    explanation = _explanation(programs, margin, probability)
    selection = replace(selection, margin=margin, probability=probability, explanation=explanation)
    if abstain_below is not None and (probability is None or probability < abstain_below):
        why = f"no other program to compare candidate {first.index} with"
        if probability is not None:
            why = f"candidate {first.index} is right with probability {probability:.3f}, below {abstain_below:g}"
        return replace(selection, outcome=Outcome.ABSTAINED, explanation=why)
    return selection


def _check_abstention(calibration: Calibration | None, abstain_below: float | None) -> None:
    if abstain_below is not None and (calibration is None or not 0 <= abstain_below <= 1):
        raise ConfigError(
            f"abstain_below is {abstain_below!r}: expected a probability in [0, 1], and a calibration that gives it"
        )


def margin_of(programs: Sequence[Ranked]) -> float | None:
    """Rank score of the first program minus that of the second, at least 0; None if one of them has none."""
    if len(programs) < 2 or programs[0].rank_score is None or programs[1].rank_score is None:
        return None
    return max(0.0, programs[0].rank_score - programs[1].rank_score)  # below 0 where a tie was broken


def probability_of(calibration: Calibration | None, margin: float | None) -> float | None:
    """The calibrated probability at a margin; None without a calibration or a margin."""
    return None if calibration is None or margin is None else calibration.probability([margin])[0]


def _none_valid(ranked: Sequence[Ranked]) -> str:
    counts = Counter(str(candidate.judgement.status) for candidate in ranked)
    statuses = ", ".join(f"{count} {status}" for status, count in counts.most_common())
    return f"none of {len(ranked)} candidates has valid code: {statuses}" if ranked else "no candidates"


def _explanation(programs: Sequence[Ranked], margin: float | None, probability: float | None) -> str:
    first, second = programs[0], programs[1] if len(programs) > 1 else None
    wrote = f", written by {first.duplicates} candidates" if first.duplicates > 1 else ""
    if margin is None or second is None or first.rank_score is None or second.rank_score is None:
        return f"candidate {first.index}{wrote}: no other program has a score"
    sure = "" if probability is None else f", right with probability {probability:.3f}"
    if round(first.rank_score, _DIGITS) == round(second.rank_score, _DIGITS):
        more = first.duplicates > second.duplicates
        why = "more candidates wrote the first" if more else "the first was given earlier"
        return f"candidates {first.index} and {second.index} are tied at {first.rank_score:.4f}: {why}{sure}"
    return f"candidate {first.index}{wrote}: {margin:.4f} above candidate {second.index}{sure}"
