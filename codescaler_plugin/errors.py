"""Every error this package raises on purpose.

    CodeScalerError
    ├── ConfigError (ValueError)         a setting, model or extra that cannot be used as given
    │   └── MissingExtraError            an optional dependency is not installed
    ├── DataError (ValueError)           a prompt, completion or file row that is not what it must be
    ├── ScorerError (RuntimeError)       the reward model failed while scoring
    │   └── RefusedError                 a server will not take these data, now or later
    ├── GenerationError (RuntimeError)   the server that writes candidates failed
    └── SandboxError (RuntimeError)      the process that runs tests broke (not: a candidate failed)

Each message names the offender, what was expected, what came, and the next step.
"""

from collections.abc import Sequence


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
    """

    def __init__(self, message: str, scores: Sequence[float | None] = ()) -> None:
        super().__init__(message)
        self.scores = tuple(scores)


class RefusedError(ScorerError):
    """A server answered 400, 413 or 422: the fault is in what was sent, and another try would change nothing."""


class GenerationError(CodeScalerError, RuntimeError):
    """The server that writes candidates cannot be reached or answers what is no completion; it is named."""


class SandboxError(CodeScalerError, RuntimeError):
    """The sandbox itself failed. A candidate that crashes or loops gets a verdict, not this error."""
