"""Every error this package raises on purpose.

    CodeScalerError
    ├── ConfigError (ValueError)         a setting, model or extra that cannot be used as given
    │   └── MissingExtraError            an optional dependency that is not installed
    ├── DataError (ValueError)           a prompt, completion or file row that cannot be read
    ├── ScorerError (RuntimeError)       the reward model failed while scoring
    ├── HttpError (RuntimeError)         a server that is unreachable or answers badly
    ├── GenerationError (RuntimeError)   the server that writes completions failed
    └── SandboxError (RuntimeError)      the sandbox failed, not the program in it

Each message names the offender, what was expected, what came, and the next step. A problem with one completion of many
is a `Failure` in its `Judgement` instead, so that the others keep their rewards.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum


class FailureKind(StrEnum):
    """The reason why a valid or unread completion has no reward.

    Example:
        >>> FailureKind.TIMEOUT.is_transient, FailureKind.DATA.is_transient
        (True, False)
    """

    DATA = "data"
    """The completion or its prompt cannot be read, or a server refuses them."""
    NO_SCORE = "no_score"
    """The model has no finite score for the program, for example because it is too long."""
    SCORER = "scorer"
    """The reward model failed."""
    TIMEOUT = "timeout"
    """The reward model did not answer in time."""
    WORKER = "worker"
    """The process of the reward model crashed each time it read this completion."""
    CONFIG = "config"
    """A server does not serve this caller: a wrong key or a wrong address."""

    @property
    def is_transient(self) -> bool:
        """Whether another try may succeed."""
        return self in (FailureKind.SCORER, FailureKind.TIMEOUT)

    @property
    def is_outage(self) -> bool:
        """Whether the reward model is at fault, and not this completion."""
        return self.is_transient or self is FailureKind.CONFIG


@dataclass(frozen=True)
class Failure:
    """The reason why one completion has no reward, as a kind and a sentence for people.

    Example:
        >>> str(Failure(FailureKind.NO_SCORE, "the code is too long"))
        'no_score: the code is too long'
    """

    kind: FailureKind
    reason: str

    @property
    def sentence(self) -> str:
        """The failure in a sentence, on one line."""
        reason = " ".join(self.reason.split()).rstrip(".")
        return f"There is no reward ({self.kind}): {reason or 'no reason is known'}."

    def __str__(self) -> str:
        return f"{self.kind}: {self.reason}"


class CodeScalerError(Exception):
    """Base class of all errors of this package.

    Example:
        >>> issubclass(ConfigError, CodeScalerError)
        True
    """


class ConfigError(CodeScalerError, ValueError):
    """A setting, model directory or environment variable cannot be used as given.

    Example:
        >>> from codescaler_plugin import CodeScalerConfig
        >>> CodeScalerConfig(max_tokens=0)
        Traceback (most recent call last):
        codescaler_plugin.errors.ConfigError: max_tokens is 0: expected a whole number of at least 1
    """


class MissingExtraError(ConfigError):
    """An optional dependency is not installed. The message holds the install command.

    Example:
        >>> from codescaler_plugin.extras import require
        >>> require("a plot", "report", "absent")  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        codescaler_plugin.errors.MissingExtraError: a plot needs absent. Install with: pip install ...
    """


class DataError(CodeScalerError, ValueError):
    """A prompt, completion or file row cannot be read. The message names the row.

    Example:
        >>> from codescaler_plugin import extract_all
        >>> extract_all([None])
        Traceback (most recent call last):
        codescaler_plugin.errors.DataError: completion 0 is NoneType: expected str
    """


class ScorerError(CodeScalerError, RuntimeError):
    """The reward model failed while scoring. A judgement about code is never this error.

    Attributes:
        scores: scores from before the failure, one for each item of the call, None for items without one. Empty if
            the call scored nothing.
        failures: by index, items that another call would not score either, after the scorer has retried.

    Example:
        >>> ScorerError("out of memory", scores=[0.5, None]).scores
        (0.5, None)
    """

    def __init__(
        self, message: str, scores: Sequence[float | None] = (), failures: Mapping[int, Failure] | None = None
    ) -> None:
        super().__init__(message)
        self.scores = tuple(scores)
        self.failures = dict(failures or {})


class HttpError(CodeScalerError, RuntimeError):
    """A server is unreachable, or its response is unexpected. The message names the server.

    Attributes:
        status: status code of the response. None without a response, or without the JSON that is expected.
        retry_after: seconds after which the server accepts a retry; 0 if it does not say.

    Example:
        >>> HttpError("busy", status=503).failure.kind.is_transient
        True
    """

    def __init__(self, message: str, status: int | None = None, retry_after: float = 0.0) -> None:
        super().__init__(message)
        self.status = status
        self.retry_after = retry_after

    @property
    def is_transient(self) -> bool:
        """Whether another try may succeed: no response, 408, 425, 429 or 5xx."""
        return self.status is None or self.status in (408, 425, 429) or self.status >= 500

    @property
    def is_refusal(self) -> bool:
        """Whether the server refuses the request's content: 400, 413 or 422."""
        return self.status in (400, 413, 422)

    @property
    def failure(self) -> Failure:
        """The failure of the completions in the request."""
        kind = FailureKind.DATA if self.is_refusal else FailureKind.CONFIG
        return Failure(FailureKind.SCORER if self.is_transient else kind, str(self))


class GenerationError(CodeScalerError, RuntimeError):
    """The server that writes completions is unreachable or returns none. The message names the server.

    Example:
        >>> raise GenerationError("http://localhost:8000 serves no model")
        Traceback (most recent call last):
        codescaler_plugin.errors.GenerationError: http://localhost:8000 serves no model
    """


class SandboxError(CodeScalerError, RuntimeError):
    """The sandbox itself failed. A program that crashes or loops gets a verdict, not this error.

    Example:
        >>> from codescaler_plugin.testing import FakeExecutor
        >>> FakeExecutor({}, fails_after=0).run([])
        Traceback (most recent call last):
        codescaler_plugin.errors.SandboxError: no process can be started
    """
