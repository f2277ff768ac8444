"""Work on the next chunk while the caller is busy with this one."""

from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import groupby
from typing import TypeVar

In = TypeVar("In")
Out = TypeVar("Out")


def ahead(function: Callable[[In], Out], chunks: Iterable[In]) -> Iterator[Out]:
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
    chunk: list[int] = []
    for _, group in groupby(order, key=lambda index: first[keys[index]]):
        chunk.extend(group)
        if len(chunk) >= size:
            yield chunk
            chunk = []
    if chunk:
        yield chunk
