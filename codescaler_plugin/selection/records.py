"""The records of a choice among candidates."""

from dataclasses import dataclass
from enum import StrEnum

from codescaler_plugin import notebook
from codescaler_plugin.records import Judgement, Verdict

_SHOWN = 20  # candidates in a notebook


class Outcome(StrEnum):
    """The outcome of a choice among candidates. Only `chosen` has a winner.

    Example:
        >>> Selection((), Outcome.NONE_VALID).best is None
        True
    """

    CHOSEN = "chosen"
    ABSTAINED = "abstained"
    NONE_VALID = "none_valid"
    UNSCORED = "unscored"
    ALL_FAILED = "all_failed"


@dataclass(frozen=True)
class Ranked:
    """A candidate in a ranking.

    Attributes:
        index: position among the caller's candidates, from 0.
        completion: the candidate's text.
        judgement: the pipeline's judgement.
        rank_score: logit that decides the rank, equal for all duplicates of a program. None without a score.
        duplicates: number of candidates with the same program, this one included; 0 without valid code.
        duplicate_of: index of the highest-ranked duplicate. None if it is this candidate.
        verdict: verdict of the tests. None if the program was not run.

    Example:
        >>> from codescaler_plugin.records import Status
        >>> Ranked(0, "x = 1", Judgement(1.2, 0.8, Status.OK, "x = 1"), rank_score=0.8, duplicates=1).rank_score
        0.8
    """

    index: int
    completion: str
    judgement: Judgement
    rank_score: float | None
    duplicates: int
    duplicate_of: int | None = None
    verdict: Verdict | None = None


@dataclass(frozen=True)
class Selection:
    r"""The candidates for a problem, best first, and the outcome of the choice.

    Attributes:
        ranked: all candidates, those without valid code last.
        outcome: `chosen`; `abstained`: too little confidence; `none_valid`: no candidate is a valid program;
            `unscored`: no valid candidate has a score; `all_failed`: tests ran and every program failed.
        margin: `rank_score` of the first program minus that of the next *other* program, in logits, at least 0. None
            if fewer than two programs have a score.
        probability: calibrated probability that the first program is right, before it runs. None without calibration.
        executions: number of programs that ran.
        explanation: sentence about the outcome.

    A notebook shows a selection as a table of its first candidates, with the code of the winner.

    Example:
        >>> from codescaler_plugin import CodeScaler, best_of_n
        >>> from codescaler_plugin.testing import FakeScorer
        >>> scaler = CodeScaler(FakeScorer())
        >>> selection = best_of_n(scaler, "Set x.", ["I cannot.", "```python\nx = 1\n```"])
        >>> selection.best.index, selection.outcome.value
        (1, 'chosen')
    """

    ranked: tuple[Ranked, ...]
    outcome: Outcome
    margin: float | None = None
    probability: float | None = None
    executions: int = 0
    explanation: str = ""

    def _repr_html_(self) -> str:
        facts = {"margin": self.margin, "probability": self.probability, "programs run": self.executions}
        rows = [
            (
                rank,
                item.index,
                item.rank_score,
                str(item.judgement.status or "no status"),
                _outcome_of_tests(item.verdict),
                "" if item.duplicate_of is None else f"candidate {item.duplicate_of}",
                item.judgement.explanation,
            )
            for rank, item in enumerate(self.ranked[:_SHOWN], 1)
        ]
        table = notebook.table(("rank", "candidate", "score", "status", "tests", "duplicate of", "explanation"), rows)
        if len(self.ranked) > _SHOWN:
            table += f"<div>and {len(self.ranked) - _SHOWN:,} more candidates</div>"
        code = "" if self.best is None else self.best.judgement.code
        return notebook.element(str(self.outcome), facts, self.explanation, code, table)

    @property
    def best(self) -> Ranked | None:
        """The winner. None unless the outcome is `chosen`."""
        return self.ranked[0] if self.outcome is Outcome.CHOSEN else None

    @property
    def programs(self) -> tuple[Ranked, ...]:
        """The valid candidates without their duplicates, best first."""
        return tuple(item for item in self.ranked if item.judgement.is_valid and item.duplicate_of is None)


def _outcome_of_tests(verdict: Verdict | None) -> str:
    if verdict is None:
        return "not run"
    return "passed" if verdict.passed else "failed" if verdict.is_failure else f"no verdict ({verdict.fault})"
