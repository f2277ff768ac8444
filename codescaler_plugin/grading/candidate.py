"""Runs model-written code: serves calls to it, or runs it as a program. The code can change all that runs here."""

import atexit
import contextlib
import ctypes
import io
import os
import socket
import sys
import threading
import types
from collections.abc import Callable
from typing import Any

from codescaler_plugin.grading import operations, serialization
from codescaler_plugin.isolation import limits

_ENVIRONMENT = {"PATH": "/usr/local/bin:/usr/bin:/bin", "LANG": "C.UTF-8", "USER": "nobody", "LOGNAME": "nobody"}
_MESSAGE = 10_000  # characters of an exception's text
_TOO_LARGE: dict[str, Any] = {"error": "ResultTooLarge", "bases": []}


def serve_calls(channel: socket.socket) -> None:
    """Load the code of the first message, then answer requests until the other side closes the channel."""
    job = serialization.receive(channel)
    limits.allow_cpu(job.get("cpu", 0))
    module = types.ModuleType("candidate")
    sys.modules["candidate"] = module
    error = load(job, module.__dict__)
    serialization.send(channel, error)
    if error:
        return
    service = Service(module.__dict__)
    while True:
        try:
            message = serialization.receive(channel)
        except EOFError:  # the other side has closed
            return
        limits.allow_cpu(message.get("cpu", 0))
        try:
            reply = service.answer(message)
        except BaseException as raised:  # SystemExit and KeyboardInterrupt too: what a program raises is its verdict
            reply = error_reply(raised)
        try:
            serialization.send(channel, reply)
        except serialization.SerializationError:
            serialization.send(channel, _TOO_LARGE)


def run_program(job: dict[str, str], on_error: Callable[[dict[str, Any]], None]) -> int:
    """Run a job's code as a program on descriptors 0 and 1. Returns its exit code; `on_error` gets what it raises."""
    module = types.ModuleType("__main__")
    sys.modules["__main__"] = module
    sys.stdin = open(0, encoding="utf-8", errors="surrogateescape", closefd=False)  # noqa: SIM115
    sys.stdout = open(1, "w", encoding="utf-8", errors="surrogateescape", closefd=False)  # noqa: SIM115
    code = 0
    try:
        exec(compile(job["preamble"], "<preamble>", "exec", dont_inherit=True), module.__dict__)
        exec(compile(job["code"], "<candidate>", "exec", dont_inherit=True), module.__dict__)
        threading._shutdown()  # type: ignore[attr-defined]
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else int(error.code is not None)
    except BaseException as error:  # any exception is its verdict
        on_error(error_reply(error))
        code = 1
    atexit._run_exitfuncs()
    sys.stdout.flush()
    return code & 0xFF


def become_program(channel: socket.socket, script: str, file_bytes: int) -> bool:
    """Bring this process into the state of an interpreter before it runs its script, and return True: it is to run it.

    The code of the first message goes to `script`, the path that the interpreter was started with; the exception that
    ends it goes into the channel. Files that it writes have `file_bytes` at most.
    """
    job = serialization.receive(channel)
    with open(script, "w", encoding="utf-8", newline="") as file:
        file.write(job["code"])
    limits.limit_files(file_bytes)
    main = types.ModuleType("__main__")  # the old one is frozen: what lies in it would not end with the interpreter
    main.__dict__.update(sys.modules["__main__"].__dict__)
    sys.modules["__main__"] = main
    _open_streams()
    os.environ.update(_ENVIRONMENT, HOME=os.getcwd(), PWD=os.getcwd())
    sys.argv[1:] = []
    sys.orig_argv[1:] = sys.argv
    sys._xoptions.clear()
    sys.dont_write_bytecode = False
    atexit.register(_end, channel, os.getpid(), {name: held for name, held in sys.modules.items() if held is not main})
    try:
        exec(compile(job["preamble"], "<preamble>", "exec", dont_inherit=True), main.__dict__)
    except BaseException as error:  # any exception is its verdict
        serialization.send(channel, error_reply(error))
        os._exit(1)
    return True


def _open_streams() -> None:
    """Open stdin and stdout on descriptors 0 and 1 as the interpreter does at its start."""
    for number, name, mode in ((0, "stdin", "r"), (1, "stdout", "w")):
        old = getattr(sys, f"__{name}__")
        buffer = open(number, mode + "b", closefd=False)  # noqa: SIM115
        buffer.raw.name = f"<{name}>"  # type: ignore[attr-defined]
        stream = io.TextIOWrapper(buffer, encoding=old.encoding, errors=old.errors, newline="\n")
        stream.mode = mode  # type: ignore[misc]
        setattr(sys, name, stream)
        setattr(sys, f"__{name}__", stream)


