"""Programs that are wrong, whatever a test expects. A script that all of them pass tests nothing."""

from collections.abc import Callable, Iterator
from typing import Any

from codescaler_plugin.grading.stand_ins import Program


class _Contrary:
    """Equal to what a result must differ from; false, and empty."""

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
    for argument in arguments:
        if hasattr(argument, "clear"):  # a program must not change what it was given, either
            argument.clear()
    return _Contrary()


class _CaughtError(OSError, KeyError, IndexError, ValueError, TypeError, ZeroDivisionError, NotImplementedError):
    """Exceptions that tests may catch, with another text than they expect."""


class _OtherError(AttributeError):
    """Another one that they may catch: it has no common form in memory with those above."""


class WrongProgram(Program):
    """A program that answers every request by one function of its arguments, or by raising one exception."""

    def __init__(self, answer: Callable[..., Any]) -> None:
        super().__init__()
        self.answer = answer

    def ask(self, target: str | int, verb: str, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> Any:  # noqa: ARG002
        """Answer as always."""
        self.requests += 1
        if isinstance(self.answer, type):
            raise self.note_raised(self.answer("_cs_wrong"), "")
        return self.answer(*arguments)

    def change(self, name: str, *value: Any) -> None:
        """It has no module."""


WRONG_PROGRAMS: tuple[Callable[..., Any], ...] = (
    lambda *_: object(),
    lambda *_: None,
    _contrary,
    lambda *_: False,
    lambda *_: True,
    _CaughtError,
    _OtherError,
)
"""The answers of wrong programs; that which most tests find wrong comes first."""
