"""Every error this package raises on purpose.

    CodeScalerError
    ├── ConfigError (ValueError)         a setting, model or extra that cannot be used as given
    │   └── MissingExtraError            an optional dependency is not installed
    ├── DataError (ValueError)           a prompt, completion or file row that is not what it must be
    ├── ScorerError (RuntimeError)       the reward model failed while scoring
    ├── HttpError (RuntimeError)         a server cannot be reached, or does not answer well
    ├── GenerationError (RuntimeError)   the server that writes candidates failed
    └── SandboxError (RuntimeError)      the process that runs tests broke (not: a candidate failed)

Each message names the offender, what was expected, what came, and the next step. What goes wrong with one completion
of many is a `Failure` in its `Judgement` instead, so that the others keep their rewards.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum


class FailureKind(StrEnum):
    """Why a completion has no reward although nothing is known against it."""

    DATA = "data"
    """The completion or its prompt cannot be read, or a server refuses them."""
    NO_SCORE = "no_score"
    """The model has no finite score for the program, for example because it is too long."""
    SCORER = "scorer"
    """The reward model failed."""
    TIMEOUT = "timeout"
    """The reward model gave no answer in time."""
    WORKER = "worker"
    """The process of the reward model ended each time it read this completion."""
    CONFIG = "config"
    """A server does not serve this caller: a wrong key or a wrong address."""

    @property
    def is_transient(self) -> bool:
        """Whether another try may succeed."""
        return self in (FailureKind.SCORER, FailureKind.TIMEOUT)

    @property
    def is_outage(self) -> bool:
        """Whether the reward model fails, and not this completion."""
        return self.is_transient or self is FailureKind.CONFIG


@dataclass(frozen=True)
class Failure:
    """Why one completion has no reward.

    Attributes:
        kind: decides whether it is tried again.
        reason: a sentence for people.
    """

    kind: FailureKind
    reason: str

    def __str__(self) -> str:
        return f"{self.kind}: {self.reason}"


class CodeScalerError(Exception):
    """Base of all errors of this package."""


class ConfigError(CodeScalerError, ValueError):
    """A setting, model directory or environment variable that cannot be used as given."""


class MissingExtraError(ConfigError):
    """An optional dependency is needed and not installed; the message holds the install command."""


class DataError(CodeScalerError, ValueError):
    """A prompt, completion or file row of the wrong form; the message names the row."""


class ScorerError(CodeScalerError, RuntimeError):
    """The reward model failed while scoring. A judgement about code is never this error.

    Attributes:
        scores: what was scored before the failure, for all items of the call in their order, None where nothing was;
            empty if nothing was scored at all.
        failures: by index, the items that another call would not score either; the scorer has tried again what may
            succeed.
    """

    def __init__(
        self, message: str, scores: Sequence[float | None] = (), failures: Mapping[int, Failure] | None = None
    ) -> None:
        super().__init__(message)
        self.scores = tuple(scores)
        self.failures = dict(failures or {})


class HttpError(CodeScalerError, RuntimeError):
    """A server cannot be reached, or its answer is not the one that is expected. The message names it.

    Attributes:
        status: of the answer; None if there was none, or one without the JSON that is expected.
        retry_after: seconds after which the server wants to be asked again; 0 if it does not say.
    """

    def __init__(self, message: str, status: int | None = None, retry_after: float = 0.0) -> None:
        super().__init__(message)
        self.status = status
        self.retry_after = retry_after

    @property
    def is_transient(self) -> bool:
        """Whether another try may succeed: no answer, 408, 425, 429 or 5xx."""
        return self.status is None or self.status in (408, 425, 429) or self.status >= 500

    @property
    def is_refusal(self) -> bool:
        """Whether the fault is in what was sent: 400, 413 or 422."""
        return self.status in (400, 413, 422)

    @property
    def failure(self) -> Failure:
        """What this means for the completions that were sent."""
        kind = FailureKind.DATA if self.is_refusal else FailureKind.CONFIG
        return Failure(FailureKind.SCORER if self.is_transient else kind, str(self))


class GenerationError(CodeScalerError, RuntimeError):
    """The server that writes candidates cannot be reached or answers what is no completion; it is named."""


class SandboxError(CodeScalerError, RuntimeError):
    """The sandbox itself failed. A candidate that crashes or loops gets a verdict, not this error."""
