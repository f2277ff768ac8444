"""Values as bytes between processes that do not trust each other: what comes in is data, whatever was sent.

A message is a JSON object behind its length. A value is flattened into numbered nodes, so that neither depth, nor
shared references, nor cycles matter; scalars stand in place, `[n]` refers to a node. What crosses: None, bool, int,
float, str, bytes, bytearray, complex, list, tuple, dict, Counter, OrderedDict, set, frozenset, deque, range, Decimal,
Fraction, named tuples, defaultdict of a built-in type, views of a dict, slices, date, time, datetime, timedelta,
array, UUID, NumPy's numbers and arrays (as such where NumPy is loaded, else as numbers and lists), subclasses of these
as their base, built-in types by name, and objects of the classes that the receiver knows by name, as their attributes
or, of an Enum, as its member.
"""

import array
import builtins
import datetime
import enum
import functools
import json
import math
import operator
import socket
import sys
import time
import uuid
from collections import Counter, OrderedDict, defaultdict, deque, namedtuple
from collections.abc import Callable, Iterable, Iterator, Sequence
from decimal import Decimal
from fractions import Fraction
from typing import Any

MAX_FRAME = 32 << 20
_MAX_NODES = 1_000_000
_MAX_FIELDS, _MAX_DIMENSIONS = 200, 16
_DTYPE = 4  # characters of a NumPy type such as <f16
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
_TYPES: dict[str, type] = {name: held for name, held in vars(builtins).items() if isinstance(held, type)}
_ITEMS: dict[type, str] = {list: "l", tuple: "t", set: "s", frozenset: "f", deque: "q"}
_MAPS: dict[type, str] = {dict: "d", Counter: "C", OrderedDict: "O"}
_VIEWS: dict[type, str] = {type({}.keys()): "keys", type({}.items()): "items", type({}.values()): "values"}
_NUMPY_KINDS = "biufcU"
_WAITING = ("t", "f", "r", "F", "N", "S", "V", "a", "y")  # nodes that hold others and cannot be filled later


class SerializationError(Exception):
    """What came is not of this form, or too large."""


class UnserializableError(Exception):
    """A value has no form here; the message is its type's name."""


def send(channel: socket.socket, message: Any) -> None:
    """Send one message.

    Raises:
        SerializationError: it is above `MAX_FRAME` bytes.
    """
    send_bytes(channel, json.dumps(message, separators=(",", ":")).encode("ascii"))


def send_bytes(channel: socket.socket, data: bytes) -> None:
    """Send one message that is encoded already; see `send`."""
    if len(data) > MAX_FRAME:
        raise SerializationError("too large")
    channel.sendall(len(data).to_bytes(4, "big") + data)


def receive(channel: socket.socket, deadline: float | None = None, limit: int = MAX_FRAME) -> Any:
    """The next message of at most `limit` bytes.

    Raises:
        EOFError: the other side has gone.
        TimeoutError: nothing whole by the deadline (of `time.monotonic`).
        SerializationError: what came is no message.
    """
    return decoded(receive_bytes(channel, deadline, limit))


def receive_bytes(channel: socket.socket, deadline: float | None = None, limit: int = MAX_FRAME) -> bytes:
    """The next message as it came, for someone else to decode; see `receive`."""
    size = int.from_bytes(_exactly(channel, 4, deadline), "big")
    if size > limit:
        raise SerializationError("too large")
    return _exactly(channel, size, deadline)


def decoded(data: bytes) -> Any:
    """The message of these bytes.

    Raises:
        SerializationError: they are none.
    """
    try:
        return json.loads(data)
    except (ValueError, RecursionError) as error:
        raise SerializationError("no message") from error


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
        UnserializableError: something in it does not cross.
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
            raise UnserializableError("too large")
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
    if name is not None and isinstance(thing, enum.Enum):
        return ["e", name, thing.name]
    if name is not None:
        return ["o", name, *(part for key, held in _attributes(thing) for part in (key, child(held)))]
    other = _library_node(thing, child)
    if other is not None:
        return other
    if isinstance(thing, int):
        return ["i", hex(int(thing))]
    if isinstance(thing, bytes | bytearray):
        return ["b" if isinstance(thing, bytes) else "B", bytes(thing).hex()]
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
        raise UnserializableError(kind.__name__)
    return ["h", handle]


