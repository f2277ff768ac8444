"""Messages and values between processes that do not trust each other: what is received is data, whatever was sent.

A message is a JSON object behind its length. A value is flattened into numbered nodes (`values`), so that neither
depth, nor shared references, nor cycles matter: scalars stand in place, `[n]` refers to a node. None, bool, numbers,
texts, bytes, the containers, dates and times of the standard library and NumPy's arrays cross as themselves, built-in
types by name, objects of classes that the receiver knows by name as their attributes.
"""

import enum
import json
import socket
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any

from codescaler_plugin.grading import values

ClassOf = Callable[[str], type | None]
ObjectOf = Callable[[int], Any]
MAX_FRAME = 32 << 20
_MAX_NODES = 1_000_000
_SMALL = 1 << 62  # integers below it stand in place


class SerializationError(Exception):
    """The received bytes are not a message or a value, or are too large."""


class UnserializableError(Exception):
    """A value cannot be sent; the message is its type's name."""


def send(channel: socket.socket, message: Any) -> None:
    """Send one message. Raises a SerializationError if it is longer than `MAX_FRAME` bytes."""
    send_bytes(channel, json.dumps(message, separators=(",", ":")).encode("ascii"))


def send_bytes(channel: socket.socket, data: bytes) -> None:
    """Send one encoded message. Raises as `send` does."""
    if len(data) > MAX_FRAME:
        raise SerializationError("too large")
    channel.sendall(len(data).to_bytes(4, "big") + data)


def receive(channel: socket.socket, deadline: float | None = None, limit: int = MAX_FRAME) -> Any:
    """Receive the next message of at most `limit` bytes.

    Raises:
        EOFError: the other side has closed the channel.
        TimeoutError: no whole message has come by the deadline (of `time.monotonic`).
        SerializationError: the bytes are no message.
    """
    return decoded(receive_bytes(channel, deadline, limit))


def receive_bytes(channel: socket.socket, deadline: float | None = None, limit: int = MAX_FRAME) -> bytes:
    """Receive the next message without decoding it. Raises as `receive` does."""
    size = int.from_bytes(_exactly(channel, 4, deadline), "big")
    if size > limit:
        raise SerializationError("too large")
    return _exactly(channel, size, deadline)


def decoded(data: bytes) -> Any:
    """Decode a message. Raises a SerializationError if the bytes are none."""
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
    name_of: values.NameOf = lambda _: None,
    handle_of: values.HandleOf = lambda _: None,
    known: Sequence[Any] = (),
    before: Sequence[Any] = (),
) -> tuple[dict[str, Any], list[Any]]:
    """Flatten a value into nodes; an UnserializableError if it holds something that does not cross.

    Args:
        value: the value to send.
        name_of: the name of an object's class if the object crosses as its attributes, else None.
        handle_of: a number by which the receiver refers to an object that does not cross, else None.
        known: objects that the receiver has; they get the first numbers, in this order.
        before: the nodes of `known` as the receiver has them; unchanged ones are sent as None.

    Returns:
        The message, and the object of each node.
    """
    objects = list(known)
    numbers = {id(thing): number for number, thing in enumerate(objects)}

    def child(thing: Any) -> Any:
        kind = type(thing)
        if kind in values.SCALARS or (kind is int and -_SMALL < thing < _SMALL):
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
        node = values.node_of(thing, child, name_of, handle_of)
        if node is None:
            raise UnserializableError(type(thing).__name__)
        size += len(node)
        if size > _MAX_NODES:
            raise UnserializableError("too large")
        nodes.append(None if len(nodes) < len(before) and node == before[len(nodes)] else node)
    return {"root": root, "nodes": nodes}, objects


