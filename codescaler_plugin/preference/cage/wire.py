"""Values as bytes between processes that do not trust each other: what comes in is data, whatever was sent.

A message is a JSON object behind its length. A value is flattened into numbered nodes, so that neither depth, nor
shared references, nor cycles matter; scalars stand in place, `[n]` refers to a node. What crosses: None, bool, int,
float, str, bytes, bytearray, complex, list, tuple, dict, Counter, OrderedDict, set, frozenset, deque, range, Decimal,
Fraction, subclasses of these as their base, built-in types by name, and objects of the classes that the receiver knows
by name, as their attributes.
"""

import json
import operator
import socket
import time
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Iterable, Sequence
from decimal import Decimal
from fractions import Fraction
from typing import Any

MAX_FRAME = 32 << 20
_MAX_NODES = 1_000_000
_SCALARS = frozenset({type(None), bool, str, float})
_NEW: dict[str, Callable[[], Any]] = {
    "l": list,
    "s": set,
    "d": dict,
    "q": deque,
    "C": Counter,
    "O": OrderedDict,
    "B": bytearray,
}
_TYPES: dict[str, type] = {
    "bool": bool,
    "int": int,
    "float": float,
    "complex": complex,
    "str": str,
    "bytes": bytes,
    "list": list,
    "tuple": tuple,
    "dict": dict,
    "set": set,
    "frozenset": frozenset,
}
_ITEMS: dict[type, str] = {list: "l", tuple: "t", set: "s", frozenset: "f", deque: "q"}
_MAPS: dict[type, str] = {dict: "d", Counter: "C", OrderedDict: "O"}


class WireError(Exception):
    """What came is not of this form, or too large."""


class UnsendableError(Exception):
    """A value has no form here; the message is its type's name."""


def send(channel: socket.socket, message: Any) -> None:
    """Send one message.

    Raises:
        WireError: it is above `MAX_FRAME` bytes.
    """
    data = json.dumps(message, separators=(",", ":")).encode("ascii")
    if len(data) > MAX_FRAME:
        raise WireError("too large")
    channel.sendall(len(data).to_bytes(4, "big") + data)


def receive(channel: socket.socket, deadline: float | None = None, limit: int = MAX_FRAME) -> Any:
    """The next message of at most `limit` bytes.

    Raises:
        EOFError: the other side has gone.
        TimeoutError: nothing whole by the deadline (of `time.monotonic`).
        WireError: what came is no message.
    """
    size = int.from_bytes(_exactly(channel, 4, deadline), "big")
    if size > limit:
        raise WireError("too large")
    try:
        return json.loads(_exactly(channel, size, deadline))
    except (ValueError, RecursionError) as error:
        raise WireError("no message") from error


def _exactly(channel: socket.socket, size: int, deadline: float | None) -> bytes:
    parts = []
    while size:
        if deadline is not None:
            left = deadline - time.monotonic()
            if left <= 0:
                raise TimeoutError
            channel.settimeout(left)
        try:
            part = channel.recv(min(size, 1 << 20))
        except ConnectionError:
            part = b""
        if not part:
            raise EOFError
        parts.append(part)
        size -= len(part)
    return b"".join(parts)


def pack(
    value: Any,
    *,
    name_of: Callable[[Any], str | None] = lambda _: None,
    handle_of: Callable[[Any], int | None] = lambda _: None,
    known: Sequence[Any] = (),
    before: Sequence[Any] = (),
) -> tuple[dict[str, Any], list[Any]]:
    """A value as nodes, and the objects behind the nodes in their order.

    Args:
        value: what to send.
        name_of: the name of an object's class if it crosses by its attributes, else None.
        handle_of: a number by which the receiver may refer to an object that does not cross, else None.
        known: objects that get the first numbers, in this order: the receiver has them.
        before: their nodes as the receiver knows them; unchanged ones are sent as None.

    Raises:
        UnsendableError: something in it does not cross.
    """
    objects = list(known)
    numbers = {id(thing): number for number, thing in enumerate(objects)}

    def child(thing: Any) -> Any:
        kind = type(thing)
        if kind in _SCALARS or (kind is int and -(1 << 62) < thing < 1 << 62):
            return thing
        number = numbers.get(id(thing))
        if number is None:
            number = numbers[id(thing)] = len(objects)
            objects.append(thing)
        return [number]

    root = child(value)
    nodes: list[Any] = []
    size = 0
    for thing in objects:  # grows while we walk
        node = _node(thing, child, name_of, handle_of)
        size += len(node)
        if size > _MAX_NODES:
            raise UnsendableError("too large")
        nodes.append(None if len(nodes) < len(before) and node == before[len(nodes)] else node)
    return {"root": root, "nodes": nodes}, objects


