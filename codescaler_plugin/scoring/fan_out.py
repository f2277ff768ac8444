"""Several requests at a time to servers, and what came of them even if one fails."""

from collections.abc import Callable, Sequence
from concurrent.futures import CancelledError, ThreadPoolExecutor

from codescaler_plugin.errors import RefusedError, ScorerError

REQUESTS = 8
"""Requests under way at a time."""


def fan_out(
    send: Callable[[list[int]], list[float | None]],
    chunks: Sequence[list[int]],
    count: int,
    name: Callable[[int], str],
) -> tuple[list[float | None], ScorerError | None]:
    """Scores of `count` items that are sent in chunks of indices, and the first error.

    A chunk that a server refuses is sent item by item, and an item that it refuses is put by `name` into the error.
    After `REQUESTS` other errors no more is sent: to wait for each of many chunks in turn would seem to have no end.
    """

    def answered(chunk: list[int]) -> list[float | None]:
        try:
            return send(chunk)
        except RefusedError as error:
            if len(chunk) == 1:
                raise RefusedError(f"{name(chunk[0])}: {error}") from error
        alone, failure = fan_out(send, [[index] for index in chunk], count, name)
        some = [alone[index] for index in chunk]
        if failure is not None:
            raise type(failure)(str(failure), some) from failure
        return some

    scores: list[float | None] = [None] * count
    first: ScorerError | None = None
    failures = 0
    with ThreadPoolExecutor(REQUESTS) as pool:
        futures = [pool.submit(answered, chunk) for chunk in chunks]
        for chunk, future in zip(chunks, futures, strict=True):
            try:
                answer: Sequence[float | None] = future.result()
            except CancelledError:
                continue
            except ScorerError as error:
                first = first or error
                answer = error.scores or [None] * len(chunk)
                failures += not isinstance(error, RefusedError)
                if failures == REQUESTS:
                    for later in futures:
                        later.cancel()
            for index, score in zip(chunk, answer, strict=True):
                scores[index] = score
    return scores, first