def unpack(
    message: Any, *, class_of: ClassOf = lambda _: None, object_of: ObjectOf | None = None, known: Sequence[Any] = ()
) -> tuple[Any, list[Any]]:
    """Rebuild the value of a message; a SerializationError if it is none, or holds what the receiver does not take.

    Args:
        message: a message of `pack`, or of someone who pretends that it is one.
        class_of: the class of a name; it is not called, its objects are only given attributes.
        object_of: the object of a handle; None: handles are refused.
        known: objects of the first nodes; mutable ones take the received contents in place.

    Returns:
        The value, and the object of each node.
    """
    try:
        graph = _Graph(message["nodes"], class_of, object_of, known)
        return graph.value(message["root"]), graph.objects
    except (TypeError, ValueError, LookupError, AttributeError, ArithmeticError, RecursionError) as error:
        raise SerializationError(f"no value: {type(error).__name__}") from error


class _Graph:
    """The objects of a message's nodes."""

    def __init__(self, nodes: list[Any], class_of: ClassOf, object_of: ObjectOf | None, known: Sequence[Any]) -> None:
        self.nodes, self.class_of, self.object_of = nodes, class_of, object_of
        self.objects: list[Any] = list(known[: len(nodes)])
        waiting, mutable = [], []
        for number, node in enumerate(nodes):
            if number < len(known):
                if node is not None and node[0] in values.MUTABLE and values.tag_of(known[number]) == node[0]:
                    mutable.append(number)
                continue
            self.objects.append(self._created(node))
            if node[0] in values.MUTABLE:
                mutable.append(number)
            elif node[0] in values.BUILD:
                waiting.append(number)
        self._build(waiting)
        order = {"o": 0, "l": 1, "q": 1, "B": 1}  # what others hash by comes first
        for number in sorted(mutable, key=lambda number: order.get(nodes[number][0], 2)):
            values.fill(self.objects[number], nodes[number], self.value)

    def value(self, reference: Any) -> Any:
        if type(reference) is not list:
            return reference
        (number,) = reference
        if number < 0:
            raise SerializationError("a negative number of a node")
        return self.objects[number]

    def _created(self, node: list[Any]) -> Any:
        """The object of a node: empty if it is mutable, None if it can only be made of what it holds."""
        tag = node[0]
        if tag in values.EMPTY:
            return values.EMPTY[tag]()
        if tag in values.BUILD:
            return None
        if tag in values.LEAVES:
            return values.LEAVES[tag](node[1])
        if tag == "Z":
            return defaultdict(None if node[1] is None else values.TYPES[node[1]])
        if tag in ("o", "e"):
            kind: Any = self.class_of(node[1])
            if kind is None or (tag == "e" and not issubclass(kind, enum.Enum)):
                raise SerializationError(f"an object of class {str(node[1])[:50]}")
            return object.__new__(kind) if tag == "o" else kind[node[2]]
        if tag != "h":
            raise SerializationError("an unknown kind of value")
        if self.object_of is None:
            raise SerializationError("an object")
        return self.object_of(node[1])

    def _build(self, waiting: list[int]) -> None:
        """Make the immutable containers, each after those that it holds."""
        holders: dict[int, list[int]] = {number: [] for number in waiting}
        missing = dict.fromkeys(waiting, 0)  # containers that it holds and that are not made
        for number in waiting:
            for part in self._held(number):
                if type(part) is list and part[0] in holders:
                    holders[part[0]].append(number)
                    missing[number] += 1
        sizes: dict[int, int] = {}  # tuples within tuples count as often as they are held: hashing walks them all
        ready = [number for number in waiting if not missing[number]]
        for number in ready:  # grows while we walk
            held = self._held(number)
            sizes[number] = 1 + sum(sizes.get(part[0], 1) if type(part) is list else 1 for part in held)
            if sizes[number] > _MAX_NODES:
                raise SerializationError("too large")
            tag, *head = self.nodes[number][: 1 + values.HEAD.get(self.nodes[number][0], 0)]
            self.objects[number] = values.BUILD[tag](*head, list(map(self.value, held)))
            for holder in holders[number]:
                missing[holder] -= 1
                if not missing[holder]:
                    ready.append(holder)
        if len(ready) < len(waiting):
            raise SerializationError("a tuple that holds itself")

    def _held(self, number: int) -> list[Any]:
        node = self.nodes[number]
        return node[1 + values.HEAD.get(node[0], 0) :]  # type: ignore[no-any-return]
