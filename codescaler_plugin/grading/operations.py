"""What tests do with a candidate's objects, by name: asked for in one process and done in another.

`DO` holds what the candidate's side does; `METHODS` says which special method of a stand-in asks for which of them. In
`DECIDING` an object of the candidate meets a value of the tests and could decide about it: an `__eq__` that is always
true, a `__sub__` that is always 0.
"""

import math
import operator
from collections.abc import Callable
from typing import Any

_COMPARISONS = ("eq", "ne", "lt", "le", "gt", "ge")
_BINARY = ("add", "sub", "mul", "matmul", "truediv", "floordiv", "mod", "pow", "lshift", "rshift", "and", "or", "xor")
_UNARY = ("neg", "pos", "abs", "invert", "index")
_BUILTIN: dict[str, Callable[..., Any]] = {
    "next": next,
    "iter": iter,
    "len": len,
    "str": str,
    "repr": repr,
    "format": format,
    "bool": bool,
    "int": int,
    "float": float,
    "complex": complex,
    "round": round,
    "reversed": reversed,
    "bytes": bytes,
    "trunc": math.trunc,
    "floor": math.floor,
    "ceil": math.ceil,
}


def _of_operator(name: str) -> Callable[..., Any]:
    function: Callable[..., Any] = getattr(operator, f"__{name}__")
    return function


def _reflected(function: Callable[..., Any]) -> Callable[..., Any]:
    return lambda subject, other: function(other, subject)


DO: dict[str, Callable[..., Any]] = {
    **_BUILTIN,
    **{name: _of_operator(name) for name in (*_COMPARISONS, *_BINARY, *_UNARY)},
    **{f"r{name}": _reflected(_of_operator(name)) for name in _BINARY},
    **{f"i{name}": _of_operator(f"i{name}") for name in _BINARY},
    "divmod": divmod,
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
