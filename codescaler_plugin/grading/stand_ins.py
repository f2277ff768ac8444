"""A candidate as tests see it from another process: stand-ins for its functions and objects.

What comes back is rebuilt here as data of known types. What cannot be, stays there behind a stand-in, which can be
called, read, written and walked; it equals nothing unless the problem asks for a class.
"""

import ast
import builtins
import socket
from collections.abc import Callable
from typing import Any

from codescaler_plugin.grading import operations, serialization
from codescaler_plugin.grading.scripts import Asked

_NAME = 100  # characters of an error's name
_PLAIN_DUNDERS = frozenset({"__name__", "__qualname__", "__doc__", "__module__"})
_EXITS = (SystemExit, KeyboardInterrupt, GeneratorExit)


class Over(BaseException):
    """The candidate can answer no more; the message is the verdict's detail."""


class Beyond(BaseException):
    """Only the candidate's own process can do what a test does; the message says what."""


class CandidateError(Exception):
    """The candidate raised what has no built-in class here."""


class UnreadableResult(Exception):  # noqa: N818 - a verdict's word
    """A result was used that cannot leave the candidate's process."""


class Side:
    """The candidate's side. What a test swallows, such as an unreadable result, stays noted here."""

    def __init__(self) -> None:
        self.asked = 0  # how often it was asked anything
        self.over = ""  # why it can answer no more
        self.beyond = ""  # what only its own process can do
        self.unreadable = ""  # what was used that cannot be read here
        self.missing = ""  # a package that it lacks
        self.is_waited_for = True  # it has the word, not the tests; where both share a process, always
        self.classes: dict[str, type] = {}
        self.provided: dict[str, Any] = {}  # names of the preamble, as it ran in this process
        self.wants = Asked("", frozenset())
        self.awaited: frozenset[str] = frozenset()  # names that the running tests read
        self.raised: list[BaseException] = []

    def load(self, code: str, preamble: str) -> None:
        """Run the candidate's code."""
        raise NotImplementedError

    def named(self, target: str) -> Any:
        """What stands for a function or class of the candidate."""
        return Remote(self, target)

    def ask(self, target: str | int, verb: str, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> Any:
        """Have the candidate do one of `operations.DO`."""
        raise NotImplementedError

    def change(self, name: str, *value: Any) -> None:  # noqa: ARG002
        """Give a name of the candidate's module another value, or none."""
        raise self.go_beyond(f"it changes {name!r} of the program")

    def is_theirs(self, error: BaseException) -> bool:
        """Whether the candidate raised it."""
        return any(error is one for one in self.raised)

    def end(self, detail: str) -> Over:
        """Note that it can answer no more."""
        self.over = self.over or detail
        return Over(self.over)

    def go_beyond(self, reason: str) -> Beyond:
        """Note that only its own process can go on."""
        self.beyond = self.beyond or reason
        return Beyond(reason)

    def cannot_read(self, what: str) -> UnreadableResult:
        """Note that a result cannot be read."""
        self.unreadable = self.unreadable or what
        return UnreadableResult(what)

    def class_of(self, thing: Any) -> str | None:
        """The name of a thing's class, if objects of it cross."""
        kind = type(thing)
        return kind.__name__ if self.classes.get(kind.__name__) is kind else None

    def is_object(self, thing: Any) -> bool:
        """Whether a thing is the candidate's."""
        return isinstance(thing, Remote)

    def noted(self, error: Exception, missing: str) -> Exception:
        """What the candidate raised."""
        self.raised.append(error)
        if missing:  # of the standard library too: it may be hidden here
            self.missing = self.missing or missing
        return error


class Channel(Side):
    """A candidate in a process of its own, in `candidate.serve_calls`."""

    def __init__(self, channel: socket.socket | None = None) -> None:
        super().__init__()
        self.channel = channel
        self.is_waited_for = False
        self.objects: dict[int, Remote] = {}

    def load(self, code: str, preamble: str) -> None:
        """Have the other process run the candidate's code."""
        reply = self._exchange({"code": code, "preamble": preamble, "cpu": 0})
        if "error" in reply:
            missing = reply.get("missing")
            self.noted(Exception(), missing if isinstance(missing, str) else "")
            raise self.end(_name_of(reply))

    def ask(self, target: str | int, verb: str, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> Any:
        """Have the other process do one of `operations.DO`."""
        self.asked += 1
        try:
            request, objects = serialization.pack((arguments, keywords), name_of=self.class_of, handle_of=self._number)
        except serialization.UnserializableError as error:
            raise self.go_beyond(f"it hands the program a {error}") from None
        reply = self._exchange(
            {"target": target, "verb": verb, "value": request, "classes": list(self.classes), "copy_back": True}
        )
        if "error" in reply:
            if reply.get("error") == "ResultTooLarge":
                raise self.cannot_read("a result is too large, or holds what cannot be sent")
            raise self._raised(reply, verb)
        try:
            value, _ = serialization.unpack(
                reply.get("value"), class_of=self.classes.get, object_of=self._object, known=objects
            )
        except (serialization.SerializationError, MemoryError) as error:
            raise self.cannot_read(str(error)[:_NAME]) from error
        return value

    def _exchange(self, message: dict[str, Any]) -> dict[str, Any]:
        if self.over:
            raise Over(self.over)
        assert self.channel is not None  # it is there before any code
        self.is_waited_for = True
        try:
            serialization.send(self.channel, message)
            reply = serialization.receive(self.channel)
        except (EOFError, ConnectionError):
            raise self.end("Killed") from None
        except (serialization.SerializationError, MemoryError):
            reply = None
        self.is_waited_for = False
        if not isinstance(reply, dict):
            self.cannot_read("an answer that is none")
            raise self.end("UnreadableResult")
        return reply

    def _raised(self, reply: dict[str, Any], verb: str) -> Exception:
        missing, message = (
            reply.get(key) if isinstance(reply.get(key), str) else "" for key in ("missing", "message")
        )
        error = rebuilt(_name_of(reply), reply.get("bases"), message or "", verb, self.awaited)
        return self.noted(error, missing or "")

    def _number(self, thing: Any) -> int | None:
        target = thing._target if isinstance(thing, Remote) else None
        return target if isinstance(target, int) else None

    def _object(self, number: Any) -> "Remote":
        if type(number) is not int:
            raise serialization.SerializationError("a handle that is no number")
        return self.objects.setdefault(number, Remote(self, number))


def _name_of(reply: dict[str, Any]) -> str:
    name = reply.get("error")
    return (name if isinstance(name, str) else "")[:_NAME] or "an exception without a name"


def rebuilt(name: str, bases: Any, message: str, verb: str, awaited: frozenset[str]) -> Exception:
    """What the candidate raised: the built-in class itself, else one made of the nearest built-in class.

    A StopIteration ends the loop of whoever hears it. It stays one only for tests that wait for it.
    """
    for base in [name, *bases] if isinstance(bases, list) else [name]:
        found = getattr(builtins, base, None) if isinstance(base, str) else None
        if not isinstance(found, type) or not issubclass(found, BaseException) or found in (Exception, BaseException):
            continue
        if issubclass(found, StopIteration | StopAsyncIteration) and not (
            verb == "next" or awaited & {"next", "anext", found.__name__}
        ):
            return CandidateError(name)
        if issubclass(found, _EXITS) and found.__name__ not in awaited:
            break
        try:
            kind = found if base == name else type(name, (CandidateError, found), {"__str__": lambda self: self.text})
            raised: Any = kind(*_arguments(found, message))
            raised.text = message
            return raised  # type: ignore[no-any-return]
        except Exception:  # a class with arguments of its own
            continue
    named = type(name if name.isidentifier() else "CandidateError", (CandidateError,), {})
    error: CandidateError = named(message)
    return error


def _arguments(kind: type, message: str) -> tuple[Any, ...]:
    if issubclass(kind, KeyError) and message:  # its text is the repr of its argument
        try:
            return (ast.literal_eval(message),)
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            return (message,)
    return (message,) if message else ()


class Remote:
    """A function or object of the candidate."""

    __slots__ = ("_side", "_target")

    def __init__(self, side: Side, target: str | int) -> None:
        object.__setattr__(self, "_side", side)
        object.__setattr__(self, "_target", target)

    def __call__(self, *arguments: Any, **keywords: Any) -> Any:
        """Call it there."""
        return self._side.ask(self._target, "call", arguments, keywords)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") and name.endswith("__") and name not in _PLAIN_DUNDERS:
            raise AttributeError(name)
        return self._side.ask(self._target, "get", (name,), {})

    def __getattribute__(self, name: str) -> Any:
        if name in _PLAIN_DUNDERS:
            return self.__getattr__(name)
        return object.__getattribute__(self, name)

    def __setattr__(self, name: str, value: Any) -> None:
        self._side.ask(self._target, "set", (name, value), {})

    def __delattr__(self, name: str) -> None:
        self._side.ask(self._target, "delete", (name,), {})

    def __contains__(self, item: object) -> bool:
        if self._side.wants.is_class:
            return bool(self._side.ask(self._target, "contains", (item,), {}))
        return any(one is item or one == item for one in iter(self))

    def __hash__(self) -> int:
        if self._side.wants.is_class or self._side.wants.has_objects:
            raise self._side.go_beyond("it takes the hash of an object of the program")
        return id(self)

    def __reduce_ex__(self, _: Any) -> Any:
        raise self._side.go_beyond("it copies an object of the program")

    def __deepcopy__(self, _: Any) -> Any:
        raise self._side.go_beyond("it copies an object of the program")

    def __enter__(self) -> Any:
        raise self._side.go_beyond("it enters a context of the program")

    def __exit__(self, *_: Any) -> None:
        raise self._side.go_beyond("it enters a context of the program")

    def __await__(self) -> Any:
        raise self._side.go_beyond("it awaits the program")


def _method(verb: str) -> Callable[..., Any]:
    def method(self: Remote, *arguments: Any) -> Any:
        side = self._side
        if verb == "bool" and isinstance(self._target, str):
            return True  # a function, or class: nothing was asked
        if verb in operations.DECIDING and not (
            side.wants.is_class or (side.wants.has_objects and side.is_object(arguments[0]))
        ):
            raise side.cannot_read("an object that cannot leave the program's process was compared or calculated with")
        return side.ask(self._target, verb, arguments, {})

    return method


for _dunder, _verb in operations.METHODS.items():
    setattr(Remote, _dunder, _method(_verb))
