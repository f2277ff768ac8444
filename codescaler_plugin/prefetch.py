"""Work on the next chunk while the caller is busy with this one."""

from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import groupby
from typing import TypeVar

In = TypeVar("In")
Out = TypeVar("Out")


def prefetch(function: Callable[[In], Out], chunks: Iterable[In]) -> Iterator[Out]:
    """`function` of each chunk in order; while the caller uses one, a thread computes the next.

    An error of `function` is raised where its result would have come.
    """
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
    """Indices of `keys` in chunks of at least `size` (but for the last), equal keys together and in one chunk."""
    first = {key: place for place, key in reversed(list(enumerate(keys)))}
    order = sorted(range(len(keys)), key=lambda index: first[keys[index]])
    groups = (list(group) for _, group in groupby(order, key=lambda index: first[keys[index]]))
    for chunk in weighed_chunks(groups, size, len):
        yield [index for group in chunk for index in group]


def weighed_chunks(items: Iterable[In], size: int, weight: Callable[[In], int]) -> Iterator[list[In]]:
    """The items in their order, in chunks that weigh at least `size` (but for the last)."""
    chunk: list[In] = []
    weighs = 0
    for item in items:
        chunk.append(item)
        weighs += weight(item)
        if weighs >= size:
            yield chunk
            chunk, weighs = [], 0
    if chunk:
        yield chunk
