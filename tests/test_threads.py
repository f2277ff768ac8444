"""One thread for small models, the caller's number for all others, and never more than it was."""

import threading
from collections.abc import Iterator
from typing import Any

import pytest
import torch

from codescaler_plugin import load_scorer, threads
from codescaler_plugin.threads import fitting_threads


@pytest.fixture(autouse=True)
def four_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(4)
    yield
    torch.set_num_threads(before)


def test_a_small_model_computes_alone_and_the_number_is_put_back() -> None:
    with fitting_threads(torch.nn.Linear(10, 10)):
        assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == 4


def test_the_number_is_put_back_after_an_error() -> None:
    with pytest.raises(KeyError), fitting_threads(torch.nn.Linear(10, 10)):
        raise KeyError
    assert torch.get_num_threads() == 4


def test_a_large_model_and_one_elsewhere_keep_the_callers_number(monkeypatch: pytest.MonkeyPatch) -> None:
    with fitting_threads(torch.nn.Linear(10, 10, device="meta")):
        assert torch.get_num_threads() == 4
    monkeypatch.setattr(threads, "SMALL", 50)
    with fitting_threads(torch.nn.Linear(10, 10)):
        assert torch.get_num_threads() == 4


def test_it_never_raises_the_number() -> None:
    torch.set_num_threads(1)
    with fitting_threads(torch.nn.Linear(10, 10)):
        assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == 1


def test_a_block_inside_of_a_block_leaves_the_outer_one_its_thread() -> None:
    small = torch.nn.Linear(2, 2)
    with fitting_threads(small):
        with fitting_threads(small):
            assert torch.get_num_threads() == 1
        assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == 4


def test_callers_in_several_threads_leave_the_number_as_it_was() -> None:
    small, inside, leave = torch.nn.Linear(2, 2), threading.Barrier(3), threading.Event()
    seen: list[int] = []

    def work() -> None:
        with fitting_threads(small):
            seen.append(torch.get_num_threads())
            inside.wait(10)
            leave.wait(10)

    workers = [threading.Thread(target=work) for _ in range(2)]
    for worker in workers:
        worker.start()
    inside.wait(10)
    leave.set()
    for worker in workers:
        worker.join()
    assert seen == [1, 1]
    assert torch.get_num_threads() == 4
    later: list[int] = []
    thread = threading.Thread(target=lambda: later.append(torch.get_num_threads()))
    thread.start()
    thread.join()
    assert later == [4]


def test_the_embedded_model_scores_with_one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    from codescaler_plugin.scoring import loaded_model
    from codescaler_plugin.scoring.forward import tree_logits

    seen: list[int] = []

    def watched(*arguments: Any, **settings: Any) -> Any:
        seen.append(torch.get_num_threads())
        return tree_logits(*arguments, **settings)

    monkeypatch.setattr(loaded_model, "tree_logits", watched)
    load_scorer("builtin").score([("Write solve(n): for the digits of n, return the sum.", "x = 1")])
    assert set(seen) == {1}
    assert torch.get_num_threads() == 4
