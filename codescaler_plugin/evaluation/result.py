"""What an evaluation returns: a typed record that is written as JSON, read back, and shown beside other models."""

import json
from abc import ABC, abstractmethod
from collections.abc import Mapping
from functools import cache
from typing import TYPE_CHECKING, Any, ClassVar, Self

from codescaler_plugin.errors import DataError
from codescaler_plugin.report.plots import COLOURS
from codescaler_plugin.report.sections import Section

if TYPE_CHECKING:
    from pydantic import TypeAdapter

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
    __pydantic_config__: ClassVar[Any] = {"extra": "forbid", "allow_inf_nan": False}  # of the parts, too

    @classmethod
    @abstractmethod
    def compare(cls, title: str, models: Mapping[str, Self], colours: Colours) -> Section:
        """A section with the results of one or more models side by side, by the label of the model."""

    def section(self, model: str = "model", title: str = "") -> Section:
        """A section of this result alone; the default of its title is `heading`."""
        return type(self).compare(title or self.heading, {model: self}, {model: COLOURS[0]})

    def to_json(self) -> dict[str, Any]:
        """The result as JSON's types: dataclasses and mappings as dicts with texts as keys, tuples as lists."""
        written: dict[str, Any] = _adapter(type(self)).dump_python(self, mode="json")
        return written

    @classmethod
    def from_json(cls, values: Any) -> Self:
        """The result from what `to_json` wrote; a `DataError` begins with the path of the field that does not fit."""
        from pydantic import ValidationError

        try:
            read: Self = _adapter(cls).validate_json(json.dumps(values), strict=True)
        except ValidationError as error:
            first = error.errors()[0]
            path = ".".join(map(str, first["loc"])) or cls.__name__
            raise DataError(f"{path}: {first['msg']}, not {repr(first['input'])[:80]}") from error
        return read


@cache
def _adapter(kind: type[Result]) -> "TypeAdapter[Any]":
    from pydantic import TypeAdapter

    return TypeAdapter(kind)
