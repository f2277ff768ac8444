"""A program as tests see it from another process: stand-ins for its functions and objects.

Results are rebuilt here as data of known types. What cannot be rebuilt stays in the program's process behind a
stand-in, which can be called, read, written and walked, and which equals nothing unless the problem asks for a class.
Stand-ins are needed for problems that ask for a class, a closure or a generator: without them their tests would share
a process with the program, which could then deceive them.
"""

import ast
import builtins
import socket
import sys
import types
from collections.abc import Callable
from typing import Any

from codescaler_plugin.grading import operations, serialization
from codescaler_plugin.grading.needs import Needs

_NAME = 100  # characters of an error's name
_PLAIN_DUNDERS = frozenset({"__name__", "__qualname__", "__doc__", "__module__"})
_EXITS = (SystemExit, KeyboardInterrupt, GeneratorExit)


class Over(BaseException):
    """The program can answer no more; the message is the verdict's detail."""


class Beyond(BaseException):
    """A test does what only the program's own process can do; the message says what."""


class ProgramError(Exception):
    """The program raised an exception that has no built-in class here."""


class UnreadableResult(Exception):  # noqa: N818 - a verdict's word
    """A test used a result that cannot leave the program's process."""


class Program:
    """The program under test. What a test swallows, such as an unreadable result, stays noted here."""

    def __init__(self) -> None:
        self.requests = 0  # how often it was asked anything
        self.over = ""  # why it can answer no more
        self.beyond = ""  # what only its own process can do
        self.unreadable = ""  # a result that was used and cannot be read here
        self.missing = ""  # a package that it lacks
        self.is_running = True  # the tests wait for it; where both share a process, always
        self.classes: dict[str, type] = {}  # of the preamble: their objects cross as their attributes
        self.provided: dict[str, Any] = {}  # names of the preamble, as it ran in this process
        self.needs = Needs("", frozenset())
        self.read_names: frozenset[str] = frozenset()  # by the script that runs
        self.raised: list[BaseException] = []

    def load(self, code: str, preamble: str) -> None:
        """Run the program's code."""
        raise NotImplementedError

    def stand_in(self, name: str) -> Any:
        """The stand-in for a function or class of the program."""
        return Remote(self, name)

    def ask(self, target: str | int, verb: str, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> Any:
        """Have the program do one of `operations.DO`."""
        raise NotImplementedError

    def change(self, name: str, *value: Any) -> None:  # noqa: ARG002
        """Give a name of the program's module another value, or none."""
        raise self.go_beyond(f"it changes {name!r} of the program")

    def has_raised(self, error: BaseException) -> bool:
        """Whether an exception came from the program."""
        return any(error is raised for raised in self.raised)

    def owns(self, thing: Any) -> bool:
        """Whether an object is the program's."""
        return isinstance(thing, Remote)

    def class_of(self, thing: Any) -> str | None:
        """The name of an object's class, if objects of it cross as their attributes."""
        kind = type(thing)
        return kind.__name__ if self.classes.get(kind.__name__) is kind else None

    def end(self, detail: str) -> Over:
        """Note that the program can answer no more."""
        self.over = self.over or detail
        return Over(self.over)

    def go_beyond(self, reason: str) -> Beyond:
        """Note that only the program's own process can go on."""
        self.beyond = self.beyond or reason
        return Beyond(reason)

    def cannot_read(self, what: str) -> UnreadableResult:
        """Note that a result cannot be read."""
        self.unreadable = self.unreadable or what
        return UnreadableResult(what)

    def note_raised(self, error: BaseException, missing: str) -> BaseException:
        """Note an exception of the program, and the package that it misses."""
        self.raised.append(error)
        self.missing = self.missing or missing  # of the standard library too: it may be hidden here
        return error

    def hides_stop(self, kind: type[BaseException], verb: str) -> bool:
        """Whether an exception would end a loop of the tests in silence: a StopIteration that they do not wait for."""
        is_awaited = verb == "next" or self.read_names & {"next", "anext", kind.__name__}
        return issubclass(kind, StopIteration | StopAsyncIteration) and not is_awaited


class Channel(Program):
    """A program in a process of its own, in `candidate.serve_calls`."""

    def __init__(self, channel: socket.socket | None = None) -> None:
        super().__init__()
        self.channel = channel
        self.is_running = False
        self.objects: dict[int, Remote] = {}

    def load(self, code: str, preamble: str) -> None:
        """Have the other process run the program's code."""
        reply = self._exchange({"code": code, "preamble": preamble, "cpu": 0})
        if "error" in reply:
            self.note_raised(Exception(), _text(reply, "missing"))
            raise self.end(_error_name(reply))

    def ask(self, target: str | int, verb: str, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> Any:
        """Have the other process do one of `operations.DO`."""
        self.requests += 1
        try:
            request, objects = serialization.pack((arguments, keywords), name_of=self.class_of, handle_of=self._number)
        except serialization.UnserializableError as error:
            raise self.go_beyond(f"it hands the program a {error}") from None
        call = {"target": target, "verb": verb, "value": request, "classes": list(self.classes), "copy_back": True}
        reply = self._exchange(call)
        if reply.get("error") == "ResultTooLarge":
            raise self.cannot_read("a result is too large, or holds what cannot be sent")
        if "error" in reply:
            raise self.note_raised(self._rebuilt(reply, verb), _text(reply, "missing"))
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
        self.is_running = True
        try:
            serialization.send(self.channel, message)
            reply = serialization.receive(self.channel)
        except (EOFError, ConnectionError):
            raise self.end("Killed") from None
        except (serialization.SerializationError, MemoryError):
            reply = None
        self.is_running = False
        if not isinstance(reply, dict):
            self.cannot_read("an answer that is none")
            raise self.end("UnreadableResult")
        return reply

    def _number(self, thing: Any) -> int | None:
        target = thing._cs_target if isinstance(thing, Remote) else None
        return target if isinstance(target, int) else None

    def _object(self, number: Any) -> "Remote":
        if type(number) is not int:
            raise serialization.SerializationError("a handle that is no number")
        return self.objects.setdefault(number, Remote(self, number))

    def _rebuilt(self, reply: dict[str, Any], verb: str) -> Exception:
        """The exception of a reply: of the built-in class itself, else of a class made of the nearest built-in one."""
        name, bases, message = _error_name(reply), reply.get("bases"), _text(reply, "message")
        for base in [name, *bases] if isinstance(bases, list) else [name]:
            builtin = getattr(builtins, base, None) if isinstance(base, str) else None
            if not isinstance(builtin, type) or not issubclass(builtin, BaseException):
                continue
            if builtin in (Exception, BaseException):
                continue
            if self.hides_stop(builtin, verb):
                return ProgramError(name)
            if issubclass(builtin, _EXITS) and builtin.__name__ not in self.read_names:
                break
            own = {"__str__": lambda self: self.text}
            try:
                kind: Any = builtin if base == name else type(name, (ProgramError, builtin), own)
                error: Exception = kind(*_arguments(builtin, message))
                error.text = message  # type: ignore[attr-defined]
                return error
            except Exception:  # a class with arguments of its own
                continue
        unknown: type[ProgramError] = type(name if name.isidentifier() else "ProgramError", (ProgramError,), {})
        return unknown(message)


def _text(reply: dict[str, Any], key: str) -> str:
    text = reply.get(key)
    return text if isinstance(text, str) else ""


def _error_name(reply: dict[str, Any]) -> str:
    return _text(reply, "error")[:_NAME] or "an exception without a name"


def _arguments(kind: type, message: str) -> tuple[Any, ...]:
    if issubclass(kind, KeyError) and message:  # its text is the repr of its argument
        try:
            return (ast.literal_eval(message),)
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            return (message,)
    return (message,) if message else ()


class Remote:
    """A function or object of the program."""

    __slots__ = ("_cs_program", "_cs_target")

    def __init__(self, program: Program, target: str | int) -> None:
        object.__setattr__(self, "_cs_program", program)
        object.__setattr__(self, "_cs_target", target)

    def __call__(self, *arguments: Any, **keywords: Any) -> Any:
        """Call it in the program's process."""
        return self._cs_program.ask(self._cs_target, "call", arguments, keywords)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") and name.endswith("__") and name not in _PLAIN_DUNDERS:
            raise AttributeError(name)
        return self._cs_program.ask(self._cs_target, "get", (name,), {})

    def __getattribute__(self, name: str) -> Any:
        if name in _PLAIN_DUNDERS:
            return self.__getattr__(name)
        return object.__getattribute__(self, name)

    def __setattr__(self, name: str, value: Any) -> None:
        self._cs_program.ask(self._cs_target, "set", (name, value), {})

    def __delattr__(self, name: str) -> None:
        self._cs_program.ask(self._cs_target, "delete", (name,), {})

    def __contains__(self, item: object) -> bool:
        if self._cs_program.needs.is_class:
            return bool(self._cs_program.ask(self._cs_target, "contains", (item,), {}))
        return any(member is item or member == item for member in iter(self))

    def __hash__(self) -> int:
        if self._cs_program.needs.is_class or self._cs_program.needs.has_objects:
            raise self._cs_program.go_beyond("it takes the hash of an object of the program")
        return id(self)


def _operation(verb: str) -> Callable[..., Any]:
    def method(self: Remote, *arguments: Any) -> Any:
        program = self._cs_program
        if verb == "bool" and isinstance(self._cs_target, str):
            return True  # a function, or class: nothing was asked
        if verb in operations.DECIDING and not (
            program.needs.is_class or (program.needs.has_objects and program.owns(arguments[0]))
        ):
            raise program.cannot_read(
                "an object that cannot leave the program's process was compared or calculated with"
            )
        return program.ask(self._cs_target, verb, arguments, {})

    return method


def _beyond(reason: str) -> Callable[..., Any]:
    def method(self: Remote, *_: Any) -> Any:
        raise self._cs_program.go_beyond(reason)

    return method


for _dunder, _verb in operations.METHODS.items():
    setattr(Remote, _dunder, _operation(_verb))
for _reason, _dunders in {
    "it copies an object of the program": ("__reduce_ex__", "__deepcopy__"),
    "it enters a context of the program": ("__enter__", "__exit__"),
    "it awaits the program": ("__await__",),
}.items():
    for _dunder in _dunders:
        setattr(Remote, _dunder, _beyond(_reason))


class _Module(types.ModuleType):
    """The module that tests import the program from."""

    def __init__(self, name: str, program: Program) -> None:
        super().__init__(name)
        self.__dict__.update(_program=program, _deleted=set(), __path__=[])

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name in self.__dict__["_deleted"]:
            raise AttributeError(name)
        return self.__dict__["_program"].stand_in(name)

    def __setattr__(self, name: str, value: Any) -> None:
        if name.startswith("__"):
            super().__setattr__(name, value)
        else:
            self.__dict__["_deleted"].discard(name)
            self.__dict__["_program"].change(name, value)

    def __delattr__(self, name: str) -> None:
        self.__dict__["_deleted"].add(name)
        self.__dict__["_program"].change(name)


def offer_module(name: str, program: Program) -> None:
    """Let tests import the program from a module of this dotted name."""
    parts = name.split(".")
    for end in range(1, len(parts) + 1):
        path = ".".join(parts[:end])
        sys.modules[path] = _Module(path, program)