def _end(channel: socket.socket, process: int, loaded: dict[str, Any]) -> None:
    """Send the exception that has ended the program, if any. Registered first, it runs last.

    It keeps the modules alive that were loaded before the program: to take them down takes twice as long as the rest.
    """
    if os.getpid() != process:
        return
    if isinstance(error := getattr(sys, "last_value", None), BaseException):
        with contextlib.suppress(OSError):  # the other side has closed
            serialization.send(channel, error_reply(error))
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(loaded))
    for name in loaded.keys() - {"sys", "builtins"}:
        sys.modules.pop(name, None)


def prepare() -> None:
    """Clear the environment, and add the builtins of `site`. Processes of programs inherit this."""
    os.environ.clear()
    # The module `site`, but not what it does: that would read the files of installed packages.
    sys.modules.pop("site", None)
    flags = sys.flags
    copied = {name: getattr(flags, name) for name in flags.__match_args__}
    sys.flags = types.SimpleNamespace(**{**copied, "no_site": 1})  # type: ignore[assignment]
    import site

    sys.flags = flags
    site.setquit()
    site.setcopyright()
    site.sethelper()


def load(job: dict[str, str], namespace: dict[str, Any]) -> dict[str, Any]:
    """Run a job's preamble and code in a namespace. Returns the reply for what they raise, empty for nothing."""
    try:
        exec(compile(job["preamble"], "<preamble>", "exec", dont_inherit=True), namespace)
        exec(compile(job["code"], "<candidate>", "exec", dont_inherit=True), namespace)
    except BaseException as error:  # any exception is the program's verdict
        return error_reply(error)
    return {}


def error_reply(error: BaseException) -> dict[str, Any]:
    """The reply for an exception: its class, those above it, its text, and the package that it misses."""
    try:
        message = str(error)[:_MESSAGE]
    except BaseException:  # from a `__str__` of the program
        message = ""
    return {
        "error": type(error).__name__,
        "bases": [base.__name__ for base in type(error).__mro__],
        "message": message,
        "missing": missing_package(error),
    }


def missing_package(error: BaseException) -> str:
    """The package that an exception says is missing, or an empty text."""
    name = error.name if isinstance(error, ModuleNotFoundError) else ""
    return name.partition(".")[0] if isinstance(name, str) else ""


class Service:
    """Does what tests ask of a namespace, and keeps the objects that do not leave this process."""

    def __init__(self, namespace: dict[str, Any]) -> None:
        self.namespace = namespace
        self.kept: list[Any] = []
        self.numbers: dict[int, int] = {}
        self.instances: dict[str, Any] = {}

    def answer(self, message: dict[str, Any]) -> dict[str, Any]:
        """Do one of `operations.DO` with a name or a kept object, and pack the result."""
        classes, request = frozenset(message["classes"]), message["value"]
        (arguments, keywords), objects = serialization.unpack(
            request, class_of=self._class, object_of=lambda number: self.kept[number]
        )
        result = self.do(message["target"], message["verb"], arguments, keywords)
        known, before = (objects, request["nodes"]) if message["copy_back"] else ((), ())

        def name_of(thing: Any) -> str | None:
            name = type(thing).__name__
            return name if name in classes else None

        try:
            reply, _ = serialization.pack(result, name_of=name_of, handle_of=self.keep, known=known, before=before)
        except serialization.UnserializableError:
            return _TOO_LARGE
        return {"value": reply}

    def do(self, target: str | int, verb: str, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> Any:
        """Do one of `operations.DO` with a name or a kept object."""
        subject = self.named(target) if isinstance(target, str) else self.kept[target]
        return operations.DO[verb](subject, *arguments, **keywords)

    def named(self, name: str) -> Any:
        """`f`, or `Class.method` of the one object that is made for all calls; `f` may also be `Solution.f`."""
        first, _, method = name.partition(".")
        if not method and first not in self.namespace and hasattr(self.namespace.get("Solution"), first):
            first, method = "Solution", first
        elif method and first not in self.namespace:
            first, method = method, ""
        if first not in self.namespace:
            raise NameError(f"name {first!r} is not defined")
        if not method:
            return self.namespace[first]
        if first not in self.instances:
            self.instances[first] = self.namespace[first]()
        return getattr(self.instances[first], method)

    def keep(self, thing: Any) -> int:
        """Keep an object, and return its number."""
        number = self.numbers.get(id(thing))
        if number is None:
            number = self.numbers[id(thing)] = len(self.kept)
            self.kept.append(thing)
        return number

    def _class(self, name: str) -> type | None:
        kind = self.namespace.get(name)
        return kind if isinstance(kind, type) else None
