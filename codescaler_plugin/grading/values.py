"""Values of each type as nodes, and back. `serialization` walks through what they hold.

A node is a list: a tag, then what the value consists of. There are four kinds of tags:

- leaves (`LEAVES`): numbers and texts that stand in the node itself,
- mutable containers (`EMPTY`; `o`: an object of a class known by name; `Z`: a defaultdict), made empty, then filled,
- immutable containers (`BUILD`), made after all that they hold,
- `e`, a member of an Enum, and `h`, the number of an object that stays where it is.

Subclasses of these types cross as their base. NumPy's numbers and arrays cross as such where NumPy is loaded, else as
numbers and lists.
"""

import array
import builtins
import enum
import functools
import math
import operator
import sys
from collections import Counter, OrderedDict, defaultdict, deque, namedtuple
from collections.abc import Callable, Iterable
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from fractions import Fraction
from typing import Any
from uuid import UUID

_MAX_FIELDS, _MAX_DIMENSIONS = 200, 16
_DTYPE = 4  # characters of a NumPy type such as <f16
_NUMPY_KINDS = "biufcU"
NameOf = Callable[[Any], str | None]
HandleOf = Callable[[Any], int | None]
SCALARS = frozenset({type(None), bool, str, float})
"""Types whose values need no node; small integers need none either."""
TYPES: dict[str, type] = {name: kind for name, kind in vars(builtins).items() if isinstance(kind, type)}
_ITEMS: dict[type, str] = {list: "l", set: "s", deque: "q", tuple: "t", frozenset: "f"}
_MAPS: dict[type, str] = {dict: "d", Counter: "C", OrderedDict: "O"}
_VIEWS: dict[type, str] = {type({}.keys()): "keys", type({}.items()): "items", type({}.values()): "values"}
EMPTY: dict[str, Callable[[], Any]] = {
    "B": bytearray,
    **{tag: kind for kind, tag in (_ITEMS | _MAPS).items() if kind not in (tuple, frozenset)},
}
MUTABLE = frozenset({*EMPTY, "o", "Z"})

# Each type with its tag, the part of a node for a value, and the value of a part. A datetime is a date: it is first.
_LEAVES: tuple[tuple[type, str, Callable[[Any], Any], Callable[[Any], Any]], ...] = (
    (datetime, "datetime", datetime.isoformat, datetime.fromisoformat),
    (date, "date", date.isoformat, date.fromisoformat),
    (time, "time", time.isoformat, time.fromisoformat),
    (timedelta, "timedelta", lambda it: [it.days, it.seconds, it.microseconds], lambda parts: timedelta(*parts)),
    (UUID, "UUID", lambda it: it.hex, UUID),
    (int, "i", lambda it: hex(int(it)), lambda digits: int(digits, 16)),
    (bytes, "b", lambda it: bytes(it).hex(), bytes.fromhex),
    (complex, "c", lambda it: [it.real, it.imag], lambda parts: complex(*parts)),
    (range, "r", lambda it: [hex(it.start), hex(it.stop), hex(it.step)], lambda parts: range(*_integers(parts))),
    (Decimal, "D", str, lambda text: Decimal(text)),
    (Fraction, "F", lambda it: [hex(it.numerator), hex(it.denominator)], lambda parts: Fraction(*_integers(parts))),
    (str, "u", str, str),
    (float, "g", float, float),
)
LEAVES: dict[str, Callable[[Any], Any]] = {"n": TYPES.__getitem__, **{leaf[1]: leaf[3] for leaf in _LEAVES}}


def node_of(thing: Any, child: Callable[[Any], Any], name_of: NameOf, handle_of: HandleOf) -> list[Any] | None:
    """The node of a value, or None. `child` refers to what it holds; the rest is as in `serialization.pack`."""
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
    node = _library_node(thing, child)
    if node is not None:
        return node
    for base, tag, part_of, _ in _LEAVES:
        if isinstance(thing, base):
            return [tag, part_of(thing)]
    if isinstance(thing, bytearray):
        return ["B", bytes(thing).hex()]
    for base, tag in _ITEMS.items():
        if isinstance(thing, base):
            return [tag, *map(child, base.__iter__(thing))]  # type: ignore[attr-defined]
    if isinstance(thing, dict):
        return ["d", *(child(part) for pair in dict.items(thing) for part in pair)]
    if isinstance(thing, type) and TYPES.get(thing.__name__) is thing:
        return ["n", thing.__name__]
    handle = handle_of(thing)
    return None if handle is None else ["h", handle]


