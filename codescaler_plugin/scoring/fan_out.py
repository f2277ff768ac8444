"""Several requests at a time to servers, and what came of each item even if some fail."""

from collections.abc import Callable, Sequence
from concurrent.futures import CancelledError, ThreadPoolExecutor

from codescaler_plugin.errors import Failure, FailureKind, HttpError, ScorerError
from codescaler_plugin.prefetch import grouped_chunks

REQUESTS = 8
"""Requests under way at a time."""

Outcome = float | Failure | None
"""Of an item: its score, why there is none, or None where the model has no finite score for it."""

_NOT_SENT = Failure(FailureKind.SCORER, "not sent, since requests before it failed")


def fan_out(send: Callable[[list[int]], Sequence[Outcome]], problems: Sequence[str], size: int) -> list[Outcome]:
    """Outcomes of items with these problems, sent in chunks of about `size` indices; same order.

    The halves of a chunk that a server refuses are sent, until the items that it refuses stand alone. After `REQUESTS`
    chunks that failed otherwise no more is sent: to wait for each of many in turn would seem to have no end.
    """

    def answered(chunk: list[int]) -> list[Outcome]:
        try:
            return list(send(chunk))
        except HttpError as error:
            if not error.is_refusal or len(chunk) == 1:
                return [error.failure] * len(chunk)
        middle = len(chunk) // 2
        return answered(chunk[:middle]) + answered(chunk[middle:])

    chunks = list(grouped_chunks(problems, size))
    outcomes: list[Outcome] = [_NOT_SENT] * len(problems)
    failed = 0
    pool = ThreadPoolExecutor(REQUESTS)
    try:
        futures = [pool.submit(answered, chunk) for chunk in chunks]
        for chunk, future in zip(chunks, futures, strict=True):
            try:
                answer = future.result()
            except CancelledError:
                continue
            for index, outcome in zip(chunk, answer, strict=True):
                outcomes[index] = outcome
            failed += all(isinstance(outcome, Failure) and outcome.kind.is_outage for outcome in answer)
            if failed == REQUESTS:
                for later in futures:
                    later.cancel()
    finally:  # Ctrl-C does not wait for what is under way
        pool.shutdown(wait=False, cancel_futures=True)
    return outcomes


def scores_of(items: Sequence[tuple[str, str]], outcomes: Sequence[Outcome]) -> list[float | None]:
    """The scores in the outcomes of (problem, code) pairs; None where the model has none.

    Raises:
        ScorerError: some failed; it names the first, and holds the scores and the failures of all.
    """
    scores = [None if isinstance(outcome, Failure) else outcome for outcome in outcomes]
    failures = {index: outcome for index, outcome in enumerate(outcomes) if isinstance(outcome, Failure)}
    if failures:
        first = min(failures, key=lambda index: (failures[index] is _NOT_SENT, index))
        reason = failures[first].reason
        name = "" if failures[first].kind.is_outage else f"item {first} (problem {items[first][0][:60]!r}): "
        raise ScorerError(name + reason, scores, failures)
    return scores