def _node(
    thing: Any,
    child: Callable[[Any], Any],
    name_of: Callable[[Any], str | None],
    handle_of: Callable[[Any], int | None],
) -> list[Any]:
    kind = type(thing)
    if kind in _ITEMS:
        return [_ITEMS[kind], *map(child, thing)]
    if kind in _MAPS:
        return [_MAPS[kind], *(child(part) for pair in thing.items() for part in pair)]
    name = name_of(thing)
    if name is not None:
        return ["o", name, *(part for key, held in _attributes(thing) for part in (key, child(held)))]
    if isinstance(thing, int):
        return ["i", hex(int(thing))]
    if isinstance(thing, bytes):
        return ["b", bytes(thing).hex()]
    if isinstance(thing, bytearray):
        return ["B", bytes(thing).hex()]
    if isinstance(thing, complex):
        return ["c", thing.real, thing.imag]
    if isinstance(thing, range):
        return ["r", child(thing.start), child(thing.stop), child(thing.step)]
    if isinstance(thing, Decimal):
        return ["D", str(thing)]
    if isinstance(thing, Fraction):
        return ["F", child(thing.numerator), child(thing.denominator)]
    if isinstance(thing, str):
        return ["u", str(thing)]
    if isinstance(thing, float):
        return ["g", float(thing)]
    for base, tag in _ITEMS.items():
        if isinstance(thing, base):
            return [tag, *map(child, base.__iter__(thing))]  # type: ignore[attr-defined]
    if isinstance(thing, dict):
        return ["d", *(child(part) for pair in dict.items(thing) for part in pair)]
    if isinstance(thing, type) and _TYPES.get(thing.__name__) is thing:
        return ["n", thing.__name__]
    handle = handle_of(thing)
    if handle is None:
        raise UnsendableError(kind.__name__)
    return ["h", handle]


def _attributes(thing: Any) -> Iterable[tuple[str, Any]]:
    yield from getattr(thing, "__dict__", {}).items()
    for kind in type(thing).__mro__:
        slots = kind.__dict__.get("__slots__", ())
        for name in (slots,) if isinstance(slots, str) else slots:
            if name not in ("__dict__", "__weakref__") and hasattr(thing, name):
                yield name, getattr(thing, name)


def unpack(
    message: Any,
    *,
    class_of: Callable[[str], type | None] = lambda _: None,
    object_of: Callable[[int], Any] | None = None,
    known: Sequence[Any] = (),
) -> tuple[Any, list[Any]]:
    """The value of a message, and the objects of its nodes.

    Args:
        message: made by `pack`, or by someone who would like us to believe so.
        class_of: the class of a name; it is not called, only given attributes.
        object_of: the object of a handle.
        known: objects of the first numbers; mutable ones take the contents that came, in place.

    Raises:
        WireError: it is no such message, or holds what the receiver does not take.
    """
    try:
        return _Unpacked(message["nodes"], class_of, object_of, known).value(message["root"])
    except (TypeError, ValueError, LookupError, AttributeError, ArithmeticError, RecursionError) as error:
        raise WireError(f"no value: {type(error).__name__}") from error


