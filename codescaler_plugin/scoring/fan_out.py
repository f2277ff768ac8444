"""Several requests at a time to servers, and what came of them even if one fails."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

from codescaler_plugin.errors import ScorerError

REQUESTS = 8
"""Requests under way at a time."""


def fan_out(
    send: Callable[[list[int]], list[float | None]], chunks: Sequence[list[int]], count: int
) -> tuple[list[float | None], ScorerError | None]:
    """Scores of `count` items that are sent in chunks of indices, and the first error.

    A chunk whose `send` raises has the scores that the error holds, or none.
    """
    scores: list[float | None] = [None] * count
    first: ScorerError | None = None
    with ThreadPoolExecutor(REQUESTS) as pool:
        for chunk, future in [(chunk, pool.submit(send, chunk)) for chunk in chunks]:
            try:
                answer: Sequence[float | None] = future.result()
            except ScorerError as error:
                first = first or error
                answer = error.scores or [None] * len(chunk)
            for index, score in zip(chunk, answer, strict=True):
                scores[index] = score
    return scores, first
