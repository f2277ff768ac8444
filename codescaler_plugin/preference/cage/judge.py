"""Runs the test source of a problem; the functions it tests live in another process and are called from afar.

What comes back from there is rebuilt here as data of known types, so an object with an `__eq__` of its own, a patched
builtin, or an early exit decides nothing. Each assertion is counted, and one that fails does not hide the next.
"""

import ast
import builtins
import signal
import socket
import types
from typing import Any

from . import wire

_SHOWN = 200  # characters of an assertion in a detail


class _Over(BaseException):
    """The candidate can answer no more; the message is the verdict's detail."""


class CandidateError(Exception):
    """The candidate raised what has no built-in class here."""


class UnreadableResult(Exception):  # noqa: N818 - a verdict's word
    """A result was used that cannot leave the candidate's process."""


def judged(job: dict[str, Any], channel: socket.socket) -> dict[str, Any]:
    """Run a job's tests against the code behind `channel`: `passed`, `total`, and the first failure as `detail`."""
    count = _Count()
    try:
        signal.signal(signal.SIGALRM, _alarm)
        signal.setitimer(signal.ITIMER_REAL, job["timeout"])
        _run(job, _Candidate(channel), count)
    except _Over as over:
        count.fail(str(over))
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
    return {"passed": count.passed, "total": count.total(), "detail": count.detail}


def _alarm(*_: Any) -> None:
    raise _Over("Timeout")


class _Count:
    def __init__(self) -> None:
        self.passed = 0
        self.failed = 0
        self.detail = ""
        self.reached: set[tuple[int, int]] = set()
        self.sites: dict[tuple[int, int], str] = {}

    def total(self) -> int:
        return self.passed + self.failed + len(self.sites.keys() - self.reached)

    def note(self, script: int, site: int, outcome: Any) -> None:
        fine = bool(outcome)
        self.reached.add((script, site))
        if fine:
            self.passed += 1
        else:
            self._fail_in_test("WrongAnswer", self.sites[script, site])

    def error(self, script: int, site: int, error: BaseException) -> None:
        self.reached.add((script, site))
        self._fail_in_test(_kind(error), self.sites[script, site])

    def _fail_in_test(self, kind: str, source: str) -> None:
        self.fail(f"{kind} in test {self.passed + self.failed}{': ' if source else ''}{source}")
        self.failed += 1

    def fail(self, detail: str) -> None:
        self.detail = self.detail or detail


def _kind(error: BaseException) -> str:
    return str(error.args[0]) if isinstance(error, CandidateError) else type(error).__name__


def _run(job: dict[str, Any], candidate: "_Candidate", count: _Count) -> None:
    module = types.ModuleType("judge")
    scripts = []
    try:
        exec(compile(job["preamble"], "<preamble>", "exec", dont_inherit=True), module.__dict__)
        for number, source in enumerate(job["tests"]):
            scripts.append(_counted(ast.parse(source), source, number, count))
    except Exception as error:
        raise _Over(f"TestError: {type(error).__name__} in the problem's tests or preamble") from error
    candidate.classes = {
        name: held
        for name, held in module.__dict__.items()
        if isinstance(held, type) and held.__module__ == module.__name__
    }
    candidate.load(job["code"], job["preamble"])
    for number, tree in enumerate(scripts):
        namespace = dict(module.__dict__)
        own = namespace.keys() | (builtins.__dict__.keys() - {job["entry_point"]})  # a solution may be called `sum`
        for name in _free(tree) - own:
            namespace[name] = _Remote(candidate, job["entry_point"] if name == "candidate" else name)
        namespace.update(_note=count.note, _error=count.error, _Exception=Exception)
        before = count.passed + count.failed
        try:
            exec(compile(tree, "<test>", "exec", dont_inherit=True), namespace)
        except Exception as error:
            missed = [site for script, site in count.sites if script == number and (script, site) not in count.reached]
            if missed:
                count.error(number, missed[0], error)
            else:
                count._fail_in_test(_kind(error), "")
        except SystemExit:
            count.fail("TestError: the problem's tests end the program")
        else:
            if count.passed + count.failed == before:  # a script without assertions is itself the test
                count.passed += 1


def _counted(tree: ast.Module, source: str, script: int, count: _Count) -> ast.Module:
    """The same tests, with each assertion counted instead of raised."""
    lines = source.encode().splitlines()

    class Counting(ast.NodeTransformer):
        def visit_Assert(self, node: ast.Assert) -> ast.AST:
            if isinstance(node.test, ast.Constant) and node.test.value:
                return ast.copy_location(ast.Pass(), node)
            site = len(count.sites)
            text = b"\n".join(lines[node.lineno - 1 : node.end_lineno])[node.col_offset :].decode()
            count.sites[script, site] = text if len(text) <= _SHOWN else text[:_SHOWN] + "..."
            place = f"{script}, {site}"
            (frame,) = ast.parse(
                f"try:\n _note({place}, 0)\nexcept _Exception as _failure:\n _error({place}, _failure)"
            ).body
            frame.body[0].value.args[2] = node.test  # type: ignore[attr-defined]
            return ast.copy_location(frame, node)

    counted: ast.Module = ast.fix_missing_locations(Counting().visit(tree))
    return counted