class _Unpacked:
    def __init__(
        self,
        nodes: list[Any],
        class_of: Callable[[str], type | None],
        object_of: Callable[[int], Any] | None,
        known: Sequence[Any],
    ) -> None:
        self.nodes = nodes
        self.objects: list[Any] = [None] * len(nodes)
        waiting = set()
        filled = []
        for number, node in enumerate(nodes):
            if number < len(known):
                self.objects[number] = known[number]
                if node is not None and node[0] in _NEW | {"o": 1} and _tag(known[number]) == node[0]:
                    filled.append(number)
                continue
            tag = node[0]
            if tag in _NEW:
                self.objects[number] = _NEW[tag]()
                filled.append(number)
            elif tag == "o":
                kind = class_of(node[1])
                if kind is None:
                    raise WireError(f"an object of class {str(node[1])[:50]}")
                self.objects[number] = object.__new__(kind)
                filled.append(number)
            elif tag in ("t", "f", "r", "F"):
                waiting.add(number)
            elif tag == "h":
                if object_of is None:
                    raise WireError("an object")
                self.objects[number] = object_of(node[1])
            else:
                self.objects[number] = _leaf(tag, node)
        self._build(waiting)
        order = {"o": 0, "l": 1, "q": 1, "B": 1}  # what others hash by comes first
        for number in sorted(filled, key=lambda number: order.get(nodes[number][0], 2)):
            self._fill(self.objects[number], nodes[number])

    def value(self, reference: Any) -> tuple[Any, list[Any]]:
        return self._child(reference), self.objects

    def _child(self, part: Any) -> Any:
        if type(part) is not list:
            return part
        (number,) = part
        if number < 0:
            raise WireError("a negative number of a node")
        return self.objects[number]

    def _build(self, waiting: set[int]) -> None:
        """Immutable nodes, each after those that it holds."""
        parts_of: dict[int, int] = {}  # tuples within tuples counted as often as they are held: hashing walks them all
        for first in list(waiting):
            stack = [(first, iter(self.nodes[first][1:]))] if first in waiting else []
            path = {first}
            while stack:
                number, parts = stack[-1]
                child = next((part[0] for part in parts if type(part) is list and part[0] in waiting), None)
                if child is not None:
                    if child in path:
                        raise WireError("a tuple that holds itself")
                    path.add(child)
                    stack.append((child, iter(self.nodes[child][1:])))
                    continue
                tag, *held = self.nodes[number]
                parts_of[number] = 1 + sum(parts_of.get(one[0], 1) if type(one) is list else 1 for one in held)
                if parts_of[number] > _MAX_NODES:
                    raise WireError("too large")
                build = {"t": tuple, "f": _frozen, "r": lambda p: range(*p), "F": _fraction}[tag]
                self.objects[number] = build([self._child(one) for one in held])  # type: ignore[operator]
                waiting.discard(number)
                path.discard(number)
                stack.pop()

    def _fill(self, thing: Any, node: list[Any]) -> None:
        tag = node[0]
        if tag == "o":
            for key, part in zip(node[2::2], node[3::2], strict=True):
                object.__setattr__(thing, key, self._child(part))
            return
        if tag == "B":
            thing[:] = bytes.fromhex(node[1])
            return
        parts = [self._child(part) for part in node[1:]]
        thing.clear()
        if tag in ("l", "q"):
            thing.extend(parts)
        elif tag == "s":
            _refill(thing, parts)
        else:
            thing.update(dict(zip(parts[::2], parts[1::2], strict=True)))


def _refill(thing: set[Any], parts: list[Any]) -> None:
    """Make a set that is walked as the one that was sent: that depends on how it grew, item by item or at once."""
    for source in (parts, set(parts), parts):
        thing.clear()
        thing.update(source)
        if all(map(operator.is_, thing, parts)):
            return


def _fraction(parts: list[Any]) -> Fraction:
    return Fraction(*map(operator.index, parts))  # of a text like 1e999999999 it would be computed


def _frozen(parts: list[Any]) -> frozenset[Any]:
    found = frozenset(parts)
    copied = frozenset(set(parts))
    return copied if all(map(operator.is_, copied, parts)) else found


def _tag(thing: Any) -> str:
    kind = type(thing)
    return _ITEMS.get(kind) or _MAPS.get(kind) or ("B" if kind is bytearray else "o")


def _leaf(tag: str, node: list[Any]) -> Any:
    if tag == "i":
        return int(node[1], 16)
    if tag == "b":
        return bytes.fromhex(node[1])
    if tag == "c":
        return complex(node[1], node[2])
    if tag == "D":
        return Decimal(node[1])
    if tag == "n":
        return _TYPES[node[1]]
    if tag == "u":
        return str(node[1])
    if tag == "g":
        return float(node[1])
    raise WireError("an unknown kind of value")
