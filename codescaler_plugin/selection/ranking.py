"""Candidates of a problem, best first, by their scores alone. Nothing is executed."""

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

from codescaler_plugin.errors import ConfigError, DataError
from codescaler_plugin.extraction.fingerprint import distinct_programs
from codescaler_plugin.pipeline import CodeScaler, raise_for_failures
from codescaler_plugin.prefetch import weighed_chunks
from codescaler_plugin.records import Judgement, Outcome, Ranked, Selection, Status
from codescaler_plugin.selection.calibration import Calibration
from codescaler_plugin.text.messages import Text, completion_text

Group = tuple[Text, Sequence[Text]]
"""A problem and its candidates."""

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
    """Rank the candidates of one problem by their scores (paper: best-of-N without tests).

    Candidates that are the same program (equal syntax trees; other languages than Python: equal texts) stand together
    under the best of their scores. Equal scores: the program that more candidates wrote is first, then the one given
    earlier. Candidates without valid code are last; if there are no others, the outcome is `none_valid`.

    It does not compare problems: scores and margins of different problems have no common zero.

    Args:
        scaler: judges; its model should be the one that `calibration` was fitted with.
        problem: a string or messages, see `CodeScaler.judge`.
        completions: the candidates, any number.
        extraction: block selection, see `extract_code`. The default is the last valid block, as in the paper's
            evaluation; the paper's RL uses `single`.
        self_consistency: weight a of duplicates: programs are ranked by score + a log(duplicates). With 1, the odds
            e^score of a program count once for each candidate that wrote it.
        calibration: margin -> probability that the first program is right, fitted with the same model, the same
            weight and about as many candidates.
        abstain_below: choose nothing where that probability is lower, or where no other program has a score.

    Raises:
        ConfigError: `abstain_below` without a calibration or outside of [0, 1]; an unknown extraction; a weight that
            is no finite number of at least 0.
        DataError: see `CodeScaler.judge`; or the problem cannot be read.
        ScorerError: the reward model failed.
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
    """`best_of_n` of many problems, one at a time, in their order; some hundred candidates are judged at once."""
    _check(calibration, abstain_below)
    judge = scaler.with_config(extraction=extraction)
    for chunk in weighed_chunks(map(_checked, groups), _CHUNK, lambda group: max(1, len(group[1]))):
        found = judge.judge(
            [problem for problem, completions in chunk for _ in completions],
            [completion for _, completions in chunk for completion in completions],
        )
        raise_for_failures(found)
        judgements = iter(found)
        for _, completions in chunk:
            texts = [completion_text(completion) for completion in completions]
            ranked = rank(
                texts,
                [next(judgements) for _ in texts],
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
    valid = [index for index, one in enumerate(judgements) if one.status is Status.OK]
    codes = [judgements[index].code for index in valid]
    forms = distinct_programs(codes) if language == "python" else {code: number for number, code in enumerate(codes)}
    programs: dict[int, list[int]] = defaultdict(list)
    for index in valid:
        programs[forms[judgements[index].code]].append(index)

    def place(index: int) -> tuple[float, int]:
        score = judgements[index].score
        return (math.inf if score is None else -score, index)

    found = []
    for members in programs.values():
        members.sort(key=place)
        score = judgements[members[0]].score
        worth = None if score is None else score + self_consistency * math.log(len(members))
        found.append(
            (math.inf if worth is None else -round(worth, _DIGITS), -len(members), min(members), members, worth)
        )
    found.sort(key=lambda program: program[:3])
    ranked = [
        Ranked(
            index,
            completions[index],
            judgements[index],
            worth,
            len(members),
            None if index == members[0] else members[0],
        )
        for *_, members, worth in found
        for index in members
    ]
    left = [index for index, one in enumerate(judgements) if one.status is not Status.OK]
    return (*ranked, *(Ranked(index, completions[index], judgements[index], None, 0) for index in left))


def chosen(
    ranked: tuple[Ranked, ...], calibration: Calibration | None = None, abstain_below: float | None = None
) -> Selection:
    """The choice among ranked candidates; see `best_of_n`."""
    _check(calibration, abstain_below)
    selection = Selection(ranked, Outcome.CHOSEN)
    programs = selection.programs
    if not programs:
        return replace(selection, outcome=Outcome.NONE_VALID, explanation=_without_code(ranked))
    first = programs[0]
    if first.rank_score is None:
        return replace(
            selection, outcome=Outcome.UNSCORED, explanation=f"none of {len(programs)} programs got a score"
        )
    margin = margin_of(programs)
    probability = probability_of(calibration, margin)
    selection = replace(
        selection, margin=margin, probability=probability, explanation=_reason(programs, margin, probability)
    )
    if abstain_below is not None and (probability is None or probability < abstain_below):
        why = (
            f"no other program to compare candidate {first.index} with"
            if probability is None
            else f"candidate {first.index} is right with probability {probability:.3f}, below {abstain_below:g}"
        )
        return replace(selection, outcome=Outcome.ABSTAINED, explanation=why)
    return selection


def _check(calibration: Calibration | None, abstain_below: float | None) -> None:
    if abstain_below is not None and (calibration is None or not 0 <= abstain_below <= 1):
        raise ConfigError(
            f"abstain_below is {abstain_below!r}: expected a probability in [0, 1], and a calibration that gives it"
        )


def margin_of(programs: Sequence[Ranked]) -> float | None:
    """Worth of the first program minus that of the second; None if one of them has none."""
    if len(programs) < 2 or programs[0].rank_score is None or programs[1].rank_score is None:
        return None
    return max(0.0, programs[0].rank_score - programs[1].rank_score)  # tied programs stand by other rules than worth


def probability_of(calibration: Calibration | None, margin: float | None) -> float | None:
    """The calibrated probability at one margin; None without one of the two."""
    return None if calibration is None or margin is None else calibration.probability([margin])[0]


def _without_code(ranked: Sequence[Ranked]) -> str:
    counts = Counter(str(one.judgement.status) for one in ranked)
    kinds = ", ".join(f"{count} {status}" for status, count in counts.most_common())
    return f"none of {len(ranked)} candidates has valid code: {kinds}" if ranked else "no candidates"


def _reason(programs: Sequence[Ranked], margin: float | None, probability: float | None) -> str:
    first = programs[0]
    wrote = f", written by {first.duplicates} candidates" if first.duplicates > 1 else ""
    if margin is None or first.rank_score is None or programs[1].rank_score is None:
        return f"candidate {first.index}{wrote}: no other program has a score"
    second = programs[1]
    sure = "" if probability is None else f", right with probability {probability:.3f}"
    if round(first.rank_score, _DIGITS) == round(programs[1].rank_score, _DIGITS):
        why = (
            "more candidates wrote the first"
            if first.duplicates > second.duplicates
            else "the first was given earlier"
        )
        return f"candidates {first.index} and {second.index} are tied at {first.rank_score:.4f}: {why}{sure}"
    return f"candidate {first.index}{wrote}: {margin:.4f} above candidate {second.index}{sure}"