def _free(tree: ast.Module) -> set[str]:
    """Names that the source reads and binds nowhere at its top level."""
    read = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)}
    bound = {"_note", "_error", "_Exception", "_failure"}
    for node in tree.body:
        bound |= set(_bound(node))
    return read - bound


def _bound(node: ast.AST) -> list[str]:
    """Names that a statement binds in the scope it stands in."""
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return [node.name]
    if isinstance(node, ast.Lambda):
        return []
    if isinstance(node, ast.Import | ast.ImportFrom):
        return [(alias.asname or alias.name).partition(".")[0] for alias in node.names]
    if isinstance(node, ast.Name):
        return [node.id] if isinstance(node.ctx, ast.Store) else []
    return [name for child in ast.iter_child_nodes(node) for name in _bound(child)]


class _Candidate:
    """The other side: code is loaded, then asked."""

    def __init__(self, channel: socket.socket) -> None:
        self.channel = channel
        self.classes: dict[str, type] = {}

    def load(self, code: str, preamble: str) -> None:
        reply = self._exchange({"code": code, "preamble": preamble})
        if "error" in reply:
            raise _Over(str(reply["error"])[:100])

    def ask(self, target: str | int, verb: str, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> Any:
        request, objects = wire.pack((arguments, keywords), name_of=self._name, handle_of=self._number)
        reply = self._exchange(
            {"target": target, "verb": verb, "value": request, "classes": list(self.classes), "copy_back": True}
        )
        if "error" in reply:
            raise _raised(reply)
        try:
            value, _ = wire.unpack(
                reply.get("value"), class_of=self.classes.get, object_of=self._object, known=objects
            )
        except wire.WireError as error:
            raise UnreadableResult(str(error)) from error
        return value

    def _exchange(self, message: dict[str, Any]) -> dict[str, Any]:
        try:
            wire.send(self.channel, message)
            reply = wire.receive(self.channel)
        except (EOFError, ConnectionError):
            raise _Over("Killed") from None
        except wire.WireError:
            raise _Over("UnreadableResult") from None
        if not isinstance(reply, dict):
            raise _Over("UnreadableResult")
        return reply

    def _name(self, thing: Any) -> str | None:
        kind = type(thing)
        return kind.__name__ if self.classes.get(kind.__name__) is kind else None

    def _number(self, thing: Any) -> int | None:
        target = thing._target if isinstance(thing, _Remote) else None
        return target if isinstance(target, int) else None

    def _object(self, number: Any) -> "_Remote":
        if not isinstance(number, int):
            raise wire.WireError("a handle that is no number")
        return _Remote(self, number)


def _raised(reply: dict[str, Any]) -> Exception:
    """What the candidate raised, as the nearest built-in class that tests could be waiting for."""
    name, bases = str(reply["error"])[:100], reply.get("bases")
    for base in [name, *bases] if isinstance(bases, list) else [name]:
        found = getattr(builtins, str(base), None)
        if isinstance(found, type) and issubclass(found, Exception) and found is not Exception:
            try:
                raised: Exception = type("Raised", (CandidateError, found), {})(name)
                return raised
            except TypeError:  # a class with arguments of its own
                continue
    return CandidateError(name)


class _Remote:
    """A function or object of the candidate. It can be called, read, written and walked; it equals nothing."""

    __slots__ = ("_candidate", "_target")

    def __init__(self, candidate: _Candidate, target: str | int) -> None:
        object.__setattr__(self, "_candidate", candidate)
        object.__setattr__(self, "_target", target)

    def __call__(self, *arguments: Any, **keywords: Any) -> Any:
        return self._candidate.ask(self._target, "call", arguments, keywords)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return self._candidate.ask(self._target, "get", (name,), {})

    def __setattr__(self, name: str, value: Any) -> None:
        self._candidate.ask(self._target, "set", (name, value), {})

    def __getitem__(self, key: Any) -> Any:
        return self._candidate.ask(self._target, "item", (key,), {})

    def __iter__(self) -> Any:
        return self._candidate.ask(self._target, "iter", (), {})

    def __next__(self) -> Any:
        return self._candidate.ask(self._target, "next", (), {})

    def __len__(self) -> int:
        length: int = self._candidate.ask(self._target, "len", (), {})
        return length

    def __bool__(self) -> bool:
        raise UnreadableResult("truth of an object that cannot leave the candidate's process")

    def __eq__(self, other: object) -> bool:
        raise UnreadableResult("comparison with an object that cannot leave the candidate's process")

    def __hash__(self) -> int:
        return id(self)
