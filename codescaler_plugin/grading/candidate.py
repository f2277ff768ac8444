"""Serves calls to model-written code. Everything here is at the candidate's mercy; nobody believes what it sends."""

import atexit
import contextlib
import io
import os
import socket
import sys
import threading
import types
from collections.abc import Callable
from typing import Any

from codescaler_plugin.grading import operations, serialization
from codescaler_plugin.isolation import namespaces

Namespace = dict[str, Any]

_ENVIRONMENT = {"PATH": "/usr/local/bin:/usr/bin:/bin", "LANG": "C.UTF-8", "USER": "nobody", "LOGNAME": "nobody"}
_MESSAGE = 10_000  # characters of an exception's text


def serve_calls(channel: socket.socket) -> None:
    """Load the code of the first message, then answer calls until the other side goes."""
    job = serialization.receive(channel)
    namespaces.allow_cpu(job.get("cpu", 0))
    module = types.ModuleType("candidate")
    sys.modules["candidate"] = module
    answer = _load(job, module.__dict__)
    serialization.send(channel, answer)
    if "error" in answer:
        return
    service = _Service(module.__dict__)
    while True:
        try:
            message = serialization.receive(channel)
        except EOFError:  # the other side has heard enough
            return
        namespaces.allow_cpu(message.get("cpu", 0))
        try:
            reply = service.answer(message)
        except BaseException as error:  # SystemExit and KeyboardInterrupt too: what a candidate raises is its verdict
            reply = _error(error)
        try:
            serialization.send(channel, reply)
        except serialization.SerializationError:
            serialization.send(channel, {"error": "ResultTooLarge", "bases": []})


def run_program(job: dict[str, str], on_error: Callable[[dict[str, Any]], None]) -> int:
    """Run a job's code as a program on descriptors 0 and 1; its exit code. `on_error` is told what it raises."""
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
    except BaseException as error:  # whatever it raises is its verdict
        on_error(_error(error))
        code = 1
    atexit._run_exitfuncs()
    sys.stdout.flush()
    return code & 0xFF


def become_program(channel: socket.socket, script: str, file_bytes: int) -> bool:
    """Make of this process what an interpreter is before it runs its script, the job of the first message.

    True: the interpreter is to run it now, as the `script` that it was started with. What it raises goes into the
    channel when the interpreter ends. Each file that the program writes has at most `file_bytes`.
    """
    job = serialization.receive(channel)
    with open(script, "w", encoding="utf-8", newline="") as file:
        file.write(job["code"])
    namespaces.limit_files(file_bytes)
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
    except BaseException as error:  # whatever it raises is its verdict
        serialization.send(channel, _error(error))
        os._exit(1)
    return True


def _open_streams() -> None:
    """Streams over what descriptors 0 and 1 are now, as the interpreter makes them at its start."""
    for number, name, mode in ((0, "stdin", "r"), (1, "stdout", "w")):
        old = getattr(sys, f"__{name}__")
        buffer = open(number, mode + "b", closefd=False)  # noqa: SIM115
        buffer.raw.name = f"<{name}>"  # type: ignore[attr-defined]
        stream = io.TextIOWrapper(buffer, encoding=old.encoding, errors=old.errors, newline="\n")
        stream.mode = mode  # type: ignore[misc]
        setattr(sys, name, stream)
        setattr(sys, f"__{name}__", stream)


def _end(channel: socket.socket, process: int, loaded: dict[str, Any]) -> None:
    """Send the exception that has ended the program, if one has; the first function that was registered runs last.

    The modules that were loaded before the program are left alone: to take them down takes twice as long as the rest.
    """
    if os.getpid() != process:
        return
    if isinstance(error := getattr(sys, "last_value", None), BaseException):
        with contextlib.suppress(OSError):  # the other side has heard enough
            serialization.send(channel, _error(error))
    namespaces.keep_for_ever(loaded)
    for name in loaded.keys() - {"sys", "builtins"}:
        sys.modules.pop(name, None)


def prepare() -> None:
    """What a fresh interpreter would have, and no environment; inherited by the processes of candidates."""
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


def _load(job: dict[str, str], namespace: Namespace) -> dict[str, Any]:
    try:
        exec(compile(job["preamble"], "<preamble>", "exec", dont_inherit=True), namespace)
        exec(compile(job["code"], "<candidate>", "exec", dont_inherit=True), namespace)
    except BaseException as error:  # as above
        return _error(error)
    return {}


def _error(error: BaseException) -> dict[str, Any]:
    try:
        message = str(error)[:_MESSAGE]
    except BaseException:  # a `__str__` of the candidate's
        message = ""
    missing = error.name if isinstance(error, ModuleNotFoundError) and isinstance(error.name, str) else ""
    return {
        "error": type(error).__name__,
        "bases": [base.__name__ for base in type(error).__mro__],
        "message": message,
        "missing": missing.partition(".")[0],
    }


class _Service:
    def __init__(self, namespace: Namespace) -> None:
        self.namespace = namespace
        self.kept: list[Any] = []
        self.numbers: dict[int, int] = {}
        self.instances: dict[str, Any] = {}
        self.names: frozenset[str] = frozenset()

    def answer(self, message: dict[str, Any]) -> dict[str, Any]:
        """Do what is asked, one of `operations.DO`, with a name or a kept object."""
        self.names = frozenset(message["classes"])
        request = message["value"]
        (arguments, keywords), objects = serialization.unpack(
            request, class_of=self._class, object_of=lambda number: self.kept[number]
        )
        result = self._do(message, arguments, keywords)
        try:
            reply, _ = serialization.pack(
                result,
                name_of=self._name,
                handle_of=self._keep,
                known=objects if message["copy_back"] else (),
                before=request["nodes"] if message["copy_back"] else (),
            )
        except serialization.UnserializableError:
            return {"error": "ResultTooLarge", "bases": []}
        return {"value": reply}

    def _do(self, message: dict[str, Any], arguments: tuple[Any, ...], keywords: dict[str, Any]) -> Any:
        target = message["target"]
        subject = self._named(target) if isinstance(target, str) else self.kept[target]
        return operations.DO[message["verb"]](subject, *arguments, **keywords)

    def _named(self, name: str) -> Any:
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

    def _class(self, name: str) -> type | None:
        found = self.namespace.get(name)
        return found if isinstance(found, type) else None

    def _name(self, thing: Any) -> str | None:
        name = type(thing).__name__
        return name if name in self.names else None

    def _keep(self, thing: Any) -> int:
        number = self.numbers.get(id(thing))
        if number is None:
            number = self.numbers[id(thing)] = len(self.kept)
            self.kept.append(thing)
        return number
