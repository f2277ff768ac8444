"""Sends the items of a call to servers in parallel requests, and keeps the score of each item if others fail."""

from collections.abc import Callable, Sequence
from concurrent.futures import CancelledError, ThreadPoolExecutor

from codescaler_plugin.errors import Failure, FailureKind, HttpError, ScorerError
from codescaler_plugin.prefetch import grouped_chunks

REQUESTS = 8  # in flight at once

ScoreResult = float | Failure | None  # of an item; None where the model has no finite score for it

_NOT_SENT = Failure(FailureKind.SCORER, "not sent, since requests before it failed")


def fan_out(
    send: Callable[[list[int]], Sequence[ScoreResult]], problems: Sequence[str], size: int
) -> list[ScoreResult]:
    """Return the results of n items, in order, sent in chunks of about `size`, each with all items of its problems.

    If a server refuses a chunk, its halves are sent, down to single items. After `REQUESTS` chunks with other failures
    nothing more is sent: to wait for each of many chunks in turn would take too long.
    """

    def results_of(chunk: list[int]) -> list[ScoreResult]:
        try:
            return list(send(chunk))
        except HttpError as error:
            if not error.is_refusal or len(chunk) == 1:
                return [error.failure] * len(chunk)
        middle = len(chunk) // 2
        return results_of(chunk[:middle]) + results_of(chunk[middle:])

    chunks = list(grouped_chunks(problems, size))
    results: list[ScoreResult] = [_NOT_SENT] * len(problems)
    failed = 0
    pool = ThreadPoolExecutor(REQUESTS)
    try:
        futures = [pool.submit(results_of, chunk) for chunk in chunks]
        for chunk, future in zip(chunks, futures, strict=True):
            try:
                chunk_results = future.result()
            except CancelledError:
                continue
            for index, result in zip(chunk, chunk_results, strict=True):
                results[index] = result
            failed += all(isinstance(result, Failure) and result.kind.is_outage for result in chunk_results)
            if failed == REQUESTS:
                for later in futures:
                    later.cancel()
    finally:  # Ctrl-C does not wait for requests in flight
        pool.shutdown(wait=False, cancel_futures=True)
    return results


def scores_of(items: Sequence[tuple[str, str]], results: Sequence[ScoreResult]) -> list[float | None]:
    """Return the scores in the results of (problem, code) pairs; None where the model has none.

    Raises:
        ScorerError: some items failed. The message names the first; the error holds all scores and failures.
    """
    scores = [None if isinstance(result, Failure) else result for result in results]
    failures = {index: result for index, result in enumerate(results) if isinstance(result, Failure)}
    if failures:
        first = min(failures, key=lambda index: (failures[index] is _NOT_SENT, index))
        name = "" if failures[first].kind.is_outage else f"item {first} (problem {items[first][0][:60]!r}): "
        raise ScorerError(name + failures[first].reason, scores, failures)
    return scores
