"""Chunks of work, and a thread that computes the next chunk while the caller uses this one."""

from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import groupby
from typing import TypeVar

In = TypeVar("In")
Out = TypeVar("Out")


def prefetch(function: Callable[[In], Out], chunks: Iterable[In]) -> Iterator[Out]:
    """Yield `function(chunk)` in order, or raise its error."""
    with ThreadPoolExecutor(1) as pool:
        current: Future[Out] | None = None
        for chunk in chunks:
            following = pool.submit(function, chunk)
            if current is not None:
                yield current.result()
            current = following
        if current is not None:
            yield current.result()


def grouped_chunks(keys: Sequence[Hashable], size: int) -> Iterator[list[int]]:
    """Yield the indices of `keys` in chunks of at least `size`, except the last. Equal keys are in one chunk.

    Example:
        >>> list(grouped_chunks(["a", "b", "a", "c"], size=3))
        [[0, 2, 1], [3]]
    """
    first = {key: index for index, key in reversed(list(enumerate(keys)))}
    order = sorted(range(len(keys)), key=lambda index: first[keys[index]])
    groups = (list(group) for _, group in groupby(order, key=lambda index: first[keys[index]]))
    for chunk in weighed_chunks(groups, size, len):
        yield [index for group in chunk for index in group]


def weighed_chunks(items: Iterable[In], size: int, weight: Callable[[In], int]) -> Iterator[list[In]]:
    """Yield the items in order, in chunks with a total weight of at least `size`, except the last."""
    chunk: list[In] = []
    total = 0
    for item in items:
        chunk.append(item)
        total += weight(item)
        if total >= size:
            yield chunk
            chunk, total = [], 0
    if chunk:
        yield chunk
