"""Scorers with known scores."""

from collections.abc import Callable, Sequence
from zlib import crc32

from codescaler_plugin.errors import ScorerError


class Known:
    """Scores by a function of (problem, code); counts what it was asked, and can fail after so many items."""

    def __init__(self, score: Callable[[str, str], float | None], *, fails_after: int | None = None) -> None:
        self.function, self.fails_after = score, fails_after
        self.asked: list[tuple[str, str]] = []

    def score(self, items: Sequence[tuple[str, str]]) -> list[float | None]:
        if self.fails_after is not None and len(self.asked) + len(items) > self.fails_after:
            raise ScorerError("broken")
        self.asked += items
        return [self.function(*item) for item in items]


def hashed(problem: str, code: str) -> float:
    """A number in [0, 1) that repeats and follows nothing."""
    return crc32(f"{problem}\0{code}".encode()) / 2**32
