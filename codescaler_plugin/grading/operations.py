"""Operations on a program's objects, by name: tests ask for them in one process, and they are done in another.

`DO` is what the program's process does. `METHODS` says which special method of a stand-in asks for which operation. In
an operation of `DECIDING`, an object of the program meets a value of the tests and could decide about it: with an
`__eq__` that is always true, or a `__sub__` that is always 0.
"""

import math
import operator
from collections.abc import Callable
from typing import Any

_COMPARISONS = ("eq", "ne", "lt", "le", "gt", "ge")
_BINARY = ("add", "sub", "mul", "matmul", "truediv", "floordiv", "mod", "pow", "lshift", "rshift", "and", "or", "xor")
_UNARY = ("neg", "pos", "abs", "invert", "index")
_BUILTIN: tuple[Callable[..., Any], ...] = (
    *(next, iter, len, reversed, round, divmod, math.trunc, math.floor, math.ceil),
    *(str, repr, format, bytes, bool, int, float, complex),
)


def _reflected(function: Callable[..., Any]) -> Callable[..., Any]:
    return lambda subject, other: function(other, subject)


DO: dict[str, Callable[..., Any]] = {
    **{function.__name__: function for function in _BUILTIN},
    **{name: getattr(operator, f"__{name}__") for name in (*_COMPARISONS, *_BINARY, *_UNARY)},
    **{f"r{name}": _reflected(getattr(operator, f"__{name}__")) for name in _BINARY},
    **{f"i{name}": getattr(operator, f"__i{name}__") for name in _BINARY},
    "rdivmod": _reflected(divmod),
    "contains": operator.contains,
    "setitem": operator.setitem,
    "delitem": operator.delitem,
    "item": operator.getitem,
    "get": getattr,
    "set": setattr,
    "delete": delattr,
    "call": lambda subject, *arguments, **keywords: subject(*arguments, **keywords),
}
DECIDING = frozenset(
    {"divmod", "rdivmod", *_COMPARISONS, *(prefix + name for prefix in ("", "r", "i") for name in _BINARY)}
)
METHODS: dict[str, str] = {
    **{f"__{name}__": name for name in DO if name not in ("get", "set", "delete", "item", "call", "contains")},
    "__getitem__": "item",
}
