"""Parses arguments and results of call tests as the graders of their data sets do.

| form | arguments | result |
|---|---|---|
| LiveCodeBench | one JSON value per line | a JSON value |
| APPS, TACO, DeepCoder, PRIME, verl | a list, or one JSON value per line | bare, or in a list; text may be JSON |

If a result can be read in two ways, one is expected and the other is accepted.
"""

from typing import Any

from codescaler_plugin.data.rows import loads
from codescaler_plugin.errors import DataError
from codescaler_plugin.records import CallTest


def json_call(inputs: Any, output: Any) -> CallTest:
    """A test in the form of LiveCodeBench. An output that is not JSON is taken as a string."""
    return CallTest(_arguments(inputs), _json_or_text(output))


def apps_call(inputs: Any, output: Any) -> CallTest:
    """A test in the form of APPS, whose result may be wrapped in a list of one; see the table above.

    A single dict gets integer keys if all its keys are integers, because JSON has only strings as keys.
    """
    arguments = _arguments(inputs)
    are_json = isinstance(inputs, str) and arguments != (inputs,)
    readings = [_json_or_text(output)]
    if isinstance(output, str) and not are_json:
        readings.append(output)  # if the arguments are not JSON, text that looks like JSON may be the result itself
    if len(arguments) == 1:
        arguments = (_integer_keys(arguments[0]),)
    readings = [inner for outer in readings for inner in _unwrapped(outer)]
    distinct = {repr(typed): typed for value in readings for typed in _with_integer_keys(value)}  # since 1 == True
    expected, *others = distinct.values()
    return CallTest(arguments, expected, tuple(others))


def _arguments(inputs: Any) -> tuple[Any, ...]:
    if isinstance(inputs, list):
        return tuple(inputs)
    if not isinstance(inputs, str):
        return (inputs,)
    try:
        return tuple(loads(line) for line in inputs.split("\n") if line.strip())
    except ValueError:
        return (inputs,)


def _json_or_text(value: Any) -> Any:
    try:
        return loads(value) if isinstance(value, str) else value
    except ValueError:
        return value


def _unwrapped(value: Any) -> list[Any]:
    """The readings of a result: a list of one may be the result or hold it."""
    return [value[0], value] if isinstance(value, list) and len(value) == 1 else [value]


def _with_integer_keys(value: Any) -> list[Any]:
    turned = _integer_keys(value)
    return [value] if turned is value else [turned, value]


def _integer_keys(value: Any) -> Any:
    try:
        return {int(key): item for key, item in value.items()} if isinstance(value, dict) and value else value
    except ValueError:
        return value


def paired(inputs: Any, outputs: Any) -> list[tuple[Any, Any]]:
    """Pairs of an input and its output."""
    inputs, outputs = inputs or [], outputs or []
    if len(inputs) != len(outputs):
        raise DataError(f"{len(inputs)} inputs and {len(outputs)} outputs: expected one each")
    return list(zip(inputs, outputs, strict=True))