def _library_node(thing: Any, child: Callable[[Any], Any]) -> list[Any] | None:
    """The node of a container from the standard library, or of NumPy's."""
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
    if isinstance(thing, array.array):
        return ["a", thing.typecode, *map(child, thing)]
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


def tag_of(thing: Any) -> str:
    """The tag of a value that can be filled."""
    kind = type(thing)
    return _ITEMS.get(kind) or _MAPS.get(kind) or ("B" if kind is bytearray else "Z" if kind is defaultdict else "o")


def fill(thing: Any, node: list[Any], child: Callable[[Any], Any]) -> None:
    """Give a mutable value the contents of its node, in place; `child` is the value of a reference."""
    tag = node[0]
    if tag == "o":
        for name, part in zip(node[2::2], node[3::2], strict=True):
            object.__setattr__(thing, name, child(part))
        return
    if tag == "B":
        thing[:] = bytes.fromhex(node[1])
        return
    parts = list(map(child, node[1 + (tag == "Z") :]))
    thing.clear()
    if tag in ("l", "q"):
        thing.extend(parts)
    elif tag == "s":
        _fill_set(thing, parts)
    else:
        thing.update(dict(zip(parts[::2], parts[1::2], strict=True)))


def _fill_set(thing: set[Any], parts: list[Any]) -> None:
    """Fill a set in the order of the one that was sent, which depends on how it grew: item by item or at once."""
    for source in (parts, set(parts), parts):
        thing.clear()
        thing.update(source)
        if all(map(operator.is_, thing, parts)):
            return


def _frozen_set(parts: list[Any]) -> frozenset[Any]:
    grown, copied = frozenset(parts), frozenset(set(parts))
    return copied if all(map(operator.is_, copied, parts)) else grown


def _integers(parts: list[str]) -> list[int]:
    """Integers of their digits; of a text like 1e999999999 a fraction would be computed."""
    return [int(digits, 16) for digits in parts]


@functools.lru_cache(64)
def _tuple_class(name: str, fields: tuple[str, ...]) -> Any:
    return namedtuple(name, fields)


def _named_tuple(name: str, fields: list[str], parts: list[Any]) -> Any:
    if len(fields) > _MAX_FIELDS:
        raise ValueError("a named tuple of too many fields")
    return _tuple_class(name, tuple(fields))(*parts)


def _view(kind: str, parts: list[Any]) -> Any:
    if kind == "keys":
        return dict.fromkeys(parts).keys()
    return dict(parts).items() if kind == "items" else dict(enumerate(parts)).values()


def _numpy(kind: str, shape: list[int], is_array: bool, parts: list[Any]) -> Any:
    if math.prod(shape) != len(parts) or len(shape) > _MAX_DIMENSIONS:
        raise ValueError("an array of another size")
    numpy = sys.modules.get("numpy")
    if numpy is not None:
        dtype = None if kind[1] == "U" and parts else numpy.dtype(kind[:_DTYPE])
        value = numpy.array(parts, dtype=dtype).reshape(shape)
        return value if is_array else value[()]
    for size in reversed(shape[1:]):
        parts = [parts[start : start + size] for start in range(0, len(parts), size)] if size else []
    return parts if is_array and shape else parts[0]


BUILD: dict[str, Callable[..., Any]] = {
    "t": tuple,
    "f": _frozen_set,
    "N": _named_tuple,
    "S": lambda parts: slice(*parts),
    "V": _view,
    "a": array.array,
    "y": _numpy,
}
HEAD = {"N": 2, "V": 1, "a": 1, "y": 3}
"""Number of parts of a node, behind the tag, that are no references."""