def _library_node(thing: Any, child: Callable[[Any], Any]) -> list[Any] | None:
    """The node of a value of a class of the standard library, or of NumPy."""
    kind = type(thing)
    fields = getattr(kind, "_fields", None)
    if isinstance(thing, tuple) and type(fields) is tuple and len(fields) == tuple.__len__(thing):
        return ["N", kind.__name__, list(map(str, fields)), *map(child, tuple.__iter__(thing))]
    if kind is defaultdict and (thing.default_factory is None or type(thing.default_factory) is type):
        factory = thing.default_factory and thing.default_factory.__name__
        return ["Z", factory, *(child(part) for pair in thing.items() for part in pair)]
    if kind in _VIEWS:
        return ["V", _VIEWS[kind], *map(child, list(thing))]
    if kind is slice:
        return ["S", child(thing.start), child(thing.stop), child(thing.step)]
    if isinstance(thing, datetime.datetime | datetime.date | datetime.time):
        bases: tuple[Any, ...] = (datetime.datetime, datetime.date, datetime.time)
        base = next(base for base in bases if isinstance(thing, base))
        return ["x", base.__name__, base.isoformat(thing)]
    if isinstance(thing, datetime.timedelta):
        return ["x", "timedelta", thing.days, thing.seconds, thing.microseconds]
    if isinstance(thing, array.array):
        return ["a", thing.typecode, *map(child, thing)]
    if isinstance(thing, uuid.UUID):
        return ["x", "UUID", thing.hex]
    numpy = sys.modules.get("numpy")
    if numpy is not None and isinstance(thing, numpy.generic | numpy.ndarray) and thing.dtype.kind in _NUMPY_KINDS:
        flat = thing.reshape(-1).tolist()
        return ["y", thing.dtype.str, list(thing.shape), isinstance(thing, numpy.ndarray), *map(child, flat)]
    return None


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
        SerializationError: it is no such message, or holds what the receiver does not take.
    """
    try:
        return _Unpacked(message["nodes"], class_of, object_of, known).value(message["root"])
    except (TypeError, ValueError, LookupError, AttributeError, ArithmeticError, RecursionError) as error:
        raise SerializationError(f"no value: {type(error).__name__}") from error


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
                if node is not None and (node[0] in _NEW or node[0] in ("o", "Z")) and _tag(known[number]) == node[0]:
                    filled.append(number)
                continue
            tag = node[0]
            if tag in _NEW:
                self.objects[number] = _NEW[tag]()
                filled.append(number)
            elif tag in ("o", "e"):
                kind: Any = class_of(node[1])
                if kind is None or (tag == "e" and not issubclass(kind, enum.Enum)):
                    raise SerializationError(f"an object of class {str(node[1])[:50]}")
                if tag == "o":
                    self.objects[number] = object.__new__(kind)
                    filled.append(number)
                else:
                    self.objects[number] = kind[node[2]]
            elif tag == "Z":
                self.objects[number] = defaultdict(None if node[1] is None else _TYPES[node[1]])
                filled.append(number)
            elif tag in _WAITING:
                waiting.add(number)
            elif tag == "h":
                if object_of is None:
                    raise SerializationError("an object")
                self.objects[number] = object_of(node[1])
            elif tag in _LEAVES:
                self.objects[number] = _LEAVES[tag](*node[1:])
            else:
                raise SerializationError("an unknown kind of value")
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
            raise SerializationError("a negative number of a node")
        return self.objects[number]

    def _build(self, waiting: set[int]) -> None:
        """Immutable nodes, each after those that it holds."""
        parts_of: dict[int, int] = {}  # tuples within tuples counted as often as they are held: hashing walks them all
        for first in list(waiting):
            stack = [(first, self._held(first))] if first in waiting else []
            path = {first}
            while stack:
                number, parts = stack[-1]
                child = next((part[0] for part in parts if type(part) is list and part[0] in waiting), None)
                if child is not None:
                    if child in path:
                        raise SerializationError("a tuple that holds itself")
                    path.add(child)
                    stack.append((child, self._held(child)))
                    continue
                tag, *held = self.nodes[number]
                children = held[_HEAD.get(tag, 0) :]
                parts_of[number] = 1 + sum(parts_of.get(one[0], 1) if type(one) is list else 1 for one in children)
                if parts_of[number] > _MAX_NODES:
                    raise SerializationError("too large")
                start = _HEAD.get(tag, 0)
                self.objects[number] = _BUILD[tag](*held[:start], [self._child(one) for one in held[start:]])
                waiting.discard(number)
                path.discard(number)
                stack.pop()

    def _held(self, number: int) -> Iterator[Any]:
        node = self.nodes[number]
        return iter(node[1 + _HEAD.get(node[0], 0) :])

    def _fill(self, thing: Any, node: list[Any]) -> None:
        tag = node[0]
        if tag == "o":
            for key, part in zip(node[2::2], node[3::2], strict=True):
                object.__setattr__(thing, key, self._child(part))
            return
        if tag == "B":
            thing[:] = bytes.fromhex(node[1])
            return
        parts = [self._child(part) for part in node[1 + (tag == "Z") :]]
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


@functools.lru_cache(64)
def _tuple_class(name: str, fields: tuple[str, ...]) -> Any:
    return namedtuple(name, fields)


def _named(name: str, fields: list[str], parts: list[Any]) -> Any:
    if len(fields) > _MAX_FIELDS:
        raise SerializationError("a named tuple of too many fields")
    return _tuple_class(name, tuple(fields))(*parts)


def _view(kind: str, parts: list[Any]) -> Any:
    if kind == "keys":
        return dict.fromkeys(parts).keys()
    return dict(parts).items() if kind == "items" else dict(enumerate(parts)).values()


def _numpy(kind: str, shape: list[int], is_array: bool, parts: list[Any]) -> Any:
    if math.prod(shape) != len(parts) or len(shape) > _MAX_DIMENSIONS:
        raise SerializationError("an array of another size")
    numpy = sys.modules.get("numpy")
    if numpy is not None:
        found = numpy.array(parts, dtype=None if kind[1] == "U" and parts else numpy.dtype(kind[:_DTYPE])).reshape(
            shape
        )
        return found if is_array else found[()]
    for size in reversed(shape[1:]):
        parts = [parts[start : start + size] for start in range(0, len(parts), size)] if size else []
    return parts if is_array and shape else parts[0]


_BUILD: dict[str, Callable[..., Any]] = {
    "t": tuple,
    "f": lambda parts: _frozen(parts),
    "r": lambda parts: range(*parts),
    "F": lambda parts: Fraction(*map(operator.index, parts)),  # of a text like 1e999999999 it would be computed
    "N": _named,
    "S": lambda parts: slice(*parts),
    "V": _view,
    "a": array.array,
    "y": _numpy,
}
_HEAD = {"N": 2, "V": 1, "a": 1, "y": 3}  # parts of a node before those that are values


def _frozen(parts: list[Any]) -> frozenset[Any]:
    found = frozenset(parts)
    copied = frozenset(set(parts))
    return copied if all(map(operator.is_, copied, parts)) else found


def _tag(thing: Any) -> str:
    kind = type(thing)
    return _ITEMS.get(kind) or _MAPS.get(kind) or ("B" if kind is bytearray else "Z" if kind is defaultdict else "o")


_TIMES: dict[str, Callable[..., Any]] = {
    "datetime": datetime.datetime.fromisoformat,
    "date": datetime.date.fromisoformat,
    "time": datetime.time.fromisoformat,
    "timedelta": datetime.timedelta,
    "UUID": uuid.UUID,
}
_LEAVES: dict[str, Callable[..., Any]] = {
    "i": lambda digits: int(digits, 16),
    "b": bytes.fromhex,
    "c": lambda real, imag: complex(real, imag),
    "D": lambda text: Decimal(text),
    "x": lambda kind, *parts: _TIMES[kind](*parts),
    "n": lambda name: _TYPES[name],
    "u": lambda text: str(text),
    "g": lambda number: float(number),
}
