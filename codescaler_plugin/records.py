"""The values that walk through the pipeline. All are frozen; none holds a tensor."""

from dataclasses import dataclass
from enum import StrEnum


class Status(StrEnum):
    """Why a completion's code is, or is not, usable. Only `ok` reaches the reward model."""

    OK = "ok"
    NO_BLOCK = "no_block"
    MULTIPLE_BLOCKS = "multiple_blocks"
    UNCLOSED = "unclosed"
    WRONG_LANGUAGE = "wrong_language"
    SYNTAX_ERROR = "syntax_error"
    TRIVIAL = "trivial"
    TOO_LONG = "too_long"
    TOO_COMPLEX = "too_complex"


@dataclass(frozen=True)
class Extraction:
    """The code found in a completion; `code` is empty unless `status` is `ok`."""

    code: str
    language: str
    status: Status


@dataclass(frozen=True)
class Judgement:
    """What the pipeline says of one completion.

    `reward` is the shaped value, in {0} ∪ (0, ∞) for the paper's shape, or None if the reward model gave no score.
    `score` is the raw logit, None for code that never reached the model and for a scorer failure.
    `status` tells the two apart: with `ok`, a missing score is the scorer's failure.
    """

    reward: float | None
    score: float | None
    status: Status
    code: str


@dataclass(frozen=True)
class Verdict:
    """The outcome of running one candidate against tests; `detail` names the first failure, empty if all passed."""

    passed: bool
    detail: str = ""
