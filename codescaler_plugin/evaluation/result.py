"""What an evaluation returns: a typed record that is written as JSON, read back, and shown beside other models."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass
from types import UnionType
from typing import Any, ClassVar, Literal, Self, TypeVar, Union, get_args, get_origin, get_type_hints

from codescaler_plugin.errors import DataError
from codescaler_plugin.report.plots import COLOURS
from codescaler_plugin.report.sections import Section

Record = TypeVar("Record")
Colours = Mapping[str, str]  # by the label of the model


class Result(ABC):
    """The result of one evaluation of one model. A subclass is a frozen dataclass in the module of its evaluation.

    Its fields are numbers, texts, other such dataclasses, and tuples and dicts of these, so `to_json` and `from_json`
    need nothing of the subclass.

    To add an evaluation, write a module with a subclass and the function that returns it, add the subclass to
    `summary.RESULTS`, and write a command that calls the function.
    """

    evaluation: ClassVar[str]  # in the names of files
    heading: ClassVar[str]  # of its sections

    @classmethod
    @abstractmethod
    def compare(cls, title: str, models: Mapping[str, Self], colours: Colours) -> Section:
        """A section with the results of one or more models side by side, by the label of the model."""

    def section(self, model: str = "model", title: str = "") -> Section:
        """A section of this result alone; the default of its title is `heading`."""
        return type(self).compare(title or self.heading, {model: self}, {model: COLOURS[0]})

    def to_json(self) -> dict[str, Any]:
        """The result as JSON's types; `from_json` reads it."""
        written: dict[str, Any] = to_json(self)
        return written

    @classmethod
    def from_json(cls, values: Any) -> Self:
        """The result from what `to_json` wrote; a `DataError` names the field that does not fit."""
        return from_json(cls, values)


def to_json(value: Any) -> Any:
    """A record as JSON's types: dataclasses and mappings as dicts with texts as keys, tuples as lists.

    Example:
        >>> from codescaler_plugin.intervals import Mean
        >>> to_json({4: Mean(0.5, 0.2, 0.8, rows=9, problems=3)})
        {'4': {'value': 0.5, 'low': 0.2, 'high': 0.8, 'rows': 9, 'problems': 3}}
    """
    if is_dataclass(value):
        return {field.name: to_json(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, Mapping):
        return {str(key): to_json(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [to_json(item) for item in value]
    return value


def from_json(kind: type[Record], values: Any) -> Record:
    """The record of a type from what `to_json` wrote.

    Args:
        kind: a dataclass whose fields are dataclasses, `dict`, `tuple[..., ...]`, `Literal`, `bool`, `int`, `float`,
            `str`, or unions of these with None.
        values: JSON's types.

    Raises:
        DataError: a field is missing, unknown or of another type; the message begins with its path.

    Example:
        >>> from codescaler_plugin.intervals import Mean
        >>> from_json(dict[int, float], {"4": 1})
        {4: 1.0}
        >>> from_json(Mean, {"value": 0.5, "low": "?"})
        Traceback (most recent call last):
            ...
        codescaler_plugin.errors.DataError: low: expected a number, not '?'
    """
    read: Record = _read(kind, values, "")
    return read


def _read(kind: Any, value: Any, path: str) -> Any:
    origin, arguments = get_origin(kind), get_args(kind)
    if origin in (Union, UnionType):
        return _read_union(arguments, value, path)
    if origin is Literal:
        _expect(value in arguments, f"one of {', '.join(map(str, arguments))}", value, path)
        return value
    if origin is dict:
        _expect(isinstance(value, dict), "an object", value, path)
        return {
            _read_key(arguments[0], key, path): _read(arguments[1], item, _joined(path, key))
            for key, item in value.items()
        }
    if origin is tuple:
        _expect(isinstance(value, list | tuple), "a list", value, path)
        return tuple(_read(arguments[0], item, _joined(path, number)) for number, item in enumerate(value))
    if is_dataclass(kind):
        return _read_dataclass(kind, value, path)
    return _read_scalar(kind, value, path)


def _read_union(kinds: tuple[Any, ...], value: Any, path: str) -> Any:
    """The value as the first type that takes it. A union of None and one type gives that type's own error."""
    if value is None and type(None) in kinds:
        return None
    *firsts, last = (kind for kind in kinds if kind is not type(None))
    for kind in firsts:
        try:
            return _read(kind, value, path)
        except DataError:
            continue
    return _read(last, value, path)


def _read_dataclass(kind: Any, value: Any, path: str) -> Any:
    _expect(isinstance(value, dict), "an object", value, path)
    hints, known = get_type_hints(kind), {field.name: field for field in fields(kind)}
    for name in value:
        if name not in known:
            raise DataError(f"{_joined(path, name)}: no such field is known")
    read = {}
    for name, field in known.items():
        if name in value:
            read[name] = _read(hints[name], value[name], _joined(path, name))
        elif field.default is MISSING and field.default_factory is MISSING:
            raise DataError(f"{_joined(path, name)}: the field is missing")
    return kind(**read)


def _read_key(kind: Any, key: str, path: str) -> Any:
    """A key of an object, which JSON writes as text."""
    if kind in (int, float):
        try:
            return kind(key)
        except ValueError:
            raise DataError(f"{_joined(path, key)}: expected a number as the key") from None
    return _read(kind, key, path)


def _read_scalar(kind: Any, value: Any, path: str) -> Any:
    if kind is float:
        _expect(isinstance(value, int | float) and not isinstance(value, bool), "a number", value, path)
        _expect(-1e300 < value < 1e300, "a finite number", value, path)
        return float(value)
    names = {bool: "true or false", int: "a whole number", str: "text"}
    _expect(isinstance(value, kind) and not (kind is int and isinstance(value, bool)), names[kind], value, path)
    return value


def _expect(holds: bool, expected: str, value: Any, path: str) -> None:
    if not holds:
        raise DataError(f"{path or 'the record'}: expected {expected}, not {repr(value)[:80]}")


def _joined(path: str, name: Any) -> str:
    return f"{path}.{name}" if path else str(name)
