"""Programs that are wrong whatever a test expects: tests that all of them pass test nothing."""

from collections.abc import Callable, Iterator
from typing import Any

from codescaler_plugin.grading.stand_ins import Side


class _Contrary:
    """Equal to whatever a result must differ from; false, and empty."""

    def __eq__(self, other: object) -> bool:
        return True

    def __ne__(self, other: object) -> bool:
        return False

    def __bool__(self) -> bool:
        return False

    def __len__(self) -> int:
        return 0

    def __iter__(self) -> Iterator[Any]:
        return iter(())

    def __hash__(self) -> int:
        return 0


def _contrary(*arguments: Any) -> Any:
    for one in arguments:
        if hasattr(one, "clear"):  # a program must not change what it was given, either
            one.clear()
    return _Contrary()


class _CaughtError(OSError, KeyError, IndexError, ValueError, TypeError, ZeroDivisionError, NotImplementedError):
    """What tests may catch, with another text than they expect."""


class _OtherError(AttributeError):
    """As above: the two have no common form in memory."""


class Sham(Side):
    """A candidate that answers everything by one function of a call's arguments, or raises one kind of exception."""

    def __init__(self, answer: Callable[..., Any]) -> None:
        super().__init__()
        self.answer = answer

    def ask(self, target: str | int, verb: str, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> Any:  # noqa: ARG002
        """Answer as always."""
        self.asked += 1
        if isinstance(self.answer, type):
            raise self.noted(self.answer("a sham's"), "")
        return self.answer(*arguments)

    def change(self, name: str, *value: Any) -> None:
        """It has no module."""


ANSWERS: tuple[Callable[..., Any], ...] = (
    lambda *_: object(),
    lambda *_: None,
    _contrary,
    lambda *_: False,
    lambda *_: True,
    _CaughtError,
    _OtherError,
)
"""Of shams, that which most tests find wrong first."""
