import threading

import pytest

from codescaler_plugin.prefetch import grouped_chunks, prefetch


def test_next_chunk_is_computed_while_the_caller_is_busy() -> None:
    started = threading.Event()

    def work(number: int) -> int:
        if number == 1:
            started.set()
        return number

    results = prefetch(work, [0, 1, 2])
    assert next(results) == 0
    assert started.wait(5), "the second chunk waits for the caller"
    assert list(results) == [1, 2]


def test_error_of_a_chunk_comes_in_its_place() -> None:
    def work(number: int) -> float:
        return 1 / number

    results = prefetch(work, [1, 0, 2])
    assert next(results) == 1
    with pytest.raises(ZeroDivisionError):
        next(results)


def test_chunks_hold_equal_keys_together_in_order_of_first_sight() -> None:
    assert list(grouped_chunks("abcab", 1)) == [[0, 3], [1, 4], [2]]
    assert list(grouped_chunks("abcab", 3)) == [[0, 3, 1, 4], [2]]
    assert list(grouped_chunks("", 3)) == []
