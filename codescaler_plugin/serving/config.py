"""Settings of the routes."""

import math
from dataclasses import dataclass

from codescaler_plugin.errors import ConfigError
from codescaler_plugin.serving import MAX_BODY, RECENT


@dataclass(frozen=True)
class ServingConfig:
    """Settings of `create_app`.

    Attributes:
        api_key: ASCII key that every caller must send (`Authorization: Bearer KEY`, or `http://any:KEY@host` in a
            URL). It is checked before the body is read, but not for `/health` and the documentation. A browser asks
            for it as the password of the page at `/`, whose user name may be anything. The default is no key.
        fallback: reward of a sample that should have a reward and has none. The default is the reward of invalid
            code. None answers 503 instead, or 422 where another try would fail too.
        extra_logs: send `extra_logs` to OpenRLHF. Releases 0.8.5 to 0.9.0 crash on them.
        max_body: bytes of one body. All bodies together are limited by `middleware.MAX_HELD`.
        recent: number of judged samples that the page at `/` shows, from memory. 0 keeps none.
        receive_seconds: seconds within which a body, and a connection's first request, must arrive.

    Raises:
        ConfigError: an empty key or a key that a header cannot hold, a fallback that is not finite, or a negative
            number of samples.

    Example:
        >>> ServingConfig(api_key="secret", fallback=None).max_body
        67108864
    """

    api_key: str | None = None
    fallback: float | None = 0.0
    extra_logs: bool = False
    log_bodies: bool = False
    max_body: int = MAX_BODY
    receive_seconds: float = 60.0
    recent: int = RECENT

    def __post_init__(self) -> None:
        if self.api_key is not None and not (self.api_key.isascii() and self.api_key.strip() == self.api_key != ""):
            raise ConfigError(
                "api_key must be ASCII text without spaces around it, and not empty: give another, or none"
            )
        if self.recent < 0:
            raise ConfigError(f"recent is {self.recent}: expected 0 or more samples")
        if self.fallback is not None and not math.isfinite(self.fallback):
            raise ConfigError(f"fallback is {self.fallback}: expected a finite number")
